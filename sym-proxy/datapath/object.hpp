// SPDX-License-Identifier: GPL-2.0-or-later
// The BPF programs of flow.bpf.c and their maps, loaded into the kernel.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "data_path.hpp"

struct bpf_object;

namespace mobility::proxy {

using tcpmigrate::Error;
using tcpmigrate::make_error;

/// `what`, and what the errno value says.
[[nodiscard]] Error failure(int errno_value, const std::string& what);

class Object {
  public:
    /// Maps are taken from the folder `pins` where they are there and of this layout, else left
    /// there. Without a folder, they are those of this object alone.
    static Result<Object> load(const std::string& pins, std::size_t most_flows);

    /// File descriptors, by the names in flow.bpf.c; -1 if there is none.
    [[nodiscard]] int map(const char* name) const;
    [[nodiscard]] int program(const char* name) const;
    /// For the log.
    [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  private:
    struct Close {
        void operator()(bpf_object* object) const;
    };
    explicit Object(bpf_object* object) : object_(object) {}
    Result<void> share_maps(const std::string& pins);

    std::unique_ptr<bpf_object, Close> object_;
    std::vector<std::string> warnings_;
};

/// The maps that are pinned.
[[nodiscard]] const std::vector<std::string>& pinned_maps();

/// Makes the folder, and mounts a BPF file system at its usual place if there is none.
[[nodiscard]] Result<void> make_pins(const std::string& pins);

}  // namespace mobility::proxy
