// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/leaver.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "daemon/address.hpp"

namespace mobility::client {

namespace {

using tcpmigrate::Reason;
using ConnectionState = tcpmigrate::State;

constexpr std::chrono::minutes kWindow(1);

/// By whichever port: the peer may have another one for this host than for the proxy, and have
/// got through all the same.
bool is_there(const Connection& connection, const Notice& notice) {
    return connection.state == ConnectionState::Idle &&
           to_asio(connection.remote.address) == notice.peer;
}

/// Is the trial over, and the connection not there?
bool has_failed(const Connection& connection) {
    switch (connection.reason) {
        case Reason::TrialFailed:
        case Reason::TupleInUse:
        case Reason::NoRoute:
        case Reason::Timeout:
        case Reason::Retries:
        case Reason::Committed:
        case Reason::PathAlive:
            return true;
        default:
            return connection.state == ConnectionState::None ||
                   connection.state == ConnectionState::MigWait;
    }
}

}  // namespace

Leaver::Leaver(const Table& table, const Book& book, Hands hands, Log log)
    : table_(table), book_(book), hands_(std::move(hands)), log_(std::move(log)) {}

// ---- What servers say ----

void Leaver::told(const Name& peer, const Servers::Key& by, const Notice& notice) {
    counters_.told++;
    const auto known = crossings_.find(peer);
    const bool another =
        known != crossings_.end() && known->second.by.server.host != by.server.host;
    if (another || !may_try(peer, by.server.host)) {
        hands_.say(by, Outcome{notice.pair, notice.judgement, notice.step, false});
        return;
    }
    log_->debug("event=told-to-cross peer={} server={} place={} delay_ms={}", peer.to_string(),
                by.server.host.to_string(), notice.peer.to_string(), notice.delay->count());
    crossings_[peer] = {by, notice, hands_.now() + *notice.delay, {}, false};
    expire();
}

bool Leaver::may_try(const Name& peer, const Name& server) {
    const auto now = hands_.now();
    for (auto& [of, times] : tried_) {
        std::erase_if(times, [&](Time then) { return then + kWindow < now; });
    }
    std::erase_if(tried_, [](const auto& entry) { return entry.second.empty(); });
    auto& tried = tried_[{peer, server}];
    if (tried.size() >= kMost) {
        counters_.held_back++;
        return false;
    }
    tried.push_back(now);
    return true;
}

void Leaver::drop(const Name& peer) {
    if (crossings_.contains(peer)) {
        finish(peer, false);
    }
}

void Leaver::tidy() {
    std::erase_if(crossings_,
                  [this](const auto& entry) { return book_.find(entry.first) == nullptr; });
}

// ---- The moment ----

void Leaver::begin(const Name& peer) {
    auto& crossing = crossings_.at(peer);
    crossing.at.reset();
    const auto* pair = book_.find(peer);
    if (pair == nullptr || hands_.busy(peer)) {
        return finish(peer, false);
    }
    counters_.tried++;
    std::size_t there = 0;
    for (const auto& [cookie, guard] : pair->connections) {
        const auto* connection = table_.find(cookie);
        for (const auto& resume : crossing.notice.connections) {
            if (connection != nullptr && connection->local.port == resume.own &&
                inner_port(*connection) == resume.peer) {
                there += is_there(*connection, crossing.notice) ? 1 : 0;
                begin(*connection, resume, crossing);
                break;  // whoever names it twice does not have it asked twice
            }
        }
    }
    if (crossing.pending.empty()) {
        finish(peer, there > 0 && !crossing.failed);
    }
}

/// From where it is: a host that moves has nothing to do with this.
void Leaver::begin(const Connection& connection, const Resume& resume, Crossing& crossing) {
    const auto target = to_kernel(crossing.notice.peer);
    if (is_there(connection, crossing.notice)) {
        return;
    }
    if (connection.state != ConnectionState::Idle ||
        target.is_v6() != connection.remote.address.is_v6()) {
        crossing.failed = true;
        return;
    }
    tcpmigrate::MigrateRequest request;
    request.name = tcpmigrate::Cookie{connection.cookie};
    request.new_remote.address = target;
    request.new_remote.port = resume.peer_after;
    request.trial = true;
    if (const auto begun = hands_.migrate(request); !begun) {
        log_->debug("event=not-crossed connection={} error=\"{}\"", connection.cookie,
                    begun.error().message);
        crossing.failed = true;
        return;
    }
    crossing.pending.insert(connection.cookie);
}

void Leaver::on_event(const Connection& connection) {
    std::vector<std::pair<Name, bool>> over;
    for (auto& [peer, crossing] : crossings_) {
        if (!crossing.pending.contains(connection.cookie)) {
            continue;
        }
        const bool there = is_there(connection, crossing.notice);
        if (!there && !has_failed(connection)) {
            continue;
        }
        crossing.pending.erase(connection.cookie);
        crossing.failed = crossing.failed || !there;
        if (crossing.pending.empty()) {
            over.emplace_back(peer, !crossing.failed);
        }
    }
    for (const auto& [peer, crossed] : over) {
        finish(peer, crossed);
    }
}

void Leaver::finish(const Name& peer, bool crossed) {
    const auto crossing = std::move(crossings_.at(peer));
    crossings_.erase(peer);
    const auto& notice = crossing.notice;
    hands_.say(crossing.by, Outcome{notice.pair, notice.judgement, notice.step, crossed});
    if (crossed) {
        counters_.crossed++;
        log_->info("event=crossed peer={} place={} connections={}", peer.to_string(),
                   notice.peer.to_string(), notice.connections.size());
    } else {
        log_->debug("event=not-crossed peer={} place={}", peer.to_string(),
                    notice.peer.to_string());
    }
}

// ---- Time ----

std::optional<Leaver::Time> Leaver::next() const {
    std::optional<Time> first;
    for (const auto& [peer, crossing] : crossings_) {
        if (crossing.at && (!first || *crossing.at < *first)) {
            first = crossing.at;
        }
    }
    return first;
}

void Leaver::expire() {
    const auto now = hands_.now();
    std::vector<Name> due;
    for (const auto& [peer, crossing] : crossings_) {
        if (crossing.at && *crossing.at <= now) {
            due.push_back(peer);
        }
    }
    for (const auto& peer : due) {
        begin(peer);
    }
}

}  // namespace mobility::client
