// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/decode.hpp"

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/netconf.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

namespace mobility::watch {

namespace {

constexpr int kRouterLow = 3;  // ICMPV6_ROUTER_PREF_LOW, which uapi does not have
constexpr int kRouterHigh = 1;
constexpr int kNoSuppression = -1;

bool is_ip(int family) {
    return family == AF_INET || family == AF_INET6;
}

/// Attributes up to a number; those beyond are skipped.
template <int max>
class Attributes {
  public:
    Attributes(nlattr* first, int length) {
        if (first != nullptr && length > 0) {
            nla_parse(table_.data(), max, first, length, nullptr);
        }
    }

    [[nodiscard]] nlattr* get(int type) const { return table_.at(static_cast<std::size_t>(type)); }
    [[nodiscard]] bool has(int type) const { return get(type) != nullptr; }

    template <typename Number>
    [[nodiscard]] std::optional<Number> number(int type) const {
        const auto* attribute = get(type);
        if (attribute == nullptr || nla_len(attribute) < static_cast<int>(sizeof(Number))) {
            return {};
        }
        Number value{};
        std::memcpy(&value, nla_data(attribute), sizeof(value));
        return value;
    }
    [[nodiscard]] std::string text(int type) const {
        const auto* attribute = get(type);
        if (attribute == nullptr) {
            return {};
        }
        const auto* start = static_cast<const char*>(nla_data(attribute));
        return {start, strnlen(start, static_cast<std::size_t>(nla_len(attribute)))};
    }
    [[nodiscard]] std::optional<Address> address(int type, bool v6) const {
        const auto* attribute = get(type);
        if (attribute == nullptr) {
            return {};
        }
        const auto read = Address::from_bytes({static_cast<const std::byte*>(nla_data(attribute)),
                                               static_cast<std::size_t>(nla_len(attribute))});
        // IPv4-mapped addresses have no routes that matter.
        return read && read->is_v6() == v6 ? std::optional(*read) : std::nullopt;
    }
    /// Nothing if it cannot be represented.
    [[nodiscard]] std::optional<Prefix> prefix(int type, bool v6, std::uint8_t length) const {
        if (length == 0) {
            return Prefix{};
        }
        const auto start = address(type, v6);
        return start ? std::optional(Prefix{*start, length}) : std::nullopt;
    }

  private:
    std::array<nlattr*, max + 1> table_{};
};

template <int max>
Attributes<max> nested(nlattr* attribute) {
    return attribute == nullptr
               ? Attributes<max>(nullptr, 0)
               : Attributes<max>(static_cast<nlattr*>(nla_data(attribute)), nla_len(attribute));
}

/// One message: its fixed part, and the attributes behind.
class Message {
  public:
    explicit Message(nlmsghdr* header) : header_(header) {}

    [[nodiscard]] int type() const { return header_->nlmsg_type; }
    [[nodiscard]] bool is(int flag) const { return (header_->nlmsg_flags & flag) != 0; }
    template <typename Fixed>
    [[nodiscard]] const Fixed* fixed() const {
        return nlmsg_valid_hdr(header_, sizeof(Fixed)) != 0
                   ? static_cast<const Fixed*>(nlmsg_data(header_))
                   : nullptr;
    }
    template <int max, typename Fixed>
    [[nodiscard]] Attributes<max> attributes() const {
        return {nlmsg_attrdata(header_, sizeof(Fixed)), nlmsg_attrlen(header_, sizeof(Fixed))};
    }

