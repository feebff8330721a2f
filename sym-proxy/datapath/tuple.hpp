// SPDX-License-Identifier: GPL-2.0-or-later
// Tuples as the maps have them, and back.
#pragma once

#include "data_path.hpp"
#include "flow.h"

namespace mobility::proxy {

[[nodiscard]] flow_key to_key(const Tuple& tuple);
[[nodiscard]] Tuple to_tuple(const flow_key& key);
/// A flow that nothing has passed yet: its ways, and what they change in checksums.
[[nodiscard]] flow make_flow(const Tuple& in, const Tuple& out, std::uint32_t relay);
/// As segments of this flow leave.
[[nodiscard]] Tuple out_of(const flow_key& key, const flow& flow);

/// An address in 16 bytes; IPv4 as IPv4-mapped.
void put_address(const Address& address, std::span<std::uint8_t, 16> to);

}  // namespace mobility::proxy
