// SPDX-License-Identifier: GPL-2.0-or-later
// Files of one thing to a line, which people edit: what follows a line's first word is a
// remark, and so is a line that begins with #.
#pragma once

#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "libmobility/identity.hpp"

namespace mobility {

/// Gives every line's first word to `take`, which returns what is wrong with it. EBADMSG,
/// with file and line, if something is; a file that is not there is empty.
Result<void> each_line(const std::filesystem::path& file,
                       const std::function<std::string(const std::string& word)>& take);

/// Names of hosts, one to a line.
Result<std::set<Name>> read_names(const std::filesystem::path& file);

}  // namespace mobility
