// SPDX-License-Identifier: GPL-2.0-or-later
// What the proxy has to know of its relays after a restart, however it ended: kept by the
// kernel, in a pinned map beside those of the data path. Flows go on meanwhile; who comes
// back reads here what they are for. What of it is needed seldom is kept nowhere else.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datapath/data_path.hpp"
#include "libmobility/identity.hpp"
#include "relay/segment.hpp"

namespace mobility::proxy {

/// An endpoint in 18 bytes; there are many.
class Place {
  public:
    Place() = default;
    Place(const Endpoint& endpoint);  // NOLINT(google-explicit-constructor): the same thing
    operator Endpoint() const;        // NOLINT(google-explicit-constructor)
    [[nodiscard]] std::uint16_t port() const { return port_; }

    std::strong_ordering operator<=>(const Place&) const = default;
    bool operator==(const Place&) const = default;
    bool operator==(const Endpoint& other) const { return *this == Place(other); }

  private:
    std::array<std::uint8_t, 16> address_{};  ///< IPv4 as IPv4-mapped
    std::uint16_t port_ = 0;
};

/// What of an MSYN's options is kept.
class SynOptions {
  public:
    static constexpr std::size_t kMost = 12;

    SynOptions() = default;
    SynOptions(View bytes);  // NOLINT(google-explicit-constructor): the same thing
    [[nodiscard]] View bytes() const { return View(bytes_).first(size_); }

    bool operator==(const SynOptions&) const = default;

  private:
    std::array<std::uint8_t, kMost> bytes_{};
    std::uint8_t size_ = 0;
};

/// One end of a connection, as it was ordered and as it was found.
struct RecordedEnd {
    Name host;
    std::uint32_t token = 0;     ///< that its requests name
    Place inner;                 ///< before any translation
    std::optional<Place> place;  ///< where it is seen
    SynOptions syn_options;      ///< of its MSYN

    bool operator==(const RecordedEnd&) const = default;
};

struct Record {
    Endpoint proxy;  ///< address and port that both ends speak to
    std::array<RecordedEnd, 2> ends;

    bool operator==(const Record&) const = default;
};

class Journal {
  public:
    /// Makes or finds the map; `pins` as in DataPathOptions.
    static Result<std::unique_ptr<Journal>> open(const std::string& pins, std::size_t most);

    /// What is kept there is lost.
    static void unpin(const std::string& pins);
    virtual ~Journal() = default;
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    /// Replaces what there is for this endpoint of the proxy. ENOSPC if it is full.
    virtual Result<void> put(const Record& record) = 0;
    virtual void remove(const Endpoint& proxy) = 0;
    [[nodiscard]] virtual std::optional<Record> get(const Endpoint& proxy) const = 0;
    [[nodiscard]] virtual std::vector<Record> all() const = 0;

  protected:
    Journal() = default;
};

}  // namespace mobility::proxy
