// SPDX-License-Identifier: GPL-2.0-or-later
#include "pairing/session.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mobility::client {

namespace {

using tcpmigrate::KeyOp;

/// Batches whose stages are under way; a peer that opens more does not go through them.
constexpr std::size_t kMaxBatches = 16;
/// Of one pair: what a Report may speak of.
constexpr std::size_t kMaxOfPair = 2048;

Role role_of(const Provable& connection) {
    return connection.opener ? Role::Opener : Role::Accepter;
}

Role other(Role role) {
    return role == Role::Opener ? Role::Accepter : Role::Opener;
}

/// The part of a proof by which it is searched for.
std::uint64_t head(const Proof& proof) {
    std::uint64_t out = 0;
    std::memcpy(&out, proof.data(), sizeof(out));
    return out;
}

}  // namespace

Session::Session(const ChannelView& channel, const Settings& settings, Kernel& kernel, Book& book)
    : channel_(channel), settings_(settings), kernel_(kernel), book_(book) {}

Pair* Session::pair() {
    auto* pair = book_.open(channel_.self, channel_.peer, channel_.here);
    if (pair == nullptr || (own_ && *own_ != pair->own)) {
        return nullptr;
    }
    own_ = pair->own;
    return pair;
}

// ---- Proofs ----

const Session::Proofs* Session::proofs_of(const Provable& connection) {
    const auto known = proofs_.find(connection.cookie);
    if (known != proofs_.end()) {
        return &known->second;
    }
    const auto exporter = kernel_.exporter(connection.cookie);
    if (!exporter) {
        return nullptr;  // it has ended meanwhile
    }
    const auto role = role_of(connection);
    const Proofs made{
        prove(*exporter, role, channel_.exporter, channel_.self, channel_.peer),
        prove(*exporter, other(role), channel_.exporter, channel_.peer, channel_.self)};
    return &proofs_.emplace(connection.cookie, made).first->second;
}

std::optional<ConnectionProof> Session::proof_of(const Provable& connection) {
    const auto* proofs = proofs_of(connection);
    if (proofs == nullptr) {
        return {};
    }
    return ConnectionProof{connection.own, connection.peer, proofs->own,
                           connection.held != Guard::Proved};
}

/// Those of the channel's hosts. Proofs of others, which have ended, are forgotten.
std::vector<Provable> Session::connections() {
    auto all = kernel_.connections(channel_.there);
    std::set<std::uint64_t> cookies;
    for (const auto& connection : all) {
        cookies.insert(connection.cookie);
    }
    std::erase_if(proofs_, [&](const auto& entry) { return !cookies.contains(entry.first); });
    return all;
}

/// Our connections by the proofs of them that would be good. What is searched for is only a
/// part of the proof: how long it takes tells nothing of the rest, which is compared in
/// constant time.
Session::Expected Session::expected(const std::vector<ConnectionProof>& proofs) {
    std::set<std::uint16_t> ports;
    for (const auto& proof : proofs) {
        ports.insert(proof.own);
    }
    Expected out;
    for (const auto& connection : connections()) {
        if (!ports.contains(connection.peer_inner)) {
            continue;
        }
        if (const auto* made = proofs_of(connection)) {
            out.emplace(head(made->peers), std::pair(connection, made->peers));
        }
    }
    return out;
}

/// Which of the peer's proofs are good, and ours of the same connections.
Session::Judged Session::judge(const std::vector<ConnectionProof>& proofs) {
    Judged out;
    const auto by_proof = expected(proofs);
    for (const auto& proof : proofs) {
        const auto found = by_proof.find(head(proof.proof));
        if (found == by_proof.end() || found->second.first.peer_inner != proof.own ||
            !equal(found->second.second, proof.proof)) {
            counters_.not_proved++;
            continue;
        }
        const auto& connection = found->second.first;
        const auto owner = book_.owner(connection.cookie);
        // An end promotes a key only when the other has it: who has none, though this end makes
        // requests with it, has read the handshake, and comes after a restart of this client.
        const bool another = connection.held >= Guard::Promoted && !proof.keyed;
        if (another || (owner && *owner != channel_.peer)) {
            counters_.other_identity++;
            out.other_identity = true;
            continue;
        }
        if (auto own = proof_of(connection)) {
            counters_.proved++;
            out.good.push_back(connection.cookie);
            if (proof.keyed && own->keyed) {
                out.kept[connection.cookie] = connection.held;
            }
            out.own.push_back(*own);
        }
    }
    return out;
}

