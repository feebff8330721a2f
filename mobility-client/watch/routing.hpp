// SPDX-License-Identifier: GPL-2.0-or-later
// By which interface the kernel sends a packet: its rules and routes, and the look-up in
// them, as `ip route get` would answer for an unmarked TCP socket.
//
// A route here has one next hop; one of the kernel's with several is several of these.
// Left out: routes for a TOS, and rules for what is not known here (marks other than 0,
// interfaces, users, ports), which fit nobody. Among equal next hops any may be taken.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "watch/prefix.hpp"

namespace mobility::watch {

constexpr std::uint32_t kMainTable = 254;

/// A route with one next hop.
struct Route {
    enum class Kind : std::uint8_t {
        Way,      ///< to somewhere
        Blocked,  ///< unreachable, prohibit, blackhole
        Throw,    ///< as if the table had no route
    };

    bool v6 = false;
    std::uint32_t table = kMainTable;
    Prefix to{};
    Prefix from{};  ///< IPv6 only: the route is for these sources
    std::uint32_t metric = 0;
    unsigned index = 0;                ///< of the interface
    std::optional<Address> gateway{};  ///< absent: the destination is a neighbour
    Kind kind = Kind::Way;
    int preference = 0;               ///< of a router (RFC 4191): -1, 0, 1
    std::optional<Address> source{};  ///< that packets without one get

    bool operator==(const Route&) const = default;
};

/// A rule: which table to look into, for whom.
struct Rule {
    enum class Action : std::uint8_t { Lookup, Goto, Nothing, Refuse };

    bool v6 = false;
    std::uint32_t priority = 0;
    Prefix from{};
    Prefix to{};
    bool fits = true;  ///< the selectors beside the addresses fit our connections
    bool inverted = false;
    Action action = Action::Lookup;
    std::uint32_t table = kMainTable;
    std::uint32_t target = 0;  ///< of Goto: a priority
    int suppress = -1;         ///< routes of at most this prefix length do not count

    bool operator==(const Rule&) const = default;
};

/// What is asked. An absent destination is any that only a default route leads to.
struct Query {
    bool v6 = false;
    std::optional<Address> from{};
    std::optional<Address> to{};
    bool bound = false;  ///< the socket is bound to the interface that is asked about
};

class Routing {
  public:
    /// Knows it from now on; a route that has changed takes its old place.
    void add(const Route& route);
    void add(const Rule& rule);
    void remove(const Route& route);
    void remove(const Rule& rule);
    /// Removes what a new route replaces: the same destination and metric. False if these
    /// were several, so that it is not known which of them have gone.
    bool remove_replaced(const Route& by);
    /// Removes all routes by an interface, of one family.
    void remove_interface(unsigned index, bool v6);
    /// An address is no longer the host's: IPv4 routes that name it as source go with it.
    void remove_source(const Address& source);

    /// The route by which packets leave by that interface; none if they leave by another
    /// one, or not at all.
    [[nodiscard]] const Route* find(const Query& query, unsigned index) const;
    [[nodiscard]] bool contains(const Route& route) const;
    /// Has the interface any route of that family?
    [[nodiscard]] bool leads_by(unsigned index, bool v6) const;

    /// Sorted; within a table longer prefixes come first, then lower metrics.
    [[nodiscard]] const std::vector<Route>& routes() const { return routes_; }

    bool operator==(const Routing&) const = default;

  private:
    [[nodiscard]] std::span<const Rule> rules_of(bool v6) const;
    /// The best routes of a table: equal but for their next hops.
    [[nodiscard]] std::span<const Route> best_of(std::uint32_t table, const Query& query,
                                                 unsigned index) const;

    std::vector<Route> routes_;
    std::vector<Rule> rules_;  ///< sorted by family and priority
};

}  // namespace mobility::watch
