// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/mover.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace mobility::client {

using tcpmigrate::MigrateAllRequest;
using tcpmigrate::State;
using watch::Move;
using watch::Use;
using watch::View;

namespace {

/// Is the request about this connection?
bool concerns(const MigrateAllRequest& request, const Connection& connection) {
    const auto& to = connection.new_local.address;
    return (connection.local.address == request.old_local || (to && *to == request.old_local)) &&
           (!request.remote || connection.remote.address == *request.remote);
}

}  // namespace

Mover::Mover(Table& table, const watch::Policy& policy, Log log)
    : table_(table), policy_(policy), log_(std::move(log)) {}

void Mover::on_view(const View& before, const View& after) {
    view_ = after;
    table_.take();
    decide(before, {});
}

void Mover::on_event(const Connection& connection) {
    const auto cookie = connection.cookie;
    if (connection.state == State::None) {
        moves_.erase(cookie);
        moved_.erase(cookie);
        return;
    }
    const auto [known, fresh] = moves_.try_emplace(cookie, connection.migrations);
    if (!fresh && known->second != connection.migrations) {
        known->second = connection.migrations;
        counters_.committed++;
        moved_.insert(cookie);
        log_->info("event=moved connection={} tuple=\"{}\" moves={}", cookie, connection.tuple(),
                   connection.migrations);
    }
}

void Mover::on_batch(bool reread) {
    if (reread) {
        moves_.clear();
        for (const auto& [cookie, connection] : table_.all()) {
            moves_[cookie] = connection.migrations;
        }
        moved_.clear();
        return decide(View(), {});
    }
    std::vector<Connection> moved;
    for (const auto cookie : std::exchange(moved_, {})) {
        if (const auto* connection = table_.find(cookie)) {
            moved.push_back(*connection);
        }
    }
    if (!moved.empty()) {
        const auto uses = watch::uses_of(moved, table_.trials());
        decide(view_, {uses.begin(), uses.end()});
    }
}

void Mover::decide(const View& before, const std::set<Use>& fresh) {
    if (!view_.known) {
        return;
    }
    const auto uses = watch::uses_of(table_.list(), table_.trials());
    auto moves = watch::decide(before, view_, uses, policy_);
    const auto was = std::exchange(stuck_, {});
    for (std::size_t i = 0; i < uses.size(); i++) {
        if (fresh.contains(uses[i])) {
            moves[i] = watch::decide(View(), view_, {&uses[i], 1}, policy_).front();
        }
        note(was, uses[i], moves[i]);
    }
    for (const auto& request : watch::requests(uses, moves)) {
        run(request);
    }
}

/// Keeps what `status` shows of those who do not move although they would have to.
void Mover::note(const std::map<Use, Move>& was, const Use& use, const Move& move) {
    if (move.what != Move::What::Wait && move.what != Move::What::NotNative) {
        return;
    }
    stuck_[use] = move;
    if (const auto known = was.find(use); known != was.end() && known->second == move) {
        return;
    }
    if (move.what == Move::What::NotNative) {
        counters_.not_native++;
    }
    log_->info("event=stuck local={} remote={} what={} why={}", use.local.to_string(),
               use.remote.to_string(), to_string(move.what), to_string(move.why));
}

void Mover::run(const MigrateAllRequest& request) {
    const auto to = request.new_local ? request.new_local->to_string() : "-";
    counters_.commands++;
    const auto reply = table_.kernel().migrate_all(request);
    if (!reply) {
        counters_.refused++;
        log_->error("event=move-refused from={} to={} error=\"{}\"", request.old_local.to_string(),
                    to, reply.error().message);
        return;
    }
    counters_.begun += reply->count;
    counters_.refused += reply->failed;
    log_->info("event=move from={} to={} peer={} trial={} begun={} refused={}{}",
               request.old_local.to_string(), to,
               request.remote ? request.remote->to_string() : "all", request.trial, reply->count,
               reply->failed,
               reply->failed > 0
                   ? std::string(" error=\"") + std::strerror(static_cast<int>(reply->error)) + "\""
                   : "");
    for (const auto& [cookie, connection] : table_.all()) {
        if (reply->count > 0 && concerns(request, connection)) {
            table_.has_begun(cookie, request.trial);
        }
    }
    if (on_move_) {
        on_move_(request);
    }
}

}  // namespace mobility::client
