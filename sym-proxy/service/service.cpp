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
#include <cerrno>
#include <utility>

#include "libmobility/within.hpp"

namespace mobility::proxy {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using tcpmigrate::make_error;

constexpr std::chrono::seconds kLastWord(2);  ///< for saying why a channel ends
constexpr int kUserTimeout = 30'000;          // ms
constexpr int kKeepIdle = 60;                 // s

void prepare(tcp::socket& socket) {
    const auto set = [&](int level, int option, int value) {
        // Without these the channel works all the same.
        static_cast<void>(
            ::setsockopt(socket.native_handle(), level, option, &value, sizeof(value)));
    };
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdle);
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeout);
    set(IPPROTO_TCP, TCP_NODELAY, 1);
}

std::string encode_declined(const Declined& no) {
    return encode(FromProxy(no));
}

Time now() {
    return std::chrono::steady_clock::now();
}

/// Of a first message that was accepted.
bool wants_met(const std::string& first) {
    const auto message = decode_to_proxy(first);
    const auto* greeting = message ? std::get_if<Greeting>(&*message) : nullptr;
    return greeting != nullptr && greeting->wants_met;
}

Pace::Limit pace_limit(const ServiceLimits& limits) {
    return {static_cast<double>(limits.orders_per_second), static_cast<double>(limits.burst)};
}

}  // namespace

Service::Service(asio::io_context& io, const Tls& tls, Relays& relays, const Relays::Ports& ports,
                 std::set<Name> servers, const ServiceLimits& limits, Log log)
    : io_(io),
      tls_(tls),
      relays_(relays),
      ports_(ports),
      servers_(std::move(servers)),
      limits_(limits),
      log_(std::move(log)),
      timer_(io),
      met_timer_(io) {
    arm();
}

