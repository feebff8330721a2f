// SPDX-License-Identifier: GPL-2.0-or-later
// Bytes to be hashed or signed, put together. A label comes first, which says what
// they are for, so that none of them means something elsewhere; all that follows has
// a length of its own, so that two different things never give the same bytes.
#pragma once

#include <boost/asio/ip/address.hpp>
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
    [[nodiscard]] const std::vector<std::uint8_t>& get() const { return bytes_; }

  private:
    std::vector<std::uint8_t> bytes_;
};

}  // namespace mobility
