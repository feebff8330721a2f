// SPDX-License-Identifier: GPL-2.0-or-later
// mobility-client: command line, signals, systemd. SIGHUP reloads, SIGTERM and SIGINT
// end it; connections go on without it.
#include <spdlog/spdlog.h>

#include <iostream>

#include "daemon/daemon.hpp"
#include "libmobility/program.hpp"

namespace {

using namespace mobility;          // NOLINT(google-build-using-namespace)
using namespace mobility::client;  // NOLINT(google-build-using-namespace)

constexpr const char* kFooter = R"(
Files:
  /etc/mobility-client/mobility-client.toml   every setting, with its default
  /etc/mobility-client/hosts                  names of peers that are known by other means

Start:
  migrate-ctl enable                          makes new connections migratable
  systemctl start mobility-client
  mobility-client --identity                  prints the name that servers and peers need
  migrate-ctl status                          what the daemon does)";
constexpr ProgramText kText{"mobility-client",
                            "Moves this host's TCP connections along when the host moves.",
                            "the host", "/etc/mobility-client/mobility-client.toml", kFooter};

Result<void> start(const ProgramOptions& options) {
    auto config = read_config(options, load_config);
    if (!config || options.check) {
        return config ? Result<void>() : config.error();
    }
    // Only the daemon itself makes one: it has to own the file.
    const auto identity = options.identity ? Identity::load(config->identity)
                                           : Identity::load_or_create(config->identity);
    if (!identity) {
        return identity.error();
    }
    if (options.identity) {
        std::cout << identity->name().to_string() << '\n';
        return {};
    }
    const auto recent = std::make_shared<spdlog::sinks::ringbuffer_sink_st>(config->log_lines);
    recent->set_pattern(kLogPattern);
    auto log = make_log("mobility-client", config->log_level, {recent});
    boost::asio::io_context io{1};
    auto daemon = Daemon::open(io, *identity, *config, log, recent);
    if (!daemon) {
        return daemon.error();
    }
    log->info("event=started name={} version={}", identity->name().to_string(), MOBILITY_VERSION);
    (*daemon)->start();
    const auto reload = [&]() -> Result<void> {
        const auto fresh = read_config(options, load_config);
        if (!fresh) {
            return fresh.error();
        }
        return (*daemon)->reconfigure(*fresh);
    };
    Supervisor(io, log, reload, [&] { (*daemon)->stop(); }).run();
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    return run_program(argc, argv, kText, start);
}
