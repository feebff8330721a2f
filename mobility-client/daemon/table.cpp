// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/table.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libmobility/within.hpp"

namespace mobility::client {

namespace {

namespace asio = boost::asio;
using tcpmigrate::State;

constexpr int kDatagrams = 20'000;  ///< taken at once, then others may run

/// A kernel without the extension is told from what is worth another attempt.
tcpmigrate::Error missing(const tcpmigrate::Error& error) {
    return error.is(ENOENT) ? tcpmigrate::make_error(EOPNOTSUPP, error.message) : error;
}

}  // namespace

Table::Table(asio::io_context& io, Log log, std::unique_ptr<tcpmigrate::Transport> transport,
             std::unique_ptr<tcpmigrate::EventSource> events)
    : log_(std::move(log)),
      kernel_(std::move(transport)),
      events_(std::move(events)),
      readable_(io) {}

Result<std::unique_ptr<Table>> Table::open(asio::io_context& io, Log log) {
    // Events first: what happens while the rest is read is told afterwards.
    auto events = tcpmigrate::open_netlink_events();
    if (!events) {
        return missing(events.error());
    }
    auto transport = tcpmigrate::open_netlink_transport();
    if (!transport) {
        return missing(transport.error());
    }
    return over(io, std::move(log), std::move(*transport), std::move(*events));
}

Result<std::unique_ptr<Table>> Table::over(asio::io_context& io, Log log,
                                           std::unique_ptr<tcpmigrate::Transport> transport,
                                           std::unique_ptr<tcpmigrate::EventSource> events) {
    // The constructor is private: std::make_unique cannot use it.
    std::unique_ptr<Table> table(
        new Table(io, std::move(log), std::move(transport), std::move(events)));
    if (table->events_->fd() >= 0) {
        // A descriptor of its own: both libnl and Asio close theirs.
        const int fd = ::fcntl(table->events_->fd(), F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            return tcpmigrate::make_error(
                errno, std::string("tcp_migrate events: no descriptor: ") + std::strerror(errno));
        }
        table->readable_.assign(fd);
    }
    if (const auto read = table->reread(); !read) {
        return read.error();
    }
    return table;
}

void Table::start(OnEvent on_event, OnBatch on_batch) {
    on_event_ = std::move(on_event);
    on_batch_ = std::move(on_batch);
    if (readable_.is_open()) {
        asio::co_spawn(readable_.get_executor(), follow(), asio::detached);
    }
}

void Table::stop() {
    stopped_ = true;
    boost::system::error_code ignored;
    readable_.close(ignored);
}

asio::awaitable<void> Table::follow() {
    while (!stopped_) {
        const auto [failed] =
            co_await readable_.async_wait(asio::posix::stream_descriptor::wait_read, kNoThrow);
        if (failed || stopped_) {
            co_return;
        }
        take();
    }
}

void Table::take() {
    bool some = false;
    bool lost = false;
    for (int i = 0; i < kDatagrams && !stopped_; i++) {
        const auto events = events_->receive(std::chrono::milliseconds(0));
        if (!events) {
            counters_.overruns++;
            lost = true;
            log_->warn("event=connection-events-lost error=\"{}\"", events.error().message);
            continue;
        }
        if (events->empty()) {
            break;
        }
        some = true;
        for (const auto& event : *events) {
            put(event);
        }
    }
    if (lost) {
        if (const auto read = reread(); !read) {
            log_->error("event=connections-unreadable error=\"{}\"", read.error().message);
            lost = false;
        }
    }
    if ((some || lost) && on_batch_) {
        on_batch_(lost);
    }
}

void Table::put(const Connection& event) {
    counters_.events++;
    if (event.state != State::MigSent && event.state != State::MigConfirm) {
        trials_.erase(event.cookie);
    }
    if (event.state == State::None) {
        all_.erase(event.cookie);
    } else {
        keep(event);
    }
    if (on_event_) {
        on_event_(event);
    }
}

/// Events are for everybody, and so have no tokens; these never change.
void Table::keep(Connection connection) {
    if (const auto known = all_.find(connection.cookie); known != all_.end()) {
        connection.token_local = known->second.token_local;
        connection.token_remote = known->second.token_remote;
    }
    all_.insert_or_assign(connection.cookie, connection);
}

void Table::learn(const Connection& read) {
    const auto known = all_.emplace(read.cookie, read).first;
    known->second.token_local = read.token_local;
    known->second.token_remote = read.token_remote;
}

Result<void> Table::reread() {
    auto list = kernel_.list();
    if (!list) {
        counters_.errors++;
        return list.error();
    }
    counters_.reread++;
    all_.clear();
    trials_.clear();
    for (const auto& connection : *list) {
        if (connection.state != State::None) {
            all_.emplace(connection.cookie, connection);
        }
    }
    return {};
}

std::vector<Connection> Table::list() const {
    std::vector<Connection> out;
    out.reserve(all_.size());
    for (const auto& [cookie, connection] : all_) {
        out.push_back(connection);
    }
    return out;
}

void Table::has_begun(std::uint64_t cookie, bool trial) {
    const auto* connection = find(cookie);
    const bool goes =
        connection != nullptr && (connection->state == State::Idle || trials_.contains(cookie));
    if (trial && goes) {
        trials_.insert(cookie);
    } else {
        trials_.erase(cookie);
    }
}

std::optional<tcpmigrate::Address> Table::target_of_trial(const Connection& connection) const {
    return trials_.contains(connection.cookie) ? connection.new_local.address : std::nullopt;
}

tcpmigrate::Address Table::place_of(const Connection& connection) const {
    return trials_.contains(connection.cookie)
               ? connection.local.address
               : connection.new_local.address.value_or(connection.local.address);
}

const Connection* Table::find(std::uint64_t cookie) const {
    const auto found = all_.find(cookie);
    return found == all_.end() ? nullptr : &found->second;
}

}  // namespace mobility::client
