// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/ticket.hpp"

namespace mobility {

namespace {

/// What is signed. The label keeps a ticket from meaning anything elsewhere.
Bytes signed_part(const Ticket& ticket) {
    Bytes bytes("tcp-migrate ticket 1");
    bytes.add(ticket.issuer).add(ticket.guest.bytes()).add(ticket.pair).add(ticket.expires);
    return bytes;
}

}  // namespace

Result<Ticket> issue(const Identity& issuer, const Name& guest, const PairId& pair,
                     std::chrono::sys_seconds expires) {
    const auto key = public_key(issuer);
    if (!key) {
        return key.error();
    }
    Ticket ticket{*key, guest, pair, expires, {}};
    const auto signature = sign(issuer, signed_part(ticket));
    if (!signature) {
        return signature.error();
    }
    ticket.signature = *signature;
    return ticket;
}

Result<Name> issuer_of(const Ticket& ticket) {
    return name_of(ticket.issuer);
}

bool is_signed(const Ticket& ticket) {
    return is_signed(ticket.issuer, signed_part(ticket), ticket.signature);
}

}  // namespace mobility
