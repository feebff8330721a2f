// SPDX-License-Identifier: GPL-2.0-or-later
// The server's memory and acts: two hosts, A and B, and what each is told when.
#include "exchange/exchange.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mobility::server {
namespace {

using boost::asio::ip::address;
using boost::asio::ip::make_address;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Name kA({1});
constexpr Name kB({2});
const address kOldA = make_address("198.51.100.1");
const address kOldB = make_address("198.51.100.2");
const address kNewA = make_address("203.0.113.1");
const address kNewB = make_address("203.0.113.2");
const address kNaptA = make_address("192.0.2.1");
const address kNaptB = make_address("192.0.2.2");
const address kInner = make_address("192.168.1.1");
constexpr ChannelId kChannelA = 10;
constexpr ChannelId kChannelB = 20;
constexpr milliseconds kRtt(50);
const Time kStart = Time() + seconds(1000);

/// A pair of hosts whose one connection is A:4000 to B:22.
class ExchangeTest : public testing::Test {
  protected:
    ExchangeTest() {
        exchange.join(kChannelA, kA);
        exchange.join(kChannelB, kB);
    }

    static Report about(bool a, const address& after) {
        const PairPart part_a{kA, kOldA, {1}};
        const PairPart part_b{kB, kOldB, {2}};
        return a ? Report{part_a, part_b, kOldA, kOldB, after, {{4000, 22, 4000}}}
                 : Report{part_b, part_a, kOldB, kOldA, after, {{22, 4000, 22}}};
    }

    Saying a_reports(const address& after, const address& seen) {
        return exchange.report(kChannelA, seen, kRtt, about(true, after), now);
    }
    Saying b_reports(const address& after, const address& seen) {
        return exchange.report(kChannelB, seen, kRtt, about(false, after), now);
    }

    [[nodiscard]] Said told_a(const address& peer, std::uint32_t judgement,
                              std::uint32_t step) const {
        return {kChannelA, Notice{id, judgement, step, peer, false, {{4000, 4000, 22, 22}}}};
    }
    [[nodiscard]] Said told_b(const address& peer, std::uint32_t judgement,
                              std::uint32_t step) const {
        return {kChannelB, Notice{id, judgement, step, peer, false, {{22, 22, 4000, 4000}}}};
    }
    [[nodiscard]] Said ended(ChannelId channel, std::uint32_t judgement, Verdict::What what) const {
        return {channel, Verdict{id, judgement, what}};
    }
    Saying failed(ChannelId channel, std::uint32_t judgement, std::uint32_t step) {
        return exchange.outcome(channel, {id, judgement, step, false}, now);
    }

