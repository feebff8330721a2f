// SPDX-License-Identifier: GPL-2.0-or-later
// The server's memory and its acts: takes what hosts say, keeps the last report of
// either end of a pair, has the pair judged when both are there, and goes through the
// plan of that judgement step by step (A2.2, A2.4, A2.7 to A2.9). It knows channels
// only by number and time only as it is told, and gives out what is to be sent: all
// of it can be tested without a socket or a clock.
//
//     nothing --report--> one end --the other's--> judged: step 0, 1, ... --> forgotten
//                          |  ask the other,                |  a step succeeds: forget
//                          |  "peer silent" if it stays so  |  fails, or no word in time: next
//
// Where a relay is needed one is ordered (A3.1): the step waits for the proxy's ports, then
// both ends are told, and both have to resume. Who orders it, and from which proxy, is
// another's matter; what comes of an order whose pair was judged anew is ignored.
//
// Bounded: reports of one host, pairs in all, one order of each, and the time that a pair is kept.
// A pair is counted for who reports about it, never for who is reported about.
// Not thread-safe.
#pragma once

#include <array>
#include <boost/asio/ip/address.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "exchange/crossings.hpp"
#include "exchange/types.hpp"
#include "judge/judge.hpp"
#include "libmobility/message.hpp"

namespace mobility::server {

/// What is to be sent, and on which channel.
struct Said {
    ChannelId channel = 0;
    ToHost message;

    bool operator==(const Said&) const = default;
};
using Saying = std::vector<Said>;

/// A relay that is wanted.
struct Wish {
    Order order;
    /// Of the proxy that may have it already.
    std::optional<boost::asio::ip::address> rather;

    bool operator==(const Wish&) const = default;
};

/// What has happened since the start.
struct Counters {
    std::uint64_t reports = 0;
    std::uint64_t judgements = 0;
    std::uint64_t notices = 0;
    std::uint64_t resumed = 0;
    std::uint64_t orders = 0;     ///< of relays for a pair
    std::uint64_t relayed = 0;    ///< pairs that have resumed through a proxy
    std::uint64_t crossings = 0;  ///< times that two were told to try without it
    std::uint64_t crossed = 0;    ///< pairs that go on without
    std::uint64_t verdicts = 0;
    std::uint64_t refused = 0;
};

class Exchange {
  public:
    /// Of a channel, the shortest of late; 0 if not known.
    using Rtt = std::function<Duration(ChannelId)>;

    explicit Exchange(const Limits& limits, Rtt rtt = {}) : limits_(limits), rtt_(std::move(rtt)) {}

    /// An admitted host has opened a channel; it may have several. Numbers are not reused.
    void join(ChannelId channel, const Name& host);
    /// The channel is closed. What was reported on it stays.
    void leave(ChannelId channel);

    /// `seen`: the address from which it came; `rtt`: of the channel, 0 if not known.
    Saying report(ChannelId channel, const boost::asio::ip::address& seen, Duration rtt,
                  const Report& report, Time now);
    Saying outcome(ChannelId channel, const Outcome& outcome, Time now);
    Saying forget(ChannelId channel, const Forget& forget, Time now);

    /// What is to be ordered, of all that was called since.
    [[nodiscard]] std::vector<Wish> take_wishes() { return std::exchange(wishes_, {}); }
    /// Has it a use to go on with this order?
    [[nodiscard]] bool waits_for(std::uint64_t order) const { return orders_.contains(order); }
    /// A proxy has taken it.
    Saying reserved(const Reserved& reserved, Time now);
    /// None has.
    Saying no_proxy(std::uint64_t order);
    /// A proxy, which says this of itself, has met ends.
    void met(const Met& met, const Ready& by, Time now);

    /// Does what is due. Call it when next() says so.
    Saying expire(Time now);
    [[nodiscard]] std::optional<Time> next() const;

    /// For what happens from now on; what is beyond them stays.
    void set_limits(const Limits& limits) { limits_ = limits; }
    [[nodiscard]] const Limits& limits() const { return limits_; }
    [[nodiscard]] std::size_t pairs() const { return pairs_.size(); }
    [[nodiscard]] const Counters& counters() const { return counters_; }