/// Proofs of the connections that this end has not proved on this channel yet, as the
/// next batch.
std::vector<ConnectionProof> Session::prove_new() {
    std::vector<ConnectionProof> out;
    Cookies cookies;
    for (const auto& connection : connections()) {
        if (out.size() == kMaxProofs || asked_.contains(connection.cookie)) {
            continue;
        }
        if (auto proof = proof_of(connection)) {
            out.push_back(*proof);
            cookies.push_back(connection.cookie);
        }
    }
    if (!out.empty()) {
        asked_.insert(cookies.begin(), cookies.end());
        own_batches_[++batch_] = std::move(cookies);
    }
    return out;
}

// ---- The pair key ----

void Session::guard(const Cookies& cookies, KeyOp op, Guard guard) {
    auto* pair = this->pair();
    if (!settings_.pair_key || pair == nullptr) {
        return;
    }
    for (const auto cookie : cookies) {
        const auto known = pair->connections.find(cookie);
        if (known == pair->connections.end() || known->second >= guard) {
            continue;
        }
        if (kernel_.key(cookie, op, channel_.pair_secret)) {
            known->second = guard;
        } else {
            counters_.key_errors++;  // it has ended, or keeps the key it has
        }
    }
}

/// False if the pair would have too many.
bool Session::remember(const Judged& judged) {
    auto* pair = this->pair();
    if (pair == nullptr || pair->connections.size() + judged.good.size() > kMaxOfPair) {
        return false;
    }
    for (const auto cookie : judged.good) {
        asked_.insert(cookie);  // both ends have proved it now
        // Both may prove the same at once: the key of this channel is added once.
        if (remembered_.insert(cookie).second) {
            const auto kept = judged.kept.find(cookie);
            book_.put(channel_.peer, cookie,
                      kept == judged.kept.end() ? Guard::Proved : kept->second);
        }
    }
    guard(judged.good, KeyOp::Add, Guard::Added);
    return true;
}

/// The other end has added the key (own), or uses it already: so does this one now.
Session::Messages Session::promote(std::uint32_t batch, const Cookies& cookies, bool own) {
    guard(cookies, KeyOp::Promote, Guard::Promoted);
    if (!own && settings_.exclusive) {
        guard(cookies, KeyOp::Exclusive, Guard::Exclusive);
    }
    return {Stage{batch, own}};
}

/// The peer's proofs of what this end has proved first.
Session::Messages Session::accepted(std::uint32_t batch,
                                    const std::vector<ConnectionProof>& proofs) {
    const auto mine = own_batches_.find(batch);
    if (mine == own_batches_.end()) {
        return refuse(PeerRefused::Why::Malformed, "an answer to no batch");
    }
    auto judged = judge(proofs);
    if (judged.other_identity) {
        return refuse(PeerRefused::Why::OtherIdentity, "another host has proved a connection");
    }
    std::erase_if(judged.good, [&](auto cookie) {
        return std::ranges::find(mine->second, cookie) == mine->second.end();
    });
    if (!remember(judged)) {
        return refuse(PeerRefused::Why::TooMuch, "too many connections");
    }
    mine->second = std::move(judged.good);
    if (mine->second.empty()) {
        own_batches_.erase(mine);
        return {};
    }
    return promote(batch, mine->second, true);
}

// ---- Messages ----

Session::Messages Session::refuse(PeerRefused::Why why, std::string text) {
    state_ = State::Ended;
    reason_ = text;
    return {PeerRefused{why, std::move(text)}};
}

