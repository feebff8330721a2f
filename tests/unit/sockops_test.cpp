// SPDX-License-Identifier: GPL-2.0-or-later
// The BPF program on real sockets of the running kernel. It need not be
// patched: the program is told to set TCP_KEEPCNT instead of TCP_MIGRATE.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <fstream>
#include <iostream>
#include <sstream>

#include "cgroup.hpp"
#include "commands.hpp"
#include "sockops.hpp"
#include "temporary.hpp"

namespace {

constexpr int kMark = 5;

/// Skips the test with the reason where cgroups or BPF are not to be had.
#define NEED_CGROUP(cgroup)                                         \
    if (!(cgroup)) {                                                \
        GTEST_SKIP() << "needs root: " << (cgroup).error().message; \
    }

int keepcnt(int fd) {
    int value = 0;
    socklen_t size = sizeof(value);
    getsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &value, &size);
    return value;
}

/// In a child that has joined `cgroup`: exit code bit 0, a listener is marked;
/// bit 1, a connecting socket is.
int marked_in(const ctl::ScratchCgroup& cgroup) {
    const pid_t child = fork();
    if (child == 0) {
        if (!cgroup.join()) {
            _exit(99);
        }
        const ctl::UniqueFd listener(socket(AF_INET, SOCK_STREAM, 0));
        const ctl::UniqueFd client(socket(AF_INET, SOCK_STREAM, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof(address);
        auto* generic = reinterpret_cast<sockaddr*>(&address);
        bind(listener.get(), generic, size);
        listen(listener.get(), 1);
        getsockname(listener.get(), generic, &size);
        connect(client.get(), generic, size);
        _exit((keepcnt(listener.get()) == kMark ? 1 : 0) +
              (keepcnt(client.get()) == kMark ? 2 : 0));
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

}  // namespace

TEST(Sockops, MarksListenersAndClientsUntilDetached) {
    auto cgroup = ctl::ScratchCgroup::create();
    NEED_CGROUP(cgroup);
    EXPECT_EQ(marked_in(*cgroup), 0);
    auto attached = ctl::attach_sockops(cgroup->fd(), TCP_KEEPCNT, kMark);
    ASSERT_TRUE(attached) << attached.error().message;
    EXPECT_TRUE(*attached);
    EXPECT_EQ(marked_in(*cgroup), 3);
    auto again = ctl::attach_sockops(cgroup->fd());
    ASSERT_TRUE(again);
    EXPECT_FALSE(*again) << "attached only once";
    EXPECT_TRUE(*ctl::detach_sockops(cgroup->fd()));
    EXPECT_FALSE(*ctl::detach_sockops(cgroup->fd()));
    EXPECT_EQ(marked_in(*cgroup), 0);
}

TEST(Sockops, KernelTakesTheRealProgram) {
    auto cgroup = ctl::ScratchCgroup::create();
    NEED_CGROUP(cgroup);
    auto attached = ctl::attach_sockops(cgroup->fd());
    ASSERT_TRUE(attached) << attached.error().message;
    EXPECT_EQ(marked_in(*cgroup), 0) << "sockets work, whether the kernel knows the option or not";
}

TEST(Cgroup, OtherDirectoriesAreRefusedWithRemedy) {
    auto opened = ctl::open_cgroup("/etc/nosuchgroup");
    ASSERT_FALSE(opened);
    if (geteuid() == 0) {
        EXPECT_NE(opened.error().message.find("no cgroup of version 2"), std::string::npos)
            << opened.error().message;
    }
}

namespace {

/// `migrate-ctl` over a fake /proc, but with real cgroups and processes.
class Run : public testing::Test {
  protected:
    Run() { proc_.write("sys/net/tcp_migrate/enabled", "0\n"); }

    int run(std::vector<std::string> arguments) {
        auto system = ctl::real_system();
        system.proc = proc_.path();
        return ctl::run_cli(system, std::move(arguments));
    }
    mobility::Temporary proc_;
};

}  // namespace

TEST_F(Run, ProgramRunsInItsOwnGroup) {
    NEED_CGROUP(ctl::ScratchCgroup::create());
    const auto note = proc_.at("note").string();
    EXPECT_EQ(run({"run", "--", "sh", "-c", "cat /proc/self/cgroup >" + note + "; exit 7"}), 7);
    EXPECT_NE(proc_.read("note").find("migrate-ctl-" + std::to_string(getpid())),
              std::string::npos);
    EXPECT_EQ(proc_.read("sys/net/tcp_migrate/enabled"), "1\n");
    EXPECT_FALSE(ctl::open_cgroup("/migrate-ctl-" + std::to_string(getpid()))) << "removed";
}

TEST_F(Run, ExitCodes) {
    NEED_CGROUP(ctl::ScratchCgroup::create());
    EXPECT_EQ(run({"run", "true"}), 0) << "works without -- too";
    EXPECT_EQ(run({"run", "--", "sh", "-c", "kill -9 $$"}), 128 + 9);
    EXPECT_EQ(run({"run", "--", "/nonexistent/program"}), 127);
    EXPECT_EQ(run({"run", "--", "/etc/passwd"}), 126);
    EXPECT_EQ(run({"run", "--user", "nosuchuser", "--", "true"}), 2);
    EXPECT_EQ(run({"run", "--user", "nobody", "--", "sh", "-c", "test $(id -un) = nobody"}), 0);
}

TEST_F(Run, EnableAndDisableACgroup) {
    auto cgroup = ctl::ScratchCgroup::create();
    NEED_CGROUP(cgroup);
    std::ifstream own("/proc/self/cgroup");
    std::string path;
    while (std::getline(own, path) && !path.starts_with("0::")) {
    }
    path = path.substr(3) + "/migrate-ctl-" + std::to_string(getpid());
    EXPECT_EQ(run({"enable", "--cgroup", path}), 0);
    EXPECT_FALSE(*ctl::attach_sockops(cgroup->fd())) << "it is there";
    EXPECT_EQ(proc_.read("sys/net/tcp_migrate/enabled"), "1\n");
    EXPECT_EQ(run({"disable", "--cgroup", path}), 0);
    EXPECT_FALSE(*ctl::detach_sockops(cgroup->fd())) << "it is gone";
    EXPECT_EQ(proc_.read("sys/net/tcp_migrate/enabled"), "1\n");
}
