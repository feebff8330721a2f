// SPDX-License-Identifier: GPL-2.0-or-later
// The parts under decide(): routing, what the kernel does without telling, views.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "watch_host.hpp"

namespace mobility::watch {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// ---- Routing ----

class RoutingTest : public testing::Test {
  protected:
    /// By which interfaces packets leave; "" if by none.
    std::string leaves(const std::string& from, const std::string& to, bool bound = false) {
        Query query{.v6 = (from + to).find(':') != std::string::npos, .bound = bound};
        query.from = from.empty() ? std::nullopt : std::optional(ip(from));
        query.to = to.empty() ? std::nullopt : std::optional(ip(to));
        std::string by;
        for (const auto* name : {"eth0", "wlan0"}) {
            if (host.state.routing().find(query, host.index(name)) != nullptr) {
                by += (by.empty() ? "" : " ") + std::string(name);
            }
        }
        return by;
    }

    TestHost host;
};

TEST_F(RoutingTest, LongerPrefixThenLowerMetric) {
    host.does(
        "route default dev eth0 metric 100; route default dev wlan0 metric 50;"
        "route 10.0.0.0/8 dev eth0; route 10.1.0.0/16 dev wlan0 metric 900");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "wlan0");
    EXPECT_EQ(leaves("192.0.2.1", "10.2.0.1"), "eth0");
    EXPECT_EQ(leaves("192.0.2.1", "10.1.0.1"), "wlan0");
    EXPECT_EQ(leaves("192.0.2.1", ""), "wlan0");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1", true), "eth0 wlan0");
}

TEST_F(RoutingTest, RulesInTheirOrder) {
    host.does(
        "route default dev eth0; route default dev wlan0 table 7;"
        "rule prio 20 from 192.0.2.0/24 lookup 7; rule prio 10 to 10.0.0.0/8 lookup 254");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "wlan0");
    EXPECT_EQ(leaves("192.0.2.1", "10.0.0.1"), "eth0");
    EXPECT_EQ(leaves("192.0.3.1", "203.0.113.1"), "eth0");
    EXPECT_EQ(leaves("", "203.0.113.1"), "eth0");
    host.does("rule del prio 20 from 192.0.2.0/24 lookup 7");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "eth0");
}

TEST_F(RoutingTest, AnEmptyTableLeadsOnToTheNextRule) {
    host.does("route default dev eth0; rule prio 20 from 192.0.2.0/24 lookup 7");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "eth0");
    host.does("route default throw table 7");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "eth0");
    host.does("route 203.0.113.0/24 unreachable table 7");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "");
}

TEST_F(RoutingTest, RulesAsOfATunnel) {
    // As wg-quick has them: all but what is marked goes into the tunnel, if nothing but the
    // default route leads there.
    host.does(
        "route default dev eth0; route 192.0.2.0/24 dev eth0; route default dev wlan0 table 7;"
        "rule prio 10 lookup 254 suppress 0; rule prio 11 not marked lookup 7");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "wlan0");
    EXPECT_EQ(leaves("192.0.2.1", "192.0.2.9"), "eth0");
}

TEST_F(RoutingTest, RulesThatJumpAndRefuse) {
    host.does(
        "route default dev eth0;"
        "rule prio 10 from 192.0.2.1/32 goto 30; rule prio 20 refuse;"
        "rule prio 30 to 10.0.0.0/8 refuse");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "eth0");
    EXPECT_EQ(leaves("192.0.2.1", "10.0.0.1"), "");
    EXPECT_EQ(leaves("192.0.2.2", "203.0.113.1"), "");
}

TEST_F(RoutingTest, AnyOfEqualNextHops) {
    host.does("route default via 192.0.2.1 dev eth0; route default via 198.51.100.1 dev wlan0");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "eth0 wlan0");
    host.does("route del default via 192.0.2.1 dev eth0");
    EXPECT_EQ(leaves("192.0.2.1", "203.0.113.1"), "wlan0");
}

TEST_F(RoutingTest, RoutesForASource) {
    host.does("route default6 dev eth0 from 2001:db8:1::/48 metric 9; route default6 dev wlan0");
    EXPECT_EQ(leaves("2001:db8:1::7", "2001:db8:f::1"), "eth0");
    EXPECT_EQ(leaves("2001:db8:2::7", "2001:db8:f::1"), "wlan0");
}

