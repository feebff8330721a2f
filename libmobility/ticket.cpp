// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/ticket.hpp"

#include <cerrno>
#include <string_view>

#include "libmobility/bytes.hpp"

namespace mobility {

namespace {

using Digest = std::unique_ptr<EVP_MD_CTX, FreedBy<EVP_MD_CTX_free>>;

/// What is signed. The label keeps a ticket from meaning anything elsewhere.
Bytes signed_part(const Ticket& ticket) {
    Bytes bytes("tcp-migrate ticket 1");
    bytes.add(ticket.issuer).add(ticket.guest.bytes()).add(ticket.pair);
    const auto seconds = static_cast<std::uint64_t>(ticket.expires.time_since_epoch().count());
    for (int shift = 56; shift >= 0; shift -= 8) {
        bytes.add(static_cast<std::uint8_t>(seconds >> shift));
    }
    return bytes;
}

Key key_of(const Ticket& ticket) {
    return Key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, ticket.issuer.data(),
                                           ticket.issuer.size()));
}

}  // namespace

Result<Ticket> issue(const Identity& issuer, const Name& guest, const PairId& pair,
                     std::chrono::sys_seconds expires) {
    Ticket ticket{{}, guest, pair, expires, {}};
    std::size_t key_size = ticket.issuer.size();
    std::size_t size = ticket.signature.size();
    const Digest digest(EVP_MD_CTX_new());
    if (!digest ||
        EVP_PKEY_get_raw_public_key(&issuer.key(), ticket.issuer.data(), &key_size) != 1) {
        return tcpmigrate::make_error(ENOMEM, "cannot sign a ticket: " + complaint());
    }
    const auto bytes = signed_part(ticket);
    if (EVP_DigestSignInit(digest.get(), nullptr, nullptr, nullptr, &issuer.key()) != 1 ||
        EVP_DigestSign(digest.get(), ticket.signature.data(), &size, bytes.get().data(),
                       bytes.get().size()) != 1) {
        return tcpmigrate::make_error(ENOMEM, "cannot sign a ticket: " + complaint());
    }
    return ticket;
}

Result<Name> issuer_of(const Ticket& ticket) {
    const auto key = key_of(ticket);
    if (!key) {
        return tcpmigrate::make_error(EPROTO, "a ticket's key is none: " + complaint());
    }
    return Name::of(*key);
}

bool is_signed(const Ticket& ticket) {
    const auto key = key_of(ticket);
    const Digest digest(EVP_MD_CTX_new());
    const auto bytes = signed_part(ticket);
    const bool good =
        key && digest &&
        EVP_DigestVerifyInit(digest.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
        EVP_DigestVerify(digest.get(), ticket.signature.data(), ticket.signature.size(),
                         bytes.get().data(), bytes.get().size()) == 1;
    ERR_clear_error();
    return good;
}

}  // namespace mobility
