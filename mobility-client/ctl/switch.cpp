// SPDX-License-Identifier: GPL-2.0-or-later
// enable and disable: for the whole network namespace by the sysctl
// net.tcp_migrate.enabled (0 off, 1 opt-in, 2 all new sockets), or for a
// cgroup by a BPF program (sockops.hpp). run: the same for one program.

#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cgroup.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "sockops.hpp"

namespace ctl {

using tcpmigrate::make_error;
using tcpmigrate::Result;

namespace {

constexpr std::string_view kEnabled = "net.tcp_migrate.enabled";
constexpr int kRunFailed = 125;  // as env(1), timeout(1) and others have it
constexpr int kCannotExecute = 126;
constexpr int kCommandNotFound = 127;

/// The sysctl's value; a missing one means an unpatched kernel.
Result<int> enabled_now(const System& system) {
    auto value = read_sysctl(system, kEnabled);
    if (!value && value.error().is(ENOENT)) {
        return make_error(ENOENT,
                          "this kernel has no sysctl net.tcp_migrate.enabled: it has no "
                          "tcp-migrate patches");
    }
    return value;
}

/// A cgroup's sockets may only opt in if the namespace lets them: raises 0 to 1.
Result<bool> allow_opt_in(const System& system) {
    auto value = enabled_now(system);
    if (!value) {
        return value.error();
    }
    if (*value != 0) {
        return false;
    }
    auto written = write_sysctl(system, kEnabled, 1);
    return written ? Result<bool>(true) : written.error();
}

int switch_system(const System& system, const SwitchOptions& options) {
    auto before = enabled_now(system);
    if (!before) {
        return report_open(system, before.error());
    }
    const int wanted = !options.on ? 0 : options.opt_in ? 1 : 2;
    if (auto written = write_sysctl(system, kEnabled, wanted); !written) {
        return report(system, written.error());
    }
    if (system.json) {
        print_json(system, {{"sysctl", kEnabled}, {"before", *before}, {"now", wanted}});
        return kOk;
    }
    constexpr std::array<const char*, 3> kMeaning{"off: new connections are plain TCP",
                                                  "opt-in: for sockets and cgroups that ask for it",
                                                  "on: for all new connections"};
    system.out << kEnabled << " = " << wanted << " ("
               << kMeaning.at(static_cast<std::size_t>(wanted)) << ")\n"
               << "until the next boot; to keep it: echo '" << kEnabled << " = " << wanted
               << "' > /etc/sysctl.d/60-tcp-migrate.conf\n";
    return kOk;
}

int switch_cgroup(const System& system, const SwitchOptions& options) {
    auto raised = options.on ? allow_opt_in(system) : Result<bool>(false);
    if (!raised) {
        return report_open(system, raised.error());
    }
    auto cgroup = open_cgroup(options.cgroup);
    if (!cgroup) {
        return report(system, cgroup.error());
    }
    auto changed = options.on ? attach_sockops(cgroup->get()) : detach_sockops(cgroup->get());
    if (!changed) {
        return report(system, make_error(changed.error().code.value(),
                                         options.cgroup + ": " + changed.error().message));
    }
    if (system.json) {
        print_json(system, {{"cgroup", options.cgroup},
                            {"enabled", options.on},
                            {"changed", *changed},
                            {"sysctl_raised", *raised}});
        return kOk;
    }
    system.out << options.cgroup << ": new TCP sockets of its processes are "
               << (options.on ? "migratable" : "plain") << (*changed ? "\n" : " (as before)\n");
    if (*raised) {
        system.out << kEnabled << " was 0 and is now 1 (opt-in)\n";
    }
    if (options.on) {
        system.out << "until the cgroup is removed; for a systemd unit, to keep it: "
                      "ExecStartPost=+migrate-ctl enable --cgroup "
                   << options.cgroup << '\n';
    }
    return kOk;
}

struct User {
    uid_t uid = 0;
    gid_t gid = 0;
    std::string name;
};

Result<std::optional<User>> find_user(const std::string& name) {
    if (name.empty()) {
        return std::optional<User>();
    }
    std::array<char, 4096> space{};
    passwd entry{};
    passwd* found = nullptr;
    getpwnam_r(name.c_str(), &entry, space.data(), space.size(), &found);
    if (found == nullptr) {
        return make_error(EINVAL, "there is no user '" + name + "'");
    }
    return std::optional(User{found->pw_uid, found->pw_gid, name});
}

// Signals that are sent to us alone are meant for the program.
std::atomic<pid_t> g_child{0};
static_assert(std::atomic<pid_t>::is_always_lock_free);
void forward_signal(int number) {
    if (const pid_t child = g_child; child > 0) {
        kill(child, number);
    }
}

void set_handlers(void (*terminate)(int), void (*keyboard)(int)) {
    struct sigaction action {};
    action.sa_handler = terminate;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGHUP, &action, nullptr);
    // The terminal sends these to the program as well; it decides.
    action.sa_handler = keyboard;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGQUIT, &action, nullptr);
}

