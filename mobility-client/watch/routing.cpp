// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/routing.hpp"

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <utility>

namespace mobility::watch {

namespace {

/// What a look-up prefers, first to last: longer prefixes, lower metrics, preferred routers.
auto merit(const Route& route) {
    return std::tuple(route.v6, route.table, -route.to.length, route.to.address, -route.from.length,
                      route.from.address, route.metric, -route.preference);
}

bool sorts_before(const Route& a, const Route& b) {
    return std::tuple(merit(a), a.index, a.gateway) < std::tuple(merit(b), b.index, b.gateway);
}

/// What makes two routes alternatives of each other.
auto key(const Route& route) {
    return std::tie(route.v6, route.table, route.to, route.from, route.metric);
}

/// The same next hop of the same route, whatever else has changed of it.
bool same(const Route& a, const Route& b) {
    return key(a) == key(b) &&
           std::tie(a.index, a.gateway, a.kind) == std::tie(b.index, b.gateway, b.kind);
}

/// What a table is sorted by first.
auto table_of(const Route& route) {
    return std::pair(route.v6, route.table);
}

/// The elements for which the projection has that value, of a vector that is sorted by it.
template <typename Element, typename Value, typename Projection>
std::span<const Element> with(const std::vector<Element>& sorted, const Value& value,
                              Projection projection) {
    const auto first = std::ranges::lower_bound(sorted, value, {}, projection);
    const auto last = std::ranges::upper_bound(sorted, value, {}, projection);
    return std::span(sorted).subspan(static_cast<std::size_t>(first - sorted.begin()),
                                     static_cast<std::size_t>(last - first));
}

bool matches(const Prefix& prefix, const std::optional<Address>& address) {
    return prefix.length == 0 || (address && prefix.contains(*address));
}

bool matches(const Rule& rule, const Query& query) {
    const bool fits = rule.fits && matches(rule.from, query.from) && matches(rule.to, query.to);
    return fits != rule.inverted;
}

}  // namespace

void Routing::add(const Route& route) {
    std::erase_if(routes_, [&](const Route& old) { return same(old, route); });
    routes_.insert(std::ranges::upper_bound(routes_, route, sorts_before), route);
}

void Routing::add(const Rule& rule) {
    if (std::ranges::find(rules_, rule) == rules_.end()) {
        const auto earlier = [](const Rule& a, const Rule& b) {
            return std::pair(a.v6, a.priority) < std::pair(b.v6, b.priority);
        };
        rules_.insert(std::ranges::upper_bound(rules_, rule, earlier), rule);
    }
}

void Routing::remove(const Route& route) {
    std::erase_if(routes_, [&](const Route& old) { return same(old, route); });
}

void Routing::remove(const Rule& rule) {
    std::erase(rules_, rule);
}

bool Routing::remove_replaced(const Route& by) {
    return std::erase_if(routes_, [&](const Route& old) { return key(old) == key(by); }) <= 1;
}

void Routing::remove_interface(unsigned index, bool v6) {
    std::erase_if(routes_, [&](const Route& r) { return r.index == index && r.v6 == v6; });
}

void Routing::remove_source(const Address& source) {
    std::erase_if(routes_, [&](const Route& r) { return !r.v6 && r.source == source; });
    for (auto& route : routes_) {
        if (route.source == source) {
            route.source.reset();
        }
    }
}

bool Routing::contains(const Route& route) const {
    const auto at = std::ranges::lower_bound(routes_, route, sorts_before);
    const auto end = std::ranges::upper_bound(routes_, route, sorts_before);
    return std::find(at, end, route) != end;
}

bool Routing::leads_by(unsigned index, bool v6) const {
    return std::ranges::any_of(routes_, [&](const Route& r) {
        return r.index == index && r.v6 == v6 && r.kind == Route::Kind::Way;
    });
}

std::span<const Route> Routing::best_of(std::uint32_t table, const Query& query,
                                        unsigned index) const {
    const auto fits = [&](const Route& route) {
        const bool to = query.to ? route.to.contains(*query.to) : route.to.length == 0;
        const bool by = !query.bound || route.index == index || route.kind != Route::Kind::Way;
        return to && by && matches(route.from, query.from);
    };
    const auto in_table = with(routes_, std::pair(query.v6, table), table_of);
    const auto first = std::find_if(in_table.begin(), in_table.end(), fits);
    const auto last = std::find_if(first, in_table.end(),
                                   [&](const Route& r) { return merit(r) != merit(*first); });
    return in_table.subspan(static_cast<std::size_t>(first - in_table.begin()),
                            static_cast<std::size_t>(last - first));
}

std::span<const Rule> Routing::rules_of(bool v6) const {
    // A kernel without policy routing has no rules: it looks into the main table.
    static const std::vector<Rule> main_only(1);
    const auto rules = with(rules_, v6, &Rule::v6);
    return rules.empty() ? std::span(main_only) : rules;
}

const Route* Routing::find(const Query& query, unsigned index) const {
    std::uint32_t skip_to = 0;
    for (const auto& rule : rules_of(query.v6)) {
        if (rule.priority < skip_to || !matches(rule, query)) {
            continue;
        }
        if (rule.action == Rule::Action::Goto) {
            skip_to = rule.target;
        }
        if (rule.action == Rule::Action::Refuse) {
            return nullptr;
        }
        if (rule.action != Rule::Action::Lookup) {
            continue;
        }
        const auto best = best_of(rule.table, query, index);
        if (best.empty() || best.front().kind == Route::Kind::Throw ||
            best.front().to.length <= rule.suppress) {
            continue;
        }
        const auto by = std::find_if(best.begin(), best.end(), [index](const Route& r) {
            return r.index == index && r.kind == Route::Kind::Way;
        });
        return by == best.end() ? nullptr : &*by;
    }
    return nullptr;
}

}  // namespace mobility::watch
