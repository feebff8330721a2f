// SPDX-License-Identifier: GPL-2.0-or-later
// Bytes to be hashed or signed, put together. A label comes first, which says what
// they are for, so that none of them means something elsewhere; all that follows has
// a length of its own, so that two different things never give the same bytes.
#pragma once

#include <array>
#include <boost/asio/ip/address.hpp>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mobility {

class Bytes {
  public:
    explicit Bytes(std::string_view label) : bytes_(label.begin(), label.end()) {}

    template <typename Range>
    Bytes& add(const Range& range) {
        bytes_.insert(bytes_.end(), range.begin(), range.end());
        return *this;
    }
    Bytes& add(std::uint8_t byte) {
        bytes_.push_back(byte);
        return *this;
    }
    /// Sixteen bytes; an IPv4 address as an IPv4-mapped one.
    Bytes& add(const boost::asio::ip::address& address) {
        using boost::asio::ip::make_address_v6;
        using boost::asio::ip::v4_mapped;
        return add(address.is_v6() ? address.to_v6().to_bytes()
                                   : make_address_v6(v4_mapped, address.to_v4()).to_bytes());
    }
    /// Seconds since 1970, 64 bits in network order.
    Bytes& add(std::chrono::sys_seconds time) {
        const auto seconds = static_cast<std::uint64_t>(time.time_since_epoch().count());
        std::array<std::uint8_t, sizeof(seconds)> bytes{};
        for (std::size_t i = 0; i < bytes.size(); i++) {
            bytes.at(i) = static_cast<std::uint8_t>(seconds >> (56 - 8 * i));
        }
        return add(bytes);
    }
    [[nodiscard]] const std::vector<std::uint8_t>& get() const { return bytes_; }

  private:
    std::vector<std::uint8_t> bytes_;
};

}  // namespace mobility
