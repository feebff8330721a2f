// SPDX-License-Identifier: GPL-2.0-or-later
// What the server counts, for Prometheus: text over HTTP at /metrics, on a listener of
// its own that is meant for loopback. Whoever asks there can learn numbers, no names.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <string>

#include "service/service.hpp"

namespace mobility::server {

/// Everything, in Prometheus' text format.
std::string metrics_text(const Service& service);

class MetricsListener {
  public:
    /// Both must outlive it, and the io_context has to have run dry before it goes.
    MetricsListener(boost::asio::io_context& io, const Service& service)
        : io_(io), service_(service), acceptor_(io) {}

    /// Where it listens, or why it cannot.
    Result<boost::asio::ip::tcp::endpoint> listen(const boost::asio::ip::tcp::endpoint& where);
    void stop();

  private:
    boost::asio::awaitable<void> accept_all();
    boost::asio::awaitable<void> serve(boost::asio::ip::tcp::socket socket);

    boost::asio::io_context& io_;
    const Service& service_;
    boost::asio::ip::tcp::acceptor acceptor_;
    std::size_t busy_ = 0;  ///< requests under way
};

}  // namespace mobility::server
