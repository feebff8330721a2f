// SPDX-License-Identifier: GPL-2.0-or-later
#include "service.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <utility>

#include "libmobility/address.hpp"
#include "libmobility/within.hpp"

namespace mobility::server {

namespace {

namespace asio = boost::asio;
using asio::ip::address;
using asio::ip::address_v6;
using asio::ip::tcp;
using tcpmigrate::make_error;

constexpr std::chrono::seconds kLastWord(2);  ///< for saying why a channel ends

// A host that is gone is noticed by these; its NAPT is kept awake by the host itself.
constexpr int kKeepIdle = 600;     // s
constexpr int kKeepInterval = 60;  // s
constexpr int kKeepCount = 5;
constexpr unsigned kUserTimeout = 60'000;  // ms

/// What one subscriber has: an IPv4 address, as an IPv4-mapped one, or an IPv6 /64.
address_v6 network_of(const address& ip) {
    const auto real = plain(ip);
    if (real.is_v4()) {
        return asio::ip::make_address_v6(asio::ip::v4_mapped, real.to_v4());
    }
    auto bytes = real.to_v6().to_bytes();
    std::fill(bytes.begin() + 8, bytes.end(), 0);
    return address_v6(bytes);
}

template <typename Value>
void set_option(tcp::socket& socket, int level, int option, Value value) {
    // Without these the channel works all the same.
    static_cast<void>(::setsockopt(socket.native_handle(), level, option, &value, sizeof(value)));
}

void prepare(tcp::socket& socket) {
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdle);
    set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, kKeepInterval);
    set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, kKeepCount);
    set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeout);
    set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
}

Time now() {
    return std::chrono::steady_clock::now();
}

Pace::Limit pace_limit(const ServiceLimits& limits) {
    return {static_cast<double>(limits.messages_per_second), static_cast<double>(limits.burst)};
}

}  // namespace

class Service::Introduction {
  public:
    Introduction(Service& service, const address_v6& network)
        : timer(service.io_, service.limits_.introduction), service_(service), network_(network) {
        service_.crowds_[network_]++;
        auto& all = service_.strangers_;
        if (all.size() >= service_.limits_.strangers) {
            service_.counters_.pushed_out++;
            all.front()->end();
        }
        place_ = all.insert(all.end(), this);
    }
    Introduction(const Introduction&) = delete;
    Introduction& operator=(const Introduction&) = delete;
    ~Introduction() {
        give_place();
        const auto crowd = service_.crowds_.find(network_);
        if (--crowd->second == 0) {
            service_.crowds_.erase(crowd);
        }
    }

    /// Its time is over now.
    void end() {
        give_place();
        timer.expires_at(Time::min());
    }

    asio::steady_timer timer;

  private:
    void give_place() {
        if (place_) {
            service_.strangers_.erase(*place_);
            place_.reset();
        }
    }

    Service& service_;
    address_v6 network_;
    std::optional<std::list<Introduction*>::iterator> place_;
};

Service::Service(asio::io_context& io, const Tls& tls, Admission& admission,
                 const Vouching& vouching, const ServiceLimits& limits, const Limits& exchange,
                 Log log)
    : io_(io),
      tls_(tls),
      admission_(admission),
      vouching_(vouching),
      limits_(limits),
      exchange_(exchange,
                [this](ChannelId id) -> Duration {
                    const auto session = sessions_.find(id);
                    return session == sessions_.end() ? Duration::zero()
                                                      : session->second->channel->shortest_rtt();
                }),
      log_(std::move(log)),
      timer_(io) {}

Service::~Service() = default;

// ---- Accepting ----

Result<tcp::endpoint> Service::listen(const tcp::endpoint& where) {
    auto& listener = listeners_.emplace_back(
        io_,
        [this](Socket socket) {
            counters_.accepted++;
            asio::co_spawn(io_, serve(std::move(socket)), asio::detached);
        },
        [this](const boost::system::error_code& failed) {
            counters_.accept_errors++;
            log_->warn("event=accept-failed error=\"{}\"", failed.message());
        });
    auto there = listener.listen(where);
    if (there) {
        log_->info("event=listening address={} port={}", there->address().to_string(),
                   there->port());
    }
    return there;
}

