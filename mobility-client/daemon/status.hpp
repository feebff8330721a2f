// SPDX-License-Identifier: GPL-2.0-or-later
// What the daemon says of itself, as JSON: docs/json has the shapes.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "daemon/mover.hpp"
#include "daemon/peers.hpp"
#include "daemon/resumer.hpp"
#include "daemon/servers.hpp"
#include "daemon/table.hpp"
#include "daemon/trust.hpp"
#include "daemon/vouchers.hpp"
#include "pairing/book.hpp"
#include "watch/watcher.hpp"

namespace mobility::client {

/// All that counts.
struct Counting {
    const Table& table;
    const watch::Watcher& watcher;
    const Mover& mover;
    const Peers& peers;
    const Servers& servers;
    const Resumer& resumer;
    const Vouchers& vouchers;
};

/// Where this host is.
[[nodiscard]] nlohmann::json places_json(const watch::View& view);
/// How many connections are in which state.
[[nodiscard]] nlohmann::json connections_json(const Table& table);
/// Those that cannot go on where they are.
[[nodiscard]] nlohmann::json stuck_json(const Mover& mover);
/// Hosts without a daemon that was reached: only moves of this host alone are possible.
[[nodiscard]] nlohmann::json alone_json(const Peers& peers);
/// The hosts with which this one has agreed.
[[nodiscard]] nlohmann::json pairs_json(const Book& book, const Table& table, const Trust& trust,
                                        const Peers& peers, const Resumer& resumer);
/// What its servers say of this host to its peers.
[[nodiscard]] nlohmann::json vouchers_json(const Vouchers& vouchers);
/// The channels to mobility servers.
[[nodiscard]] nlohmann::json servers_json(const Servers& servers);
[[nodiscard]] nlohmann::json counters_json(const Counting& all);

}  // namespace mobility::client
