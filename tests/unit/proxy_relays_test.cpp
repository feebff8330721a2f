// SPDX-License-Identifier: GPL-2.0-or-later
// A relay from its order to its end: what comes from where, and what goes out to whom. The
// kernel's part and the clock are made here.
#include "relay/relays.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "proxy_fakes.hpp"
#include "proxy_packets.hpp"
#include "quiet.hpp"

namespace mobility::proxy {
namespace {

using boost::asio::ip::make_address;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;
using namespace test;  // NOLINT(google-build-using-namespace)

const Name kA({0xa});
const Name kB({0xb});
const Name kC({0xc});
// That A's requests name is B's, and the other way round.
constexpr std::uint32_t kOfA = 0xaaaa;
constexpr std::uint32_t kOfB = 0xbbbb;
constexpr std::uint16_t kPortA = 40001;
constexpr std::uint16_t kPortB = 22;
constexpr std::uint16_t kFirst = 20'000;
constexpr std::uint16_t kLast = 20'003;

Endpoint at(const char* ip, std::uint16_t port) {
    return {make_address(ip), port};
}

const Endpoint kNaptA = at("198.51.100.1", 50001);
const Endpoint kNaptA2 = at("198.51.100.2", 50002);
const Endpoint kNaptB = at("192.0.2.1", 60001);
const Endpoint kNaptB2 = at("192.0.2.2", 60002);
const Endpoint kForger = at("203.0.113.66", 666);
const auto kProxy = make_address("203.0.113.9");

class RelaysTest : public testing::Test {
  protected:
    RelaysTest() { start(); }

    void start(const RelayLimits& limits = {}) {
        relays = std::make_unique<Relays>(
            ports, limits, flows, journal,
            Relays::Hands{[this](const Octets& packet) { take(packet); }, [this] { return now; },
                          [this](const Endpoint& one) { return taken != one.port; },
                          [] { return 0U; },
                          [this](const Relays::Customer& customer, const RelayPair& pair) {
                              met.emplace_back(customer, pair);
                          }},
            quiet());
    }

    void take(const Octets& packet) {
        EXPECT_TRUE(is_sound(packet));
        if (const auto segment = parse_segment(packet, packet.size())) {
            sent.push_back(*segment);
        } else {
            other.push_back(packet);
        }
    }

    static Order an_order(std::uint32_t a = kOfA, std::uint32_t b = kOfB) {
        return {1,
                kA,
                kB,
                {{{a, make_address("192.168.1.11"), kPortA},
                  {b, make_address("192.168.2.22"), kPortB}}}};
    }

    /// Reserves, and says where.
    Endpoint reserve() {
        const auto answer = relays->order(an_order());
        const auto* reserved = std::get_if<Reserved>(&answer);
        EXPECT_NE(reserved, nullptr);
        proxy = {reserved->address, reserved->ports.at(0)};
        return proxy;
    }

    /// What was sent while this came.
    std::vector<Segment> hear(const Made& made) {
        sent.clear();
        const auto bytes = packet(made);
        relays->on_event({Event::Why::Segment, static_cast<std::uint32_t>(bytes.size()), 0, bytes});
        return sent;
    }
    std::vector<Segment> msyn(const Endpoint& from, std::uint32_t token, std::uint8_t reqno,
                              std::uint32_t seq, std::uint32_t nonce = 7) {
        const auto port = token == kOfA ? kPortA : kPortB;
        return hear({{from, proxy},
                     seq,
                     0,
                     flag::kSyn,
                     syn_words() + mreq(Form::Mreq, reqno, token, port, nonce),
                     {}});
    }
    std::vector<Segment> proof(const Endpoint& from, std::uint32_t token, std::uint8_t reqno,
                               std::uint32_t value = 0, std::uint32_t echo = 0) {
        return hear({{from, proxy},
                     1,
                     500,
                     flag::kAck,
                     timestamps(value, echo) + confirm(reqno, token),
                     {}});
    }
    std::vector<Segment> data(const Endpoint& from, std::uint8_t flags = flag::kAck) {
        return hear({{from, proxy}, 9, 8, flags, timestamps(1, 1), Octets(10)});
    }

    /// Both ask, both prove.
    void join() {
        reserve();
        msyn(kNaptA, kOfA, 1, 1000);
        msyn(kNaptB, kOfB, 1, 2000);
        proof(kNaptA, kOfA, 1);
        proof(kNaptB, kOfB, 1);
        ASSERT_EQ(relays->counters().joined, 1U);
    }
    [[nodiscard]] bool flows_are(const Endpoint& a, const Endpoint& b) const {
        const auto one = flows.get({a, proxy});
        const auto back = flows.get({b, proxy});
        return one && back && one->out == Tuple{proxy, b} && back->out == Tuple{proxy, a};
    }
    void pass(Duration time) {
        now += time;
        relays->sweep();
    }

    /// Nobody has said anything for so long.
    void be_quiet(Duration time) {
        for (auto& [in, seen] : flows.all) {
            seen.idle_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(time).count());
        }
    }

