// SPDX-License-Identifier: GPL-2.0-or-later
// The proxy's configuration, a TOML file: sym-proxy.toml documents every setting with its
// default. What a file does not say is as here.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/data_path.hpp"
#include "relay/relays.hpp"
#include "service/service.hpp"

namespace mobility::proxy {

/// TCP port where mobility servers connect to a proxy.
constexpr std::uint16_t kProxyPort = 7792;

struct Config {
    using Endpoint = boost::asio::ip::tcp::endpoint;

    std::vector<Endpoint> listen{{boost::asio::ip::address_v6::any(), kProxyPort}};
    std::filesystem::path identity = "/var/lib/sym-proxy/identity.pem";
    std::filesystem::path servers = "/etc/sym-proxy/servers";
    Relays::Ports ports{{}, {}, 20'000, 29'999};
    std::vector<std::string> interfaces;
    Attach attach = Attach::Auto;
    std::string pins = "/sys/fs/bpf/sym-proxy";
    std::size_t events_per_second = 10'000;
    RelayLimits relays;
    ServiceLimits service;
    std::optional<Endpoint> metrics;
    std::string log_level = "info";
};

/// Of the file, whose name is said in errors, which name the line too: EBADMSG if it is no
/// TOML, names a setting that does not exist, or has a value that cannot be.
Result<Config> parse_config(std::string_view text, const std::string& name);
/// The same, of what the file holds; with its errno if it cannot be read.
Result<Config> load_config(const std::filesystem::path& file);
/// What is missing for it to run.
Result<void> check(const Config& config);

}  // namespace mobility::proxy
