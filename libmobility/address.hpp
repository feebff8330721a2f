// SPDX-License-Identifier: GPL-2.0-or-later
// IP addresses as sockets and people have them.
#pragma once

#include <boost/asio/ip/address.hpp>

namespace mobility {

/// An IPv4 address as one, where a socket of IPv6 gives it as IPv4-mapped.
inline boost::asio::ip::address plain(const boost::asio::ip::address& ip) {
    namespace ip_ = boost::asio::ip;
    return ip.is_v6() && ip.to_v6().is_v4_mapped()
               ? ip_::address(ip_::make_address_v4(ip_::v4_mapped, ip.to_v6()))
               : ip;
}

}  // namespace mobility
