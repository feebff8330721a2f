// SPDX-License-Identifier: GPL-2.0-or-later
// The command line: one function per sub-command declares its options; the
// callback only stores which command was chosen, so that nothing runs inside
// the parser.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <ostream>

#include "commands.hpp"

namespace ctl {

namespace {

using Action = std::function<int(const System&)>;

/// All options live as long as the parser.
struct Choices {
    ListOptions list;
    MigrateOptions migrate;
    std::vector<std::string> abort_name;
    std::vector<std::string> export_name;
    KeyOptions key;
    MonitorOptions monitor;
    bool stats_non_zero = false;
    SwitchOptions enable;
    SwitchOptions disable{false, false, {}};
    RunOptions run;
    LogOptions log;
    Action action;
};

constexpr const char* kNameHelp = "cookie, token:HEX, or LOCAL:PORT REMOTE:PORT";

CLI::Option* add_name(CLI::App& command, std::vector<std::string>& into) {
    return command.add_option("CONNECTION", into, kNameHelp)->expected(0, 2);
}

void declare_list(CLI::App& app, Choices& to) {
    auto* list = app.add_subcommand("list", "list migratable connections");
    auto* show = app.add_subcommand("show", "show one connection, or all, in full");
    for (auto* command : {list, show}) {
        command->add_option("--state", to.list.state, "only this sub-state");
        command->add_option("--local", to.list.local, "only this local address");
        command->add_option("--remote", to.list.remote, "only this remote address");
    }
    add_name(*show, to.list.name);
    list->callback([&to] { to.action = [&to](const System& s) { return run_list(s, to.list); }; });
    show->callback([&to] {
        to.list.details = true;
        to.action = [&to](const System& s) { return run_list(s, to.list); };
    });
}

void declare_migrate(CLI::App& app, Choices& to) {
    auto& options = to.migrate;
    auto* command = app.add_subcommand("migrate", "move one connection, or all of an old address");
    add_name(*command, options.name);
    command->add_option("--from-local", options.from_local, "move all connections of this address");
    command->add_option("--from-remote", options.from_remote, "of these, only to this peer");
    command->add_option("--to-local", options.to_local, "new local address");
    command->add_option("--to-remote", options.to_remote, "new remote ADDR[:PORT]");
    command->add_option("--dev", options.device, "send the handshake by this interface");
    command->add_flag("--trial", options.trial, "use the old path until the new one works");
    command->add_flag("--no-syn", options.no_syn, "ask on the current addresses, without SYN");
    command->add_option("--wait", options.wait,
                        "wait until committed or failed, at most so many seconds (--wait=SECONDS)");
    command->callback(
        [&to] { to.action = [&to](const System& s) { return run_migrate(s, to.migrate); }; });
}

void declare_abort_and_export(CLI::App& app, Choices& to) {
    auto* abort_command = app.add_subcommand("abort", "end a connection; the peer is told");
    add_name(*abort_command, to.abort_name);
    abort_command->callback(
        [&to] { to.action = [&to](const System& s) { return run_abort(s, to.abort_name); }; });
    auto* export_command = app.add_subcommand("export", "print the exporter value of a connection");
    add_name(*export_command, to.export_name);
    export_command->callback(
        [&to] { to.action = [&to](const System& s) { return run_export(s, to.export_name); }; });
}

void declare_key(CLI::App& app, Choices& to) {
    auto* key = app.add_subcommand("key", "pair keys: add, promote, exclusive, remove");
    key->require_subcommand(1);
    const std::vector<std::pair<std::string, std::string>> ops{
        {"add", "accept requests made with this key"},
        {"promote", "make own requests with this key"},
        {"exclusive", "refuse requests that are not made with this key"},
        {"remove", "forget this key"}};
    for (const auto& [op, help] : ops) {
        auto* command = key->add_subcommand(op, help);
        add_name(*command, to.key.name);
        command->add_option("--remote", to.key.remote, "all connections to this address");
        command->add_option("--id", to.key.id, "key number")->check(CLI::Range(1, 3));
        command->add_option("--secret-file", to.key.secret_file,
                            "file with 32 bytes or 64 hex digits, - for standard input");
        command->callback([&to, name = op] {
            to.key.op = name;
            to.action = [&to](const System& s) { return run_key(s, to.key); };
        });
    }
}

void declare_observers(CLI::App& app, Choices& to) {
    auto* monitor = app.add_subcommand("monitor", "print events as they come");
    monitor->add_flag("--snapshot", to.monitor.snapshot, "first print what is there");
    monitor->add_option("--count", to.monitor.count, "end after so many events");
    monitor->callback(
        [&to] { to.action = [&to](const System& s) { return run_monitor(s, to.monitor); }; });
    auto* stats = app.add_subcommand("stats", "print the counters");
    stats->add_flag("-z,--non-zero", to.stats_non_zero, "only those that are not zero");
    stats->callback(
        [&to] { to.action = [&to](const System& s) { return run_stats(s, to.stats_non_zero); }; });
    auto* doctor = app.add_subcommand("doctor", "find out what stands in the way");
    doctor->callback([&to] { to.action = run_doctor; });
}

void declare_daemon(CLI::App& app, Choices& to) {
    auto* status = app.add_subcommand("status", "what mobility-client does");
    status->callback([&to] { to.action = run_status; });
    auto* pairs = app.add_subcommand("pairs", "the hosts with which it has agreed");
    pairs->callback([&to] { to.action = run_pairs; });
    auto* servers = app.add_subcommand("servers", "its channels to mobility servers");
    servers->callback([&to] { to.action = run_servers; });
    auto* report = app.add_subcommand("report", "have it tell servers where this host is, now");
    report->callback([&to] { to.action = run_report; });
    auto* log = app.add_subcommand("log", "its latest log lines");
    log->add_option("-n,--lines", to.log.lines, "only so many");
    log->add_flag("-f,--follow", to.log.follow, "go on with what comes");
    log->callback([&to] { to.action = [&to](const System& s) { return run_log(s, to.log); }; });
}

void declare_switches(CLI::App& app, Choices& to) {
    auto* enable = app.add_subcommand("enable", "make new connections migratable");
    auto* opt_in = enable->add_flag("--opt-in", to.enable.opt_in, "only where a program asks");
    enable->add_option("--cgroup", to.enable.cgroup, "only for this cgroup (version 2)")
        ->excludes(opt_in);
    enable->callback(
        [&to] { to.action = [&to](const System& s) { return run_switch(s, to.enable); }; });
    auto* disable = app.add_subcommand("disable", "make new connections plain TCP");
    disable->add_option("--cgroup", to.disable.cgroup, "only for this cgroup (version 2)");
    disable->callback(
        [&to] { to.action = [&to](const System& s) { return run_switch(s, to.disable); }; });
    auto* run = app.add_subcommand("run", "run a program whose connections are migratable");
    run->add_option("--user", to.run.user, "run it as this user");
    run->callback([&to] { to.action = [&to](const System& s) { return run_program(s, to.run); }; });
}

/// Where the program of `run` starts, with or without "--" before it: its
/// options are not for our parser.
std::vector<std::string>::iterator find_program(std::vector<std::string>& arguments) {
    auto at = std::find(arguments.begin(), arguments.end(), "run");
    const auto is_option = [](const std::string& word) { return word.starts_with('-'); };
    if (at == arguments.end() || !std::all_of(arguments.begin(), at, is_option)) {
        return arguments.end();
    }
    for (++at; at != arguments.end() && is_option(*at) && *at != "--"; ++at) {
        if (*at == "--user" && std::next(at) != arguments.end()) {
            ++at;
        }
    }
    return at;
}

/// Cuts the program of `run` off, and gives a bare --wait the value that stands
/// for "without limit", so that it does not swallow the next word.
std::vector<std::string> prepare(std::vector<std::string> arguments, RunOptions& run) {
    const auto program = find_program(arguments);
    if (program != arguments.end()) {
        run.command.assign(*program == "--" ? std::next(program) : program, arguments.end());
        arguments.erase(program, arguments.end());
    }
    std::replace(arguments.begin(), arguments.end(), std::string("--wait"),
                 std::string("--wait=-1"));
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants it
    return arguments;
}

}  // namespace

int run_cli(System& system, std::vector<std::string> arguments) {
    CLI::App app("Lists, moves and guards migratable TCP connections.", "migrate-ctl");
    app.set_version_flag("--version", std::string("migrate-ctl " MIGRATE_CTL_VERSION));
    app.add_flag("-j,--json", system.json, "print JSON (docs/json describes it)");
    app.add_option("--control", system.control, "control socket of mobility-client")
        ->capture_default_str();
    app.require_subcommand(1);
    app.fallthrough();
    app.footer(
        "migrate-ctl(1) tells more. Exit codes: 0 done, 1 failed, 2 usage, 3 kernel without "
        "tcp-migrate,\n4 no such connection, 5 not permitted, 6 time is up, 7 no mobility-client.");
    Choices choices;
    declare_list(app, choices);
    declare_migrate(app, choices);
    declare_abort_and_export(app, choices);
    declare_key(app, choices);
    declare_observers(app, choices);
    declare_daemon(app, choices);
    declare_switches(app, choices);
    try {
        app.parse(prepare(std::move(arguments), choices.run));
    } catch (const CLI::ParseError& error) {
        return app.exit(error, system.out, system.err) == 0 ? kOk : kUsage;
    }
    return choices.action(system);
}

}  // namespace ctl
