// SPDX-License-Identifier: GPL-2.0-or-later
// The client's configuration, a TOML file: mobility-client.toml documents every setting
// with its default. What a file does not say is as here.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/peers.hpp"
#include "daemon/trust.hpp"
#include "libmobility/settings.hpp"
#include "watch/config.hpp"

namespace mobility::client {

using tcpmigrate::Error;
using tcpmigrate::Result;

/// TCP port of a mobility server, if it has no other.
constexpr std::uint16_t kServerPort = 7790;

/// A mobility server that this host may use.
struct ServerConfig {
    ServerPlace place;
    std::string token;  ///< with which the host enrols; empty if it is listed

    bool operator==(const ServerConfig&) const = default;
};

struct Config {
    std::filesystem::path identity = "/var/lib/mobility-client/identity.pem";
    std::filesystem::path control = "/run/mobility-client/control";
    std::string control_group;  ///< who may use it beside root; empty: the daemon's own group
    watch::Config watch;
    PeerConfig peers;
    TrustConfig trust;
    std::vector<ServerConfig> servers;                                      ///< the best first
    bool accept_servers = true;                                             ///< that peers name
    std::size_t server_channels = 256;                                      ///< in all
    std::chrono::steady_clock::duration tickets = std::chrono::hours(168);  ///< for peers
    bool vouchers = true;  ///< asked for, of these servers
    std::string log_level = "info";
    std::size_t log_lines = 1000;  ///< kept for `migrate-ctl log`

    bool operator==(const Config&) const = default;
};

/// Of the file, whose name is said in errors, which name the line too: EBADMSG if it
/// is no TOML, names a setting that does not exist, or has a value that cannot be.
Result<Config> parse_config(std::string_view text, const std::string& name);
/// The same, of what the file holds; with its errno if it cannot be read.
Result<Config> load_config(const std::filesystem::path& file);

}  // namespace mobility::client
