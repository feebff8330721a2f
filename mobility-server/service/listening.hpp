// SPDX-License-Identifier: GPL-2.0-or-later
// Sockets that listen.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>

#include "tcpmigrate/result.hpp"

namespace mobility::server {

/// After an accept() that has failed, as for want of descriptors: the next would too.
constexpr std::chrono::milliseconds kAfterAcceptError(100);

/// Listens there; at [::] for IPv4 as well. The error names the address.
tcpmigrate::Result<boost::asio::ip::tcp::acceptor> open_acceptor(
    boost::asio::io_context& io, const boost::asio::ip::tcp::endpoint& where);

}  // namespace mobility::server