/// In the child: becomes the program. Returns the exit code if it cannot.
int become(const System& system, const ScratchCgroup& cgroup, const std::optional<User>& user,
           std::vector<std::string> command) {
    set_handlers(SIG_DFL, SIG_DFL);
    if (auto joined = cgroup.join(); !joined) {
        system.err << "migrate-ctl: " << joined.error().message << '\n';
        return kRunFailed;
    }
    if (user && (initgroups(user->name.c_str(), user->gid) < 0 || setgid(user->gid) < 0 ||
                 setuid(user->uid) < 0)) {
        system.err << "migrate-ctl: becoming user " << user->name << ": " << std::strerror(errno)
                   << '\n';
        return kRunFailed;
    }
    std::vector<char*> argv;
    std::transform(command.begin(), command.end(), std::back_inserter(argv),
                   [](std::string& word) { return word.data(); });
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    const int cause = errno;
    system.err << "migrate-ctl: " << command[0] << ": " << std::strerror(cause) << std::endl;
    return cause == ENOENT ? kCommandNotFound : kCannotExecute;
}

int wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return kRunFailed;
        }
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

Result<ScratchCgroup> prepare_run(const System& system) {
    auto raised = allow_opt_in(system);
    if (!raised) {
        return raised.error();
    }
    if (*raised) {
        system.err << "migrate-ctl: " << kEnabled << " was 0 and is now 1 (opt-in)\n";
    }
    auto cgroup = ScratchCgroup::create();
    if (!cgroup) {
        return cgroup;
    }
    if (auto attached = attach_sockops(cgroup->fd()); !attached) {
        return attached.error();
    }
    return cgroup;
}

}  // namespace

int run_switch(const System& system, const SwitchOptions& options) {
    return options.cgroup.empty() ? switch_system(system, options) : switch_cgroup(system, options);
}

int run_program(const System& system, const RunOptions& options) {
    if (options.command.empty()) {
        (void)report(system,
                     make_error(EINVAL, "run what? `migrate-ctl run -- PROGRAM ARGUMENTS`"));
        return kUsage;
    }
    auto user = find_user(options.user);
    if (!user) {
        (void)report(system, user.error());
        return kUsage;
    }
    auto cgroup = prepare_run(system);
    if (!cgroup) {
        (void)report_open(system, cgroup.error());
        return kRunFailed;
    }
    set_handlers(forward_signal, SIG_IGN);
    const pid_t child = fork();
    if (child == 0) {
        const int code = become(system, *cgroup, *user, options.command);
        system.err.flush();
        _exit(code);
    }
    if (child < 0) {
        (void)report(system, make_error(errno, std::string("fork: ") + std::strerror(errno)));
        return kRunFailed;
    }
    g_child = child;
    return wait_for(child);
}

}  // namespace ctl