asio::awaitable<void> Service::serve(Socket socket) {
    boost::system::error_code failed;
    const auto there = socket.remote_endpoint(failed);
    const auto network = network_of(there.address());
    const auto crowd = crowds_.find(network);
    if (failed || (crowd != crowds_.end() && crowd->second >= limits_.strangers_per_address)) {
        counters_.crowded++;
        co_return;
    }
    prepare(socket);
    SessionPtr session;
    {
        Introduction introduction(*this, network);
        auto made = co_await within(introduction.timer, introduce(std::move(socket)));
        if (!made) {
            counters_.introduction_failed++;
            log_->debug("event=not-joined from={} why=\"{}\"", there.address().to_string(),
                        made.error().message);
            co_return;
        }
        session = std::move(*made);
    }
    if (session && !stopping_) {
        join(session);
        const auto ended = co_await listen_to(session);
        log_->debug("event=left host={} channel={} why=\"{}\"",
                    session->channel->peer().to_string(), session->id, ended.error().message);
        leave(*session);
    }
}

// ---- Admitting ----

Awaitable<Service::SessionPtr> Service::introduce(Socket socket) {
    auto channel = co_await Channel::accept(std::move(socket), tls_);
    if (!channel) {
        co_return channel.error();
    }
    auto& ch = **channel;
    ch.limit(kMaxHello);
    const auto bytes = co_await ch.read();
    if (!bytes) {
        co_return bytes.error();
    }
    const auto message = decode_to_server(*bytes);
    const auto* hello = message ? std::get_if<Hello>(&*message) : nullptr;
    if (hello == nullptr) {
        co_return co_await refuse(ch, Refused::Why::Malformed, "the first message is no Hello");
    }
    if (hello->version != kVersion) {
        co_return co_await refuse(ch, Refused::Why::Version,
                                  "this server speaks version " + std::to_string(kVersion));
    }
    auto admitted = admission_.admit(ch.peer(), *hello, std::chrono::system_clock::now());
    if (!admitted) {
        log_->error("event=enrolment-failed host={} error=\"{}\"", ch.peer().to_string(),
                    admitted.error().message);
        co_return co_await refuse(ch, Refused::Why::Busy, "the server cannot enrol hosts now");
    }
    if (!*admitted) {
        co_return co_await refuse(ch, Refused::Why::NotAdmitted, admitted->why_not);
    }
    if (hello->voucher) {
        co_return co_await give_voucher(ch, admitted->as);
    }
    auto session = std::make_shared<Session>();
    session->admitted = std::move(*admitted);
    session->channel = std::move(*channel);
    if (const auto why = no_room(*session)) {
        co_return co_await refuse(ch, *why, "no room for another channel");
    }
    co_return session;
}

std::optional<Refused::Why> Service::no_room(const Session& session) const {
    const bool known = hosts_.contains(session.channel->peer());
    if (!known && sessions_.size() >= limits_.channels) {
        return Refused::Why::Busy;
    }
    for (const auto& [pair, issuer] : session.admitted.pairs) {
        const auto guests = guests_.find(issuer);
        if (guests != guests_.end() && guests->second >= limits_.guests_per_host) {
            return Refused::Why::TooMuch;
        }
    }
    return {};
}

Awaitable<Service::SessionPtr> Service::refuse(Channel& channel, Refused::Why why,
                                               std::string text) {
    counters_.refused.at(static_cast<std::size_t>(why))++;
    text.resize(std::min(text.size(), kMaxText));
    const auto bytes = encode(ToHost(Refused{why, text, {}}));
    const auto said = co_await channel.write(bytes);
    if (said) {
        co_await channel.finish(kLastWord);
    }
    co_return make_error(EACCES, channel.peer().to_string() + ": " + text +
                                     (said ? "" : " (" + said.error().message + ")"));
}

Awaitable<Service::SessionPtr> Service::give_voucher(Channel& channel, Admitted::As as) {
    const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
    const auto voucher = vouching_.voucher(as, channel.peer(), now);
    if (!voucher) {
        log_->error("event=voucher-failed host={} error=\"{}\"", channel.peer().to_string(),
                    voucher.error().message);
        co_return co_await refuse(channel, Refused::Why::Busy, "the server cannot vouch now");
    }
    (*voucher ? counters_.vouched : counters_.not_vouched)++;
    auto last = welcome(channel);
    last.voucher = *voucher;
    const auto bytes = encode(ToHost(last));
    const auto said = co_await channel.write(bytes);
    if (said) {
        co_await channel.finish(kLastWord);
    }
    log_->debug("event=voucher host={} given={}", channel.peer().to_string(), voucher->has_value());
    co_return SessionPtr();
}

