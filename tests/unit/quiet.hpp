// SPDX-License-Identifier: GPL-2.0-or-later
// A log that nobody reads.
#pragma once

#include <spdlog/sinks/null_sink.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "libmobility/log.hpp"

namespace mobility {

inline Log quiet() {
    return std::make_shared<spdlog::logger>("test",
                                            std::make_shared<spdlog::sinks::null_sink_mt>());
}

}  // namespace mobility
