// SPDX-License-Identifier: GPL-2.0-or-later
// The exchange before a move (A2.1) on its sockets: a Session for each channel between this
// host's daemon and another's.
//
//     a program has opened a connection to P --> wanted --connect to P:7791--> TLS --> Session
//     at a start: any connection with P, whoever opened it
//     somebody connects, from the address of a live connection's peer -------> TLS --> Session
//     P is not believed to be who it is, without a voucher or with those that it shows --> refused
//     the Session is open: further connections are proved on it; idle for a while, or the
//     voucher that P has shown runs out: closed
//     P has no daemon, or refuses: again later, ever more seldom; its connections still move
//     when this host does
//
// Two hosts have one channel at a time, or each could install another key: if both connect
// at once, that of the host with the smaller name stays; else a new one ends the old one.
//
// Nobody can cost others anything: strangers are closed before TLS, few are let in at once
// and of one address, each has little time until it has proved a connection; only so many
// attempts of this host are under way at once; a peer that does not read what it is sent, or
// sends more than fits, is closed, and who says too much has to wait.
//
// Single-threaded: everything runs on the io_context, which must outlive it and has to have
// run dry after stop() before it goes.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
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
#include "daemon/trust.hpp"
#include "libmobility/channel.hpp"
#include "libmobility/listener.hpp"
#include "libmobility/log.hpp"
#include "pairing/session.hpp"

namespace mobility::client {

/// TCP port of a client's daemon, for its peers.
constexpr std::uint16_t kPeerPort = 7791;

struct PeerConfig {
    using Duration = std::chrono::steady_clock::duration;
    using Endpoint = boost::asio::ip::tcp::endpoint;

    bool exchange = true;  ///< false: nothing of all this
    std::vector<Endpoint> listen{{boost::asio::ip::address_v6::any(), kPeerPort}};
    std::size_t port = kPeerPort;  ///< of the peers
    bool exclusive = true;         ///< with a pair key no other is accepted
    std::size_t strangers = 64;    ///< others' channels with nothing proved yet, in all
    std::size_t strangers_per_address = 4;
    std::size_t attempts = 64;                         ///< this host's, the same, at once
    std::size_t channels = 1024;                       ///< with peers
    Duration introduction = std::chrono::seconds(10);  ///< until a Session is open
    Duration linger = std::chrono::seconds(60);        ///< without a word
    Duration retry = std::chrono::seconds(30);         ///< after a failure; doubles
    Duration retry_longest = std::chrono::hours(1);
    Duration forget = std::chrono::hours(1);  ///< pairs without a connection

    bool operator==(const PeerConfig&) const = default;
};

struct PeerCounters {
    std::uint64_t opened = 0;        ///< channels, by this host
    std::uint64_t accepted = 0;      ///< ... by others
    std::uint64_t strangers = 0;     ///< closed at once: no connection with that address
    std::uint64_t crowded = 0;       ///< closed at once: too many
    std::uint64_t failed = 0;        ///< attempts that led to no Session
    std::uint64_t refused = 0;       ///< peers that are not trusted
    std::uint64_t vouched = 0;       ///< Sessions that opened with a good voucher of the peer
    std::uint64_t vouchers_bad = 0;  ///< peers with one of a trusted server that was not good
    std::uint64_t throttled = 0;     ///< waits of peers that say too much
    std::uint64_t agreed = 0;        ///< Sessions that opened
    std::uint64_t proved = 0;        ///< as Session::Counters
    std::uint64_t not_proved = 0;
    std::uint64_t other_identity = 0;
    std::uint64_t key_errors = 0;
};

class Peers {
  public:
    using Address = boost::asio::ip::address;
    /// A pair is agreed, or has new connections.
    using OnAgreed = std::function<void(const Name& peer)>;

    /// What became of reaching a host's daemon.
    struct Attempt {
        bool busy = false;
        std::uint32_t failures = 0;  ///< one after the other
        std::chrono::steady_clock::time_point next{};
        std::string why;  ///< of the last failure
    };

    /// All outlive it; it sets `settings.exclusive`, from `config`, and `settings.believed`.
    Peers(boost::asio::io_context& io, const Tls& tls, const Name& self, Trust& trust,
          Settings& settings, Table& table, Prover& prover, Book& book, const PeerConfig& config,
          Log log);
    ~Peers();
    Peers(const Peers&) = delete;
    Peers& operator=(const Peers&) = delete;

