// SPDX-License-Identifier: GPL-2.0-or-later
// Tickets: a host that a server admits has it admit its peer too, for one pair and
// for some time. The peer shows the ticket to the server; the two need not know each
// other, and nobody asks the issuer again.
//
// A ticket names its issuer by key, its guest, the pair and the end of its time, and
// is signed by the issuer. It is of no use to anybody but the guest, whose name the
// channel proves, so that it need not be kept secret.
#pragma once

#include <chrono>

#include "libmobility/identity.hpp"
#include "libmobility/pair.hpp"
#include "libmobility/signature.hpp"

namespace mobility {

struct Ticket {
    PublicKey issuer{};
    Name guest;
    PairId pair{};
    std::chrono::sys_seconds expires;
    Signature signature{};

    bool operator==(const Ticket&) const = default;
};

/// Signs one. ENOMEM if OpenSSL cannot.
Result<Ticket> issue(const Identity& issuer, const Name& guest, const PairId& pair,
                     std::chrono::sys_seconds expires);

/// Who it says has issued it; for is_signed() to say whether that is so. EPROTO if its
/// key cannot be one.
Result<Name> issuer_of(const Ticket& ticket);

/// Is it signed by the key that it names? Costs a hundred times what issuer_of() does.
bool is_signed(const Ticket& ticket);

}  // namespace mobility
