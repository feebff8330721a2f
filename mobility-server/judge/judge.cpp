// SPDX-License-Identifier: GPL-2.0-or-later
#include "judge.hpp"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

namespace mobility::judge {

namespace {

/// The same connection, as first and last see it.
using Match = std::pair<Ports, Ports>;

/// RFC 1918, and what providers share by RFC 6598 (100.64.0.0/10).
bool is_private_v4(const boost::asio::ip::address_v4& address) {
    const auto bits = address.to_uint();
    return bits >> 24 == 10 || bits >> 20 == 0xac1 || bits >> 16 == 0xc0a8 || bits >> 22 == 0x191;
}

bool is_private(const Address& address) {
    if (address.is_v4()) {
        return is_private_v4(address.to_v4());
    }
    return (address.to_v6().to_bytes()[0] & 0xfe) == 0xfc;  // RFC 4193
}

/// Before the move (A2.5): an address that the peer knows otherwise was
/// translated on the way.
Place place_before(const Report& own, const Report& peers) {
    return own.before == peers.peer_before ? Place::Global : Place::Inside;
}

bool each_others_peer(const Report& first, const Report& last) {
    return first.host == last.peer && last.host == first.peer && first.host != last.host;
}

/// A2.6: crosswise, or by the proxy's port, which both ends have as their peer's. By
/// an index, since a report may have thousands.
std::vector<Match> matches(const Report& first, const Report& last, bool relayed) {
    const auto key = [relayed](std::uint16_t own, std::uint16_t peer) {
        return relayed ? peer : std::uint32_t{own} << 16 | peer;
    };
    std::unordered_map<std::uint32_t, const Ports*> of_last;
    for (const auto& b : last.connections) {
        of_last.emplace(key(b.own, b.peer), &b);
    }
    std::vector<Match> found;
    for (const auto& a : first.connections) {
        const auto b = of_last.find(relayed ? key(0, a.peer) : key(a.peer, a.own));
        if (b != of_last.end()) {
            found.emplace_back(a, *b->second);
        }
    }
    return found;
}

/// What both ends have. Behind one NAPT that turns packets round both may call their peer by
/// its outer address too; their ports then match crosswise, as without a proxy. So they do
/// through a proxy if its hosts know their peer's own port, as they mostly do.
std::vector<Match> matched_by(const Report& first, const Report& last, bool& relayed) {
    auto matched = matches(first, last, false);
    relayed = false;
    if (matched.empty() && first.peer_before == last.peer_before) {
        matched = matches(first, last, true);
        relayed = !matched.empty();
    }
    return matched;
}

/// Those of them that a proxy can recognise.
std::vector<Match> relayable(const Report& first, const Report& last) {
    bool relayed = false;
    std::vector<Match> out;
    std::set<std::pair<std::uint32_t, std::uint32_t>> named;
    for (const auto& match : matched_by(first, last, relayed)) {
        const auto& [a, b] = match;
        if (out.size() < kMaxRelays && a.token != 0 && b.token != 0 &&
            named.emplace(a.token, b.token).second) {
            out.push_back(match);
        }
    }
    return out;
}

Resume resume(const Ports& own, const Ports& peers) {
    return {.own = own.own,
            .own_after = own.own_after,
            .peer = own.peer,
            .peer_after = peers.own_after};
}

/// Makes notices for either host of a pair.
class Teller {
  public:
    Teller(const Report& first, const Report& last, std::vector<Match> matched)
        : reports_{&first, &last}, matched_(std::move(matched)) {}

    /// Tells a host where the server sees its peer.
    [[nodiscard]] Notice seen(std::size_t host) const {
        return notice(host, reports_[1 - host]->seen, false);
    }

    /// Tells a host where its peer says it is.
    [[nodiscard]] Notice claimed(std::size_t host) const {
        return notice(host, reports_[1 - host]->after, true);
    }

  private:
    [[nodiscard]] Notice notice(std::size_t host, const Address& peer, bool trial) const {
        Notice told{.host = host, .peer = peer, .trial = trial, .connections = {}};
        for (const auto& [first, last] : matched_) {
            told.connections.push_back(host == 0 ? resume(first, last) : resume(last, first));
        }
        return told;
    }

