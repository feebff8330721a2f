// SPDX-License-Identifier: GPL-2.0-or-later
// What every daemon's main program does: its command line, its log, its signals, and what
// systemd wants to be told.
#pragma once

#include <spdlog/sinks/sink.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <functional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "libmobility/log.hpp"
#include "tcpmigrate/result.hpp"

namespace mobility {

/// What the command line says.
struct ProgramOptions {
    std::string file;             ///< configuration
    bool file_given = false;      ///< or the default
    bool check = false;           ///< read the configuration, and end
    bool identity = false;        ///< print the name, and end
    std::set<std::string> flags;  ///< of ProgramText::flags, those that are given
};

/// How a program speaks of itself.
struct ProgramText {
    const char* name;
    const char* what;    ///< what it does
    const char* self;    ///< "the server"
    const char* file;    ///< the default configuration
    const char* footer;  ///< the rest of --help
    /// Further flags, "--name", and what they do.
    std::vector<std::pair<const char*, const char*>> flags{};
};

/// main() of a daemon: reads the command line and starts; errors go to standard error.
/// Nothing is thrown. The exit status: 1 if it cannot start, 3 if it never can on this kernel
/// (EOPNOTSUPP).
int run_program(int argc, char** argv, const ProgramText& text,
                const std::function<tcpmigrate::Result<void>(const ProgramOptions&)>& start);

/// The configuration by load(file). Without a file all is as it is by default; one that was
/// named has to be there.
template <typename Load>
auto read_config(const ProgramOptions& options, Load load) -> decltype(load(options.file)) {
    auto config = load(options.file);
    if (!config && config.error().is(ENOENT) && !options.file_given) {
        return typename std::decay_t<decltype(*config)>();
    }
    return config;
}

/// How a line of a log looks, where nobody else gives it a time.
constexpr const char* kLogPattern = "time=%Y-%m-%dT%H:%M:%S.%e%z level=%l %v";

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
