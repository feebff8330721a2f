// SPDX-License-Identifier: GPL-2.0-or-later
// How results and errors are shown: text for people, JSON for programs. The
// JSON shapes are described in docs/json/*.schema.json and tested against them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "system.hpp"

namespace ctl {

[[nodiscard]] nlohmann::json to_json(const tcpmigrate::Connection& conn);

/// Prints rows with aligned columns; the first row is the heading.
void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows);
/// One connection in full, a line per property.
void print_details(std::ostream& out, const tcpmigrate::Connection& conn);
/// "1.5 s", "3 min 20 s"
[[nodiscard]] std::string duration(std::uint64_t milliseconds);

/// Shows an error and its remedy and returns the exit code. `subject` names
/// the connection or address concerned; empty: the message says it all.
[[nodiscard]] int report(const System& system, const tcpmigrate::Error& error,
                         const std::string& subject = {});
/// Same for a failure to open the socket: ENOENT there means an unpatched kernel.
[[nodiscard]] int report_open(const System& system, const tcpmigrate::Error& error);
/// Same for what came of asking the daemon; `answered`: it was the daemon that said no.
[[nodiscard]] int report_daemon(const System& system, const tcpmigrate::Error& error,
                                bool answered);
/// What to do about an errno of the kernel; empty if there is no advice.
[[nodiscard]] std::string remedy(int errno_value);

/// Prints a JSON value and a newline.
void print_json(const System& system, const nlohmann::json& value);

}  // namespace ctl
