// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/vouchers.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <utility>

#include "daemon/greet.hpp"
#include "libmobility/settings.hpp"
#include "libmobility/within.hpp"

namespace mobility::client {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::seconds;
using tcpmigrate::make_error;
using WallTime = std::chrono::system_clock::time_point;

constexpr seconds kAsking(10);     ///< for connecting, TLS and Welcome
constexpr seconds kFirstPause(1);  ///< after a failure; doubles
constexpr seconds kLongest(3600);  ///< between attempts, and until one that has none is asked
constexpr seconds kShortest(60);   ///< ... however short vouchers are
constexpr seconds kLook(300);      ///< at the clock, which goes on while the host sleeps

WallTime now() {
    return std::chrono::system_clock::now();
}

}  // namespace

struct Vouchers::Source {
    Source(asio::io_context& io, Wanted what) : wanted(std::move(what)), pause(io) {}

    /// By its addresses in turn, if it has two and the last attempt has failed.
    [[nodiscard]] tcp::endpoint where() const {
        const auto& [host, address, address6, port] = wanted.server;
        const bool second = failures % 2 == 1;
        return address && !(second && address6) ? tcp::endpoint(*address, port)
                                                : tcp::endpoint(*address6, port);
    }

    Wanted wanted;
    asio::steady_timer pause;
    WallTime due{};  ///< for the next attempt
    std::optional<Voucher> voucher;
    std::uint32_t failures = 0;
    std::string why = "not asked yet";
    std::unique_ptr<Channel> channel;  ///< while it is asked
    std::uint64_t cookie = 0;
    bool asking = false;
    bool dropped = false;
};

Vouchers::Vouchers(asio::io_context& io, const Tls& tls, const Name& self, Prover& prover, Log log)
    : io_(io), tls_(tls), self_(self), prover_(prover), log_(std::move(log)) {}

Vouchers::~Vouchers() = default;

void Vouchers::drop(const SourcePtr& source) {
    source->dropped = true;
    source->pause.cancel();
}

void Vouchers::stop() {
    want({});
}

void Vouchers::want(const std::vector<Wanted>& wanted) {
    auto before = std::exchange(sources_, {});
    for (const auto& one : wanted) {
        const auto known = std::ranges::find_if(
            before, [&](const SourcePtr& source) { return source->wanted == one; });
        if (known != before.end()) {
            sources_.push_back(*known);
            before.erase(known);
        } else {
            sources_.push_back(std::make_shared<Source>(io_, one));
            asio::co_spawn(io_, run(sources_.back()), asio::detached);
        }
    }
    for (const auto& source : before) {
        drop(source);
    }
}

void Vouchers::retry() {
    for (const auto& source : sources_) {
        if (!source->asking) {
            source->due = source->failures > 0 ? WallTime() : source->due;
            source->pause.cancel();
        }
    }
}

std::vector<Voucher> Vouchers::all() const {
    std::vector<Voucher> out;
    for (const auto& source : sources_) {
        if (source->voucher) {
            out.push_back(*source->voucher);
        }
    }
    return out;
}

std::vector<Vouchers::Seen> Vouchers::seen() const {
    std::vector<Seen> out;
    for (const auto& source : sources_) {
        out.push_back({source->wanted.server.host, source->voucher, source->failures, source->why});
    }
    return out;
}

// ---- Fetching ----

asio::awaitable<void> Vouchers::run(SourcePtr source) {
    while (!source->dropped) {
        source->asking = true;
        const auto heard = co_await fetch(source);
        source->asking = false;
        if (!source->dropped) {
            take(source, heard);
            co_await wait_until_due(source);
        }
    }
}

asio::awaitable<void> Vouchers::wait_until_due(SourcePtr source) {
    while (!source->dropped && now() < source->due) {
        source->pause.expires_after(
            std::min<std::chrono::steady_clock::duration>(source->due - now(), kLook));
        co_await source->pause.async_wait(kNoThrow);
    }
}

void Vouchers::take(const SourcePtr& source, const Result<std::optional<Voucher>>& heard) {
    const auto& name = source->wanted.server.host;
    if (!heard) {
        counters_.failed++;
        const auto doubled = kFirstPause * (1U << std::min(source->failures, 12U));
        source->failures++;
        source->due = now() + std::min<seconds>(doubled, kLongest);
        source->why = heard.error().message;
        log_->info("event=no-voucher server={} failures={} why=\"{}\"", name.to_string(),
                   source->failures, source->why);
        return;
    }
    const bool first = *heard && !source->voucher;
    source->voucher = *heard;
    source->failures = 0;
    if (!*heard) {
        counters_.none++;
        source->due = now() + kLongest;
        source->why = "the server does not vouch for this host";
        log_->info("event=no-voucher server={} why=\"{}\"", name.to_string(), source->why);
        return;
    }
    counters_.got++;
    source->why.clear();
    const auto good_for = (*heard)->expires - (*heard)->since;
    source->due = now() + std::max<seconds>(good_for / 2, kShortest);
    log_->info("event=voucher server={} seconds={}", name.to_string(), good_for.count());
    if (first && on_first_) {
        on_first_();
    }
}

/// Peers would take it for forged, and this host for somebody who forges.
bool Vouchers::is_good(const Voucher& voucher, const Name& server) const {
    const auto by = name_of(voucher.server);
    return by && *by == server && voucher.expires > voucher.since &&
           voucher.expires - voucher.since <= kLongestVoucher && is_signed_for(voucher, self_);
}

Awaitable<std::optional<Voucher>> Vouchers::fetch(SourcePtr source) {
    source->pause.expires_after(kAsking);
    auto heard = co_await within(source->pause, ask(source));
    if (source->channel) {
        source->channel->close();
        source->channel.reset();
    }
    prover_.forget(source->cookie);
    if (heard && *heard && !is_good(**heard, source->wanted.server.host)) {
        heard = make_error(EPROTO, "the server's voucher is none for this host");
    }
    co_return heard;
}

Awaitable<std::unique_ptr<Channel>> Vouchers::connect(SourcePtr source) {
    tcp::socket socket(io_);
    boost::system::error_code error;
    const auto server = source->where();
    socket.open(server.protocol(), error);
    if (error) {
        co_return make_error(error.value(), "cannot connect: " + error.message());
    }
    // It is the daemon's: no peer is sought for it.
    source->cookie = cookie_of(socket.native_handle());
    prover_.leave_out(source->cookie);
    const auto [refused] = co_await socket.async_connect(server, kNoThrow);
    if (refused) {
        co_return make_error(refused.value(), to_text(server) + ": " + refused.message());
    }
    co_return co_await Channel::connect(std::move(socket), tls_, source->wanted.server.host);
}

Awaitable<std::optional<Voucher>> Vouchers::ask(SourcePtr source) {
    auto channel = co_await connect(source);
    if (!channel) {
        co_return channel.error();
    }
    source->channel = std::move(*channel);
    Hello hello;
    hello.enrolment = source->wanted.token;
    hello.voucher = true;
    const auto welcome = co_await greet(*source->channel, hello);
    if (!welcome) {
        co_return welcome.error();
    }
    co_return welcome->voucher;
}

}  // namespace mobility::client