TEST_F(RoutingTest, RoutersPreference) {
    host.does(
        "route default6 via fe80::1 dev eth0 metric 1024;"
        "route default6 via fe80::2 dev wlan0 metric 1024 pref low");
    EXPECT_EQ(leaves("2001:db8:2::7", "2001:db8:f::1"), "eth0");
    host.does("route default6 via fe80::2 dev wlan0 metric 1024 pref high");
    EXPECT_EQ(leaves("2001:db8:2::7", "2001:db8:f::1"), "wlan0");
}

TEST_F(RoutingTest, WithoutRulesTheMainTableCounts) {
    HostState bare;
    ASSERT_TRUE(bare.apply({Change::How::Set, Route{.index = 1}}));
    EXPECT_NE(bare.routing().find({.from = ip("192.0.2.1")}, 1), nullptr);
}

// ---- What the kernel does without telling ----

class StateTest : public RoutingTest {
  protected:
    void SetUp() override {
        host.does(
            "link eth0; addr 192.0.2.10/24 dev eth0; addr 192.0.2.11/24 dev eth0 secondary;"
            "addr 2001:db8::10/64 dev eth0; route default via 192.0.2.1 dev eth0;"
            "route default6 via fe80::1 dev eth0; route 10.0.0.0/8 dev eth0 src 192.0.2.11");
    }
};

TEST_F(StateTest, RoutesGoWithTheirInterface) {
    host.does("link eth0 down");
    EXPECT_THAT(host.state.routing().routes(), IsEmpty());
    EXPECT_THAT(host.state.addresses(), SizeIs(3));
    host.does("link eth0 gone");
    EXPECT_THAT(host.state.addresses(), IsEmpty());
}

TEST_F(StateTest, RoutesStayWithoutACarrier) {
    host.does("link eth0 no-carrier");
    EXPECT_EQ(leaves("192.0.2.10", "203.0.113.1"), "eth0");
}

TEST_F(StateTest, IPv4RoutesGoWithTheLastAddress) {
    host.does("addr del 192.0.2.10/24 dev eth0");
    EXPECT_EQ(leaves("192.0.2.11", "203.0.113.1"), "eth0");
    host.does("addr del 192.0.2.11/24 dev eth0 secondary");
    EXPECT_EQ(leaves("192.0.2.11", "203.0.113.1"), "");
    EXPECT_EQ(leaves("2001:db8::10", "2001:db8:f::1"), "eth0");
}

TEST_F(StateTest, IPv4RoutesGoWithTheirSource) {
    host.does(
        "addr del 192.0.2.11/24 dev eth0 secondary; route del default via 192.0.2.1 dev eth0");
    EXPECT_EQ(leaves("192.0.2.10", "10.0.0.1"), "");
}

TEST_F(StateTest, AReplacedRouteIsGone) {
    host.does("route replace default via 192.0.2.2 dev wlan0");
    EXPECT_EQ(leaves("192.0.2.10", "203.0.113.1"), "wlan0");
    EXPECT_TRUE(host.sure);
}

TEST_F(StateTest, WhichOfSeveralIsReplacedIsNotSure) {
    host.does("route default via 192.0.2.2 dev eth0; route replace default via 192.0.2.3 dev eth0");
    EXPECT_FALSE(host.sure);
}

TEST_F(StateTest, AMessageThatSaysLessTakesNothingAway) {
    host.does("link wg0 kind wireguard prefers-temporary; link wg0");
    EXPECT_EQ(host.state.links().at(host.index("wg0")).kind, "wireguard");
    EXPECT_EQ(host.state.links().at(host.index("wg0")).prefers_temporary, true);
}

TEST_F(StateTest, TwiceIsOnce) {
    const auto before = host.state.routing();
    SetUp();
    EXPECT_EQ(host.state.routing(), before);
    EXPECT_THAT(host.state.addresses(), SizeIs(3));
}

// ---- Views ----

class ViewTest : public testing::Test {
  protected:
    View look(const View& before = {}, int after_ms = 0) {
        now += milliseconds(after_ms);
        return make_view(host.state, config, before, now);
    }

    const std::string cable =
        "link eth0; addr 192.0.2.10/24 dev eth0; route default via 192.0.2.1 dev eth0";
    Time now{std::chrono::hours(1)};
    Config config;
    TestHost host;
};

TEST_F(ViewTest, NothingNewIsEqual) {
    host.does(cable);
    const auto before = look();
    auto address = host.state.addresses().front();
    address.preferred = address.valid = 3600;  // a lease is renewed
    ASSERT_TRUE(host.state.apply({Change::How::Set, address}));
    EXPECT_EQ(look(before, 1000), before);
    EXPECT_FALSE(before.next());
}

