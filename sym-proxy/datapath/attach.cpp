// SPDX-License-Identifier: GPL-2.0-or-later
#include "attach.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "flow.h"
#include "unique_fd.hpp"

namespace mobility::proxy {

namespace {

// Ours is the first filter; what is not ours goes on to others. The handle says which is ours.
constexpr std::uint32_t kPriority = 1;
constexpr std::uint32_t kHandle = 0x4d49;

bpf_tc_hook hook_of(std::uint32_t index) {
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(index);
    hook.attach_point = BPF_TC_INGRESS;
    return hook;
}

bpf_tc_opts our_filter() {
    bpf_tc_opts options{};
    options.sz = sizeof(options);
    options.handle = kHandle;
    options.priority = kPriority;
    return options;
}

std::vector<std::uint32_t> keys_of(int map) {
    std::vector<std::uint32_t> keys;
    std::uint32_t key = 0;
    const std::uint32_t* last = nullptr;
    while (bpf_map_get_next_key(map, last, &key) == 0) {
        keys.push_back(key);
        last = &key;
    }
    return keys;
}

}  // namespace

std::string Attacher::pin_of(std::uint32_t index) const {
    return pins_ + "/xdp-" + std::to_string(index);
}

Result<void> Attacher::attach_tc(const Link& link) {
    bpf_tc_hook hook = hook_of(link.index);
    if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST) {
        return failure(-error, link.name + ": adding the qdisc clsact");
    }
    bpf_tc_opts filter = our_filter();
    filter.prog_fd = object_->program(link.raw ? "relay_raw" : "relay_tc");
    filter.flags = BPF_TC_F_REPLACE;
    if (const int error = bpf_tc_attach(&hook, &filter); error != 0) {
        return failure(-error, link.name + ": adding the tc filter");
    }
    return {};
}

Result<void> Attacher::attach_xdp(const Link& link) {
    const int program = object_->program("relay_xdp");
    const std::string pin = pin_of(link.index);
    const ctl::UniqueFd pinned(bpf_obj_get(pin.c_str()));
    bpf_link_info info{};
    __u32 size = sizeof(info);
    // A link whose interface is gone has the number 0.
    if (pinned && bpf_obj_get_info_by_fd(pinned.get(), &info, &size) == 0 &&
        info.xdp.ifindex == link.index && bpf_link_update(pinned.get(), program, nullptr) == 0) {
        return {};
    }
    unlink(pin.c_str());
    bpf_link_create_opts options{};
    options.sz = sizeof(options);
    options.flags = XDP_FLAGS_DRV_MODE;
    const ctl::UniqueFd made(
        bpf_link_create(program, static_cast<int>(link.index), BPF_XDP, &options));
    if (!made) {
        return failure(errno, link.name + ": native XDP");
    }
    if (bpf_obj_pin(made.get(), pin.c_str()) != 0) {
        return failure(errno, "pinning " + pin);
    }
    return {};
}

Result<void> Attacher::remember(const Link& link, bool xdp) {
    const std::uint32_t how = xdp ? FLOW_TC | FLOW_XDP : FLOW_TC;
    if (bpf_map_update_elem(object_->map("interfaces"), &link.index, &how, BPF_ANY) != 0) {
        return failure(errno, link.name + ": the map interfaces");
    }
    return {};
}

Result<Attached> Attacher::attach(const Link& link, Attach how) {
    if (auto attached = attach_tc(link); !attached) {
        return attached.error();
    }
    Attached done{link.name, Attach::Tc, "as configured"};
    bool xdp = how == Attach::Xdp;
    if (link.below != 0) {
        done.why = "VLAN: if there is XDP, it is on the link below";
        xdp = false;
    } else if (how == Attach::Auto) {
        done.why = link.against_xdp();
        xdp = done.why.empty();
    }
    if (xdp) {
        auto attached = attach_xdp(link);
        if (!attached && how == Attach::Xdp) {
            return attached.error();
        }
        xdp = static_cast<bool>(attached);
        done.how = xdp ? Attach::Xdp : Attach::Tc;
        if (how == Attach::Auto) {
            done.why =
                xdp ? link.driver + ": native XDP costs it nothing" : attached.error().message;
        }
    }
    if (!xdp) {
        unlink(pin_of(link.index).c_str());
    }
    if (auto remembered = remember(link, xdp); !remembered) {
        return remembered.error();
    }
    return done;
}

bool Attacher::has_xdp(std::uint32_t index) const {
    std::uint32_t how = 0;
    return bpf_map_lookup_elem(object_->map("interfaces"), &index, &how) == 0 &&
           (how & FLOW_XDP) != 0;
}

Result<void> Attacher::set_ways(const std::vector<Link>& links) {
    const int map = object_->map("ways");
    std::vector<std::uint32_t> kept;
    for (const auto& link : links) {
        flow_way way{};
        way.link = link.below != 0 ? link.below : link.index;
        if (!has_xdp(way.link)) {
            continue;
        }
        way.tag = htons(link.tag);
        way.tag_protocol = htons(link.tag_protocol);
        std::copy(link.mac.begin(), link.mac.end(), std::begin(way.mac));
        if (bpf_map_update_elem(map, &link.index, &way, BPF_ANY) != 0) {
            return failure(errno, link.name + ": the map ways");
        }
        kept.push_back(link.index);
    }
    for (const auto key : keys_of(map)) {
        if (std::find(kept.begin(), kept.end(), key) == kept.end()) {
            bpf_map_delete_elem(map, &key);
        }
    }
    return {};
}

void Attacher::detach(std::uint32_t index) {
    unlink(pin_of(index).c_str());
    const bpf_tc_hook hook = hook_of(index);
    const bpf_tc_opts filter = our_filter();
    // What is gone with its interface is gone.
    bpf_tc_detach(&hook, &filter);
    bpf_map_delete_elem(object_->map("interfaces"), &index);
}

void Attacher::keep(const std::vector<Link>& links) {
    for (const auto index : keys_of(object_->map("interfaces"))) {
        if (std::none_of(links.begin(), links.end(),
                         [index](const Link& link) { return link.index == index; })) {
            detach(index);
        }
    }
}

}  // namespace mobility::proxy
