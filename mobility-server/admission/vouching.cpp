// SPDX-License-Identifier: GPL-2.0-or-later
#include "admission/vouching.hpp"

namespace mobility::server {

Result<std::optional<Voucher>> Vouching::voucher(Admitted::As as, const Name& host,
                                                 std::chrono::sys_seconds now) const {
    using Hosts = VouchingConfig::Hosts;
    const bool wanted = (as == Admitted::As::Listed && config_.hosts != Hosts::Nobody) ||
                        (as == Admitted::As::Enrolled && config_.hosts == Hosts::Admitted);
    if (!wanted) {
        return std::optional<Voucher>();
    }
    const auto expires = now + std::chrono::duration_cast<std::chrono::seconds>(config_.good_for);
    const auto made = vouch(identity_, host, now, expires);
    return made ? Result<std::optional<Voucher>>(*made) : made.error();
}

}  // namespace mobility::server