Session::Messages Session::believe(const std::vector<Voucher>& shown) {
    const auto believed = settings_.believed(channel_, shown);
    if (!believed) {
        auto refusal = refuse(PeerRefused::Why::Policy,
                              "no server that is trusted there vouches for this host: `migrate-ctl "
                              "status` says here which do; there its name can be listed, too");
        reason_ = believed.error().message;
        return refusal;
    }
    vouched_ = *believed;
    return {};
}

std::vector<ServerPlace> Session::usable_of(const std::vector<ServerPlace>& servers,
                                            std::vector<std::uint32_t>& places,
                                            const std::vector<ServerPlace>& already) const {
    std::vector<ServerPlace> out;
    const auto known = [&](const ServerPlace& server) {
        return std::ranges::any_of(
            already, [&](const ServerPlace& other) { return other.host == server.host; });
    };
    for (std::uint32_t place = 0; place < servers.size(); place++) {
        if (settings_.usable(servers[place]) && !known(servers[place])) {
            places.push_back(place);
            out.push_back(servers[place]);
        }
    }
    return out;
}

Session::Messages Session::start() {
    auto* pair = this->pair();
    auto proofs = prove_new();
    if (pair == nullptr || proofs.empty()) {
        state_ = State::Ended;
        reason_ = pair == nullptr ? "too many pairs"
                                  : "no migratable connection to " + channel_.there.to_string();
        return {};
    }
    state_ = State::Offered;
    return {Offer{kPeerVersion, settings_.software, pair->own, settings_.servers, std::move(proofs),
                  settings_.vouchers()}};
}

Session::Messages Session::take(const ToPeer& message) {
    if (ended()) {
        return {};
    }
    return std::visit([&](const auto& one) { return handle(one); }, message);
}

Session::Messages Session::handle(const Offer& offer) {
    if (state_ != State::Starting) {
        return refuse(PeerRefused::Why::Malformed, "Offer out of turn");
    }
    if (offer.version != kPeerVersion) {
        return refuse(PeerRefused::Why::Version, "only version 1 is spoken here");
    }
    if (offer.own.host != channel_.peer) {
        return refuse(PeerRefused::Why::OtherIdentity, "the part of another host");
    }
    if (auto refusal = believe(offer.vouchers); !refusal.empty()) {
        return refusal;
    }
    auto judged = judge(offer.connections);
    if (judged.good.empty()) {
        return judged.other_identity ? refuse(PeerRefused::Why::OtherIdentity,
                                              "another host has proved these connections")
                                     : refuse(PeerRefused::Why::NotProved, "no proof was good");
    }
    if (!remember(judged)) {
        return refuse(PeerRefused::Why::TooMuch, "too many pairs or connections");
    }
    auto* pair = this->pair();
    pair->agree(offer.own);
    pair->vouched = vouched_;
    Answer answer;
    answer.software = settings_.software;
    answer.own = pair->own;
    answer.seen = channel_.there;
    pair->servers = usable_of(offer.servers, answer.usable, {});
    answer.servers = answered_ = settings_.servers;
    answer.tickets = settings_.tickets(channel_.peer, pair->id());
    answer.connections = std::move(judged.own);
    answer.vouchers = settings_.vouchers();
    peer_batch_ = 1;
    peer_batches_[1] = std::move(judged.good);
    state_ = State::Answered;
    return {std::move(answer)};
}

