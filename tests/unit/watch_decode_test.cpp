// SPDX-License-Identifier: GPL-2.0-or-later
// What rtnetlink's messages mean, and that damaged ones do no harm.
#include "watch/decode.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <utility>

#include "fake_rtnetlink.hpp"

namespace mobility::watch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using How = Change::How;

Address ip(const std::string& text) {
    return *Address::parse(text);
}

Decoded decoded(const std::string& name) {
    return decode(fake::rtnetlink_samples().at(name), 0);
}

TEST(WatchDecode, Links) {
    const Link link{.index = 3,
                    .name = "wg0",
                    .kind = "wireguard",
                    .up = true,
                    .running = true,
                    .prefers_temporary = true};
    EXPECT_THAT(decoded("link").changes, ElementsAre(Change{How::Set, link}));
    EXPECT_THAT(decoded("link-port").changes, IsEmpty()) << "it has left a bridge only";
}

TEST(WatchDecode, Addresses) {
    HostAddress v4{.ip = ip("192.0.2.10"), .index = 3, .length = 24};
    v4.secondary = true;
    v4.preferred = 3600;
    v4.valid = 7200;
    EXPECT_THAT(decoded("address").changes, ElementsAre(Change{How::Set, v4}));
    HostAddress v6{.ip = ip("2001:db8::10"), .index = 3, .length = 64};
    EXPECT_THAT(decoded("optimistic").changes, ElementsAre(Change{How::Set, v6}));
    v6.tentative = v6.failed = v6.temporary = v6.deprecated = true;
    v6.preferred = 0;
    v6.valid = 7200;
    EXPECT_THAT(decoded("address6").changes, ElementsAre(Change{How::Remove, v6}));
}

TEST(WatchDecode, Routes) {
    const Route route{.table = 1000,
                      .metric = 100,
                      .index = 3,
                      .gateway = ip("192.0.2.1"),
                      .source = ip("192.0.2.10")};
    EXPECT_THAT(decoded("route").changes, ElementsAre(Change{How::Replace, route}));
    EXPECT_THAT(decoded("route-del").changes, ElementsAre(Change{How::Remove, route}));
    EXPECT_THAT(decoded("route-local").changes, IsEmpty());
    EXPECT_THAT(decoded("route-unreachable").changes,
                ElementsAre(Change{How::Set, Route{.kind = Route::Kind::Blocked}}));
    EXPECT_THAT(decoded("route-via").changes,
                ElementsAre(Change{How::Set, Route{.index = 3, .gateway = ip("fe80::7")}}));
    Route first{.v6 = true, .index = 3, .gateway = ip("fe80::1")};
    Route second{.v6 = true, .index = 4, .gateway = ip("fe80::2")};
    EXPECT_THAT(decoded("route-hops").changes,
                ElementsAre(Change{How::Replace, first}, Change{How::Set, second}));
    const Route specific{.v6 = true,
                         .to = {ip("2001:db8:7::"), 48},
                         .from = {ip("2001:db8:1::"), 64},
                         .index = 3,
                         .preference = -1};
    EXPECT_THAT(decoded("route-specific").changes, ElementsAre(Change{How::Set, specific}));
}

TEST(WatchDecode, Rules) {
    const Rule rule{.priority = 7, .from = {ip("192.0.2.0"), 24}, .table = 1000, .suppress = 0};
    EXPECT_THAT(decoded("rule").changes, ElementsAre(Change{How::Set, rule}));
    const Rule marked{.v6 = true, .fits = false, .inverted = true, .table = 0};
    EXPECT_THAT(decoded("rule-marked").changes, ElementsAre(Change{How::Remove, marked}));
}

TEST(WatchDecode, Settings) {
    EXPECT_THAT(decoded("settings").changes,
                ElementsAre(Change{How::Set, Linkdown{.index = 0, .ignores = true}}));
}

TEST(WatchDecode, WhatIsNotFollowedIsUnsure) {
    EXPECT_TRUE(decoded("next-hop").unsure);
    EXPECT_FALSE(decoded("link").unsure);
}

TEST(WatchDecode, EndsOfDumps) {
    EXPECT_TRUE(decoded("done").done);
    EXPECT_TRUE(decoded("done").interrupted);
    EXPECT_EQ(decoded("done").error, 0);
    EXPECT_TRUE(decoded("error").done);
    EXPECT_EQ(decoded("error").error, EBUSY);
    EXPECT_FALSE(decode(fake::rtnetlink_samples().at("done"), 7).done) << "of another request";
}

TEST(WatchDecode, SeveralInOneDatagram) {
    auto both = fake::rtnetlink_samples().at("rule");
    const auto address = fake::rtnetlink_samples().at("address");
    both.insert(both.end(), address.begin(), address.end());
    EXPECT_EQ(decode(both, 0).changes.size(), 2);
}

TEST(WatchDecode, DamagedOnesDoNoHarm) {
    EXPECT_THAT(decode({}, 0).changes, IsEmpty());
    for (const auto& [name, whole] : fake::rtnetlink_samples()) {
        for (std::size_t size = 0; size < whole.size(); size++) {
            EXPECT_THAT(decode(std::span(whole).first(size), 0).changes, IsEmpty()) << name;
        }
        for (std::size_t at = 16; at < whole.size(); at++) {
            auto damaged = whole;
            damaged[at] = std::byte{0xff};
            static_cast<void>(decode(damaged, 0));
        }
    }
}

}  // namespace
}  // namespace mobility::watch
