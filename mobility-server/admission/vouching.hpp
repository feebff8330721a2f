// SPDX-License-Identifier: GPL-2.0-or-later
// For whom the server vouches: it signs that it admits them, for some time, so that hosts
// which trust it for this know each other at their first meeting. Never for guests, who are
// let in by hosts and not by whoever runs the server. Who is taken off the lists gets no
// other voucher; the last one runs out.
#pragma once

#include <chrono>
#include <optional>

#include "admission/admission.hpp"
#include "libmobility/identity.hpp"
#include "libmobility/voucher.hpp"

namespace mobility::server {

struct VouchingConfig {
    enum class Hosts : std::uint8_t { Nobody, Listed, Admitted };

    Hosts hosts = Hosts::Nobody;
    std::chrono::steady_clock::duration good_for = std::chrono::hours(12);

    bool operator==(const VouchingConfig&) const = default;
};

class Vouching {
  public:
    /// The Identity outlives it.
    Vouching(const Identity& identity, const VouchingConfig& config)
        : identity_(identity), config_(config) {}
    /// From now on.
    void set(const VouchingConfig& config) { config_ = config; }

    /// For this host, which was let in so. Nothing if the server does not vouch for it; ENOMEM
    /// if it cannot sign.
    [[nodiscard]] Result<std::optional<Voucher>> voucher(Admitted::As as, const Name& host,
                                                         std::chrono::sys_seconds now) const;

  private:
    const Identity& identity_;
    VouchingConfig config_;
};

}  // namespace mobility::server
