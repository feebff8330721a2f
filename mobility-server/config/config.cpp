// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.hpp"

#include <algorithm>
#include <cerrno>

#include "libmobility/settings.hpp"

namespace mobility::server {

namespace {

void read_limits(SettingsFile& file, ServiceLimits& service, Limits& exchange,
                 OrderLimits& orders) {
    constexpr auto kMany = std::int64_t{10'000'000};
    auto limits = file.section("limits");
    limits.number("channels", service.channels, 1, kMany);
    limits.number("channels_per_host", service.channels_per_host, 1, 1000);
    limits.number("guests_per_host", service.guests_per_host, 0, kMany);
    limits.number("strangers", service.strangers, 1, kMany);
    limits.number("strangers_per_address", service.strangers_per_address, 1, kMany);
    limits.seconds("introduction_seconds", service.introduction);
    limits.number("messages_per_second", service.messages_per_second, 1, kMany);
    limits.number("burst", service.burst, 1, kMany);
    // Room for the longest message at least.
    limits.number("unsent_bytes", service.unsent, kMaxFrame, std::int64_t{1} << 30);
    limits.number("pairs_per_host", exchange.pairs_per_host, 1, kMany);
    limits.number("pairs", exchange.pairs, 1, kMany);
    limits.seconds("keep_seconds", exchange.keep);
    limits.seconds("silence_seconds", exchange.silence);
    limits.number("orders", orders.orders, 1, kMany);
    limits.number("orders_per_proxy", orders.orders_per_proxy, 1, kMany);
    limits.milliseconds("order_ms", orders.patience, 100, 60'000);
}

void read_vouching(SettingsFile& file, VouchingConfig& vouching) {
    auto section = file.section("vouching");
    std::string hosts = "nobody";
    section.one_of("hosts", hosts, {"nobody", "listed", "admitted"});
    using Hosts = VouchingConfig::Hosts;
    vouching.hosts = hosts == "admitted" ? Hosts::Admitted
                     : hosts == "listed" ? Hosts::Listed
                                         : Hosts::Nobody;
    constexpr std::chrono::seconds kLongest(kLongestVoucher);
    section.seconds("seconds", vouching.good_for, 60, kLongest.count());
}

void read_proxy(SettingsFile::Section& one, std::vector<ProxyPlace>& places) {
    ProxyPlace place;
    std::optional<Config::Endpoint> address;
    one.endpoint("address", address);
    bool named = false;
    one.parsed("name", [&](const std::string& value) {
        const auto name = Name::parse(value);
        named = static_cast<bool>(name);
        place.name = name ? *name : Name();
        return named ? "" : "64 hexadecimal digits (sym-proxy --identity prints them)";
    });
    if (!named || !address) {
        return one.complain("a [[proxies]] needs its address and its name");
    }
    place.address = *address;
    if (std::ranges::any_of(places, [&](auto& other) { return other.name == place.name; })) {
        return one.complain("a [[proxies]] that is there already");
    }
    places.push_back(place);
}

void read_proxies(SettingsFile& file, ProxyConfig& proxies, Limits& exchange) {
    file.each("proxies", [&](SettingsFile::Section& one) {
        if (proxies.places.size() == kMaxProxies) {
            return one.complain("there can be 16 proxies");
        }
        read_proxy(one, proxies.places);
    });
    exchange.proxies = !proxies.places.empty();
    file.section("relays").flag("crossing", exchange.crossing);
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& name) {
    auto file = SettingsFile::parse(text, name);
    if (!file) {
        return file.error();
    }
    Config config;
    auto server = file->section("server");
    server.endpoints("listen", config.listen);
    server.file("identity", config.identity);
    auto admission = file->section("admission");
    admission.file("hosts", config.admission.hosts);
    admission.file("tokens", config.admission.tokens);
    admission.file("enrolled", config.admission.enrolled);
    read_vouching(*file, config.vouching);
    file->section("metrics").endpoint("listen", config.metrics);
    file->section("log").one_of("level", config.log_level,
                                {"trace", "debug", "info", "warn", "error"});
    read_limits(*file, config.service, config.exchange, config.proxies.limits);
    read_proxies(*file, config.proxies, config.exchange);
    const auto good = file->result();
    return good ? Result<Config>(std::move(config)) : good.error();
}

Result<Config> load_config(const std::filesystem::path& file) {
    const auto text = read_text(file);
    return text ? parse_config(*text, file.string()) : text.error();
}

}  // namespace mobility::server
