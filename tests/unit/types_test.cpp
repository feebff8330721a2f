// SPDX-License-Identifier: GPL-2.0-or-later
// Text to value and back: addresses, endpoints, targets, secrets, names.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tcpmigrate/types.hpp"

using namespace tcpmigrate;

TEST(Address, ParsesAndPrints) {
    EXPECT_EQ(Address::parse("192.0.2.1")->to_string(), "192.0.2.1");
    EXPECT_EQ(Address::parse("192.0.2.1")->family(), AF_INET);
    EXPECT_EQ(Address::parse("2001:DB8:0::1")->to_string(), "2001:db8::1");
    EXPECT_EQ(Address::parse("2001:db8::1")->family(), AF_INET6);
    EXPECT_EQ(Address::parse("2001:db8::1")->bytes().size(), 16U);
}

TEST(Address, MappedIsIPv4) {
    EXPECT_EQ(*Address::parse("::ffff:192.0.2.1"), *Address::parse("192.0.2.1"));
    EXPECT_EQ(Address::parse("::ffff:192.0.2.1")->bytes().size(), 4U);
}

TEST(Address, RefusesWithTheTextInTheMessage) {
    for (const char* text : {"", "192.0.2", "192.0.2.256", "host", "2001:db8::1%eth0", "[::1]"}) {
        auto parsed = Address::parse(text);
        ASSERT_FALSE(parsed) << text;
        EXPECT_TRUE(parsed.error().is(EINVAL));
        EXPECT_NE(parsed.error().message.find(std::string("'") + text + "'"), std::string::npos);
    }
}

TEST(Address, HasFourOrSixteenBytes) {
    const std::vector<std::byte> bytes(17);
    for (std::size_t size = 0; size <= bytes.size(); size++) {
        EXPECT_EQ(bool(Address::from_bytes(std::span(bytes).first(size))), size == 4 || size == 16);
    }
}

TEST(Endpoint, ParsesAndPrints) {
    EXPECT_EQ(Endpoint::parse("192.0.2.1:80")->to_string(), "192.0.2.1:80");
    EXPECT_EQ(Endpoint::parse("[2001:db8::1]:65535")->to_string(), "[2001:db8::1]:65535");
}

TEST(Endpoint, Refuses) {
    for (const char* text :
         {"192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:8a",
          "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]80", "[2001:db8::1", ":80", "[]:80", "["}) {
        EXPECT_FALSE(Endpoint::parse(text)) << text;
    }
}

TEST(Target, PortIsOptional) {
    EXPECT_FALSE(Target::parse("192.0.2.1")->port);
    EXPECT_EQ(Target::parse("192.0.2.1:80")->port, 80);
    EXPECT_FALSE(Target::parse("2001:db8::80")->port);
    EXPECT_EQ(Target::parse("[2001:db8::80]")->address, *Address::parse("2001:db8::80"));
    EXPECT_EQ(Target::parse("[2001:db8::80]:443")->port, 443);
}

TEST(Names, StatesAndReasons) {
    EXPECT_EQ(to_string(State::MigConfirm), "mig-confirm");
    EXPECT_EQ(to_string(State{9}), "state-9");
    EXPECT_EQ(state_from_string("mig-wait"), State::MigWait);
    EXPECT_FALSE(state_from_string("waiting"));
    EXPECT_EQ(to_string(Reason::TrialFailed), "trial-failed");
    EXPECT_EQ(to_string(Reason::Stalled), "stalled");
    EXPECT_EQ(to_string(Reason{200}), "reason-200");
    EXPECT_FALSE(explain(Reason::NoRoute).empty());
    EXPECT_EQ(tcp_state_to_string(1), "ESTABLISHED");
    EXPECT_EQ(tcp_state_to_string(8), "CLOSE_WAIT");
    EXPECT_EQ(tcp_state_to_string(12), "NEW_SYN_RECV");
    EXPECT_EQ(tcp_state_to_string(13), "tcp-13");
}

TEST(Names, Connections) {
    EXPECT_EQ(to_string(Name(Cookie{17})), "cookie 17");
    EXPECT_EQ(to_string(Name(Token{0x1a2b})), "token 00001a2b");
    EXPECT_EQ(
        to_string(Name(Tuple{*Endpoint::parse("192.0.2.1:1"), *Endpoint::parse("192.0.2.2:2")})),
        "192.0.2.1:1 -> 192.0.2.2:2");
}

TEST(Secret, RawOrHex) {
    std::string hex;
    for (int i = 0; i < 32; i++) {
        hex += "aF";
    }
    auto parsed = Secret::parse("\n " + hex + " \n");
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->bytes()[0], std::byte{0xaf});
    EXPECT_EQ(parsed->bytes()[31], std::byte{0xaf});
    auto raw = Secret::parse(std::string(32, 'x'));
    ASSERT_TRUE(raw);
    EXPECT_EQ(raw->bytes()[31], std::byte{'x'});
}

TEST(Secret, Refuses) {
    EXPECT_FALSE(Secret::parse(""));
    EXPECT_FALSE(Secret::parse(std::string(31, 'x')));
    EXPECT_FALSE(Secret::parse(std::string(63, 'a')));
    EXPECT_FALSE(Secret::parse(std::string(63, 'a') + "g"));
    EXPECT_FALSE(Secret::parse(std::string(66, 'a')));
}

TEST(Secret, IsWipedWhenMoved) {
    auto secret = *Secret::parse(std::string(32, 'x'));
    const Secret moved = std::move(secret);
    EXPECT_EQ(moved.bytes()[0], std::byte{'x'});
    for (const auto byte : secret.bytes()) {  // NOLINT(bugprone-use-after-move): that is the test
        EXPECT_EQ(byte, std::byte{0});
    }
}
