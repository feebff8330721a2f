// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/status.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace mobility::client {

using nlohmann::json;
using tcpmigrate::State;

namespace {

const char* to_string(watch::Reach reach) {
    constexpr std::array<const char*, 3> names{"nowhere", "near", "everywhere"};
    return names.at(static_cast<std::size_t>(reach));
}

}  // namespace

json places_json(const watch::View& view) {
    json list = json::array();
    for (const auto& place : view.places) {
        json one{{"interface", place.interface_name},
                 {"address", place.address.to_string()},
                 {"length", place.length},
                 {"reach", to_string(place.reach)},
                 {"rank", place.rank},
                 {"present", place.present},
                 {"deprecated", place.deprecated},
                 {"held", place.held}};
        if (place.gateway) {
            one["gateway"] = place.gateway->to_string();
        }
        list.push_back(std::move(one));
    }
    return list;
}

json connections_json(const Table& table) {
    std::size_t moving = 0;
    std::size_t waiting = 0;
    for (const auto& [cookie, connection] : table.all()) {
        waiting += connection.state == State::MigWait ? 1 : 0;
        moving += connection.state == State::MigSent || connection.state == State::MigConfirm;
    }
    return {{"all", table.all().size()}, {"moving", moving}, {"waiting", waiting}};
}

json stuck_json(const Mover& mover) {
    json list = json::array();
    for (const auto& [use, move] : mover.stuck()) {
        list.push_back({{"local", use.local.to_string()},
                        {"remote", use.remote.to_string()},
                        {"what", to_string(move.what)},
                        {"why", to_string(move.why)}});
    }
    return list;
}

json alone_json(const Peers& peers) {
    json list = json::array();
    const auto now = std::chrono::steady_clock::now();
    for (const auto& [there, attempt] : peers.attempts()) {
        if (attempt.failures == 0) {
            continue;
        }
        const auto wait = std::chrono::duration_cast<std::chrono::seconds>(attempt.next - now);
        list.push_back({{"address", there.to_string()},
                        {"connections", peers.wanted(there)},
                        {"failures", attempt.failures},
                        {"why", attempt.why},
                        {"next_s", std::max<std::int64_t>(0, wait.count())}});
    }
    return list;
}

namespace {

/// Since 1970, UTC.
std::int64_t seconds_of(std::chrono::sys_seconds time) {
    return time.time_since_epoch().count();
}

json server_place_json(const ServerPlace& place) {
    json out{{"name", place.host.to_string()}, {"port", place.port}};
    if (place.address) {
        out["address"] = place.address->to_string();
    }
    if (place.address6) {
        out["address6"] = place.address6->to_string();
    }
    return out;
}

std::string hex(const PairId& id) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const auto byte : id) {
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

json guarded_json(const Pair& pair, const Table& table, const Resumer& resumer) {
    constexpr std::array<const char*, 4> names{"proved", "added", "promoted", "exclusive"};
    json list = json::array();
    for (const auto& [cookie, guard] : pair.connections) {
        json one{{"cookie", cookie}, {"guard", names.at(static_cast<std::size_t>(guard))}};
        if (const auto* connection = table.find(cookie)) {
            one["local"] = connection->local.to_string();
            one["remote"] = connection->remote.to_string();
            one["state"] = tcpmigrate::to_string(connection->state);
            one["relayed"] = resumer.is_relayed(*connection);
        }
        list.push_back(std::move(one));
    }
    return list;
}

}  // namespace

json pairs_json(const Book& book, const Table& table, const Trust& trust, const Peers& peers,
                const Resumer& resumer) {
    json list = json::array();
    for (const auto& [peer, pair] : book.pairs()) {
        const auto seen = resumer.seen(peer);
        json one{
            {"host", peer.to_string()},
            {"trust", to_string(trust.of(peer, pair.vouched && pair.vouched->good(trust.today())))},
            {"agreed", pair.agreed()},
            {"channel", peers.has_channel(peer)},
            {"connections", guarded_json(pair, table, resumer)},
            {"resume", {{"state", seen.state}, {"unsettled", seen.unsettled}}},
            {"servers", json::array()}};
        if (pair.vouched) {
            one["vouched"] = {{"server", pair.vouched->by.to_string()},
                              {"expires", seconds_of(pair.vouched->expires)}};
        }
        if (!seen.verdict.empty()) {
            one["resume"]["verdict"] = seen.verdict;
        }
        if (pair.agreed()) {
            one["id"] = hex(pair.id());
            one["inside"] = pair.inside();
            one["seen"] = pair.seen.to_string();
        }
        for (const auto& server : pair.servers) {
            one["servers"].push_back(server_place_json(server));
        }
        list.push_back(std::move(one));
    }
    return list;
}

