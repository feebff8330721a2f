// SPDX-License-Identifier: GPL-2.0-or-later
// rtnetlink messages as the kernel sends them: one of every kind that is followed, for the
// tests of their decoder and as seeds of its fuzzer.
#pragma once

#include <arpa/inet.h>
#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/netconf.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace fake {

using Datagram = std::vector<std::byte>;

inline void put_address(nl_msg* message, int type, const char* text) {
    std::array<std::byte, 16> bytes{};
    const bool v6 = ::inet_pton(AF_INET6, text, bytes.data()) == 1;
    if (!v6) {
        ::inet_pton(AF_INET, text, bytes.data());
    }
    nla_put(message, type, v6 ? 16 : 4, bytes.data());
}

/// A message with its fixed part, and what `fill` puts behind it.
template <typename Fixed>
Datagram rtnetlink(int type, const Fixed& fixed, const std::function<void(nl_msg*)>& fill = {},
                   int flags = 0) {
    const std::unique_ptr<nl_msg, void (*)(nl_msg*)> message(nlmsg_alloc_simple(type, flags),
                                                             nlmsg_free);
    nlmsg_append(message.get(), const_cast<Fixed*>(&fixed), sizeof(fixed), NLMSG_ALIGNTO);
    if (fill) {
        fill(message.get());
    }
    const auto* header = nlmsg_hdr(message.get());
    const auto* start = reinterpret_cast<const std::byte*>(header);
    return {start, start + header->nlmsg_len};
}

inline void put_next_hop(nl_msg* message, int index, const char* gateway) {
    const Datagram attribute = [gateway] {
        const std::unique_ptr<nl_msg, void (*)(nl_msg*)> scratch(nlmsg_alloc(), nlmsg_free);
        nlmsg_put(scratch.get(), 0, 0, 0, 0, 0);
        put_address(scratch.get(), RTA_GATEWAY, gateway);
        const auto* start = static_cast<const std::byte*>(nlmsg_data(nlmsg_hdr(scratch.get())));
        return Datagram(start, start + nlmsg_datalen(nlmsg_hdr(scratch.get())));
    }();
    rtnexthop hop{};
    hop.rtnh_len = static_cast<unsigned short>(sizeof(hop) + attribute.size());
    hop.rtnh_ifindex = index;
    nlmsg_append(message, &hop, sizeof(hop), 0);
    nlmsg_append(message, const_cast<std::byte*>(attribute.data()), attribute.size(), 0);
}

