// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/servers.hpp"

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

#include "daemon/address.hpp"
#include "libmobility/pace.hpp"
#include "libmobility/settings.hpp"
#include "libmobility/within.hpp"

namespace mobility::client {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using tcpmigrate::make_error;

constexpr std::chrono::seconds kJoining(10);    ///< for connecting, TLS and Welcome
constexpr std::chrono::seconds kFirstPause(1);  ///< between attempts; doubles
constexpr std::chrono::seconds kLongestPause(60);
/// Messages of a server: an Ask and a Notice for each pair, of which many move at once.
constexpr Pace::Limit kPace{100, 2000};
constexpr std::size_t kMaxQueued = 4 << 20;  ///< bytes that a server has not taken

// What keeps the NAPT awake behind which this host may be: below the five minutes that
// the shortest-lived ones give.
constexpr int kKeepIdle = 120;     // s
constexpr int kKeepInterval = 20;  // s

Servers::Time now() {
    return std::chrono::steady_clock::now();
}

template <typename Value>
void set_option(tcp::socket& socket, int level, int option, Value value) {
    // Without these the channel works all the same.
    static_cast<void>(::setsockopt(socket.native_handle(), level, option, &value, sizeof(value)));
}

}  // namespace

struct Servers::Link {
    Link(asio::io_context& io, Key made_for, Wanted what)
        : key(std::move(made_for)), wanted(std::move(what)), pause(io) {}

    Key key;  ///< `from` follows the channel's moves
    Wanted wanted;
    State state = State::Connecting;
    asio::steady_timer pause;
    std::unique_ptr<Channel> channel;
    std::uint64_t cookie = 0;
    Address seen;
    std::deque<std::string> out;
    std::size_t unsent = 0;
    bool writing = false;
    bool dropped = false;
    std::uint32_t failures = 0;
    std::string why;

    [[nodiscard]] tcp::endpoint server() const {
        return key.from.is_v4() ? tcp::endpoint(*wanted.place.address, wanted.place.port)
                                : tcp::endpoint(*wanted.place.address6, wanted.place.port);
    }
};

Servers::Servers(asio::io_context& io, const Tls& tls, Table& table, Prover& prover, Log log)
    : io_(io), tls_(tls), table_(table), prover_(prover), log_(std::move(log)) {}

Servers::~Servers() = default;

void Servers::start(OnMessage on_message, OnJoined on_joined) {
    on_message_ = std::move(on_message);
    on_joined_ = std::move(on_joined);
}

void Servers::stop() {
    stopping_ = true;
    for (const auto& link : links_) {
        drop(link);
    }
    links_.clear();
}

void Servers::drop(const LinkPtr& link) {
    link->dropped = true;
    link->pause.cancel();
    if (link->channel) {
        link->channel->close();
    }
}

std::optional<Servers::Address> Servers::place_of(const Link& link) const {
    const auto* connection = table_.find(link.cookie);
    if (connection == nullptr) {
        return link.key.from;  // not migratable, or not connected yet: it stays
    }
    if (connection->state == tcpmigrate::State::MigWait) {
        return {};
    }
    return to_asio(table_.place_of(*connection));
}

void Servers::want(const std::map<Key, Wanted>& wanted) {
    if (stopping_) {
        return;
    }
    auto missing = wanted;
    std::erase_if(links_, [&](const LinkPtr& link) {
        const auto place = place_of(*link);
        link->key.from = place.value_or(link->key.from);
        const auto here = place ? missing.find(link->key) : missing.end();
        // With other tickets another Hello is needed.
        const bool good = here != missing.end() && here->second == link->wanted;
        if (good) {
            missing.erase(here);
        } else {
            drop(link);
        }
        return !good;
    });
    for (const auto& [key, what] : missing) {
        open(key, what);
    }
}

void Servers::open(const Key& key, const Wanted& wanted) {
    const bool possible =
        key.from.is_v4() ? wanted.place.address.has_value() : wanted.place.address6.has_value();
    if (possible) {
        links_.push_back(std::make_shared<Link>(io_, key, wanted));
        asio::co_spawn(io_, run(links_.back()), asio::detached);
    }
}

Servers::LinkPtr Servers::find(const Key& key) const {
    const auto found = std::ranges::find_if(links_, [&](const LinkPtr& link) {
        return link->key == key && link->state == State::Joined && !link->dropped;
    });
    return found == links_.end() ? nullptr : *found;
}

bool Servers::has(const Key& key) const {
    return std::ranges::any_of(links_, [&](const LinkPtr& link) { return link->key == key; });
}

std::chrono::microseconds Servers::rtt(const Key& key) {
    const auto link = find(key);
    return link ? link->channel->rtt() : std::chrono::microseconds(0);
}

bool Servers::say(const Key& key, const ToServer& message) {
    const auto link = find(key);
    if (!link) {
        return false;
    }
    auto bytes = encode(message);
    if (link->unsent + bytes.size() > kMaxQueued) {
        link->channel->close();
        return false;
    }
    link->unsent += bytes.size();
    link->out.push_back(std::move(bytes));
    if (!link->writing) {
        link->writing = true;
        asio::co_spawn(io_, write_all(link), asio::detached);
    }
    return true;
}

asio::awaitable<void> Servers::write_all(LinkPtr link) {
    // The channel may be another one when this goes on: it ends with its own.
    auto* const channel = link->channel.get();
    while (!link->out.empty() && link->channel.get() == channel) {
        auto bytes = std::move(link->out.front());
        link->out.pop_front();
        link->unsent -= bytes.size();
        const auto written = co_await channel->write(std::move(bytes));
        if (!written) {
            break;
        }
        counters_.sent++;
    }
    link->writing = false;
}

