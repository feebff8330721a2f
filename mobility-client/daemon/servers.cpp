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
#include <set>
#include <utility>

#include "daemon/address.hpp"
#include "daemon/greet.hpp"
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
constexpr std::chrono::seconds kGathering(2);  ///< before new tickets are shown
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
    std::set<PairId> needed;  ///< whose tickets are to be shown first
    std::set<PairId> shown;   ///< whose were
    std::size_t turn = 0;     ///< from where the others are shown
    State state = State::Connecting;
    asio::steady_timer pause;
    LinkPtr heir;  ///< that is to take its place
    std::unique_ptr<Channel> channel;
    std::uint64_t cookie = 0;
    Address seen;
    std::deque<std::string> out;
    std::size_t unsent = 0;
    bool writing = false;
    bool dropped = false;
    std::string why;

    [[nodiscard]] tcp::endpoint server() const {
        return key.from.is_v4() ? tcp::endpoint(*key.server.address, key.server.port)
                                : tcp::endpoint(*key.server.address6, key.server.port);
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
    if (link->heir) {
        drop(std::exchange(link->heir, nullptr));
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
    std::set<LinkPtr> kept;
    const auto keep = [&](const auto& find) {
        for (const auto& link : links_) {
            const auto here = kept.contains(link) ? missing.end() : find(*link, missing);
            if (here != missing.end() && here->second.token == link->wanted.token) {
                kept.insert(link);
                refresh(link, here->second);
                missing.erase(here);
            }
        }
    };
    keep([this](Link& link, auto& all) { return find_there(link, all); });
    keep([this](Link& link, auto& all) { return find_on_the_way(link, all); });
    std::erase_if(links_, [&](const LinkPtr& link) {
        if (!kept.contains(link)) {
            drop(link);
        }
        return !kept.contains(link);
    });
    std::erase_if(later_, [this](const auto& entry) {
        return entry.second.next + kLongestPause < now() && !has(entry.first);
    });
    for (const auto& [key, what] : missing) {
        open(key, what);
    }
}

Servers::Choice Servers::find_there(Link& link, std::map<Key, Wanted>& all) const {
    const auto place = place_of(link);
    link.key.from = place.value_or(link.key.from);
    return place ? all.find(link.key) : all.end();
}

/// In a trial a host's connections arrive one after the other: the channel is ahead of what
/// it is wanted for, or behind.
Servers::Choice Servers::find_on_the_way(const Link& link, std::map<Key, Wanted>& all) const {
    if (!place_of(link)) {
        return all.end();
    }
    const auto* connection = table_.find(link.cookie);
    const auto target = connection != nullptr ? table_.target_of_trial(*connection) : std::nullopt;
    return std::ranges::find_if(all, [&](const auto& entry) {
        return entry.first.server == link.key.server &&
               (entry.second.soon.contains(link.key.from) ||
                (target && to_asio(*target) == entry.first.from));
    });
}

/// What it is wanted for may be more now.
void Servers::refresh(const LinkPtr& link, const Wanted& wanted) {
    std::set<PairId> known;
    for (const auto& ticket : link->wanted.tickets) {
        known.insert(ticket.pair);
    }
    std::set<PairId> fresh;
    for (const auto& ticket : wanted.tickets) {
        if (!known.contains(ticket.pair)) {
            fresh.insert(ticket.pair);
        }
    }
    link->wanted = wanted;
    if (link->heir) {
        link->heir->wanted = link->wanted;
    }
    if (!fresh.empty()) {
        renew(link, std::move(fresh));
    }
}

void Servers::open(const Key& key, const Wanted& wanted) {
    const bool possible =
        key.from.is_v4() ? key.server.address.has_value() : key.server.address6.has_value();
    if (possible) {
        links_.push_back(std::make_shared<Link>(io_, key, wanted));
        if (const auto later = later_.find(key);
            later != later_.end() && later->second.next > now()) {
            links_.back()->state = State::Waiting;
        }
        asio::co_spawn(io_, run(links_.back()), asio::detached);
    }
}

// ---- Tickets ----

std::vector<Ticket> Servers::in_turn(const std::vector<Ticket>& all, const std::set<PairId>& needed,
                                     std::size_t& turn, std::size_t most) {
    std::vector<Ticket> out;
    for (const auto& ticket : all) {
        if (out.size() < most && needed.contains(ticket.pair)) {
            out.push_back(ticket);
        }
    }
    std::size_t looked_at = 0;
    for (; looked_at < all.size() && out.size() < most; looked_at++) {
        const auto& ticket = all[(turn + looked_at) % all.size()];
        if (!needed.contains(ticket.pair)) {
            out.push_back(ticket);
        }
    }
    turn = all.empty() ? 0 : (turn + looked_at) % all.size();
    return out;
}

void Servers::renew(const LinkPtr& link, std::set<PairId> needed) {
    if (link->heir) {
        return link->heir->needed.merge(needed);
    }
    if (link->state != State::Joined) {
        return link->needed.merge(needed);  // it has a Hello to say yet
    }
    link->heir = std::make_shared<Link>(io_, link->key, link->wanted);
    link->heir->needed = std::move(needed);
    link->heir->turn = link->turn;
    asio::co_spawn(io_, inherit(link, link->heir), asio::detached);
}

asio::awaitable<void> Servers::inherit(LinkPtr old, LinkPtr heir) {
    if (!heir->dropped) {
        heir->pause.expires_after(kGathering);  // more may be new soon
        co_await heir->pause.async_wait(kNoThrow);
    }
    Result<void> joined = make_error(ECANCELED, "not wanted any more");
    if (!heir->dropped) {
        heir->key = old->key;
        heir->pause.expires_after(kJoining);
        joined = co_await within(heir->pause, join(heir));
    }
    const auto place = std::ranges::find(links_, old);
    const bool good = joined && !heir->dropped && place != links_.end();
    if (old->heir == heir) {
        old->heir.reset();
    }
    if (good) {
        *place = heir;
        drop(old);
        co_return co_await run(heir);
    }
    counters_.failed += joined ? 0 : 1;
    log_->info("event=tickets-not-shown server={} why=\"{}\"", heir->key.server.host.to_string(),
               joined ? "" : joined.error().message);
    if (heir->channel) {
        heir->channel->close();
    }
    forget_socket(*heir);
}

/// One of the tickets that there was no room for is missed.
void Servers::on_refused(const LinkPtr& link, const Refused& refused) {
    counters_.refused++;
    log_->warn("event=server-refuses server={} why=\"{}\"", link->key.server.host.to_string(),
               refused.text);
    if (!link->dropped && refused.why == Refused::Why::NotAdmitted && refused.pair &&
        !link->shown.contains(*refused.pair) &&
        std::ranges::any_of(link->wanted.tickets,
                            [&](const Ticket& one) { return one.pair == *refused.pair; })) {
        renew(link, {*refused.pair});
    }
}

// ---- Saying ----

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
        Result<void> ended;
        if (!link->channel) {
            ended = co_await attempt(link);
        }
        const auto since = now();
        if (ended) {
            ended = co_await listen_to(link);
            counters_.ended++;
        } else {
            counters_.failed++;
        }
        link->why = ended.error().message;
        co_await close(link);
        if (!link->dropped) {
            put_off(*link, since);
        }
    }
}

