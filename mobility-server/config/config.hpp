// SPDX-License-Identifier: GPL-2.0-or-later
// The server's configuration, a TOML file: mobility-server.toml documents every
// setting with its default. What a file does not say is as here.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "admission/admission.hpp"
#include "admission/vouching.hpp"
#include "exchange/exchange.hpp"
#include "proxies/proxies.hpp"
#include "service/service.hpp"

namespace mobility::server {

/// TCP port of a mobility server.
constexpr std::uint16_t kServerPort = 7790;
constexpr std::size_t kMaxProxies = 16;

struct Config {
    using Endpoint = boost::asio::ip::tcp::endpoint;

    std::vector<Endpoint> listen{{boost::asio::ip::address_v6::any(), kServerPort}};
    std::filesystem::path identity = "/var/lib/mobility-server/identity.pem";
    AdmissionFiles admission;
    VouchingConfig vouching;
    ServiceLimits service;
    Limits exchange;
    ProxyConfig proxies;
    std::optional<Endpoint> metrics;
    std::string log_level = "info";
};

/// Of the file, whose name is said in errors, which name the line too: EBADMSG if it
/// is no TOML, names a setting that does not exist, or has a value that cannot be.
Result<Config> parse_config(std::string_view text, const std::string& name);
/// The same, of what the file holds; with its errno if it cannot be read.
Result<Config> load_config(const std::filesystem::path& file);

}  // namespace mobility::server
