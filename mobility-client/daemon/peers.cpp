// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/peers.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <numeric>
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
using tcpmigrate::State;
using Time = std::chrono::steady_clock::time_point;

constexpr std::size_t kMaxUnsent = 1 << 20;  ///< bytes that a peer has not taken
constexpr Pace::Limit kPace{20, 100};        ///< messages of a peer; some belong to each batch
constexpr std::chrono::seconds kParting(5);  ///< for the last word to arrive

Time now() {
    return std::chrono::steady_clock::now();
}

}  // namespace

/// Of a channel on which nothing has been proved yet, among the others: they are few. Others
/// of this host wait for an attempt's place: arm() when it is free.
class Peers::Place {
  public:
    /// `by`: the stranger's address, or nothing for an attempt of this host.
    Place(Peers& peers, const std::optional<Address>& by) : peers_(peers) {
        if (by) {
            of_ = peers_.strangers_.try_emplace(*by, 0).first;
        }
        (of_ ? (*of_)->second : peers_.attempting_)++;
    }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() {
        if (!of_) {
            peers_.attempting_--;
        } else if (--(*of_)->second == 0) {
            peers_.strangers_.erase(*of_);
        }
    }

  private:
    Peers& peers_;
    std::optional<std::map<Address, std::size_t>::iterator> of_;
};

struct Peers::Link {
    Link(std::unique_ptr<Channel> made, PlacePtr until_open, const ChannelView& view, bool by_us,
         Peers& peers)
        : channel(std::move(made)),
          place(std::move(until_open)),
          there(view.there),
          opener(by_us),
          cookie(cookie_of(channel->socket().native_handle())),
          session(view, peers.settings_, peers.prover_, peers.book_) {}

    std::unique_ptr<Channel> channel;
    PlacePtr place;  ///< until it is open
    Address there;
    bool opener;
    std::uint64_t cookie;
    Session session;
    Pace pace{kPace, now()};  ///< of what the peer says
    std::deque<std::string> out;
    std::size_t unsent = 0;  ///< bytes in `out`
    bool writing = false;
    bool broken = false;                    ///< nothing can be written any more
    asio::steady_timer* written = nullptr;  ///< to be cancelled when all is written
    bool open = false;                      ///< the Session was, and has been told of
};

Peers::Peers(asio::io_context& io, const Tls& tls, const Name& self, Trust& trust,
             Settings& settings, Table& table, Prover& prover, Book& book, const PeerConfig& config,
             Log log)
    : io_(io),
      tls_(tls),
      self_(self),
      trust_(trust),
      settings_(settings),
      table_(table),
      prover_(prover),
      book_(book),
      config_(config),
      log_(std::move(log)),
      timer_(io) {
    settings_.exclusive = config.exclusive;
    settings_.believed = [this](const ChannelView& channel, const std::vector<Voucher>& shown) {
        return believe(channel, shown);
    };
}

Peers::~Peers() = default;

Result<void> Peers::listen() {
    for (const auto& where : config_.listen) {
        if (!config_.exchange) {
            break;
        }
        auto& listener = listeners_.emplace_back(
            io_,
            [this](Socket socket) {
                asio::co_spawn(io_, admit(std::move(socket)), asio::detached);
            },
            [this](const boost::system::error_code& error) {
                log_->warn("event=accept-failed error=\"{}\"", error.message());
            });
        const auto there = listener.listen(where);
        if (!there) {
            return there.error();
        }
    }
    return {};
}

void Peers::stop() {
    stopping_ = true;
    for (auto& listener : listeners_) {
        listener.stop();
    }
    for (const auto& [name, link] : links_) {
        link->channel->close();
    }
    for (const auto& link : parting_) {
        link->channel->close();
    }
    for (auto* timer : making_) {
        timer->cancel();
    }
    timer_.cancel();
}

void Peers::reconfigure(const PeerConfig& config) {
    config_ = config;
    settings_.exclusive = config.exclusive;
}

// ---- Whose daemon is wanted ----

void Peers::want(const Connection& connection) {
    forget(connection.cookie);
    const bool wanted = config_.exchange && (connection.opener || starting_) &&
                        !prover_.is_own(connection.cookie) && !book_.owner(connection.cookie);
    if (wanted) {
        const auto there = to_asio(connection.remote.address);
        wanted_[there].insert(connection.cookie);
        wanted_at_[connection.cookie] = there;
        touched_.insert(there);
    }
}

