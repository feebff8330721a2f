// SPDX-License-Identifier: GPL-2.0-or-later
// The running machine behind System.

#include "system.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iostream>

#include "unique_fd.hpp"

namespace ctl {

using tcpmigrate::make_error;
using tcpmigrate::Result;

namespace {

std::string drain(int fd) {
    std::string text;
    std::array<char, 4096> chunk{};
    for (;;) {
        const auto size = read(fd, chunk.data(), chunk.size());
        if (size > 0) {
            text.append(chunk.data(), static_cast<std::size_t>(size));
        } else if (size == 0 || errno != EINTR) {
            return text;
        }
    }
}

/// Starts argv with stdout into `write_end`, stderr into nothing.
Result<pid_t> spawn(const std::vector<std::string>& argv, int write_end) {
    std::vector<std::string> copies = argv;
    std::vector<char*> pointers;
    std::transform(copies.begin(), copies.end(), std::back_inserter(pointers),
                   [](std::string& s) { return s.data(); });
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t actions{};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, write_end, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t pid = -1;
    const int error = posix_spawnp(&pid, pointers[0], &actions, nullptr, pointers.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
        return make_error(error, argv[0] + ": " + std::strerror(error));
    }
    return pid;
}

Result<std::string> capture(const std::vector<std::string>& argv) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) < 0) {
        return make_error(errno, std::string("pipe: ") + std::strerror(errno));
    }
    const UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    auto pid = spawn(argv, write_end.get());
    write_end.reset();
    if (!pid) {
        return pid.error();
    }
    auto text = drain(read_end.get());
    int status = 0;
    while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return make_error(EIO, argv[0] + " failed");
    }
    return text;
}

template <typename Clock>
System::Milliseconds now() {
    return std::chrono::duration_cast<System::Milliseconds>(Clock::now().time_since_epoch());
}

}  // namespace

Result<tcpmigrate::Client> System::client() const {
    auto transport = open_transport();
    if (!transport) {
        return transport.error();
    }
    return tcpmigrate::Client(std::move(*transport));
}

System real_system() {
    return System{tcpmigrate::open_netlink_transport,
                  tcpmigrate::open_netlink_events,
                  capture,
                  now<std::chrono::steady_clock>,
                  now<std::chrono::system_clock>,
                  "/proc",
                  std::cin,
                  std::cout,
                  std::cerr};
}

Result<std::string> read_file(const std::filesystem::path& path) {
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) {
        return make_error(errno, path.string() + ": " + std::strerror(errno));
    }
    return drain(fd.get());
}

Result<void> write_file(const std::filesystem::path& path, std::string_view content) {
    const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_TRUNC));
    if (fd.get() < 0 || write(fd.get(), content.data(), content.size()) < 0) {
        return make_error(errno, path.string() + ": " + std::strerror(errno));
    }
    return {};
}

std::string_view trim(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r\n");
    if (first == text.npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::filesystem::path sysctl_path(const System& system, std::string_view name) {
    std::string path(name);
    std::replace(path.begin(), path.end(), '.', '/');
    return system.proc / "sys" / path;
}

Result<int> read_sysctl(const System& system, std::string_view name) {
    auto text = read_file(sysctl_path(system, name));
    if (!text) {
        return text.error();
    }
    const auto digits = trim(*text);
    int value = 0;
    const auto* end = digits.data() + digits.size();
    if (std::from_chars(digits.data(), end, value).ptr != end || digits.empty()) {
        return make_error(EBADMSG, std::string(name) + " is not a number");
    }
    return value;
}

Result<void> write_sysctl(const System& system, std::string_view name, int value) {
    return write_file(sysctl_path(system, name), std::to_string(value) + "\n");
}

}  // namespace ctl