Awaitable<void> Servers::attempt(LinkPtr link) {
    co_await wait_until_due(link);
    if (link->dropped) {
        co_return make_error(ECANCELED, "not wanted any more");
    }
    link->pause.expires_after(kJoining);
    co_return co_await within(link->pause, join(link));
}

asio::awaitable<void> Servers::wait_until_due(LinkPtr link) {
    if (const auto later = later_.find(link->key); later != later_.end()) {
        link->state = State::Waiting;
        link->pause.expires_at(later->second.next);
        co_await link->pause.async_wait(kNoThrow);
    }
    link->state = State::Connecting;
}

asio::awaitable<void> Servers::close(LinkPtr link) {
    if (link->channel) {
        link->channel->close();
    }
    // Who writes has to have ended before the channel goes.
    while (link->writing) {
        link->pause.expires_after(std::chrono::milliseconds(1));
        co_await link->pause.async_wait(kNoThrow);
    }
    forget_socket(*link);
}

/// Ever later, but for a channel that has lasted.
void Servers::put_off(const Link& link, Time since) {
    auto& later = later_[link.key];
    if (now() - since >= kLongestPause) {
        later.failures = 0;
    }
    const auto doubled = kFirstPause * (1U << std::min(later.failures, 8U));
    later.failures++;
    later.next = now() + std::min<std::chrono::seconds>(doubled, kLongestPause);
    log_->info("event=server-lost server={} from={} failures={} why=\"{}\"",
               link.key.server.host.to_string(), link.key.from.to_string(), later.failures,
               link.why);
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
    co_return co_await Channel::connect(std::move(socket), tls_, link->key.server.host);
}

Awaitable<void> Servers::join(LinkPtr link) {
    auto channel = co_await connect(link);
    if (!channel) {
        co_return channel.error();
    }
    link->channel = std::move(*channel);
    Hello hello;
    hello.enrolment = link->wanted.token;
    hello.tickets = in_turn(link->wanted.tickets, link->needed, link->turn, kMaxTickets);
    const auto welcome = co_await greet(*link->channel, hello);
    if (!welcome) {
        counters_.refused += welcome.error().is(EACCES) ? 1 : 0;
        co_return welcome.error();
    }
    link->seen = welcome->seen;
    link->needed.clear();
    link->shown.clear();
    for (const auto& ticket : hello.tickets) {
        link->shown.insert(ticket.pair);
    }
    co_return Result<void>{};
}

Awaitable<void> Servers::listen_to(LinkPtr link) {
    link->state = State::Joined;
    link->why.clear();
    counters_.joined++;
    log_->info("event=server-joined server={} address={} from={} seen={}",
               link->key.server.host.to_string(), to_text(link->server()),
               link->key.from.to_string(), link->seen.to_string());
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
            on_refused(link, *refused);
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
        const auto later = later_.find(link->key);
        const bool failing = link->state != State::Joined && later != later_.end();
        out.push_back({link->key, link->state, link->server().address(), link->seen,
                       table_.find(link->cookie) != nullptr, failing ? later->second.failures : 0,
                       link->why});
    }
    return out;
}

}  // namespace mobility::client
