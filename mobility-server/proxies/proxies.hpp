// SPDX-License-Identifier: GPL-2.0-or-later
// Channels to symmetric proxies, from which relays are ordered: one to each that is
// configured, made again when it ends; Orders says who is given what.
//
//     wanted --connect, TLS, Greeting--> Ready: given orders --ends--> again, ever later
//                                        | Declined, or another version: again, ever later
//
// Single-threaded: everything runs on the io_context, which must outlive it and has to have
// run dry after stop() before it goes.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libmobility/channel.hpp"
#include "libmobility/log.hpp"
#include "proxies/orders.hpp"

namespace mobility::server {

struct ProxyPlace {
    boost::asio::ip::tcp::endpoint address;
    Name name;

    bool operator==(const ProxyPlace&) const = default;
};

struct ProxyConfig {
    std::vector<ProxyPlace> places;
    OrderLimits limits;
    Duration retry = std::chrono::seconds(1);  ///< after a failure; doubles
    Duration retry_longest = std::chrono::seconds(60);
    Duration introduction = std::chrono::seconds(10);  ///< for connecting, TLS and Ready

    bool operator==(const ProxyConfig&) const = default;
};

/// What has happened since the start.
struct ProxyCounters {
    std::uint64_t ready = 0;   ///< channels that were
    std::uint64_t failed = 0;  ///< ... that did not become so
    std::uint64_t ended = 0;   ///< ... that were ready
};

class Proxies {
  public:
    /// Whom its answers are for.
    struct Customer {
        Orders::Wanted wanted;
        std::function<void(const Reserved&)> reserved;
        std::function<void(std::uint64_t number)> failed;
        std::function<void(const Met&, const Ready& by)> met;
    };
    /// What there is to see of a proxy.
    struct Seen {
        ProxyPlace place;
        bool ready = false;
        Load load;  ///< if it is
        std::uint32_t failures = 0;
        std::string why;  ///< of the last one
    };

    /// Tls outlives it.
    Proxies(boost::asio::io_context& io, const Tls& tls, Customer customer, Log log);
    ~Proxies();
    Proxies(const Proxies&) = delete;
    Proxies& operator=(const Proxies&) = delete;

    /// These from now on: those that are there already stay as they are.
    void configure(const ProxyConfig& config);
    /// The customer is told what comes of it, perhaps before this returns.
    void order(const Wish& wish);
    void stop();

    [[nodiscard]] std::vector<Seen> seen() const;
    [[nodiscard]] const Orders& orders() const { return orders_; }
    [[nodiscard]] const ProxyCounters& counters() const { return counters_; }

  private:
    struct Link;
    using LinkPtr = std::shared_ptr<Link>;

    void drop(const LinkPtr& link);
    boost::asio::awaitable<void> run(LinkPtr link);
    Awaitable<Ready> join(LinkPtr link);
    Awaitable<std::unique_ptr<Channel>> connect(LinkPtr link);
    Awaitable<void> listen_to(const LinkPtr& link);
    /// False if the channel has to end.
    Result<void> take(const LinkPtr& link, const FromProxy& message);
    boost::asio::awaitable<void> close(LinkPtr link);
    boost::asio::awaitable<void> pause(LinkPtr link, Time since);
    void act(const Orders::Dealt& dealt);
    void send(const LinkPtr& link, const Order& order);
    boost::asio::awaitable<void> write_all(LinkPtr link);
    void arm();
    [[nodiscard]] LinkPtr find(ProxyId id) const;

    boost::asio::io_context& io_;
    const Tls& tls_;
    Customer customer_;
    Log log_;
    ProxyConfig config_;
    Orders orders_;
    ProxyCounters counters_;
    std::list<LinkPtr> links_;
    ProxyId last_ = 0;
    boost::asio::steady_timer timer_;
    bool stopping_ = false;
};

}  // namespace mobility::server
