// SPDX-License-Identifier: GPL-2.0-or-later
// Puts IP fragments together again (RFC 791, RFC 8200), since only a whole segment can be
// told to be anybody's. Fragments that overlap take their packet with them (RFC 5722).
//
// Bounded: packets that wait for more, and for how long. Not thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>

#include "relay/segment.hpp"

namespace mobility::proxy {

class Fragments {
  public:
    using Time = std::chrono::steady_clock::time_point;

    static constexpr std::size_t kMost = 256;   ///< packets
    static constexpr std::size_t kPieces = 64;  ///< of one packet
    static constexpr auto kLife = std::chrono::seconds(30);

    /// The packet without a trace of fragments, if this was all that it lacked.
    std::optional<Octets> add(View fragment, Time now);
    /// Whose rest has not come in time is given up.
    void expire(Time now);

    [[nodiscard]] std::size_t waiting() const { return packets_.size(); }
    /// Packets that came to nothing, and fragments that are none.
    [[nodiscard]] std::uint64_t lost() const { return lost_; }

  private:
    using Key = std::tuple<Address, Address, std::uint32_t>;  ///< from, to, identification
    struct Packet {
        Time since;
        Octets header;                         ///< once the first one is there
        std::map<std::size_t, Octets> pieces;  ///< by offset
        std::optional<std::size_t> size;       ///< once the last one is there
    };
    using Packets = std::map<Key, Packet>;

    Packets::iterator find(const Key& key, Time now);
    static bool insert(Packet& packet, std::size_t offset, View data, bool last);
    static std::optional<Octets> whole(const Packet& packet);

    Packets packets_;
    std::uint64_t lost_ = 0;
};

}  // namespace mobility::proxy