    /// Listens as configured.
    Result<void> listen();
    void stop();
    void when_agreed(OnAgreed on_agreed) { on_agreed_ = std::move(on_agreed); }
    /// Tells connections whose other end is a proxy's, not their peer's.
    void tell_relayed(std::function<bool(const Connection&)> relayed) {
        relayed_ = std::move(relayed);
    }
    /// But for where to listen.
    void reconfigure(const PeerConfig& config);

    void on_event(const Connection& connection);
    void on_batch(bool reread);
    /// Tries all that are wanted now, whatever was before; how many there are.
    std::size_t exchange();

    [[nodiscard]] const PeerCounters& counters() const { return counters_; }
    /// By address, of those whose daemon was sought and not (yet) found.
    [[nodiscard]] const std::map<Address, Attempt>& attempts() const { return attempts_; }
    /// How many connections wait for their peer's daemon.
    [[nodiscard]] std::size_t wanted(const Address& there) const;
    /// Others' channels on which nothing has been proved.
    [[nodiscard]] std::size_t strangers() const;
    [[nodiscard]] bool has_channel(const Name& peer) const { return links_.contains(peer); }

  private:
    using Socket = boost::asio::ip::tcp::socket;
    struct Link;
    using LinkPtr = std::shared_ptr<Link>;
    class Place;
    using PlacePtr = std::unique_ptr<Place>;

    void want(const Connection& connection);
    void forget(std::uint64_t cookie);
    /// Is this the connection of a channel? Then the channel's place may be another now.
    void follow(const Connection& connection);
    /// Has something done about the connections to this host that are not proved.
    void consider(const Address& there);
    boost::asio::awaitable<void> reach(Address there, Address here, PlacePtr place);
    Awaitable<std::unique_ptr<Channel>> open(Address there, Address here);
    /// A channel that is to be made in time, and given up by stop().
    Awaitable<std::unique_ptr<Channel>> in_time(Awaitable<std::unique_ptr<Channel>> making);
    boost::asio::awaitable<void> admit(Socket socket);
    bool has_room_for(const Address& there);

    /// From TLS to the end of the channel; why it ended.
    Awaitable<void> talk(std::unique_ptr<Channel> channel, PlacePtr place, bool opener);
    Result<LinkPtr> make_link(std::unique_ptr<Channel> channel, PlacePtr place, bool opener);
    /// May this channel be the one of its two hosts? Ends the other one if so.
    bool take_place(const LinkPtr& link);
    Awaitable<void> converse(LinkPtr link);
    /// How long to wait for the peer's next word. If no time is left, nothing that an open
    /// channel's peer says counts any more.
    [[nodiscard]] PeerConfig::Duration patience(const Link& link,
                                                std::chrono::steady_clock::time_point until) const;
    Result<std::optional<Vouched>> believe(const ChannelView& channel,
                                           const std::vector<Voucher>& shown);
    /// Says so in the log.
    void refused(const Name& peer, const Address& there, const std::string& why);
    void pin(const Link& link);
    /// Until the peer may say more.
    boost::asio::awaitable<void> wait_a_turn(LinkPtr link);
    /// Has the last word arrive, and closes the channel.
    boost::asio::awaitable<void> part(LinkPtr link);
    void opened(const LinkPtr& link);
    void send(const LinkPtr& link, const Session::Messages& messages);
    boost::asio::awaitable<void> write_all(LinkPtr link);
    void count(const Session& session);

    void failed(const Address& there, const std::string& why);
    void arm();

    boost::asio::io_context& io_;
    const Tls& tls_;
    Name self_;
    Trust& trust_;
    Settings& settings_;
    Table& table_;
    Prover& prover_;
    Book& book_;
    PeerConfig config_;
    Log log_;
    OnAgreed on_agreed_;
    std::function<bool(const Connection&)> relayed_;
    PeerCounters counters_;
    std::list<Listener> listeners_;
    std::map<Name, LinkPtr> links_;
    std::set<LinkPtr> parting_;                          ///< that are no one's channel any more
    std::map<Address, std::size_t> strangers_;           ///< of others, nothing proved
    std::size_t attempting_ = 0;                         ///< of this host, the same
    std::map<Address, std::set<std::uint64_t>> wanted_;  ///< opened here, and not proved
    std::map<std::uint64_t, Address> wanted_at_;         ///< the same, by cookie
    std::set<Address> touched_;                          ///< of this batch
    std::map<Address, Attempt> attempts_;
    std::set<boost::asio::steady_timer*> making_;  ///< of channels that are being made
    boost::asio::steady_timer timer_;
    bool starting_ = true;  ///< nothing has been read yet
    bool stopping_ = false;
};

}  // namespace mobility::client
