// SPDX-License-Identifier: GPL-2.0-or-later
#include "proxies/proxies.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <deque>
#include <utility>

#include "libmobility/settings.hpp"
#include "libmobility/within.hpp"

namespace mobility::server {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using tcpmigrate::make_error;

constexpr std::size_t kMaxUnsent = 4 << 20;  ///< bytes that a proxy has not taken

// A proxy that is gone is noticed by these; orders do not wait for it.
constexpr int kKeepIdle = 10;     // s
constexpr int kKeepInterval = 5;  // s
constexpr int kKeepCount = 3;
constexpr unsigned kUserTimeout = 20'000;  // ms

Time now() {
    return std::chrono::steady_clock::now();
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

}  // namespace

struct Proxies::Link {
    Link(asio::io_context& io, ProxyId number, ProxyPlace where)
        : id(number), place(std::move(where)), timer(io) {}

    ProxyId id;
    ProxyPlace place;
    asio::steady_timer timer;
    std::unique_ptr<Channel> channel;
    bool ready = false;
    std::deque<std::string> out;
    std::size_t unsent = 0;  ///< bytes in `out`
    bool writing = false;
    bool dropped = false;
    std::uint32_t failures = 0;
    std::string why;
};

Proxies::Proxies(asio::io_context& io, const Tls& tls, Customer customer, Log log)
    : io_(io),
      tls_(tls),
      customer_(std::move(customer)),
      log_(std::move(log)),
      orders_(config_.limits, customer_.wanted),
      timer_(io) {}

Proxies::~Proxies() = default;

// ---- From above ----

void Proxies::configure(const ProxyConfig& config) {
    config_ = config;
    orders_.set_limits(config.limits);
    std::erase_if(links_, [&](const LinkPtr& link) {
        const bool wanted = std::ranges::find(config.places, link->place) != config.places.end();
        if (!wanted) {
            drop(link);
        }
        return !wanted;
    });
    for (const auto& place : config.places) {
        if (std::ranges::none_of(links_, [&](auto& link) { return link->place == place; })) {
            links_.push_back(std::make_shared<Link>(io_, ++last_, place));
            asio::co_spawn(io_, run(links_.back()), asio::detached);
        }
    }
}

void Proxies::drop(const LinkPtr& link) {
    link->dropped = true;
    link->timer.cancel();
    if (link->channel) {
        link->channel->close();
    }
}

void Proxies::stop() {
    stopping_ = true;
    for (const auto& link : links_) {
        drop(link);
    }
    links_.clear();
    timer_.cancel();
}

void Proxies::order(const Wish& wish) {
    log_->debug("event=order number={} first={} second={} connections={}", wish.order.number,
                wish.order.first.to_string(), wish.order.second.to_string(),
                wish.order.connections.size());
    act(orders_.order(wish, now()));
}

std::vector<Proxies::Seen> Proxies::seen() const {
    std::vector<Seen> out;
    for (const auto& link : links_) {
        const auto* proxy = orders_.find(link->id);
        out.push_back({link->place, link->ready, proxy != nullptr ? proxy->ready.load : Load(),
                       link->failures, link->why});
    }
    return out;
}

Proxies::LinkPtr Proxies::find(ProxyId id) const {
    const auto at = std::ranges::find_if(links_, [id](auto& link) { return link->id == id; });
    return at == links_.end() ? nullptr : *at;
}

// ---- Orders ----

void Proxies::act(const Orders::Dealt& dealt) {
    for (const auto& [id, number] : dealt.unanswered) {
        const auto link = find(id);
        log_->warn("event=order-unanswered number={} proxy={}", number,
                   link ? to_text(link->place.address) : "");
    }
    for (const auto& [id, order] : dealt.send) {
        if (const auto link = find(id); link && link->ready) {
            send(link, order);
        }
    }
    for (const auto& reserved : dealt.reserved) {
        log_->debug("event=reserved number={} proxy={} ports={}", reserved.number,
                    reserved.address.to_string(), reserved.ports.size());
        customer_.reserved(reserved);
    }
    for (const auto number : dealt.failed) {
        log_->warn("event=no-relay number={} proxies={}", number, links_.size());
        customer_.failed(number);
    }
    arm();
}

void Proxies::send(const LinkPtr& link, const Order& order) {
    auto bytes = encode(ToProxy(order));
    if (link->unsent + bytes.size() > kMaxUnsent) {
        return link->channel->close();  // it takes nothing: its orders go to others
    }
    link->unsent += bytes.size();
    link->out.push_back(std::move(bytes));
    if (!link->writing) {
        link->writing = true;
        asio::co_spawn(io_, write_all(link), asio::detached);
    }
}

asio::awaitable<void> Proxies::write_all(LinkPtr link) {
    while (!link->out.empty()) {
        auto bytes = std::move(link->out.front());
        link->out.pop_front();
        link->unsent -= bytes.size();
        const auto written = co_await link->channel->write(std::move(bytes));
        if (!written) {
            link->out.clear();
            link->unsent = 0;
            link->channel->close();
        }
    }
    link->writing = false;
}

void Proxies::arm() {
    const auto next = orders_.next();
    if (!next || stopping_) {
        timer_.cancel();
        return;
    }
    timer_.expires_at(*next);
    timer_.async_wait([this](const boost::system::error_code& cancelled) {
        if (!cancelled && !stopping_) {
            act(orders_.expire(now()));
        }
    });
}

// ---- A channel's life ----

asio::awaitable<void> Proxies::run(LinkPtr link) {
    while (!link->dropped) {
        link->timer.expires_after(config_.introduction);
        const auto ready = co_await within(link->timer, join(link));
        const auto since = now();
        Result<void> ended = ready ? Result<void>() : Result<void>(ready.error());
        if (ready && !link->dropped) {
            counters_.ready++;
            link->ready = true;
            orders_.ready(link->id, *ready);
            log_->info("event=proxy-ready proxy={} name={} relays={} most={}",
                       to_text(link->place.address), link->place.name.to_string(),
                       ready->load.relays, ready->load.most);
            ended = co_await listen_to(link);
            counters_.ended++;
            link->ready = false;
        } else {
            counters_.failed++;
        }
        link->why = ended ? "" : ended.error().message;
        if (!stopping_) {
            act(orders_.gone(link->id, now()));
        }
        co_await close(link);
        if (!link->dropped) {
            co_await pause(link, since);
        }
    }
}

Awaitable<std::unique_ptr<Channel>> Proxies::connect(LinkPtr link) {
    tcp::socket socket(io_);
    const auto where = link->place.address;
    const auto [failed] = co_await socket.async_connect(where, kNoThrow);
    if (failed) {
        co_return make_error(failed.value(), to_text(where) + ": " + failed.message());
    }
    prepare(socket);
    co_return co_await Channel::connect(std::move(socket), tls_, link->place.name);
}

Awaitable<Ready> Proxies::join(LinkPtr link) {
    auto channel = co_await connect(link);
    if (!channel) {
        co_return channel.error();
    }
    link->channel = std::move(*channel);
    const auto greeting =
        encode(ToProxy(Greeting{kVersion, std::string("mobility-server ") + MOBILITY_VERSION,
                                static_cast<bool>(customer_.met)}));
    if (const auto said = co_await link->channel->write(greeting); !said) {
        co_return said.error();
    }
    const auto bytes = co_await link->channel->read();
    if (!bytes) {
        co_return bytes.error();
    }
    const auto message = decode_from_proxy(*bytes);
    if (!message) {
        co_return message.error();
    }
    if (const auto* declined = std::get_if<Declined>(&*message)) {
        co_return make_error(EACCES, link->channel->where() + ": " +
                                         std::string(to_string(declined->why)) + ": " +
                                         declined->text);
    }
    const auto* ready = std::get_if<Ready>(&*message);
    if (ready == nullptr || ready->version != kVersion) {
        co_return make_error(EPROTO, link->channel->where() + ": speaks another version");
    }
    co_return *ready;
}

Awaitable<void> Proxies::listen_to(const LinkPtr& link) {
    auto bytes = co_await link->channel->read();
    while (bytes) {
        // What has been received already is read without a wait: others have their turn.
        co_await asio::post(io_, kNoThrow);
        const auto message = decode_from_proxy(*bytes);
        if (!message) {
            co_return message.error();
        }
        const auto taken = link->dropped ? Result<void>() : take(link, *message);
        if (!taken) {
            co_return taken.error();
        }
        bytes = co_await link->channel->read();
    }
    co_return bytes.error();
}

Result<void> Proxies::take(const LinkPtr& link, const FromProxy& message) {
    if (const auto* reserved = std::get_if<Reserved>(&message)) {
        act(orders_.reserved(link->id, *reserved, now()));
    } else if (const auto* declined = std::get_if<Declined>(&message)) {
        log_->info("event=order-declined number={} proxy={} why={} text=\"{}\"", declined->number,
                   to_text(link->place.address), to_string(declined->why), declined->text);
        act(orders_.declined(link->id, *declined, now()));
        if (declined->number == 0) {
            return make_error(EACCES, link->channel->where() + ": " +
                                          std::string(to_string(declined->why)) + ": " +
                                          declined->text);
        }
    } else if (const auto* load = std::get_if<Load>(&message)) {
        orders_.load(link->id, *load);
    } else if (const auto* met = std::get_if<Met>(&message)) {
        if (const auto* proxy = orders_.find(link->id); proxy != nullptr && customer_.met) {
            customer_.met(*met, proxy->ready);
        }
    } else {
        return make_error(EPROTO, link->channel->where() + ": a second Ready");
    }
    return {};
}

asio::awaitable<void> Proxies::close(LinkPtr link) {
    if (link->channel) {
        link->channel->close();
    }
    // Who writes has to have ended before the channel goes.
    while (link->writing) {
        link->timer.expires_after(std::chrono::milliseconds(1));
        co_await link->timer.async_wait(kNoThrow);
    }
    link->channel.reset();
    link->out.clear();
    link->unsent = 0;
}

/// Ever longer, but after a channel that has lasted.
asio::awaitable<void> Proxies::pause(LinkPtr link, Time since) {
    if (now() - since >= config_.retry_longest) {
        link->failures = 0;
    }
    const auto doubled = config_.retry * (1U << std::min(link->failures, 16U));
    link->failures++;
    log_->info("event=proxy-lost proxy={} name={} failures={} why=\"{}\"",
               to_text(link->place.address), link->place.name.to_string(), link->failures,
               link->why);
    link->timer.expires_after(std::min<Duration>(doubled, config_.retry_longest));
    co_await link->timer.async_wait(kNoThrow);
}

}  // namespace mobility::server
