// SPDX-License-Identifier: GPL-2.0-or-later
// Messages between two hosts' clients: what goes in comes out, and nothing bad does.
#include "libmobility/peer_message.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <string>

#include "libmobility/message.hpp"
#include "proto/peer.pb.h"

namespace mobility {
namespace {

using boost::asio::ip::make_address;
using boost::asio::ip::make_address_v4;
using boost::asio::ip::make_address_v6;
using testing::HasSubstr;
using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

const PairPart kPart{Name({1}), make_address("192.168.1.11"), {7}};
const ServerPlace kBoth{Name({9}), make_address_v4("203.0.113.1"), make_address_v6("2001:db8::9"),
                        7790};
const Ticket kTicket{{1}, Name({2}), PairId{3}, std::chrono::sys_seconds(1s), {4}};
const Ticket kOther{{1}, Name({2}), PairId{3}, std::chrono::sys_seconds(1s), {5}};

const Voucher kVoucher{{1}, std::chrono::sys_seconds(1s), std::chrono::sys_seconds(2s), {3}};

Offer offer() {
    return {1,
            "mobility-client 0.1",
            kPart,
            {kBoth, {Name({8}), {}, kBoth.address6, 1}},
            {{4000, 22, {5}}},
            {kVoucher, {{2}, {}, kVoucher.expires, {}}}};
}

Answer answer() {
    return {1,         "",      kPart,     make_address("2001:db8::1"),
            {0, 2},    {kBoth}, {kTicket}, {{22, 4000, {6}}},
            {kVoucher}};
}

std::vector<ToPeer> all() {
    return {offer(),
            answer(),
            Confirm{PairId{1}, make_address("198.51.100.1"), {1}, {kTicket, kOther}},
            Prove{2, {{1, 2, {3}}, {4, 5, {6}}}},
            Proved{2, {}},
            Stage{7, true},
            PeerRefused{PeerRefused::Why::OtherIdentity, "already proved by another host"}};
}

TEST(PeerMessage, WhatGoesInComesOut) {
    for (const auto& message : all()) {
        const auto back = decode_to_peer(encode(message));
        ASSERT_TRUE(back) << back.error().message;
        EXPECT_EQ(*back, message) << message.index();
    }
}

TEST(PeerMessage, EveryPrefixIsRefusedOrAnother) {
    for (const auto& message : all()) {
        const auto whole = encode(message);
        for (std::size_t size = 0; size < whole.size(); size++) {
            const auto cut = decode_to_peer(std::string_view(whole).substr(0, size));
            EXPECT_TRUE(!cut || *cut != message) << message.index() << " cut to " << size;
        }
    }
}

TEST(PeerMessage, LongestFitsAFrame) {
    constexpr std::chrono::sys_seconds kLast(1s * (1LL << 48));
    auto longest = answer();
    longest.software.assign(kMaxText, 'x');
    longest.usable = {0, 1, 2, 3, 4, 5, 6, 7};
    longest.servers.clear();
    longest.vouchers.clear();
    longest.tickets.clear();
    for (std::uint8_t i = 0; i < kMaxServers; i++) {
        longest.servers.push_back(kBoth);
        longest.servers.back().host = Name({i});
        longest.tickets.push_back(kTicket);
        longest.tickets.back().signature[0] = i;
        longest.vouchers.push_back({{i}, kLast, kLast, {}});
    }
    longest.connections.clear();
    for (std::size_t i = 0; i < kMaxProofs; i++) {
        const auto low = static_cast<std::uint8_t>(i);
        const auto high = static_cast<std::uint8_t>(i >> 8);
        longest.connections.push_back({65535, 65535, {low, high}});
    }
    EXPECT_TRUE(frame(encode(ToPeer(longest))));
    EXPECT_TRUE(decode_to_peer(encode(ToPeer(longest))));
}

/// What is said of a message that was spoiled on the way.
std::string complaint_about(const ToPeer& good, const std::function<void(v1::ToPeer&)>& spoil) {
    v1::ToPeer wire;
    EXPECT_TRUE(wire.ParseFromString(encode(good)));
    spoil(wire);
    const auto result = decode_to_peer(wire.SerializeAsString());
    EXPECT_TRUE(!result && result.error().is(EBADMSG));
    return result ? "accepted" : result.error().message;
}

std::string bad_offer(const std::function<void(v1::Offer&)>& spoil) {
    return complaint_about(offer(), [&](v1::ToPeer& wire) { spoil(*wire.mutable_offer()); });
}

std::string bad_answer(const std::function<void(v1::Answer&)>& spoil) {
    return complaint_about(answer(), [&](v1::ToPeer& wire) { spoil(*wire.mutable_answer()); });
}

TEST(PeerMessage, VouchersAreFewAndOneOfAServer) {
    const auto nine = [](auto& message) {
        for (char i = 0; i < 9; i++) {
            *message.add_vouchers() = message.vouchers(0);
            message.mutable_vouchers(i)->set_server(std::string(32, i));
        }
    };
    const auto twice = [](auto& message) { *message.add_vouchers() = message.vouchers(0); };
    EXPECT_THAT(bad_offer(nine), HasSubstr("more than 8 vouchers"));
    EXPECT_THAT(bad_answer(nine), HasSubstr("more than 8 vouchers"));
    EXPECT_THAT(bad_offer(twice), HasSubstr("two vouchers of a server"));
    EXPECT_THAT(bad_answer(twice), HasSubstr("two vouchers of a server"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_vouchers(0)->set_server("x"); }),
                HasSubstr("no key of 32 bytes"));
    EXPECT_THAT(bad_answer([](auto& a) { a.mutable_vouchers(0)->clear_signature(); }),
                HasSubstr("no signature of 64 bytes"));
}

TEST(PeerMessage, OlderPeersShowNone) {
    auto older = offer();
    older.vouchers.clear();
    EXPECT_EQ(*decode_to_peer(encode(ToPeer(older))), ToPeer(older));
}

TEST(PeerMessage, BadOffersAreRefusedAndSayWhy) {
    EXPECT_THAT(bad_offer([](auto& o) { o.clear_own(); }), HasSubstr("no host of 32 bytes"));
    EXPECT_THAT(bad_offer([](auto& o) { o.clear_connections(); }), HasSubstr("no connection"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_connections(0)->set_own(0); }),
                HasSubstr("port"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_connections(0)->set_peer(65536); }),
                HasSubstr("port"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_connections(0)->set_proof("x"); }),
                HasSubstr("no proof of 32 bytes"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_servers(0)->clear_host(); }),
                HasSubstr("no server of 32 bytes"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_servers(0)->set_address("x"); }),
                HasSubstr("IPv4 address"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_servers(0)->set_address6("1234"); }),
                HasSubstr("IPv6 address"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_servers(1)->clear_address6(); }),
                HasSubstr("without an address"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_servers(1)->clear_port(); }), HasSubstr("port"));
    EXPECT_THAT(bad_offer([](auto& o) {
                    while (o.servers_size() <= static_cast<int>(kMaxServers)) {
                        *o.add_servers() = o.servers(0);
                    }
                }),
                HasSubstr("more than 8 servers"));
    EXPECT_THAT(bad_offer([](auto& o) {
                    while (o.connections_size() <= static_cast<int>(kMaxProofs)) {
                        *o.add_connections() = o.connections(0);
                    }
                }),
                HasSubstr("more than 1024 connections"));
    EXPECT_THAT(bad_offer([](auto& o) { o.set_software(std::string(kMaxText + 1, 'x')); }),
                HasSubstr("text"));
}

