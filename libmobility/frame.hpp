// SPDX-License-Identifier: GPL-2.0-or-later
// Frames on a stream: four bytes of length in network order, then as many bytes
// of a message. A reader holds at most one frame of the largest size, whatever
// the other end sends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tcpmigrate/result.hpp"

namespace mobility {

using tcpmigrate::Error;
using tcpmigrate::Result;

/// No message is longer, in bytes: about 4,000 connections of one pair.
constexpr std::size_t kMaxFrame = std::size_t{64} << 10;
constexpr std::size_t kFrameHead = 4;

/// The bytes of a frame around a message. EMSGSIZE if it is empty or too long.
Result<std::string> frame(std::string_view message);

/// Finds frames in a stream. After an error the stream cannot be read on.
class FrameReader {
  public:
    /// From now on no message may be longer than this, at most kMaxFrame.
    void limit(std::size_t longest) { longest_ = longest; }

    /// Takes received bytes. Whoever calls next() until there is no more before
    /// the next take() never makes it hold more than a frame beside what was taken.
    void take(std::span<const std::byte> bytes);

    /// The oldest complete message, which is removed, or nothing if more bytes are
    /// needed. EMSGSIZE if a head announces nothing, or more than the limit.
    Result<std::optional<std::string>> next();

    /// Bytes held, of messages complete or not.
    [[nodiscard]] std::size_t held() const { return buffer_.size() - start_; }

  private:
    /// The length that the head at the start of the buffer announces, if there.
    [[nodiscard]] std::optional<std::size_t> announced() const;

    std::string buffer_;
    std::size_t start_ = 0;  ///< what is before was given out
    std::size_t longest_ = kMaxFrame;
};

}  // namespace mobility
