// SPDX-License-Identifier: GPL-2.0-or-later
// Which proxy is given which order (A3.1): the one of which the most is free, and the next one
// if it declines, does not answer in time, or is gone. Knows proxies only by number and time
// only as it is told, and gives out what is to be sent: see Proxies for the sockets.
//
//     order --to the best--> out --Reserved--> done
//                             |  declined, gone, or no word in time: to the next best
//                             v  none is left: failed
//
// A proxy that has not answered in time may do so while another one is asked: the first
// answer counts. What is reserved and not used ends there by itself.
//
// Bounded: orders without an answer, in all and of one proxy. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "exchange/exchange.hpp"
#include "libmobility/proxy_message.hpp"

namespace mobility::server {

/// Of a proxy that is configured; stays the same when it is connected to again.
using ProxyId = std::uint64_t;

struct OrderLimits {
    std::size_t orders = 1000;                    ///< without an answer, in all
    std::size_t orders_per_proxy = 200;           ///< ... of one proxy
    Duration patience = std::chrono::seconds(2);  ///< for an answer

    bool operator==(const OrderLimits&) const = default;
};

/// What has happened since the start.
struct OrderCounters {
    std::uint64_t ordered = 0;  ///< orders that proxies were given
    std::uint64_t reserved = 0;
    std::array<std::uint64_t, 8> declined{};  ///< by Declined::Why
    std::uint64_t unanswered = 0;             ///< in time
    std::uint64_t bad = 0;                    ///< answers that cannot be
    std::uint64_t late = 0;                   ///< answers for which nobody waits
    std::uint64_t crowded = 0;                ///< wishes that were one too many
    std::uint64_t failed = 0;                 ///< wishes that no proxy took; those included
};

class Orders {
  public:
    /// Is the answer still of use?
    using Wanted = std::function<bool(std::uint64_t number)>;
    /// What comes of something that has happened.
    struct Dealt {
        std::vector<std::pair<ProxyId, Order>> send;
        std::vector<Reserved> reserved;
        std::vector<std::uint64_t> failed;                          ///< numbers
        std::vector<std::pair<ProxyId, std::uint64_t>> unanswered;  ///< to be told in the log
    };
    /// What there is to see of a proxy that is ready.
    struct Proxy {
        Ready ready;
        std::size_t out = 0;     ///< orders that wait for its answer
        bool silent = false;     ///< has not answered one in time, nor said anything since
        std::uint64_t turn = 0;  ///< when it was given the last one
    };

    Orders(const OrderLimits& limits, Wanted wanted)
        : limits_(limits), wanted_(std::move(wanted)) {}

    /// It can be given orders from now on.
    void ready(ProxyId proxy, const Ready& ready);
    void load(ProxyId proxy, const Load& load);
    /// It cannot any more.
    Dealt gone(ProxyId proxy, Time now);

    Dealt order(const Wish& wish, Time now);
    Dealt reserved(ProxyId proxy, const Reserved& reserved, Time now);
    Dealt declined(ProxyId proxy, const Declined& declined, Time now);

    /// Does what is due. Call it when next() says so.
    Dealt expire(Time now);
    [[nodiscard]] std::optional<Time> next() const;

    void set_limits(const OrderLimits& limits) { limits_ = limits; }
    [[nodiscard]] std::size_t out() const { return out_.size(); }
    /// Null if it is not ready.
    [[nodiscard]] const Proxy* find(ProxyId proxy) const;
    [[nodiscard]] const OrderCounters& counters() const { return counters_; }

  private:
    /// An order without an answer.
    struct Out {
        Wish wish;
        ProxyId at = 0;
        std::set<ProxyId> asked;
        Time deadline;
    };
    using Outs = std::map<std::uint64_t, Out>;

    /// The best of those that were not asked.
    [[nodiscard]] std::optional<ProxyId> choose(const Out& out) const;
    /// To the next proxy, if there is one and somebody waits for it.
    void pass_on(Dealt& dealt, Outs::iterator at, Time now);
    void leave(const Out& out);
    /// The proxy lives.
    void heard(ProxyId proxy);
    [[nodiscard]] bool is_good(const Reserved& reserved, const Proxy& proxy, const Out& out) const;

    OrderLimits limits_;
    Wanted wanted_;
    OrderCounters counters_;
    std::map<ProxyId, Proxy> proxies_;
    Outs out_;
    std::uint64_t turn_ = 0;
};

}  // namespace mobility::server
