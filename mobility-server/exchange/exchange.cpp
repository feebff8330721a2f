// SPDX-License-Identifier: GPL-2.0-or-later
#include "exchange.hpp"

#include <algorithm>
#include <utility>

namespace mobility::server {

template <typename Change>
void Exchange::change(Pairs::iterator at, Change change) {
    due_.erase({at->second.due(), at->first});
    change(at->second);
    due_.insert({at->second.due(), at->first});
}

std::optional<std::size_t> Exchange::Pair::side_of(const Name& host) const {
    for (std::size_t i = 0; i < sides.size(); i++) {
        if (sides.at(i).host == host) {
            return i;
        }
    }
    return {};
}

void Exchange::join(ChannelId channel, const Name& host) {
    channels_[channel] = host;
    hosts_[host].channels.insert(channel);
}

void Exchange::leave(ChannelId channel) {
    const auto at = channels_.find(channel);
    if (at == channels_.end()) {
        return;
    }
    const auto host = hosts_.find(at->second);
    host->second.channels.erase(channel);
    erase_if_gone(host);
    channels_.erase(at);
}

void Exchange::erase_if_gone(Hosts::iterator host) {
    if (host->second.channels.empty() && host->second.pairs == 0) {
        hosts_.erase(host);
    }
}

Said Exchange::refuse(ChannelId channel, Refused::Why why, const char* text, const PairId& pair) {
    counters_.refused++;
    return {channel, Refused{why, text, pair}};
}

std::optional<Refused::Why> Exchange::no_room(const Name& host, const PairId& id) const {
    const auto at = pairs_.find(id);
    if (at == pairs_.end() && pairs_.size() >= limits_.pairs) {
        return Refused::Why::Busy;
    }
    const bool known = at != pairs_.end() && std::ranges::any_of(at->second.sides, [&](auto& side) {
                           return side.host == host && side.report;
                       });
    if (!known && hosts_.at(host).pairs >= limits_.pairs_per_host) {
        return Refused::Why::TooMuch;
    }
    return {};
}

/// The channel on which it reported, or another of the same host.
std::optional<ChannelId> Exchange::channel_of(const Name& name, ChannelId rather) const {
    if (channels_.contains(rather)) {
        return rather;
    }
    const auto host = hosts_.find(name);
    if (host == hosts_.end() || host->second.channels.empty()) {
        return {};
    }
    return *host->second.channels.rbegin();
}

void Exchange::tell(Saying& out, const Side& side, ToHost message) {
    if (const auto channel = channel_of(side.host, side.channel)) {
        out.push_back({*channel, std::move(message)});
    }
}

/// At most once in a while, however often the other end reports.
void Exchange::ask(Saying& out, const PairId& id, Pair& pair, Time now) {
    if (pair.asked && now < *pair.asked + limits_.silence / 2) {
        return;
    }
    pair.asked = now;
    pair.deadline = now + limits_.silence;
    tell(out, pair.sides[1 - pair.last], Ask{id, judge::hint(*pair.sides.at(pair.last).report)});
}

Saying Exchange::report(ChannelId channel, const boost::asio::ip::address& seen, Duration rtt,
                        const Report& report, Time now) {
    const auto host = channels_.at(channel);
    const auto id = report.pair();
    if (report.own.host != host) {
        return {refuse(channel, Refused::Why::NotYours, "you are not this end of the pair", id)};
    }
    if (const auto why = no_room(host, id)) {
        return {refuse(channel, *why, "no room for another pair", id)};
    }
    counters_.reports++;
    auto [at, fresh] = pairs_.try_emplace(id);
    if (fresh) {
        at->second.sides[0].host = host;
        at->second.sides[1].host = report.peer.host;
        at->second.end = now + limits_.keep;
        due_.insert({at->second.due(), id});
    }
    judge::Report reported{
        host, report.peer.host,   report.before, report.peer_before, report.after,
        seen, report.connections, report.crosses};
    bool repeated = false;
    change(at, [&](Pair& pair) {
        const std::size_t number = pair.sides[0].host == host ? 0 : 1;
        auto& side = pair.sides.at(number);
        repeated = is_repeated(pair, side, channel, reported, now);
        pair.last = repeated ? pair.last : number;
        hosts_[host].pairs += side.report ? 0 : 1;
        side.report = std::move(reported);
        side.channel = channel;
        side.rtt = rtt;
        pair.end = now + limits_.keep;
    });
    if (repeated) {
        return {};
    }
    crossings_.disturbed(id);
    Saying out;
    if (at->second.sides[0].report && at->second.sides[1].report) {
        judge_now(out, at, now);
    } else {
        change(at, [&](Pair& pair) { ask(out, id, pair, now); });
    }
    return out;
}

/// Who moves reports at once, and again when it is asked since its peer has: another order and
/// other Notices would only disturb those that are under way.
bool Exchange::is_repeated(const Pair& pair, const Side& side, ChannelId channel,
                           const judge::Report& report, Time now) const {
    const bool fresh = pair.ordered != 0 || now < pair.relay_told + limits_.silence / 2;
    return pair.relaying() && fresh && side.channel == channel && side.report == report;
}

void Exchange::judge_now(Saying& out, Pairs::iterator at, Time now) {
    counters_.judgements++;
    auto judged = judge::Judgement();
    change(at, [&](Pair& pair) {
        withdraw(pair);
        pair.order = {1 - pair.last, pair.last};
        judged = judge::judge(*pair.sides.at(pair.order[0]).report,
                              *pair.sides.at(pair.order[1]).report);
        pair.judgement = ++judgements_;
        pair.plan = judged.plan;
        pair.step = 0;
        pair.deadline.reset();
    });
    switch (judged.what) {
        case judge::Case::Coincidence:
            return verdict(out, at, Verdict::What::Coincidence);
        case judge::Case::OtherFamily:
            return verdict(out, at, Verdict::What::OtherFamily);
        case judge::Case::Direct:
        case judge::Case::SameNapt:
        case judge::Case::Apart:
            return begin_step(out, at, now);
    }
}

void Exchange::begin_step(Saying& out, Pairs::iterator at, Time now) {
    const auto& pair = at->second;
    if (pair.step == pair.plan.size()) {
        return verdict(out, at, Verdict::What::NoAnswer);
    }
    const auto& step = pair.plan[pair.step];
    if (judge::Judgement::is_relay(step)) {
        return order_relay(out, at, now);
    }
    tell_step(out, at, step);
    const auto size = step.size();
    change(at, [&](Pair& p) {
        p.waiting = size;
        p.deadline = now + 2 * (p.sides[0].rtt + p.sides[1].rtt) + limits_.slack;
    });
}

void Exchange::tell_step(Saying& out, Pairs::iterator at, const judge::Step& step) {
    const auto& pair = at->second;
    for (const auto& notice : step) {
        counters_.notices++;
        tell(out, pair.sides.at(pair.order.at(notice.host)),
             Notice{at->first, pair.judgement, static_cast<std::uint32_t>(pair.step), notice.peer,
                    notice.trial, notice.connections, pair.relaying()});
    }
}

// ---- Relays ----

void Exchange::order_relay(Saying& out, Pairs::iterator at, Time now) {
    if (!limits_.proxies) {
        return verdict(out, at, Verdict::What::NeedsProxy);
    }
    const auto& pair = at->second;
    const auto& [one, other] = pair.order;
    const auto& first = *pair.sides.at(one).report;
    const auto& last = *pair.sides.at(other).report;
    auto connections = judge::relay(first, last);
    if (connections.empty()) {
        return verdict(out, at, Verdict::What::NoProxy);
    }
    counters_.orders++;
    orders_[++last_order_] = at->first;
    crossings_.ordered(
        last_order_, at->first, pair.judgement, static_cast<std::uint32_t>(pair.plan.size()),
        {{{first, pair.sides.at(one).channel}, {last, pair.sides.at(other).channel}}}, limits_,
        now);
    wishes_.push_back({Order{last_order_, first.host, last.host, std::move(connections)},
                       pair.proxy ? pair.proxy : judge::proxy_before(first, last)});
    change(at, [&](Pair& p) {
        p.ordered = last_order_;
        p.deadline.reset();  // an answer comes, if only that there is none
    });
}

void Exchange::withdraw(Pair& pair) {
    orders_.erase(std::exchange(pair.ordered, 0));
}

Saying Exchange::reserved(const Reserved& reserved, Time now) {
    crossings_.reserved(reserved.number, reserved.address);
    const auto order = orders_.find(reserved.number);
    if (order == orders_.end()) {
        return {};
    }
    const auto at = pairs_.find(order->second);
    const auto& sides = at->second.sides;
    const auto step =
        judge::relayed(*sides.at(at->second.order[0]).report, *sides.at(at->second.order[1]).report,
                       reserved.address, reserved.ports);
    if (step.empty()) {
        return no_proxy(reserved.number);
    }
    Saying out;
    change(at, [&](Pair& pair) {
        withdraw(pair);
        pair.proxy = reserved.address;
        pair.resumed = {};
        pair.relay_told = now;
        // Nothing follows that would have to be hurried: hosts give up earlier themselves.
        pair.deadline = now + limits_.silence;
    });
    tell_step(out, at, step);
    return out;
}

Saying Exchange::no_proxy(std::uint64_t order) {
    const auto known = orders_.find(order);
    Saying out;
    if (known != orders_.end()) {
        verdict(out, pairs_.find(known->second), Verdict::What::NoProxy);
    }
    return out;
}

/// Both have to get there: one alone has nobody to speak with.
Saying Exchange::relay_outcome(Pairs::iterator at, std::size_t side, bool resumed, Time now) {
    Saying out;
    at->second.resumed.at(side) = resumed;
    if (resumed) {
        crossings_.settled(at->first, at->second.sides.at(side).host, now);
    }
    if (!resumed) {
        change(at, [](Pair& p) { p.step++; });
        begin_step(out, at, now);
    } else if (at->second.resumed[1 - side]) {
        counters_.resumed++;
        counters_.relayed++;
        erase(at);
    }
    return out;
}

void Exchange::met(const Met& met, const Ready& by, Time now) {
    crossings_.met(met, by, limits_, now);
}

/// The two MSYNs have to pass their own NAPTs before they reach the other's. How far a host is
/// from its NAPT is not known; but if both MSYNs were to reach the server at one moment, they
/// pass their NAPTs at moments that differ by no more than the NAPTs' distances from the server
/// do, and that is no more than the way between them. Who is nearer waits for a round trip's
/// difference. Should the server be next to one of the NAPTs that is too close: then both leave
/// at one moment, by half of that.
void Exchange::cross(Saying& out, const Crossings::Moment& moment) {
    std::array<ChannelId, 2> channels{};
    std::array<Duration, 2> rtts{};
    for (std::size_t i = 0; i < 2; i++) {
        const auto channel = channel_of(moment.ends.at(i).report.host, moment.ends.at(i).channel);
        if (!channel) {
            return;  // one alone has nobody to cross with
        }
        channels.at(i) = *channel;
        rtts.at(i) = rtt_ ? rtt_(*channel) : Duration::zero();
    }
    counters_.crossings++;
    const auto longest = std::max(rtts[0], rtts[1]);
    for (const auto& notice : moment.notices) {
        const auto delay = std::chrono::round<std::chrono::milliseconds>(
            std::min<Duration>((longest - rtts.at(notice.host)) / moment.tries, kMaxDelay));
        out.push_back({channels.at(notice.host),
                       Notice{moment.pair, moment.judgement, moment.step, notice.peer, notice.trial,
                              notice.connections, false, delay}});
    }
}

void Exchange::verdict(Saying& out, Pairs::iterator at, Verdict::What what) {
    counters_.verdicts++;
    for (const auto& side : at->second.sides) {
        tell(out, side, Verdict{at->first, at->second.judgement, what});
    }
    erase(at);
}

void Exchange::erase(Pairs::iterator at) {
    withdraw(at->second);
    due_.erase({at->second.due(), at->first});
    for (const auto& side : at->second.sides) {
        if (side.report) {
            const auto host = hosts_.find(side.host);
            host->second.pairs--;
            erase_if_gone(host);
        }
    }
    pairs_.erase(at);
}

Saying Exchange::outcome(ChannelId channel, const Outcome& outcome, Time now) {
    const auto& host = channels_.at(channel);
    if (crossings_.knows(outcome, host)) {
        counters_.crossed += crossings_.outcome(outcome, host, limits_, now) ? 1 : 0;
        return {};
    }
    const auto at = pairs_.find(outcome.pair);
    // Of a judgement or step that is over: nothing to say.
    if (at == pairs_.end() || at->second.judgement != outcome.judgement ||
        at->second.step != outcome.step || outcome.step >= at->second.plan.size()) {
        return {};
    }
    const auto& pair = at->second;
    const auto& step = pair.plan[pair.step];
    const auto side = pair.side_of(host);
    const bool told = pair.relaying() ? side && pair.ordered == 0
                                      : std::ranges::any_of(step, [&](const judge::Notice& notice) {
                                            return pair.order.at(notice.host) == side;
                                        });
    if (!told) {
        return {refuse(channel, Refused::Why::NotYours, "this was not told to you", outcome.pair)};
    }
    if (pair.relaying()) {
        return relay_outcome(at, *side, outcome.resumed, now);
    }
    Saying out;
    if (outcome.resumed) {
        counters_.resumed++;
        erase(at);
    } else if (at->second.waiting > 1) {
        at->second.waiting--;
    } else {
        change(at, [](Pair& p) { p.step++; });
        begin_step(out, at, now);
    }
    return out;
}

Saying Exchange::forget(ChannelId channel, const Forget& forget, Time now) {
    const auto& host = channels_.at(channel);
    const auto at = pairs_.find(forget.pair);
    if (at == pairs_.end()) {
        return {};
    }
    const auto side = at->second.side_of(host);
    if (!side) {
        return {
            refuse(channel, Refused::Why::NotYours, "you are no end of this pair", forget.pair)};
    }
    // Who has resumed through a proxy says this too, and the other may not have yet.
    if (at->second.relaying() && at->second.ordered == 0) {
        return relay_outcome(at, *side, true, now);
    }
    // An end was faster than the order: what the proxy had already holds, of both.
    if (at->second.ordered != 0) {
        for (const auto& one : at->second.sides) {
            crossings_.settled(at->first, one.host, now);
        }
    }
    erase(at);
    return {};
}

std::optional<Time> Exchange::next() const {
    auto first = crossings_.next();
    if (!due_.empty() && (!first || due_.begin()->first < *first)) {
        first = due_.begin()->first;
    }
    return first;
}

Saying Exchange::expire(Time now) {
    Saying out;
    while (!due_.empty() && due_.begin()->first <= now) {
        const auto at = pairs_.find(due_.begin()->second);
        auto& pair = at->second;
        if (pair.end <= now) {
            erase(at);
        } else if (pair.sides[0].report && pair.sides[1].report) {
            change(at, [](Pair& p) { p.step++; });
            begin_step(out, at, now);
        } else {
            // The pair stays: the silent side may yet come.
            change(at, [](Pair& p) { p.deadline.reset(); });
            tell(out, pair.sides.at(pair.last),
                 Verdict{at->first, pair.judgement, Verdict::What::PeerSilent});
        }
    }
    for (const auto& moment : crossings_.expire(limits_, now)) {
        cross(out, moment);
    }
    return out;
}

}  // namespace mobility::server
