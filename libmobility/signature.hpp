// SPDX-License-Identifier: GPL-2.0-or-later
// What one host has signed and others check: tickets and vouchers. Whoever has signed is
// named by its public key, which goes along, so that nobody needs to know it before.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "libmobility/bytes.hpp"
#include "libmobility/identity.hpp"

namespace mobility {

using PublicKey = std::array<std::uint8_t, 32>;  ///< Ed25519, raw
using Signature = std::array<std::uint8_t, 64>;

/// Allowed for in the times of what is signed: clocks of hosts differ.
constexpr std::chrono::minutes kClocks{10};

/// ENOMEM if OpenSSL cannot.
Result<PublicKey> public_key(const Identity& identity);
Result<Signature> sign(const Identity& identity, const Bytes& bytes);

/// Whose key it is. EPROTO if it cannot be one.
Result<Name> name_of(const PublicKey& key);
/// Has this key signed these bytes? Costs a hundred times what name_of() does.
bool is_signed(const PublicKey& key, const Bytes& bytes, const Signature& signature);

}  // namespace mobility
