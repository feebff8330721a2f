// SPDX-License-Identifier: GPL-2.0-or-later
// A socket that listens until it is stopped. What it accepts is handed over. That it could
// not accept, as for want of descriptors, is told and waited out: the next accept() would
// fail as well.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>

#include "tcpmigrate/result.hpp"

namespace mobility {

class Listener {
  public:
    using Endpoint = boost::asio::ip::tcp::endpoint;
    using OnSocket = std::function<void(boost::asio::ip::tcp::socket)>;
    using OnError = std::function<void(const boost::system::error_code&)>;

    /// The io_context has to have run dry before the Listener goes.
    Listener(boost::asio::io_context& io, OnSocket on_socket, OnError on_error);

    /// Listens there; port 0 is any, and [::] is for IPv4 as well. Where it listens, or why
    /// it cannot: the error names the address.
    tcpmigrate::Result<Endpoint> listen(const Endpoint& where);
    void stop();

  private:
    boost::asio::awaitable<void> accept_all();

    boost::asio::io_context& io_;
    boost::asio::ip::tcp::acceptor acceptor_;
    OnSocket on_socket_;
    OnError on_error_;
};

}  // namespace mobility
