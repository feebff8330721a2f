// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/config.hpp"

#include <fnmatch.h>

#include <algorithm>

namespace mobility::watch {

namespace {

bool fits(const std::string& pattern, const std::string& text) {
    return ::fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
}

std::vector<InterfaceRule> make_built_in() {
    std::vector<InterfaceRule> rules;
    // Tunnels: what is inside one has addresses that mean nothing outside.
    for (const auto* kind :
         {"wireguard", "ovpn",   "tun",       "ipip",    "sit",       "ip6tnl", "gre",
          "gretap",    "ip6gre", "ip6gretap", "erspan",  "ip6erspan", "vti",    "vti6",
          "xfrm",      "vxlan",  "geneve",    "bareudp", "gtp",       "amt"}) {
        rules.push_back({.kind = kind, .use = false});
    }
    // Ways to other namespaces of this host, and what leads nowhere.
    for (const auto* kind : {"veth", "netkit", "dummy", "ifb", "vrf"}) {
        rules.push_back({.kind = kind, .use = false});
    }
    // Bridges of containers and virtual machines; any other bridge may be a way out.
    for (const auto* name :
         {"lo", "docker*", "br-*", "virbr*", "lxcbr*", "lxdbr*", "incusbr*", "podman*", "cni*",
          "cali*", "flannel*", "vnet*", "vmnet*", "vboxnet*", "waydroid*"}) {
        rules.push_back({.name = name, .use = false});
    }
    return rules;
}

}  // namespace

const std::vector<InterfaceRule>& built_in_rules() {
    static const auto rules = make_built_in();
    return rules;
}

const InterfaceRule& Config::rule_for(const std::string& name, const std::string& kind) const {
    static const InterfaceRule other;
    for (const auto* rules : {&interfaces, &built_in_rules()}) {
        const auto found = std::ranges::find_if(*rules, [&](const InterfaceRule& rule) {
            return fits(rule.name, name) && fits(rule.kind, kind);
        });
        if (found != rules->end()) {
            return *found;
        }
    }
    return other;
}

}  // namespace mobility::watch
