// SPDX-License-Identifier: GPL-2.0-or-later
// Everything of the outside world that a command touches, in one place that
// tests can replace: the kernel's sockets, /proc, other programs, the streams.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tcpmigrate/client.hpp"

namespace ctl {

/// Exit codes; documented in migrate-ctl(1).
enum Exit : int {
    kOk = 0,
    kFailed = 1,        ///< the kernel refused, a migration failed, doctor found a problem
    kUsage = 2,         ///< the command line is wrong
    kUnsupported = 3,   ///< the kernel has no tcp_migrate
    kNotFound = 4,      ///< no such connection
    kNotPermitted = 5,  ///< CAP_NET_ADMIN is missing
    kTimedOut = 6,      ///< --wait=SECONDS ran out
    kNoDaemon = 7,      ///< mobility-client does not answer
};

struct System {
    using Milliseconds = std::chrono::milliseconds;
    /// False if that was enough.
    using TakeLine = std::function<bool(const std::string&)>;

    std::function<tcpmigrate::Result<std::unique_ptr<tcpmigrate::Transport>>()> open_transport;
    std::function<tcpmigrate::Result<std::unique_ptr<tcpmigrate::EventSource>>()> open_events;
    /// Runs a program and returns what it prints on stdout. ENOENT: it is not
    /// installed; EIO: it failed.
    std::function<tcpmigrate::Result<std::string>(const std::vector<std::string>&)> capture;
    std::function<Milliseconds()> steady_now;  ///< for deadlines
    std::function<Milliseconds()> wall_now;    ///< since 1970, for time stamps
    std::filesystem::path proc;
    std::istream& in;
    std::ostream& out;
    std::ostream& err;
    bool json = false;
    /// Sends a line to the daemon by its control socket, and returns its answer, a line.
    std::function<tcpmigrate::Result<std::string>(const std::string&)> ask_daemon{};
    /// The same, and gives each line that comes to the other function, until that wants no more.
    std::function<tcpmigrate::Result<void>(const std::string&, const TakeLine&)> follow_daemon{};
    std::string control = "/run/mobility-client/control";  ///< that socket

    /// A Client over open_transport().
    [[nodiscard]] tcpmigrate::Result<tcpmigrate::Client> client() const;
};

/// The running machine, standard streams; but for ask_daemon and follow_daemon.
[[nodiscard]] System real_system();
/// Sends a line to the Unix socket `path`, and returns the line that comes back. ENOENT or
/// ECONNREFUSED: nobody listens there; EMSGSIZE: a line longer than 16 MiB.
[[nodiscard]] tcpmigrate::Result<std::string> ask(const std::string& path, const std::string& line);
/// The same for many lines: ECONNRESET when no more come.
[[nodiscard]] tcpmigrate::Result<void> follow(const std::string& path, const std::string& line,
                                              const System::TakeLine& take);

/// Whole content of a file; the error names the file.
[[nodiscard]] tcpmigrate::Result<std::string> read_file(const std::filesystem::path& path);
/// Writes an existing file, for /proc/sys and cgroup files.
[[nodiscard]] tcpmigrate::Result<void> write_file(const std::filesystem::path& path,
                                                  std::string_view content);
/// Without blanks and newlines at both ends.
[[nodiscard]] std::string_view trim(std::string_view text);

/// "net.tcp_migrate.enabled" -> PROC/sys/net/tcp_migrate/enabled
[[nodiscard]] std::filesystem::path sysctl_path(const System& system, std::string_view name);
/// Value of a whole-number sysctl.
[[nodiscard]] tcpmigrate::Result<int> read_sysctl(const System& system, std::string_view name);
[[nodiscard]] tcpmigrate::Result<void> write_sysctl(const System& system, std::string_view name,
                                                    int value);

}  // namespace ctl
