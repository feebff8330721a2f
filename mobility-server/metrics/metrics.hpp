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
    MetricsListener(boost::asio::io_context& io, const Service& service);

    /// Where it listens, or why it cannot.
    Result<boost::asio::ip::tcp::endpoint> listen(const boost::asio::ip::tcp::endpoint& where) {
        return listener_.listen(where);
    }
    void stop() { listener_.stop(); }

  private:
    boost::asio::awaitable<void> serve(boost::asio::ip::tcp::socket socket);

    const Service& service_;
    Listener listener_;
    std::size_t busy_ = 0;  ///< requests under way
};

}  // namespace mobility::server
