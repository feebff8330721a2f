// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.hpp"

#include <cerrno>

#include "libmobility/settings.hpp"

namespace mobility::proxy {

namespace {

constexpr auto kMany = std::int64_t{10'000'000};

std::string take_address(const std::string& text, Relays::Ports& ports) {
    boost::system::error_code bad;
    const auto address = boost::asio::ip::make_address(text, bad);
    if (bad || address.is_unspecified() || address.is_multicast() || address.is_loopback()) {
        return "an address of this host, which hosts elsewhere reach";
    }
    if (address.is_v4() ? ports.address.has_value() : ports.address6.has_value()) {
        return "at most one address of IPv4 and one of IPv6";
    }
    if (address.is_v4()) {
        ports.address = address.to_v4();
    } else {
        ports.address6 = address.to_v6();
    }
    return {};
}

void read_relay(SettingsFile& file, Config& config) {
    auto relay = file.section("relay");
    relay.list("addresses",
               [&](const std::string& text) { return take_address(text, config.ports); });
    relay.list("interfaces", [&](const std::string& text) {
        config.interfaces.push_back(text);
        return text.empty() || text.size() > 15 ? std::string("the name of an interface")
                                                : std::string();
    });
    std::size_t first = config.ports.first;
    std::size_t last = config.ports.last;
    relay.number("first_port", first, 1024, 65'535);
    relay.number("last_port", last, 1024, 65'535);
    if (last < first) {
        relay.complain("last_port is below first_port");
    }
    config.ports.first = static_cast<std::uint16_t>(first);
    config.ports.last = static_cast<std::uint16_t>(last);
    std::string attach = "auto";
    relay.one_of("attach", attach, {"auto", "tc", "xdp"});
    config.attach = attach == "auto" ? Attach::Auto : attach == "tc" ? Attach::Tc : Attach::Xdp;
    relay.text("pins", config.pins);
}

void read_limits(SettingsFile& file, Config& config) {
    auto limits = file.section("limits");
    auto& relays = config.relays;
    limits.number("relays", relays.most, 1, 1'000'000);
    limits.number("relays_per_host", relays.per_host, 1, kMany);
    limits.seconds("reserved_seconds", relays.reserved);
    limits.seconds("idle_seconds", relays.idle, 60, 1'000'000);
    auto& service = config.service;
    limits.number("servers", service.servers, 1, 10'000);
    limits.number("strangers", service.strangers, 1, kMany);
    limits.seconds("introduction_seconds", service.introduction);
    limits.number("orders_per_second", service.orders_per_second, 1, kMany);
    limits.number("burst", service.burst, 1, kMany);
    limits.number("unsent_bytes", service.unsent, kMaxFrame, std::int64_t{1} << 30);
    limits.number("events_per_second", config.events_per_second, 10, kMany);
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& name) {
    auto file = SettingsFile::parse(text, name);
    if (!file) {
        return file.error();
    }
    Config config;
    auto proxy = file->section("proxy");
    proxy.endpoints("listen", config.listen);
    proxy.file("identity", config.identity);
    proxy.file("servers", config.servers);
    read_relay(*file, config);
    file->section("metrics").endpoint("listen", config.metrics);
    file->section("log").one_of("level", config.log_level,
                                {"trace", "debug", "info", "warn", "error"});
    read_limits(*file, config);
    const auto good = file->result();
    return good ? Result<Config>(std::move(config)) : good.error();
}

Result<Config> load_config(const std::filesystem::path& file) {
    const auto text = read_text(file);
    return text ? parse_config(*text, file.string()) : text.error();
}

Result<void> check(const Config& config) {
    if (!config.ports.address && !config.ports.address6) {
        return tcpmigrate::make_error(
            EINVAL, "no address to relay at: set `addresses` in [relay] of the configuration");
    }
    if (config.interfaces.empty()) {
        return tcpmigrate::make_error(
            EINVAL, "no interface to relay on: set `interfaces` in [relay] of the configuration");
    }
    return {};
}

}  // namespace mobility::proxy
