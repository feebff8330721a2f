// SPDX-License-Identifier: GPL-2.0-or-later
// What the parts of the server's memory have in common.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace mobility::server {

using Time = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;
using ChannelId = std::uint64_t;

struct Limits {
    std::size_t pairs_per_host = 64;
    std::size_t pairs = 100'000;
    Duration keep = std::chrono::minutes(2);          ///< after the last word about a pair
    Duration silence = std::chrono::seconds(5);       ///< until a peer counts as silent
    Duration slack = std::chrono::milliseconds(200);  ///< of a step, beyond two round trips
    bool proxies = false;                             ///< are there some that could relay?
    bool crossing = true;                             ///< shall relayed hosts try without?

    bool operator==(const Limits&) const = default;
};

}  // namespace mobility::server
