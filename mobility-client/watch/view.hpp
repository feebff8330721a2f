// SPDX-License-Identifier: GPL-2.0-or-later
// What of a host's state matters to connections: the places they can use now, and which
// addresses are none of ours. Pure: time is an argument. Each view is made from the state
// and the view before, from which it takes since when a place does not work.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "watch/config.hpp"
#include "watch/host_state.hpp"

namespace mobility::watch {

/// How far packets get from a place.
enum class Reach { Nowhere, Near, Everywhere };

/// A local address on an interface that may lead out.
struct Place {
    Address address{};
    std::uint8_t length = 0;  ///< of the address' prefix
    unsigned index = 0;
    std::string interface_name{};
    int rank = 0;  ///< the interface's, as configured
    /// Of the default route that new connections by this interface take; if there is none,
    /// the highest.
    std::uint32_t metric = UINT32_MAX;
    bool present = true;     ///< false: it is gone, but may come back soon (held)
    bool tentative = false;  ///< nobody can move there yet; who is there can stay
    bool deprecated = false;
    bool secondary = false;
    bool temporary = false;
    bool prefers_temporary = false;     ///< the interface does
    Reach reach = Reach::Nowhere;       ///< Near: only where routes other than default lead
    std::optional<Address> gateway{};   ///< of the default route
    bool held = false;                  ///< it does not work as it did, which may pass soon
    Time lost{};                        ///< ... since then
    Reach lost_reach = Reach::Nowhere;  ///< ... and so far it reached before

    bool operator==(const Place&) const = default;
};

struct View {
    bool known = false;         ///< false: nothing has been read yet
    std::vector<Place> places;  ///< in the kernel's order
    /// Addresses that are left alone, also those that have been here (the latest).
    std::vector<Address> others;
    Routing routing;
    Duration hold{};  ///< as configured

    /// Do packets from there to the peer leave by the place's interface?
    [[nodiscard]] bool works(const Place& place, const Address& peer, bool bound = false) const;
    /// The place of that address and interface.
    [[nodiscard]] const Place* find(const Address& address, unsigned index) const;
    /// Where connections can move to, the preferred first (by rank and metric; a peer may
    /// have a route of its own, which decide() respects).
    [[nodiscard]] std::vector<const Place*> usable() const;
    /// Can anybody leave in that family?
    [[nodiscard]] bool leads_out(bool v6) const;
    /// When time alone changes something: make the view anew then.
    [[nodiscard]] std::optional<Time> next() const;

    bool operator==(const View&) const = default;
};

/// Loopback, link-local, multicast, unspecified: never a way out.
[[nodiscard]] bool is_confined(const Address& address);

/// What is so now. `before`: the view that was made last.
[[nodiscard]] View make_view(const HostState& state, const Config& config, const View& before,
                             Time now);

/// Has something become possible that was not: a place, a longer reach, another route?
[[nodiscard]] bool gained(const View& before, const View& after);

}  // namespace mobility::watch