  private:
    nlmsghdr* header_;
};

using How = Change::How;

// ---- Links ----

std::optional<bool> prefers_temporary(nlattr* af_spec) {
    const auto families = nested<AF_INET6>(af_spec);
    const auto inet6 = nested<IFLA_INET6_MAX>(families.get(AF_INET6));
    const auto* values = inet6.get(IFLA_INET6_CONF);
    constexpr int at = DEVCONF_USE_TEMPADDR * static_cast<int>(sizeof(std::int32_t));
    std::int32_t value = 0;
    if (values == nullptr || nla_len(values) < at + static_cast<int>(sizeof(value))) {
        return {};
    }
    std::memcpy(&value, static_cast<const std::byte*>(nla_data(values)) + at, sizeof(value));
    return value >= 2;
}

void decode_link(const Message& message, Decoded& out) {
    const auto* fixed = message.fixed<ifinfomsg>();
    // With a family it is about a bridge's port.
    if (fixed == nullptr || fixed->ifi_family != AF_UNSPEC) {
        return;
    }
    const auto attributes = message.attributes<IFLA_MAX, ifinfomsg>();
    Link link;
    link.index = static_cast<unsigned>(fixed->ifi_index);
    link.name = attributes.text(IFLA_IFNAME);
    link.kind = nested<IFLA_INFO_MAX>(attributes.get(IFLA_LINKINFO)).text(IFLA_INFO_KIND);
    link.up = (fixed->ifi_flags & IFF_UP) != 0;
    link.running = link.up && (fixed->ifi_flags & IFF_RUNNING) != 0;
    link.prefers_temporary = prefers_temporary(attributes.get(IFLA_AF_SPEC));
    out.changes.push_back({message.type() == RTM_DELLINK ? How::Remove : How::Set, link});
}

// ---- Addresses ----

void set_flags(HostAddress& address, std::uint32_t flags) {
    address.tentative = (flags & IFA_F_TENTATIVE) != 0 && (flags & IFA_F_OPTIMISTIC) == 0;
    address.failed = (flags & IFA_F_DADFAILED) != 0;
    address.deprecated = (flags & IFA_F_DEPRECATED) != 0;
    // One bit, two meanings.
    address.temporary = address.ip.is_v6() && (flags & IFA_F_TEMPORARY) != 0;
    address.secondary = !address.ip.is_v6() && (flags & IFA_F_SECONDARY) != 0;
}

void decode_address(const Message& message, Decoded& out) {
    const auto* fixed = message.fixed<ifaddrmsg>();
    if (fixed == nullptr || !is_ip(fixed->ifa_family)) {
        return;
    }
    const auto attributes = message.attributes<IFA_MAX, ifaddrmsg>();
    const bool v6 = fixed->ifa_family == AF_INET6;
    // Of a point-to-point link IFA_ADDRESS is the other end.
    const auto local = attributes.address(IFA_LOCAL, v6);
    const auto ip = local ? local : attributes.address(IFA_ADDRESS, v6);
    if (!ip) {
        return;
    }
    HostAddress address;
    address.ip = *ip;
    address.index = fixed->ifa_index;
    address.length = fixed->ifa_prefixlen;
    address.confined = fixed->ifa_scope >= RT_SCOPE_LINK;
    set_flags(address, attributes.number<std::uint32_t>(IFA_FLAGS).value_or(fixed->ifa_flags));
    if (const auto times = attributes.number<ifa_cacheinfo>(IFA_CACHEINFO)) {
        address.preferred = times->ifa_prefered;
        address.valid = times->ifa_valid;
        address.deprecated = address.deprecated || address.preferred == 0;
    }
    out.changes.push_back({message.type() == RTM_DELADDR ? How::Remove : How::Set, address});
}

// ---- Routes ----

std::optional<Route::Kind> kind(int type) {
    switch (type) {
        case RTN_UNICAST:
            return Route::Kind::Way;
        case RTN_UNREACHABLE:
        case RTN_PROHIBIT:
        case RTN_BLACKHOLE:
            return Route::Kind::Blocked;
        case RTN_THROW:
            return Route::Kind::Throw;
        default:
            return {};  // to this host, or to many
    }
}

int preference(std::optional<std::uint8_t> value) {
    return value == kRouterHigh ? 1 : (value == kRouterLow ? -1 : 0);
}

/// The gateway, also one of the other family (RTA_VIA).
std::optional<Address> gateway(const Attributes<RTA_MAX>& attributes, bool v6) {
    const auto* via = attributes.get(RTA_VIA);
    constexpr int start = offsetof(rtvia, rtvia_addr);
    if (via == nullptr || nla_len(via) <= start) {
        return attributes.address(RTA_GATEWAY, v6);
    }
    const auto read = Address::from_bytes({static_cast<const std::byte*>(nla_data(via)) + start,
                                           static_cast<std::size_t>(nla_len(via) - start)});
    return read ? std::optional(*read) : std::nullopt;
}

/// One route per next hop.
std::vector<Route> next_hops(const Route& route, nlattr* multipath) {
    std::vector<Route> routes;
    auto* at = static_cast<std::byte*>(nla_data(multipath));
    auto left = static_cast<std::size_t>(nla_len(multipath));
    rtnexthop hop{};
    while (left >= sizeof(hop)) {
        std::memcpy(&hop, at, sizeof(hop));
        if (hop.rtnh_len < sizeof(hop) || hop.rtnh_len > left) {
            break;
        }
        const Attributes<RTA_MAX> attributes(reinterpret_cast<nlattr*>(at + sizeof(hop)),
                                             static_cast<int>(hop.rtnh_len - sizeof(hop)));
        routes.push_back(route);
        routes.back().index = static_cast<unsigned>(hop.rtnh_ifindex);
        routes.back().gateway = gateway(attributes, route.v6);
        const auto step = std::min<std::size_t>(RTNH_ALIGN(hop.rtnh_len), left);
        at += step;
        left -= step;
    }
    return routes;
}

std::optional<Route> route_of(const rtmsg& fixed, const Attributes<RTA_MAX>& attributes) {
    Route route;
    route.v6 = fixed.rtm_family == AF_INET6;
    const auto of_kind = kind(fixed.rtm_type);
    const auto to = attributes.prefix(RTA_DST, route.v6, fixed.rtm_dst_len);
    const auto from = attributes.prefix(RTA_SRC, route.v6, fixed.rtm_src_len);
    const bool cached = (fixed.rtm_flags & RTM_F_CLONED) != 0;
    if (!of_kind || !to || !from || cached || (!route.v6 && fixed.rtm_tos != 0)) {
        return {};
    }
    route.kind = *of_kind;
    route.to = *to;
    route.from = *from;
    route.table = attributes.number<std::uint32_t>(RTA_TABLE).value_or(fixed.rtm_table);
    route.metric = attributes.number<std::uint32_t>(RTA_PRIORITY).value_or(0);
    route.index = attributes.number<std::uint32_t>(RTA_OIF).value_or(0);
    route.gateway = gateway(attributes, route.v6);
    route.preference = preference(attributes.number<std::uint8_t>(RTA_PREF));
    route.source = attributes.address(RTA_PREFSRC, route.v6);
    return route;
}

void decode_route(const Message& message, Decoded& out) {
    const auto* fixed = message.fixed<rtmsg>();
    if (fixed == nullptr || !is_ip(fixed->rtm_family)) {
        return;
    }
    const auto attributes = message.attributes<RTA_MAX, rtmsg>();
    const auto route = route_of(*fixed, attributes);
    if (!route) {
        return;
    }
    const bool replaces = message.is(NLM_F_REPLACE);
    auto how = message.type() == RTM_DELROUTE ? How::Remove : (replaces ? How::Replace : How::Set);
    auto* multipath = attributes.get(RTA_MULTIPATH);
    for (const auto& hop :
         multipath != nullptr ? next_hops(*route, multipath) : std::vector{*route}) {
        out.changes.push_back({how, hop});
        if (how == How::Replace) {
            how = How::Set;  // all of them replace what was, not each other
        }
    }
}

// ---- Rules ----

/// Do the selectors that are no addresses fit an unmarked TCP socket of this host?
bool fits_us(const fib_rule_hdr& fixed, const Attributes<FRA_MAX>& attributes) {
    const auto mark = attributes.number<std::uint32_t>(FRA_FWMARK).value_or(0);
    const auto mask = attributes.number<std::uint32_t>(FRA_FWMASK).value_or(UINT32_MAX);
    const auto users = attributes.number<fib_rule_uid_range>(FRA_UID_RANGE);
    const bool all_users = !users || (users->start == 0 && users->end == UINT32_MAX);
    const auto from = attributes.text(FRA_IIFNAME);
    const auto protocol = attributes.number<std::uint8_t>(FRA_IP_PROTO).value_or(0);
    return (mark & mask) == 0 && all_users && (from.empty() || from == "lo") &&
           (protocol == 0 || protocol == IPPROTO_TCP) && fixed.tos == 0 &&
           !attributes.has(FRA_OIFNAME) && !attributes.has(FRA_SPORT_RANGE) &&
           !attributes.has(FRA_DPORT_RANGE) && !attributes.has(FRA_TUN_ID) &&
           attributes.number<std::uint8_t>(FRA_L3MDEV).value_or(0) == 0;
}

Rule::Action action(int value) {
    switch (value) {
        case FR_ACT_TO_TBL:
            return Rule::Action::Lookup;
        case FR_ACT_GOTO:
            return Rule::Action::Goto;
        case FR_ACT_BLACKHOLE:
        case FR_ACT_UNREACHABLE:
        case FR_ACT_PROHIBIT:
            return Rule::Action::Refuse;
        default:
            return Rule::Action::Nothing;
    }
}

void decode_rule(const Message& message, Decoded& out) {
    const auto* fixed = message.fixed<fib_rule_hdr>();
    if (fixed == nullptr || !is_ip(fixed->family)) {
        return;
    }
    const auto attributes = message.attributes<FRA_MAX, fib_rule_hdr>();
    Rule rule;
    rule.v6 = fixed->family == AF_INET6;
    const auto from = attributes.prefix(FRA_SRC, rule.v6, fixed->src_len);
    const auto to = attributes.prefix(FRA_DST, rule.v6, fixed->dst_len);
    rule.from = from.value_or(Prefix{});
    rule.to = to.value_or(Prefix{});
    rule.fits = from && to && fits_us(*fixed, attributes);
    rule.inverted = (fixed->flags & FIB_RULE_INVERT) != 0;
    rule.priority = attributes.number<std::uint32_t>(FRA_PRIORITY).value_or(0);
    rule.action = action(fixed->action);
    rule.table = attributes.number<std::uint32_t>(FRA_TABLE).value_or(fixed->table);
    rule.target = attributes.number<std::uint32_t>(FRA_GOTO).value_or(0);
    rule.suppress =
        attributes.number<std::int32_t>(FRA_SUPPRESS_PREFIXLEN).value_or(kNoSuppression);
    out.changes.push_back({message.type() == RTM_DELRULE ? How::Remove : How::Set, rule});
}

// ---- Settings ----

void decode_settings(const Message& message, Decoded& out) {
    const auto* fixed = message.fixed<netconfmsg>();
    if (fixed == nullptr || !is_ip(fixed->ncm_family)) {
        return;
    }
    const auto attributes = message.attributes<NETCONFA_MAX, netconfmsg>();
    const auto index = attributes.number<std::int32_t>(NETCONFA_IFINDEX);
    const auto ignores = attributes.number<std::int32_t>(NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN);
    const bool of_all = index == NETCONFA_IFINDEX_ALL;
    const bool removed = message.type() == RTM_DELNETCONF;
    if (!index || (*index <= 0 && !of_all) || (!ignores && !removed)) {
        return;
    }
    Linkdown linkdown;
    linkdown.v6 = fixed->ncm_family == AF_INET6;
    linkdown.index = of_all ? 0 : static_cast<unsigned>(*index);
    linkdown.ignores = ignores.value_or(0) != 0;
    out.changes.push_back({removed ? How::Remove : How::Set, linkdown});
}

// ---- Datagrams ----

void decode_error(nlmsghdr* header, Decoded& out) {
    const auto* fixed = Message(header).fixed<nlmsgerr>();
    out.done = true;
    out.error = fixed == nullptr ? EBADMSG : -fixed->error;
}

void decode_done(nlmsghdr* header, Decoded& out) {
    const auto* error = Message(header).fixed<int>();
    out.done = true;
    out.error = error == nullptr ? 0 : -*error;
}

void decode_message(nlmsghdr* header, Decoded& out) {
    const Message message(header);
    out.interrupted = out.interrupted || message.is(NLM_F_DUMP_INTR);
    switch (message.type()) {
        case NLMSG_NOOP:
            return;
        case NLMSG_ERROR:
            return decode_error(header, out);
        case NLMSG_DONE:
            return decode_done(header, out);
        case RTM_NEWLINK:
        case RTM_DELLINK:
            return decode_link(message, out);
        case RTM_NEWADDR:
        case RTM_DELADDR:
            return decode_address(message, out);
        case RTM_NEWROUTE:
        case RTM_DELROUTE:
            return decode_route(message, out);
        case RTM_NEWRULE:
        case RTM_DELRULE:
            return decode_rule(message, out);
        case RTM_NEWNETCONF:
        case RTM_DELNETCONF:
            return decode_settings(message, out);
        default:
            out.unsure = true;
    }
}

}  // namespace

Decoded decode(std::span<const std::byte> datagram, std::uint32_t sequence) {
    // Headers are read in place, which needs their alignment.
    std::vector<std::uint32_t> words((datagram.size() + 3) / 4);
    std::ranges::copy(datagram, std::as_writable_bytes(std::span(words)).begin());
    auto* header = reinterpret_cast<nlmsghdr*>(words.data());
    auto left = static_cast<int>(datagram.size());
    Decoded out;
    while (nlmsg_ok(header, left) != 0) {
        if (sequence == 0 || header->nlmsg_seq == sequence) {
            decode_message(header, out);
        }
        header = nlmsg_next(header, &left);
    }
    return out;
}

}  // namespace mobility::watch
