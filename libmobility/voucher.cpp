// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/voucher.hpp"

#include <cerrno>

namespace mobility {

namespace {

using tcpmigrate::make_error;

/// What is signed. The label keeps a voucher from meaning anything elsewhere.
Bytes signed_part(const Voucher& voucher, const Name& host) {
    Bytes bytes("tcp-migrate voucher 1");
    bytes.add(voucher.server).add(host.bytes()).add(voucher.since).add(voucher.expires);
    return bytes;
}

/// What is wrong with its times; null if nothing is.
const char* bad_times(const Voucher& voucher, std::chrono::sys_seconds now) {
    if (voucher.expires <= voucher.since || voucher.expires - voucher.since > kLongestVoucher) {
        return "is for no time, or for more than 7 days";
    }
    if (voucher.since > now + kClocks) {
        return "is not good yet: are the clocks right?";
    }
    return voucher.expires + kClocks < now ? "has expired" : nullptr;
}

}  // namespace

Result<Voucher> vouch(const Identity& server, const Name& host, std::chrono::sys_seconds since,
                      std::chrono::sys_seconds expires) {
    const auto key = public_key(server);
    if (!key) {
        return key.error();
    }
    Voucher voucher{*key, since, expires, {}};
    const auto signature = sign(server, signed_part(voucher, host));
    if (!signature) {
        return signature.error();
    }
    voucher.signature = *signature;
    return voucher;
}

bool is_signed_for(const Voucher& voucher, const Name& host) {
    return is_signed(voucher.server, signed_part(voucher, host), voucher.signature);
}

Result<Vouched> check_vouchers(const std::vector<Voucher>& shown, const Name& host,
                               const std::set<Name>& trusted, std::chrono::sys_seconds now) {
    auto why = make_error(ENOENT, shown.empty() ? "it has shown no voucher"
                                                : "its vouchers are of servers not trusted here");
    for (const auto& voucher : shown) {
        // What costs least is asked first.
        const auto by = name_of(voucher.server);
        if (!by || !trusted.contains(*by)) {
            continue;
        }
        const std::string named = "its voucher of " + by->to_string() + " ";
        if (const auto* bad = bad_times(voucher, now)) {
            why = make_error(EACCES, named + bad);
        } else if (!is_signed_for(voucher, host)) {
            // Whoever forges one, or shows another host's, shall not have the others looked at.
            return make_error(EACCES, named + "is not signed by that server for this host");
        } else {
            return Vouched{*by, voucher.expires};
        }
    }
    return why;
}

}  // namespace mobility
