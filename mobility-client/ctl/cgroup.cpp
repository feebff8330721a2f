// SPDX-License-Identifier: GPL-2.0-or-later
// Control groups by directory file descriptors; see cgroup.hpp.

#include "cgroup.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <string_view>

#include "system.hpp"

namespace ctl {

using tcpmigrate::Error;
using tcpmigrate::make_error;
using tcpmigrate::Result;

namespace {

constexpr std::string_view kPrefix = "migrate-ctl-";

Error failure(const std::string& what) {
    const int cause = errno;
    return make_error(cause, what + ": " + std::strerror(cause));
}

/// The root of the cgroup2 hierarchy, mounted nowhere.
Result<UniqueFd> open_root() {
    const UniqueFd context(static_cast<int>(syscall(SYS_fsopen, "cgroup2", FSOPEN_CLOEXEC)));
    if (!context ||
        syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) {
        return failure("opening the cgroup2 file system");
    }
    UniqueFd root(static_cast<int>(syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, 0)));
    if (!root) {
        return failure("mounting the cgroup2 file system");
    }
    return root;
}

bool is_cgroup2(int fd) {
    struct statfs info {};
    return fstatfs(fd, &info) == 0 && info.f_type == CGROUP2_SUPER_MAGIC;
}

/// Opens `path` below `directory`; an empty path or "/" is the directory itself.
Result<UniqueFd> open_below(int directory, const std::string& path) {
    const auto start = path.find_first_not_of('/');
    const std::string relative = start == path.npos ? "." : path.substr(start);
    UniqueFd fd(openat(directory, relative.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        return failure("cgroup " + path);
    }
    return fd;
}

/// "/user.slice/x" from the line "0::/user.slice/x" of /proc/self/cgroup.
Result<std::string> own_cgroup() {
    auto text = read_file("/proc/self/cgroup");
    if (!text) {
        return text.error();
    }
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("0::")) {
            return line.substr(3);
        }
    }
    return make_error(ENOENT, "this process is in no cgroup of version 2");
}

/// Removes groups that an earlier run left behind, when all their processes
/// have ended. The name carries the pid of the run: one that lives may be just
/// about to use its empty group.
void sweep(int parent) {
    const int copy = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(copy), closedir);
    while (const dirent* entry = listing ? readdir(listing.get()) : nullptr) {
        const std::string_view name = entry->d_name;
        if (!name.starts_with(kPrefix)) {
            continue;
        }
        const auto pid =
            static_cast<pid_t>(std::strtol(entry->d_name + kPrefix.size(), nullptr, 10));
        if (pid > 0 && kill(pid, 0) < 0 && errno == ESRCH) {
            unlinkat(parent, entry->d_name, AT_REMOVEDIR);
        }
    }
}

}  // namespace

Result<UniqueFd> open_cgroup(const std::string& path) {
    UniqueFd direct(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (direct && is_cgroup2(direct.get())) {
        return direct;
    }
    auto root = open_root();
    if (!root) {
        return root.error();
    }
    auto below = open_below(root->get(), path);
    if (!below) {
        return make_error(ENOTDIR, path +
                                       " is no cgroup of version 2: give its directory "
                                       "(`mount -t cgroup2` shows where they are) or its name, "
                                       "as in `systemctl show -p ControlGroup UNIT`");
    }
    return below;
}

Result<ScratchCgroup> ScratchCgroup::create() {
    auto root = open_root();
    auto path = own_cgroup();
    if (!root || !path) {
        return root ? path.error() : root.error();
    }
    auto parent = open_below(root->get(), *path);
    if (!parent) {
        return parent.error();
    }
    sweep(parent->get());
    const std::string name = std::string(kPrefix) + std::to_string(getpid());
    if (mkdirat(parent->get(), name.c_str(), 0755) < 0) {
        return failure("making a cgroup below " + *path);
    }
    auto directory = open_below(parent->get(), name);
    if (!directory) {
        unlinkat(parent->get(), name.c_str(), AT_REMOVEDIR);
        return directory.error();
    }
    return ScratchCgroup(std::move(*parent), std::move(*directory), name);
}

ScratchCgroup::~ScratchCgroup() {
    if (parent_) {
        unlinkat(parent_.get(), name_.c_str(), AT_REMOVEDIR);
    }
}

Result<void> ScratchCgroup::join() const {
    const UniqueFd procs(openat(directory_.get(), "cgroup.procs", O_WRONLY | O_CLOEXEC));
    if (!procs || write(procs.get(), "0", 1) < 0) {
        return failure("joining the cgroup " + name_);
    }
    return {};
}

}  // namespace ctl