// ---- A channel's life ----

asio::awaitable<void> Servers::run(LinkPtr link) {
    while (!link->dropped) {
        link->pause.expires_after(kJoining);
        const auto joined = co_await within(link->pause, join(link));
        std::string why;
        if (joined) {
            link->failures = 0;
            const auto ended = co_await listen_to(link);
            counters_.ended++;
            why = ended.error().message;
        } else {
            counters_.failed++;
            why = joined.error().message;
        }
        // Who writes has to have ended before the channel goes.
        if (link->channel) {
            link->channel->close();
        }
        while (link->writing) {
            link->pause.expires_after(std::chrono::milliseconds(1));
            co_await link->pause.async_wait(kNoThrow);
        }
        forget_socket(*link);
        if (link->dropped) {
            break;
        }
        link->state = State::Waiting;
        link->why = why;
        log_->info("event=server-lost server={} from={} failures={} why=\"{}\"",
                   link->key.server.to_string(), link->key.from.to_string(), link->failures, why);
        const auto doubled = kFirstPause * (1U << std::min(link->failures++, 8U));
        link->pause.expires_after(std::min<std::chrono::seconds>(doubled, kLongestPause));
        co_await link->pause.async_wait(kNoThrow);
        link->state = State::Connecting;
    }
}

void Servers::forget_socket(Link& link) {
    prover_.forget(link.cookie);
    link.cookie = 0;
    link.channel.reset();
    link.out.clear();
    link.unsent = 0;
}

Awaitable<std::unique_ptr<Channel>> Servers::connect(LinkPtr link) {
    tcp::socket socket(io_);
    boost::system::error_code error;
    const auto server = link->server();
    socket.open(server.protocol(), error);
    if (!error) {
        link->cookie = cookie_of(socket.native_handle());
        prover_.leave_out(link->cookie);
        set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdle);
        set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, kKeepInterval);
        set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
        socket.bind(tcp::endpoint(link->key.from, 0), error);
    }
    if (error) {
        co_return make_error(error.value(), "cannot connect from " + link->key.from.to_string() +
                                                ": " + error.message());
    }
    const auto [refused] = co_await socket.async_connect(server, kNoThrow);
    if (refused) {
        co_return make_error(refused.value(), to_text(server) + ": " + refused.message());
    }
    counters_.opened++;
    co_return co_await Channel::connect(std::move(socket), tls_, link->key.server);
}

Awaitable<void> Servers::join(LinkPtr link) {
    auto channel = co_await connect(link);
    if (!channel) {
        co_return channel.error();
    }
    link->channel = std::move(*channel);
    Hello hello;
    hello.software = std::string("mobility-client ") + MOBILITY_VERSION;
    hello.enrolment = link->wanted.token;
    hello.tickets = link->wanted.tickets;
    const auto bytes = encode(ToServer(hello));
    const auto said = co_await link->channel->write(bytes);
    if (!said) {
        co_return said.error();
    }
    const auto heard = co_await link->channel->read();
    if (!heard) {
        co_return heard.error();
    }
    const auto message = decode_to_host(*heard);
    if (!message) {
        co_return message.error();
    }
    if (const auto* refused = std::get_if<Refused>(&*message)) {
        counters_.refused++;
        co_return make_error(EACCES, "the server refuses this host: " + refused->text);
    }
    const auto* welcome = std::get_if<Welcome>(&*message);
    if (welcome == nullptr) {
        co_return make_error(EPROTO, "the server's first word is no Welcome");
    }
    link->seen = welcome->seen;
    co_return Result<void>{};
}

Awaitable<void> Servers::listen_to(LinkPtr link) {
    link->state = State::Joined;
    link->why.clear();
    counters_.joined++;
    log_->info("event=server-joined server={} address={} from={} seen={}",
               link->key.server.to_string(), to_text(link->server()), link->key.from.to_string(),
               link->seen.to_string());
    if (on_joined_ && !link->dropped) {
        on_joined_(link->key);
    }
    Pace pace(kPace, now());
    for (;;) {
        const auto bytes = co_await link->channel->read();
        if (!bytes) {
            co_return bytes.error();
        }
        counters_.received++;
        // What has been received already is read without a wait: others have their turn.
        co_await asio::post(io_, kNoThrow);
        if (const auto wait = pace.step(kPace, now()); wait > Pace::Duration(0)) {
            counters_.throttled++;
            link->pause.expires_after(wait);
            co_await link->pause.async_wait(kNoThrow);
        }
        const auto message = decode_to_host(*bytes);
        if (!message) {
            co_return message.error();
        }
        if (const auto* refused = std::get_if<Refused>(&*message)) {
            counters_.refused++;
            log_->warn("event=server-refuses server={} why=\"{}\"", link->key.server.to_string(),
                       refused->text);
        }
        if (on_message_ && !link->dropped) {
            // Moves of the channel itself may not have been heard of.
            table_.take();
            link->key.from = place_of(*link).value_or(link->key.from);
            on_message_(link->key, *message);
        }
    }
}

std::vector<Servers::Seen> Servers::seen() const {
    std::vector<Seen> out;
    for (const auto& link : links_) {
        out.push_back({link->key, link->state, link->server().address(), link->seen,
                       table_.find(link->cookie) != nullptr, link->failures, link->why});
    }
    return out;
}

}  // namespace mobility::client
