// SPDX-License-Identifier: GPL-2.0-or-later
// Control groups (version 2), reached through an own detached mount, so that
// it works wherever /sys/fs/cgroup is not mounted, as under `ip netns exec`.
#pragma once

#include <string>
#include <vector>

#include "tcpmigrate/result.hpp"
#include "unique_fd.hpp"

namespace ctl {

/// Opens a cgroup directory: a path in a mounted cgroup2 file system, or the
/// name of a group below its root ("/user.slice").
[[nodiscard]] tcpmigrate::Result<UniqueFd> open_cgroup(const std::string& path);

/// A new child of this process's cgroup. The directory is removed with the
/// object, unless processes are still in it; those of earlier objects whose
/// processes have ended meanwhile are removed by the next create().
class ScratchCgroup {
  public:
    static tcpmigrate::Result<ScratchCgroup> create();
    ~ScratchCgroup();
    ScratchCgroup(ScratchCgroup&&) noexcept = default;
    ScratchCgroup& operator=(ScratchCgroup&&) = delete;
    ScratchCgroup(const ScratchCgroup&) = delete;
    ScratchCgroup& operator=(const ScratchCgroup&) = delete;

    [[nodiscard]] int fd() const { return directory_.get(); }
    /// Moves the calling process into the group.
    [[nodiscard]] tcpmigrate::Result<void> join() const;

  private:
    ScratchCgroup(UniqueFd parent, UniqueFd directory, std::string name)
        : parent_(std::move(parent)), directory_(std::move(directory)), name_(std::move(name)) {}

    UniqueFd parent_;
    UniqueFd directory_;
    std::string name_;
};

}  // namespace ctl