void Peers::forget(std::uint64_t cookie) {
    const auto at = wanted_at_.find(cookie);
    if (at == wanted_at_.end()) {
        return;
    }
    const auto wanted = wanted_.find(at->second);
    wanted->second.erase(cookie);
    if (wanted->second.empty()) {
        const auto attempt = attempts_.find(at->second);
        if (attempt != attempts_.end() && !attempt->second.busy) {
            attempts_.erase(attempt);
        }
        wanted_.erase(wanted);
    }
    wanted_at_.erase(at);
}

/// A channel is migratable itself: further connections are to or from where its peer is now.
void Peers::follow(const Connection& connection) {
    const auto there = to_asio(connection.remote.address);
    for (const auto& [name, link] : links_) {
        if (link->cookie == connection.cookie && link->there != there) {
            link->there = there;
            link->session.moved(there);
            touched_.insert(there);
        }
    }
}

void Peers::on_event(const Connection& connection) {
    if (connection.state == State::None) {
        forget(connection.cookie);
        book_.drop(connection.cookie);
        return;
    }
    if (prover_.is_own(connection.cookie)) {
        return follow(connection);
    }
    const auto known = wanted_at_.find(connection.cookie);
    const auto there = to_asio(connection.remote.address);
    if (known != wanted_at_.end() && known->second == there) {
        return;
    }
    if (const auto owner = book_.owner(connection.cookie)) {
        // A proxy is many hosts' place: a pin stays where its host was last.
        const bool arrived = connection.reason == tcpmigrate::Reason::Committed &&
                             !(relayed_ && relayed_(connection));
        const auto moved = arrived ? trust_.moved(*owner, there) : Result<void>();
        if (!moved) {
            log_->error("event=pins-unwritable error=\"{}\"", moved.error().message);
        }
        return;
    }
    want(connection);
}

void Peers::on_batch(bool reread) {
    if (reread) {
        std::vector<std::uint64_t> cookies;
        for (const auto& [cookie, connection] : table_.all()) {
            cookies.push_back(cookie);
        }
        book_.keep(cookies);
        wanted_.clear();
        wanted_at_.clear();
        for (const auto& [cookie, connection] : table_.all()) {
            follow(connection);
            want(connection);
        }
        starting_ = false;
        std::erase_if(attempts_, [this](const auto& entry) {
            return !entry.second.busy && !wanted_.contains(entry.first);
        });
    }
    for (const auto& there : std::exchange(touched_, {})) {
        consider(there);
    }
    arm();
}

std::size_t Peers::wanted(const Address& there) const {
    const auto found = wanted_.find(there);
    return found == wanted_.end() ? 0 : found->second.size();
}

std::size_t Peers::exchange() {
    std::vector<Address> chosen;
    for (const auto& [address, cookies] : wanted_) {
        chosen.push_back(address);
    }
    for (const auto& address : chosen) {
        const auto attempt = attempts_.find(address);
        if (attempt != attempts_.end()) {
            attempt->second.next = {};
        }
        consider(address);
    }
    return chosen.size();
}

void Peers::consider(const Address& there) {
    const auto wanted = wanted_.find(there);
    if (stopping_ || wanted == wanted_.end()) {
        return;
    }
    for (const auto& [name, link] : links_) {
        if (link->there == there) {
            // Not at once again: what the peer does not prove stays wanted.
            attempts_[there].next = now() + config_.retry;
            return send(link, link->session.refresh());  // if it is not open yet: later
        }
    }
    auto& attempt = attempts_[there];
    const auto* connection = table_.find(*wanted->second.begin());
    if (attempt.busy || now() < attempt.next || connection == nullptr ||
        attempting_ >= config_.attempts) {
        return;
    }
    attempt.busy = true;
    asio::co_spawn(io_,
                   reach(there, to_asio(connection->local.address),
                         std::make_unique<Place>(*this, std::nullopt)),
                   asio::detached);
}

void Peers::failed(const Address& there, const std::string& why) {
    auto& attempt = attempts_[there];
    counters_.failed++;
    const auto doubled = config_.retry * (1U << std::min(attempt.failures, 16U));
    attempt.next = now() + std::min<PeerConfig::Duration>(doubled, config_.retry_longest);
    attempt.failures++;
    attempt.why = why;
    log_->info("event=peer-not-reached address={} failures={} why=\"{}\"", there.to_string(),
               attempt.failures, why);
    arm();
}

