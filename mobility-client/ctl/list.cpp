// SPDX-License-Identifier: GPL-2.0-or-later
// list and show; and how a connection is named on the command line.

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <nlohmann/json.hpp>
#include <ostream>

#include "commands.hpp"
#include "output.hpp"

namespace ctl {

using tcpmigrate::Connection;
using tcpmigrate::make_error;
using tcpmigrate::Name;
using tcpmigrate::Result;

namespace {

template <typename T>
std::optional<T> whole_number(std::string_view text, int base) {
    T value = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, fault] = std::from_chars(text.data(), end, value, base);
    return !text.empty() && fault == std::errc() && stop == end ? std::optional(value)
                                                                : std::nullopt;
}

/// The filters of `list`, parsed.
struct Filter {
    std::optional<tcpmigrate::State> state;
    std::optional<tcpmigrate::Address> local;
    std::optional<tcpmigrate::Address> remote;

    [[nodiscard]] bool passes(const Connection& conn) const {
        return (!state || conn.state == *state) && (!local || conn.local.address == *local) &&
               (!remote || conn.remote.address == *remote);
    }
};

Result<Filter> parse_filter(const ListOptions& options) {
    Filter filter;
    if (!options.state.empty()) {
        filter.state = tcpmigrate::state_from_string(options.state);
        if (!filter.state) {
            return make_error(EINVAL, "'" + options.state +
                                          "' is no state: none, idle, mig-sent, mig-confirm or "
                                          "mig-wait");
        }
    }
    for (const auto& [text, into] :
         {std::pair(&options.local, &filter.local), std::pair(&options.remote, &filter.remote)}) {
        if (text->empty()) {
            continue;
        }
        auto address = tcpmigrate::Address::parse(*text);
        if (!address) {
            return address.error();
        }
        *into = *address;
    }
    return filter;
}

void print_list(const System& system, const std::vector<Connection>& all) {
    if (all.empty()) {
        system.out << "no migratable connections; `migrate-ctl doctor` tells whether new ones "
                      "become migratable\n";
        return;
    }
    std::vector<std::vector<std::string>> rows{
        {"COOKIE", "STATE", "FOR", "TCP", "LOCAL", "REMOTE", "PEER", "MOVES"}};
    for (const auto& conn : all) {
        rows.push_back({std::to_string(conn.cookie), to_string(conn.state), duration(conn.age_ms),
                        tcpmigrate::tcp_state_to_string(conn.tcp_state), conn.local.to_string(),
                        conn.remote.to_string(), conn.peer_nat ? "napt" : "direct",
                        std::to_string(conn.migrations)});
    }
    print_table(system.out, rows);
}

void print_all_details(const System& system, const std::vector<Connection>& all) {
    for (std::size_t i = 0; i < all.size(); i++) {
        system.out << (i == 0 ? "" : "\n");
        print_details(system.out, all[i]);
    }
}

Result<std::vector<Connection>> fetch(tcpmigrate::Client& client, const std::optional<Name>& name) {
    if (!name) {
        return client.list();
    }
    auto one = client.get(*name);
    if (!one) {
        return one.error();
    }
    return std::vector{*one};
}

}  // namespace

Result<Name> parse_name(const std::vector<std::string>& words) {
    constexpr std::string_view kToken = "token:";
    if (words.size() == 2) {
        auto local = tcpmigrate::Endpoint::parse(words[0]);
        auto remote = tcpmigrate::Endpoint::parse(words[1]);
        if (!local || !remote) {
            return local ? remote.error() : local.error();
        }
        return Name(tcpmigrate::Tuple{*local, *remote});
    }
    if (words.size() == 1 && words[0].starts_with(kToken)) {
        if (const auto value = whole_number<std::uint32_t>(words[0].substr(kToken.size()), 16)) {
            return Name(tcpmigrate::Token{*value});
        }
    } else if (words.size() == 1) {
        if (const auto value = whole_number<std::uint64_t>(words[0], 10)) {
            return Name(tcpmigrate::Cookie{*value});
        }
    }
    return make_error(
        EINVAL,
        (words.empty() ? "no connection is named" : "'" + words[0] + "' names no connection") +
            std::string(": give a cookie (17), token:HEX, or LOCAL:PORT REMOTE:PORT; "
                        "`migrate-ctl list` shows them"));
}

int run_list(const System& system, const ListOptions& options) {
    auto filter = parse_filter(options);
    auto name = options.name.empty() ? Result<Name>(Name()) : parse_name(options.name);
    if (!filter || !name) {
        (void)report(system, filter ? name.error() : filter.error());
        return kUsage;
    }
    auto client = system.client();
    if (!client) {
        return report_open(system, client.error());
    }
    const bool one = !options.name.empty();
    auto all = fetch(*client, one ? std::optional(*name) : std::nullopt);
    if (!all) {
        return report(system, all.error(), one ? to_string(*name) : "");
    }
    std::erase_if(*all, [&](const Connection& conn) { return !filter->passes(conn); });
    if (system.json) {
        nlohmann::json list = nlohmann::json::array();
        std::transform(all->begin(), all->end(), std::back_inserter(list), to_json);
        print_json(system, {{"connections", list}});
    } else if (options.details) {
        print_all_details(system, *all);
    } else {
        print_list(system, *all);
    }
    return kOk;
}

}  // namespace ctl
