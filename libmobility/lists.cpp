// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/lists.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

namespace mobility {

using tcpmigrate::make_error;

namespace {

tcpmigrate::Error unreadable(const std::filesystem::path& file) {
    const int code = errno;
    return make_error(code, file.string() + ": cannot read: " + std::strerror(code));
}

}  // namespace

Result<void> each_line(const std::filesystem::path& file,
                       const std::function<std::string(const std::string& word)>& take) {
    std::ifstream in(file);
    if (!in) {
        return errno == ENOENT ? Result<void>() : unreadable(file);
    }
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); number++) {
        const auto begin = line.find_first_not_of(" \t\r");
        if (begin == std::string::npos || line[begin] == '#') {
            continue;
        }
        const auto wrong = take(line.substr(begin, line.find_first_of(" \t\r", begin) - begin));
        if (!wrong.empty()) {
            return make_error(EBADMSG, file.string() + ":" + std::to_string(number) + ": " + wrong);
        }
    }
    return in.bad() ? unreadable(file) : Result<void>();
}

Result<std::set<Name>> read_names(const std::filesystem::path& file) {
    std::set<Name> names;
    const auto done = each_line(file, [&](const std::string& word) -> std::string {
        const auto name = Name::parse(word);
        if (!name) {
            return name.error().message;
        }
        names.insert(*name);
        return {};
    });
    return done ? Result<std::set<Name>>(std::move(names)) : done.error();
}

}  // namespace mobility
