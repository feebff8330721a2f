// SPDX-License-Identifier: GPL-2.0-or-later
// What two hosts agree on before a move (A2.1): the ID of their pair, and the
// proof that a connection belongs to it.
#pragma once

#include <array>
#include <boost/asio/ip/address.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "libmobility/identity.hpp"

namespace mobility {

/// One end's part of a pair ID.
struct PairPart {
    Name host;
    boost::asio::ip::address address;       ///< at which it was when the pair was made
    std::array<std::uint8_t, 16> random{};  ///< its own 128 random bits

    bool operator==(const PairPart&) const = default;
};

/// First 16 bytes of SHA-256 over both ends' parts. It cannot be aimed: either end
/// has put random bits in, so nobody can make two pairs have one ID.
using PairId = std::array<std::uint8_t, 16>;

/// The same whichever end is named first: the end with the smaller name leads.
PairId pair_id(const PairPart& one, const PairPart& other);

/// Of the channel's exporter value that becomes the pair key.
constexpr std::string_view kPairKeyLabel = "EXPORTER-tcp-migrate-pair-key";

/// The end of a TCP connection that a proof speaks for.
enum class Role : std::uint8_t { Opener = 0, Accepter = 1 };

using Proof = std::array<std::uint8_t, 32>;

/// HMAC-SHA-256, keyed by the connection's exporter value (docs/protocol.md,
/// section 4), over the prover's role, the channel's TLS exporter (RFC 9266), the
/// prover's name and its peer's. Only who has a connection's key can make it, and it
/// holds for this channel and these two hosts alone.
Proof prove(std::span<const std::uint8_t, 32> connection_exporter, Role prover_role,
            std::span<const std::uint8_t, 32> channel_exporter, const Name& prover,
            const Name& peer);

/// In constant time.
bool equal(const Proof& one, const Proof& other);

}  // namespace mobility
