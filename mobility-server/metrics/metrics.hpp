// SPDX-License-Identifier: GPL-2.0-or-later
// What the server counts, for Prometheus. Whoever asks can learn numbers and where the proxies
// are, no names.
#pragma once

#include <string>

#include "proxies/proxies.hpp"
#include "service/service.hpp"

namespace mobility::server {

/// Everything, in Prometheus' text format.
std::string metrics_text(const Service& service, const Proxies* proxies = nullptr);

}  // namespace mobility::server