Session::Messages Session::handle(const Answer& answer) {
    if (state_ != State::Offered) {
        return refuse(PeerRefused::Why::Malformed, "Answer out of turn");
    }
    if (answer.version != kPeerVersion) {
        return refuse(PeerRefused::Why::Version, "only version 1 is spoken here");
    }
    auto* pair = this->pair();
    if (answer.own.host != channel_.peer) {
        return refuse(PeerRefused::Why::OtherIdentity, "the part of another host");
    }
    if (pair == nullptr) {
        return refuse(PeerRefused::Why::TooMuch, "too many pairs");
    }
    if (!answer.usable.empty() && answer.usable.back() >= settings_.servers.size()) {
        return refuse(PeerRefused::Why::Malformed, "a server that was not offered");
    }
    if (auto refusal = believe(answer.vouchers); !refusal.empty()) {
        return refusal;
    }
    auto staged = accepted(1, answer.connections);
    if (ended()) {
        return staged;
    }
    if (staged.empty()) {
        return refuse(PeerRefused::Why::NotProved, "no proof was good");
    }
    pair->agree(answer.own);
    pair->vouched = vouched_;
    pair->seen = answer.seen;
    pair->tickets = answer.tickets;
    pair->servers.clear();
    for (const auto place : answer.usable) {
        pair->servers.push_back(settings_.servers[place]);
    }
    Confirm confirm{pair->id(), channel_.there, {}, {}};
    const auto others = usable_of(answer.servers, confirm.usable, pair->servers);
    pair->servers.insert(pair->servers.end(), others.begin(), others.end());
    confirm.tickets = settings_.tickets(channel_.peer, pair->id());
    state_ = State::Open;
    Messages out{std::move(confirm)};
    std::ranges::move(staged, std::back_inserter(out));
    return out;
}

Session::Messages Session::handle(const Confirm& confirm) {
    if (state_ != State::Answered) {
        return refuse(PeerRefused::Why::Malformed, "Confirm out of turn");
    }
    auto* pair = this->pair();
    if (pair == nullptr || !pair->agreed() || confirm.pair != pair->id()) {
        return refuse(PeerRefused::Why::Malformed, "another pair");
    }
    if (!confirm.usable.empty() && confirm.usable.back() >= answered_.size()) {
        return refuse(PeerRefused::Why::Malformed, "a server that was not offered");
    }
    pair->seen = confirm.seen;
    pair->tickets = confirm.tickets;
    for (const auto place : confirm.usable) {
        pair->servers.push_back(answered_[place]);
    }
    state_ = State::Open;
    return {};
}

Session::Messages Session::handle(const Prove& prove) {
    if (state_ != State::Open || prove.batch <= peer_batch_) {
        return refuse(PeerRefused::Why::Malformed, "Prove out of turn");
    }
    if (peer_batches_.size() >= kMaxBatches) {
        return refuse(PeerRefused::Why::TooMuch, "too many batches at once");
    }
    auto judged = judge(prove.connections);
    if (judged.other_identity) {
        return refuse(PeerRefused::Why::OtherIdentity, "another host has proved a connection");
    }
    if (!remember(judged)) {
        return refuse(PeerRefused::Why::TooMuch, "too many connections");
    }
    peer_batch_ = prove.batch;
    if (!judged.good.empty()) {
        peer_batches_[prove.batch] = std::move(judged.good);
    }
    return {Proved{prove.batch, std::move(judged.own)}};
}

Session::Messages Session::handle(const Proved& proved) {
    if (state_ != State::Open) {
        return refuse(PeerRefused::Why::Malformed, "Proved out of turn");
    }
    return accepted(proved.batch, proved.connections);
}

Session::Messages Session::handle(const Stage& stage) {
    auto& batches = stage.own ? peer_batches_ : own_batches_;
    const auto found = batches.find(stage.batch);
    if (state_ != State::Open || found == batches.end()) {
        return refuse(PeerRefused::Why::Malformed, "Stage of no batch");
    }
    const auto cookies = std::move(found->second);
    batches.erase(found);
    if (stage.own) {
        return promote(stage.batch, cookies, false);
    }
    if (settings_.exclusive) {
        guard(cookies, KeyOp::Exclusive, Guard::Exclusive);
    }
    return {};
}

Session::Messages Session::handle(const PeerRefused& refused) {
    state_ = State::Ended;
    reason_ = refused.text;
    return {};
}

Session::Messages Session::refresh() {
    if (state_ != State::Open || own_batches_.size() >= kMaxBatches) {
        return {};
    }
    auto proofs = prove_new();
    return proofs.empty() ? Messages() : Messages{Prove{batch_, std::move(proofs)}};
}

}  // namespace mobility::client
