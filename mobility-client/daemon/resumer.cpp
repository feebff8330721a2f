// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/resumer.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <span>
#include <tuple>
#include <utility>

#include "daemon/address.hpp"

namespace mobility::client {

namespace {

using tcpmigrate::Reason;
using ConnectionState = tcpmigrate::State;

constexpr std::size_t kServersOfPair = 4;  ///< that are spoken with
constexpr std::chrono::seconds kFirstAgain(5);
constexpr std::chrono::seconds kLongestAgain(60);
constexpr std::chrono::milliseconds kSlack(200);
constexpr std::chrono::minutes kTriedWindow(1);
constexpr std::chrono::seconds kJustArrived(30);
/// At a place that a server has told: a peer may be much farther than the server.
constexpr std::chrono::seconds kAway(3);
/// A server has its own channel look as slow as it likes.
constexpr std::chrono::seconds kLongestRtt(1);

bool has_failed(Reason reason) {
    return reason == Reason::TrialFailed || reason == Reason::TupleInUse ||
           reason == Reason::NoRoute || reason == Reason::Timeout || reason == Reason::Retries;
}

/// Those of its servers that are spoken with.
std::span<const ServerPlace> servers_of(const Pair& pair) {
    return std::span(pair.servers).first(std::min(pair.servers.size(), kServersOfPair));
}

/// Is it where this Notice sends it, or another of the pair?
bool is_there(const Connection& connection, const Notice& notice) {
    return connection.state == ConnectionState::Idle &&
           to_asio(connection.remote.address) == notice.peer &&
           std::ranges::any_of(notice.connections, [&](const Resume& resume) {
               return resume.peer_after == connection.remote.port;
           });
}

/// Has this host been moved, by who knows nothing of where the peer is?
bool goes_to_old_place(const Connection& connection, const Notice& notice) {
    const auto& to = connection.new_remote;
    return connection.state == ConnectionState::MigSent && connection.reason == Reason::Command &&
           to.address == connection.remote.address && to_asio(*to.address) != notice.peer;
}

/// What a report is about; connections apart.
auto subject(const Report& report) {
    return std::tuple(report.before, report.peer_before, report.after);
}

std::string_view to_string(Verdict::What what) {
    constexpr std::array<std::string_view, 7> names{"nothing",   "needs-proxy", "other-family",
                                                    "no-answer", "coincidence", "peer-silent",
                                                    "no-proxy"};
    return names.at(static_cast<std::size_t>(what));
}

}  // namespace

Resumer::Address Resumer::place_now(const Connection& connection) const {
    return to_asio(table_.place_of(connection));
}

bool Resumer::has_just_arrived(const Connection& connection) const {
    const auto when = arrived_.find(connection.cookie);
    return when != arrived_.end() && hands_.now() < when->second + kJustArrived;
}

bool Resumer::is_unsettled(const Connection& connection) const {
    return stalled_.contains(connection.cookie) || connection.state == ConnectionState::MigWait ||
           (connection.state == ConnectionState::MigSent &&
            table_.place_of(connection) != connection.local.address);
}

Resumer::Resumer(const Table& table, const Book& book, Hands hands, Log log)
    : table_(table),
      book_(book),
      hands_(std::move(hands)),
      log_(std::move(log)),
      leaver_(table, book,
              {hands_.say, hands_.migrate, hands_.now,
               [this](const Name& peer) { return is_busy(peer); }},
              log_) {}

/// So that leaving a relay has to stand back.
bool Resumer::is_busy(const Name& peer) const {
    const auto state = states_.find(peer);
    const auto* pair = book_.find(peer);
    const bool trying = state != states_.end() && (state->second.trying || state->second.reported);
    const auto all = pair != nullptr ? connections(*pair) : std::vector<const Connection*>();
    return trying ||
           std::ranges::any_of(all, [this](const Connection* one) { return is_unsettled(*one); });
}

// ---- What the kernel tells ----

std::vector<const Connection*> Resumer::connections(const Pair& pair) const {
    std::vector<const Connection*> out;
    for (const auto& [cookie, guard] : pair.connections) {
        if (const auto* connection = table_.find(cookie)) {
            out.push_back(connection);
        }
    }
    return out;
}

/// About the addresses of which the most connections are unsettled, or if all are settled
/// that have the most.
std::optional<Report> Resumer::make_report(const Pair& pair) const {
    std::map<std::pair<Address, Address>, std::vector<const Connection*>> groups;
    for (const auto* connection : connections(pair)) {
        groups[{to_asio(connection->local.address), to_asio(connection->remote.address)}].push_back(
            connection);
    }
    const auto merit = [this](const auto& group) {
        const auto unsettled = std::ranges::count_if(
            group.second, [this](const Connection* one) { return is_unsettled(*one); });
        return std::pair(unsettled, group.second.size());
    };
    const auto best = std::ranges::max_element(groups, {}, merit);
    if (best == groups.end() || !pair.agreed()) {
        return {};
    }
    Report report;
    report.own = pair.own;
    report.crosses = true;
    report.peer = *pair.peer;
    std::tie(report.before, report.peer_before) = best->first;
    report.after = place_now(*best->second.front());
    // Two of a peer's addresses behind one NAPT may have the same port there.
    std::set<std::pair<std::uint16_t, std::uint16_t>> named;
    for (const auto* connection : best->second) {
        if (is_unsettled(*connection)) {
            report.after = place_now(*connection);
        }
        const auto port = connection->local.port;
        const auto peer = inner_port(*connection);
        if (report.connections.size() < kMaxConnections && named.emplace(port, peer).second) {
            report.connections.push_back({port, peer, port, connection->token_remote.value_or(0)});
        }
    }
    return report;
}

void Resumer::on_event(const Connection& connection) {
    const auto owner = book_.owner(connection.cookie);
    if (connection.state == ConnectionState::None) {
        arrived_.erase(connection.cookie);
        relays_.erase(connection.cookie);
    } else if (owner && connection.reason == Reason::Committed) {
        arrived_[connection.cookie] = hands_.now();
        if (const auto state = states_.find(*owner); state != states_.end()) {
            state->second.asked = false;
            state->second.verdict.clear();
        }
    } else if (owner && connection.reason == Reason::Stalled) {
        stalled_.insert(connection.cookie);
    }
    for (auto& [peer, state] : states_) {
        if (connection.state == ConnectionState::None ||
            connection.state == ConnectionState::Idle) {
            state.away.erase(connection.cookie);
        }
        if (state.pending.contains(connection.cookie)) {
            touched_.insert(peer);
            if (connection.state == ConnectionState::None || has_failed(connection.reason)) {
                state.pending.erase(connection.cookie);
                if (state.pending.empty()) {
                    finish(state, false);
                }
            } else if (is_there(connection, state.trying->notice)) {
                state.pending.erase(connection.cookie);
                if (state.pending.empty()) {
                    finish(state, true);
                }
            } else if (connection.reason == Reason::Committed) {
                // Who has come by himself needs no relay.
                if (!state.trying->notice.relay || is_relayed(connection)) {
                    state.crossed.insert(connection.cookie);
                }
            } else if (goes_to_old_place(connection, state.trying->notice) &&
                       !table_.trials().contains(connection.cookie)) {
                state.diverted.insert(connection.cookie);
            }
        }
    }
    leaver_.on_event(connection);
    if (owner) {
        touched_.insert(*owner);
    }
}

void Resumer::on_batch(bool reread) {
    if (reread) {
        for (const auto& [peer, pair] : book_.pairs()) {
            touched_.insert(peer);
        }
        const auto is_gone = [this](const auto& entry) {
            return table_.find(entry.first) == nullptr;
        };
        std::erase_if(arrived_, is_gone);
        std::erase_if(relays_, is_gone);
    }
    for (const auto& peer : std::exchange(touched_, {})) {
        if (try_crossed(peer)) {
            continue;
        }
        try_diverted(peer);
        evaluate(peer, false);
        // One of these events may have ended what was tried.
        const auto* pair = book_.find(peer);
        const auto state = states_.find(peer);
        if (pair != nullptr && state != states_.end()) {
            try_others(*pair, state->second);
        }
    }
    report_late();
    stalled_.clear();
    leaver_.tidy();
    std::erase_if(states_,
                  [this](const auto& entry) { return book_.find(entry.first) == nullptr; });
}

void Resumer::evaluate(const Name& peer, bool always) {
    const auto* pair = book_.find(peer);
    if (pair == nullptr || !pair->agreed()) {
        states_.erase(peer);
        return;
    }
    const auto all = connections(*pair);
    const bool unsettled =
        std::ranges::any_of(all, [this](const Connection* one) { return is_unsettled(*one); });
    if (!unsettled && !always) {
        const auto known = states_.find(peer);
        if (known != states_.end()) {
            give_up_if_still(known->second);
            settle(*pair, known->second);
            const auto& state = known->second;
            if (!state.trying && !state.asked && !state.reported && state.tried.empty() &&
                state.others.empty()) {
                states_.erase(known);
            }
        }
        return;
    }
    leaver_.drop(peer);
    const auto fresh = make_report(*pair);
    if (!fresh) {
        return;
    }
    auto& state = states_[peer];
    const bool same = state.reported && subject(*state.reported) == subject(*fresh) &&
                      fresh->connections.size() <= state.reported->connections.size();
    if (!same || always) {
        state.pause = kFirstAgain;
        report(*pair, state, *fresh);
    }
}

void Resumer::report(const Pair& pair, State& state, const Report& report) {
    std::size_t sent = 0;
    state.unsaid.clear();
    for (const auto& server : servers_of(pair)) {
        if (hands_.say({server, report.after}, report)) {
            sent++;
        } else {
            state.unsaid.push_back(server);
        }
    }
    counters_.reports += sent;
    state.reported = report;
    state.helped = false;
    state.again = hands_.now() + state.pause;
    state.pause = std::min<Duration>(state.pause * 2, kLongestAgain);
    log_->info("event=report peer={} before={} after={} connections={} servers={}",
               report.peer.host.to_string(), report.before.to_string(), report.after.to_string(),
               report.connections.size(), sent);
}

/// A channel may be in a trial yet when its connections have left.
void Resumer::report_late() {
    for (auto& entry : states_) {
        auto& state = entry.second;
        if (state.reported) {
            counters_.reports += std::erase_if(state.unsaid, [&](const ServerPlace& server) {
                return hands_.say({server, state.reported->after}, *state.reported);
            });
        }
    }
}

/// Nothing is unsettled; if nothing of a Notice is under way either, it was not what helped.
void Resumer::give_up_if_still(State& state) {
    const bool moving = std::ranges::any_of(state.pending, [this](std::uint64_t cookie) {
        const auto* connection = table_.find(cookie);
        return connection != nullptr && connection->state != ConnectionState::Idle;
    });
    if (state.trying && !moving) {
        finish(state, false);
    }
}

/// The connections go on.
void Resumer::settle(const Pair& pair, State& state) {
    state.away.clear();
    state.back.reset();
    if (!state.reported || state.trying) {
        return;
    }
    // They have found their own way, by a proxy, mostly before there is a channel to a server
    // from here. One that hears of this place may know how to do without the proxy.
    const auto all = connections(pair);
    if (state.again && !state.helped &&
        std::ranges::any_of(all, [this](auto* one) { return is_relayed(*one); })) {
        return;
    }
    for (const auto& server : servers_of(pair)) {
        hands_.say({server, state.reported->after}, Forget{pair.id()});
    }
    state.reported.reset();
    state.again.reset();
    state.others.clear();
    state.verdict.clear();
}

bool Resumer::is_server_of(const Pair& pair, const Servers::Key& key) {
    return std::ranges::any_of(servers_of(pair),
                               [&](const ServerPlace& one) { return one.host == key.server.host; });
}

void Resumer::on_joined(const Servers::Key& key) {
    for (auto& [peer, state] : states_) {
        const auto* pair = book_.find(peer);
        if (pair == nullptr || !state.reported || state.reported->after != key.from) {
            continue;
        }
        if (is_server_of(*pair, key) && hands_.say(key, *state.reported)) {
            counters_.reports++;
            std::erase_if(state.unsaid, [&](const ServerPlace& server) {
                return server.host == key.server.host;
            });
        }
    }
}

std::size_t Resumer::report_all() {
    std::size_t count = 0;
    for (const auto& [peer, pair] : book_.pairs()) {
        if (pair.agreed() && !connections(pair).empty()) {
            evaluate(peer, true);
            count++;
        }
    }
    return count;
}

// ---- What servers say ----

void Resumer::on_message(const Servers::Key& key, const ToHost& message) {
    if (const auto* ask = std::get_if<Ask>(&message)) {
        handle(key, *ask);
    } else if (const auto* notice = std::get_if<Notice>(&message)) {
        handle(key, *notice);
    } else if (const auto* verdict = std::get_if<Verdict>(&message)) {
        handle(key, *verdict);
    }
}

const std::pair<const Name, Pair>* Resumer::find(const Servers::Key& by, const PairId& id) {
    for (const auto& entry : book_.pairs()) {
        if (entry.second.agreed() && entry.second.id() == id && is_server_of(entry.second, by)) {
            return &entry;
        }
    }
    counters_.unknown++;
    return nullptr;
}

void Resumer::handle(const Servers::Key& key, const Ask& ask) {
    counters_.asks++;
    const auto* known = find(key, ask.pair);
    const auto report = known != nullptr ? make_report(known->second) : std::nullopt;
    if (!report) {
        return;
    }
    log_->info("event=asked peer={} server={}", known->first.to_string(),
               key.server.host.to_string());
    leaver_.drop(known->first);  // the peer is not where it was
    if (hands_.say({key.server, report->after}, *report)) {
        counters_.reports++;
        states_[known->first].asked = true;
    }
    if (ask.hint) {
        try_hint(key, ask, known->first, known->second);
    }
}

/// Saves the round trip in which the server hears of this end's place, and judges.
void Resumer::try_hint(const Servers::Key& key, const Ask& ask, const Name& peer,
                       const Pair& pair) {
    auto& state = states_[peer];
    if (state.trying) {
        return;
    }
    Told told{key, {}, true};
    told.notice.pair = ask.pair;
    told.notice.peer = ask.hint->peer;
    told.notice.connections = ask.hint->connections;
    attempt(pair, state, told);
}

bool Resumer::confirms(const Told& told, const State& state) {
    const auto& trying = state.trying;
    return trying && trying->early && trying->by.server.host == told.by.server.host &&
           trying->notice.peer == told.notice.peer &&
           trying->notice.connections == told.notice.connections;
}

void Resumer::handle(const Servers::Key& key, const Notice& notice) {
    counters_.notices++;
    const auto* known = find(key, notice.pair);
    if (known == nullptr) {
        return;
    }
    if (notice.delay) {
        return leaver_.told(known->first, key, notice);
    }
    auto& state = states_[known->first];
    log_->info("event=told peer={} server={} place={} trial={} relay={} step={}",
               known->first.to_string(), key.server.host.to_string(), notice.peer.to_string(),
               notice.trial, notice.relay, notice.step);
    const Told told{key, notice};
    if (confirms(told, state)) {
        state.trying = told;  // is under way already
        return;
    }
    // The same server knows better now, unless others wait for it to come to an end; another
    // one has to wait, but not for longer than the first has time.
    const bool other = state.trying && state.trying->by.server.host != key.server.host;
    if (other && !state.until) {
        finish(state, false);
    } else if (other && goes_first(known->second, told, *state.trying)) {
        state.others.push_front(*std::exchange(state.trying, {}));
    } else if (other || (state.trying && !state.others.empty())) {
        return wait_for_turn(state, told);
    }
    attempt(known->second, state, told);
    try_others(known->second, state);
}

bool Resumer::goes_first(const Pair& pair, const Told& told, const Told& trying) {
    const auto place = [&](const Told& one) {
        return std::ranges::find(pair.servers, one.by.server.host, &ServerPlace::host);
    };
    const bool elsewhere = told.notice.peer != trying.notice.peer ||
                           told.notice.connections != trying.notice.connections;
    return told.notice.relay && trying.notice.relay && elsewhere && place(told) < place(trying);
}

bool Resumer::is_relayed(const Connection& connection) const {
    const auto relay = relays_.find(connection.cookie);
    return relay != relays_.end() && relay->second == to_asio(connection.remote.address);
}

void Resumer::wait_for_turn(State& state, Told told) {
    const auto same = std::ranges::find_if(state.others, [&](const Told& other) {
        return other.by.server.host == told.by.server.host;
    });
    if (same != state.others.end()) {
        *same = std::move(told);
    } else {
        state.others.push_back(std::move(told));
    }
}

bool Resumer::may_try(State& state, const Name& server) {
    const auto now = hands_.now();
    for (auto& [name, times] : state.tried) {
        std::erase_if(times, [&](Time then) { return then + kTriedWindow < now; });
    }
    std::erase_if(state.tried, [](const auto& entry) { return entry.second.empty(); });
    auto& tried = state.tried[server];
    if (tried.size() >= kMaxTold) {
        counters_.held_back++;
        return false;
    }
    tried.push_back(now);
    return true;
}

void Resumer::attempt(const Pair& pair, State& state, const Told& told) {
    if (!may_try(state, told.by.server.host)) {
        return;
    }
    leaver_.drop(pair.peer->host);
    state.trying = told;
    state.pending.clear();
    state.repeated.clear();
    state.until = hands_.now() + 4 * std::min<Duration>(hands_.rtt(told.by), kLongestRtt) + kSlack;
    std::size_t there = 0;
    for (const auto* connection : connections(pair)) {
        for (const auto& resume : told.notice.connections) {
            if (connection->local.port == resume.own && inner_port(*connection) == resume.peer) {
                there += send_there(*connection, told.notice, resume, state) ? 1 : 0;
                break;  // whoever names it twice does not have it asked twice
            }
        }
    }
    if (state.pending.empty()) {
        state.tried[told.by.server.host].pop_back();  // nobody was sent anywhere
    }
    if (there == 0) {
        counters_.useless += told.early ? 0 : 1;
        finish(state, false);
    } else if (state.pending.empty()) {
        finish(state, true);
    } else {
        counters_.tried++;
    }
}

bool Resumer::send_there(const Connection& connection, const Notice& notice, const Resume& resume,
                         State& state) {
    const auto target = to_kernel(notice.peer);
    if (target.is_v6() != connection.remote.address.is_v6()) {
        return false;
    }
    const bool there = connection.remote == tcpmigrate::Endpoint{target, resume.peer_after} &&
                       !is_unsettled(connection);
    if (there && has_just_arrived(connection)) {
        return true;  // by the peer's own request
    }
    tcpmigrate::MigrateRequest request;
    request.name = tcpmigrate::Cookie{connection.cookie};
    // Where a trial goes to has not been proved: this begins from where the connection is.
    if (!table_.trials().contains(connection.cookie)) {
        request.new_local.address = connection.new_local.address;
    }
    request.new_remote.address = target;
    request.new_remote.port = resume.peer_after;
    // A path that works is given up for one that has been proved, not for a server's word.
    request.trial = notice.trial || !is_unsettled(connection);
    if (const auto begun = hands_.migrate(request); !begun) {
        log_->warn("event=told-in-vain connection={} error=\"{}\"", connection.cookie,
                   begun.error().message);
        return false;
    }
    state.pending.insert(connection.cookie);
    if (notice.relay) {
        relays_[connection.cookie] = notice.peer;
    }
    // A trial of a connection without a path keeps it from its peer just as well.
    if (is_unsettled(connection) && target != connection.remote.address) {
        state.away.insert(connection.cookie);
        state.back = state.back.value_or(std::max(hands_.now() + kAway, *state.until));
    }
    return true;
}

bool Resumer::send_again(const Cookies& which, State& state) {
    bool sent = false;
    for (const auto cookie : which) {
        const auto* connection = table_.find(cookie);
        if (!state.trying || connection == nullptr) {
            continue;
        }
        // A copy: what is tried may end.
        const auto notice = state.trying->notice;
        const auto resume = std::ranges::find_if(notice.connections, [&](const Resume& one) {
            return connection->local.port == one.own && inner_port(*connection) == one.peer;
        });
        if (resume != notice.connections.end()) {
            sent = send_there(*connection, notice, *resume, state) || sent;
        }
    }
    return sent;
}

/// The peer's own request was faster, by way of a relay: what was told still holds, and is
/// tried once more.
bool Resumer::try_crossed(const Name& peer) {
    const auto at = states_.find(peer);
    if (at == states_.end()) {
        return false;
    }
    auto& state = at->second;
    auto crossed = std::exchange(state.crossed, {});
    std::erase_if(crossed, [&](std::uint64_t cookie) {
        const auto* connection = table_.find(cookie);
        return connection == nullptr || connection->state != ConnectionState::Idle ||
               !state.repeated.insert(cookie).second;
    });
    return send_again(crossed, state);
}

/// The peer is no more where it was than before.
void Resumer::try_diverted(const Name& peer) {
    if (const auto at = states_.find(peer); at != states_.end()) {
        send_again(std::exchange(at->second.diverted, {}), at->second);
    }
}

void Resumer::finish(State& state, bool resumed) {
    const auto told = std::exchange(state.trying, {});
    state.pending.clear();
    state.until.reset();
    if (told && !told->early) {
        (resumed ? counters_.resumed : counters_.failed)++;
        const auto& notice = told->notice;
        hands_.say(told->by, Outcome{notice.pair, notice.judgement, notice.step, resumed});
        log_->info("event=outcome place={} resumed={}", notice.peer.to_string(), resumed);
    }
    if (resumed) {
        state.helped = true;
        state.others.clear();
    }
}

void Resumer::go_back(const Pair& pair, State& state) {
    state.back.reset();
    finish(state, false);
    for (const auto* connection : connections(pair)) {
        if (!state.away.contains(connection->cookie) || !is_unsettled(*connection)) {
            continue;
        }
        tcpmigrate::MigrateRequest request;
        request.name = tcpmigrate::Cookie{connection->cookie};
        request.new_local.address = connection->new_local.address;
        request.new_remote.address = connection->remote.address;
        request.new_remote.port = connection->remote.port;
        const auto begun = hands_.migrate(request);
        log_->info("event=back connection={} place={} error=\"{}\"", connection->cookie,
                   to_asio(connection->remote.address).to_string(),
                   begun ? "" : begun.error().message);
    }
    state.away.clear();
    try_others(pair, state);
}

void Resumer::try_others(const Pair& pair, State& state) {
    while (!state.trying && !state.others.empty()) {
        const auto told = std::move(state.others.front());
        state.others.pop_front();
        attempt(pair, state, told);
    }
}

void Resumer::handle(const Servers::Key& key, const Verdict& verdict) {
    counters_.verdicts++;
    const auto* known = find(key, verdict.pair);
    if (known == nullptr) {
        return;
    }
    log_->info("event=verdict peer={} server={} what={}", known->first.to_string(),
               key.server.host.to_string(), to_string(verdict.what));
    const auto state = states_.find(known->first);
    // Nothing is unsettled at an end whose peer alone has moved: the peer is what is missed.
    if (state != states_.end() && (state->second.reported || state->second.asked)) {
        state->second.verdict = to_string(verdict.what);
    }
}

// ---- Time ----

std::optional<Resumer::Time> Resumer::next() const {
    std::optional<Time> first = leaver_.next();
    const auto also = [&first](const std::optional<Time>& when) {
        if (when && (!first || *when < *first)) {
            first = when;
        }
    };
    for (const auto& [peer, state] : states_) {
        also(state.again);
        also(state.until);
        also(state.back);
    }
    return first;
}

void Resumer::expire() {
    leaver_.expire();
    const auto now = hands_.now();
    std::vector<Name> due;
    const auto is_due = [now](const std::optional<Time>& when) { return when && *when <= now; };
    for (const auto& [peer, state] : states_) {
        if (is_due(state.again) || is_due(state.until) || is_due(state.back)) {
            due.push_back(peer);
        }
    }
    for (const auto& peer : due) {
        const auto* pair = book_.find(peer);
        auto& state = states_[peer];
        if (pair == nullptr) {
            states_.erase(peer);
            continue;
        }
        if (is_due(state.until)) {
            // What is under way goes on all the same, unless another place was told.
            state.until.reset();
            if (!state.others.empty()) {
                finish(state, false);
                try_others(*pair, state);
            }
        }
        if (is_due(state.back)) {
            go_back(*pair, state);
        }
        if (is_due(state.again)) {
            state.again.reset();
            const auto all = connections(*pair);
            const auto fresh = make_report(*pair);
            if (fresh &&
                std::ranges::any_of(all, [this](auto* one) { return is_unsettled(*one); })) {
                report(*pair, state, *fresh);
            } else {
                settle(*pair, state);
            }
        }
    }
}

// ---- For others ----

std::map<Servers::Key, std::set<Resumer::Address>> Resumer::wanted() const {
    std::map<Servers::Key, std::set<Address>> out;
    for (const auto& [peer, pair] : book_.pairs()) {
        if (!pair.agreed()) {
            continue;
        }
        for (const auto* connection : connections(pair)) {
            const auto from = place_now(*connection);
            const auto target = table_.target_of_trial(*connection);
            for (const auto& server : servers_of(pair)) {
                auto& soon = out[{server, from}];
                if (target) {
                    soon.insert(to_asio(*target));
                }
            }
        }
    }
    return out;
}

Resumer::Seen Resumer::seen(const Name& peer) const {
    Seen out{"settled", "", 0};
    if (const auto* pair = book_.find(peer)) {
        for (const auto* connection : connections(*pair)) {
            out.unsettled += is_unsettled(*connection) ? 1 : 0;
        }
    }
    if (const auto state = states_.find(peer); state != states_.end()) {
        out.state = state->second.trying ? "told" : state->second.reported ? "reported" : "settled";
        out.verdict = state->second.verdict;
    }
    return out;
}

}  // namespace mobility::client
