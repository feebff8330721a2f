// SPDX-License-Identifier: GPL-2.0-or-later
// Messages of hosts and servers: what goes in comes out, and nothing bad does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <string>

#include "libmobility/message.hpp"
#include "proto/server.pb.h"

namespace mobility {
namespace {

using boost::asio::ip::make_address;
using testing::HasSubstr;
using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

Report report() {
    return {{Name({1}), make_address("192.168.1.11"), PairId{7}},
            {Name({2}), make_address("198.51.100.11"), PairId{8}},
            make_address("192.168.1.11"),
            make_address("198.51.100.11"),
            make_address("2001:db8::1"),
            {{4000, 22, 4000}, {4001, 443, 5001, 0xdeadbeef}}};
}

Notice notice() {
    return {PairId{3}, 9, 2, make_address("203.0.113.5"), true, {{4000, 4000, 22, 2222}}};
}

Notice delayed(std::chrono::milliseconds delay) {
    auto out = notice();
    out.delay = delay;
    return out;
}

std::vector<ToServer> to_server() {
    const Ticket ticket{{1}, Name({2}), PairId{3}, std::chrono::sys_seconds(1s), {4}};
    const Ticket other{{1}, Name({2}), PairId{5}, std::chrono::sys_seconds(1s), {6}};
    auto crossing = report();
    crossing.crosses = true;
    return {Hello{1, "mobility-client 0.1", "token", {}, true},
            Hello{1, "", "", {ticket, other}},
            report(),
            crossing,
            Outcome{PairId{1}, 2, 3, true},
            Forget{PairId{4}}};
}

std::vector<ToHost> to_host() {
    const Voucher voucher{{1}, std::chrono::sys_seconds(1s), std::chrono::sys_seconds(2s), {3}};
    return {Welcome{1, make_address("2001:db8::2"), 4711, 64},
            Welcome{1, make_address("2001:db8::2"), 4711, 64, voucher},
            Refused{Refused::Why::TooMuch, "64 pairs are the most", {}},
            Refused{Refused::Why::NotYours, "", PairId{6}},
            Ask{PairId{2}, {}},
            Ask{PairId{2}, Ask::Hint{make_address("2001:db8::2"), {{4000, 4000, 22, 2222}}}},
            notice(),
            delayed(0ms),
            delayed(kMaxDelay),
            Notice{PairId{3}, 9, 2, make_address("2001:db8::2"), false, {{1, 2, 3, 4}}, true},
            Verdict{PairId{5}, 1, Verdict::What::NeedsProxy},
            Verdict{PairId{5}, 1, Verdict::What::NoProxy}};
}

TEST(ExchangeMessage, WhatGoesInComesOut) {
    for (const auto& message : to_server()) {
        const auto back = decode_to_server(encode(message));
        ASSERT_TRUE(back) << back.error().message;
        EXPECT_EQ(*back, message) << message.index();
    }
    for (const auto& message : to_host()) {
        const auto back = decode_to_host(encode(message));
        ASSERT_TRUE(back) << back.error().message;
        EXPECT_EQ(*back, message) << message.index();
    }
}

TEST(ExchangeMessage, EveryPrefixIsRefusedOrWhole) {
    for (const auto& message : to_server()) {
        const auto whole = encode(message);
        for (std::size_t size = 0; size < whole.size(); size++) {
            const auto cut = decode_to_server(std::string_view(whole).substr(0, size));
            EXPECT_TRUE(!cut || *cut != message) << message.index() << " cut to " << size;
        }
    }
}

TEST(ExchangeMessage, BadVouchersAreRefusedAndSayWhy) {
    const auto bad = [](const std::function<void(v1::Voucher&)>& spoil) {
        v1::ToHost wire;
        EXPECT_TRUE(wire.ParseFromString(encode(to_host().at(1))));
        spoil(*wire.mutable_welcome()->mutable_voucher());
        const auto result = decode_to_host(wire.SerializeAsString());
        EXPECT_TRUE(!result && result.error().is(EBADMSG));
        return result ? "" : result.error().message;
    };
    EXPECT_THAT(bad([](auto& v) { v.Clear(); }), HasSubstr("no key of 32 bytes"));
    EXPECT_THAT(bad([](auto& v) { v.set_server(std::string(33, 'x')); }), HasSubstr("no key of"));
    EXPECT_THAT(bad([](auto& v) { v.set_signature("x"); }), HasSubstr("no signature of 64"));
}

TEST(ExchangeMessage, AVoucherMayNameAnyTime) {
    v1::ToHost wire;
    ASSERT_TRUE(wire.ParseFromString(encode(to_host().at(1))));
    wire.mutable_welcome()->mutable_voucher()->set_expires(~0ULL);
    const auto message = decode_to_host(wire.SerializeAsString());
    ASSERT_TRUE(message);
    EXPECT_EQ(std::get<Welcome>(*message).voucher->expires.time_since_epoch(), 1s * (1LL << 48));
}

TEST(ExchangeMessage, ADelayIsBoundedAndOfATrial) {
    const auto complaint = [](Notice notice) {
        const auto result = decode_to_host(encode(ToHost(notice)));
        return result ? "accepted" : result.error().message;
    };
    EXPECT_THAT(complaint(delayed(kMaxDelay + 1ms)), HasSubstr("more than 10 seconds"));
    auto plain = delayed(1ms);
    plain.trial = false;
    EXPECT_THAT(complaint(plain), HasSubstr("no trial"));
    auto relay = delayed(1ms);
    relay.relay = true;
    EXPECT_THAT(complaint(relay), HasSubstr("no trial"));
}

TEST(ExchangeMessage, LongestReportAndNoticeFitAFrame) {
    auto longest = report();
    longest.connections.clear();
    for (std::size_t i = 0; i < kMaxConnections; i++) {
        longest.connections.push_back(
            {static_cast<std::uint16_t>(65535 - i), 65534, 65533, 0xffffffff});
    }
    EXPECT_TRUE(frame(encode(ToServer(longest))));
    Hello hello{kVersion, std::string(kMaxText, 'x'), std::string(kMaxText, 'x'), {}};
    const auto last = std::chrono::sys_seconds(1s * (1LL << 48));
    for (std::uint8_t i = 0; i < kMaxTickets; i++) {
        hello.tickets.push_back({{}, {}, {}, last, {i}});
    }
    EXPECT_LE(encode(ToServer(hello)).size(), kMaxHello);
    EXPECT_TRUE(decode_to_server(encode(ToServer(hello))));
    EXPECT_TRUE(decode_to_server(encode(ToServer(longest))));
    auto told = notice();
    told.connections.clear();
    for (std::size_t i = 0; i < kMaxConnections; i++) {
        told.connections.push_back({static_cast<std::uint16_t>(65535 - i), 65534, 65533, 65532});
    }
    EXPECT_TRUE(frame(encode(ToHost(told))));
    EXPECT_TRUE(decode_to_host(encode(ToHost(told))));
}

/// What is said of a message that was spoiled on the way.
template <typename Wire>
std::string complaint_about(const std::string& good, const std::function<void(Wire&)>& spoil) {
    Wire wire;
    EXPECT_TRUE(wire.ParseFromString(good));
    spoil(wire);
    if constexpr (std::is_same_v<Wire, v1::ToServer>) {
        const auto result = decode_to_server(wire.SerializeAsString());
        EXPECT_TRUE(!result && result.error().is(EBADMSG));
        return result ? "accepted" : result.error().message;
    } else {
        const auto result = decode_to_host(wire.SerializeAsString());
        EXPECT_TRUE(!result && result.error().is(EBADMSG));
        return result ? "accepted" : result.error().message;
    }
}

std::string bad_report(const std::function<void(v1::Report&)>& spoil) {
    return complaint_about<v1::ToServer>(
        encode(ToServer(report())), [&](v1::ToServer& wire) { spoil(*wire.mutable_report()); });
}

TEST(ExchangeMessage, BadReportsAreRefusedAndSayWhy) {
    EXPECT_THAT(bad_report([](auto& r) { r.clear_own(); }), HasSubstr("no host of 32 bytes"));
    EXPECT_THAT(bad_report([](auto& r) { r.mutable_own()->set_host("x"); }), HasSubstr("host"));
    EXPECT_THAT(bad_report([](auto& r) { r.mutable_peer()->set_random("x"); }),
                HasSubstr("random"));
    EXPECT_THAT(bad_report([](auto& r) { r.mutable_peer()->set_host(r.own().host()); }),
                HasSubstr("same host"));
    EXPECT_THAT(bad_report([](auto& r) { r.clear_after(); }), HasSubstr("address"));
    EXPECT_THAT(bad_report([](auto& r) { r.set_before("12345"); }), HasSubstr("address"));
    EXPECT_THAT(bad_report([](auto& r) { r.set_before(std::string(16, '\1')); }),
                HasSubstr("two families"));
    EXPECT_THAT(bad_report([](auto& r) {
                    r.set_after(std::string(10, '\0') + "\xff\xff" + std::string(4, '\1'));
                }),
                HasSubstr("IPv4-mapped"));
    EXPECT_THAT(bad_report([](auto& r) { r.clear_connections(); }), HasSubstr("connections"));
    EXPECT_THAT(bad_report([](auto& r) {
                    for (std::size_t i = 0; i < kMaxConnections; i++) {
                        *r.add_connections() = r.connections(0);
                    }
                }),
                HasSubstr("connections"));
    EXPECT_THAT(bad_report([](auto& r) { r.mutable_connections(1)->set_own(0); }),
                HasSubstr("port"));
    EXPECT_THAT(bad_report([](auto& r) { r.mutable_connections(0)->set_peer(65536); }),
                HasSubstr("port"));
}

TEST(ExchangeMessage, OtherBadMessagesAreRefusedAndSayWhy) {
    EXPECT_THAT(complaint_about<v1::ToServer>(encode(ToServer(Forget{PairId{1}})),
                                              [](auto& w) { w.mutable_forget()->set_pair("x"); }),
                HasSubstr("pair ID"));
    EXPECT_THAT(complaint_about<v1::ToServer>(
                    encode(ToServer(Hello{})),
                    [](auto& w) { w.mutable_hello()->set_enrolment(std::string(257, 'x')); }),
                HasSubstr("text"));
    EXPECT_THAT(complaint_about<v1::ToServer>(encode(ToServer(Hello{})),
                                              [](auto& w) { w.mutable_hello()->add_tickets(); }),
                HasSubstr("key of 32 bytes"));
    EXPECT_THAT(complaint_about<v1::ToServer>(encode(ToServer(Hello{})),
                                              [](auto& w) {
                                                  for (std::size_t i = 0; i <= kMaxTickets; i++) {
                                                      w.mutable_hello()->add_tickets();
                                                  }
                                              }),
                HasSubstr("64 tickets"));
    EXPECT_THAT(
        complaint_about<v1::ToServer>(encode(ToServer(Hello{})), [](auto& w) { w.clear_what(); }),
        HasSubstr("kind"));
    EXPECT_THAT(
        complaint_about<v1::ToHost>(encode(ToHost(notice())),
                                    [](auto& w) { w.mutable_notice()->clear_connections(); }),
        HasSubstr("connections"));
    EXPECT_THAT(
        complaint_about<v1::ToHost>(encode(ToHost(Welcome{1, make_address("192.0.2.1"), 1, 1})),
                                    [](auto& w) { w.mutable_welcome()->set_seen_port(0); }),
        HasSubstr("port"));
    EXPECT_TRUE(decode_to_server(std::string(kMaxFrame + 1, 'x')).error().is(EBADMSG));
    EXPECT_TRUE(decode_to_host("").error().is(EBADMSG));
}

TEST(ExchangeMessage, WhatIsThereTwiceIsRefused) {
    EXPECT_THAT(bad_report([](auto& r) { *r.add_connections() = r.connections(0); }),
                HasSubstr("same connection twice"));
    EXPECT_THAT(complaint_about<v1::ToHost>(encode(ToHost(notice())),
                                            [](auto& w) {
                                                auto& n = *w.mutable_notice();
                                                *n.add_connections() = n.connections(0);
                                                n.mutable_connections(0)->set_peer_after(9);
                                            }),
                HasSubstr("same connection twice"));
    Hello hello;
    hello.tickets.push_back({{}, {}, {}, {}, {1}});
    EXPECT_THAT(complaint_about<v1::ToServer>(encode(ToServer(hello)),
                                              [](auto& w) {
                                                  auto& h = *w.mutable_hello();
                                                  *h.add_tickets() = h.tickets(0);
                                              }),
                HasSubstr("same ticket twice"));
}

TEST(ExchangeMessage, UnknownEnumeratorsMeanNothingInParticular) {
    v1::ToHost wire;
    ASSERT_TRUE(wire.ParseFromString(encode(ToHost(Verdict{PairId{5}, 1, {}}))));
    for (const int number : {99, 256, -1, -256}) {
        wire.mutable_verdict()->set_what(static_cast<v1::Verdict::What>(number));
        const auto verdict = decode_to_host(wire.SerializeAsString());
        ASSERT_TRUE(verdict);
        EXPECT_EQ(std::get<Verdict>(*verdict).what, Verdict::What::Nothing) << number;
    }
}

TEST(ExchangeMessage, ThePairOfAReportIsItsParts) {
    auto turned = report();
    std::swap(turned.own, turned.peer);
    EXPECT_EQ(turned.pair(), report().pair());
    turned.own.random[0] ^= 1;
    EXPECT_NE(turned.pair(), report().pair());
}

}  // namespace
}  // namespace mobility
