// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/host_state.hpp"

#include <algorithm>

namespace mobility::watch {

namespace {

bool same(const HostAddress& a, const HostAddress& b) {
    return a.ip == b.ip && a.index == b.index && a.length == b.length;
}

}  // namespace

bool HostState::apply(const Change& change_) {
    return std::visit([&](const auto& what) { return change(change_.how, what); }, change_.what);
}

bool HostState::change(Change::How how, const Link& link) {
    if (how == Change::How::Remove) {
        remove_link(link.index);
        return true;
    }
    auto& known = links_[link.index];
    // Some messages (those of wireless events) do not say everything.
    const auto kind = link.kind.empty() ? known.kind : link.kind;
    const auto temporary =
        link.prefers_temporary ? link.prefers_temporary : known.prefers_temporary;
    known = link;
    known.kind = kind;
    known.prefers_temporary = temporary;
    if (!link.up) {
        routing_.remove_interface(link.index, false);
        routing_.remove_interface(link.index, true);
    }
    return true;
}

void HostState::remove_link(unsigned index) {
    links_.erase(index);
    std::erase_if(addresses_, [index](const HostAddress& a) { return a.index == index; });
    for (const bool v6 : {false, true}) {
        routing_.remove_interface(index, v6);
        ignores_linkdown_.erase({v6, index});
    }
}

bool HostState::change(Change::How how, const HostAddress& address) {
    const auto known =
        std::ranges::find_if(addresses_, [&](const HostAddress& a) { return same(a, address); });
    if (how != Change::How::Remove && known != addresses_.end()) {
        *known = address;
    } else if (how != Change::How::Remove) {
        addresses_.push_back(address);
    } else if (known != addresses_.end()) {
        addresses_.erase(known);
        after_removal(address);
    }
    return true;
}

void HostState::after_removal(const HostAddress& address) {
    const auto none = [this](auto what) { return std::ranges::none_of(addresses_, what); };
    if (none([&](const HostAddress& a) { return a.ip == address.ip; })) {
        routing_.remove_source(address.ip);
    }
    if (!address.ip.is_v6() &&
        none([&](const HostAddress& a) { return a.index == address.index && !a.ip.is_v6(); })) {
        routing_.remove_interface(address.index, false);
    }
}

bool HostState::change(Change::How how, const Route& route) {
    if (how == Change::How::Remove) {
        routing_.remove(route);
        return true;
    }
    const bool sure = how != Change::How::Replace || routing_.remove_replaced(route);
    routing_.add(route);
    return sure;
}

bool HostState::change(Change::How how, const Rule& rule) {
    if (how == Change::How::Remove) {
        routing_.remove(rule);
    } else {
        routing_.add(rule);
    }
    return true;
}

bool HostState::change(Change::How how, const Linkdown& linkdown) {
    if (how != Change::How::Remove && linkdown.ignores) {
        ignores_linkdown_.insert({linkdown.v6, linkdown.index});
    } else {
        ignores_linkdown_.erase({linkdown.v6, linkdown.index});
    }
    return true;
}

Routing HostState::live_routing() const {
    auto live = routing_;
    for (const auto& [index, link] : links_) {
        for (const bool v6 : {false, true}) {
            const bool ignores = ignores_linkdown_.contains({v6, index}) ||
                                 (!v6 && ignores_linkdown_.contains({v6, 0}));
            if (!link.running && ignores) {
                live.remove_interface(index, v6);
            }
        }
    }
    return live;
}

}  // namespace mobility::watch
