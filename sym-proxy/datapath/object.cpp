// SPDX-License-Identifier: GPL-2.0-or-later
#include "object.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>

#include "flow.h"
#include "unique_fd.hpp"

// What the BPF compiler has made, as it is; libbpf reads it from memory.
__asm__(
    ".pushsection .rodata\n"
    ".balign 8\n"
    ".global sym_proxy_object\n"
    ".hidden sym_proxy_object\n"
    "sym_proxy_object: .incbin \"" FLOW_OBJECT
    "\"\n"
    ".global sym_proxy_object_end\n"
    ".hidden sym_proxy_object_end\n"
    "sym_proxy_object_end:\n"
    ".popsection\n");

extern "C" {
// NOLINTNEXTLINE(cppcoreguidelines-avoid-c-arrays)
extern const char sym_proxy_object[];
// NOLINTNEXTLINE(cppcoreguidelines-avoid-c-arrays)
extern const char sym_proxy_object_end[];
}

namespace mobility::proxy {

namespace {

namespace fs = std::filesystem;

/// What libbpf has complained of since it was cleared: says more than an errno value.
std::string& complaints() {
    thread_local std::string text;
    return text;
}

int complain(libbpf_print_level level, const char* format, va_list arguments) {
    if (level != LIBBPF_WARN) {
        return 0;
    }
    va_list again;
    va_copy(again, arguments);
    const int size = vsnprintf(nullptr, 0, format, again);
    va_end(again);
    std::string line(static_cast<std::size_t>(std::max(size, 0)) + 1, '\0');
    if (vsnprintf(line.data(), line.size(), format, arguments) < 0) {
        return 0;
    }
    line.pop_back();
    // A verifier's log is long; what it did not like is said at its end.
    auto& all = complaints();
    all += line;
    if (constexpr std::size_t most = 2000; all.size() > most) {
        all.erase(0, all.size() - most);
    }
    return 0;
}

bool on_bpf_fs(const fs::path& path) {
    struct statfs about {};
    return statfs(path.c_str(), &about) == 0 &&
           static_cast<unsigned long>(about.f_type) == BPF_FS_MAGIC;
}

/// What is pinned there was made by another version of this program.
bool of_other_layout(const std::string& pin) {
    const ctl::UniqueFd fd(bpf_obj_get(pin.c_str()));
    bpf_map_info info{};
    __u32 size = sizeof(info);
    if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) {
        return false;
    }
    flow_proxy proxy{};
    const __u32 zero = 0;
    return info.value_size != sizeof(proxy) || bpf_map_lookup_elem(fd.get(), &zero, &proxy) != 0 ||
           (proxy.layout != 0 && proxy.layout != FLOW_LAYOUT);
}

/// The pinned map of flows, where it has another size than asked for: how many it takes, and
/// whether there are any.
struct OtherSize {
    std::uint32_t room = 0;
    bool used = false;
};

std::optional<OtherSize> other_size(const std::string& pin, std::uint32_t wanted) {
    const ctl::UniqueFd fd(bpf_obj_get(pin.c_str()));
    bpf_map_info info{};
    __u32 size = sizeof(info);
    if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0 || info.max_entries == wanted) {
        return std::nullopt;
    }
    flow_key first{};
    return OtherSize{info.max_entries, bpf_map_get_next_key(fd.get(), nullptr, &first) == 0};
}

}  // namespace

Error failure(int errno_value, const std::string& what) {
    return make_error(errno_value, what + ": " + std::strerror(errno_value));
}

const std::vector<std::string>& pinned_maps() {
    static const std::vector<std::string> names = {"proxy",    "flows",  "ways",
                                                   "counters", "events", "interfaces"};
    return names;
}

Result<void> make_pins(const std::string& pins) {
    fs::path there = fs::path(pins).lexically_normal();
    std::error_code error;
    while (!fs::exists(there, error) && there.has_relative_path()) {
        there = there.parent_path();
    }
    if (!on_bpf_fs(there) && there == "/sys/fs/bpf" &&
        mount("bpf", there.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700") != 0) {
        return failure(errno, "mounting a BPF file system on /sys/fs/bpf");
    }
    if (!on_bpf_fs(there)) {
        return make_error(EINVAL,
                          pins + " is not on a BPF file system (mount -t bpf bpf " + pins + ")");
    }
    if (fs::create_directories(pins, error); error) {
        return make_error(error.value(), "making " + pins + ": " + error.message());
    }
    return {};
}

void Object::Close::operator()(bpf_object* object) const {
    bpf_object__close(object);
}

Result<void> Object::share_maps(const std::string& pins) {
    const std::string path = pins + "/";
    if (of_other_layout(path + "proxy")) {
        warnings_.push_back("what is pinned in " + pins +
                            " is of another version: its relays end here");
        for (const auto& name : pinned_maps()) {
            std::error_code ignored;
            fs::remove(path + name, ignored);
        }
    }
    bpf_map* flows = bpf_object__find_map_by_name(object_.get(), "flows");
    const auto other = other_size(path + "flows", bpf_map__max_entries(flows));
    if (other && other->used) {
        warnings_.push_back("the relays there are keep their map, which has room for " +
                            std::to_string(other->room) + " flows");
        bpf_map__set_max_entries(flows, other->room);
    } else if (other) {
        std::error_code ignored;
        fs::remove(path + "flows", ignored);
    }
    for (const auto& name : pinned_maps()) {
        bpf_map* map = bpf_object__find_map_by_name(object_.get(), name.c_str());
        if (const int error = bpf_map__set_pin_path(map, (path + name).c_str()); error != 0) {
            return failure(-error, "naming the pin of the map " + name);
        }
    }
    return {};
}

Result<Object> Object::load(const std::string& pins, std::size_t most_flows) {
    libbpf_set_print(complain);
    complaints().clear();
    const std::span<const char> code(sym_proxy_object, sym_proxy_object_end);
    bpf_object_open_opts options{};
    options.sz = sizeof(options);
    options.object_name = "sym_proxy";
    Object object(bpf_object__open_mem(code.data(), code.size(), &options));
    if (!object.object_) {
        return failure(errno, "reading the BPF object");
    }
    bpf_map__set_max_entries(bpf_object__find_map_by_name(object.object_.get(), "flows"),
                             static_cast<__u32>(most_flows));
    if (!pins.empty()) {
        if (auto shared = object.share_maps(pins); !shared) {
            return shared.error();
        }
    }
    if (const int error = bpf_object__load(object.object_.get()); error != 0) {
        return failure(-error, "loading the BPF programs: " + complaints());
    }
    return object;
}

int Object::map(const char* name) const {
    return bpf_object__find_map_fd_by_name(object_.get(), name);
}

int Object::program(const char* name) const {
    const bpf_program* program = bpf_object__find_program_by_name(object_.get(), name);
    return program == nullptr ? -1 : bpf_program__fd(program);
}

}  // namespace mobility::proxy