  private:
    /// What one end has said last.
    struct Side {
        Name host;
        std::optional<judge::Report> report;
        ChannelId channel = 0;
        Duration rtt{};
    };
    struct Pair {
        std::array<Side, 2> sides;
        std::size_t last = 0;  ///< which of them reported last
        std::uint32_t judgement = 0;
        std::vector<judge::Step> plan;
        std::array<std::size_t, 2> order{};  ///< sides as the judgement numbers them
        std::size_t step = 0;
        std::size_t waiting = 0;        ///< for so many outcomes of this step
        std::uint64_t ordered = 0;      ///< the relay of this step that was; 0: none is awaited
        Time relay_told{};              ///< when both were told of it
        std::array<bool, 2> resumed{};  ///< sides that have, through it
        std::optional<boost::asio::ip::address> proxy;  ///< that has reserved for them last
        std::optional<Time> asked;                      ///< when the silent side was
        std::optional<Time> deadline;                   ///< of the step, or of the silent side
        Time end;                                       ///< when it is forgotten

        [[nodiscard]] Time due() const { return deadline && *deadline < end ? *deadline : end; }
        /// Is a relay ordered, or are both told of one?
        [[nodiscard]] bool relaying() const {
            return step < plan.size() && judge::Judgement::is_relay(plan[step]);
        }
        [[nodiscard]] std::optional<std::size_t> side_of(const Name& host) const;
    };
    struct Host {
        std::set<ChannelId> channels;
        std::size_t pairs = 0;  ///< about which it has reported
    };
    using Pairs = std::map<PairId, Pair>;
    using Hosts = std::map<Name, Host>;

    Said refuse(ChannelId channel, Refused::Why why, const char* text, const PairId& pair);
    /// Is there room for this host to report about this pair?
    std::optional<Refused::Why> no_room(const Name& host, const PairId& id) const;
    std::optional<ChannelId> channel_of(const Name& host, ChannelId rather) const;
    void tell(Saying& out, const Side& side, ToHost message);
    void ask(Saying& out, const PairId& id, Pair& pair, Time now);
    void judge_now(Saying& out, Pairs::iterator at, Time now);
    /// Tells this step's notices, or orders its relay; whoever cannot be told lets its time run
    /// out. At the end of the plan the verdict.
    void begin_step(Saying& out, Pairs::iterator at, Time now);
    void tell_step(Saying& out, Pairs::iterator at, const judge::Step& step);
    void order_relay(Saying& out, Pairs::iterator at, Time now);
    void withdraw(Pair& pair);
    /// Does this repeat what a relay is being made for?
    [[nodiscard]] bool is_repeated(const Pair& pair, const Side& side, ChannelId channel,
                                   const judge::Report& report, Time now) const;
    Saying relay_outcome(Pairs::iterator at, std::size_t side, bool resumed, Time now);
    /// Has both begin at one moment, wherever their words get to them when.
    void cross(Saying& out, const Crossings::Moment& moment);
    /// Tells both ends, and forgets the pair.
    void verdict(Saying& out, Pairs::iterator at, Verdict::What what);
    void erase(Pairs::iterator at);
    /// A host without channels about which nothing is kept.
    void erase_if_gone(Hosts::iterator host);
    /// Changes a pair and keeps due_ in order.
    template <typename Change>
    void change(Pairs::iterator at, Change change);

    Limits limits_;
    Rtt rtt_;
    Counters counters_;
    Crossings crossings_;
    Pairs pairs_;
    std::set<std::pair<Time, PairId>> due_;
    Hosts hosts_;
    std::unordered_map<ChannelId, Name> channels_;
    std::uint32_t judgements_ = 0;
    std::vector<Wish> wishes_;
    std::map<std::uint64_t, PairId> orders_;  ///< that are awaited
    std::uint64_t last_order_ = 0;
};

}  // namespace mobility::server
