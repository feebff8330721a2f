// SPDX-License-Identifier: GPL-2.0-or-later
// The server's judgement: two reports of one pair of hosts go in; who is told
// what, and in which order, comes out. A pure function: nothing else in the
// server decides, and it knows neither time nor connections to clients.
//
// Requirements A2.4 to A2.8 (thesis 3.1.2, 3.1.5, 3.4.2 to 3.4.4), with these
// differences, whose reasons are in A2.5 and A2.7:
//  - Two hosts that were both global are no coincidence; hosts that are not each
//    other's peer, or that have no connection in common, are.
//  - A place that was told may turn out not to answer, since a firewall without
//    translation does not show in addresses: what is tried next is in the plan.
//  - Hosts behind the same NAPT reach each other inside it.
//
// Ports are in host byte order, and are those from before any translation
// (Migrate-Permit and Migrate-Request tell them). All types own what they hold.
#pragma once

#include <array>
#include <boost/asio/ip/address.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "libmobility/message.hpp"
#include "libmobility/proxy_message.hpp"

namespace mobility::judge {

using Address = boost::asio::ip::address;

/// The mobility information of one host about one peer, in one address family.
struct Report {
    Name host;            ///< who reports; the channel has proved it
    Name peer;            ///< whom it is about
    Address before;       ///< its own address before, as the host sees it
    Address peer_before;  ///< the address it had for its peer
    Address after;        ///< its own address now, as the host sees it
    Address seen;         ///< the address from which the report came
    std::vector<Ports> connections;
    bool crosses = false;  ///< it can be told to cross

    bool operator==(const Report&) const = default;
};

/// On which side of a NAPT a host is.
enum class Place : std::uint8_t { Global, Inside };

/// What kind of case this is.
enum class Case : std::uint8_t {
    Coincidence,  ///< equal pair ID by chance, or a false report: to be ignored
    OtherFamily,  ///< a host has no address of the connections' family any more
    Direct,       ///< a SYN of one of them reaches the other
    SameNapt,     ///< both inside the same NAPT
    Apart,        ///< both inside, and not the same: needs a symmetric proxy
};

/// What one host is told.
struct Notice {
    std::size_t host = 0;  ///< 0: who reported first, 1: who reported last
    Address peer;          ///< where its peer is
    bool trial = false;    ///< only a trial: the place may be another host's
    std::vector<Resume> connections;

    bool operator==(const Notice&) const = default;
};

/// Told at the same time; the next step follows if none of them succeeds within
/// 2 RTT + 200 ms. A step without notices asks for a relay of both by a proxy: relay()
/// says of what, and relayed() what they are told then.
using Step = std::vector<Notice>;

struct Judgement {
    Case what = Case::Coincidence;
    std::array<Place, 2> before{};  ///< of who reported first and last
    std::array<Place, 2> after{};
    bool relayed_before = false;  ///< they were using a symmetric proxy
    std::vector<Step> plan;       ///< empty if nothing can or should be done

    /// Does this step ask for a proxy?
    static bool is_relay(const Step& step) { return step.empty(); }
};

/// Judges two reports that carry the same pair ID, in the order in which they
/// came. Addresses that are handed out are those that the server saw; only behind
/// the same NAPT are they those that the hosts claim, and then they have to be
/// private ones, so that nobody is aimed at a third host elsewhere.
Judgement judge(const Report& first, const Report& last);

/// What a proxy is to relay: the connections that both have, `first` being of who reported
/// first. Of those whose tokens both ends have told, kMaxRelays at most: others are for the
/// next report.
std::vector<RelayPair> relay(const Report& first, const Report& last);

/// What both are told when a proxy has reserved these ports for what relay() gives; nothing
/// if there are not as many.
Step relayed(const Report& first, const Report& last, const Address& proxy,
             const std::vector<std::uint16_t>& ports);

/// What both are told to leave a relay, as trials whose MSYNs are to cross: each is to try the
/// other where the proxy has met it. Nothing if that cannot work, or is not to be tried: a host
/// that does not know how to, or is seen at one address by the server and at another by the
/// proxy (so a proxy cannot aim them at anybody else), or both at the same.
Step crossing(const Report& first, const Report& last, const std::vector<RelayPair>& met);

/// Where both had their peer before: it can only be a proxy, which may still have their
/// relays, or a NAPT that turns packets round.
std::optional<Address> proxy_before(const Report& first, const Report& last);

/// After the move: inside if the server sees another address than the host.
Place place_after(const Report& own);

/// What the peer of who reports can be told before it has reported itself: a place that
/// anybody reaches, unless a firewall is there, which the server saw. Nothing if there is
/// none, or it is of another family.
std::optional<Ask::Hint> hint(const Report& peers);

}  // namespace mobility::judge
