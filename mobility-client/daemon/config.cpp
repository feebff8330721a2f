// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/config.hpp"

#include <algorithm>
#include <fstream>

#include "libmobility/message.hpp"

namespace mobility::client {

namespace {

using Section = SettingsFile::Section;

void read_watch(SettingsFile& file, watch::Config& watch) {
    auto section = file.section("moves");
    std::string better = "trial";
    section.one_of("better_place", better, {"trial", "stay"});
    watch.policy.better =
        better == "trial" ? watch::Policy::Better::Trial : watch::Policy::Better::Stay;
    section.flag("leave_deprecated", watch.policy.leave_deprecated);
    std::string temporary = "as-kernel";
    section.one_of("temporary_addresses", temporary, {"as-kernel", "prefer", "avoid"});
    using Temporary = watch::Config::Temporary;
    watch.temporary = temporary == "prefer"  ? Temporary::Prefer
                      : temporary == "avoid" ? Temporary::Avoid
                                             : Temporary::AsKernel;
    section.milliseconds("hold_ms", watch.hold, 0, 60'000);
    file.each("interface", [&](Section& one) {
        watch::InterfaceRule rule;
        one.text("name", rule.name);
        one.text("kind", rule.kind);
        one.flag("use", rule.use);
        std::size_t rank = 0;
        one.number("rank", rank, 0, 1000);
        rule.rank = static_cast<int>(rank);
        watch.interfaces.push_back(rule);
    });
}

void read_peers(SettingsFile& file, PeerConfig& peers, TrustConfig& trust) {
    constexpr auto kMany = std::int64_t{100'000};
    auto section = file.section("peers");
    section.flag("exchange", peers.exchange);
    section.endpoints("listen", peers.listen);
    section.number("port", peers.port, 1, 65'535);
    section.flag("exclusive", peers.exclusive);
    std::string require = "any";
    section.one_of("require", require, {"any", "vouched", "pinned", "listed"});
    using Require = TrustConfig::Require;
    trust.require = require == "listed"    ? Require::Listed
                    : require == "pinned"  ? Require::Pinned
                    : require == "vouched" ? Require::Vouched
                                           : Require::Any;
    section.list("vouching_servers", [&](const std::string& value) {
        const auto name = Name::parse(value);
        trust.vouching.insert(name ? *name : Name());
        return name ? "" : "names of servers, of 64 hexadecimal digits each";
    });
    if (trust.require == Require::Vouched && trust.vouching.empty()) {
        section.complain("require = \"vouched\" needs vouching_servers");
    }
    section.file("listed", trust.listed);
    section.file("pins", trust.pins);
    section.number("strangers", peers.strangers, 1, kMany);
    section.number("strangers_per_address", peers.strangers_per_address, 1, kMany);
    section.number("attempts", peers.attempts, 1, kMany);
    section.number("channels", peers.channels, 1, kMany);
    section.seconds("introduction_seconds", peers.introduction);
    section.seconds("linger_seconds", peers.linger);
    section.seconds("retry_seconds", peers.retry);
    section.seconds("retry_longest_seconds", peers.retry_longest);
    section.seconds("forget_seconds", peers.forget);
}

/// The first line of a file that only its owner and a group may read.
std::string read_token(const std::filesystem::path& file, std::string& token) {
    std::ifstream in(file);
    std::getline(in, token);
    return !in || token.empty() || token.size() > kMaxText ? "a file that begins with a token" : "";
}

void read_server(Section& one, std::vector<ServerConfig>& servers) {
    ServerConfig server;
    bool named = false;
    one.parsed("name", [&](const std::string& value) {
        const auto name = Name::parse(value);
        named = static_cast<bool>(name);
        server.place.host = name ? *name : Name();
        return named ? "" : "64 hexadecimal digits (mobility-server --identity prints them)";
    });
    one.parsed("address", [&](const std::string& value) {
        boost::system::error_code failed;
        const auto address = boost::asio::ip::make_address_v4(value, failed);
        server.place.address = address;
        return failed ? "an IPv4 address" : "";
    });
    one.parsed("address6", [&](const std::string& value) {
        boost::system::error_code failed;
        const auto address = boost::asio::ip::make_address_v6(value, failed);
        server.place.address6 = address;
        return failed ? "an IPv6 address" : "";
    });
    std::size_t port = kServerPort;
    one.number("port", port, 1, 65'535);
    server.place.port = static_cast<std::uint16_t>(port);
    one.parsed("token_file",
               [&](const std::string& value) { return read_token(value, server.token); });
    if (!named || (!server.place.address && !server.place.address6)) {
        one.complain("a [[server]] needs its name, and an address or an address6");
    }
    if (std::ranges::any_of(servers,
                            [&](auto& other) { return other.place.host == server.place.host; })) {
        one.complain("a [[server]] that is there already");
    }
    servers.push_back(server);
}

void read_servers(SettingsFile& file, Config& config) {
    auto section = file.section("servers");
    section.flag("accept_of_peers", config.accept_servers);
    section.number("channels", config.server_channels, 1, 100'000);
    auto hours = static_cast<std::size_t>(
        std::chrono::duration_cast<std::chrono::hours>(config.tickets).count());
    section.number("ticket_hours", hours, 1, 10'000);
    config.tickets = std::chrono::hours(hours);
    section.flag("vouchers", config.vouchers);
    file.each("server", [&](Section& one) {
        if (config.servers.size() == kMaxServers) {
            return one.complain("there can be 8 servers");
        }
        read_server(one, config.servers);
    });
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& name) {
    auto file = SettingsFile::parse(text, name);
    if (!file) {
        return file.error();
    }
    Config config;
    file->section("client").file("identity", config.identity);
    auto control = file->section("control");
    control.file("socket", config.control);
    control.text("group", config.control_group);
    read_watch(*file, config.watch);
    read_peers(*file, config.peers, config.trust);
    read_servers(*file, config);
    auto log = file->section("log");
    log.one_of("level", config.log_level, {"trace", "debug", "info", "warn", "error"});
    log.number("lines", config.log_lines, 1, 100'000);
    const auto good = file->result();
    return good ? Result<Config>(std::move(config)) : good.error();
}

Result<Config> load_config(const std::filesystem::path& file) {
    const auto text = read_text(file);
    return text ? parse_config(*text, file.string()) : text.error();
}

}  // namespace mobility::client