json vouchers_json(const Vouchers& vouchers) {
    json list = json::array();
    for (const auto& seen : vouchers.seen()) {
        json one{{"server", seen.server.to_string()}, {"failures", seen.failures}};
        if (seen.voucher) {
            one["since"] = seconds_of(seen.voucher->since);
            one["expires"] = seconds_of(seen.voucher->expires);
        }
        if (!seen.why.empty()) {
            one["why"] = seen.why;
        }
        list.push_back(std::move(one));
    }
    return list;
}

json servers_json(const Servers& servers) {
    constexpr std::array<const char*, 3> states{"connecting", "joined", "waiting"};
    json list = json::array();
    for (const auto& seen : servers.seen()) {
        json one{{"name", seen.key.server.host.to_string()},
                 {"address", seen.address.to_string()},
                 {"from", seen.key.from.to_string()},
                 {"state", states.at(static_cast<std::size_t>(seen.state))},
                 {"migratable", seen.migratable},
                 {"failures", seen.failures}};
        if (seen.state == Servers::State::Joined) {
            one["seen"] = seen.seen.to_string();
        }
        if (!seen.why.empty()) {
            one["why"] = seen.why;
        }
        list.push_back(std::move(one));
    }
    return list;
}

namespace {

json watch_counters(const Counting& all) {
    const auto& told = all.table.counters();
    const auto& seen = all.watcher.counters();
    const auto& done = all.mover.counters();
    return {{"connection_events", told.events},   {"connection_overruns", told.overruns},
            {"connections_read", told.reread},    {"connection_errors", told.errors},
            {"network_messages", seen.datagrams}, {"network_overruns", seen.overruns},
            {"network_read", seen.reread},        {"views", seen.views},
            {"commands", done.commands},          {"moves_begun", done.begun},
            {"moves_refused", done.refused},      {"moves_done", done.committed},
            {"moves_not_native", done.not_native}};
}

json peer_counters(const PeerCounters& peers) {
    return {{"peer_opened", peers.opened},
            {"peer_accepted", peers.accepted},
            {"peer_strangers", peers.strangers},
            {"peer_crowded", peers.crowded},
            {"peer_failed", peers.failed},
            {"peer_refused", peers.refused},
            {"peer_throttled", peers.throttled},
            {"peer_agreed", peers.agreed},
            {"peer_vouched", peers.vouched},
            {"peer_vouchers_bad", peers.vouchers_bad},
            {"proofs_good", peers.proved},
            {"proofs_bad", peers.not_proved},
            {"proofs_of_another", peers.other_identity},
            {"key_errors", peers.key_errors}};
}

json server_counters(const ServerCounters& servers, const ResumeCounters& resumer) {
    return {{"server_opened", servers.opened},
            {"server_joined", servers.joined},
            {"server_failed", servers.failed},
            {"server_ended", servers.ended},
            {"server_refused", servers.refused},
            {"server_sent", servers.sent},
            {"server_received", servers.received},
            {"server_throttled", servers.throttled},
            {"reports", resumer.reports},
            {"asks", resumer.asks},
            {"notices", resumer.notices},
            {"notices_tried", resumer.tried},
            {"notices_held_back", resumer.held_back},
            {"notices_useless", resumer.useless},
            {"notices_resumed", resumer.resumed},
            {"notices_failed", resumer.failed},
            {"verdicts", resumer.verdicts},
            {"unknown_pairs", resumer.unknown}};
}

json leaver_counters(const LeaverCounters& leaver) {
    return {{"crossings", leaver.told},
            {"crossings_held_back", leaver.held_back},
            {"crossings_tried", leaver.tried},
            {"crossings_done", leaver.crossed}};
}

}  // namespace

json counters_json(const Counting& all) {
    auto counters = watch_counters(all);
    counters.update(peer_counters(all.peers.counters()));
    counters.update(server_counters(all.servers.counters(), all.resumer.counters()));
    counters.update(leaver_counters(all.resumer.leaver().counters()));
    const auto& vouchers = all.vouchers.counters();
    counters.update({{"vouchers_got", vouchers.got},
                     {"vouchers_none", vouchers.none},
                     {"vouchers_failed", vouchers.failed}});
    return counters;
}

}  // namespace mobility::client
