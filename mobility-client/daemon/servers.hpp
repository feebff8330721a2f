// SPDX-License-Identifier: GPL-2.0-or-later
// Channels to mobility servers: one for each server and local address from which it is to be
// spoken with, kept for as long as it is wanted, and made again when it ends.
//
//     wanted --connect, TLS, Hello--> Welcome: joined --ends--> again, ever later
//                                       | other tickets are to be shown: its heir joins
//                                       v beside it, then it ends
//
// Where a server is belongs to what is wanted: if two peers say that it is at two places, two
// channels are made, and who lies about it keeps nobody from the right one. How long to wait
// before the next attempt outlives the channel: whoever has it made again and again does not
// hurry it.
//
// A channel is a connection like any other: when the host moves the kernel moves it along,
// and what is said on it arrives with the new address. If it is not migratable (a server on
// a kernel without the extension), or its move does not succeed, another one is made from
// the new address. So a report about IPv4 goes over IPv4, and from the address that it
// speaks about.
//
// Single-threaded: everything runs on the io_context, which must outlive it and has to have
// run dry after stop() before it goes.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <compare>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "daemon/prover.hpp"
#include "daemon/table.hpp"
#include "libmobility/channel.hpp"
#include "libmobility/log.hpp"
#include "libmobility/message.hpp"
#include "libmobility/peer_message.hpp"

namespace mobility::client {

struct ServerCounters {
    std::uint64_t opened = 0;
    std::uint64_t joined = 0;
    std::uint64_t failed = 0;   ///< channels that did not get to a Welcome
    std::uint64_t ended = 0;    ///< that were joined
    std::uint64_t refused = 0;  ///< messages, by the server
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    std::uint64_t throttled = 0;  ///< waits of servers that say too much
};

class Servers {
  public:
    using Address = boost::asio::ip::address;
    using Time = std::chrono::steady_clock::time_point;

    /// A server, and from where it is to be spoken with.
    struct Key {
        ServerPlace server;
        Address from;
        std::strong_ordering operator<=>(const Key&) const = default;
    };
    struct Wanted {
        std::string token;
        std::vector<Ticket> tickets;  ///< a server is shown kMaxTickets of them at once
        std::set<Address> soon;       ///< where trials of what it is wanted for go to
        bool operator==(const Wanted&) const = default;
    };
    enum class State : std::uint8_t { Connecting, Joined, Waiting };
    /// What there is to see of a channel.
    struct Seen {
        Key key;
        State state = State::Connecting;
        Address address;  ///< of the server
        Address seen;     ///< from where the server saw it when it joined
        bool migratable = false;
        std::uint32_t failures = 0;
        std::string why;  ///< of the last failure
    };

    /// A server has said something on the channel from this address.
    using OnMessage = std::function<void(const Key& key, const ToHost& message)>;
    /// A channel has been joined: what is to be known there is to be said.
    using OnJoined = std::function<void(const Key& key)>;

    /// All outlive it.
    Servers(boost::asio::io_context& io, const Tls& tls, Table& table, Prover& prover, Log log);
    ~Servers();
    Servers(const Servers&) = delete;
    Servers& operator=(const Servers&) = delete;

    void start(OnMessage on_message, OnJoined on_joined);
    void stop();
    /// These channels are wanted from now on, and no others. Also when the host or a channel
    /// has moved: what is at the wanted place then is found again, and what arrives there
    /// before or after the connections it is wanted for is kept.
    void want(const std::map<Key, Wanted>& wanted);
    /// Is there one, joined or not?
    [[nodiscard]] bool has(const Key& key) const;
    /// False if there is no joined channel there.
    bool say(const Key& key, const ToServer& message);
    /// Of the channel; 0 if there is none, or it is not known.
    [[nodiscard]] std::chrono::microseconds rtt(const Key& key);

    [[nodiscard]] std::vector<Seen> seen() const;
    [[nodiscard]] const ServerCounters& counters() const { return counters_; }

    /// What to show of more tickets than fit: those of the pairs that are needed, and of the
    /// others as many as there is room for, from `turn` on, which is moved on.
    [[nodiscard]] static std::vector<Ticket> in_turn(const std::vector<Ticket>& all,
                                                     const std::set<PairId>& needed,
                                                     std::size_t& turn, std::size_t most);

  private:
    /// When to try again, after so many failures.
    struct Later {
        std::uint32_t failures = 0;
        Time next{};
    };
    struct Link;
    using LinkPtr = std::shared_ptr<Link>;
    /// One of those that are wanted.
    using Choice = std::map<Key, Wanted>::iterator;

    /// Where a channel speaks from now, or soon: its move may be under way. Nothing if it
    /// cannot go on.
    [[nodiscard]] std::optional<Address> place_of(const Link& link) const;
    void open(const Key& key, const Wanted& wanted);
    void drop(const LinkPtr& link);
    /// What this channel is for, where it is now.
    Choice find_there(Link& link, std::map<Key, Wanted>& all) const;
    /// What this channel is for, when the trials that are under way have succeeded.
    Choice find_on_the_way(const Link& link, std::map<Key, Wanted>& all) const;
    void refresh(const LinkPtr& link, const Wanted& wanted);
    /// Has the tickets of these pairs shown to the server, beside the channel that there is.
    void renew(const LinkPtr& link, std::set<PairId> needed);
    boost::asio::awaitable<void> inherit(LinkPtr old, LinkPtr heir);
    void on_refused(const LinkPtr& link, const Refused& refused);
    void put_off(const Link& link, Time since);
    boost::asio::awaitable<void> run(LinkPtr link);
    Awaitable<void> attempt(LinkPtr link);
    boost::asio::awaitable<void> wait_until_due(LinkPtr link);
    /// The channel's, not the link's.
    boost::asio::awaitable<void> close(LinkPtr link);
    Awaitable<void> join(LinkPtr link);
    Awaitable<void> listen_to(LinkPtr link);
    Awaitable<std::unique_ptr<Channel>> connect(LinkPtr link);
    boost::asio::awaitable<void> write_all(LinkPtr link);
    void forget_socket(Link& link);
    [[nodiscard]] LinkPtr find(const Key& key) const;

    boost::asio::io_context& io_;
    const Tls& tls_;
    Table& table_;
    Prover& prover_;
    Log log_;
    OnMessage on_message_;
    OnJoined on_joined_;
    ServerCounters counters_;
    std::list<LinkPtr> links_;
    std::map<Key, Later> later_;
    bool stopping_ = false;
};

}  // namespace mobility::client