    Exchange exchange{Limits()};
    Time now = kStart;
    const PairId id = about(true, kNewA).pair();
};

TEST_F(ExchangeTest, TheOtherEndIsAskedAtOnceAndOnlyOnce) {
    const Said ask{kChannelB, Ask{id, Ask::Hint{kNewA, {{22, 22, 4000, 4000}}}}};
    EXPECT_THAT(a_reports(kNewA, kNewA), ElementsAre(ask));
    EXPECT_THAT(a_reports(kNewA, kNewA), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 1U);
    // Perhaps it was asked on a channel that was about to end.
    now += Limits().silence / 2;
    EXPECT_THAT(a_reports(kNewA, kNewA), ElementsAre(ask));
}

TEST_F(ExchangeTest, OnlyAPlaceThatAnybodyReachesIsAHint) {
    const Said ask{kChannelB, Ask{id, {}}};
    EXPECT_THAT(a_reports(kInner, kNaptA), ElementsAre(ask));
    now += Limits().silence;
    EXPECT_THAT(a_reports(make_address("2001:db8::1"), make_address("2001:db8::1")),
                ElementsAre(ask));
}

TEST_F(ExchangeTest, BothGlobalTheLastToReportIsTold) {
    a_reports(kNewA, kNewA);
    EXPECT_THAT(b_reports(kNewB, kNewB), ElementsAre(told_b(kNewA, 1, 0)));
}

TEST_F(ExchangeTest, WhoIsInsideIsTold) {
    a_reports(kInner, kNaptA);
    EXPECT_THAT(b_reports(kNewB, kNewB), ElementsAre(told_a(kNewB, 1, 0)));
}

TEST_F(ExchangeTest, ALaterReportReplacesTheFirstAndIsJudgedAnew) {
    a_reports(kNewA, kNewA);
    b_reports(kNewB, kNewB);
    EXPECT_THAT(a_reports(kInner, kNaptA), ElementsAre(told_a(kNewB, 2, 0)));
}

TEST_F(ExchangeTest, WhatHasResumedIsForgotten) {
    a_reports(kNewA, kNewA);
    b_reports(kNewB, kNewB);
    EXPECT_THAT(exchange.outcome(kChannelB, {id, 1, 0, true}, now), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 0U);
    EXPECT_FALSE(exchange.next());
}

TEST_F(ExchangeTest, NoAnswerThereTheOtherIsToldThenAProxyIsNeeded) {
    a_reports(kNewA, kNewA);
    b_reports(kNewB, kNewB);
    EXPECT_THAT(failed(kChannelB, 1, 0), ElementsAre(told_a(kNewB, 1, 1)));
    EXPECT_THAT(failed(kChannelA, 1, 1),
                ElementsAre(ended(kChannelA, 1, Verdict::What::NeedsProxy),
                            ended(kChannelB, 1, Verdict::What::NeedsProxy)));
    EXPECT_EQ(exchange.pairs(), 0U);
}

TEST_F(ExchangeTest, NoWordIsNoAnswerAfterTwoRoundTrips) {
    a_reports(kNewA, kNewA);
    b_reports(kNewB, kNewB);
    EXPECT_EQ(exchange.next(), kStart + 4 * kRtt + milliseconds(200));
    EXPECT_THAT(exchange.expire(*exchange.next() - milliseconds(1)), IsEmpty());
    EXPECT_THAT(exchange.expire(*exchange.next()), ElementsAre(told_a(kNewB, 1, 1)));
}

TEST_F(ExchangeTest, BothInsideNeedAProxy) {
    a_reports(kInner, kNaptA);
    EXPECT_THAT(b_reports(kInner, kNaptB),
                ElementsAre(ended(kChannelA, 1, Verdict::What::NeedsProxy),
                            ended(kChannelB, 1, Verdict::What::NeedsProxy)));
}

TEST_F(ExchangeTest, BehindOneNaptBothAreToldAndBothHaveToFail) {
    a_reports(kInner, kNaptA);
    const auto told = b_reports(make_address("192.168.1.2"), kNaptA);
    ASSERT_EQ(told.size(), 2U);
    EXPECT_TRUE(std::get<Notice>(told[0].message).trial);
    EXPECT_THAT(failed(kChannelA, 1, 0), IsEmpty());
    EXPECT_EQ(failed(kChannelB, 1, 0).size(), 2U);
}

TEST_F(ExchangeTest, ASilentPeerIsToldOfAndMayStillCome) {
    a_reports(kNewA, kNewA);
    ASSERT_EQ(exchange.next(), kStart + seconds(5));
    EXPECT_THAT(exchange.expire(*exchange.next()),
                ElementsAre(ended(kChannelA, 0, Verdict::What::PeerSilent)));
    now += seconds(20);
    EXPECT_THAT(b_reports(kOldB, kOldB), ElementsAre(told_b(kNewA, 1, 0)));
}

TEST_F(ExchangeTest, APairIsForgottenInTime) {
    a_reports(kNewA, kNewA);
    exchange.expire(kStart + seconds(5));
    EXPECT_EQ(exchange.next(), kStart + Limits().keep);
    EXPECT_THAT(exchange.expire(kStart + Limits().keep), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 0U);
}

TEST_F(ExchangeTest, AHostIsReachedOnAnyOfItsChannels) {
    a_reports(kInner, kNaptA);
    exchange.leave(kChannelA);
    EXPECT_THAT(b_reports(kNewB, kNewB), IsEmpty());
    exchange.join(11, kA);
    const auto told = b_reports(kNewB, kNewB);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].channel, 11U);
}

