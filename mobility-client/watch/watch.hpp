// SPDX-License-Identifier: GPL-2.0-or-later
// Watching where this host is, and deciding what a move is. Start reading here.
//
//     kernel --rtnetlink--> Watcher --> HostState --> View --> decide() --> migrate commands
//                           (sockets)   \__________ pure: no I/O, no clock ___________/
//
//   config.hpp      what may be adjusted: interfaces, preferences, times
//   host_state.hpp  links, addresses, routes and rules, as the kernel told of them
//   routing.hpp     by which interface the kernel sends what has a given source
//   view.hpp        the places that connections can use, made from a HostState
//   source.hpp      which of an interface's addresses the kernel would take (RFC 6724)
//   decide.hpp      stay, move, wait or give up, for each local address in use
//   decode.hpp      rtnetlink messages
//   netlink.hpp     rtnetlink sockets
//   watcher.hpp     keeps a HostState up to date and hands out Views
//
// Words. A *place* is a local address on an interface that may lead out. It *works* for a
// peer if a packet from that address to the peer leaves by that interface, as the kernel's
// rules and routes are: the kernel looks at nothing else when a connection sends, so a
// place whose packets would leave elsewhere is none (a second interface without a rule for
// its address, a dead cable whose default route is still there). The *other* addresses of
// the host (loopback, link-local, those of tunnels and containers' bridges) are left alone.
//
// How to use it:
//
//     auto watcher = watch::Watcher::open(io, config, log);
//     watcher->start([&](const View& before, const View& after) {
//         const auto uses = watch::uses_of(*client.list(), trials);
//         const auto moves = watch::decide(before, after, uses, config.policy);
//         for (const auto& request : watch::requests(uses, moves)) client.migrate_all(request);
//     });
//
// What is gained (an address and its route have become usable) is told as soon as the
// kernel has told it, with no timer in the way; what is lost, when the burst of messages it
// came in is over. A loss that may be mended at once by itself is held for a short time.
#pragma once

// IWYU pragma: begin_exports
#include "watch/config.hpp"
#include "watch/decide.hpp"
#include "watch/view.hpp"
#include "watch/watcher.hpp"
// IWYU pragma: end_exports
