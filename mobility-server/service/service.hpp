// SPDX-License-Identifier: GPL-2.0-or-later
// The server on its sockets: accepts channels, admits hosts, hands what they say to
// the Exchange and sends what that answers; relays that it wants are ordered elsewhere.
//
//     accepted --TLS, Hello in time--> admitted --Welcome--> joined: reads until it ends
//        | too many: the oldest ends      | not: Refused, ended
//                                         | wants only a voucher: Welcome with it, ended
//
// Nobody can cost others anything:
//  - Who has not been admitted yet is one of a bounded number, in all and of one
//    address, has little time, and may send little.
//  - A host has few channels (a new one ends the oldest: it is what is left of a place
//    where the host was before) and says few things a second; what is more waits in its
//    own socket.
//  - What a host does not take is kept up to a bound, then its channel ends.
//
// Single-threaded: everything runs on the io_context, which must outlive the Service,
// as must Tls, Admission and Vouching. The io_context has to have run dry before it is destroyed.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "admission/admission.hpp"
#include "admission/vouching.hpp"
#include "exchange/exchange.hpp"
#include "libmobility/channel.hpp"
#include "libmobility/listener.hpp"
#include "libmobility/log.hpp"
#include "libmobility/pace.hpp"

namespace mobility::server {

struct ServiceLimits {
    std::size_t channels = 20'000;           ///< of hosts that are admitted
    std::size_t channels_per_host = 4;       ///< one more ends the oldest
    std::size_t guests_per_host = 64;        ///< channels, admitted by one host's tickets
    std::size_t strangers = 1'000;           ///< not admitted yet; one more ends the oldest
    std::size_t strangers_per_address = 32;  ///< IPv6: per /64; one more is closed at once
    Duration introduction = std::chrono::seconds(10);  ///< for TLS and Hello
    std::size_t messages_per_second = 50;              ///< of one host
    std::size_t burst = 500;                           ///< messages at once, of one host
    std::size_t unsent = std::size_t{256} << 10;       ///< bytes kept for a channel

    bool operator==(const ServiceLimits&) const = default;
};

/// What has happened since the start.
struct ServiceCounters {
    std::uint64_t accepted = 0;
    std::uint64_t joined = 0;
    std::uint64_t vouched = 0;               ///< vouchers that hosts were given
    std::uint64_t not_vouched = 0;           ///< ... were not, though they wanted one
    std::array<std::uint64_t, 7> refused{};  ///< by Refused::Why
    std::uint64_t crowded = 0;               ///< closed at once: too many of one address
    std::uint64_t pushed_out = 0;            ///< strangers, by newer ones
    std::uint64_t introduction_failed = 0;   ///< TLS or Hello bad, or not in time
    std::uint64_t replaced = 0;              ///< channels of a host, by newer ones
    std::uint64_t slow = 0;                  ///< ended for not taking what was sent
    std::uint64_t throttled = 0;             ///< waits of a host that says too much
    std::uint64_t received = 0;              ///< messages
    std::uint64_t sent = 0;
    std::uint64_t accept_errors = 0;
};

class Service {
  public:
    Service(boost::asio::io_context& io, const Tls& tls, Admission& admission,
            const Vouching& vouching, const ServiceLimits& limits, const Limits& exchange, Log log);
    ~Service();
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;

    /// Listens there; port 0 is any. Where it listens, or why it cannot.
    Result<boost::asio::ip::tcp::endpoint> listen(const boost::asio::ip::tcp::endpoint& where);
    /// Orders relays, until one of the next two is called for it.
    void when_ordering(std::function<void(const Wish&)> order) { order_ = std::move(order); }
    void reserved(const Reserved& reserved);
    void no_proxy(std::uint64_t order);
    void met(const Met& met, const Ready& by);
    /// After Admission::reload(): ends the channels of hosts that are admitted no more.
    /// New limits are for what happens from now on.
    void review(const ServiceLimits& limits, const Limits& exchange);
    /// Ends everything in order; the io_context runs dry soon after.
    void stop();

    [[nodiscard]] std::size_t channels() const { return sessions_.size(); }
    [[nodiscard]] std::size_t strangers() const { return strangers_.size(); }
    [[nodiscard]] const ServiceCounters& counters() const { return counters_; }
    [[nodiscard]] const Exchange& exchange() const { return exchange_; }

  private:
    using Socket = boost::asio::ip::tcp::socket;
    using ChannelPtr = std::unique_ptr<Channel>;

    /// A channel of an admitted host.
    struct Session {
        ChannelId id = 0;
        ChannelPtr channel;
        Admitted admitted;
        std::deque<std::string> out;
        std::size_t unsent = 0;  ///< bytes in `out`
        bool writing = false;
    };
    using SessionPtr = std::shared_ptr<Session>;

    /// A stranger's place among the others, and its time.
    class Introduction;

    struct Host {
        std::vector<ChannelId> channels;  ///< oldest first
        Pace pace;                        ///< of its messages
    };

    boost::asio::awaitable<void> serve(Socket socket);
    /// TLS, Hello and admission. Null if the host has got all that it wanted.
    Awaitable<SessionPtr> introduce(Socket socket);
    /// To a host that wants nothing else: null, and the channel has ended.
    Awaitable<SessionPtr> give_voucher(Channel& channel, Admitted::As as);
    /// Is there room for this one? Why not, if not.
    std::optional<Refused::Why> no_room(const Session& session) const;
    /// Says so to a stranger; the error is what is said.
    Awaitable<SessionPtr> refuse(Channel& channel, Refused::Why why, std::string text);
    void join(const SessionPtr& session);
    void leave(Session& session);
    /// Until the channel ends, or has to: why.
    Awaitable<void> listen_to(const SessionPtr& session);
    /// The last word to a host that says what cannot be; the error is the same.
    Awaitable<void> malformed(Session& session, std::string what);
    /// Waits until the host may say more.
    boost::asio::awaitable<void> throttle(const Name& host);

    void handle(const SessionPtr& session, const ToServer& message);
    Saying on_report(Session& session, const Report& report);
    /// ... and orders what is to be ordered.
    void deliver(const Saying& saying);
    void send(const SessionPtr& session, const ToHost& message);
    boost::asio::awaitable<void> write_all(SessionPtr session);
    /// Has the Exchange's timer end when its next act is due.
    void arm();
    [[nodiscard]] Welcome welcome(const Channel& channel) const;

    boost::asio::io_context& io_;
    const Tls& tls_;
    Admission& admission_;
    const Vouching& vouching_;
    ServiceLimits limits_;
    Exchange exchange_;
    Log log_;
    std::function<void(const Wish&)> order_;
    ServiceCounters counters_;
    std::list<Listener> listeners_;
    std::list<Introduction*> strangers_;                         ///< oldest first
    std::map<boost::asio::ip::address_v6, std::size_t> crowds_;  ///< strangers per network
    std::unordered_map<ChannelId, SessionPtr> sessions_;
    std::map<Name, Host> hosts_;          ///< that have a channel
    std::map<Name, std::size_t> guests_;  ///< channels of guests, by issuer of a ticket
    ChannelId last_ = 0;
    boost::asio::steady_timer timer_;
    std::optional<Time> armed_;
    bool stopping_ = false;
};

}  // namespace mobility::server
