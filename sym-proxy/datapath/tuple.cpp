// SPDX-License-Identifier: GPL-2.0-or-later
#include "tuple.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace mobility::proxy {

namespace {

namespace ip = boost::asio::ip;

Address to_address(std::span<const std::uint8_t, 16> from) {
    ip::address_v6::bytes_type bytes{};
    std::copy(from.begin(), from.end(), bytes.begin());
    const ip::address_v6 v6(bytes);
    return v6.is_v4_mapped() ? Address(ip::make_address_v4(ip::v4_mapped, v6)) : Address(v6);
}

std::uint32_t add(std::uint32_t sum, std::uint32_t value) {
    sum += value;
    return sum < value ? sum + 1 : sum;
}

/// What `to` in the place of `from` adds to a checksum; words in the order of memory.
std::uint32_t change(std::span<const std::uint8_t> from, std::span<const std::uint8_t> to) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < from.size(); i += sizeof(sum)) {
        std::uint32_t word = 0;
        std::memcpy(&word, from.subspan(i).data(), sizeof(word));
        sum = add(sum, ~word);
        std::memcpy(&word, to.subspan(i).data(), sizeof(word));
        sum = add(sum, word);
    }
    return sum;
}

}  // namespace

void put_address(const Address& address, std::span<std::uint8_t, 16> to) {
    const auto bytes =
        (address.is_v4() ? ip::make_address_v6(ip::v4_mapped, address.to_v4()) : address.to_v6())
            .to_bytes();
    std::copy(bytes.begin(), bytes.end(), to.begin());
}

flow_key to_key(const Tuple& tuple) {
    flow_key key{};
    put_address(tuple.from.address, key.src);
    put_address(tuple.to.address, key.dst);
    key.sport = htons(tuple.from.port);
    key.dport = htons(tuple.to.port);
    return key;
}

Tuple to_tuple(const flow_key& key) {
    return {{to_address(key.src), ntohs(key.sport)}, {to_address(key.dst), ntohs(key.dport)}};
}

flow make_flow(const Tuple& in, const Tuple& out, std::uint32_t relay) {
    const flow_key from = to_key(in);
    const flow_key to = to_key(out);
    flow made{};
    std::copy(std::begin(to.dst), std::end(to.dst), std::begin(made.dst));
    made.sport = to.sport;
    made.dport = to.dport;
    made.relay = static_cast<__u16>(relay);
    const auto* old = reinterpret_cast<const std::uint8_t*>(&from);
    const auto* now = reinterpret_cast<const std::uint8_t*>(&to);
    constexpr std::size_t ports = offsetof(flow_key, sport);
    made.sum_addresses = change({old, ports}, {now, ports});
    made.sum_ports = change({old + ports, 4}, {now + ports, 4});
    return made;
}

Tuple out_of(const flow_key& key, const flow& flow) {
    return {{to_address(key.dst), ntohs(flow.sport)}, {to_address(flow.dst), ntohs(flow.dport)}};
}

}  // namespace mobility::proxy
