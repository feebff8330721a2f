// SPDX-License-Identifier: GPL-2.0-or-later
// What every daemon's main program does: its log, its signals, and what systemd wants
// to be told.
#pragma once

#include <spdlog/sinks/sink.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <string>
#include <vector>

#include "libmobility/log.hpp"
#include "tcpmigrate/result.hpp"

namespace mobility {

/// To standard error, from where systemd's journal takes it, and to other sinks. No time
/// in the journal: it has its own.
Log make_log(const std::string& name, const std::string& level,
             const std::vector<spdlog::sink_ptr>& others = {});

/// Signals and systemd, from run() on: SIGHUP reloads, SIGTERM and SIGINT stop; the
/// watchdog is fed as often as the unit asks for.
class Supervisor {
  public:
    /// Reloads, or says why nothing has changed.
    using Reload = std::function<tcpmigrate::Result<void>()>;

    Supervisor(boost::asio::io_context& io, Log log, Reload reload, std::function<void()> stop);

    /// Tells systemd that the daemon is ready, and runs the io_context dry.
    void run();

  private:
    void wait_for_signal();
    void on_hangup();
    void feed_watchdog();

    boost::asio::io_context& io_;
    Log log_;
    Reload reload_;
    std::function<void()> stop_;
    boost::asio::signal_set signals_;
    boost::asio::steady_timer watchdog_;
};

}  // namespace mobility
