// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/frame.hpp"

#include <cerrno>

namespace mobility {

namespace {

bool bad_length(std::size_t length, std::size_t longest) {
    return length == 0 || length > longest;
}

tcpmigrate::Error length_error(std::size_t length, std::size_t longest) {
    return tcpmigrate::make_error(EMSGSIZE, "a message of " + std::to_string(length) +
                                                " bytes, where 1 to " + std::to_string(longest) +
                                                " are allowed");
}

}  // namespace

Result<std::string> frame(std::string_view message) {
    if (bad_length(message.size(), kMaxFrame)) {
        return length_error(message.size(), kMaxFrame);
    }
    std::string bytes;
    bytes.reserve(kFrameHead + message.size());
    for (int shift = 24; shift >= 0; shift -= 8) {
        bytes.push_back(static_cast<char>(message.size() >> shift & 0xff));
    }
    return bytes.append(message);
}

std::optional<std::size_t> FrameReader::announced() const {
    if (held() < kFrameHead) {
        return std::nullopt;
    }
    std::size_t length = 0;
    for (std::size_t i = 0; i < kFrameHead; i++) {
        length = length << 8 | static_cast<unsigned char>(buffer_[start_ + i]);
    }
    return length;
}

void FrameReader::take(std::span<const std::byte> bytes) {
    buffer_.erase(0, start_);
    start_ = 0;
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<std::optional<std::string>> FrameReader::next() {
    const auto length = announced();
    if (!length) {
        return std::optional<std::string>{};
    }
    if (bad_length(*length, longest_)) {
        return length_error(*length, longest_);
    }
    if (held() < kFrameHead + *length) {
        return std::optional<std::string>{};
    }
    std::optional message = buffer_.substr(start_ + kFrameHead, *length);
    start_ += kFrameHead + *length;
    if (held() == 0) {
        std::string().swap(buffer_);  // an idle channel holds none: there are many
        start_ = 0;
    }
    return message;
}

}  // namespace mobility
