// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/watcher.hpp"

#include <fcntl.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libmobility/within.hpp"
#include "watch/decode.hpp"

namespace mobility::watch {

namespace {

namespace asio = boost::asio;
using tcpmigrate::make_error;

constexpr int kDatagrams = 256;                   ///< taken at once, then others may run
constexpr int kQueued = 1 << 16;                  ///< more datagrams than a socket holds
constexpr int kReadAttempts = 5;                  ///< while things go on changing
constexpr std::chrono::milliseconds kAgain(100);  ///< between readings that did not succeed

}  // namespace

Watcher::Watcher(asio::io_context& io, const Config& config, Log log, RouteSocket events,
                 RouteSocket requests)
    : config_(config),
      log_(std::move(log)),
      events_(std::move(events)),
      requests_(std::move(requests)),
      readable_(io),
      timer_(io) {}

Result<std::unique_ptr<Watcher>> Watcher::open(asio::io_context& io, const Config& config,
                                               Log log) {
    auto events = RouteSocket::events(config.receive_buffer);
    if (!events) {
        return events.error();
    }
    auto requests = RouteSocket::requests();
    if (!requests) {
        return requests.error();
    }
    // A descriptor of its own: both libnl and Asio close theirs.
    const int fd = ::fcntl(events->fd(), F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        return make_error(errno, std::string("rtnetlink: no descriptor: ") + std::strerror(errno));
    }
    // The constructor is private: std::make_unique cannot use it.
    std::unique_ptr<Watcher> watcher(
        new Watcher(io, config, std::move(log), std::move(*events), std::move(*requests)));
    watcher->readable_.assign(fd);
    if (const auto read = watcher->reread(); !read) {
        return read.error();
    }
    return watcher;
}

void Watcher::start(OnView on_view) {
    on_view_ = std::move(on_view);
    latest_ = make_view(state_, config_, latest_, now());
    hand_out();
    asio::co_spawn(timer_.get_executor(), follow(), asio::detached);
    look();
}

void Watcher::stop() {
    stopped_ = true;
    timer_.cancel();
    boost::system::error_code ignored;
    readable_.close(ignored);
}

void Watcher::reconfigure(const Config& config) {
    config_ = config;
    latest_ = make_view(state_, config_, latest_, now());
    hand_out();
    look();
}

// ---- What the kernel tells ----

asio::awaitable<void> Watcher::follow() {
    while (!stopped_) {
        const auto [failed] =
            co_await readable_.async_wait(asio::posix::stream_descriptor::wait_read, kNoThrow);
        if (failed && !stopped_) {
            log_->critical("event=netlink-ended error=\"{}\"", failed.message());
        }
        if (failed || stopped_) {
            co_return;
        }
        if (!take()) {
            static_cast<void>(reread());
        }
        look();
    }
}

bool Watcher::take() {
    bool sure = true;
    for (int i = 0; i < kDatagrams; i++) {
        const auto datagram = events_.receive();
        if (!datagram) {
            counters_.overruns++;
            log_->warn("event=netlink-lost error=\"{}\"", datagram.error().message);
            return false;
        }
        if (!*datagram) {
            break;
        }
        counters_.datagrams++;
        const auto decoded = decode(**datagram, 0);
        sure = sure && !decoded.unsure;
        for (const auto& change : decoded.changes) {
            sure = state_.apply(change) && sure;
        }
    }
    return sure;
}

Result<void> Watcher::reread() {
    // What has come until now is in what will be read; what comes while it is read is applied
    // to it afterwards.
    for (int i = 0; i < kQueued; i++) {
        const auto old = events_.receive();
        if (old ? !*old : !old.error().is(ENOBUFS) && !old.error().is(EMSGSIZE)) {
            break;
        }
    }
    counters_.reread++;
    reread_.reset();
    for (int i = 0; i < kReadAttempts; i++) {
        HostState fresh;
        const auto whole = read_all(requests_, fresh);
        if (!whole) {
            log_->error("event=netlink-unreadable error=\"{}\"", whole.error().message);
            reread_ = now() + kAgain;
            return whole.error();
        }
        state_ = std::move(fresh);
        if (*whole) {
            return {};
        }
    }
    log_->warn("event=netlink-restless attempts={}", kReadAttempts);
    reread_ = now() + kAgain;
    return {};
}

// ---- What is handed out ----

void Watcher::look() {
    if (stopped_) {
        return;
    }
    const auto time = now();
    latest_ = make_view(state_, config_, latest_, time);
    if (latest_ == given_) {
        burst_.reset();
    } else if (gained(given_, latest_)) {
        hand_out();
    } else if (!burst_) {
        burst_ = time;
    }
    if (stopped_) {
        return;
    }
    std::optional<Time> due = latest_.next();
    const auto also = [&due](Time when) { due = due ? std::min(*due, when) : when; };
    if (burst_) {
        also(std::min(*burst_ + config_.longest, time + config_.quiet));
    }
    if (reread_) {
        also(*reread_);
    }
    arm(due);
}

void Watcher::hand_out() {
    burst_.reset();
    if (latest_ == given_ || !on_view_) {
        return;
    }
    const View before = std::exchange(given_, latest_);
    counters_.views++;
    on_view_(before, given_);
}

void Watcher::arm(std::optional<Time> when) {
    if (armed_ == when) {
        return;
    }
    armed_ = when;
    if (!when) {
        timer_.cancel();
        return;
    }
    timer_.expires_at(*when);
    timer_.async_wait([this](const boost::system::error_code& failed) {
        if (failed || stopped_) {
            return;
        }
        armed_.reset();
        if (reread_ && *reread_ <= now()) {
            static_cast<void>(reread());
        }
        latest_ = make_view(state_, config_, latest_, now());
        hand_out();
        look();
    });
}

}  // namespace mobility::watch
