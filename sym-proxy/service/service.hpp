// SPDX-License-Identifier: GPL-2.0-or-later
// The proxy on its TCP sockets: mobility servers connect here, prove who they are, and
// order relays (A3.1). What an order comes to is the matter of Relays.
//
//     accepted --TLS, Greeting in time--> admitted --Ready--> orders until it ends
//        | too many: closed at once         | not: Declined, ended
//
// Only servers that are listed may order; there are few of them, and all are trusted to
// order only for hosts that they admit. One that orders faster than it may waits in its own
// socket.
//
// Single-threaded: everything runs on the io_context, which must outlive the Service, as must
// Tls and Relays. The io_context has to have run dry before it is destroyed.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libmobility/channel.hpp"
#include "libmobility/listener.hpp"
#include "libmobility/log.hpp"
#include "libmobility/pace.hpp"
#include "relay/relays.hpp"

namespace mobility::proxy {

struct ServiceLimits {
    std::size_t servers = 64;    ///< channels
    std::size_t strangers = 64;  ///< not admitted yet; one more is closed at once
    Duration introduction = std::chrono::seconds(10);
    std::size_t orders_per_second = 200;  ///< of one channel
    std::size_t burst = 2'000;
    std::size_t unsent = std::size_t{1} << 20;  ///< bytes kept for a channel

    bool operator==(const ServiceLimits&) const = default;
};

struct ServiceCounters {
    std::uint64_t accepted = 0;
    std::uint64_t joined = 0;
    std::uint64_t not_admitted = 0;
    std::uint64_t crowded = 0;
    std::uint64_t introduction_failed = 0;
    std::uint64_t malformed = 0;
    std::uint64_t throttled = 0;
    std::uint64_t slow = 0;
    std::uint64_t accept_errors = 0;
};

class Service {
  public:
    static constexpr Duration kTellLoad = std::chrono::seconds(5);
    static constexpr Duration kTellMet = std::chrono::milliseconds(100);

    Service(boost::asio::io_context& io, const Tls& tls, Relays& relays, const Relays::Ports& ports,
            std::set<Name> servers, const ServiceLimits& limits, Log log);

    /// Listens there; port 0 is any. Where it listens, or why it cannot.
    Result<boost::asio::ip::tcp::endpoint> listen(const boost::asio::ip::tcp::endpoint& where);
    /// To be told on the channel that wants it, soon: connections come in crowds.
    void met(const Relays::Customer& customer, const RelayPair& pair);
    /// Ends the channels of servers that are listed no more.
    void review(std::set<Name> servers, const ServiceLimits& limits);
    /// Ends everything in order; the io_context runs dry soon after.
    void stop();

    [[nodiscard]] std::size_t channels() const { return sessions_.size(); }
    [[nodiscard]] const ServiceCounters& counters() const { return counters_; }

  private:
    using Socket = boost::asio::ip::tcp::socket;

    struct Session {
        std::unique_ptr<Channel> channel;
        Pace pace;
        std::deque<std::string> out;
        std::size_t unsent = 0;
        bool writing = false;
        Load told;             ///< last
        std::uint64_t id = 0;  ///< never used again
        bool wants_met = false;
        std::map<std::uint64_t, std::vector<RelayPair>> met;  ///< by order, not told yet
    };
    using SessionPtr = std::shared_ptr<Session>;

    boost::asio::awaitable<void> serve(Socket socket);
    Awaitable<SessionPtr> introduce(Socket socket);
    std::optional<Declined> refusal(const Channel& channel, const std::string& first);
    Awaitable<void> listen_to(const SessionPtr& session);
    Awaitable<void> malformed(Session& session, std::string what);
    boost::asio::awaitable<void> throttle(Session& session);
    void send(const SessionPtr& session, const FromProxy& message);
    boost::asio::awaitable<void> write_all(SessionPtr session);
    void tell_load();
    void tell_met();
    void arm();
    [[nodiscard]] Ready ready() const;

    boost::asio::io_context& io_;
    const Tls& tls_;
    Relays& relays_;
    Relays::Ports ports_;
    std::set<Name> servers_;
    ServiceLimits limits_;
    Log log_;
    ServiceCounters counters_;
    std::list<Listener> listeners_;
    std::set<boost::asio::steady_timer*> strangers_;
    std::set<SessionPtr> sessions_;
    boost::asio::steady_timer timer_;
    boost::asio::steady_timer met_timer_;
    bool met_armed_ = false;
    std::uint64_t last_ = 0;
    bool stopping_ = false;
};

}  // namespace mobility::proxy
