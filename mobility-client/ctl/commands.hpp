// SPDX-License-Identifier: GPL-2.0-or-later
// The sub-commands of migrate-ctl. Each takes its options and the System,
// prints its result and returns the exit code. run_cli() parses the command
// line and calls one of them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "system.hpp"

namespace ctl {

struct ListOptions {
    std::vector<std::string> name;  ///< show only: one connection, or none for all
    std::string state;
    std::string local;
    std::string remote;
    bool details = false;  ///< `show`
};
int run_list(const System& system, const ListOptions& options);

struct MigrateOptions {
    std::vector<std::string> name;
    std::string from_local;
    std::string from_remote;  ///< with from_local: only connections to this peer
    std::string to_local;
    std::string to_remote;
    std::string device;
    bool trial = false;
    bool no_syn = false;
    std::optional<double> wait;  ///< seconds; negative: without limit
};
int run_migrate(const System& system, const MigrateOptions& options);

int run_abort(const System& system, const std::vector<std::string>& name);
int run_export(const System& system, const std::vector<std::string>& name);

struct KeyOptions {
    std::string op;
    std::vector<std::string> name;
    std::string remote;  ///< instead of a name: all connections to this address
    int id = 1;
    std::string secret_file;  ///< "-": standard input
};
int run_key(const System& system, const KeyOptions& options);

struct MonitorOptions {
    bool snapshot = false;  ///< print what is there before the first event
    std::size_t count = 0;  ///< end after so many events; 0: never
};
int run_monitor(const System& system, const MonitorOptions& options);

int run_stats(const System& system, bool non_zero);

struct SwitchOptions {
    bool on = true;
    bool opt_in = false;
    std::string cgroup;
};
int run_switch(const System& system, const SwitchOptions& options);

struct RunOptions {
    std::vector<std::string> command;
    std::string user;
};
/// Returns the command's own exit code, 128 + n if signal n ended it, 126 or
/// 127 if it could not be started, 125 if the cgroup could not be made.
int run_program(const System& system, const RunOptions& options);

int run_doctor(const System& system);

/// What mobility-client does.
int run_status(const System& system);
/// The hosts with which it has agreed.
int run_pairs(const System& system);
/// Its channels to mobility servers.
int run_servers(const System& system);
/// Has it report where this host is, and try peers again.
int run_report(const System& system);
struct LogOptions {
    std::size_t lines = 0;  ///< the last so many; 0: all that it has kept
    bool follow = false;    ///< and what comes
};
/// Its log.
int run_log(const System& system, const LogOptions& options);

/// A connection as it is named on the command line: one word "17" (cookie) or
/// "token:1a2b3c4d", or two words LOCAL:PORT REMOTE:PORT.
[[nodiscard]] tcpmigrate::Result<tcpmigrate::Name> parse_name(
    const std::vector<std::string>& words);

/// Counters of the line pair "TcpMigrate:" of /proc/net/netstat, in order.
[[nodiscard]] tcpmigrate::Result<std::vector<std::pair<std::string, std::uint64_t>>> read_counters(
    const System& system);

/// Whole program without argv[0].
int run_cli(System& system, std::vector<std::string> arguments);

}  // namespace ctl
