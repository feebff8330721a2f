// SPDX-License-Identifier: GPL-2.0-or-later
// The server's configuration file.
#include "config/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <regex>

namespace mobility::server {
namespace {

using boost::asio::ip::make_address;
using std::chrono::seconds;
using testing::HasSubstr;

std::string wrong(const std::string& text) {
    const auto config = parse_config(text, "file");
    EXPECT_FALSE(config) << text;
    return config ? "" : config.error().message;
}

TEST(ServerConfig, EmptyFileIsTheDefault) {
    const auto config = parse_config("", "file");
    ASSERT_TRUE(config);
    EXPECT_EQ(config->listen, Config().listen);
    EXPECT_FALSE(config->metrics);
}

TEST(ServerConfig, SettingsAreTaken) {
    const auto config = parse_config(R"(
[server]
listen = ["192.0.2.1:1234", "[2001:db8::1]:7790"]
identity = "/key"
[admission]
hosts = "/hosts"
[vouching]
hosts = "admitted"
seconds = 604800
[metrics]
listen = "127.0.0.1:9790"
[log]
level = "debug"
[[proxies]]
address = "192.0.2.9:7792"
name = "0100000000000000000000000000000000000000000000000000000000000000"
[[proxies]]
address = "[2001:db8::9]:1"
name = "0200000000000000000000000000000000000000000000000000000000000000"
[relays]
crossing = false
[limits]
orders = 5
order_ms = 100
channels = 7
keep_seconds = 9
unsent_bytes = 70000
)",
                                     "file");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->listen, (std::vector<Config::Endpoint>{
                                  {make_address("192.0.2.1"), 1234},
                                  {make_address("2001:db8::1"), 7790},
                              }));
    EXPECT_EQ(config->identity, "/key");
    EXPECT_EQ(config->admission.hosts, "/hosts");
    EXPECT_EQ(config->vouching.hosts, VouchingConfig::Hosts::Admitted);
    EXPECT_EQ(config->vouching.good_for, kLongestVoucher);
    EXPECT_EQ(config->metrics, Config::Endpoint(make_address("127.0.0.1"), 9790));
    EXPECT_EQ(config->log_level, "debug");
    EXPECT_EQ(config->service.channels, 7);
    EXPECT_EQ(config->service.unsent, 70000);
    EXPECT_EQ(config->exchange.keep, seconds(9));
    EXPECT_EQ(config->proxies.places,
              (std::vector<ProxyPlace>{{{make_address("192.0.2.9"), 7792}, Name({1})},
                                       {{make_address("2001:db8::9"), 1}, Name({2})}}));
    EXPECT_TRUE(config->exchange.proxies);
    EXPECT_FALSE(config->exchange.crossing);
    EXPECT_EQ(config->proxies.limits.orders, 5);
    EXPECT_EQ(config->proxies.limits.patience, std::chrono::milliseconds(100));
}

/// The file that is installed says what the defaults are, and nothing else.
TEST(ServerConfig, DocumentedFileIsTheDefault) {
    std::ifstream in(MOBILITY_SERVER_TOML);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    ASSERT_FALSE(text.empty());
    const auto config = parse_config(text, "file");
    ASSERT_TRUE(config) << config.error().message;
    const Config standard;
    EXPECT_EQ(config->listen, standard.listen);
    EXPECT_EQ(config->identity, standard.identity);
    EXPECT_EQ(config->admission, standard.admission);
    EXPECT_EQ(config->vouching, standard.vouching);
    EXPECT_EQ(config->service, standard.service);
    EXPECT_EQ(config->exchange, standard.exchange);
    EXPECT_EQ(config->proxies, standard.proxies);
    EXPECT_EQ(config->metrics, standard.metrics);
    EXPECT_EQ(config->log_level, standard.log_level);
    // What is only shown is right as well.
    const auto shown = std::regex_replace(
        text, std::regex("# (listen = |\\[\\[proxies|address = |name = )"), "$1");
    const auto more = parse_config(shown, "file");
    ASSERT_TRUE(more) << more.error().message;
    EXPECT_TRUE(more->metrics);
    EXPECT_EQ(more->proxies.places.size(), 1);
}