void Service::join(const SessionPtr& session) {
    auto& channel = *session->channel;
    session->id = ++last_;
    channel.limit(kMaxFrame);
    sessions_[session->id] = session;
    auto& host = hosts_.try_emplace(channel.peer(), Host{{}, Pace(pace_limit(limits_), now())})
                     .first->second;
    if (host.channels.size() >= limits_.channels_per_host) {
        counters_.replaced++;
        sessions_.at(host.channels.front())->channel->close();
        host.channels.erase(host.channels.begin());
    }
    host.channels.push_back(session->id);
    for (const auto& [pair, issuer] : session->admitted.pairs) {
        guests_[issuer]++;
    }
    exchange_.join(session->id, channel.peer());
    counters_.joined++;
    log_->debug("event=joined host={} channel={} from={}", channel.peer().to_string(), session->id,
                channel.where());
    send(session, welcome(channel));
}

Welcome Service::welcome(const Channel& channel) const {
    // If it has ended already, nobody hears what it says.
    const auto there = channel.remote();
    return {kVersion, there ? there->address() : asio::ip::address(),
            there ? there->port() : std::uint16_t{1},
            static_cast<std::uint32_t>(exchange_.limits().pairs_per_host)};
}

void Service::leave(Session& session) {
    const auto& name = session.channel->peer();
    exchange_.leave(session.id);
    for (const auto& [pair, issuer] : session.admitted.pairs) {
        if (--guests_[issuer] == 0) {
            guests_.erase(issuer);
        }
    }
    // One that was replaced may outlast its host's other channels.
    const auto host = hosts_.find(name);
    if (host != hosts_.end()) {
        std::erase(host->second.channels, session.id);
        if (host->second.channels.empty()) {
            hosts_.erase(host);
        }
    }
    session.channel->close();
    sessions_.erase(session.id);
}

// ---- Listening ----

Awaitable<void> Service::listen_to(const SessionPtr& session) {
    auto& channel = *session->channel;
    for (;;) {
        const auto bytes = co_await channel.read();
        if (!bytes) {
            co_return bytes.error();
        }
        counters_.received++;
        // What has been received already is read without a wait: others have their turn.
        co_await asio::post(io_, kNoThrow);
        co_await throttle(channel.peer());
        const auto message = decode_to_server(*bytes);
        if (!message || std::holds_alternative<Hello>(*message)) {
            // Named: GCC 12 destroys what is made conditionally, or in braces, within an
            // expression with co_await twice.
            const std::string what = message ? "a second Hello" : message.error().message;
            co_return co_await malformed(*session, what);
        }
        handle(session, *message);
    }
}

Awaitable<void> Service::malformed(Session& session, std::string what) {
    counters_.refused.at(static_cast<std::size_t>(Refused::Why::Malformed))++;
    if (!session.writing) {
        session.writing = true;  // nobody else says anything any more
        const auto last = encode(ToHost(Refused{Refused::Why::Malformed, what, {}}));
        const auto said = co_await within(kLastWord, session.channel->write(last));
        if (said) {
            co_await session.channel->finish(kLastWord);
        }
    }
    co_return make_error(EBADMSG, what);
}

asio::awaitable<void> Service::throttle(const Name& name) {
    const auto host = hosts_.find(name);
    if (host == hosts_.end()) {
        co_return;
    }
    const auto wait = host->second.pace.step(pace_limit(limits_), now());
    if (wait > Duration(0)) {
        counters_.throttled++;
        asio::steady_timer pause(io_, wait);
        co_await pause.async_wait(kNoThrow);
    }
}

void Service::handle(const SessionPtr& session, const ToServer& message) {
    if (const auto* report = std::get_if<Report>(&message)) {
        deliver(on_report(*session, *report));
    } else if (const auto* outcome = std::get_if<Outcome>(&message)) {
        deliver(exchange_.outcome(session->id, *outcome, now()));
    } else if (const auto* forget = std::get_if<Forget>(&message)) {
        deliver(exchange_.forget(session->id, *forget, now()));
    }
    arm();
}

