// SPDX-License-Identifier: GPL-2.0-or-later
#include "pairing/book.hpp"

#include <openssl/rand.h>

#include <algorithm>

namespace mobility::client {

Pair* Book::open(const Name& self, const Name& peer, const boost::asio::ip::address& here) {
    if (const auto known = pairs_.find(peer); known != pairs_.end()) {
        known->second.used = clock_();
        return &known->second;
    }
    if (pairs_.size() >= kMaxPairs) {
        const auto* least = least_used();
        if (least == nullptr) {
            return nullptr;
        }
        pairs_.erase(*least);
    }
    Pair pair;
    pair.own.host = self;
    pair.own.address = here;
    pair.used = clock_();
    if (RAND_bytes(pair.own.random.data(), static_cast<int>(pair.own.random.size())) != 1) {
        return nullptr;
    }
    return &pairs_.emplace(peer, std::move(pair)).first->second;
}

const Name* Book::least_used() const {
    const Name* out = nullptr;
    std::chrono::steady_clock::time_point since;
    for (const auto& [peer, pair] : pairs_) {
        if (pair.connections.empty() && (out == nullptr || pair.used < since)) {
            out = &peer;
            since = pair.used;
        }
    }
    return out;
}

std::size_t Book::forget_unused(std::chrono::steady_clock::duration longer_than) {
    const auto before = clock_() - longer_than;
    return std::erase_if(pairs_, [&](const auto& entry) {
        return entry.second.connections.empty() && entry.second.used < before;
    });
}

const Pair* Book::find(const Name& peer) const {
    const auto known = pairs_.find(peer);
    return known == pairs_.end() ? nullptr : &known->second;
}

std::optional<Name> Book::owner(std::uint64_t cookie) const {
    const auto known = owners_.find(cookie);
    return known == owners_.end() ? std::nullopt : std::optional(known->second);
}

void Book::put(const Name& peer, std::uint64_t cookie, Guard guard) {
    pairs_.at(peer).connections[cookie] = guard;
    owners_[cookie] = peer;
}

void Book::forget(const Name& peer) {
    const auto known = pairs_.find(peer);
    if (known == pairs_.end()) {
        return;
    }
    for (const auto& [cookie, guard] : known->second.connections) {
        owners_.erase(cookie);
    }
    pairs_.erase(known);
}

void Book::drop(std::uint64_t cookie) {
    if (const auto peer = owner(cookie)) {
        auto& pair = pairs_.at(*peer);
        pair.connections.erase(cookie);
        pair.used = clock_();
        owners_.erase(cookie);
    }
}

void Book::keep(const std::vector<std::uint64_t>& cookies) {
    std::vector<std::uint64_t> gone;
    for (const auto& [cookie, peer] : owners_) {
        if (!std::ranges::binary_search(cookies, cookie)) {
            gone.push_back(cookie);
        }
    }
    for (const auto cookie : gone) {
        drop(cookie);
    }
    std::erase_if(pairs_, [](const auto& entry) {
        return !entry.second.agreed() && entry.second.connections.empty();
    });
}

}  // namespace mobility::client
