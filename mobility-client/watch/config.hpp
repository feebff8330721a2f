// SPDX-License-Identifier: GPL-2.0-or-later
// What may be adjusted of watching and deciding.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace mobility::watch {

using Time = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

/// What to make of the interfaces that both patterns fit (as in a shell: * ? [...]).
struct InterfaceRule {
    std::string name = "*";
    /// As `ip -d link` shows it: "wireguard", "veth", "bridge", ...; a pattern that fits
    /// the empty string fits hardware, which has none.
    std::string kind = "*";
    bool use = true;  ///< false: its addresses are left alone
    int rank = 0;     ///< lower is preferred; among equals the default route's metric decides

    bool operator==(const InterfaceRule&) const = default;
};

/// Tunnels, containers' bridges and whatever else leads to no other place.
const std::vector<InterfaceRule>& built_in_rules();

/// What connections that could stay are to do.
struct Policy {
    enum class Better { Trial, Stay };

    /// A better place has come while the one in use still works.
    Better better = Better::Trial;
    /// The address in use is deprecated: by default it is used until it is removed.
    bool leave_deprecated = false;

    bool operator==(const Policy&) const = default;
};

struct Config {
    enum class Temporary { AsKernel, Prefer, Avoid };

    /// The first that fits counts; if none does, the first of built_in_rules().
    std::vector<InterfaceRule> interfaces;
    Policy policy;
    /// Temporary addresses of IPv6 (RFC 8981). AsKernel: as the interface's use_tempaddr.
    Temporary temporary = Temporary::AsKernel;
    /// How long a loss is waited out that may mend itself: no carrier, no route, an address
    /// taken from an interface that goes on (as in a DHCP renewal).
    Duration hold = std::chrono::milliseconds(200);
    /// A burst of messages without a gain is over when none has come for so long, ...
    Duration quiet = std::chrono::milliseconds(1);
    /// ... or after this time.
    Duration longest = std::chrono::milliseconds(10);
    /// For what the kernel has to say, in bytes; when it is full, everything is read anew.
    int receive_buffer = 1 << 20;

    /// What to make of an interface.
    [[nodiscard]] const InterfaceRule& rule_for(const std::string& name,
                                                const std::string& kind) const;

    bool operator==(const Config&) const = default;
};

}  // namespace mobility::watch
