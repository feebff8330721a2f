// SPDX-License-Identifier: GPL-2.0-or-later
#include "pairing/book.hpp"

#include <openssl/rand.h>

#include <algorithm>

namespace mobility::client {

Pair* Book::open(const Name& self, const Name& peer, const boost::asio::ip::address& here) {
    if (const auto known = pairs_.find(peer); known != pairs_.end()) {
        return &known->second;
    }
    if (pairs_.size() >= kMaxPairs) {
        return nullptr;
    }
    Pair pair;
    pair.own.host = self;
    pair.own.address = here;
    if (RAND_bytes(pair.own.random.data(), static_cast<int>(pair.own.random.size())) != 1) {
        return nullptr;
    }
    return &pairs_.emplace(peer, std::move(pair)).first->second;
}

const Pair* Book::find(const Name& peer) const {
    const auto known = pairs_.find(peer);
    return known == pairs_.end() ? nullptr : &known->second;
}

std::optional<Name> Book::owner(std::uint64_t cookie) const {
    for (const auto& [peer, pair] : pairs_) {
        if (pair.connections.contains(cookie)) {
            return peer;
        }
    }
    return {};
}

void Book::drop(std::uint64_t cookie) {
    for (auto& [peer, pair] : pairs_) {
        pair.connections.erase(cookie);
    }
}

void Book::keep(const std::vector<std::uint64_t>& cookies) {
    for (auto& [peer, pair] : pairs_) {
        std::erase_if(pair.connections, [&](const auto& connection) {
            return !std::ranges::binary_search(cookies, connection.first);
        });
    }
    std::erase_if(pairs_, [](const auto& entry) {
        return !entry.second.agreed() && entry.second.connections.empty();
    });
}

}  // namespace mobility::client
