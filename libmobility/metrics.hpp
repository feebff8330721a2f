// SPDX-License-Identifier: GPL-2.0-or-later
// What a daemon counts, for Prometheus: text over HTTP at /metrics, on a listener of its
// own that is meant for loopback. Whoever asks there can learn numbers, no names.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "libmobility/listener.hpp"

namespace mobility {

/// Puts numbers into Prometheus' text format.
class MetricsText {
  public:
    void gauge(const char* name, const char* help, std::uint64_t value);
    void counter(const char* name, const char* help, std::uint64_t value);
    /// Before labelled(): kind is "gauge" or "counter".
    void head(const char* name, const char* kind, const char* help);
    void labelled(const char* name, const char* label, const std::string& of, std::uint64_t value);
    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    std::string text_;
};

class MetricsListener {
  public:
    /// `text` gives what there is to say. The io_context has to have run dry before it goes.
    MetricsListener(boost::asio::io_context& io, std::function<std::string()> text);

    /// Where it listens, or why it cannot.
    tcpmigrate::Result<boost::asio::ip::tcp::endpoint> listen(
        const boost::asio::ip::tcp::endpoint& where) {
        return listener_.listen(where);
    }
    void stop() { listener_.stop(); }

  private:
    boost::asio::awaitable<void> serve(boost::asio::ip::tcp::socket socket);

    std::function<std::string()> text_;
    Listener listener_;
    std::size_t busy_ = 0;  ///< requests under way
};

}  // namespace mobility
