// SPDX-License-Identifier: GPL-2.0-or-later
#include "exchange.hpp"

#include <algorithm>

namespace mobility::server {

template <typename Change>
void Exchange::change(Pairs::iterator at, Change change) {
    due_.erase({at->second.due(), at->first});
    change(at->second);
    due_.insert({at->second.due(), at->first});
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
std::optional<ChannelId> Exchange::channel_of(const Side& side) const {
    if (channels_.contains(side.channel)) {
        return side.channel;
    }
    const auto host = hosts_.find(side.host);
    if (host == hosts_.end() || host->second.channels.empty()) {
        return {};
    }
    return *host->second.channels.rbegin();
}

void Exchange::tell(Saying& out, const Side& side, ToHost message) {
    if (const auto channel = channel_of(side)) {
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
    change(at, [&](Pair& pair) {
        pair.last = pair.sides[0].host == host ? 0 : 1;
        auto& side = pair.sides.at(pair.last);
        hosts_[host].pairs += side.report ? 0 : 1;
        side.report =
            judge::Report{host, report.peer.host,  report.before, report.peer_before, report.after,
                          seen, report.connections};
        side.channel = channel;
        side.rtt = rtt;
        pair.end = now + limits_.keep;
    });
    Saying out;
    if (at->second.sides[0].report && at->second.sides[1].report) {
        judge_now(out, at, now);
    } else {
        change(at, [&](Pair& pair) { ask(out, id, pair, now); });
    }
    return out;
}

void Exchange::judge_now(Saying& out, Pairs::iterator at, Time now) {
    counters_.judgements++;
    auto judged = judge::Judgement();
    change(at, [&](Pair& pair) {
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
    const auto& id = at->first;
    const auto& pair = at->second;
    if (pair.step == pair.plan.size()) {
        return verdict(out, at, Verdict::What::NoAnswer);
    }
    const auto& step = pair.plan[pair.step];
    if (judge::Judgement::is_relay(step)) {
        return verdict(out, at, Verdict::What::NeedsProxy);
    }
    for (const auto& notice : step) {
        counters_.notices++;
        tell(out, pair.sides.at(pair.order.at(notice.host)),
             Notice{id, pair.judgement, static_cast<std::uint32_t>(pair.step), notice.peer,
                    notice.trial, notice.connections});
    }
    const auto size = step.size();
    change(at, [&](Pair& p) {
        p.waiting = size;
        p.deadline = now + 2 * (p.sides[0].rtt + p.sides[1].rtt) + limits_.slack;
    });
}

void Exchange::verdict(Saying& out, Pairs::iterator at, Verdict::What what) {
    counters_.verdicts++;
    for (const auto& side : at->second.sides) {
        tell(out, side, Verdict{at->first, at->second.judgement, what});
    }
    erase(at);
}

void Exchange::erase(Pairs::iterator at) {
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
    const auto at = pairs_.find(outcome.pair);
    // Of a judgement or step that is over: nothing to say.
    if (at == pairs_.end() || at->second.judgement != outcome.judgement ||
        at->second.step != outcome.step || outcome.step >= at->second.plan.size()) {
        return {};
    }
    const auto& pair = at->second;
    const auto& step = pair.plan[pair.step];
    if (std::ranges::none_of(step, [&](const judge::Notice& notice) {
            return pair.sides.at(pair.order.at(notice.host)).host == host;
        })) {
        return {refuse(channel, Refused::Why::NotYours, "this was not told to you", outcome.pair)};
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

Saying Exchange::forget(ChannelId channel, const Forget& forget) {
    const auto& host = channels_.at(channel);
    const auto at = pairs_.find(forget.pair);
    if (at == pairs_.end()) {
        return {};
    }
    if (std::ranges::none_of(at->second.sides,
                             [&](const Side& side) { return side.host == host; })) {
        return {
            refuse(channel, Refused::Why::NotYours, "you are no end of this pair", forget.pair)};
    }
    erase(at);
    return {};
}

std::optional<Time> Exchange::next() const {
    return due_.empty() ? std::optional<Time>() : due_.begin()->first;
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
    return out;
}

}  // namespace mobility::server
