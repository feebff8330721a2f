// SPDX-License-Identifier: GPL-2.0-or-later
// What the proxy counts, for Prometheus (libmobility/metrics.hpp), and its relays for people
// and programs: `sym-proxy --relays`.
#pragma once

#include <string>
#include <vector>

#include "datapath/data_path.hpp"
#include "packets/packets.hpp"
#include "relay/relays.hpp"
#include "service/service.hpp"

namespace mobility::proxy {

std::string metrics_text(const Relays& relays, const Service& service, const DataPath& flows,
                         const Packets& packets);

/// A line for each, or JSON.
std::string relays_text(const std::vector<Relays::Seen>& relays, bool json);

}  // namespace mobility::proxy