/// By a name for each.
inline std::map<std::string, Datagram> rtnetlink_samples() {
    ifinfomsg link{};
    link.ifi_index = 3;
    link.ifi_flags = IFF_UP | IFF_RUNNING;
    ifinfomsg port = link;
    port.ifi_family = AF_BRIDGE;
    const ifaddrmsg v4{AF_INET, 24, IFA_F_SECONDARY, RT_SCOPE_UNIVERSE, 3};
    const ifaddrmsg v6{AF_INET6, 64, IFA_F_TEMPORARY, RT_SCOPE_UNIVERSE, 3};
    rtmsg route{};
    route.rtm_family = AF_INET;
    route.rtm_table = RT_TABLE_MAIN;
    route.rtm_type = RTN_UNICAST;
    rtmsg route6 = route;
    route6.rtm_family = AF_INET6;
    rtmsg specific = route6;
    specific.rtm_dst_len = 48;
    specific.rtm_src_len = 64;
    rtmsg unreachable = route;
    unreachable.rtm_type = RTN_UNREACHABLE;
    rtmsg local = route;
    local.rtm_type = RTN_LOCAL;
    fib_rule_hdr rule{};
    rule.family = AF_INET;
    rule.src_len = 24;
    rule.action = FR_ACT_TO_TBL;
    fib_rule_hdr marked{};
    marked.family = AF_INET6;
    marked.action = FR_ACT_TO_TBL;
    marked.flags = FIB_RULE_INVERT;
    const netconfmsg settings{AF_INET};
    const auto name = [](nl_msg* m) {
        nla_put_string(m, IFLA_IFNAME, "wg0");
        auto* info = nla_nest_start(m, IFLA_LINKINFO);
        nla_put_string(m, IFLA_INFO_KIND, "wireguard");
        nla_nest_end(m, info);
        auto* families = nla_nest_start(m, IFLA_AF_SPEC);
        auto* inet6 = nla_nest_start(m, AF_INET6);
        std::array<std::int32_t, DEVCONF_MAX> values{};
        values[DEVCONF_USE_TEMPADDR] = 2;
        nla_put(m, IFLA_INET6_CONF, sizeof(values), values.data());
        nla_nest_end(m, inet6);
        nla_nest_end(m, families);
    };
    const auto to_gateway = [](nl_msg* m) {
        put_address(m, RTA_GATEWAY, "192.0.2.1");
        nla_put_u32(m, RTA_OIF, 3);
        nla_put_u32(m, RTA_PRIORITY, 100);
        nla_put_u32(m, RTA_TABLE, 1000);
        put_address(m, RTA_PREFSRC, "192.0.2.10");
    };
    return {
        {"link", rtnetlink(RTM_NEWLINK, link, name)},
        {"link-port", rtnetlink(RTM_DELLINK, port, name)},
        {"address", rtnetlink(RTM_NEWADDR, v4,
                              [](nl_msg* m) {
                                  put_address(m, IFA_ADDRESS, "192.0.2.1");
                                  put_address(m, IFA_LOCAL, "192.0.2.10");
                                  ifa_cacheinfo times{3600, 7200, 0, 0};
                                  nla_put(m, IFA_CACHEINFO, sizeof(times), &times);
                              })},
        {"address6", rtnetlink(RTM_DELADDR, v6,
                               [](nl_msg* m) {
                                   put_address(m, IFA_ADDRESS, "2001:db8::10");
                                   ifa_cacheinfo times{0, 7200, 0, 0};
                                   nla_put(m, IFA_CACHEINFO, sizeof(times), &times);
                                   nla_put_u32(m, IFA_FLAGS,
                                               IFA_F_TEMPORARY | IFA_F_TENTATIVE | IFA_F_DADFAILED);
                               })},
        {"optimistic", rtnetlink(RTM_NEWADDR, v6,
                                 [](nl_msg* m) {
                                     put_address(m, IFA_ADDRESS, "2001:db8::10");
                                     nla_put_u32(m, IFA_FLAGS, IFA_F_TENTATIVE | IFA_F_OPTIMISTIC);
                                 })},
        {"route", rtnetlink(RTM_NEWROUTE, route, to_gateway, NLM_F_REPLACE)},
        {"route-del", rtnetlink(RTM_DELROUTE, route, to_gateway)},
        {"route-unreachable", rtnetlink(RTM_NEWROUTE, unreachable)},
        {"route-local", rtnetlink(RTM_NEWROUTE, local, to_gateway)},
        {"route-via", rtnetlink(RTM_NEWROUTE, route,
                                [](nl_msg* m) {
                                    std::array<std::byte, 18> via{};
                                    const auto family = static_cast<std::uint16_t>(AF_INET6);
                                    std::copy_n(reinterpret_cast<const std::byte*>(&family), 2,
                                                via.begin());
                                    ::inet_pton(AF_INET6, "fe80::7", via.data() + 2);
                                    nla_put(m, RTA_VIA, via.size(), via.data());
                                    nla_put_u32(m, RTA_OIF, 3);
                                })},
        {"route-hops", rtnetlink(
                           RTM_NEWROUTE, route6,
                           [](nl_msg* m) {
                               auto* hops = nla_nest_start(m, RTA_MULTIPATH);
                               put_next_hop(m, 3, "fe80::1");
                               put_next_hop(m, 4, "fe80::2");
                               nla_nest_end(m, hops);
                           },
                           NLM_F_REPLACE)},
        {"route-specific", rtnetlink(RTM_NEWROUTE, specific,
                                     [](nl_msg* m) {
                                         put_address(m, RTA_DST, "2001:db8:7::");
                                         put_address(m, RTA_SRC, "2001:db8:1::");
                                         nla_put_u32(m, RTA_OIF, 3);
                                         nla_put_u8(m, RTA_PREF, 3);  // low
                                     })},
        {"rule", rtnetlink(RTM_NEWRULE, rule,
                           [](nl_msg* m) {
                               put_address(m, FRA_SRC, "192.0.2.0");
                               nla_put_u32(m, FRA_PRIORITY, 7);
                               nla_put_u32(m, FRA_TABLE, 1000);
                               nla_put_u32(m, FRA_SUPPRESS_PREFIXLEN, 0);
                           })},
        {"rule-marked", rtnetlink(RTM_DELRULE, marked,
                                  [](nl_msg* m) {
                                      nla_put_u32(m, FRA_FWMARK, 0xca6c);
                                      nla_put_u32(m, FRA_FWMASK, UINT32_MAX);
                                  })},
        {"settings", rtnetlink(RTM_NEWNETCONF, settings,
                               [](nl_msg* m) {
                                   nla_put_s32(m, NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL);
                                   nla_put_s32(m, NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN, 1);
                               })},
        {"next-hop", rtnetlink(RTM_DELNEXTHOP, std::array<unsigned char, 8>{})},
        {"done", rtnetlink(NLMSG_DONE, 0, {}, NLM_F_MULTI | NLM_F_DUMP_INTR)},
        {"error", rtnetlink(NLMSG_ERROR, nlmsgerr{-EBUSY, {}})},
    };
}

}  // namespace fake
