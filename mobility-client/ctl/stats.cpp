// SPDX-License-Identifier: GPL-2.0-or-later
// stats: the counters of tcp-migrate, two lines of /proc/net/netstat that both
// start with "TcpMigrate:", names above values.

#include <cerrno>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "commands.hpp"
#include "output.hpp"

namespace ctl {

using tcpmigrate::make_error;
using tcpmigrate::Result;
using Counters = std::vector<std::pair<std::string, std::uint64_t>>;

namespace {

constexpr std::string_view kPrefix = "TcpMigrate:";

Result<Counters> pair_up(std::istringstream names, std::istringstream values) {
    Counters counters;
    std::string name;
    std::uint64_t value = 0;
    while (names >> name) {
        if (!(values >> value)) {
            return make_error(EBADMSG, "/proc/net/netstat: TcpMigrate: " + name + " has no value");
        }
        counters.emplace_back(name, value);
    }
    return counters;
}

}  // namespace

Result<Counters> read_counters(const System& system) {
    auto text = read_file(system.proc / "net" / "netstat");
    if (!text) {
        return text.error();
    }
    std::istringstream lines(*text);
    std::string names;
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with(kPrefix)) {
            continue;
        }
        if (!names.empty()) {
            return pair_up(std::istringstream(names.substr(kPrefix.size())),
                           std::istringstream(line.substr(kPrefix.size())));
        }
        names = line;
    }
    return make_error(ENOENT,
                      "this kernel has no TcpMigrate counters in /proc/net/netstat: it has no "
                      "tcp-migrate patches");
}

int run_stats(const System& system, bool non_zero) {
    auto counters = read_counters(system);
    if (!counters) {
        return report_open(system, counters.error());
    }
    if (non_zero) {
        std::erase_if(*counters, [](const auto& counter) { return counter.second == 0; });
    }
    if (system.json) {
        nlohmann::json values = nlohmann::json::object();
        for (const auto& [name, value] : *counters) {
            values[name] = value;
        }
        print_json(system, {{"counters", values}});
        return kOk;
    }
    std::vector<std::vector<std::string>> rows;
    for (const auto& [name, value] : *counters) {
        rows.push_back({name, std::to_string(value)});
    }
    print_table(system.out, rows);
    return kOk;
}

}  // namespace ctl
