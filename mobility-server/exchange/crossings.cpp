// SPDX-License-Identifier: GPL-2.0-or-later
#include "crossings.hpp"

#include <algorithm>

namespace mobility::server {

namespace {

bool same_place(const Crossings::End& a, const Crossings::End& b) {
    return a.report.host == b.report.host && a.report.after == b.report.after &&
           a.report.seen == b.report.seen;
}

/// In either order.
bool same_places(const std::array<Crossings::End, 2>& a, const std::array<Crossings::End, 2>& b) {
    return (same_place(a[0], b[0]) && same_place(a[1], b[1])) ||
           (same_place(a[0], b[1]) && same_place(a[1], b[0]));
}

std::optional<std::size_t> side_of(const std::array<Crossings::End, 2>& ends, const Name& host) {
    const auto at = std::ranges::find_if(ends, [&](auto& end) { return end.report.host == host; });
    return at == ends.end() ? std::nullopt
                            : std::optional(static_cast<std::size_t>(at - ends.begin()));
}

}  // namespace

template <typename Change>
void Crossings::change(All::iterator at, Change change) {
    due_.erase({at->second.due(), at->first});
    change(at->second);
    due_.insert({at->second.due(), at->first});
}

void Crossings::withdraw(Crossing& crossing) {
    orders_.erase(crossing.order);
    crossing.order = 0;
    crossing.proxy.reset();
    crossing.met.clear();
    crossing.settled = {};
    crossing.told = false;
    crossing.act.reset();
}

void Crossings::ordered(std::uint64_t order, const PairId& pair, std::uint32_t judgement,
                        std::uint32_t first_step, std::array<End, 2> ends, const Limits& limits,
                        Time now) {
    const auto known = all_.find(pair);
    if (!limits.crossing || (known == all_.end() && all_.size() >= limits.pairs)) {
        return;
    }
    const auto at = known == all_.end() ? all_.try_emplace(pair).first : known;
    change(at, [&](Crossing& one) {
        withdraw(one);
        one.tries = same_places(one.ends, ends) ? one.tries : 0;
        one.order = order;
        one.judgement = judgement;
        one.first_step = first_step;
        one.ends = std::move(ends);
        one.end = now + limits.keep;
    });
    orders_[order] = pair;
}

void Crossings::reserved(std::uint64_t order, const boost::asio::ip::address& proxy) {
    if (const auto known = orders_.find(order); known != orders_.end()) {
        all_.at(known->second).proxy = proxy;
    }
}

void Crossings::settled(const PairId& pair, const Name& host, Time now) {
    const auto at = all_.find(pair);
    const auto side = at == all_.end() ? std::nullopt : side_of(at->second.ends, host);
    if (!side) {
        return;
    }
    change(at, [&](Crossing& one) {
        one.settled.at(*side) = true;
        if (one.ready()) {
            one.act = now + kCalm;
        }
    });
}

void Crossings::disturbed(const PairId& pair) {
    if (const auto at = all_.find(pair); at != all_.end()) {
        change(at, [this](Crossing& one) { withdraw(one); });
    }
}

void Crossings::met(const Met& met, const Ready& by, const Limits& limits, Time now) {
    const auto order = orders_.find(met.number);
    if (order == orders_.end()) {
        return;
    }
    const auto at = all_.find(order->second);
    const auto& proxy = at->second.proxy;
    if (!proxy || (proxy != by.address && proxy != by.address6)) {
        return;
    }
    change(at, [&](Crossing& one) {
        for (const auto& pair : met.connections) {
            std::erase_if(one.met, [&](const RelayPair& has) {
                return has.first.token == pair.first.token && has.second.token == pair.second.token;
            });
            if (one.met.size() < kMaxRelays) {
                one.met.push_back(pair);
            }
        }
        one.end = now + limits.keep;
        if (one.ready()) {
            one.act = std::max(one.act.value_or(now), now + kCalm);
        }
    });
}

bool Crossings::knows(const Outcome& outcome, const Name& host) const {
    const auto at = all_.find(outcome.pair);
    return at != all_.end() && at->second.told && at->second.judgement == outcome.judgement &&
           at->second.first_step + at->second.tries - 1 == outcome.step &&
           side_of(at->second.ends, host).has_value();
}

/// If it has not worked, perhaps once more.
void Crossings::conclude(Crossing& one, Time now) {
    one.told = false;
    one.act.reset();
    if (one.crossed[0] == true && one.crossed[1] == true) {
        one.tries = kTries;
    } else if (one.ready()) {
        one.act = now + kAgain;
    }
}

bool Crossings::outcome(const Outcome& outcome, const Name& host, const Limits& limits, Time now) {
    const auto at = all_.find(outcome.pair);
    const auto side = *side_of(at->second.ends, host);
    change(at, [&](Crossing& one) {
        one.crossed.at(side) = outcome.resumed;
        one.end = now + limits.keep;
        if (one.crossed[0] && one.crossed[1]) {
            conclude(one, now);
        }
    });
    const auto& crossed = at->second.crossed;
    return crossed[0] == true && crossed[1] == true;
}

std::optional<Crossings::Moment> Crossings::begin(const PairId& pair, Crossing& one, Time now) {
    one.act.reset();
    auto notices = judge::crossing(one.ends[0].report, one.ends[1].report, one.met);
    if (notices.empty()) {
        return {};
    }
    one.tries++;
    one.told = true;
    one.crossed = {};
    one.act = now + kPatience;
    return Moment{pair,      one.judgement, one.first_step + one.tries - 1,
                  one.tries, one.ends,      std::move(notices)};
}

std::vector<Crossings::Moment> Crossings::expire(const Limits& limits, Time now) {
    std::vector<Moment> out;
    while (!due_.empty() && due_.begin()->first <= now) {
        const auto at = all_.find(due_.begin()->second);
        if (at->second.end <= now) {
            withdraw(at->second);
            due_.erase(due_.begin());
            all_.erase(at);
            continue;
        }
        change(at, [&](Crossing& one) {
            if (one.told) {
                conclude(one, now);
            } else if (auto moment = limits.crossing ? begin(at->first, one, now) : std::nullopt) {
                one.end = now + kPatience + limits.keep;
                out.push_back(std::move(*moment));
            } else {
                one.act.reset();
            }
        });
    }
    return out;
}

std::optional<Time> Crossings::next() const {
    return due_.empty() ? std::nullopt : std::optional(due_.begin()->first);
}

}  // namespace mobility::server
