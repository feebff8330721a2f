// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/source.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <tuple>

namespace mobility::watch {

namespace {

struct Labelled {
    std::array<unsigned char, 4> start;  ///< of the prefix
    unsigned length;
    int label;
};

/// RFC 6724, section 2.1, as far as it concerns addresses that hosts move between.
constexpr std::array<Labelled, 5> kLabels{{
    {{0x20, 0x01, 0x00, 0x00}, 32, 5},   // Teredo
    {{0x20, 0x02, 0x00, 0x00}, 16, 2},   // 6to4
    {{0x3f, 0xfe, 0x00, 0x00}, 16, 12},  // 6bone
    {{0xfe, 0xc0, 0x00, 0x00}, 10, 11},  // site-local
    {{0xfc, 0x00, 0x00, 0x00}, 7, 13},   // unique local
}};
constexpr int kGlobalLabel = 1;

int label(const Address& address) {
    const auto bytes = address.bytes();
    for (const auto& row : kLabels) {
        std::array<std::byte, 16> prefix{};
        std::ranges::transform(row.start, prefix.begin(),
                               [](unsigned char c) { return std::byte{c}; });
        if (common_bits(*Address::from_bytes(prefix), address) >= row.length &&
            bytes.size() == 16) {
            return row.label;
        }
    }
    return kGlobalLabel;
}

/// Lower is better.
auto merit_v6(const Place& place, const Address& peer) {
    const auto common = std::min<unsigned>(common_bits(place.address, peer), place.length);
    return std::tuple(label(place.address) != label(peer),
                      place.temporary != place.prefers_temporary, -static_cast<int>(common));
}

auto merit_v4(const Place& place, const Address& peer, const Route& route) {
    const Prefix subnet{place.address, place.length};
    return std::tuple(!subnet.contains(route.gateway.value_or(peer)), place.secondary);
}

}  // namespace

bool better_source(const Place& a, const Place& b, const Address& peer, const Route& route) {
    if ((route.source == a.address) != (route.source == b.address)) {
        return route.source == a.address;
    }
    return a.address.is_v6() ? merit_v6(a, peer) < merit_v6(b, peer)
                             : merit_v4(a, peer, route) < merit_v4(b, peer, route);
}

}  // namespace mobility::watch
