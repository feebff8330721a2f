// SPDX-License-Identifier: GPL-2.0-or-later
// What a client knows of the hosts it has connections with: one Pair for each, kept
// beyond the channel on which it was made, and for a while beyond its last connection.
// Everything is by value and in memory; after a restart the pairs are made anew, the kernel
// still has the keys.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libmobility/pair.hpp"
#include "libmobility/peer_message.hpp"

namespace mobility::client {

/// How well moves of a connection are guarded; each includes those before it.
enum class Guard : std::uint8_t {
    Proved,     ///< both ends have proved it; the in-band key guards its moves
    Added,      ///< the pair key is accepted
    Promoted,   ///< this end's requests are made with the pair key
    Exclusive,  ///< no other key is accepted
};

/// What this host and another one have agreed on (A2.1).
struct Pair {
    PairPart own;
    std::optional<PairPart> peer;                ///< none before the first agreement: agree()
    PairId known_as{};                           ///< the ID, once there is one
    boost::asio::ip::address seen;               ///< where the peer sees this host
    std::vector<ServerPlace> servers;            ///< that both can use, the opener's first
    std::vector<Ticket> tickets;                 ///< by which this host may use them
    std::optional<Vouched> vouched;              ///< when they last agreed
    std::map<std::uint64_t, Guard> connections;  ///< by socket cookie: Book::put()
    std::chrono::steady_clock::time_point used;  ///< opened, or had a connection, last

    [[nodiscard]] bool agreed() const { return peer.has_value(); }
    /// Only if agreed().
    [[nodiscard]] const PairId& id() const { return known_as; }
    void agree(const PairPart& other) {
        peer = other;
        known_as = pair_id(own, other);
    }
    /// Is this host behind a NAPT, as the peer sees it? Only if agreed().
    [[nodiscard]] bool inside() const { return seen != own.address; }
};

class Book {
  public:
    static constexpr std::size_t kMaxPairs = 4096;
    using Clock = std::function<std::chrono::steady_clock::time_point()>;

    explicit Book(Clock clock = std::chrono::steady_clock::now) : clock_(std::move(clock)) {}

    /// The pair with this host, a new one if there is none: `here` becomes part of its ID.
    /// If there are kMaxPairs already, that one goes which has had no connection for the
    /// longest time; null if all have some. Valid until it is forgotten.
    Pair* open(const Name& self, const Name& peer, const boost::asio::ip::address& here);
    [[nodiscard]] const Pair* find(const Name& peer) const;
    /// Whose pair this connection belongs to.
    [[nodiscard]] std::optional<Name> owner(std::uint64_t cookie) const;

    /// From now on the connection is the pair's, which is in the book; so is its guard.
    void put(const Name& peer, std::uint64_t cookie, Guard guard);

    void forget(const Name& peer);
    /// Forgets those that have had no connection for so long; how many.
    std::size_t forget_unused(std::chrono::steady_clock::duration longer_than);
    /// The connection has ended.
    void drop(std::uint64_t cookie);
    /// Drops all connections that are not among these cookies (sorted), and what was
    /// never agreed and has none.
    void keep(const std::vector<std::uint64_t>& cookies);
    [[nodiscard]] const std::map<Name, Pair>& pairs() const { return pairs_; }

  private:
    /// Of the one that has had no connection for the longest time; null if all have some.
    [[nodiscard]] const Name* least_used() const;

    Clock clock_;
    std::map<Name, Pair> pairs_;
    std::unordered_map<std::uint64_t, Name> owners_;  ///< by cookie
};

}  // namespace mobility::client
