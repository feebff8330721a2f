// SPDX-License-Identifier: GPL-2.0-or-later
// The server's memory and acts: two hosts, A and B, and what each is told when.
#include "exchange/exchange.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace mobility::server {
namespace {

using boost::asio::ip::address;
using boost::asio::ip::make_address;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

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

    Exchange exchange{Limits(), [this](ChannelId channel) { return rtts[channel]; }};
    std::map<ChannelId, Duration> rtts;
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

// ---- Relays ----

const address kInnerB = make_address("192.168.1.2");
const address kProxy = make_address("203.0.113.99");

/// The same with a proxy, and tokens.
class RelayTest : public ExchangeTest {
  protected:
    RelayTest() {
        Limits limits;
        limits.proxies = true;
        exchange.set_limits(limits);
    }

    static Report about(bool a, const address& after, const address& peer_before = {}) {
        auto out = ExchangeTest::about(a, after);
        out.connections[0].token = a ? 1 : 2;
        if (!peer_before.is_unspecified()) {
            out.peer_before = peer_before;
        }
        return out;
    }
    Saying a_reports(const address& after = kInner, const address& seen = kNaptA) {
        return exchange.report(kChannelA, seen, kRtt, about(true, after), now);
    }
    Saying b_reports(const address& after = kInnerB, const address& seen = kNaptB) {
        return exchange.report(kChannelB, seen, kRtt, about(false, after), now);
    }
    /// Both are inside; the order's number.
    std::uint64_t ordered() {
        a_reports();
        b_reports();
        return wish().order.number;
    }
    /// The only one.
    Wish wish() {
        const auto wishes = exchange.take_wishes();
        EXPECT_THAT(wishes, SizeIs(1));
        return wishes.empty() ? Wish() : wishes[0];
    }
    Saying reserved(std::uint64_t number, std::uint16_t port = 10'000) {
        return exchange.reserved({number, kProxy, {port}}, now);
    }
    Saying resumed(ChannelId channel, std::uint32_t judgement = 1) {
        return exchange.outcome(channel, {id, judgement, 0, true}, now);
    }
    [[nodiscard]] std::vector<Said> both_told(std::uint32_t judgement,
                                              std::uint32_t step = 0) const {
        return {{kChannelA,
                 Notice{id, judgement, step, kProxy, false, {{4000, 4000, 22, 10'000}}, true}},
                {kChannelB,
                 Notice{id, judgement, step, kProxy, false, {{22, 22, 4000, 10'000}}, true}}};
    }
    [[nodiscard]] std::vector<Said> both_ended(std::uint32_t judgement, Verdict::What what) const {
        return {ended(kChannelA, judgement, what), ended(kChannelB, judgement, what)};
    }
};

TEST_F(RelayTest, ARelayIsOrderedWithTheSecondReport) {
    a_reports();
    EXPECT_THAT(exchange.take_wishes(), IsEmpty());
    EXPECT_THAT(b_reports(), IsEmpty());
    EXPECT_EQ(wish(), (Wish{Order{1, kA, kB, {{{1, kInner, 4000}, {2, kInnerB, 22}}}}, {}}));
    EXPECT_TRUE(exchange.waits_for(1));
    EXPECT_EQ(exchange.next(), kStart + Limits().keep) << "only the answer is waited for";
}

TEST_F(RelayTest, BothAreToldWhenItIsReserved) {
    EXPECT_EQ(reserved(ordered()), both_told(1));
    EXPECT_FALSE(exchange.waits_for(1));
    EXPECT_EQ(exchange.counters().notices, 2);
    EXPECT_EQ(exchange.counters().orders, 1);
}

TEST_F(RelayTest, BothHaveToResume) {
    reserved(ordered());
    EXPECT_THAT(resumed(kChannelA), IsEmpty());
    EXPECT_THAT(resumed(kChannelA), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 1);
    EXPECT_THAT(resumed(kChannelB), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 0);
    EXPECT_EQ(exchange.counters().resumed, 1);
    EXPECT_EQ(exchange.counters().relayed, 1);
}

TEST_F(RelayTest, WhoForgetsWhenTheOtherIsNotThereYetHasResumed) {
    reserved(ordered());
    EXPECT_THAT(exchange.forget(kChannelA, {id}, now), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 1);
    EXPECT_THAT(exchange.forget(kChannelB, {id}, now), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 0);
}

TEST_F(RelayTest, OneThatFailsIsEnough) {
    reserved(ordered());
    resumed(kChannelA);
    EXPECT_EQ(failed(kChannelB, 1, 0), both_ended(1, Verdict::What::NoAnswer));
    EXPECT_EQ(exchange.pairs(), 0);
}

TEST_F(RelayTest, NoWordInTimeIsNoAnswer) {
    now += seconds(1);
    reserved(ordered());
    resumed(kChannelB);
    EXPECT_EQ(exchange.next(), now + Limits().silence);
    EXPECT_EQ(exchange.expire(*exchange.next()), both_ended(1, Verdict::What::NoAnswer));
}

TEST_F(RelayTest, WithoutAProxyThatTakesItIsTheEnd) {
    EXPECT_EQ(exchange.no_proxy(ordered()), both_ended(1, Verdict::What::NoProxy));
    EXPECT_EQ(exchange.pairs(), 0);
    EXPECT_THAT(exchange.no_proxy(1), IsEmpty());
    EXPECT_THAT(reserved(1), IsEmpty()) << "too late";
}

TEST_F(RelayTest, WithoutTokensNoProxyCanHelp) {
    a_reports();
    auto older = about(false, kInnerB);
    older.connections[0].token = 0;
    EXPECT_EQ(exchange.report(kChannelB, kNaptB, kRtt, older, now),
              both_ended(1, Verdict::What::NoProxy));
    EXPECT_THAT(exchange.take_wishes(), IsEmpty());
}

TEST_F(RelayTest, PortsThatDoNotFitAreNone) {
    const auto number = ordered();
    EXPECT_EQ(exchange.reserved({number, kProxy, {1, 2}}, now),
              both_ended(1, Verdict::What::NoProxy));
}

TEST_F(RelayTest, IsTheLastStepWhereNobodyAnswers) {
    a_reports(kNewA, kNewA);
    b_reports(kNewB, kNewB);
    failed(kChannelB, 1, 0);
    EXPECT_THAT(failed(kChannelA, 1, 1), IsEmpty());
    EXPECT_EQ(reserved(wish().order.number), both_told(1, 2));
}

TEST_F(RelayTest, WhatIsReportedAgainChangesNothing) {
    const auto number = ordered();
    EXPECT_THAT(b_reports(), IsEmpty()) << "it was asked meanwhile";
    EXPECT_THAT(a_reports(), IsEmpty());
    EXPECT_THAT(exchange.take_wishes(), IsEmpty());
    EXPECT_EQ(reserved(number), both_told(1));
    EXPECT_THAT(a_reports(), IsEmpty());
    EXPECT_THAT(exchange.take_wishes(), IsEmpty());
    // But something has gone wrong if it comes much later, or on another channel.
    now += Limits().silence / 2;
    a_reports();
    EXPECT_EQ(wish().order.number, number + 1);
    exchange.join(11, kA);
    exchange.report(11, kNaptA, kRtt, about(true, kInner), now);
    EXPECT_EQ(wish().order.number, number + 2);
}

TEST_F(RelayTest, AnotherPlaceIsOrderedAnewAndTheOldAnswerIgnored) {
    const auto old = ordered();
    const auto elsewhere = make_address("192.168.7.7");
    a_reports(elsewhere, make_address("192.0.2.77"));
    const auto fresh = wish();
    EXPECT_EQ(fresh.order.connections[0].second.address, elsewhere) << "A reported last";
    EXPECT_FALSE(exchange.waits_for(old));
    EXPECT_THAT(reserved(old), IsEmpty());
    EXPECT_THAT(exchange.no_proxy(old), IsEmpty());
    EXPECT_THAT(reserved(fresh.order.number), SizeIs(2));
}

TEST_F(RelayTest, WhoBecomesGlobalMeanwhileNeedsNone) {
    const auto number = ordered();
    EXPECT_THAT(b_reports(kNewB, kNewB), ElementsAre(told_a(kNewB, 2, 0)));
    EXPECT_THAT(reserved(number), IsEmpty());
}

TEST_F(RelayTest, APairThatIsForgottenWantsNothing) {
    auto number = ordered();
    EXPECT_THAT(exchange.forget(kChannelA, {id}, now), IsEmpty());
    EXPECT_EQ(exchange.pairs(), 0) << "it goes on without";
    EXPECT_FALSE(exchange.waits_for(number));
    EXPECT_THAT(reserved(number), IsEmpty());
    number = ordered();
    EXPECT_THAT(exchange.expire(now + Limits().keep), IsEmpty());
    EXPECT_FALSE(exchange.waits_for(number));
}

TEST_F(RelayTest, NobodySpeaksOfItBeforeItIsTold) {
    ordered();
    const auto refused = resumed(kChannelA);
    ASSERT_THAT(refused, SizeIs(1));
    EXPECT_EQ(std::get<Refused>(refused[0].message).why, Refused::Why::NotYours);
    reserved(1);
    exchange.join(30, Name({3}));
    EXPECT_EQ(std::get<Refused>(resumed(30).at(0).message).why, Refused::Why::NotYours);
}

TEST_F(RelayTest, TheProxyThatHasItIsAskedRather) {
    const auto at_proxy = [&](bool a, const address& after, const address& seen) {
        return exchange.report(a ? kChannelA : kChannelB, seen, kRtt, about(a, after, kProxy), now);
    };
    at_proxy(true, kInner, kNaptA);
    at_proxy(false, kInnerB, kNaptB);
    EXPECT_EQ(wish().rather, kProxy);
    // Also one that has only reserved for them.
    exchange.forget(kChannelA, {id}, now);
    const auto number = ordered();
    reserved(number);
    a_reports(make_address("192.168.7.7"), kNaptA);
    EXPECT_EQ(wish().rather, kProxy);
}

// ---- Leaving them ----

class CrossingTest : public RelayTest {
  protected:
    static Report about(bool a, const address& after) {
        auto out = RelayTest::about(a, after);
        out.crosses = true;
        return out;
    }
    Saying a_reports(const address& after = kInner, const address& seen = kNaptA) {
        return exchange.report(kChannelA, seen, kRtt, about(true, after), now);
    }
    Saying b_reports(const address& after = kInnerB, const address& seen = kNaptB) {
        return exchange.report(kChannelB, seen, kRtt, about(false, after), now);
    }
    std::uint64_t ordered() {
        a_reports();
        b_reports();
        return wish().order.number;
    }
    void met(std::uint64_t number, std::uint16_t port_a = 4000, std::uint16_t port_b = 22,
             const address& proxy = kProxy) {
        exchange.met({number, {{{1, kNaptA, port_a}, {2, kNaptB, port_b}}}},
                     {kVersion, proxy.to_v4(), {}, {}}, now);
    }
    /// They are relayed, and met.
    void relayed(std::uint32_t judgement = 1) {
        const auto number = ordered();
        reserved(number);
        resumed(kChannelA, judgement);
        resumed(kChannelB, judgement);
        met(number);
    }
    Saying after(Duration time) {
        now += time;
        return exchange.expire(now);
    }
    [[nodiscard]] std::vector<Said> both_cross(std::uint32_t step, milliseconds a = {},
                                               milliseconds b = {},
                                               std::uint32_t judgement = 1) const {
        return {{kChannelA,
                 Notice{id, judgement, step, kNaptB, true, {{4000, 4000, 22, 22}}, false, a}},
                {kChannelB,
                 Notice{id, judgement, step, kNaptA, true, {{22, 22, 4000, 4000}}, false, b}}};
    }
    void said(ChannelId channel, std::uint32_t step, bool resumed, std::uint32_t judgement = 1) {
        EXPECT_THAT(exchange.outcome(channel, {id, judgement, step, resumed}, now), IsEmpty());
    }
};

TEST_F(CrossingTest, WhenBothAreThereAndMetTheyAreToldToCross) {
    const auto number = ordered();
    met(number);  // not reserved yet: nobody's word
    reserved(number);
    met(number);
    resumed(kChannelA);
    EXPECT_THAT(after(seconds(2)), IsEmpty());
    resumed(kChannelB);
    EXPECT_EQ(exchange.pairs(), 0);
    EXPECT_EQ(exchange.next(), now + Crossings::kCalm);
    EXPECT_EQ(after(Crossings::kCalm), both_cross(1));
    said(kChannelA, 1, true);
    EXPECT_EQ(exchange.counters().crossed, 0);
    said(kChannelB, 1, true);
    EXPECT_EQ(exchange.counters().crossings, 1);
    EXPECT_EQ(exchange.counters().crossed, 1);
    EXPECT_EQ(exchange.next(), now + Limits().keep) << "nothing else is to be done";
}

TEST_F(CrossingTest, WhoIsNearerWaits) {
    rtts = {{kChannelA, milliseconds(30)}, {kChannelB, milliseconds(100)}};
    relayed();
    EXPECT_EQ(after(Crossings::kCalm), both_cross(1, milliseconds(70)));
    said(kChannelA, 1, false);
    said(kChannelB, 1, false);
    EXPECT_EQ(after(Crossings::kAgain), both_cross(2, milliseconds(35))) << "another moment";
}

TEST_F(CrossingTest, AFailureIsTriedOnceMoreInTheSamePlaces) {
    relayed();
    EXPECT_EQ(after(Crossings::kCalm), both_cross(1));
    said(kChannelA, 1, false);
    EXPECT_THAT(after(seconds(20)), IsEmpty()) << "the other still tries";
    said(kChannelB, 1, true);
    EXPECT_THAT(after(Crossings::kAgain - milliseconds(1)), IsEmpty());
    EXPECT_EQ(after(milliseconds(1)), both_cross(2));
    EXPECT_THAT(after(Crossings::kPatience), IsEmpty()) << "no word is none";
    EXPECT_THAT(after(Crossings::kAgain), IsEmpty());
    // Ordered again, for whatever reason.
    relayed(2);
    EXPECT_THAT(after(Crossings::kCalm), IsEmpty());
}

TEST_F(CrossingTest, InAnotherPlaceItIsTriedAgain) {
    relayed();
    after(Crossings::kCalm);
    said(kChannelA, 1, true);
    said(kChannelB, 1, true);
    a_reports(make_address("192.168.7.7"));
    b_reports();
    const auto number = wish().order.number;
    reserved(number);
    met(number);
    resumed(kChannelA, 2);
    resumed(kChannelB, 2);
    EXPECT_EQ(after(Crossings::kCalm), both_cross(1, {}, {}, 2));
}

TEST_F(CrossingTest, WhoIsMetElsewhereIsTriedThere) {
    relayed();
    met(1, 4001);
    auto told = both_cross(1);
    std::get<Notice>(told[1].message).connections[0].peer_after = 4001;
    EXPECT_EQ(after(Crossings::kCalm), told);
}

TEST_F(CrossingTest, OnlyTheProxyItselfIsBelieved) {
    const auto number = ordered();
    reserved(number);
    resumed(kChannelA);
    resumed(kChannelB);
    met(number, 4000, 22, kNewA);
    met(number + 1);
    EXPECT_THAT(after(Crossings::kCalm), IsEmpty());
}

TEST_F(CrossingTest, WhoReportsAgainIsDisturbedByNothing) {
    relayed();
    a_reports(make_address("192.168.7.7"));
    EXPECT_THAT(after(Crossings::kCalm), IsEmpty());
    met(1);
    EXPECT_THAT(after(Crossings::kCalm), IsEmpty());
}

TEST_F(CrossingTest, WhoWasFasterThanTheOrderIsRelayedStill) {
    const auto number = ordered();
    exchange.forget(kChannelA, {id}, now);
    EXPECT_EQ(exchange.pairs(), 0);
    EXPECT_THAT(reserved(number), IsEmpty());
    met(number);
    EXPECT_EQ(after(Crossings::kCalm), both_cross(1));
}

TEST_F(CrossingTest, ItsOutcomeIsNobodyElses) {
    relayed();
    after(Crossings::kCalm);
    constexpr ChannelId kOther = 30;
    exchange.join(kOther, Name({3}));
    exchange.outcome(kOther, {id, 1, 1, true}, now);
    exchange.outcome(kChannelA, {id, 1, 2, true}, now);
    said(kChannelB, 1, true);
    EXPECT_EQ(exchange.counters().crossed, 0);
}

TEST_F(CrossingTest, NotIfItIsSwitchedOffOrOneIsGone) {
    relayed();
    auto limits = exchange.limits();
    limits.crossing = false;
    exchange.set_limits(limits);
    EXPECT_THAT(after(Crossings::kCalm), IsEmpty());
    relayed(2);
    EXPECT_THAT(after(Crossings::kCalm), IsEmpty());
    limits.crossing = true;
    exchange.set_limits(limits);
    now += limits.keep;
    exchange.expire(now);
    EXPECT_FALSE(exchange.next());
    relayed(3);
    exchange.leave(kChannelB);
    EXPECT_THAT(after(Crossings::kCalm), IsEmpty());
    EXPECT_EQ(exchange.counters().crossings, 0);
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
    const auto forget = exchange.forget(30, {id}, now);
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
    EXPECT_THAT(exchange.forget(kChannelA, {PairId{9}}, now), IsEmpty());
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