TEST(ServerConfig, MistakesAreNamedWithTheirLine) {
    EXPECT_THAT(wrong("[limits\n"), HasSubstr("file:1: "));
    EXPECT_THAT(wrong("[limits]\n\nchanels = 7\n"),
                HasSubstr("file:3: there is no setting \"chanels\" in [limits]"));
    EXPECT_THAT(wrong("[limit]\nchannels = 7\n"), HasSubstr("\"channels\" in [limit]"));
    EXPECT_THAT(wrong("channels = 7\n"), HasSubstr("\"channels\" is no section"));
    EXPECT_THAT(wrong("[limits]\nchannels = 0\n"), HasSubstr("file:2: channels must be a number"));
    EXPECT_THAT(wrong("[limits]\nchannels = \"7\"\n"), HasSubstr("channels must be a number"));
    EXPECT_THAT(wrong("[limits]\nunsent_bytes = 100\n"), HasSubstr("unsent_bytes"));
    EXPECT_THAT(wrong("[vouching]\nhosts = \"all\"\n"), HasSubstr("nobody, listed, admitted"));
    EXPECT_THAT(wrong("[vouching]\nseconds = 604801\n"), HasSubstr("from 60 to 604800"));
    EXPECT_THAT(wrong("[server]\nlisten = []\n"), HasSubstr("must be a list"));
    EXPECT_THAT(wrong("[server]\nidentity = 7\n"), HasSubstr("identity must be a text"));
    const std::string name = "name = \"" + std::string(64, '1') + "\"\n";
    const std::string proxy = "[[proxies]]\naddress = \"192.0.2.1:1\"\n" + name;
    EXPECT_THAT(wrong("[[proxies]]\n" + name), HasSubstr("needs its address and its name"));
    EXPECT_THAT(wrong("[[proxies]]\naddress = \"192.0.2.1:1\"\n"), HasSubstr("its name"));
    EXPECT_THAT(wrong("[[proxies]]\naddress = \"a.example:1\"\n" + name),
                HasSubstr("file:2: address must be an address and a port"));
    EXPECT_THAT(wrong("[[proxies]]\nname = \"1\"\n"), HasSubstr("64 hexadecimal digits"));
    EXPECT_THAT(wrong(proxy + proxy), HasSubstr("file:4: a [[proxies]] that is there already"));
    EXPECT_THAT(wrong("[proxies]\n" + name), HasSubstr("proxies must be sections"));
    std::string many;
    for (int i = 10; i <= 26; i++) {
        many += "[[proxies]]\naddress = \"192.0.2.1:1\"\nname = \"" + std::string(62, '1') +
                std::to_string(i) + "\"\n";
    }
    EXPECT_THAT(wrong(many), HasSubstr("there can be 16 proxies"));
    EXPECT_THAT(wrong("[log]\nlevel = \"loud\"\n"), HasSubstr("trace, debug, info"));
    EXPECT_THAT(wrong("[server]\nlisten = \"[::]:1\"\n"), HasSubstr("must be a list"));
    for (const auto* address : {"::1:7790", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536",
                                "[192.0.2.1]:1", "name:1", "192.0.2.1:1x"}) {
        EXPECT_THAT(wrong("[server]\nlisten = [\"" + std::string(address) + "\"]\n"),
                    HasSubstr("file:2: listen must be an address and a port"))
            << address;
    }
}

TEST(ServerConfig, FileThatCannotBeReadIsNamed) {
    const auto config = load_config("/nonexistent/file.toml");
    ASSERT_FALSE(config);
    EXPECT_TRUE(config.error().is(ENOENT));
    EXPECT_THAT(config.error().message, HasSubstr("/nonexistent/file.toml"));
}

}  // namespace
}  // namespace mobility::server
