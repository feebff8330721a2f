// SPDX-License-Identifier: GPL-2.0-or-later
// Addresses and ports as the kernel's family has them, and as Asio does.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "libmobility/address.hpp"
#include "tcpmigrate/types.hpp"

namespace mobility::client {

inline boost::asio::ip::address to_asio(const tcpmigrate::Address& address) {
    const auto bytes = address.bytes();
    if (!address.is_v6()) {
        boost::asio::ip::address_v4::bytes_type v4{};
        std::memcpy(v4.data(), bytes.data(), v4.size());
        return boost::asio::ip::address_v4(v4);
    }
    boost::asio::ip::address_v6::bytes_type v6{};
    std::memcpy(v6.data(), bytes.data(), v6.size());
    return boost::asio::ip::address_v6(v6);
}

/// Without a zone; an IPv4-mapped address is an IPv4 one.
inline tcpmigrate::Address to_kernel(const boost::asio::ip::address& address) {
    const auto ip = plain(address);
    if (ip.is_v4()) {
        const auto v4 = ip.to_v4().to_bytes();
        return *tcpmigrate::Address::from_bytes(std::as_bytes(std::span(v4)));
    }
    const auto v6 = ip.to_v6().to_bytes();
    return *tcpmigrate::Address::from_bytes(std::as_bytes(std::span(v6)));
}

/// The peer's port as the peer sees it.
inline std::uint16_t inner_port(const tcpmigrate::Connection& connection) {
    const auto inner = connection.peer_inner ? connection.peer_inner->port : std::uint16_t{0};
    return inner != 0 ? inner : connection.remote.port;
}

}  // namespace mobility::client
