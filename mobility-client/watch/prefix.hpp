// SPDX-License-Identifier: GPL-2.0-or-later
// Prefixes of IP addresses, as routes and rules have them.
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>

#include "tcpmigrate/types.hpp"

namespace mobility::watch {

using tcpmigrate::Address;

/// How many leading bits two addresses have in common; 0 if their families differ.
inline unsigned common_bits(const Address& a, const Address& b) {
    if (a.is_v6() != b.is_v6()) {
        return 0;
    }
    const auto [x, y] = std::ranges::mismatch(a.bytes(), b.bytes());
    const auto whole = static_cast<unsigned>(x - a.bytes().begin()) * 8;
    if (x == a.bytes().end()) {
        return whole;
    }
    return whole + static_cast<unsigned>(std::countl_zero(std::to_integer<std::uint8_t>(*x ^ *y)));
}

struct Prefix {
    Address address;
    std::uint8_t length = 0;  ///< 0: contains everything, of either family

    [[nodiscard]] bool contains(const Address& other) const {
        return length == 0 ||
               (other.is_v6() == address.is_v6() && common_bits(address, other) >= length);
    }
    auto operator<=>(const Prefix&) const = default;
};

}  // namespace mobility::watch
