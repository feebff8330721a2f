// SPDX-License-Identifier: GPL-2.0-or-later
// What migrate-ctl asks the daemon: a line of JSON, read here and nowhere else, since
// whoever may open the socket can write into it what he likes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "tcpmigrate/result.hpp"

namespace mobility::client {

struct ControlRequest {
    std::string command;
    std::size_t lines = 0;  ///< of log: so many at most; 0: all
    bool follow = false;    ///< of log: and what comes

    bool operator==(const ControlRequest&) const = default;
};

/// EBADMSG if it is no object with a "command". What it does not know is left out.
tcpmigrate::Result<ControlRequest> parse_request(std::string_view line);

}  // namespace mobility::client
