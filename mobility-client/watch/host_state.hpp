// SPDX-License-Identifier: GPL-2.0-or-later
// Links, addresses, routes and rules of this host, as far as the kernel has told. Changes
// are applied one by one; what the kernel does without telling is done here as well:
//
//  - IPv4 routes vanish with their interface, when it is set down, and with its last IPv4
//    address; those that name a source address, with that address. IPv6 routes vanish with
//    an interface as well, and net.ipv6.route.skip_notify_on_dev_down keeps quiet about it.
//
// Changes may be applied twice, or be older than what a dump had: in the order in which the
// kernel sent them they lead to what is so.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "watch/routing.hpp"

namespace mobility::watch {

struct Link {
    unsigned index = 0;
    std::string name{};
    std::string kind{};    ///< "wireguard", "veth", ...; empty: hardware
    bool up = false;       ///< somebody wants it up
    bool running = false;  ///< it carries packets: has a carrier, is authenticated, ...
    std::optional<bool> prefers_temporary{};  ///< use_tempaddr; absent: not said

    bool operator==(const Link&) const = default;
};

struct HostAddress {
    Address ip{};
    unsigned index = 0;
    std::uint8_t length = 0;               ///< of its prefix
    bool confined = false;                 ///< of the scope of a link or the host
    bool tentative = false;                ///< duplicate address detection is not done
    bool failed = false;                   ///< ... and has found a duplicate
    bool deprecated = false;               ///< not for new connections
    bool temporary = false;                ///< IPv6: for privacy
    bool secondary = false;                ///< IPv4: not the first of its subnet
    std::uint32_t preferred = UINT32_MAX;  ///< seconds until it is deprecated, when told
    std::uint32_t valid = UINT32_MAX;      ///< seconds until it is removed, when told

    bool operator==(const HostAddress&) const = default;
};

/// May this interface's routes be used without a carrier? Index 0: those of any.
struct Linkdown {
    bool v6 = false;
    unsigned index = 0;
    bool ignores = false;  ///< ignore_routes_with_linkdown

    bool operator==(const Linkdown&) const = default;
};

struct Change {
    enum class How : std::uint8_t { Set, Replace, Remove };

    How how = How::Set;
    std::variant<Link, HostAddress, Route, Rule, Linkdown> what;

    bool operator==(const Change&) const = default;
};

class HostState {
  public:
    /// False if it cannot be told what the change has led to: read everything anew.
    [[nodiscard]] bool apply(const Change& change);

    [[nodiscard]] const std::map<unsigned, Link>& links() const { return links_; }
    /// In the kernel's order.
    [[nodiscard]] const std::vector<HostAddress>& addresses() const { return addresses_; }
    [[nodiscard]] const Routing& routing() const { return routing_; }
    /// Without the routes that the kernel passes over because their link is down.
    [[nodiscard]] Routing live_routing() const;

  private:
    bool change(Change::How how, const Link& link);
    bool change(Change::How how, const HostAddress& address);
    bool change(Change::How how, const Route& route);
    bool change(Change::How how, const Rule& rule);
    bool change(Change::How how, const Linkdown& linkdown);
    void remove_link(unsigned index);
    void after_removal(const HostAddress& address);

    std::map<unsigned, Link> links_;
    std::vector<HostAddress> addresses_;
    Routing routing_;
    std::set<std::pair<bool, unsigned>> ignores_linkdown_;  ///< family, index
};

}  // namespace mobility::watch
