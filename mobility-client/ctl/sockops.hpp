// SPDX-License-Identifier: GPL-2.0-or-later
// Makes every new socket of a cgroup migratable, whatever program opens it: a
// BPF sockops program on the cgroup sets the socket option TCP_MIGRATE when
// the socket connects or listens. The attachment belongs to the cgroup: it
// lives until it is detached or the cgroup is removed, with no process or
// pinned file to keep it. (A link pinned in bpffs would do the same with one
// thing more that can be missing: `ip netns exec` hides /sys/fs/bpf.)
#pragma once

#include <linux/bpf.h>

#include <array>
#include <string_view>

#include "tcpmigrate/result.hpp"

namespace ctl {

/// Value of TCP_MIGRATE in include/uapi/linux/tcp.h of a patched kernel.
inline constexpr int kTcpMigrateOption = 60;
/// Name under which the program shows in `bpftool cgroup show`.
inline constexpr std::string_view kProgramName = "tcp_migrate_on";

/// The program: sets the integer option `option` of IPPROTO_TCP to `value` at
/// TCP_CONNECT_CB and TCP_LISTEN_CB. Parameters only for tests.
[[nodiscard]] std::array<bpf_insn, 13> sockops_program(int option, int value);

/// Attaches it to the cgroup, beside programs of others. False if the cgroup
/// had it already.
[[nodiscard]] tcpmigrate::Result<bool> attach_sockops(int cgroup_fd, int option = kTcpMigrateOption,
                                                      int value = 1);
/// False if the cgroup did not have it.
[[nodiscard]] tcpmigrate::Result<bool> detach_sockops(int cgroup_fd);

}  // namespace ctl
