// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/listener.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <string>
#include <utility>

#include "libmobility/within.hpp"

namespace mobility {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::milliseconds kAfterError(100);

tcpmigrate::Result<tcp::acceptor> open_acceptor(asio::io_context& io, const tcp::endpoint& where) {
    boost::system::error_code failed;
    tcp::acceptor acceptor(io);
    acceptor.open(where.protocol(), failed);
    if (!failed) {
        acceptor.set_option(tcp::acceptor::reuse_address(true), failed);
    }
    if (!failed && where.address().is_v6()) {
        const asio::ip::v6_only only(where.address() != asio::ip::address_v6::any());
        acceptor.set_option(only, failed);
    }
    if (!failed) {
        acceptor.bind(where, failed);
    }
    if (!failed) {
        acceptor.listen(tcp::acceptor::max_listen_connections, failed);
    }
    if (failed) {
        return tcpmigrate::make_error(failed.value(),
                                      "cannot listen at " + where.address().to_string() + " port " +
                                          std::to_string(where.port()) + ": " + failed.message());
    }
    return acceptor;
}

}  // namespace

Listener::Listener(asio::io_context& io, OnSocket on_socket, OnError on_error)
    : io_(io), acceptor_(io), on_socket_(std::move(on_socket)), on_error_(std::move(on_error)) {}

tcpmigrate::Result<Listener::Endpoint> Listener::listen(const Endpoint& where) {
    auto opened = open_acceptor(io_, where);
    if (!opened) {
        return opened.error();
    }
    acceptor_ = std::move(*opened);
    asio::co_spawn(io_, accept_all(), asio::detached);
    return acceptor_.local_endpoint();
}

void Listener::stop() {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
}

asio::awaitable<void> Listener::accept_all() {
    while (acceptor_.is_open()) {
        auto [failed, socket] = co_await acceptor_.async_accept(kNoThrow);
        if (!acceptor_.is_open()) {
            co_return;
        }
        if (failed) {
            on_error_(failed);
            asio::steady_timer pause(io_, kAfterError);
            co_await pause.async_wait(kNoThrow);
            continue;
        }
        on_socket_(std::move(socket));
    }
}

}  // namespace mobility