/// Has the timer end when the next attempt is due.
void Peers::arm() {
    std::optional<Time> first;
    for (const auto& [there, attempt] : attempts_) {
        if (!attempt.busy && wanted_.contains(there) && (!first || attempt.next < *first)) {
            first = attempt.next;
        }
    }
    // With all places taken the next to become free arms it again.
    if (!first || stopping_ || attempting_ >= config_.attempts) {
        timer_.cancel();
        return;
    }
    timer_.expires_at(*first);
    timer_.async_wait([this](const boost::system::error_code& cancelled) {
        if (cancelled || stopping_) {
            return;
        }
        std::vector<Address> due;
        for (const auto& [there, attempt] : attempts_) {
            if (!attempt.busy && attempt.next <= now()) {
                due.push_back(there);
            }
        }
        for (const auto& there : due) {
            consider(there);
        }
        arm();
    });
}

// ---- Making channels ----

asio::awaitable<void> Peers::reach(Address there, Address here, PlacePtr place) {
    auto made = co_await in_time(open(there, here));
    std::string why;
    if (made) {
        const auto ended = co_await talk(std::move(*made), std::move(place), true);
        why = ended ? "connections that are not proved there" : ended.error().message;
    } else {
        why = made.error().message;
        place.reset();
    }
    const auto attempt = attempts_.find(there);
    if (attempt != attempts_.end()) {
        attempt->second.busy = false;
    }
    if (stopping_) {
        co_return;
    }
    if (wanted_.contains(there)) {
        failed(there, why);
    } else {
        attempts_.erase(there);
        arm();
    }
}

Awaitable<std::unique_ptr<Channel>> Peers::open(Address there, Address here) {
    Socket socket(io_);
    boost::system::error_code error;
    const tcp::endpoint peer(there, static_cast<std::uint16_t>(config_.port));
    socket.open(peer.protocol(), error);
    if (!error) {
        prover_.leave_out(cookie_of(socket.native_handle()));
        // From where the connections are: only so does the peer find them.
        socket.bind(tcp::endpoint(here, 0), error);
    }
    if (error) {
        co_return make_error(error.value(),
                             "cannot connect from " + here.to_string() + ": " + error.message());
    }
    const auto cookie = cookie_of(socket.native_handle());
    const auto [refused] = co_await socket.async_connect(peer, kNoThrow);
    if (refused) {
        prover_.forget(cookie);
        co_return make_error(refused.value(), to_text(peer) + ": " + refused.message());
    }
    counters_.opened++;
    auto channel = co_await Channel::connect(std::move(socket), tls_);
    if (!channel) {
        prover_.forget(cookie);
    }
    co_return channel;
}

Awaitable<std::unique_ptr<Channel>> Peers::in_time(Awaitable<std::unique_ptr<Channel>> making) {
    asio::steady_timer timer(io_, config_.introduction);
    making_.insert(&timer);
    auto made = co_await within(timer, std::move(making));
    making_.erase(&timer);
    co_return made;
}

std::size_t Peers::strangers() const {
    return std::accumulate(strangers_.begin(), strangers_.end(), std::size_t{0},
                           [](std::size_t sum, const auto& entry) { return sum + entry.second; });
}

bool Peers::has_room_for(const Address& there) {
    table_.take();
    if (!prover_.any(there)) {
        counters_.strangers++;
        return false;
    }
    const auto here = strangers_.find(there);
    if (strangers() >= config_.strangers || links_.size() >= config_.channels ||
        (here != strangers_.end() && here->second >= config_.strangers_per_address)) {
        counters_.crowded++;
        return false;
    }
    return true;
}

asio::awaitable<void> Peers::admit(Socket socket) {
    boost::system::error_code error;
    const auto remote = socket.remote_endpoint(error);
    const auto there = plain(remote.address());
    const auto cookie = cookie_of(socket.native_handle());
    prover_.leave_out(cookie);
    if (error || stopping_ || !has_room_for(there)) {
        prover_.forget(cookie);
        co_return;
    }
    auto place = std::make_unique<Place>(*this, there);
    auto made = co_await in_time(Channel::accept(std::move(socket), tls_));
    if (!made) {
        prover_.forget(cookie);
        counters_.failed++;
        log_->debug("event=peer-not-accepted address={} why=\"{}\"", there.to_string(),
                    made.error().message);
        co_return;
    }
    counters_.accepted++;
    const auto ended = co_await talk(std::move(*made), std::move(place), false);
    if (!ended) {
        log_->debug("event=peer-left address={} why=\"{}\"", there.to_string(),
                    ended.error().message);
    }
}

