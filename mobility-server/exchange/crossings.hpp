// SPDX-License-Identifier: GPL-2.0-or-later
// Relays that hosts might do without: when both ends go on through one, and the proxy
// has said where it meets them, they are told to try each other there, at one moment. That is
// no step of a judgement's plan: a step follows when the one before has failed, this when it
// has succeeded, and nothing depends on what comes of it.
//
//     ordered --both resumed, ends met--> calm: 1 s --> told --both have crossed--> over
//                                          ^             | not, or no word
//                                          `--- 15 s ----'   twice at most, in these places
//     any --one of them reports again--> as if it had never been ordered
//
// Bounded: one of a pair of hosts, and kept as long as a pair is. Not thread-safe.
#pragma once

#include <array>
#include <boost/asio/ip/address.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "exchange/types.hpp"
#include "judge/judge.hpp"
#include "libmobility/message.hpp"
#include "libmobility/proxy_message.hpp"

namespace mobility::server {

class Crossings {
  public:
    /// In the same places.
    static constexpr unsigned kTries = 2;
    /// What else comes of a move shall be over.
    static constexpr Duration kCalm = std::chrono::seconds(1);
    /// A NAPT that has refused an MSYN forgets it in ten seconds without another one.
    static constexpr Duration kAgain = std::chrono::seconds(15);
    /// A trial's MSYNs are repeated for half a minute.
    static constexpr Duration kPatience = std::chrono::seconds(45);

    struct End {
        judge::Report report;
        ChannelId channel = 0;
    };
    /// What both are to be told now: the step's hosts are numbered as `ends`.
    struct Moment {
        PairId pair{};
        std::uint32_t judgement = 0;
        std::uint32_t step = 0;
        unsigned tries = 0;  ///< this one included
        std::array<End, 2> ends;
        judge::Step notices;
    };

    /// A relay was ordered for what was judged of these, as `first_step` - 1 of its plan at most.
    void ordered(std::uint64_t order, const PairId& pair, std::uint32_t judgement,
                 std::uint32_t first_step, std::array<End, 2> ends, const Limits& limits, Time now);
    void reserved(std::uint64_t order, const boost::asio::ip::address& proxy);
    /// This end goes on, through the relay.
    void settled(const PairId& pair, const Name& host, Time now);
    /// One of them has reported anew.
    void disturbed(const PairId& pair);
    /// If `by` is where its order was reserved.
    void met(const Met& met, const Ready& by, const Limits& limits, Time now);

    /// Is it about something that was told here, to this host?
    [[nodiscard]] bool knows(const Outcome& outcome, const Name& host) const;
    /// True if both have crossed now.
    bool outcome(const Outcome& outcome, const Name& host, const Limits& limits, Time now);

    /// What is due.
    std::vector<Moment> expire(const Limits& limits, Time now);
    [[nodiscard]] std::optional<Time> next() const;
    [[nodiscard]] std::size_t size() const { return all_.size(); }

  private:
    struct Crossing {
        std::uint64_t order = 0;  ///< 0: none that counts any more
        std::uint32_t judgement = 0;
        std::uint32_t first_step = 0;
        std::array<End, 2> ends;
        std::optional<boost::asio::ip::address> proxy;
        std::vector<RelayPair> met;
        std::array<bool, 2> settled{};
        bool told = false;
        std::array<std::optional<bool>, 2> crossed{};  ///< what came of it
        unsigned tries = 0;
        std::optional<Time> act;  ///< when to tell, or to wait no longer
        Time end;                 ///< when it is forgotten

        [[nodiscard]] Time due() const { return act && *act < end ? *act : end; }
        [[nodiscard]] bool ready() const {
            return order != 0 && settled[0] && settled[1] && proxy && !met.empty() && !told &&
                   tries < kTries;
        }
    };
    using All = std::map<PairId, Crossing>;

    template <typename Change>
    void change(All::iterator at, Change change);
    void withdraw(Crossing& crossing);
    /// Nobody says anything more of it, or both have.
    static void conclude(Crossing& crossing, Time now);
    static std::optional<Moment> begin(const PairId& pair, Crossing& crossing, Time now);

    All all_;
    std::map<std::uint64_t, PairId> orders_;
    std::set<std::pair<Time, PairId>> due_;
};

}  // namespace mobility::server