TEST(PeerMessage, BadAnswersAreRefusedAndSayWhy) {
    EXPECT_THAT(bad_answer([](auto& a) { a.clear_seen_address(); }), HasSubstr("address"));
    EXPECT_THAT(bad_answer([](auto& a) { a.set_usable(1, 0); }), HasSubstr("out of order"));
    EXPECT_THAT(bad_answer([](auto& a) { a.set_usable(1, 8); }), HasSubstr("none of 8"));
    EXPECT_THAT(bad_answer([](auto& a) { a.mutable_tickets(0)->clear_signature(); }),
                HasSubstr("signature"));
    EXPECT_THAT(bad_answer([](auto& a) { a.clear_connections(); }), HasSubstr("no connection"));
}

TEST(PeerMessage, WhatIsThereTwiceIsRefused) {
    EXPECT_THAT(bad_offer([](auto& o) { *o.add_connections() = o.connections(0); }),
                HasSubstr("same proof twice"));
    EXPECT_THAT(bad_offer([](auto& o) { o.mutable_servers(1)->set_host(o.servers(0).host()); }),
                HasSubstr("same server twice"));
    EXPECT_THAT(bad_answer([](auto& a) { *a.add_tickets() = a.tickets(0); }),
                HasSubstr("same ticket twice"));
}

TEST(PeerMessage, OthersAreRefusedAndSayWhy) {
    EXPECT_THAT(complaint_about(all()[2], [](auto& w) { w.mutable_confirm()->clear_pair(); }),
                HasSubstr("pair ID"));
    EXPECT_THAT(complaint_about(all()[3], [](auto& w) { w.mutable_prove()->clear_connections(); }),
                HasSubstr("no connection"));
    EXPECT_THAT(complaint_about(all()[5], [](auto& w) { w.Clear(); }), HasSubstr("kind"));
    EXPECT_TRUE(decode_to_peer(std::string(kMaxFrame + 1, 'x')).error().is(EBADMSG));
}

TEST(PeerMessage, ReasonsOfALaterVersionMeanNothing) {
    v1::ToPeer wire;
    wire.mutable_refused()->set_why(static_cast<v1::PeerRefused::Why>(4711));
    const auto back = decode_to_peer(wire.SerializeAsString());
    ASSERT_TRUE(back);
    EXPECT_EQ(std::get<PeerRefused>(*back).why, PeerRefused::Why::NoReason);
}

}  // namespace
}  // namespace mobility
