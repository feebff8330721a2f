// SPDX-License-Identifier: GPL-2.0-or-later
// rtnetlink messages as changes of a HostState. Pure: bytes go in, of any content; nothing
// is read past them.
//
// By libnl's core alone, not libnl-route: its caches and objects would hide what matters
// here (what a route replaces, dumps that were interrupted, messages that were lost) and
// cost more than the handful of attributes that are needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "watch/host_state.hpp"

namespace mobility::watch {

/// What one datagram has said.
struct Decoded {
    std::vector<Change> changes;
    bool unsure = false;       ///< something has changed that is not followed here: read anew
    bool done = false;         ///< a dump has ended
    bool interrupted = false;  ///< ... but things changed meanwhile: read anew
    int error = 0;             ///< ... or was refused: an errno
};

/// Decodes a datagram. `sequence`: of the request whose answer is wanted; 0: of none.
[[nodiscard]] Decoded decode(std::span<const std::byte> datagram, std::uint32_t sequence);

}  // namespace mobility::watch
