// SPDX-License-Identifier: GPL-2.0-or-later
// The program is thirteen instructions, written out here: it needs no BPF
// compiler to build, no maps and no BTF to load, and so runs on any kernel
// with CONFIG_CGROUP_BPF.

#include "sockops.hpp"

#include <bpf/bpf.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "unique_fd.hpp"

namespace ctl {

using tcpmigrate::Error;
using tcpmigrate::make_error;
using tcpmigrate::Result;

namespace {

constexpr unsigned kMaxPrograms = 64;  // the kernel's limit per cgroup

constexpr bpf_insn insn(int code, unsigned dst, unsigned src, int offset, int immediate) {
    return bpf_insn{static_cast<__u8>(code), static_cast<__u8>(dst & 15U),
                    static_cast<__u8>(src & 15U), static_cast<__s16>(offset), immediate};
}
constexpr bpf_insn move(unsigned dst, int immediate) {
    return insn(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, immediate);
}

Error failure(const std::string& what, int errno_value) {
    return make_error(errno_value, what + ": " + std::strerror(errno_value));
}

/// Our program on this cgroup, if it is there.
Result<std::optional<UniqueFd>> find_program(int cgroup_fd) {
    std::vector<__u32> ids(kMaxPrograms);
    __u32 count = kMaxPrograms;
    if (bpf_prog_query(cgroup_fd, BPF_CGROUP_SOCK_OPS, 0, nullptr, ids.data(), &count) < 0) {
        return failure("asking the cgroup for its BPF programs", errno);
    }
    for (__u32 i = 0; i < count; i++) {
        UniqueFd fd(bpf_prog_get_fd_by_id(ids[i]));
        bpf_prog_info info{};
        __u32 size = sizeof(info);
        if (fd && bpf_obj_get_info_by_fd(fd.get(), &info, &size) == 0 &&
            kProgramName == info.name) {
            return std::optional(std::move(fd));
        }
    }
    return std::optional<UniqueFd>();
}

}  // namespace

std::array<bpf_insn, 13> sockops_program(int option, int value) {
    // r1 is the context throughout: nothing before the call changes it.
    return {{
        insn(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, offsetof(bpf_sock_ops, op), 0),
        insn(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_2, 0, 1, BPF_SOCK_OPS_TCP_CONNECT_CB),
        insn(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 8, BPF_SOCK_OPS_TCP_LISTEN_CB),
        move(BPF_REG_2, value),
        insn(BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, BPF_REG_2, -4, 0),
        move(BPF_REG_2, IPPROTO_TCP),
        move(BPF_REG_3, option),
        insn(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_4, BPF_REG_10, 0, 0),
        // NOLINTNEXTLINE(misc-redundant-expression): BPF_ADD and BPF_K are both 0
        insn(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_4, 0, 0, -4),
        move(BPF_REG_5, sizeof(int)),
        // A kernel without the option answers EINVAL; the connection is then a plain one.
        insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_setsockopt),
        move(BPF_REG_0, 1),
        insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    }};
}

Result<bool> attach_sockops(int cgroup_fd, int option, int value) {
    auto present = find_program(cgroup_fd);
    if (!present) {
        return present.error();
    }
    if (*present) {
        return false;
    }
    const auto program = sockops_program(option, value);
    const UniqueFd fd(bpf_prog_load(BPF_PROG_TYPE_SOCK_OPS, kProgramName.data(), "GPL",
                                    program.data(), program.size(), nullptr));
    if (!fd) {
        return failure("loading the BPF sockops program", errno);
    }
    if (bpf_prog_attach(fd.get(), cgroup_fd, BPF_CGROUP_SOCK_OPS, BPF_F_ALLOW_MULTI) < 0) {
        return failure("attaching the BPF sockops program to the cgroup", errno);
    }
    return true;
}

Result<bool> detach_sockops(int cgroup_fd) {
    auto present = find_program(cgroup_fd);
    if (!present) {
        return present.error();
    }
    if (!*present) {
        return false;
    }
    if (bpf_prog_detach2((*present)->get(), cgroup_fd, BPF_CGROUP_SOCK_OPS) < 0) {
        return failure("detaching the BPF sockops program", errno);
    }
    return true;
}

}  // namespace ctl