    std::array<const Report*, 2> reports_;
    std::vector<Match> matched_;
};

bool one_family(const Report& first, const Report& last) {
    const bool v4 = first.before.is_v4();
    return std::ranges::all_of(std::array{&first, &last}, [v4](const Report* r) {
        return r->before.is_v4() == v4 && r->after.is_v4() == v4 && r->seen.is_v4() == v4;
    });
}

/// Both inside: behind the same NAPT as far as the server can see?
Case both_inside(const Report& first, const Report& last) {
    const bool same = first.seen == last.seen && first.after != last.after &&
                      is_private(first.after) && is_private(last.after);
    return same ? Case::SameNapt : Case::Apart;
}

Case kind(const Judgement& judged, const Report& first, const Report& last) {
    const bool inside = judged.after[0] == Place::Inside && judged.after[1] == Place::Inside;
    return inside ? both_inside(first, last) : Case::Direct;
}

/// A2.7, and what follows if nobody answers there.
std::vector<Step> plan(const Judgement& judged, const Teller& tell) {
    const Step relay;
    switch (judged.what) {
        case Case::Direct: {
            // Who is inside; if both are global, who reported last.
            const std::size_t starts = judged.after[0] == Place::Inside ? 0 : 1;
            return {{tell.seen(starts)}, {tell.seen(1 - starts)}, relay};
        }
        case Case::SameNapt:
            return {{tell.claimed(0), tell.claimed(1)}, relay};
        case Case::Apart:
            return {relay};
        case Case::Coincidence:
        case Case::OtherFamily:
            break;
    }
    return {};
}

}  // namespace

Place place_after(const Report& own) {
    return own.after == own.seen ? Place::Global : Place::Inside;
}

std::optional<Ask::Hint> hint(const Report& peers) {
    const bool one_family = peers.before.is_v4() == peers.after.is_v4();
    if (place_after(peers) == Place::Inside || !one_family || peers.connections.empty()) {
        return {};
    }
    Ask::Hint out{peers.after, {}};
    for (const auto& ports : peers.connections) {
        out.connections.push_back({ports.peer, ports.peer, ports.own, ports.own_after});
    }
    return out;
}

std::vector<RelayPair> relay(const Report& first, const Report& last) {
    std::vector<RelayPair> out;
    for (const auto& [a, b] : relayable(first, last)) {
        out.push_back({{a.token, first.after, a.own_after}, {b.token, last.after, b.own_after}});
    }
    return out;
}

Step relayed(const Report& first, const Report& last, const Address& proxy,
             const std::vector<std::uint16_t>& ports) {
    const auto matched = relayable(first, last);
    if (matched.empty() || matched.size() != ports.size()) {
        return {};
    }
    Step told{{0, proxy, false, {}}, {1, proxy, false, {}}};
    for (std::size_t i = 0; i < ports.size(); i++) {
        const auto& [a, b] = matched[i];
        told[0].connections.push_back({a.own, a.own_after, a.peer, ports[i]});
        told[1].connections.push_back({b.own, b.own_after, b.peer, ports[i]});
    }
    return told;
}

Step crossing(const Report& first, const Report& last, const std::vector<RelayPair>& met) {
    // Another destination may get another mapping of a NAPT: the trial will tell.
    std::unordered_map<std::uint32_t, const RelayEnd*> ends;
    for (const auto& pair : met) {
        ends[pair.first.token] = &pair.first;
        ends[pair.second.token] = &pair.second;
    }
    Step told{{0, last.seen, true, {}}, {1, first.seen, true, {}}};
    for (const auto& [a, b] : relayable(first, last)) {
        const auto of_a = ends.find(a.token);
        const auto of_b = ends.find(b.token);
        if (of_a != ends.end() && of_b != ends.end() && of_a->second->address == first.seen &&
            of_b->second->address == last.seen) {
            told[0].connections.push_back({a.own, a.own_after, a.peer, of_b->second->port});
            told[1].connections.push_back({b.own, b.own_after, b.peer, of_a->second->port});
        }
    }
    const bool fit = first.crosses && last.crosses && first.seen != last.seen;
    return fit && !told[0].connections.empty() ? told : Step();
}

std::optional<Address> proxy_before(const Report& first, const Report& last) {
    return first.peer_before == last.peer_before ? std::optional(first.peer_before) : std::nullopt;
}

Judgement judge(const Report& first, const Report& last) {
    Judgement judged;
    if (!each_others_peer(first, last)) {
        return judged;
    }
    judged.before = {place_before(first, last), place_before(last, first)};
    judged.after = {place_after(first), place_after(last)};
    auto matched = matched_by(first, last, judged.relayed_before);
    if (matched.empty()) {
        return judged;
    }
    judged.what = one_family(first, last) ? kind(judged, first, last) : Case::OtherFamily;
    judged.plan = plan(judged, Teller(first, last, std::move(matched)));
    return judged;
}

}  // namespace mobility::judge
