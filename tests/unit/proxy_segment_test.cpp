// SPDX-License-Identifier: GPL-2.0-or-later
// Segments: what is read of them, and what they are made into. Checksums are those of
// proxy_packets.hpp, which computes them by itself.
#include "relay/segment.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy_packets.hpp"

namespace mobility::proxy {
namespace {

using boost::asio::ip::make_address;
using namespace test;  // NOLINT(google-build-using-namespace)

struct Family {
    Tuple in;
    Tuple out;
};

Family family(bool v6) {
    const auto ip = [](const char* text) { return make_address(text); };
    if (v6) {
        return {{{ip("2001:db8::1"), 40001}, {ip("2001:db8::99"), 20001}},
                {{ip("2001:db8::99"), 20001}, {ip("2001:db8:1::2"), 22}}};
    }
    return {{{ip("198.51.100.1"), 40001}, {ip("203.0.113.9"), 20001}},
            {{ip("203.0.113.9"), 20001}, {ip("192.0.2.2"), 22}}};
}

int window(const Segment& segment) {
    return segment.packet.at(segment.head + 14) << 8 | segment.packet.at(segment.head + 15);
}

class SegmentTest : public testing::TestWithParam<bool> {
  protected:
    Family f = family(GetParam());

    static Segment parsed(const Octets& bytes) {
        auto out = parse_segment(bytes, bytes.size());
        EXPECT_TRUE(out);
        EXPECT_TRUE(is_sound(bytes));
        return out.value_or(Segment());
    }
    Segment msyn(std::uint32_t seq = 1000) const {
        return parsed(packet(
            {f.in, seq, 0, flag::kSyn, syn_words() + mreq(Form::Mreq, 3, 0xaabbccdd, 40001), {}}));
    }
};
INSTANTIATE_TEST_SUITE_P(Families, SegmentTest, testing::Bool());

TEST_P(SegmentTest, SaysWhatIsInIt) {
    const auto data = parsed(packet({f.in, 5, 6, flag::kAck | flag::kFin,
                                     timestamps(111, 222) + Octets{1, 1, 1, 1}, Octets(33, 1)}));
    EXPECT_EQ(data.tuple, f.in);
    EXPECT_EQ(data.seq, 5U);
    EXPECT_EQ(data.ack, 6U);
    EXPECT_EQ(data.payload, 33U);
    EXPECT_EQ(data.end(), 5U + 33 + 1);
    EXPECT_EQ(data.tsval, 111U);
    EXPECT_EQ(data.tsecr, 222U);
    EXPECT_FALSE(data.migrate);
    EXPECT_TRUE(data.whole);
    const auto asks = msyn();
    EXPECT_TRUE(asks.is_msyn());
    EXPECT_EQ(asks.migrate->token, 0xaabbccddU);
    EXPECT_EQ(asks.migrate->port, 40001);
    EXPECT_EQ(asks.migrate->reqno, 3);
    EXPECT_EQ(asks.end(), 1001U);
    const auto proves =
        parsed(packet({f.in, 1, 2, flag::kAck, timestamps(1, 2) + confirm(9, 0x01020304), {}}));
    EXPECT_TRUE(proves.is(Form::Confirm));
    EXPECT_EQ(proves.migrate->token, 0x01020304U);
    EXPECT_EQ(proves.migrate->reqno, 9);
}

TEST_P(SegmentTest, CutAnywhereItIsEitherNoneOrNotWhole) {
    const auto bytes = packet(
        {f.in, 1, 2, flag::kAck, timestamps(1, 2) + mreq(Form::Mans, 1, 2, 3), Octets(50, 7)});
    for (std::size_t size = 0; size < bytes.size(); size++) {
        const auto cut = parse_segment(View(bytes).first(size), bytes.size());
        EXPECT_EQ(cut.has_value(), size >= bytes.size() - 50) << size;
        EXPECT_FALSE(cut && cut->whole) << size;
    }
    // The packet is shorter than its header says.
    EXPECT_FALSE(parse_segment(bytes, bytes.size() - 1));
}

TEST_P(SegmentTest, OptionsThatAreNone) {
    for (const auto& bad :
         {Octets{254, 0, 0, 0}, Octets{254, 1, 0, 0}, Octets{8, 10, 0, 0}, Octets{1, 1, 1, 254}}) {
        EXPECT_FALSE(parse_segment(packet({f.in, 1, 2, flag::kAck, bad, {}}), 2000));
    }
    // Of a wrong length, or of another experiment, it is not ours.
    for (const auto& other :
         {Octets{254, 8, 0x4d, 0x49, 0x10, 0, 0, 0}, Octets{254, 8, 0x4d, 0x4a, 0x50, 0, 0, 0},
          Octets{254, 4, 0x4d, 0x49}}) {
        EXPECT_FALSE(parsed(packet({f.in, 1, 2, flag::kAck, other, {}})).migrate);
    }
    // What follows the end is not looked at.
    const auto ended = Octets{0, 0, 0, 0} + mreq(Form::Mreq, 1, 2, 3);
    EXPECT_FALSE(parsed(packet({f.in, 1, 2, flag::kAck, ended, {}})).migrate);
}

TEST_P(SegmentTest, ReaddressedChangesNothingElse) {
    const Made made{f.in, 5, 6, flag::kAck, timestamps(1, 2), Octets(101, 9)};
    auto expected = made;
    expected.tuple = f.out;
    EXPECT_EQ(readdressed(parsed(packet(made)), f.out), packet(expected));
}

TEST_P(SegmentTest, OneEndsMsynAnswersTheOthers) {
    const auto answer = parsed(answer_from(msyn(), 0xffffffff, f.out));
    EXPECT_EQ(answer.tuple, f.out);
    EXPECT_EQ(answer.flags, flag::kSyn | flag::kAck);
    EXPECT_EQ(answer.seq, 1000U);
    EXPECT_EQ(answer.ack, 0U);
    EXPECT_EQ(answer.migrate, msyn().migrate);
    EXPECT_EQ(syn_options(answer), syn_words());
}

TEST_P(SegmentTest, AnMsynIsPassedOnWithoutSyn) {
    const auto request = parsed(request_from(msyn(), 4711, f.out));
    EXPECT_EQ(request.tuple, f.out);
    EXPECT_EQ(request.flags, flag::kAck);
    EXPECT_EQ(request.seq, 1000U);
    EXPECT_EQ(request.ack, 4711U);
    EXPECT_EQ(request.migrate, msyn().migrate);
    EXPECT_EQ(window(request), 0x1234 >> 7);
}

TEST_P(SegmentTest, ItsAnswerGetsASyn) {
    const auto mans = parsed(packet(
        {f.in, 77, 1001, flag::kAck, timestamps(5, 6) + mreq(Form::Mans, 3, 0x11223344, 22), {}}));
    const auto answer = parsed(answer_with_syn(mans, syn_words(), f.out));
    EXPECT_EQ(answer.flags, flag::kSyn | flag::kAck);
    EXPECT_EQ(answer.seq, 77U);
    EXPECT_EQ(answer.ack, 1001U);
    EXPECT_EQ(answer.migrate, mans.migrate);
    EXPECT_EQ(syn_options(answer), syn_words());
    EXPECT_FALSE(answer.tsval);
    EXPECT_EQ(window(answer), 0xffff);  // 0x1234 << 7
    EXPECT_EQ(window(parsed(answer_with_syn(mans, Octets{2, 4, 5, 0xb4}, f.out))), 0x1234);
}

TEST_P(SegmentTest, ResetsAsAClosedPort) {
    const auto acks = parsed(*reset_for(parsed(packet({f.in, 5, 6, flag::kAck, {}, Octets(9)}))));
    EXPECT_EQ(acks.tuple, (Tuple{f.in.to, f.in.from}));
    EXPECT_EQ(acks.flags, flag::kRst);
    EXPECT_EQ(acks.seq, 6U);
    const auto syn = parsed(*reset_for(msyn()));
    EXPECT_EQ(syn.flags, flag::kRst | flag::kAck);
    EXPECT_EQ(syn.ack, 1001U);
    EXPECT_FALSE(reset_for(parsed(packet({f.in, 5, 6, flag::kRst, {}, {}}))));
}

TEST_P(SegmentTest, TooBigIsSaidToWhoSentIt) {
    const auto big = packet({f.in, 5, 6, flag::kAck, timestamps(1, 2), Octets(1400)});
    const auto said = too_big_for(big, 1280);
    EXPECT_TRUE(is_sound(said));
    const auto error = parse_icmp_error(said);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->mtu, 1280U);
    EXPECT_EQ(error->quoted, f.in);
}

TEST_P(SegmentTest, IcmpErrorsGoToTheOtherEnd) {
    const auto error =
        parse_icmp_error(too_big_for(packet({f.out, 5, 6, flag::kAck, {}, Octets(100)}), 1300));
    ASSERT_TRUE(error);
    const auto passed = translated(*error, f.in);
    EXPECT_TRUE(is_sound(passed));
    const auto again = parse_icmp_error(passed);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->mtu, 1300U);
    EXPECT_EQ(again->quoted, f.in);
}