TEST_F(ViewTest, WhatIsAPlace) {
    host.does(cable +
              ";link lo; addr 127.0.0.1/8 dev lo; addr fe80::1/64 dev eth0 link;"
              "link docker0 kind bridge; addr 172.17.0.1/16 dev docker0");
    const auto view = look();
    ASSERT_THAT(view.places, SizeIs(1));
    EXPECT_EQ(view.places[0].interface_name, "eth0");
    EXPECT_EQ(view.places[0].reach, Reach::Everywhere);
    EXPECT_EQ(view.places[0].gateway, ip("192.0.2.1"));
    EXPECT_THAT(view.others, ElementsAre(ip("127.0.0.1"), ip("fe80::1"), ip("172.17.0.1")));
}

TEST_F(ViewTest, WhatIsUsable) {
    host.does(
        "link wwan0; addr 100.64.0.9/30 dev wwan0; addr 2001:db8::5/64 dev wwan0 tentative;"
        "link eth0; addr 192.0.2.10/24 dev eth0; addr 192.0.2.11/24 dev eth0 deprecated;"
        "link wlan0; addr 198.51.100.20/24 dev wlan0; link eth1 no-carrier;"
        "addr 203.0.113.9/24 dev eth1; route default dev wwan0 table 7;"
        "route default dev eth0 table 8; route default dev wlan0 metric 600;"
        "rule from 100.64.0.0/10 lookup 7; rule from 192.0.2.0/24 lookup 8;"
        "route default dev eth0 metric 100");
    config.interfaces = {{.name = "ww*", .rank = 9}};
    const auto view = look();
    std::vector<std::string> usable;
    for (const auto* place : view.usable()) {
        usable.push_back(place->address.to_string());
    }
    // wlan0's has no rule: what it sends to everywhere leaves by eth0.
    EXPECT_THAT(usable, ElementsAre("192.0.2.10", "100.64.0.9", "198.51.100.20", "192.0.2.11"));
}

TEST_F(ViewTest, WhatIsGained) {
    const auto nothing = look();
    host.does("link eth0; addr 192.0.2.10/24 dev eth0");
    const auto near = look(nothing);
    EXPECT_TRUE(gained(nothing, near));
    host.does(cable);
    const auto far = look(near);
    EXPECT_TRUE(gained(near, far));
    EXPECT_FALSE(gained(far, far));
    EXPECT_FALSE(gained(far, near));
    host.does("route 10.0.0.0/8 via 192.0.2.7 dev eth0");
    EXPECT_TRUE(gained(far, look(far)));
    host.does("addr 192.0.2.12/24 dev eth0 tentative");
    EXPECT_FALSE(gained(look(far), look(far)));
}

TEST_F(ViewTest, AHoldEndsByTime) {
    host.does(cable);
    auto view = look();
    host.does("link eth0 no-carrier");
    view = look(view, 10);
    EXPECT_TRUE(view.places[0].held);
    ASSERT_EQ(view.next(), now + config.hold);
    EXPECT_EQ(look(view, 100), view);
    view = look(view, 100);
    EXPECT_FALSE(view.places[0].held);
    EXPECT_FALSE(view.next());
}

TEST_F(ViewTest, AddressesThatAreLeftAloneAreRememberedUpToABound) {
    host.does("link wg0 kind wireguard");
    auto view = look();
    for (int i = 0; i < 1000; i++) {
        const auto address =
            "10." + std::to_string(i / 250) + "." + std::to_string(i % 250) + ".1/32 dev wg0";
        host.does("addr " + address);
        view = look(view);
        host.does("addr del " + address);
    }
    EXPECT_THAT(view.others, SizeIs(256));
    EXPECT_EQ(view.others.front(), ip("10.3.249.1"));
}

TEST(WatchConfig, TheFirstRuleThatFitsCounts) {
    Config config;
    EXPECT_FALSE(config.rule_for("wg0", "wireguard").use);
    EXPECT_FALSE(config.rule_for("docker0", "bridge").use);
    EXPECT_TRUE(config.rule_for("br0", "bridge").use);
    EXPECT_TRUE(config.rule_for("enp3s0", "").use);
    config.interfaces = {{.name = "wg-home", .rank = 5},
                         {.name = "en*", .kind = "", .rank = -1},
                         {.kind = "bridge", .use = false}};
    EXPECT_EQ(config.rule_for("wg-home", "wireguard").rank, 5);
    EXPECT_EQ(config.rule_for("enp3s0", "").rank, -1);
    EXPECT_EQ(config.rule_for("enp3s0.5", "vlan").rank, 0);
    EXPECT_FALSE(config.rule_for("br0", "bridge").use);
}

}  // namespace
}  // namespace mobility::watch