    FakeDataPath flows;
    FakeJournal journal;
    Relays::Ports ports{kProxy.to_v4(), {}, kFirst, kLast};
    Time now{};
    std::uint16_t taken = 0;  ///< a port that a program has
    std::vector<Segment> sent;
    std::vector<Octets> other;
    std::vector<std::pair<Relays::Customer, RelayPair>> met;
    Endpoint proxy;
    std::unique_ptr<Relays> relays;
};

MATCHER_P2(GoesTo, to, flags, "") {
    return arg.tuple.to == to && arg.flags == flags;
}
constexpr auto kSynAck = static_cast<std::uint8_t>(flag::kSyn | flag::kAck);

// ---- Orders ----

TEST_F(RelaysTest, AnOrderReservesAPortForEach) {
    auto order = an_order();
    order.connections.push_back(an_order(1, 2).connections[0]);
    const auto answer = std::get<Reserved>(relays->order(order));
    EXPECT_EQ(answer.number, 1U);
    EXPECT_EQ(answer.address, kProxy);
    EXPECT_THAT(answer.ports, ElementsAre(kFirst, kFirst + 1));
    EXPECT_EQ(relays->load().relays, 2U);
    EXPECT_THAT(journal.kept, SizeIs(2));
}

TEST_F(RelaysTest, TheSameTokensHaveTheSamePort) {
    reserve();
    auto swapped = an_order();
    std::swap(swapped.first, swapped.second);
    std::swap(swapped.connections[0].first, swapped.connections[0].second);
    swapped.connections[0].second.address = make_address("10.0.0.7");
    EXPECT_THAT(std::get<Reserved>(relays->order(swapped)).ports, ElementsAre(proxy.port));
    EXPECT_EQ(relays->load().relays, 1U);
    EXPECT_EQ(journal.kept.at(proxy).ends[0].inner, at("10.0.0.7", kPortA));
}

TEST_F(RelaysTest, OrdersThatCannotBe) {
    const auto why = [&](const Order& order) {
        const auto answer = relays->order(order);
        const auto* declined = std::get_if<Declined>(&answer);
        return declined == nullptr ? Declined::Why::NoReason : declined->why;
    };
    reserve();
    auto others = an_order();
    others.second = kC;
    EXPECT_EQ(why(others), Declined::Why::Duplicate);
    EXPECT_EQ(why(an_order(3, 3)), Declined::Why::Malformed);
    auto v6 = an_order(1, 2);
    v6.connections[0].first.address = v6.connections[0].second.address =
        make_address("2001:db8::1");
    EXPECT_EQ(why(v6), Declined::Why::Family);
    for (std::uint32_t i = 10; i < 13; i++) {
        EXPECT_EQ(why(an_order(i, i + 100)), Declined::Why::NoReason);
    }
    EXPECT_EQ(why(an_order(20, 21)), Declined::Why::Full);  // four ports
    start({.most = 1});
    EXPECT_EQ(why(an_order()), Declined::Why::NoReason);
    EXPECT_EQ(why(an_order(1, 2)), Declined::Why::Full);
    EXPECT_EQ(why(an_order()), Declined::Why::NoReason);  // has one
    start({.per_host = 1});
    EXPECT_EQ(why(an_order()), Declined::Why::NoReason);
    auto another = an_order(1, 2);
    another.first = kC;
    EXPECT_EQ(why(another), Declined::Why::Quota);  // B's
    another.second = Name({0xd});
    EXPECT_EQ(why(another), Declined::Why::NoReason);
    EXPECT_EQ(relays->counters().declined.at(static_cast<std::size_t>(Declined::Why::Quota)), 1U);
}

TEST_F(RelaysTest, TheSameTokensInTheOtherFamilyAreAnothersConnection) {
    ports.address6 = make_address("2001:db8::9").to_v6();
    start();
    reserve();
    auto v6 = an_order();
    v6.connections[0].first.address = v6.connections[0].second.address =
        make_address("2001:db8::1");
    const auto answer = relays->order(v6);
    ASSERT_TRUE(std::holds_alternative<Declined>(answer));
    EXPECT_EQ(std::get<Declined>(answer).why, Declined::Why::Duplicate);
}

TEST_F(RelaysTest, HowManyThereMayBeIsSaidOnce) {
    start({.most = 1});
    relays->set_limits({.most = 100, .per_host = 2});
    EXPECT_EQ(relays->load().most, 1U);
    reserve();
    EXPECT_TRUE(std::holds_alternative<Declined>(relays->order(an_order(1, 2))));
}

TEST_F(RelaysTest, APortThatAProgramHasIsLeftToIt) {
    taken = kFirst;
    EXPECT_EQ(reserve().port, kFirst + 1);
}

TEST_F(RelaysTest, AReservedPortIsFreeAgainIfNobodyComes) {
    reserve();
    pass(minutes(2));
    EXPECT_EQ(relays->load().relays, 1U);
    pass(minutes(2));
    EXPECT_EQ(relays->load().relays, 0U);
    EXPECT_THAT(journal.kept, IsEmpty());
    EXPECT_EQ(relays->counters().expired, 1U);
    EXPECT_TRUE(std::holds_alternative<Reserved>(relays->order(an_order())));
}

// ---- Joining (A3.2) ----

TEST_F(RelaysTest, EachGetsTheOthersRequestAsItsAnswer) {
    reserve();
    EXPECT_THAT(msyn(kNaptA, kOfA, 1, 1000), IsEmpty());
    const auto answers = msyn(kNaptB, kOfB, 2, 2000);
    ASSERT_THAT(answers, UnorderedElementsAre(GoesTo(kNaptA, kSynAck), GoesTo(kNaptB, kSynAck)));
    for (const auto& answer : answers) {
        const bool to_a = answer.tuple.to == kNaptA;
        EXPECT_EQ(answer.tuple.from, proxy);
        EXPECT_EQ(answer.seq, to_a ? 2000U : 1000U);
        EXPECT_EQ(answer.ack, to_a ? 1001U : 2001U);
        EXPECT_EQ(answer.migrate->token, to_a ? kOfB : kOfA);
    }
    // Repeated, it is answered again; the other has its answer.
    EXPECT_THAT(msyn(kNaptA, kOfA, 1, 1000), ElementsAre(GoesTo(kNaptA, kSynAck)));
}

TEST_F(RelaysTest, ProofsGoToTheOtherEndThenFlowsAreMade) {
    reserve();
    msyn(kNaptA, kOfA, 1, 1000);
    msyn(kNaptB, kOfB, 2, 2000);
    EXPECT_THAT(proof(kNaptA, kOfA, 2), ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_THAT(flows.all, IsEmpty());
    EXPECT_THAT(proof(kNaptB, kOfB, 1), ElementsAre(GoesTo(kNaptA, flag::kAck)));
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
    EXPECT_EQ(journal.kept.at(proxy).ends[0].place, kNaptA);
    EXPECT_EQ(journal.kept.at(proxy).ends[0].syn_options, SynOptions(syn_words()));
}

TEST_F(RelaysTest, EndsThatHaveLeftAndComeBackAreSplicedAndNothingElse) {
    join();
    // A asks from where it was: B may still be on this relay.
    EXPECT_THAT(msyn(kNaptA, kOfA, 3, 1500), ElementsAre(GoesTo(kNaptB, flag::kAck)));
    // It is not: it asks itself.
    EXPECT_THAT(msyn(kNaptB, kOfB, 2, 2500),
                UnorderedElementsAre(GoesTo(kNaptA, kSynAck), GoesTo(kNaptB, kSynAck)));
    // What it answers to the request that was passed on would be another answer for A.
    EXPECT_THAT(hear({{kNaptB, proxy},
                      2499,
                      1501,
                      flag::kAck,
                      timestamps(1, 2) + mreq(Form::Mans, 3, kOfB, kPortB),
                      {}}),
                IsEmpty());
    // They have said nothing here for a while.
    for (auto& [in, flow] : flows.all) {
        flow.idle_ns = 1'000'000'000;
    }
    proof(kNaptA, kOfA, 3);
    proof(kNaptB, kOfB, 2);
    EXPECT_EQ(relays->counters().joined, 2U);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
    // Whoever asks alone, much later, is passed on again.
    pass(seconds(3));
    EXPECT_THAT(msyn(kNaptA2, kOfA, 4, 1600), ElementsAre(GoesTo(kNaptB, flag::kAck)));
}

// ---- Where ends are met ----

MATCHER_P4(Tells, channel, number, a, b, "") {
    const auto& [customer, pair] = arg;
    return customer.channel == channel && customer.number == number &&
           pair == RelayPair{{kOfA, a.address, a.port}, {kOfB, b.address, b.port}};
}

TEST_F(RelaysTest, WhoHasOrderedItIsToldWhereTheEndsAre) {
    relays->order(an_order(), 5);
    auto another = an_order();
    another.number = 9;
    relays->order(another, 6);
    EXPECT_THAT(met, IsEmpty());  // nobody is there yet
    join();
    EXPECT_THAT(met,
                UnorderedElementsAre(Tells(5U, 1U, kNaptA, kNaptB), Tells(6U, 9U, kNaptA, kNaptB)));
    met.clear();
    // A elsewhere.
    msyn(kNaptA2, kOfA, 2, 1100);
    proof(kNaptA2, kOfA, 2);
    EXPECT_THAT(met, IsEmpty());
    proof(kNaptB, kOfB, 2);
    EXPECT_THAT(
        met, UnorderedElementsAre(Tells(5U, 1U, kNaptA2, kNaptB), Tells(6U, 9U, kNaptA2, kNaptB)));
}

TEST_F(RelaysTest, ARelayThatIsOrderedAgainIsToldAtOnceByTheNewestNumberOfAChannel) {
    relays->order(an_order(), 5);
    join();
    met.clear();
    auto again = an_order();
    again.number = 2;
    relays->order(again, 5);
    EXPECT_THAT(met, ElementsAre(Tells(5U, 2U, kNaptA, kNaptB)));
    met.clear();
    relays->order(again);  // of somebody who wants to hear nothing
    EXPECT_THAT(met, ElementsAre(Tells(5U, 2U, kNaptA, kNaptB)));
    for (std::uint64_t channel = 10; channel < 14; channel++) {
        relays->order(again, channel);
    }
    met.clear();
    relays->order(again, 13);
    EXPECT_THAT(met, SizeIs(Relays::kCustomers)) << "the first is forgotten";
}

TEST_F(RelaysTest, AForgerDelaysNobody) {
    reserve();
    // Before, between, and with A's own words, but for the MAC.
    EXPECT_THAT(msyn(kForger, kOfA, 1, 1000, 666), IsEmpty());
    msyn(kNaptA, kOfA, 1, 1000);
    const auto answers = msyn(kNaptB, kOfB, 2, 2000);
    // B gets both, and takes the right one.
    EXPECT_EQ(std::ranges::count(answers, kNaptB, [](const auto& s) { return s.tuple.to; }), 2);
    EXPECT_EQ(std::ranges::count(answers, kNaptA, [](const auto& s) { return s.tuple.to; }), 1);
    proof(kForger, kOfA, 1);  // goes to B, which sees that it is none
    // B proves itself: to all who say that they are A. Nobody else can be meant.
    EXPECT_THAT(proof(kNaptB, kOfB, 2),
                UnorderedElementsAre(GoesTo(kNaptA, flag::kAck), GoesTo(kForger, flag::kAck)));
    // For a moment the forger is taken for A. Then A proves itself ...
    proof(kNaptA, kOfA, 1, 4242);
    // ... and B says that it has got it.
    proof(kNaptB, kOfB, 1, 0, 4242);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
}

TEST_F(RelaysTest, OfTwoProofsTheEchoedOneCounts) {
    reserve();
    msyn(kNaptA, kOfA, 1, 1000);
    msyn(kForger, kOfA, 1, 1000);
    msyn(kNaptB, kOfB, 1, 2000);
    proof(kNaptA, kOfA, 1, 4242);
    proof(kForger, kOfA, 1, 666);
    proof(kNaptB, kOfB, 1, 0, 1);
    EXPECT_THAT(flows.all, IsEmpty());  // nobody knows yet
    // What comes meanwhile goes to both.
    EXPECT_THAT(data(kNaptB), SizeIs(2));
    proof(kNaptB, kOfB, 1, 0, 4242);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
}

TEST_F(RelaysTest, CandidatesAreFew) {
    reserve();
    msyn(kNaptA, kOfA, 1, 1000);
    proof(kNaptA, kOfA, 1);
    for (std::uint16_t i = 1; i < 100; i++) {
        now += seconds(1) / 100;
        msyn(at("203.0.113.66", i), kOfA, 1, 1000, i);
    }
    EXPECT_EQ(relays->counters().crowded, 100 - Relays::kCandidates);
    // Who has sent a proof is still there.
    const auto answers = msyn(kNaptB, kOfB, 1, 2000);
    EXPECT_LE(answers.size(), 2 * Relays::kCandidates);
    EXPECT_THAT(proof(kNaptB, kOfB, 1), SizeIs(Relays::kCandidates));
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
}

TEST_F(RelaysTest, WhoCrowdsFromOneAddressGivesWayToItself) {
    reserve();
    for (std::uint16_t i = 1; i <= Relays::kCandidates; i++) {
        msyn(at("203.0.113.66", i), kOfA, 1, 1000, i);
        proof(at("203.0.113.66", i), kOfA, 1);
    }
    msyn(kNaptA, kOfA, 1, 1000);
    msyn(kNaptB, kOfB, 1, 2000);
    for (std::uint16_t i = 10; i < 20; i++) {
        now += milliseconds(10);
        msyn(at("203.0.113.66", i), kOfA, 1, 1000, i);
    }
    EXPECT_THAT(proof(kNaptA, kOfA, 1), Contains(GoesTo(kNaptB, flag::kAck)));
}

TEST_F(RelaysTest, AnIpv6CrowdIsOneNetwork) {
    ports.address6 = make_address("2001:db8::9").to_v6();
    start();
    auto order = an_order();
    order.connections[0].first.address = order.connections[0].second.address =
        make_address("2001:db8::1");
    const auto reserved = std::get<Reserved>(relays->order(order));
    proxy = {reserved.address, reserved.ports.at(0)};
    const auto a = at("2001:db8:1::1", 50001);
    const auto b = at("2001:db8:2::1", 60001);
    msyn(a, kOfA, 1, 1000);
    msyn(b, kOfB, 1, 2000);
    for (std::uint16_t i = 1; i < 10; i++) {
        now += milliseconds(10);
        const auto from = at(("2001:db8:3::" + std::to_string(i)).c_str(), 666);
        msyn(from, kOfA, 1, 1000, i);
        proof(from, kOfA, 1);
    }
    EXPECT_THAT(proof(a, kOfA, 1), Contains(GoesTo(b, flag::kAck)));
}

TEST_F(RelaysTest, WhoDoesNotKnowTheTokenIsNobody) {
    reserve();
    EXPECT_THAT(msyn(kForger, 0x1234, 1, 1000), IsEmpty());
    EXPECT_THAT(hear({{kForger, proxy},
                      1,
                      0,
                      flag::kSyn,
                      syn_words() + mreq(Form::Mreq, 1, kOfA, kPortA + 1),
                      {}}),
                IsEmpty());
    EXPECT_THAT(proof(kForger, kOfA, 1), IsEmpty());
    EXPECT_EQ(relays->counters().strangers, 3U);
    EXPECT_EQ(relays->counters().requests, 0U);
}

TEST_F(RelaysTest, WhatARequestCarriesIsNotKept) {
    reserve();
    hear({{kNaptA, proxy},
          1000,
          0,
          flag::kSyn,
          syn_words() + mreq(Form::Mreq, 1, kOfA, kPortA),
          Octets(1400)});
    const auto answers = msyn(kNaptB, kOfB, 1, 2000);
    ASSERT_THAT(answers, SizeIs(2));
    for (const auto& answer : answers) {
        EXPECT_EQ(answer.payload, 0U);
    }
    proof(kNaptA, kOfA, 1);
    proof(kNaptB, kOfB, 1);
    // But it is passed on, if it is all there.
    const Made made{
        {kNaptA2, proxy}, 5, 6, flag::kAck, timestamps(1, 2) + mreq(Form::Mreq, 2, kOfA, kPortA),
        Octets(1400)};
    const auto passed = hear(made);
    ASSERT_THAT(passed, ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_EQ(passed[0].payload, 1400U);
    auto part = packet(made);
    const auto length = static_cast<std::uint32_t>(part.size());
    part.resize(1000);
    sent.clear();
    relays->on_event({Event::Why::Segment, length, 0, part});
    EXPECT_THAT(sent, IsEmpty());
    EXPECT_EQ(relays->counters().too_long, 1U);
}

// ---- Joined ----

TEST_F(RelaysTest, AnEndMovesBehindAnotherNapt) {
    join();
    flows.all.at({kNaptA, proxy}).ack = 777;
    const auto passed = msyn(kNaptA2, kOfA, 2, 1500);
    ASSERT_THAT(passed, ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_EQ(passed[0].seq, 1500U);
    EXPECT_EQ(passed[0].ack, 777U);  // the last one of A's
    EXPECT_TRUE(passed[0].is(Form::Mreq));
    const auto answered = hear({{kNaptB, proxy},
                                2500,
                                1501,
                                flag::kAck,
                                timestamps(1, 2) + mreq(Form::Mans, 2, kOfB, kPortB),
                                {}});
    ASSERT_THAT(answered, ElementsAre(GoesTo(kNaptA2, kSynAck)));
    EXPECT_EQ(syn_options(answered[0]), syn_words());
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));  // nothing is proved
    // The answer to a request that A has made anew since: not for its old place.
    EXPECT_THAT(hear({{kNaptB, proxy},
                      2500,
                      1400,
                      flag::kAck,
                      timestamps(1, 2) + mreq(Form::Mans, 1, kOfB, kPortB),
                      {}}),
                IsEmpty());
    EXPECT_THAT(proof(kNaptA2, kOfA, 2), ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
    // Only to who has proved something: at the old place a NAPT would reset.
    EXPECT_THAT(proof(kNaptB, kOfB, 2), ElementsAre(GoesTo(kNaptA2, flag::kAck)));
    EXPECT_TRUE(flows_are(kNaptA2, kNaptB));
    EXPECT_EQ(relays->counters().moved, 1U);
    // What is late from the old place arrives for a while.
    EXPECT_TRUE(flows.get({kNaptA, proxy}));
    EXPECT_TRUE(flows.late.contains({kNaptA, proxy}));
    pass(seconds(61));
    EXPECT_TRUE(flows.get({kNaptA, proxy})) << "somebody is there";
    be_quiet(seconds(31));
    pass(seconds(5));
    EXPECT_FALSE(flows.get({kNaptA, proxy}));
    EXPECT_EQ(relays->load().relays, 1U);
}

TEST_F(RelaysTest, AForgersMoveChangesNothing) {
    join();
    msyn(kForger, kOfA, 2, 1500);
    proof(kForger, kOfA, 2);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
    data(kNaptB);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
}

TEST_F(RelaysTest, BothMoveAtOnce) {
    join();
    flows.all.at({kNaptA, proxy}).ack = 777;
    msyn(kNaptA2, kOfA, 2, 1500);
    const auto answers = msyn(kNaptB2, kOfB, 2, 2500);
    EXPECT_THAT(answers,
                testing::IsSupersetOf({GoesTo(kNaptA2, kSynAck), GoesTo(kNaptB2, kSynAck)}));
    proof(kNaptA2, kOfA, 2);
    proof(kNaptB2, kOfB, 2);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB)) << "they are heard where they were";
    // Until then what they say goes to both.
    EXPECT_THAT(data(kNaptA2),
                UnorderedElementsAre(GoesTo(kNaptB, flag::kAck), GoesTo(kNaptB2, flag::kAck)));
    be_quiet(milliseconds(300));
    EXPECT_THAT(data(kNaptA2), SizeIs(2));
    EXPECT_TRUE(flows_are(kNaptA2, kNaptB2));
}

TEST_F(RelaysTest, WhatHasGoneBeforeIsNotDoneAgain) {
    join();
    be_quiet(minutes(1));
    for (const auto& from : {kForger, kNaptA}) {
        EXPECT_THAT(msyn(from, kOfA, 1, 1000), IsEmpty());
        EXPECT_THAT(msyn(from, kOfB, 1, 2000), IsEmpty());
        proof(from, kOfA, 1);
        proof(from, kOfB, 1);
    }
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
    EXPECT_EQ(relays->counters().replayed, 4U);
    EXPECT_EQ(relays->counters().joined, 1U);
    // B sees the copy of A's proof, and says once more that it has got it.
    msyn(kForger, kOfA, 2, 1000, 666);
    proof(kForger, kOfA, 1);
    proof(kNaptB, kOfB, 1);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
    // Numbers begin anew after 255.
    be_quiet(seconds(0));
    msyn(kNaptB2, kOfB, 3, 2500);
    proof(kNaptB2, kOfB, 3);
    proof(kNaptA, kOfA, 3);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB2));
    EXPECT_THAT(msyn(kNaptA2, kOfA, 3, 1000), IsEmpty());
    bool back = false;
    for (const int reqno : {4, 100, 200, 255, 40}) {
        const auto number = static_cast<std::uint8_t>(reqno);
        const auto& to = back ? kNaptA : kNaptA2;
        back = !back;
        EXPECT_THAT(msyn(to, kOfA, number, 1000), SizeIs(1)) << reqno;
        proof(to, kOfA, number);
        proof(kNaptB2, kOfB, number);
        EXPECT_TRUE(flows_are(to, kNaptB2)) << reqno;
    }
    // What was answered where the end is has been used, too.
    const auto plain = [&](const Endpoint& from, Form form) {
        return hear({{from, proxy},
                     5,
                     6,
                     flag::kAck,
                     timestamps(1, 2) + mreq(form, 41, form == Form::Mreq ? kOfA : kOfB,
                                             form == Form::Mreq ? kPortA : kPortB),
                     {}});
    };
    plain(back ? kNaptA2 : kNaptA, Form::Mreq);
    plain(kNaptB2, Form::Mans);
    EXPECT_THAT(msyn(kForger, kOfA, 41, 1000), IsEmpty());
    EXPECT_THAT(msyn(kForger, kOfA, 42, 1000), SizeIs(1));
}

