// SPDX-License-Identifier: GPL-2.0-or-later
// Messages between servers and proxies: what goes in comes out, and nothing bad does.
#include "libmobility/proxy_message.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <string>

#include "libmobility/frame.hpp"
#include "proto/proxy.pb.h"

namespace mobility {
namespace {

using boost::asio::ip::make_address;
using boost::asio::ip::make_address_v4;
using boost::asio::ip::make_address_v6;
using testing::HasSubstr;

constexpr std::uint16_t kLastPort = 65535;
constexpr std::uint32_t kLastToken = 0xffffffff;

RelayPair relay(std::uint32_t token) {
    return {{token, make_address("192.168.1.11"), 40000}, {9, make_address("10.0.0.2"), 22}};
}

Order order() {
    return {7, Name({1}), Name({2}), {relay(1), relay(2)}};
}

std::vector<ToProxy> all_to() {
    Order v6 = order();
    v6.connections = {{{1, make_address("2001:db8::1"), 1}, {2, make_address("fd00::2"), 2}}};
    return {Greeting{1, "mobility-server 0.1"}, Greeting{1, "", true}, order(), v6};
}

std::vector<FromProxy> all_from() {
    return {Ready{1, make_address_v4("192.0.2.1"), make_address_v6("2001:db8::9"), {3, 60'000}},
            Ready{1, make_address_v4("192.0.2.1"), {}, {}},
            Ready{1, {}, make_address_v6("2001:db8::9"), {}},
            Reserved{7, make_address("192.0.2.1"), {10'000, 10'001}},
            Declined{7, Declined::Why::Duplicate, "token 1"},
            Declined{},
            Load{4, 60'000},
            Met{7, {relay(1), relay(2)}}};
}

TEST(ProxyMessage, WhatGoesInComesOut) {
    for (const auto& message : all_to()) {
        const auto back = decode_to_proxy(encode(message));
        ASSERT_TRUE(back) << back.error().message;
        EXPECT_EQ(*back, message) << message.index();
    }
    for (const auto& message : all_from()) {
        const auto back = decode_from_proxy(encode(message));
        ASSERT_TRUE(back) << back.error().message;
        EXPECT_EQ(*back, message) << message.index();
    }
}

template <typename Message, typename Decode>
void cut(const Message& message, Decode decode) {
    const auto whole = encode(message);
    for (std::size_t size = 0; size < whole.size(); size++) {
        const auto short_one = decode(std::string_view(whole).substr(0, size));
        EXPECT_TRUE(!short_one || *short_one != message) << message.index() << " cut to " << size;
    }
}

TEST(ProxyMessage, EveryPrefixIsRefusedOrAnother) {
    for (const auto& message : all_to()) {
        cut(message, decode_to_proxy);
    }
    for (const auto& message : all_from()) {
        cut(message, decode_from_proxy);
    }
}

TEST(ProxyMessage, LongestFitsAFrame) {
    const auto last = make_address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    Order longest{~std::uint64_t{0}, Name({1}), Name({2}), {}};
    for (std::uint32_t i = 0; i < kMaxRelays; i++) {
        longest.connections.push_back(
            {{kLastToken - i, last, kLastPort}, {kLastToken, last, kLastPort}});
    }
    EXPECT_TRUE(frame(encode(ToProxy(longest))));
    EXPECT_TRUE(decode_to_proxy(encode(ToProxy(longest))));
    const FromProxy met = Met{longest.number, longest.connections};
    EXPECT_TRUE(frame(encode(met)));
    EXPECT_TRUE(decode_from_proxy(encode(met)));
    const Reserved answer{~std::uint64_t{0}, last,
                          std::vector<std::uint16_t>(kMaxRelays, kLastPort)};
    EXPECT_TRUE(frame(encode(FromProxy(answer))));
    EXPECT_TRUE(decode_from_proxy(encode(FromProxy(answer))));
}

/// What is said of a message that was spoiled on the way.
std::string bad_order(const std::function<void(v1::Order&)>& spoil) {
    v1::ToProxy wire;
    EXPECT_TRUE(wire.ParseFromString(encode(ToProxy(order()))));
    spoil(*wire.mutable_order());
    const auto result = decode_to_proxy(wire.SerializeAsString());
    EXPECT_TRUE(!result && result.error().is(EBADMSG));
    return result ? "accepted" : result.error().message;
}

std::string bad_answer(const FromProxy& good, const std::function<void(v1::FromProxy&)>& spoil) {
    v1::FromProxy wire;
    EXPECT_TRUE(wire.ParseFromString(encode(good)));
    spoil(wire);
    const auto result = decode_from_proxy(wire.SerializeAsString());
    EXPECT_TRUE(!result && result.error().is(EBADMSG));
    return result ? "accepted" : result.error().message;
}

TEST(ProxyMessage, BadWordsOfWhereEndsAreAreRefused) {
    const auto bad = [](const std::function<void(v1::Met&)>& spoil) {
        return bad_answer(Met{7, {relay(1), relay(2)}},
                          [&](v1::FromProxy& wire) { spoil(*wire.mutable_met()); });
    };
    EXPECT_THAT(bad([](auto& m) { m.clear_number(); }), HasSubstr("no number"));
    EXPECT_THAT(bad([](auto& m) { m.clear_connections(); }), HasSubstr("no connections"));
    EXPECT_THAT(bad([](auto& m) { m.mutable_connections(0)->mutable_first()->clear_port(); }),
                HasSubstr("a port"));
    EXPECT_THAT(bad([](auto& m) { *m.mutable_connections(0) = m.connections(1); }),
                HasSubstr("the same connection twice"));
}

TEST(ProxyMessage, BadOrdersAreRefusedAndSayWhy) {
    EXPECT_THAT(bad_order([](auto& o) { o.clear_number(); }), HasSubstr("no number"));
    EXPECT_THAT(bad_order([](auto& o) { o.clear_first(); }), HasSubstr("no host of 32 bytes"));
    EXPECT_THAT(bad_order([](auto& o) { o.set_second("x"); }), HasSubstr("no host of 32 bytes"));
    EXPECT_THAT(bad_order([](auto& o) { o.set_second(o.first()); }), HasSubstr("the same host"));
    EXPECT_THAT(bad_order([](auto& o) { o.clear_connections(); }), HasSubstr("no connections"));
    EXPECT_THAT(bad_order([](auto& o) { *o.add_connections() = o.connections(0); }),
                HasSubstr("the same connection twice"));
    EXPECT_THAT(bad_order([](auto& o) { o.mutable_connections(1)->mutable_first()->clear_port(); }),
                HasSubstr("port"));
    EXPECT_THAT(
        bad_order([](auto& o) { o.mutable_connections(1)->mutable_second()->set_address("xyz"); }),
        HasSubstr("4 or 16 bytes"));
    EXPECT_THAT(bad_order([](auto& o) {
                    o.mutable_connections(1)->mutable_second()->set_address(std::string(16, 'x'));
                }),
                HasSubstr("two families"));
    EXPECT_THAT(bad_order([](auto& o) {
                    while (o.connections_size() <= static_cast<int>(kMaxRelays)) {
                        *o.add_connections() = o.connections(0);
                    }
                }),
                HasSubstr("more than 1024 connections"));
}

TEST(ProxyMessage, BadAnswersAreRefusedAndSayWhy) {
    const auto good = all_from();
    EXPECT_THAT(bad_answer(good[1], [](auto& w) { w.mutable_ready()->clear_address(); }),
                HasSubstr("no address"));
    EXPECT_THAT(bad_answer(good[0], [](auto& w) { w.mutable_ready()->set_address("x"); }),
                HasSubstr("not 4 bytes"));
    EXPECT_THAT(bad_answer(good[0], [](auto& w) { w.mutable_ready()->set_address6("x"); }),
                HasSubstr("not 16 bytes"));
    EXPECT_THAT(bad_answer(good[3], [](auto& w) { w.mutable_reserved()->clear_number(); }),
                HasSubstr("no number"));
    EXPECT_THAT(bad_answer(good[3], [](auto& w) { w.mutable_reserved()->clear_ports(); }),
                HasSubstr("no ports"));
    EXPECT_THAT(bad_answer(good[3], [](auto& w) { w.mutable_reserved()->set_ports(1, 65536); }),
                HasSubstr("port"));
    EXPECT_THAT(bad_answer(good[3], [](auto& w) { w.mutable_reserved()->clear_address(); }),
                HasSubstr("address"));
    EXPECT_THAT(
        bad_answer(good[4],
                   [](auto& w) { w.mutable_declined()->set_text(std::string(kMaxText + 1, 'x')); }),
        HasSubstr("text"));
    EXPECT_THAT(bad_answer(good[6], [](auto& w) { w.Clear(); }), HasSubstr("kind"));
    EXPECT_TRUE(decode_from_proxy(std::string(kMaxFrame + 1, 'x')).error().is(EBADMSG));
    EXPECT_TRUE(decode_to_proxy("").error().is(EBADMSG));
}

TEST(ProxyMessage, ReasonsOfALaterVersionMeanNothing) {
    v1::FromProxy wire;
    wire.mutable_declined()->set_number(1);
    wire.mutable_declined()->set_why(static_cast<v1::Declined::Why>(4711));
    const auto back = decode_from_proxy(wire.SerializeAsString());
    ASSERT_TRUE(back);
    EXPECT_EQ(std::get<Declined>(*back).why, Declined::Why::NoReason);
}

TEST(ProxyMessage, EveryReasonHasAWord) {
    EXPECT_EQ(to_string(Declined::Why::NoReason), "no-reason");
    EXPECT_EQ(to_string(Declined::Why::Full), "full");
    EXPECT_EQ(to_string(Declined::Why::Duplicate), "duplicate");
}

}  // namespace
}  // namespace mobility