Result<tcp::endpoint> Service::listen(const tcp::endpoint& where) {
    auto& listener = listeners_.emplace_back(
        io_,
        [this](Socket socket) {
            counters_.accepted++;
            if (strangers_.size() >= limits_.strangers) {
                counters_.crowded++;
                return;
            }
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
    prepare(socket);
    asio::steady_timer patience(io_, limits_.introduction);
    strangers_.insert(&patience);
    auto made = co_await within(patience, introduce(std::move(socket)));
    strangers_.erase(&patience);
    if (!made) {
        counters_.introduction_failed++;
        log_->info("event=not-joined why=\"{}\"", made.error().message);
        co_return;
    }
    const auto session = std::move(*made);
    if (stopping_) {
        co_return;
    }
    counters_.joined++;
    sessions_.insert(session);
    log_->info("event=joined server={} from={}", session->channel->peer().to_string(),
               session->channel->where());
    const auto first = ready();
    session->told = first.load;
    send(session, first);
    const auto ended = co_await listen_to(session);
    log_->info("event=left server={} why=\"{}\"", session->channel->peer().to_string(),
               ended.error().message);
    session->channel->close();
    sessions_.erase(session);
}

Ready Service::ready() const {
    return {kVersion, ports_.address, ports_.address6, relays_.load()};
}

/// Why it may not order, if so.
std::optional<Declined> Service::refusal(const Channel& channel, const std::string& first) {
    const auto message = decode_to_proxy(first);
    const auto* greeting = message ? std::get_if<Greeting>(&*message) : nullptr;
    if (greeting == nullptr) {
        return Declined{0, Declined::Why::Malformed, "the first message is no Greeting"};
    }
    if (greeting->version != kVersion) {
        return Declined{0, Declined::Why::Version,
                        "this proxy speaks version " + std::to_string(kVersion)};
    }
    if (!servers_.contains(channel.peer())) {
        counters_.not_admitted++;
        return Declined{0, Declined::Why::NotAdmitted,
                        "not a server of this proxy: its file `servers` lists them"};
    }
    if (sessions_.size() >= limits_.servers) {
        return Declined{0, Declined::Why::Full, "no room for another channel"};
    }
    return {};
}

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
    if (const auto no = refusal(ch, *bytes)) {
        const auto said = co_await ch.write(encode_declined(*no));
        if (said) {
            co_await ch.finish(kLastWord);
        }
        co_return make_error(EACCES, ch.peer().to_string() + " at " + ch.where() + ": " + no->text);
    }
    ch.limit(kMaxFrame);
    auto session = std::make_shared<Session>(Session{std::move(*channel),
                                                     Pace(pace_limit(limits_), now()),
                                                     {},
                                                     0,
                                                     false,
                                                     {},
                                                     ++last_,
                                                     wants_met(*bytes),
                                                     {}});
    co_return session;
}

Awaitable<void> Service::listen_to(const SessionPtr& session) {
    for (;;) {
        const auto bytes = co_await session->channel->read();
        if (!bytes) {
            co_return bytes.error();
        }
        // What has been received already is read without a wait: others have their turn.
        co_await asio::post(io_, kNoThrow);
        co_await throttle(*session);
        const auto message = decode_to_proxy(*bytes);
        if (!message || std::holds_alternative<Greeting>(*message)) {
            auto what = message ? "a second Greeting" : message.error().message;
            co_return co_await malformed(*session, std::move(what));
        }
        const auto channel = session->wants_met ? session->id : 0;
        send(session, relays_.order(std::get<Order>(*message), channel));
    }
}

Awaitable<void> Service::malformed(Session& session, std::string what) {
    counters_.malformed++;
    if (!session.writing) {
        session.writing = true;  // nobody else says anything any more
        const auto last = encode_declined({0, Declined::Why::Malformed, what});
        const auto said = co_await within(kLastWord, session.channel->write(last));
        if (said) {
            co_await session.channel->finish(kLastWord);
        }
    }
    co_return make_error(EBADMSG, what);
}

asio::awaitable<void> Service::throttle(Session& session) {
    const auto wait = session.pace.step(pace_limit(limits_), now());
    if (wait > Duration::zero()) {
        counters_.throttled++;
        asio::steady_timer pause(io_, wait);
        co_await pause.async_wait(kNoThrow);
    }
}

void Service::send(const SessionPtr& session, const FromProxy& message) {
    auto bytes = encode(message);
    if (session->unsent + bytes.size() > limits_.unsent) {
        counters_.slow++;
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
    }
    session->writing = false;
}

/// Servers choose by it.
void Service::tell_load() {
    const auto load = relays_.load();
    for (const auto& session : sessions_) {
        if (session->told != load) {
            session->told = load;
            send(session, load);
        }
    }
}

void Service::met(const Relays::Customer& customer, const RelayPair& pair) {
    const auto at = std::ranges::find_if(
        sessions_, [&](const SessionPtr& one) { return one->id == customer.channel; });
    if (at == sessions_.end() || stopping_) {
        return;
    }
    auto& waiting = (*at)->met[customer.number];
    std::erase_if(waiting, [&](const RelayPair& one) {
        return one.first.token == pair.first.token && one.second.token == pair.second.token;
    });
    waiting.push_back(pair);
    if (!std::exchange(met_armed_, true)) {
        met_timer_.expires_after(kTellMet);
        met_timer_.async_wait([this](const boost::system::error_code& failed) {
            met_armed_ = false;
            if (!failed && !stopping_) {
                tell_met();
            }
        });
    }
}

/// An order has no more connections than a Met may have.
void Service::tell_met() {
    for (const auto& session : sessions_) {
        for (auto& [number, pairs] : std::exchange(session->met, {})) {
            send(session, Met{number, std::move(pairs)});
        }
    }
}

void Service::arm() {
    timer_.expires_after(kTellLoad);
    timer_.async_wait([this](const boost::system::error_code& failed) {
        if (!failed && !stopping_) {
            tell_load();
            arm();
        }
    });
}

void Service::review(std::set<Name> servers, const ServiceLimits& limits) {
    servers_ = std::move(servers);
    limits_ = limits;
    for (const auto& session : sessions_) {
        if (!servers_.contains(session->channel->peer())) {
            log_->info("event=admitted-no-more server={}", session->channel->peer().to_string());
            session->channel->close();
        }
    }
}

void Service::stop() {
    stopping_ = true;
    for (auto& listener : listeners_) {
        listener.stop();
    }
    for (auto* patience : strangers_) {
        patience->expires_at(Time::min());
    }
    for (const auto& session : sessions_) {
        session->channel->close();
    }
    timer_.cancel();
    met_timer_.cancel();
}

}  // namespace mobility::proxy
