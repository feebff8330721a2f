// SPDX-License-Identifier: GPL-2.0-or-later
// The migratable connections of this host, as the kernel tells of them: read once, then
// kept by its events; when events were lost everything is read anew.
//
// Single-threaded: everything runs on the io_context, which must outlive the Table and has
// to have run dry after stop() before it goes.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "libmobility/log.hpp"
#include "tcpmigrate/client.hpp"

namespace mobility::client {

using tcpmigrate::Connection;
using tcpmigrate::Result;

/// What has happened since the start.
struct TableCounters {
    std::uint64_t events = 0;
    std::uint64_t overruns = 0;  ///< events were lost
    std::uint64_t reread = 0;    ///< everything was read, the first time included
    std::uint64_t errors = 0;    ///< the kernel could not be read
};

class Table {
  public:
    /// A connection is as it says now; one that has ended is in State::None.
    using OnEvent = std::function<void(const Connection&)>;
    /// A batch of events has been handed out, or everything was read anew.
    using OnBatch = std::function<void(bool reread)>;

    /// Opens the sockets and reads everything. EOPNOTSUPP: a kernel without the extension.
    static Result<std::unique_ptr<Table>> open(boost::asio::io_context& io, Log log);
    /// The same over other sockets.
    static Result<std::unique_ptr<Table>> over(boost::asio::io_context& io, Log log,
                                               std::unique_ptr<tcpmigrate::Transport> transport,
                                               std::unique_ptr<tcpmigrate::EventSource> events);
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;
    ~Table() = default;

    /// Follows the kernel from now on.
    void start(OnEvent on_event, OnBatch on_batch);
    void stop();
    /// Takes what the kernel has said already. Handlers run before it returns.
    void take();

    /// By cookie.
    [[nodiscard]] const std::map<std::uint64_t, Connection>& all() const { return all_; }
    [[nodiscard]] std::vector<Connection> list() const;
    [[nodiscard]] const Connection* find(std::uint64_t cookie) const;
    /// Cookies of those of the moves under way that are trials, which keep the old path until
    /// the new one has been proved: the kernel does not tell, so who begins them says so.
    [[nodiscard]] std::set<std::uint64_t>& trials() { return trials_; }
    [[nodiscard]] const std::set<std::uint64_t>& trials() const { return trials_; }
    /// The kernel has taken a migrate command for it. Where nothing goes there is no old path
    /// to be kept: a trial is a move like any other then.
    void has_begun(std::uint64_t cookie, bool trial);
    /// Where the trial under way goes to, if there is one and it is to another place.
    [[nodiscard]] std::optional<tcpmigrate::Address> target_of_trial(
        const Connection& connection) const;
    /// From where it speaks now, or will when its move is over.
    [[nodiscard]] tcpmigrate::Address place_of(const Connection& connection) const;
    /// Has been read from the kernel just now, so that its tokens are known: events have none.
    void learn(const Connection& read);
    [[nodiscard]] tcpmigrate::Client& kernel() { return kernel_; }
    [[nodiscard]] const TableCounters& counters() const { return counters_; }

  private:
    Table(boost::asio::io_context& io, Log log, std::unique_ptr<tcpmigrate::Transport> transport,
          std::unique_ptr<tcpmigrate::EventSource> events);

    boost::asio::awaitable<void> follow();
    Result<void> reread();
    void put(const Connection& event);
    void keep(Connection connection);

    Log log_;
    tcpmigrate::Client kernel_;
    std::unique_ptr<tcpmigrate::EventSource> events_;
    boost::asio::posix::stream_descriptor readable_;
    std::map<std::uint64_t, Connection> all_;
    std::set<std::uint64_t> trials_;
    OnEvent on_event_;
    OnBatch on_batch_;
    TableCounters counters_;
    bool stopped_ = false;
};

}  // namespace mobility::client
