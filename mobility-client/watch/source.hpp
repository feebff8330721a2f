// SPDX-License-Identifier: GPL-2.0-or-later
// Which of an interface's addresses to use for a peer: as the kernel chooses the source of
// a new connection. IPv6: RFC 6724, section 5, as far as it applies to addresses that are
// all of global scope on one interface: rules 6 (label), 7 (temporary), 8 (longest common
// prefix); rule 3 (deprecated) comes before the choice of an interface (decide.cpp), rule
// 5.5 the kernel does not have. IPv4: in the subnet of the next hop, then the first.
#pragma once

#include "watch/view.hpp"

namespace mobility::watch {

/// Is `a` to be preferred? `route`: by which both reach the peer.
[[nodiscard]] bool better_source(const Place& a, const Place& b, const Address& peer,
                                 const Route& route);

}  // namespace mobility::watch