TEST_F(ExchangeTest, NothingInCommonIsACoincidence) {
    a_reports(kNewA, kNewA);
    auto other = about(false, kNewB);
    other.connections = {{23, 4001, 23}};
    EXPECT_THAT(exchange.report(kChannelB, kNewB, kRtt, other, now),
                testing::Contains(ended(kChannelB, 1, Verdict::What::Coincidence)));
}

TEST_F(ExchangeTest, NobodySpeaksForAnother) {
    const auto refused = exchange.report(kChannelB, kNewA, kRtt, about(true, kNewA), now);
    ASSERT_EQ(refused.size(), 1U);
    EXPECT_EQ(std::get<Refused>(refused[0].message).why, Refused::Why::NotYours);
    EXPECT_EQ(exchange.pairs(), 0U);

    a_reports(kNewA, kNewA);
    exchange.join(30, Name({3}));
    const auto forget = exchange.forget(30, {id});
    ASSERT_EQ(forget.size(), 1U);
    EXPECT_EQ(std::get<Refused>(forget[0].message).why, Refused::Why::NotYours);
    b_reports(kNewB, kNewB);
    const auto outcome = failed(kChannelA, 1, 0);
    ASSERT_EQ(outcome.size(), 1U);
    EXPECT_EQ(std::get<Refused>(outcome[0].message).why, Refused::Why::NotYours);
    EXPECT_EQ(exchange.pairs(), 1U);
}

TEST_F(ExchangeTest, WordsAboutWhatIsOverAreIgnored) {
    EXPECT_THAT(failed(kChannelA, 0, 0), IsEmpty());
    a_reports(kNewA, kNewA);
    EXPECT_THAT(failed(kChannelA, 0, 0), IsEmpty());
    b_reports(kNewB, kNewB);
    EXPECT_THAT(failed(kChannelB, 7, 0), IsEmpty());
    EXPECT_THAT(failed(kChannelB, 1, 1), IsEmpty());
    EXPECT_THAT(exchange.forget(kChannelA, {PairId{9}}), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 1U);
}

TEST_F(ExchangeTest, AHostHasItsQuotaAndTheServerItsBound) {
    Limits limits;
    limits.pairs_per_host = 2;
    limits.pairs = 3;
    Exchange small(limits);
    small.join(kChannelA, kA);
    small.join(kChannelB, kB);
    const auto say = [&](ChannelId channel, const Name& own, std::uint8_t number) {
        Report report = about(true, kNewA);
        report.own.host = own;
        report.peer.host = Name({100});
        report.own.random = {number};
        const auto said = small.report(channel, kNewA, kRtt, report, now);
        return said.empty() ? Refused::Why::NoReason : std::get<Refused>(said[0].message).why;
    };
    EXPECT_EQ(say(kChannelA, kA, 1), Refused::Why::NoReason);
    EXPECT_EQ(say(kChannelA, kA, 2), Refused::Why::NoReason);
    EXPECT_EQ(say(kChannelA, kA, 2), Refused::Why::NoReason);
    EXPECT_EQ(say(kChannelA, kA, 3), Refused::Why::TooMuch);
    EXPECT_EQ(say(kChannelB, kB, 4), Refused::Why::NoReason);
    EXPECT_EQ(say(kChannelB, kB, 5), Refused::Why::Busy);
    small.expire(now + limits.keep);
    EXPECT_EQ(small.pairs(), 0U);
    EXPECT_EQ(say(kChannelB, kB, 5), Refused::Why::NoReason);
}

TEST_F(ExchangeTest, HostsThatAreGoneLeaveNothing) {
    a_reports(kNewA, kNewA);
    b_reports(kNewB, kNewB);
    exchange.leave(kChannelA);
    exchange.leave(kChannelB);
    exchange.leave(kChannelB);
    while (const auto next = exchange.next()) {
        EXPECT_THAT(exchange.expire(*next), IsEmpty());
    }
    EXPECT_EQ(exchange.pairs(), 0U);
    exchange.join(kChannelA, kA);
    EXPECT_THAT(a_reports(kNewA, kNewA), IsEmpty());
}

}  // namespace
}  // namespace mobility::server
