// SPDX-License-Identifier: GPL-2.0-or-later
// What two hosts do that have agreed, once one of them has moved (A2.2, A2.3): a state
// machine for each pair, without input and output of its own.
//
//     settled --a connection moves, or has lost its path--> unsettled: Report to all servers
//     unsettled --Notice--> migrate to where the peer is: told --moved--> Outcome, settled
//               --moved by itself--> Forget, settled; by a proxy: only after a while, since
//                 a server may know a direct way
//               --Verdict, or a while--> Report again, ever later
//     any --Ask--> Report; and where the Ask says the peer is, is tried as if it were a Notice
//
// What is reported is what the kernel has: where a connection was is its address, where it
// goes to is the target of its move. So nothing has to be remembered of moves, and a second
// move before the first was over is reported as from where the peer still knows the host. A
// trial is no move yet: the old path is in use, also that of the channel to the server.
//
// A peer that is where it was and needs help all the same does not hear us: a NAPT has
// forgotten the path from here, which a request makes anew.
//
// Both are inside: each of their servers has a proxy relay them, and tells both (a Notice like
// any other). Two servers may have two proxies: that of the server which comes first in the
// pair's list, which both ends have, is tried first, so that they meet.
//
// What is said of the moment to leave a relay is for the Leaver, and only while nothing of
// this is going on.
//
// A server can be wrong, or lie: it is heard only about pairs that use it; its Notice is
// tried first, those of the others wait until it has succeeded or its time is over; places
// that are told are tried only so often, and for so long before the peer is sought where it was;
// and a connection whose path works leaves it only for a place that has been proved (a trial).
#pragma once

#include <boost/asio/ip/address.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon/leaver.hpp"
#include "daemon/servers.hpp"
#include "daemon/table.hpp"
#include "libmobility/log.hpp"
#include "libmobility/message.hpp"
#include "pairing/book.hpp"

namespace mobility::client {

struct ResumeCounters {
    std::uint64_t reports = 0;  ///< messages, one for each server
    std::uint64_t asks = 0;
    std::uint64_t notices = 0;
    std::uint64_t tried = 0;      ///< Notices that had connections migrate
    std::uint64_t held_back = 0;  ///< ... that were one too many
    std::uint64_t useless = 0;    ///< ... that named no connection of the pair, or another family
    std::uint64_t resumed = 0;    ///< ... whose connections have moved
    std::uint64_t failed = 0;
    std::uint64_t verdicts = 0;
    std::uint64_t unknown = 0;  ///< messages about a pair that is not known, or not the server's
};

class Resumer {
  public:
    using Address = boost::asio::ip::address;
    using Time = std::chrono::steady_clock::time_point;
    using Duration = std::chrono::steady_clock::duration;
    /// What it does; tests replace it.
    struct Hands {
        /// False if there is no channel there that is joined.
        std::function<bool(const Servers::Key&, const ToServer&)> say;
        std::function<Duration(const Servers::Key&)> rtt;
        std::function<Result<void>(const tcpmigrate::MigrateRequest&)> migrate;
        std::function<Time()> now;
    };
    /// What there is to see of a pair's state.
    struct Seen {
        std::string state;  ///< settled, reported, told
        std::string verdict;
        std::size_t unsettled = 0;  ///< connections
    };

    /// Notices of one server about one pair that are tried a minute.
    static constexpr std::size_t kMaxTold = 10;

    /// Table and Book outlive it.
    Resumer(const Table& table, const Book& book, Hands hands, Log log);

    void on_event(const Connection& connection);
    /// After a batch of events, or when everything was read anew: says what there is to say.
    void on_batch(bool reread);
    void on_joined(const Servers::Key& key);
    void on_message(const Servers::Key& key, const ToHost& message);
    /// Reports about all pairs, whatever was before; how many there are.
    std::size_t report_all();
    /// Does what is due. Call it when next() says so.
    void expire();
    [[nodiscard]] std::optional<Time> next() const;

    /// From where which servers are to be spoken with, the first of them are taken; and where
    /// the trials of the connections there go to.
    [[nodiscard]] std::map<Servers::Key, std::set<Address>> wanted() const;
    [[nodiscard]] Seen seen(const Name& peer) const;
    /// Is its other end a proxy, by what a server has told?
    [[nodiscard]] bool is_relayed(const Connection& connection) const;
    [[nodiscard]] const ResumeCounters& counters() const { return counters_; }
    [[nodiscard]] const Leaver& leaver() const { return leaver_; }

