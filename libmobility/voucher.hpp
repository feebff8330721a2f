// SPDX-License-Identifier: GPL-2.0-or-later
// Vouchers: a server that admits a host gives it its word, signed, that it does. The host
// shows it to peers that it has never met; who trusts that server for this then knows the
// host for one of those that the server admits. The server need not be asked.
//
// The name of the host is signed, but not in the voucher: whoever checks one does so for
// the name that the channel has proved, and cannot forget to compare. So a voucher is of no
// use to anybody else, and need not be kept secret. It is short-lived instead of revoked.
#pragma once

#include <chrono>
#include <set>
#include <vector>

#include "libmobility/identity.hpp"
#include "libmobility/signature.hpp"

namespace mobility {

struct Voucher {
    PublicKey server{};
    std::chrono::sys_seconds since;
    std::chrono::sys_seconds expires;
    Signature signature{};

    bool operator==(const Voucher&) const = default;
};

/// One for longer is not taken: what a server has signed by mistake, or when somebody else
/// was at it, shall not stay good for ever.
constexpr std::chrono::hours kLongestVoucher{7 * 24};

/// Signs one for this host. ENOMEM if OpenSSL cannot.
Result<Voucher> vouch(const Identity& server, const Name& host, std::chrono::sys_seconds since,
                      std::chrono::sys_seconds expires);

/// Has the server that it names signed it, for this host?
bool is_signed_for(const Voucher& voucher, const Name& host);

/// That a server vouches for a host, and until when.
struct Vouched {
    Name by;
    std::chrono::sys_seconds expires;

    /// Clocks may differ here as well.
    [[nodiscard]] bool good(std::chrono::sys_seconds now) const { return now <= expires + kClocks; }
    bool operator==(const Vouched&) const = default;
};

/// By the first that is good of those that this host has shown. ENOENT if none is of a server
/// that is trusted, EACCES if one is and is not good: each says why, for people.
Result<Vouched> check_vouchers(const std::vector<Voucher>& shown, const Name& host,
                               const std::set<Name>& trusted, std::chrono::sys_seconds now);

}  // namespace mobility