TEST_F(RelaysTest, WhatAForgerAcknowledgesTheEndDoesNot) {
    join();
    flows.all.at({kNaptA, proxy}).ack = 777;
    msyn(kForger, kOfA, 2, 1500, 666);
    hear({{kForger, proxy}, 1, 1U << 30, flag::kAck, confirm(2, kOfA), {}});
    const auto passed = msyn(kNaptA2, kOfA, 3, 1500);
    ASSERT_THAT(passed, ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_EQ(passed[0].ack, 777U);
}

TEST_F(RelaysTest, PlacesThatWereLeftAreFew) {
    join();
    for (std::uint8_t i = 2; i < 100; i++) {
        const auto from = at("198.51.100.7", i);
        msyn(from, kOfA, i, 1500);
        proof(from, kOfA, i);
        proof(kNaptB, kOfB, i);
        EXPECT_TRUE(flows_are(from, kNaptB));
    }
    EXPECT_THAT(flows.all, SizeIs(2 + Relays::kLeft));
}

TEST_F(RelaysTest, AFlowThatIsUsedByBothEndsIsNotLeftByOne) {
    join();
    // Somebody has A taken for where B is.
    msyn(kNaptB, kOfA, 2, 1500);
    proof(kNaptB, kOfA, 2);
    proof(kNaptB, kOfB, 2);
    msyn(kNaptA, kOfA, 3, 1500);
    proof(kNaptA, kOfA, 3);
    proof(kNaptB, kOfB, 3);
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
    be_quiet(minutes(2));
    pass(seconds(61));
    EXPECT_TRUE(flows_are(kNaptA, kNaptB));
}

TEST_F(RelaysTest, AnOldRequestOfAnEndDoesNotHinderTheOthersMove) {
    join();
    msyn(kNaptB, kOfB, 2, 2500);
    now += seconds(10);
    msyn(kNaptA2, kOfA, 3, 1500);
    proof(kNaptA2, kOfA, 3);
    proof(kNaptB, kOfB, 3);
    EXPECT_TRUE(flows_are(kNaptA2, kNaptB));
}

TEST_F(RelaysTest, RequestsFromWhereAnEndIsGoToTheOther) {
    join();
    EXPECT_THAT(hear({{kNaptA, proxy},
                      5,
                      6,
                      flag::kAck,
                      timestamps(1, 2) + mreq(Form::Mreq, 2, kOfA, kPortA),
                      {}}),
                ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_THAT(hear({{kNaptB, proxy},
                      6,
                      6,
                      flag::kAck,
                      timestamps(1, 2) + mreq(Form::Mans, 2, kOfB, kPortB),
                      {}}),
                ElementsAre(GoesTo(kNaptA, flag::kAck)));
}

TEST_F(RelaysTest, ANaptThatMapsAnewIsFoundByTheNextRequest) {
    join();
    // Data from nowhere: a reset makes a genuine end ask.
    ASSERT_THAT(data(kNaptA2), ElementsAre(GoesTo(kNaptA2, flag::kRst)));
    const auto asked = hear({{kNaptA2, proxy},
                             5,
                             6,
                             flag::kAck,
                             timestamps(1, 2) + mreq(Form::Mreq, 2, kOfA, kPortA),
                             {}});
    ASSERT_THAT(asked, ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_THAT(hear({{kNaptB, proxy},
                      6,
                      6,
                      flag::kAck,
                      timestamps(1, 2) + mreq(Form::Mans, 2, kOfB, kPortB),
                      {}}),
                ElementsAre(GoesTo(kNaptA2, flag::kAck)));
    proof(kNaptA2, kOfA, 2);
    proof(kNaptB, kOfB, 2);
    EXPECT_TRUE(flows_are(kNaptA2, kNaptB));
}

TEST_F(RelaysTest, AnUnknownPortIsClosed) {
    join();
    proxy.port = kLast;
    EXPECT_THAT(data(kNaptA), ElementsAre(GoesTo(kNaptA, flag::kRst)));
    EXPECT_THAT(data(kNaptA, flag::kRst | flag::kAck), IsEmpty());
    std::size_t resets = 0;
    for (int i = 0; i < 1000; i++) {
        resets += data(kNaptA).size();
    }
    EXPECT_LE(resets, 101U);
}

TEST_F(RelaysTest, AFloodLeavesResetsForLater) {
    reserve();
    for (int i = 0; i < 10'000; i++) {
        data(kForger);
    }
    now += seconds(1);
    EXPECT_THAT(data(kNaptA), ElementsAre(GoesTo(kNaptA, flag::kRst)));
}

TEST_F(RelaysTest, ABoxesResetToAnAnswerIsNotPassedOn) {
    reserve();
    msyn(kNaptA, kOfA, 1, 1000);
    msyn(kNaptB, kOfB, 2, 2000);
    EXPECT_THAT(data(kNaptA, flag::kRst), IsEmpty());
    const auto own = hear({{kNaptA, proxy},
                           1,
                           1,
                           flag::kRst,
                           Octets{254, 16, 0x4d, 0x49, 0x40, 0, 0, 0} + Octets(8, 1),
                           {}});
    EXPECT_THAT(own, ElementsAre(GoesTo(kNaptB, flag::kRst)));
}

TEST_F(RelaysTest, ABoxesResetFromWhereAnEndWasIsNotForWhoAsks) {
    join();
    msyn(kNaptB2, kOfB, 2, 2500);
    EXPECT_THAT(data(kNaptA, flag::kRst), ElementsAre(GoesTo(kNaptB, flag::kRst)));
    EXPECT_THAT(data(kNaptA), SizeIs(2)) << "else it is for both";
}

// ---- Ends (A3.5) ----

TEST_F(RelaysTest, FinsEndIt) {
    join();
    auto& a = flows.all.at({kNaptA, proxy});
    auto& b = flows.all.at({kNaptB, proxy});
    a.fin_end = 0xffffffff;
    b.fin_end = 100;
    a.ack = 100;
    b.ack = 0xfffffffe;
    a.idle_ns = b.idle_ns = 61'000'000'000;
    pass(minutes(5));
    EXPECT_EQ(relays->load().relays, 1U);  // one FIN is not acknowledged
    b.ack = 5;                             // beyond: numbers wrap
    pass(seconds(5));
    EXPECT_EQ(relays->load().relays, 0U);
    EXPECT_THAT(flows.all, IsEmpty());
    EXPECT_EQ(relays->counters().finished, 1U);
}

TEST_F(RelaysTest, AResetEndsItOnceNobodySaysAnythingMore) {
    join();
    flows.all.at({kNaptA, proxy}).rst = true;
    pass(minutes(5));
    EXPECT_EQ(relays->load().relays, 1U);
    for (auto& [in, flow] : flows.all) {
        flow.idle_ns = 61'000'000'000;
    }
    pass(seconds(5));
    EXPECT_EQ(relays->load().relays, 0U);
}

TEST_F(RelaysTest, WhatIsIdleForLongEnds) {
    start({.idle = minutes(10)});
    join();
    for (auto& [in, flow] : flows.all) {
        flow.idle_ns = 599'000'000'000;
    }
    pass(minutes(10));
    EXPECT_EQ(relays->load().relays, 1U);
    for (auto& [in, flow] : flows.all) {
        flow.idle_ns = 601'000'000'000;
    }
    pass(seconds(5));
    EXPECT_EQ(relays->load().relays, 0U);
    EXPECT_EQ(relays->counters().expired, 1U);
}

TEST_F(RelaysTest, WhoIsWhereAnEndWasKeepsTheRelay) {
    join();
    msyn(kNaptA2, kOfA, 2, 1500);
    proof(kNaptA2, kOfA, 2);
    proof(kNaptB, kOfB, 2);
    flows.all.at({kNaptA2, proxy}).rst = true;
    be_quiet(minutes(2));
    flows.all.at({kNaptA, proxy}).idle_ns = 0;
    pass(minutes(2));
    EXPECT_EQ(relays->load().relays, 1U);
    be_quiet(minutes(2));
    pass(seconds(5));
    EXPECT_EQ(relays->load().relays, 0U);
    EXPECT_THAT(flows.all, IsEmpty());
}

// ---- Restarts ----

TEST_F(RelaysTest, ItIsAllThereAfterARestart) {
    join();
    flows.all.at({kNaptA, proxy}).ack = 777;
    start();
    relays->restore();
    EXPECT_EQ(relays->load().relays, 1U);
    EXPECT_THAT(msyn(kNaptA2, kOfA, 2, 1500), ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_THAT(std::get<Reserved>(relays->order(an_order())).ports, ElementsAre(proxy.port));
    EXPECT_EQ(relays->load().relays, 1U);
    // A flow that nobody knows of goes.
    start();
    journal.kept.clear();
    relays->restore();
    be_quiet(minutes(1));
    pass(seconds(61));
    EXPECT_THAT(flows.all, IsEmpty());
}

TEST_F(RelaysTest, AFlowOfNoRelayEndsThoughItIsUsed) {
    join();
    start();
    journal.kept.clear();
    relays->restore();
    pass(seconds(61));
    EXPECT_THAT(flows.all, IsEmpty());
}

TEST_F(RelaysTest, WhatIsElsewhereAfterARestartIsNoRelay) {
    join();
    ports.address = make_address("203.0.113.10").to_v4();
    start();
    relays->restore();
    EXPECT_EQ(relays->load().relays, 0U);
    EXPECT_THAT(journal.kept, IsEmpty());
    EXPECT_EQ(std::get<Reserved>(relays->order(an_order())).address, *ports.address);
    ports.first = ports.last = kLast + 1;
    start();
    relays->restore();
    EXPECT_THAT(std::get<Reserved>(relays->order(an_order())).ports, ElementsAre(kLast + 1));
    pass(seconds(61));
    EXPECT_THAT(flows.all, IsEmpty());
}

TEST_F(RelaysTest, AMoveThatWasCutShortIsDoneAfterARestart) {
    join();
    journal.kept.at(proxy).ends[0].place = kNaptA2;
    start();
    relays->restore();
    EXPECT_TRUE(flows_are(kNaptA2, kNaptB));
    EXPECT_TRUE(flows.late.contains({kNaptA, proxy}));
}

TEST_F(RelaysTest, AFullDataPathIsCounted) {
    flows.full = true;
    reserve();
    msyn(kNaptA, kOfA, 1, 1000);
    msyn(kNaptB, kOfB, 1, 2000);
    proof(kNaptA, kOfA, 1);
    proof(kNaptB, kOfB, 1);
    EXPECT_EQ(relays->counters().failed, 2U);
    // Slowly, through here, it goes on.
    EXPECT_THAT(data(kNaptA), ElementsAre(GoesTo(kNaptB, flag::kAck)));
}

// ---- ICMP ----

TEST_F(RelaysTest, WhatCannotBeRecordedIsDeclined) {
    journal.full = true;
    const auto answer = relays->order(an_order());
    ASSERT_TRUE(std::holds_alternative<Declined>(answer));
    EXPECT_EQ(std::get<Declined>(answer).why, Declined::Why::Full);
    EXPECT_EQ(relays->load().relays, 0U);
    EXPECT_EQ(relays->counters().failed, 1U);
    journal.full = false;
    EXPECT_TRUE(std::holds_alternative<Reserved>(relays->order(an_order())));
}

TEST_F(RelaysTest, ARecordThatIsLostTakesNothingElseAlong) {
    start({.per_host = 1});
    reserve();
    journal.kept.clear();
    auto others = an_order();
    others.first = kC;
    EXPECT_TRUE(std::holds_alternative<Declined>(relays->order(others)))
        << "whose it is nobody knows";
    pass(minutes(4));
    EXPECT_EQ(relays->load().relays, 0U);
    EXPECT_TRUE(std::holds_alternative<Reserved>(relays->order(an_order()))) << "within its quota";
}

TEST_F(RelaysTest, PathMtuGoesToWhoHasSent) {
    join();
    // A router between the proxy and B, about what A has sent.
    const auto error =
        too_big_for(packet({{proxy, kNaptB}, 1, 2, flag::kAck, {}, Octets(100)}), 1280);
    relays->on_event({Event::Why::Icmp, static_cast<std::uint32_t>(error.size()), 0, error});
    ASSERT_THAT(other, SizeIs(1));
    const auto passed = parse_icmp_error(other[0]);
    ASSERT_TRUE(passed);
    EXPECT_EQ(passed->mtu, 1280U);
    EXPECT_EQ(passed->quoted, (Tuple{kNaptA, proxy}));
    // About something that was never sent.
    const auto alien =
        too_big_for(packet({{proxy, kForger}, 1, 2, flag::kAck, {}, Octets(100)}), 1280);
    relays->on_event({Event::Why::Icmp, static_cast<std::uint32_t>(alien.size()), 0, alien});
    EXPECT_THAT(other, SizeIs(1));
    EXPECT_EQ(relays->counters().icmp_alien, 1U);
}

TEST_F(RelaysTest, TooBigIsSaid) {
    join();
    const auto big = packet({{kNaptA, proxy}, 1, 2, flag::kAck, {}, Octets(1400)});
    relays->on_event({Event::Why::TooBig, 1440, 1280, big});
    ASSERT_THAT(other, SizeIs(1));
    EXPECT_EQ(parse_icmp_error(other[0])->mtu, 1280U);
}

TEST_F(RelaysTest, WhatMayBeFragmentedIsNotTooBig) {
    join();
    auto big = packet({{kNaptA, proxy}, 1, 2, flag::kAck, {}, Octets(1400)});
    big[6] = 0;
    relays->on_event({Event::Why::TooBig, 1440, 1280, big});
    EXPECT_THAT(sent, Contains(GoesTo(kNaptB, flag::kAck)));
    // Not all of it is here: its sender has to know.
    relays->on_event({Event::Why::TooBig, 3000, 1280, big});
    EXPECT_THAT(other, SizeIs(1));
}

TEST_F(RelaysTest, FragmentsAreRelayedAsASegment) {
    join();
    const auto whole = packet({{kNaptA, proxy}, 1, 2, flag::kAck, {}, Octets(1400, 7)});
    auto pieces = fragmented(whole, 576, 99);
    ASSERT_THAT(pieces, SizeIs(3));
    sent.clear();
    for (const std::size_t i : {2, 0, 0, 1}) {
        EXPECT_THAT(sent, IsEmpty());
        const auto& piece = pieces[i];
        relays->on_event(
            {Event::Why::Fragment, static_cast<std::uint32_t>(piece.size()), 0, piece});
    }
    ASSERT_THAT(sent, ElementsAre(GoesTo(kNaptB, flag::kAck)));
    EXPECT_EQ(sent[0].payload, 1400U);
    EXPECT_TRUE(may_fragment(sent[0].packet));
    EXPECT_EQ(relays->counters().mended, 1U);
    // One that never comes.
    relays->on_event({Event::Why::Fragment, 576, 0, pieces[0]});
    pass(seconds(31));
    EXPECT_EQ(relays->fragments().waiting(), 0U);
    EXPECT_EQ(relays->fragments().lost(), 1U);
}

TEST_F(RelaysTest, NonsenseIsCounted) {
    for (std::size_t size = 0; size < 60; size++) {
        const Octets nonsense(size, 0x45);
        relays->on_event({Event::Why::Segment, static_cast<std::uint32_t>(size), 0, nonsense});
        relays->on_event({Event::Why::Icmp, static_cast<std::uint32_t>(size), 0, nonsense});
    }
    EXPECT_GT(relays->counters().malformed, 0U);
    EXPECT_THAT(sent, IsEmpty());
}

}  // namespace
}  // namespace mobility::proxy
