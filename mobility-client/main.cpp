// SPDX-License-Identifier: GPL-2.0-or-later
// mobility-client: command line, signals, systemd. SIGHUP reloads, SIGTERM and SIGINT
// end it; connections go on without it.
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>

#include "daemon/daemon.hpp"
#include "libmobility/program.hpp"

namespace {

using namespace mobility;          // NOLINT(google-build-using-namespace)
using namespace mobility::client;  // NOLINT(google-build-using-namespace)

constexpr const char* kDefaultFile = "/etc/mobility-client/mobility-client.toml";
constexpr const char* kFooter = R"(
Files:
  /etc/mobility-client/mobility-client.toml   every setting, with its default
  /etc/mobility-client/hosts                  names of peers that are known by other means

Start:
  migrate-ctl enable                          makes new connections migratable
  systemctl start mobility-client
  mobility-client --identity                  prints the name that servers and peers need
  migrate-ctl status                          what the daemon does)";

struct Options {
    std::string file = kDefaultFile;
    bool file_given = false;
    bool check = false;
    bool identity = false;
};

Result<Config> read_config(const Options& options) {
    auto config = load_config(options.file);
    // Without a file all is as it is by default; one that was named has to be there.
    if (!config && config.error().is(ENOENT) && !options.file_given) {
        return Config();
    }
    return config;
}

Result<void> start(const Options& options) {
    auto config = read_config(options);
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
    recent->set_pattern("time=%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
    auto log = make_log("mobility-client", config->log_level, {recent});
    boost::asio::io_context io{1};
    auto daemon = Daemon::open(io, *identity, *config, log, recent);
    if (!daemon) {
        return daemon.error();
    }
    log->info("event=started name={} version={}", identity->name().to_string(), MOBILITY_VERSION);
    (*daemon)->start();
    const auto reload = [&]() -> Result<void> {
        const auto fresh = read_config(options);
        if (!fresh) {
            return fresh.error();
        }
        return (*daemon)->reconfigure(*fresh);
    };
    Supervisor(io, log, reload, [&] { (*daemon)->stop(); }).run();
    return {};
}

int run_program(int argc, char** argv) {
    Options options;
    CLI::App app("Moves this host's TCP connections along when the host moves.");
    app.footer(kFooter);
    app.set_version_flag("--version", MOBILITY_VERSION);
    auto* file =
        app.add_option("-c,--config", options.file, "configuration")->capture_default_str();
    app.add_flag("--check", options.check, "read the configuration, say what is wrong, and end");
    app.add_flag("--identity", options.identity,
                 "print the host's name, which it gives itself at its first start, and end");
    CLI11_PARSE(app, argc, argv);
    options.file_given = file->count() > 0;
    const auto done = start(options);
    if (!done) {
        std::cerr << "mobility-client: " << done.error().message << '\n';
        return 1;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run_program(argc, argv);
    } catch (const std::exception& e) {
        std::cerr << "mobility-client: " << e.what() << '\n';
        return 1;
    }
}
