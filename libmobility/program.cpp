// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/program.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <utility>

namespace mobility {

namespace {

constexpr int kNotHere = 3;  ///< exit status: a unit does not try it again

/// As many descriptors as the administrator allows: what is usual is little for a server,
/// and for a host with many peers.
void take_descriptors() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
    }
}

}  // namespace

int run_program(int argc, char** argv, const ProgramText& text,
                const std::function<tcpmigrate::Result<void>(const ProgramOptions&)>& start) {
    const auto complain = [&](const std::string& what) {
        std::cerr << text.name << ": " << what << '\n';
        return 1;
    };
    try {
        ProgramOptions options;
        options.file = text.file;
        CLI::App app(text.what);
        app.footer(text.footer);
        app.set_version_flag("--version", MOBILITY_VERSION);
        auto* file =
            app.add_option("-c,--config", options.file, "configuration")->capture_default_str();
        app.add_flag("--check", options.check,
                     "read the configuration, say what is wrong, and end");
        app.add_flag("--identity", options.identity,
                     std::string("print ") + text.self +
                         "'s name, which it gives itself at its first start, and end");
        for (const auto& [flag, help] : text.flags) {
            app.add_flag_callback(
                flag, [&options, name = flag] { options.flags.insert(name); }, help);
        }
        CLI11_PARSE(app, argc, argv);
        options.file_given = file->count() > 0;
        take_descriptors();
        const auto done = start(options);
        if (!done) {
            const int status = complain(done.error().message);
            return done.error().is(EOPNOTSUPP) ? kNotHere : status;
        }
        return 0;
    } catch (const std::exception& e) {
        return complain(e.what());
    }
}

Log make_log(const std::string& name, const std::string& level,
             const std::vector<spdlog::sink_ptr>& others) {
    auto sinks = others;
    sinks.push_back(std::make_shared<spdlog::sinks::stderr_sink_st>());
    const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;  // NOLINT(concurrency-*)
    sinks.back()->set_pattern(journal ? "level=%l %v" : kLogPattern);
    auto log = std::make_shared<spdlog::logger>(name, sinks.begin(), sinks.end());
    log->set_level(spdlog::level::from_str(level));
    log->flush_on(spdlog::level::trace);
    return log;
}

Supervisor::Supervisor(boost::asio::io_context& io, Log log, Reload reload,
                       std::function<void()> stop)
    : io_(io),
      log_(std::move(log)),
      reload_(std::move(reload)),
      stop_(std::move(stop)),
      signals_(io, SIGINT, SIGTERM, SIGHUP),
      watchdog_(io) {}

void Supervisor::run() {
    wait_for_signal();
    feed_watchdog();
    sd_notify(0, "READY=1");
    io_.run();
    log_->info("event=stopped");
}

void Supervisor::wait_for_signal() {
    signals_.async_wait([this](const boost::system::error_code& failed, int signal) {
        if (failed) {
            return;
        }
        if (signal == SIGHUP) {
            on_hangup();
            return wait_for_signal();
        }
        log_->info("event=stopping signal={}", signal);
        sd_notify(0, "STOPPING=1");
        watchdog_.cancel();
        stop_();
    });
}

void Supervisor::on_hangup() {
    sd_notify(0, "RELOADING=1");
    if (const auto reloaded = reload_(); reloaded) {
        log_->info("event=reloaded");
    } else {
        log_->error("event=reload-failed error=\"{}\" hint=\"nothing has changed\"",
                    reloaded.error().message);
    }
    sd_notify(0, "READY=1");
}

void Supervisor::feed_watchdog() {
    std::uint64_t microseconds = 0;
    if (sd_watchdog_enabled(0, &microseconds) <= 0) {
        return;
    }
    sd_notify(0, "WATCHDOG=1");
    watchdog_.expires_after(std::chrono::microseconds(microseconds / 3));
    watchdog_.async_wait([this](const boost::system::error_code& failed) {
        if (!failed) {
            feed_watchdog();
        }
    });
}

}  // namespace mobility
