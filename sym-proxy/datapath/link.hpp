// SPDX-License-Identifier: GPL-2.0-or-later
// What is to be known of an interface before something is attached to it.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tcpmigrate/result.hpp"

namespace mobility::proxy {

struct Link {
    std::string name;
    std::uint32_t index = 0;
    bool raw = false;    ///< no link layer: packets begin with the IP header
    std::string driver;  ///< of ethtool, such as veth or ixgbe
    bool hardware = false;
    bool merges = false;  ///< the driver, or the hardware, joins segments that come in
    std::array<std::uint8_t, 6> mac{};
    // Of a VLAN:
    std::uint32_t below = 0;         ///< the interface it is on; 0: it is none
    std::uint16_t tag = 0;           ///< its number
    std::uint16_t tag_protocol = 0;  ///< host byte order

    static tcpmigrate::Result<Link> look_at(const std::string& name);
    /// Why XDP would cost it something, for people; empty if it would not.
    [[nodiscard]] std::string against_xdp() const;
};

}  // namespace mobility::proxy
