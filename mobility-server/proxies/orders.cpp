// SPDX-License-Identifier: GPL-2.0-or-later
#include "proxies/orders.hpp"

#include <algorithm>
#include <tuple>

namespace mobility::server {

namespace {

using boost::asio::ip::address;

/// Where it relays connections of this family.
std::optional<address> address_of(const Ready& ready, bool v4) {
    if (v4) {
        return ready.address ? std::optional<address>(*ready.address) : std::nullopt;
    }
    return ready.address6 ? std::optional<address>(*ready.address6) : std::nullopt;
}

bool is_v4(const Order& order) {
    return order.connections.front().first.address.is_v4();
}

double free_share(const Load& load) {
    return load.relays >= load.most ? 0.0 : 1.0 - static_cast<double>(load.relays) / load.most;
}

}  // namespace

void Orders::ready(ProxyId proxy, const Ready& ready) {
    proxies_[proxy] = Proxy{ready};
}

void Orders::load(ProxyId proxy, const Load& load) {
    heard(proxy);
    if (const auto at = proxies_.find(proxy); at != proxies_.end()) {
        at->second.ready.load = load;
    }
}

Orders::Dealt Orders::gone(ProxyId proxy, Time now) {
    Dealt dealt;
    proxies_.erase(proxy);
    for (auto at = out_.begin(); at != out_.end();) {
        const auto here = at++;
        if (here->second.at == proxy) {
            pass_on(dealt, here, now);
        }
    }
    return dealt;
}

Orders::Dealt Orders::order(const Wish& wish, Time now) {
    Dealt dealt;
    if (out_.size() >= limits_.orders) {
        counters_.crowded++;
        counters_.failed++;
        dealt.failed.push_back(wish.order.number);
        return dealt;
    }
    const auto at = out_.emplace(wish.order.number, Out{wish, 0, {}, {}}).first;
    pass_on(dealt, at, now);
    return dealt;
}

/// Where it is relayed already nothing is needed; who is silent costs time; else who has room,
/// the most of it, and of several such the one that was not given any for the longest time.
std::optional<ProxyId> Orders::choose(const Out& out) const {
    using Merit = std::tuple<bool, bool, bool, double, std::uint64_t>;
    const auto& order = out.wish.order;
    std::optional<std::pair<Merit, ProxyId>> best;
    for (const auto& [id, proxy] : proxies_) {
        const auto there = address_of(proxy.ready, is_v4(order));
        if (!there || proxy.out >= limits_.orders_per_proxy || out.asked.contains(id)) {
            continue;
        }
        const auto& load = proxy.ready.load;
        const bool room = std::size_t{load.relays} + order.connections.size() <= load.most;
        // The least is the best.
        const Merit merit{proxy.silent, out.wish.rather != there, !room, -free_share(load),
                          proxy.turn};
        if (!best || merit < best->first) {
            best = {merit, id};
        }
    }
    return best ? std::optional(best->second) : std::nullopt;
}

void Orders::leave(const Out& out) {
    if (const auto proxy = proxies_.find(out.at); proxy != proxies_.end()) {
        proxy->second.out--;
    }
}

void Orders::pass_on(Dealt& dealt, Outs::iterator at, Time now) {
    auto& out = at->second;
    leave(out);
    if (!wanted_(at->first)) {
        out_.erase(at);
        return;
    }
    const auto next = choose(out);
    if (!next) {
        counters_.failed++;
        dealt.failed.push_back(at->first);
        out_.erase(at);
        return;
    }
    auto& proxy = proxies_.at(*next);
    proxy.out++;
    proxy.turn = ++turn_;
    // Until it says itself how many there are.
    proxy.ready.load.relays += static_cast<std::uint32_t>(out.wish.order.connections.size());
    out.at = *next;
    out.asked.insert(*next);
    out.deadline = now + limits_.patience;
    counters_.ordered++;
    dealt.send.emplace_back(*next, out.wish.order);
}

void Orders::heard(ProxyId proxy) {
    if (const auto at = proxies_.find(proxy); at != proxies_.end()) {
        at->second.silent = false;
    }
}

/// Hosts are sent there: only to where the proxy has said that it is.
bool Orders::is_good(const Reserved& reserved, const Proxy& proxy, const Out& out) const {
    const auto& order = out.wish.order;
    return reserved.ports.size() == order.connections.size() &&
           address_of(proxy.ready, is_v4(order)) == reserved.address;
}

Orders::Dealt Orders::reserved(ProxyId proxy, const Reserved& reserved, Time now) {
    Dealt dealt;
    heard(proxy);
    const auto at = out_.find(reserved.number);
    const auto from = proxies_.find(proxy);
    if (at == out_.end() || from == proxies_.end() || !at->second.asked.contains(proxy)) {
        counters_.late++;
        return dealt;
    }
    if (!is_good(reserved, from->second, at->second)) {
        counters_.bad++;
        if (at->second.at == proxy) {
            pass_on(dealt, at, now);
        }
        return dealt;
    }
    counters_.reserved++;
    leave(at->second);
    out_.erase(at);
    dealt.reserved.push_back(reserved);
    return dealt;
}

Orders::Dealt Orders::declined(ProxyId proxy, const Declined& declined, Time now) {
    Dealt dealt;
    heard(proxy);
    counters_.declined.at(static_cast<std::size_t>(declined.why))++;
    const auto at = out_.find(declined.number);
    if (at == out_.end() || !at->second.asked.contains(proxy)) {
        counters_.late++;
    } else if (at->second.at == proxy) {
        pass_on(dealt, at, now);
    }
    return dealt;
}

Orders::Dealt Orders::expire(Time now) {
    Dealt dealt;
    for (auto at = out_.begin(); at != out_.end();) {
        const auto here = at++;
        const auto proxy = here->second.at;
        if (here->second.deadline > now) {
            continue;
        }
        counters_.unanswered++;
        dealt.unanswered.emplace_back(proxy, here->first);
        proxies_.at(proxy).silent = true;
        pass_on(dealt, here, now);
    }
    return dealt;
}

std::optional<Time> Orders::next() const {
    const auto first =
        std::ranges::min_element(out_, {}, [](const auto& entry) { return entry.second.deadline; });
    return first == out_.end() ? std::nullopt : std::optional(first->second.deadline);
}

const Orders::Proxy* Orders::find(ProxyId proxy) const {
    const auto at = proxies_.find(proxy);
    return at == proxies_.end() ? nullptr : &at->second;
}

}  // namespace mobility::server
