// SPDX-License-Identifier: GPL-2.0-or-later
// The proxy's configuration file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <regex>

#include "config/config.hpp"

namespace mobility::proxy {
namespace {

using boost::asio::ip::make_address;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

std::string wrong(const std::string& text) {
    const auto config = parse_config(text, "file");
    EXPECT_FALSE(config) << text;
    return config ? "" : config.error().message;
}

TEST(ProxyConfig, SettingsAreTaken) {
    const auto config = parse_config(R"(
[proxy]
listen = ["192.0.2.1:1234"]
identity = "/key"
servers = "/servers"
[relay]
addresses = ["192.0.2.1", "2001:db8::1"]
interfaces = ["eth0", "eth1"]
first_port = 5000
last_port = 5001
attach = "xdp"
pins = "/pins"
[metrics]
listen = "127.0.0.1:9792"
[log]
level = "debug"
[limits]
relays = 3
relays_per_host = 2
reserved_seconds = 9
idle_seconds = 61
orders_per_second = 4
events_per_second = 11
)",
                                     "file");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_THAT(config->listen, ElementsAre(Config::Endpoint(make_address("192.0.2.1"), 1234)));
    EXPECT_EQ(config->identity, "/key");
    EXPECT_EQ(config->servers, "/servers");
    EXPECT_EQ(config->ports.address, make_address("192.0.2.1").to_v4());
    EXPECT_EQ(config->ports.address6, make_address("2001:db8::1").to_v6());
    EXPECT_EQ(config->ports.first, 5000);
    EXPECT_EQ(config->ports.last, 5001);
    EXPECT_THAT(config->interfaces, ElementsAre("eth0", "eth1"));
    EXPECT_EQ(config->attach, Attach::Xdp);
    EXPECT_EQ(config->pins, "/pins");
    EXPECT_TRUE(config->metrics);
    EXPECT_EQ(config->log_level, "debug");
    EXPECT_EQ(config->relays, (RelayLimits{3, 2, seconds(9), seconds(61)}));
    EXPECT_EQ(config->service.orders_per_second, 4);
    EXPECT_EQ(config->events_per_second, 11);
    EXPECT_TRUE(check(*config));
}

/// The file that is installed says what the defaults are, and nothing else.
TEST(ProxyConfig, DocumentedFileIsTheDefault) {
    std::ifstream in(SYM_PROXY_TOML);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    ASSERT_FALSE(text.empty());
    const auto config = parse_config(text, "file");
    ASSERT_TRUE(config) << config.error().message;
    const Config standard;
    EXPECT_EQ(config->listen, standard.listen);
    EXPECT_EQ(config->identity, standard.identity);
    EXPECT_EQ(config->servers, standard.servers);
    EXPECT_EQ(config->ports.first, standard.ports.first);
    EXPECT_EQ(config->ports.last, standard.ports.last);
    EXPECT_EQ(config->attach, standard.attach);
    EXPECT_EQ(config->pins, standard.pins);
    EXPECT_EQ(config->relays, standard.relays);
    EXPECT_EQ(config->service, standard.service);
    EXPECT_EQ(config->events_per_second, standard.events_per_second);
    EXPECT_EQ(config->metrics, standard.metrics);
    EXPECT_EQ(config->log_level, standard.log_level);
    // What is only shown is right as well, and all that is missing.
    const auto shown =
        std::regex_replace(text, std::regex("# (listen = |addresses = |interfaces = )"), "$1");
    const auto more = parse_config(shown, "file");
    ASSERT_TRUE(more) << more.error().message;
    EXPECT_TRUE(more->metrics);
    EXPECT_TRUE(check(*more));
}

TEST(ProxyConfig, WhatIsMissingIsNamed) {
    EXPECT_THAT(check(*parse_config("", "file")).error().message, HasSubstr("`addresses`"));
    const auto half = parse_config("[relay]\naddresses = [\"192.0.2.1\"]\n", "file");
    EXPECT_THAT(check(*half).error().message, HasSubstr("`interfaces`"));
}

TEST(ProxyConfig, MistakesAreNamedWithTheirLine) {
    EXPECT_THAT(wrong("[relay]\n\nadresses = []\n"),
                HasSubstr("file:3: there is no setting \"adresses\" in [relay]"));
    EXPECT_THAT(wrong("[relay]\naddresses = [\"::1\"]\n"), HasSubstr("hosts elsewhere reach"));
    EXPECT_THAT(wrong("[relay]\naddresses = [\"192.0.2.1\", \"192.0.2.2\"]\n"),
                HasSubstr("at most one address"));
    EXPECT_THAT(wrong("[relay]\ninterfaces = [\"much-too-long-a-name\"]\n"),
                HasSubstr("name of an interface"));
    EXPECT_THAT(wrong("[relay]\nfirst_port = 80\n"), HasSubstr("from 1024 to 65535"));
    EXPECT_THAT(wrong("[relay]\nlast_port = 10000\n"), HasSubstr("below first_port"));
    EXPECT_THAT(wrong("[relay]\nattach = \"ebpf\"\n"), HasSubstr("auto, tc, xdp"));
    EXPECT_THAT(wrong("[limits]\nidle_seconds = 1\n"), HasSubstr("idle_seconds"));
}

TEST(ProxyConfig, FileThatCannotBeReadIsNamed) {
    const auto config = load_config("/nonexistent/file.toml");
    ASSERT_FALSE(config);
    EXPECT_TRUE(config.error().is(ENOENT));
    EXPECT_THAT(config.error().message, HasSubstr("/nonexistent/file.toml"));
}

}  // namespace
}  // namespace mobility::proxy
