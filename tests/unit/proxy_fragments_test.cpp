// SPDX-License-Identifier: GPL-2.0-or-later
// IP packets taken to pieces and put together again.
#include "relay/fragments.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "proxy_packets.hpp"

namespace mobility::proxy {
namespace {

using boost::asio::ip::make_address;
using std::chrono::seconds;
using testing::SizeIs;
using namespace test;  // NOLINT(google-build-using-namespace)

const Tuple kTuple{{make_address("192.0.2.1"), 1000}, {make_address("192.0.2.9"), 20000}};
const Tuple kTuple6{{make_address("2001:db8::1"), 1000}, {make_address("2001:db8::9"), 20000}};

Octets content(std::size_t size) {
    Octets out(size);
    for (std::size_t i = 0; i < size; i++) {
        out[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    }
    return out;
}

Octets segment(const Tuple& tuple, std::size_t size = 1400) {
    auto out = packet({tuple, 1, 2, flag::kAck, timestamps(1, 2), content(size)});
    if (tuple.from.address.is_v4()) {
        out[6] = 0;
        out = with_length(std::move(out));
    }
    return out;
}

/// Of IPv6; hosts do it, routers do not.
std::vector<Octets> pieces6(const Octets& whole, std::size_t step) {
    std::vector<Octets> out;
    for (std::size_t at = 40; at < whole.size(); at += step) {
        const auto end = std::min(at + step, whole.size());
        Octets piece(whole.begin(), whole.begin() + 40);
        piece[6] = 44;
        add(piece, 6, 1);
        add(piece, 0, 1);
        add(piece, (at - 40) | (end < whole.size() ? 1 : 0), 2);
        add(piece, 0xdeadbeef, 4);
        piece.insert(piece.end(), whole.begin() + static_cast<std::ptrdiff_t>(at),
                     whole.begin() + static_cast<std::ptrdiff_t>(end));
        out.push_back(with_length(std::move(piece)));
    }
    return out;
}

class FragmentsTest : public testing::Test {
  protected:
    std::optional<Octets> all(const std::vector<Octets>& pieces) {
        std::optional<Octets> out;
        for (const auto& piece : pieces) {
            EXPECT_FALSE(out);
            out = fragments.add(piece, now);
        }
        return out;
    }
    Fragments fragments;
    Fragments::Time now{};
};

TEST_F(FragmentsTest, InAnyOrder) {
    std::mt19937 chance(1);
    for (int i = 0; i < 100; i++) {
        const bool v6 = i % 2 == 1;
        const auto whole = segment(v6 ? kTuple6 : kTuple, 300 + chance() % 1200);
        auto pieces = v6 ? pieces6(whole, 256) : fragmented(whole, 68 + chance() % 400, 7);
        std::ranges::shuffle(pieces, chance);
        auto out = all(pieces);
        ASSERT_TRUE(out);
        if (!v6) {
            EXPECT_EQ((*out)[5], 7);
            (*out)[4] = whole[4];
            (*out)[5] = whole[5];
            *out = with_length(std::move(*out));
        }
        EXPECT_EQ(*out, whole);
        EXPECT_EQ(fragments.waiting(), 0U);
    }
    EXPECT_EQ(fragments.lost(), 0U);
}

TEST_F(FragmentsTest, PiecesAreSoundAndFit) {
    const auto whole = segment(kTuple);
    for (const std::size_t mtu : {68, 69, 576, 1280, 1400}) {
        for (const auto& piece : fragmented(whole, mtu, 7)) {
            EXPECT_LE(piece.size(), mtu);
            EXPECT_EQ(internet_checksum(Octets(piece.begin(), piece.begin() + 20)), 0);
        }
    }
    EXPECT_FALSE(may_fragment(packet({kTuple, 1, 2, flag::kAck, {}, {}})));
    EXPECT_FALSE(may_fragment(segment(kTuple6)));
    EXPECT_TRUE(may_fragment(whole));
}

TEST_F(FragmentsTest, OfOneIsNoneOfAnother) {
    const auto one = fragmented(segment(kTuple), 1000, 7);
    const auto other = fragmented(segment(kTuple), 1000, 8);
    EXPECT_FALSE(fragments.add(one[0], now));
    EXPECT_FALSE(fragments.add(other[1], now));
    EXPECT_TRUE(fragments.add(one[1], now));
    EXPECT_EQ(fragments.waiting(), 1U);
}

TEST_F(FragmentsTest, OverlapsTakeThePacketWithThem) {
    const auto fine = fragmented(segment(kTuple), 576, 7);
    const auto coarse = fragmented(segment(kTuple), 1000, 7);
    for (const auto& [first, second] :
         {std::pair(fine[0], coarse[0]), std::pair(coarse[0], fine[1]),
          std::pair(fine[2], coarse[1])}) {
        fragments.add(first, now);
        EXPECT_EQ(fragments.waiting(), 1U);
        EXPECT_FALSE(fragments.add(second, now));
        EXPECT_EQ(fragments.waiting(), 0U);
    }
    // Beyond its end.
    auto last = fine[1];
    last[6] = 0;
    fragments.add(fine[2], now);
    fragments.add(with_length(last), now);
    EXPECT_EQ(fragments.waiting(), 0U);
    EXPECT_EQ(fragments.lost(), 4U);
}

TEST_F(FragmentsTest, BoundedInNumberAndTime) {
    for (std::uint16_t id = 0; id < 2 * Fragments::kMost; id++) {
        now += seconds(1) / 100;
        fragments.add(fragmented(segment(kTuple), 576, id)[0], now);
    }
    EXPECT_EQ(fragments.waiting(), Fragments::kMost);
    EXPECT_EQ(fragments.lost(), Fragments::kMost);
    fragments.expire(now + seconds(20));
    EXPECT_EQ(fragments.waiting(), Fragments::kMost);
    fragments.expire(now + seconds(31));
    EXPECT_EQ(fragments.waiting(), 0U);
    // In very small ones: not all of them.
    EXPECT_FALSE(all(fragmented(segment(kTuple, 4000), 68, 7)));
    EXPECT_GT(fragments.lost(), 2 * Fragments::kMost);
}

TEST_F(FragmentsTest, Nonsense) {
    const auto good = fragmented(segment(kTuple), 576, 7)[1];
    for (std::size_t size = 0; size < good.size(); size++) {
        EXPECT_FALSE(fragments.add(View(good).first(size), now));
    }
    const auto good6 = pieces6(segment(kTuple6), 512)[1];
    for (std::size_t size = 0; size < good6.size(); size++) {
        EXPECT_FALSE(fragments.add(View(good6).first(size), now));
    }
    auto odd = good;
    odd.pop_back();
    EXPECT_FALSE(fragments.add(with_length(odd), now));
    auto beyond = good;
    beyond[6] = 0x1f;
    beyond[7] = 0xff;
    EXPECT_FALSE(fragments.add(beyond, now));
    auto udp = good;
    udp[9] = 17;
    EXPECT_FALSE(fragments.add(udp, now));
    EXPECT_EQ(fragments.waiting(), 0U);
}

}  // namespace
}  // namespace mobility::proxy