TEST_P(SegmentTest, IcmpCutAnywhereIsNone) {
    const auto said = too_big_for(packet({f.in, 5, 6, flag::kAck, {}, {}}), 1280);
    const std::size_t enough = GetParam() ? 40 + 8 + 40 + 4 : 20 + 8 + 20 + 4;
    for (std::size_t size = 0; size < said.size(); size++) {
        EXPECT_EQ(parse_icmp_error(View(said).first(size)).has_value(), size >= enough) << size;
    }
}

/// What follows the end that the packet itself tells is not looked at.
TEST_P(SegmentTest, IcmpIsNoLongerThanItSays) {
    auto said = too_big_for(packet({f.in, 5, 6, flag::kAck, {}, {}}), 1280);
    const std::size_t at = GetParam() ? 4 : 2;
    const std::size_t head = GetParam() ? 40 : 20;
    const std::size_t length = head + 8 + head + 3;
    said.at(at) = 0;
    said.at(at + 1) = static_cast<std::uint8_t>(GetParam() ? length - head : length);
    EXPECT_FALSE(parse_icmp_error(said));
    said.at(at + 1)++;
    const auto error = parse_icmp_error(said);
    ASSERT_TRUE(error);
    EXPECT_EQ(translated(*error, f.in).size(), length + 1);
}

TEST_P(SegmentTest, IcmpErrorIsAboutAPacketOfItsFamily) {
    auto said = too_big_for(packet({f.in, 5, 6, flag::kAck, {}, {}}), 1280);
    said.resize(GetParam() ? 48 : 28);
    const auto* here = GetParam() ? "192.0.2.1" : "2001:db8::1";
    const Endpoint end{boost::asio::ip::make_address(here), 7};
    append(said, packet({{end, end}, 5, 6, flag::kAck, {}, {}}));
    said.at(GetParam() ? 5 : 3) = 0xff;
    EXPECT_FALSE(parse_icmp_error(said));
}

}  // namespace
}  // namespace mobility::proxy