Saying Service::on_report(Session& session, const Report& report) {
    const auto& pairs = session.admitted.pairs;
    if (session.admitted.as == Admitted::As::Guest) {
        const auto id = report.pair();
        const auto pair = pairs.find(id);
        if (pair == pairs.end() || pair->second != report.peer.host) {
            counters_.refused.at(static_cast<std::size_t>(Refused::Why::NotAdmitted))++;
            return {{session.id,
                     Refused{Refused::Why::NotAdmitted, "your tickets do not name this pair", id}}};
        }
    }
    const auto there = session.channel->remote();
    if (!there) {
        return {};
    }
    return exchange_.report(session.id, there->address(), session.channel->rtt(), report, now());
}

// ---- Sending ----

void Service::deliver(const Saying& saying) {
    for (const auto& said : saying) {
        const auto session = sessions_.find(said.channel);
        if (session != sessions_.end()) {
            send(session->second, said.message);
        }
    }
    for (const auto& wish : exchange_.take_wishes()) {
        if (order_) {
            order_(wish);
        } else {
            deliver(exchange_.no_proxy(wish.order.number));
        }
    }
}

void Service::reserved(const Reserved& reserved) {
    deliver(exchange_.reserved(reserved, now()));
    arm();
}

void Service::no_proxy(std::uint64_t order) {
    deliver(exchange_.no_proxy(order));
    arm();
}

void Service::met(const Met& met, const Ready& by) {
    exchange_.met(met, by, now());
    arm();
}

void Service::send(const SessionPtr& session, const ToHost& message) {
    auto bytes = encode(message);
    if (session->unsent + bytes.size() > limits_.unsent) {
        counters_.slow++;
        log_->info("event=slow host={} from={} unsent={}", session->channel->peer().to_string(),
                   session->channel->where(), session->unsent);
        session->channel->close();
        return;
    }
    session->unsent += bytes.size();
    session->out.push_back(std::move(bytes));
    if (!session->writing) {
        session->writing = true;
        asio::co_spawn(io_, write_all(session), asio::detached);
    }
}

asio::awaitable<void> Service::write_all(SessionPtr session) {
    while (!session->out.empty()) {
        auto bytes = std::move(session->out.front());
        session->out.pop_front();
        const auto size = bytes.size();
        const auto written = co_await session->channel->write(std::move(bytes));
        session->unsent -= size;
        if (!written) {
            session->out.clear();
            session->channel->close();
            co_return;
        }
        counters_.sent++;
    }
    // An empty deque keeps a block of 512 bytes: an idle host shall not cost them.
    std::deque<std::string>().swap(session->out);
    session->writing = false;
}

void Service::arm() {
    const auto next = exchange_.next();
    if (stopping_ || armed_ == next) {
        return;
    }
    armed_ = next;
    if (!next) {
        timer_.cancel();
        return;
    }
    timer_.expires_at(*next);
    timer_.async_wait([this](const boost::system::error_code& failed) {
        if (!failed) {
            armed_.reset();
            deliver(exchange_.expire(now()));
            arm();
        }
    });
}

// ---- From above ----

void Service::review(const ServiceLimits& limits, const Limits& exchange) {
    limits_ = limits;
    exchange_.set_limits(exchange);
    for (const auto& [id, session] : sessions_) {
        const auto& as = session->admitted;
        const bool good =
            as.as == Admitted::As::Guest
                ? std::ranges::all_of(as.pairs,
                                      [this](auto& pair) { return admission_.knows(pair.second); })
                : admission_.knows(session->channel->peer());
        if (!good) {
            log_->info("event=admitted-no-more host={}", session->channel->peer().to_string());
            session->channel->close();
        }
    }
}

void Service::stop() {
    stopping_ = true;
    for (auto& listener : listeners_) {
        listener.stop();
    }
    while (!strangers_.empty()) {
        strangers_.front()->end();
    }
    for (const auto& [id, session] : sessions_) {
        session->channel->close();
    }
    timer_.cancel();
}

}  // namespace mobility::server