// ---- Talking ----

Result<Peers::LinkPtr> Peers::make_link(std::unique_ptr<Channel> channel, PlacePtr place,
                                        bool opener) {
    boost::system::error_code error;
    const auto here = channel->socket().local_endpoint(error);
    const auto there = channel->remote();
    const auto secret = channel->secret(kPairKeyLabel);
    if (error || !there || !secret) {
        return make_error(ENOTCONN, channel->where() + ": the channel has ended");
    }
    const ChannelView view{
        self_,  channel->peer(), plain(here.address()), there->address(), channel->exporter(),
        *secret};
    return std::make_shared<Link>(std::move(channel), std::move(place), view, opener, *this);
}

bool Peers::take_place(const LinkPtr& link) {
    const auto& peer = link->channel->peer();
    // Who opened it, is the same at both ends.
    const bool ours_leads = self_ < peer;
    const auto known = links_.find(peer);
    if (known != links_.end()) {
        const auto& old = known->second;
        if (!old->open && old->opener != link->opener && old->opener == ours_leads) {
            return false;
        }
        old->channel->close();
    }
    const auto attempt = attempts_.find(link->there);
    if (!link->opener && known == links_.end() && ours_leads && attempt != attempts_.end() &&
        attempt->second.busy) {
        return false;  // our own is on its way
    }
    links_[peer] = link;
    return true;
}

Awaitable<void> Peers::talk(std::unique_ptr<Channel> channel, PlacePtr place, bool opener) {
    const auto name = channel->peer();
    const auto cookie = cookie_of(channel->socket().native_handle());
    auto made = make_link(std::move(channel), std::move(place), opener);
    if (!made) {
        prover_.forget(cookie);
        co_return made.error();
    }
    const auto link = *made;
    Result<void> ended;
    const auto trusted = trust_.check(name, opener ? std::optional(link->there) : std::nullopt);
    if (!trusted) {
        refused(name, link->there, trusted.error().message);
        send(link, {PeerRefused{PeerRefused::Why::Policy, "not trusted"}});
        ended = trusted.error();
    } else if (!take_place(link)) {
        const std::string why = "another channel with this host is being made";
        send(link, {PeerRefused{PeerRefused::Why::NoReason, why}});
        ended = make_error(EALREADY, why);
    } else {
        ended = co_await converse(link);
        count(link->session);
    }
    if (const auto known = links_.find(name); known != links_.end() && known->second == link) {
        links_.erase(known);
    }
    asio::co_spawn(io_, part(link), asio::detached);
    co_return ended;
}

asio::awaitable<void> Peers::part(LinkPtr link) {
    if (!stopping_) {
        parting_.insert(link);
        asio::steady_timer pause(io_, kParting);
        link->written = &pause;
        if (link->writing) {
            co_await pause.async_wait(kNoThrow);
        }
        link->written = nullptr;
        if (!link->writing) {
            co_await link->channel->finish(kParting);
        }
        parting_.erase(link);
    }
    link->channel->close();
    prover_.forget(link->cookie);
    link->place.reset();
    arm();
}

Awaitable<void> Peers::converse(LinkPtr link) {
    auto& session = link->session;
    if (link->opener) {
        send(link, session.start());
    }
    const auto until = now() + config_.introduction;
    while (!session.ended()) {
        const auto bytes = co_await within(patience(*link, until), link->channel->read());
        const bool late =
            bytes ? patience(*link, until) <= PeerConfig::Duration(0) : bytes.error().is(ETIMEDOUT);
        if (link->open && late) {
            co_return Result<void>{};
        }
        if (!bytes) {
            co_return bytes.error();
        }
        // Each costs a look at all connections; what is more waits in the peer's socket, and
        // what has arrived already lets others have their turn.
        co_await asio::post(io_, kNoThrow);
        co_await wait_a_turn(link);
        table_.take();
        const auto message = decode_to_peer(*bytes);
        if (!message) {
            co_return message.error();
        }
        send(link, session.take(*message));
        if (session.state() == Session::State::Open) {
            opened(link);
        }
    }
    co_return make_error(
        ECONNABORTED, session.reason().empty() ? "the peer ended the exchange" : session.reason());
}

