// SPDX-License-Identifier: GPL-2.0-or-later
// A daemon's log: a line per event, with what it concerns as key=value, so that both
// people and programs can read it.
#pragma once

#include <spdlog/logger.h>

#include <memory>

namespace mobility {

using Log = std::shared_ptr<spdlog::logger>;

}  // namespace mobility