  private:
    using Cookies = std::set<std::uint64_t>;
    /// A Notice, and who has sent it.
    struct Told {
        Servers::Key by;
        Notice notice;
        bool early = false;  ///< an Ask's hint: the Notice is yet to come
    };
    struct State {
        std::optional<Report> reported;   ///< last, while unsettled
        std::optional<Time> again;        ///< when to report again
        Duration pause{};                 ///< before that
        std::vector<ServerPlace> unsaid;  ///< servers without a channel from there as yet
        std::optional<Told> trying;
        Cookies pending;            ///< of it: connections that are under way
        Cookies crossed;            ///< ... that the peer has moved meanwhile, to elsewhere
        Cookies repeated;           ///< ... that were tried a second time for that
        Cookies diverted;           ///< ... that this host has moved, to where the peer was
        std::optional<Time> until;  ///< for so long before the next one is tried
        std::deque<Told> others;    ///< Notices that wait, one of each server at most
        std::map<Name, std::deque<Time>> tried;  ///< when Notices were, by server
        std::string verdict;
        bool helped = false;       ///< since the last report: a Notice has been of use
        bool asked = false;        ///< about it, by a server, and nothing has arrived since
        Cookies away;              ///< connections without a path that try a place that was told
        std::optional<Time> back;  ///< when they try again where the peer was
    };

    [[nodiscard]] Address place_now(const Connection& connection) const;
    /// Has it come to where it is a moment ago?
    [[nodiscard]] bool has_just_arrived(const Connection& connection) const;
    /// Has it lost its path, or may have; or is it on its way to another place of this host?
    [[nodiscard]] bool is_unsettled(const Connection& connection) const;
    [[nodiscard]] bool is_busy(const Name& peer) const;
    [[nodiscard]] std::vector<const Connection*> connections(const Pair& pair) const;
    [[nodiscard]] std::optional<Report> make_report(const Pair& pair) const;
    void evaluate(const Name& peer, bool always);
    void report(const Pair& pair, State& state, const Report& report);
    /// Says what is reported to servers whose channels have come to that place meanwhile.
    void report_late();
    void give_up_if_still(State& state);
    void settle(const Pair& pair, State& state);
    /// Is it one of the servers that are spoken with for this pair?
    [[nodiscard]] static bool is_server_of(const Pair& pair, const Servers::Key& key);
    /// The pair with this ID, if this server has anything to say of it; else counts.
    const std::pair<const Name, Pair>* find(const Servers::Key& by, const PairId& id);
    void handle(const Servers::Key& key, const Ask& ask);
    void try_hint(const Servers::Key& key, const Ask& ask, const Name& peer, const Pair& pair);
    /// Is this the Notice of a hint that is being tried?
    [[nodiscard]] static bool confirms(const Told& told, const State& state);
    void handle(const Servers::Key& key, const Notice& notice);
    void handle(const Servers::Key& key, const Verdict& verdict);
    void attempt(const Pair& pair, State& state, const Told& told);
    /// True if the connection is there already, or on its way.
    bool send_there(const Connection& connection, const Notice& notice, const Resume& resume,
                    State& state);
    /// Each connection of `which` as the Notice says; true if one was sent: its events are yet
    /// to come.
    bool send_again(const Cookies& which, State& state);
    bool try_crossed(const Name& peer);
    void try_diverted(const Name& peer);
    void finish(State& state, bool resumed);
    /// What a server has told was not so, as far as can be seen: without it they would have
    /// tried all the time where the peer was.
    void go_back(const Pair& pair, State& state);
    /// Has this server been tried too often? If not, it is once more now.
    bool may_try(State& state, const Name& server);
    /// If nothing is being tried: what waits.
    void try_others(const Pair& pair, State& state);
    void wait_for_turn(State& state, Told told);
    /// Both are relays, by different proxies, and the peer tries this one first.
    [[nodiscard]] static bool goes_first(const Pair& pair, const Told& told, const Told& trying);

    const Table& table_;
    const Book& book_;
    Hands hands_;
    Log log_;
    std::map<Name, State> states_;
    std::set<Name> touched_;  ///< of this batch
    /// Connections whose retransmissions nobody answers: only a moment is told, not its end, so
    /// it counts in its batch. Their peer may sit behind a NAPT that has forgotten them.
    Cookies stalled_;
    std::map<std::uint64_t, Time> arrived_;    ///< connections of pairs, by cookie
    std::map<std::uint64_t, Address> relays_;  ///< where proxies are to which they were sent last
    ResumeCounters counters_;
    Leaver leaver_;
};

}  // namespace mobility::client