PeerConfig::Duration Peers::patience(const Link& link, Time until) const {
    if (!link.open) {
        return until - now();
    }
    const auto& vouched = link.session.vouched();
    return vouched ? std::min<PeerConfig::Duration>(
                         config_.linger,
                         vouched->expires + kClocks + std::chrono::seconds(1) - trust_.today())
                   : config_.linger;
}

void Peers::refused(const Name& peer, const Address& there, const std::string& why) {
    counters_.refused++;
    log_->warn("event=peer-refused host={} address={} why=\"{}\"", peer.to_string(),
               there.to_string(), why);
}

Result<std::optional<Vouched>> Peers::believe(const ChannelView& channel,
                                              const std::vector<Voucher>& shown) {
    const auto vouched = trust_.vouched(channel.peer, shown);
    counters_.vouchers_bad += !vouched && vouched.error().is(EACCES) ? 1 : 0;
    const auto trusted = trust_.admit(channel.peer, vouched);
    if (!trusted) {
        refused(channel.peer, channel.there, trusted.error().message);
        return trusted.error();
    }
    return vouched ? std::optional(*vouched) : std::nullopt;
}

asio::awaitable<void> Peers::wait_a_turn(LinkPtr link) {
    const auto wait = link->pace.step(kPace, now());
    if (wait > Pace::Duration(0)) {
        counters_.throttled++;
        asio::steady_timer pause(io_, wait);
        co_await pause.async_wait(kNoThrow);
    }
}

/// After every message, once the Session is open.
void Peers::opened(const LinkPtr& link) {
    const auto& peer = link->channel->peer();
    if (!link->open) {
        link->open = true;
        link->place.reset();
        arm();
        counters_.agreed++;
        if (const auto attempt = attempts_.find(link->there); attempt != attempts_.end()) {
            attempt->second.failures = 0;
        }
        pin(*link);
        const auto* pair = book_.find(peer);
        log_->info("event=agreed host={} address={} trust={} connections={} inside={} servers={}",
                   peer.to_string(), link->there.to_string(),
                   to_string(trust_.of(peer, pair->vouched.has_value())), pair->connections.size(),
                   pair->inside(), pair->servers.size());
    }
    if (const auto* pair = book_.find(peer)) {
        for (const auto& [cookie, guard] : pair->connections) {
            forget(cookie);
        }
    }
    if (wanted_.contains(link->there)) {
        send(link, link->session.refresh());
    }
    if (on_agreed_) {
        on_agreed_(peer);
    }
}

void Peers::pin(const Link& link) {
    const bool vouched = link.session.vouched().has_value();
    counters_.vouched += vouched ? 1 : 0;
    const auto there = link.opener ? std::optional(link.there) : std::nullopt;
    if (const auto pinned = trust_.pin(link.channel->peer(), there, vouched); !pinned) {
        log_->error("event=pins-unwritable error=\"{}\"", pinned.error().message);
    }
}

void Peers::send(const LinkPtr& link, const Session::Messages& messages) {
    if (link->broken) {
        return;
    }
    for (const auto& message : messages) {
        auto bytes = encode(message);
        link->unsent += bytes.size();
        link->out.push_back(std::move(bytes));
    }
    if (link->unsent > kMaxUnsent) {
        log_->warn("event=peer-slow host={}", link->channel->peer().to_string());
        return link->channel->close();
    }
    if (!link->writing && !link->out.empty()) {
        link->writing = true;
        asio::co_spawn(io_, write_all(link), asio::detached);
    }
}

asio::awaitable<void> Peers::write_all(LinkPtr link) {
    while (!link->out.empty()) {
        auto bytes = std::move(link->out.front());
        link->out.pop_front();
        const auto size = bytes.size();
        const auto written = co_await link->channel->write(std::move(bytes));
        link->unsent -= size;
        if (!written) {
            // The channel has ended, but for what the peer has said before: perhaps why.
            link->broken = true;
            link->out.clear();
        }
    }
    link->writing = false;
    if (link->written != nullptr) {
        link->written->cancel();
    }
}

void Peers::count(const Session& session) {
    const auto& counted = session.counters();
    counters_.proved += counted.proved;
    counters_.not_proved += counted.not_proved;
    counters_.other_identity += counted.other_identity;
    counters_.key_errors += counted.key_errors;
}

}  // namespace mobility::client
