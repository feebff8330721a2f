// SPDX-License-Identifier: GPL-2.0-or-later
// Keeps a HostState up to date by what the kernel tells, and hands out a View whenever it
// has changed.
//
//   readable:  take all that has come -> HostState -> View
//              something gained:         handed out at once
//              else, if it has changed:  when nothing has come for `quiet`, or it is `longest`
//   lost (ENOBUFS), or not followed:     read everything anew
//   a hold ends:                         the View is made anew
//
// Single-threaded: everything runs on the io_context, which must outlive the Watcher. The
// io_context has to have run dry after stop() before the Watcher goes.
#pragma once

#include <spdlog/logger.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "watch/config.hpp"
#include "watch/netlink.hpp"
#include "watch/view.hpp"

namespace mobility::watch {

using Log = std::shared_ptr<spdlog::logger>;

/// What has happened since the start.
struct WatchCounters {
    std::uint64_t datagrams = 0;
    std::uint64_t overruns = 0;  ///< datagrams were lost
    std::uint64_t reread = 0;    ///< everything was read, the first time included
    std::uint64_t views = 0;     ///< handed out
};

class Watcher {
  public:
    /// Is given the view before (an empty one, the first time) and the one of now.
    using OnView = std::function<void(const View& before, const View& after)>;

    /// Opens the sockets and reads everything; needs no privilege.
    static Result<std::unique_ptr<Watcher>> open(boost::asio::io_context& io, const Config& config,
                                                 Log log);
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;
    ~Watcher() = default;

    /// Hands out the first view at once, then whatever changes.
    void start(OnView on_view);
    /// Ends it; nothing is handed out any more.
    void stop();
    /// From now on by these settings (but for the receive buffer's).
    void reconfigure(const Config& config);

    /// The view that was handed out last.
    [[nodiscard]] const View& view() const { return given_; }
    [[nodiscard]] const HostState& state() const { return state_; }
    [[nodiscard]] const WatchCounters& counters() const { return counters_; }

  private:
    Watcher(boost::asio::io_context& io, const Config& config, Log log, RouteSocket events,
            RouteSocket requests);

    boost::asio::awaitable<void> follow();
    /// Takes what has come. False if the state is not sure any more.
    bool take();
    /// Reads everything anew, now or, if that fails, in a while.
    Result<void> reread();
    /// Makes the view anew and hands it out, or has the timer do so.
    void look();
    void hand_out();
    void arm(std::optional<Time> when);

    static Time now() { return std::chrono::steady_clock::now(); }

    Config config_;
    Log log_;
    OnView on_view_;
    RouteSocket events_;
    RouteSocket requests_;
    boost::asio::posix::stream_descriptor readable_;
    boost::asio::steady_timer timer_;
    std::optional<Time> armed_;
    std::optional<Time> burst_;   ///< since when something has changed that is not handed out
    std::optional<Time> reread_;  ///< when to read everything anew
    HostState state_;
    View latest_;  ///< of the state
    View given_;   ///< that was handed out last
    WatchCounters counters_;
    bool stopped_ = false;
};

}  // namespace mobility::watch
