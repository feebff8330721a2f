// SPDX-License-Identifier: GPL-2.0-or-later
// Leaves a relay when a server says the moment: two hosts that a proxy relays try each other's
// NAPT at once, so that their MSYNs cross (docs/exchange.md, 8). A state machine for each pair,
// without input and output of its own, beside that of the Resumer, which goes before it.
//
//     told --its delay--> trials of all connections --all are there, or have failed--> Outcome
//       | something else is under way with this pair: dropped, and Outcome
//
// Nothing is lost by it and so nothing is said of it, but to the server: connections keep the
// path that they have until the other has been proved.
//
// A server that lies can have this host send MSYNs, as by any Notice: only about a pair that
// has agreed on it, and only so often.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "daemon/servers.hpp"
#include "daemon/table.hpp"
#include "libmobility/log.hpp"
#include "libmobility/message.hpp"
#include "pairing/book.hpp"

namespace mobility::client {

struct LeaverCounters {
    std::uint64_t told = 0;
    std::uint64_t held_back = 0;  ///< one too many
    std::uint64_t tried = 0;
    std::uint64_t crossed = 0;  ///< whose connections have all left
};

class Leaver {
  public:
    using Time = std::chrono::steady_clock::time_point;
    /// What it does; tests replace it.
    struct Hands {
        std::function<bool(const Servers::Key&, const ToServer&)> say;
        std::function<Result<void>(const tcpmigrate::MigrateRequest&)> migrate;
        std::function<Time()> now;
        /// Is something else under way with this peer?
        std::function<bool(const Name&)> busy;
    };
    /// Of one server about one pair that are tried a minute: a host may have moved in between.
    static constexpr std::size_t kMost = 6;

    /// Table and Book outlive it.
    Leaver(const Table& table, const Book& book, Hands hands, Log log);

    /// A Notice with a delay. The newest one of a server counts; of another server it comes
    /// to nothing while there is one.
    void told(const Name& peer, const Servers::Key& by, const Notice& notice);
    void on_event(const Connection& connection);
    /// Something else is to be done: what was told is of no use any more.
    void drop(const Name& peer);
    /// Pairs that are no more.
    void tidy();
    /// Does what is due. Call it when next() says so.
    void expire();
    [[nodiscard]] std::optional<Time> next() const;
    [[nodiscard]] const LeaverCounters& counters() const { return counters_; }

  private:
    /// A Notice, and what has come of it so far.
    struct Crossing {
        Servers::Key by;
        Notice notice;
        std::optional<Time> at;  ///< when it begins, if it has not
        std::set<std::uint64_t> pending;
        bool failed = false;
    };

    bool may_try(const Name& peer, const Name& server);
    void begin(const Name& peer);
    void begin(const Connection& connection, const Resume& resume, Crossing& crossing);
    void finish(const Name& peer, bool crossed);

    const Table& table_;
    const Book& book_;
    Hands hands_;
    Log log_;
    std::map<Name, Crossing> crossings_;                       ///< by peer
    std::map<std::pair<Name, Name>, std::deque<Time>> tried_;  ///< by peer and server
    LeaverCounters counters_;
};

}  // namespace mobility::client
