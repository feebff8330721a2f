// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/view.hpp"

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <utility>

namespace mobility::watch {

namespace {

constexpr std::size_t kOthers = 256;  ///< addresses that are remembered as not ours

unsigned byte(const Address& address, std::size_t at) {
    return std::to_integer<unsigned>(address.bytes()[at]);
}

class Maker {
  public:
    Maker(const HostState& state, const Config& config, const View& before, Time now)
        : state_(state), config_(config), before_(before), now_(now) {}

    View make() {
        view_.known = true;
        view_.hold = config_.hold;
        view_.routing = state_.live_routing();
        for (const auto& address : state_.addresses()) {
            take(address);
        }
        for (const auto& place : before_.places) {
            keep_gone(place);
        }
        keep_others();
        return std::move(view_);
    }

  private:
    void take(const HostAddress& address) {
        const auto link = state_.links().find(address.index);
        if (link == state_.links().end()) {
            return;  // it will be told of
        }
        const auto& rule = config_.rule_for(link->second.name, link->second.kind);
        if (address.confined || is_confined(address.ip) || !rule.use) {
            leave_alone(address.ip);
            return;
        }
        Place place{.address = address.ip,
                    .length = address.length,
                    .index = address.index,
                    .interface_name = link->second.name,
                    .rank = rule.rank,
                    .tentative = address.tentative,
                    .deprecated = address.deprecated,
                    .secondary = address.secondary,
                    .temporary = address.temporary,
                    .prefers_temporary = prefers_temporary(link->second)};
        if (link->second.up && link->second.running && !address.failed) {
            find_reach(place);
        }
        const auto* was = before_.find(address.ip, address.index);
        // Who sets a link down, or finds a duplicate, does not take it back soon.
        if (was != nullptr && link->second.up && !address.failed) {
            hold(place, *was);
        }
        view_.places.push_back(place);
    }

    [[nodiscard]] bool prefers_temporary(const Link& link) const {
        switch (config_.temporary) {
            case Config::Temporary::Prefer:
                return true;
            case Config::Temporary::Avoid:
                return false;
            case Config::Temporary::AsKernel:
                break;
        }
        return link.prefers_temporary.value_or(false);
    }

    void find_reach(Place& place) const {
        const Query anywhere{.v6 = place.address.is_v6(), .from = place.address};
        if (const auto* route = view_.routing.find(anywhere, place.index)) {
            place.reach = Reach::Everywhere;
            place.gateway = route->gateway;
        } else if (view_.routing.leads_by(place.index, place.address.is_v6())) {
            place.reach = Reach::Near;
        }
        const Query of_new{.v6 = place.address.is_v6(), .bound = true};
        if (const auto* route = view_.routing.find(of_new, place.index)) {
            place.metric = route->metric;
        }
    }

    /// A loss begins, or goes on: so long as the place has not got back what it had, and
    /// not for longer because it gets worse.
    void hold(Place& place, const Place& was) const {
        if (was.held && place.reach < was.lost_reach) {
            place.lost = was.lost;
            place.lost_reach = was.lost_reach;
        } else if (place.reach < was.reach) {
            place.lost = now_;
            place.lost_reach = was.reach;
        }
        place.held = place.reach < place.lost_reach && now_ < place.lost + config_.hold;
        if (!place.held) {
            place.lost = {};
            place.lost_reach = Reach::Nowhere;
        }
    }

    /// An address that was taken from an interface that goes on: another may come.
    void keep_gone(const Place& was) {
        const auto link = state_.links().find(was.index);
        const bool here = view_.find(was.address, was.index) != nullptr ||
                          std::ranges::find(view_.others, was.address) != view_.others.end();
        if (here || link == state_.links().end() || !link->second.up || !link->second.running) {
            return;
        }
        auto gone = was;
        gone.present = false;
        gone.reach = Reach::Nowhere;
        gone.gateway.reset();
        hold(gone, was);
        if (gone.held) {
            view_.places.push_back(gone);
        }
    }

    void leave_alone(const Address& address) {
        if (std::ranges::find(view_.others, address) == view_.others.end()) {
            view_.others.push_back(address);
        }
    }

    void keep_others() {
        for (const auto& address : before_.others) {
            if (view_.others.size() < kOthers) {
                leave_alone(address);
            }
        }
        std::erase_if(view_.others, [this](const Address& address) {
            return std::ranges::find(view_.places, address, &Place::address) != view_.places.end();
        });
    }

    const HostState& state_;
    const Config& config_;
    const View& before_;
    Time now_;
    View view_;
};

/// Could somebody have moved there?
bool is_open(const Place& place) {
    return place.present && !place.tentative && place.reach != Reach::Nowhere;
}

}  // namespace

bool is_confined(const Address& address) {
    const auto first = byte(address, 0);
    const auto second = byte(address, 1);
    if (!address.is_v6()) {
        return first == 0 || first == 127 || (first == 169 && second == 254) || first >= 224;
    }
    const bool low = std::ranges::all_of(address.bytes().first(15),
                                         [](std::byte b) { return b == std::byte{0}; });
    return (low && byte(address, 15) <= 1) || (first == 0xfe && second >> 6 == 2) || first == 0xff;
}

bool View::works(const Place& place, const Address& peer, bool bound) const {
    const Query query{.v6 = peer.is_v6(), .from = place.address, .to = peer, .bound = bound};
    return place.present && place.reach != Reach::Nowhere &&
           place.address.is_v6() == peer.is_v6() && routing.find(query, place.index) != nullptr;
}

const Place* View::find(const Address& address, unsigned index) const {
    const auto found = std::ranges::find_if(
        places, [&](const Place& p) { return p.index == index && p.address == address; });
    return found == places.end() ? nullptr : &*found;
}

std::vector<const Place*> View::usable() const {
    std::vector<const Place*> open;
    for (const auto& place : places) {
        if (is_open(place)) {
            open.push_back(&place);
        }
    }
    const auto merit = [](const Place* p) {
        return std::tuple(p->deprecated, p->reach != Reach::Everywhere, p->rank, p->metric);
    };
    std::ranges::stable_sort(open, {}, merit);
    return open;
}

bool View::leads_out(bool v6) const {
    return std::ranges::any_of(places, [v6](const Place& p) {
        return p.address.is_v6() == v6 && is_open(p) && p.reach == Reach::Everywhere;
    });
}

std::optional<Time> View::next() const {
    std::optional<Time> first;
    for (const auto& place : places) {
        if (place.held && (!first || place.lost + hold < *first)) {
            first = place.lost + hold;
        }
    }
    return first;
}

View make_view(const HostState& state, const Config& config, const View& before, Time now) {
    return Maker(state, config, before, now).make();
}

bool gained(const View& before, const View& after) {
    const auto better = [&](const Place& place) {
        const auto* was = before.find(place.address, place.index);
        return is_open(place) && (was == nullptr || !is_open(*was) || was->reach < place.reach);
    };
    const auto other_route = [&](const Route& route) {
        const auto of_place = [&](const Place& p) { return p.index == route.index; };
        return std::ranges::any_of(after.places, of_place) && !before.routing.contains(route);
    };
    return std::ranges::any_of(after.places, better) ||
           (before.routing != after.routing &&
            std::ranges::any_of(after.routing.routes(), other_route));
}

}  // namespace mobility::watch
