// SPDX-License-Identifier: GPL-2.0-or-later
// Every case of the server's judgement: places before x places after x who
// reported first x ports changed x relayed before x same outer address, against
// a table taken from thesis 3.1.2, 3.1.5 and 3.4 and requirements A2.4 to A2.8.
#include "judge/judge.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace mobility::judge {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

Address ip(const std::string& text) {
    return boost::asio::ip::make_address(text);
}

constexpr Name kA({0xaa});
constexpr Name kB({0xbb});
constexpr std::uint16_t kPortA = 40000;
constexpr std::uint16_t kPortB = 22;
constexpr std::uint16_t kProxyPort = 7777;
constexpr std::uint16_t kNewPortA = 50000;

// Where a host can be: what it calls its address, and what others see.
struct Spot {
    const char* own;
    const char* seen;
    [[nodiscard]] bool inside() const { return std::string(own) != seen; }
};
constexpr Spot kGlobalA{"198.51.100.1", "198.51.100.1"};
constexpr Spot kGlobalB{"203.0.113.1", "203.0.113.1"};
constexpr Spot kInsideA{"192.168.1.10", "198.51.100.9"};
constexpr Spot kInsideB{"192.168.1.10", "203.0.113.9"};      // the same inner address, elsewhere
constexpr Spot kNeighbourB{"192.168.1.11", "198.51.100.9"};  // behind A's NAPT
constexpr const char* kProxy = "198.51.100.200";

struct Row {
    Spot before_a, before_b;
    bool relayed;
    Spot after_a, after_b;
    bool port_changed;
    bool a_first;
};

Report report(const Row& row, bool of_a) {
    const Spot& own = of_a ? row.before_a : row.before_b;
    const Spot& other = of_a ? row.before_b : row.before_a;
    const Spot& after = of_a ? row.after_a : row.after_b;
    Report r;
    r.host = of_a ? kA : kB;
    r.peer = of_a ? kB : kA;
    r.before = ip(own.own);
    r.peer_before = ip(row.relayed ? kProxy : other.seen);
    r.after = ip(after.own);
    r.seen = ip(after.seen);
    const std::uint16_t port = of_a ? kPortA : kPortB;
    const std::uint16_t peer = of_a ? kPortB : kPortA;
    const std::uint16_t now = of_a && row.port_changed ? kNewPortA : port;
    r.connections = {{port, row.relayed ? kProxyPort : peer, now},
                     {static_cast<std::uint16_t>(port + 1),
                      static_cast<std::uint16_t>((row.relayed ? kProxyPort : peer) + 1),
                      static_cast<std::uint16_t>(port + 1)}};
    return r;
}

Judgement judged(const Row& row) {
    const auto a = report(row, true);
    const auto b = report(row, false);
    return row.a_first ? judge(a, b) : judge(b, a);
}

// Who is told first by a row's places after the move: "A", "B", "both", "proxy".
std::string told_first(const Row& row) {
    const bool a = row.after_a.inside();
    const bool b = row.after_b.inside();
    if (a && b) {
        // 3.4.4; A2.7. Behind the same NAPT: tried inside it first.
        return std::string(row.after_a.seen) == row.after_b.seen ? "both" : "proxy";
    }
    if (a || b) {
        return a ? "A" : "B";  // 3.4.3: who is inside
    }
    return row.a_first ? "B" : "A";  // 3.4.2: who reported last
}

std::string name(const Step& step, bool a_first) {
    if (Judgement::is_relay(step)) {
        return "proxy";
    }
    if (step.size() == 2) {
        return "both";
    }
    return (step.front().host == 0) == a_first ? "A" : "B";
}

std::vector<Resume> expected_ports(const Row& row, bool told_a) {
    const std::uint16_t now_a = row.port_changed ? kNewPortA : kPortA;
    const std::uint16_t peer_a =
        row.relayed ? kProxyPort : kPortB;  // what A has as its peer's port
    const std::uint16_t peer_b = row.relayed ? kProxyPort : kPortA;
    if (told_a) {
        return {{kPortA, now_a, peer_a, kPortB},
                {kPortA + 1, kPortA + 1, static_cast<std::uint16_t>(peer_a + 1), kPortB + 1}};
    }
    return {{kPortB, kPortB, peer_b, now_a},
            {kPortB + 1, kPortB + 1, static_cast<std::uint16_t>(peer_b + 1), kPortA + 1}};
}

void check_notice(const Notice& told, const Row& row) {
    const bool told_a = (told.host == 0) == row.a_first;
    const Spot& peer = told_a ? row.after_b : row.after_a;
    EXPECT_EQ(told.peer, ip(told.trial ? peer.own : peer.seen));
    EXPECT_EQ(told.connections, expected_ports(row, told_a));
}

std::vector<Row> all_rows() {
    std::vector<Row> rows;
    for (const bool a_first : {true, false}) {
        for (const bool changed : {true, false}) {
            for (const Spot& before_a : {kGlobalA, kInsideA}) {
                for (const Spot& before_b : {kGlobalB, kInsideB, kNeighbourB}) {
                    for (const bool relayed : {true, false}) {
                        for (const Spot& after_a : {kGlobalA, kInsideA}) {
                            for (const Spot& after_b : {kGlobalB, kInsideB, kNeighbourB}) {
                                rows.push_back({before_a, before_b, relayed, after_a, after_b,
                                                changed, a_first});
                            }
                        }
                    }
                }
            }
        }
    }
    return rows;
}

TEST(Judge, EveryRow) {
    ASSERT_THAT(all_rows(), SizeIs(288));
    for (const auto& row : all_rows()) {
        SCOPED_TRACE(std::string("A ") + row.before_a.own + " -> " + row.after_a.own + ", B " +
                     row.before_b.own + " -> " + row.after_b.own +
                     (row.relayed ? ", relayed" : "") + (row.a_first ? ", A first" : ", B first"));
        const auto got = judged(row);
        const std::size_t a = row.a_first ? 0 : 1;
        EXPECT_EQ(got.relayed_before, row.relayed);  // 3.1.2, 3.
        if (!row.relayed) {
            EXPECT_EQ(got.before[a] == Place::Inside, row.before_a.inside());      // 3.1.2, 1.
            EXPECT_EQ(got.before[1 - a] == Place::Inside, row.before_b.inside());  // 3.1.2, 2.
        }
        EXPECT_EQ(got.after[a] == Place::Inside, row.after_a.inside());
        EXPECT_EQ(got.after[1 - a] == Place::Inside, row.after_b.inside());
        ASSERT_FALSE(got.plan.empty());
        EXPECT_EQ(name(got.plan.front(), row.a_first), told_first(row));
        EXPECT_EQ(name(got.plan.back(), row.a_first), "proxy");
        for (const auto& step : got.plan) {
            for (const auto& told : step) {
                check_notice(told, row);
            }
        }
    }
}

Row plain() {
    return {kGlobalA, kGlobalB, false, kGlobalA, kGlobalB, false, true};
}

TEST(Judge, TheOtherIsToldIfNobodyAnswers) {
    auto row = plain();
    row.after_a = kInsideA;
    const auto got = judged(row);
    ASSERT_THAT(got.plan, SizeIs(3));
    EXPECT_EQ(name(got.plan[0], true), "A");
    EXPECT_EQ(name(got.plan[1], true), "B");
    EXPECT_EQ(got.plan[1].front().peer, ip(kInsideA.seen));
}

TEST(Judge, SameNaptIsATrialInsideIt) {
    auto row = plain();
    row.after_a = kInsideA;
    row.after_b = kNeighbourB;
    const auto got = judged(row);
    EXPECT_EQ(got.what, Case::SameNapt);
    ASSERT_THAT(got.plan, SizeIs(2));
    ASSERT_THAT(got.plan[0], SizeIs(2));
    EXPECT_TRUE(got.plan[0][0].trial);
    EXPECT_EQ(got.plan[0][0].peer, ip(kNeighbourB.own));
    EXPECT_EQ(got.plan[0][1].peer, ip(kInsideA.own));
}

TEST(Judge, NobodyIsAimedAtAPlaceThatIsNotPrivate) {
    for (const char* aim : {"8.8.8.8", "198.51.100.77", "127.0.0.1", "169.254.1.1", "172.32.0.1",
                            "100.128.0.1", "100.63.255.255", "192.169.0.1", "11.0.0.1"}) {
        auto row = plain();
        row.after_a = kInsideA;
        row.after_b = {aim, kInsideA.seen};
        EXPECT_EQ(judged(row).what, Case::Apart) << aim;
    }
    for (const char* inner :
         {"10.255.0.1", "172.16.0.1", "172.31.255.1", "192.168.0.1", "100.64.0.1", "100.127.0.1"}) {
        auto row = plain();
        row.after_a = kInsideA;
        row.after_b = {inner, kInsideA.seen};
        EXPECT_EQ(judged(row).what, Case::SameNapt) << inner;
    }
}

TEST(Judge, TwoHostsWithTheSameInnerAddressAreNotNeighbours) {
    auto row = plain();
    row.after_a = kInsideA;
    row.after_b = {kInsideA.own, kInsideA.seen};
    EXPECT_EQ(judged(row).what, Case::Apart);
}

// 3.1.2: "otherwise a coincidence" would be wrong for two global hosts.
TEST(Judge, BothGlobalIsNoCoincidence) {
    EXPECT_EQ(judged(plain()).what, Case::Direct);
}

TEST(Judge, OtherIdentitiesAreACoincidence) {
    const auto a = report(plain(), true);
    auto b = report(plain(), false);
    b.peer = Name({0xcc});
    EXPECT_EQ(judge(a, b).what, Case::Coincidence);
    EXPECT_THAT(judge(a, b).plan, IsEmpty());
    b.peer = kA;
    b.host = Name({0xcc});
    EXPECT_EQ(judge(a, b).what, Case::Coincidence);
}

TEST(Judge, AHostIsNotItsOwnPeer) {
    auto a = report(plain(), true);
    a.peer = kA;
    a.connections = {{1000, 1000, 1000}};
    EXPECT_EQ(judge(a, a).what, Case::Coincidence);
}

TEST(Judge, NoConnectionInCommonIsACoincidence) {
    const auto a = report(plain(), true);
    auto b = report(plain(), false);
    for (auto& ports : b.connections) {
        ports.own = static_cast<std::uint16_t>(ports.own + 100);
    }
    EXPECT_EQ(judge(a, b).what, Case::Coincidence);
    b.connections.clear();
    EXPECT_EQ(judge(a, b).what, Case::Coincidence);
}

TEST(Judge, OnlyConnectionsThatBothHaveAreResumed) {
    const auto a = report(plain(), true);
    auto b = report(plain(), false);
    b.connections.pop_back();
    b.connections.push_back({9999, 9998, 9999});
    const auto got = judge(a, b);
    ASSERT_FALSE(got.plan.empty());
    EXPECT_THAT(got.plan.front().front().connections,
                ElementsAre(Resume{kPortB, kPortB, kPortA, kPortA}));
}

TEST(Judge, PortsCrosswiseAreNoRelayEvenIfTheAddressIsTheSame) {
    // Two hosts behind one NAPT that turns packets round.
    auto a = report(plain(), true);
    auto b = report(plain(), false);
    a.before = ip("192.168.1.10");
    b.before = ip("192.168.1.11");
    a.peer_before = b.peer_before = ip("198.51.100.9");
    const auto got = judge(a, b);
    EXPECT_FALSE(got.relayed_before);
    EXPECT_EQ(got.before[0], Place::Inside);
    EXPECT_EQ(got.before[1], Place::Inside);
    EXPECT_EQ(got.what, Case::Direct);
}

/// Both inside now, with tokens 1, 2 of A and 11, 12 of B.
std::array<Report, 2> both_inside(bool relayed) {
    auto row = plain();
    row.relayed = relayed;
    row.after_a = kInsideA;
    row.after_b = kInsideB;
    row.port_changed = true;
    std::array<Report, 2> out{report(row, true), report(row, false)};
    for (std::uint32_t i = 0; i < 2; i++) {
        out[0].connections[i].token = 1 + i;
        out[1].connections[i].token = 11 + i;
    }
    return out;
}

TEST(Judge, AProxyIsToldTheEndsAsTheySeeThemselvesNow) {
    const auto inner = ip("192.168.1.10");
    for (const bool relayed : {false, true}) {
        const auto [a, b] = both_inside(relayed);
        EXPECT_EQ(judge(a, b).relayed_before, relayed);
        EXPECT_THAT(relay(a, b),
                    ElementsAre(RelayPair{{1, inner, kNewPortA}, {11, inner, kPortB}},
                                RelayPair{{2, inner, kPortA + 1}, {12, inner, kPortB + 1}}));
        EXPECT_THAT(relay(b, a),
                    ElementsAre(RelayPair{{11, inner, kPortB}, {1, inner, kNewPortA}},
                                RelayPair{{12, inner, kPortB + 1}, {2, inner, kPortA + 1}}));
    }
}

TEST(Judge, BothAreToldTheProxysPorts) {
    for (const bool relayed : {false, true}) {
        const auto [a, b] = both_inside(relayed);
        const auto told = mobility::judge::relayed(a, b, ip(kProxy), {10'000, 10'001});
        // What they name is what they have reported.
        const std::uint16_t peer_a = relayed ? kProxyPort : kPortB;
        const std::uint16_t peer_b = relayed ? kProxyPort : kPortA;
        ASSERT_THAT(told, SizeIs(2));
        EXPECT_EQ(told[0].host, 0);
        EXPECT_EQ(told[1].host, 1);
        EXPECT_EQ(told[0].peer, ip(kProxy));
        EXPECT_FALSE(told[0].trial);
        EXPECT_EQ(told[0].connections[0], (Resume{kPortA, kNewPortA, peer_a, 10'000}));
        EXPECT_EQ(told[1].connections[0], (Resume{kPortB, kPortB, peer_b, 10'000}));
        EXPECT_EQ(told[0].connections[1].peer_after, 10'001);
        EXPECT_EQ(told[1].connections[1].peer_after, 10'001);
        EXPECT_THAT(mobility::judge::relayed(a, b, ip(kProxy), {10'000}), IsEmpty());
    }
}

TEST(Judge, OnlyWhatAProxyCanRecogniseIsRelayed) {
    auto [a, b] = both_inside(false);
    b.connections[0].token = 0;  // an older client
    EXPECT_THAT(relay(a, b), SizeIs(1));
    EXPECT_EQ(relay(a, b)[0].first.token, 2);
    const auto told = mobility::judge::relayed(a, b, ip(kProxy), {10'000});
    ASSERT_THAT(told, SizeIs(2));
    EXPECT_THAT(told[0].connections,
                ElementsAre(Resume{kPortA + 1, kPortA + 1, kPortB + 1, 10'000}));
    b.connections[0].token = 12;
    a.connections[0].token = 2;  // a lie: nobody's connections have the same tokens
    EXPECT_THAT(relay(a, b), SizeIs(1));
    a.connections[1].token = b.connections[1].token = 0;
    a.connections[0].token = 0;
    EXPECT_THAT(relay(a, b), IsEmpty());
    EXPECT_THAT(mobility::judge::relayed(a, b, ip(kProxy), {}), IsEmpty());
}

TEST(Judge, ARelayHasItsBound) {
    auto [a, b] = both_inside(false);
    a.connections.clear();
    b.connections.clear();
    for (std::uint16_t i = 0; i < kMaxConnections; i++) {
        const auto port = static_cast<std::uint16_t>(10'000 + i);
        a.connections.push_back({port, kPortB, port, i + 1U});
        b.connections.push_back({kPortB, port, kPortB, i + 1U});
    }
    EXPECT_THAT(relay(a, b), SizeIs(kMaxRelays));
}

TEST(Judge, TokensDecideNothing) {
    for (const auto& row : all_rows()) {
        auto a = report(row, true);
        auto b = report(row, false);
        const auto plain = judge(a, b);
        a.connections[0].token = b.connections[1].token = 7;
        const auto with = judge(a, b);
        EXPECT_EQ(plain.what, with.what);
        EXPECT_EQ(plain.plan, with.plan);
    }
}

TEST(Judge, WhereBothHadTheirPeerMayBeAProxy) {
    const auto [a, b] = both_inside(true);
    EXPECT_EQ(proxy_before(a, b), ip(kProxy));
    const auto direct = both_inside(false);
    EXPECT_FALSE(proxy_before(direct[0], direct[1]));
}

/// Hosts that are relayed know their peer's own port, as Migrate-Request tells it.
TEST(Judge, RelayedHostsMayNameEachOthersOwnPorts) {
    auto [a, b] = both_inside(false);
    a.peer_before = b.peer_before = ip(kProxy);
    const auto got = judge(a, b);
    EXPECT_FALSE(got.relayed_before);
    EXPECT_THAT(got.before, Each(Place::Inside));
    EXPECT_EQ(got.what, Case::Apart);
    EXPECT_EQ(proxy_before(a, b), ip(kProxy));
    EXPECT_THAT(relay(a, b), SizeIs(2));
}

TEST(Judge, WhoLeavesAProxyForAGlobalPlaceIsReachedAtItsOwnPort) {
    auto row = plain();
    row.relayed = true;
    row.before_a = kInsideA;
    row.before_b = row.after_b = kInsideB;
    const auto got = judged(row);
    EXPECT_EQ(got.what, Case::Direct);
    ASSERT_THAT(got.plan.front(), SizeIs(1));
    const auto& told = got.plan.front().front();
    EXPECT_EQ(told.host, 1U) << "who is inside";
    EXPECT_EQ(told.peer, ip(kGlobalA.seen));
    EXPECT_EQ(told.connections[0], (Resume{kPortB, kPortB, kProxyPort, kPortA}));
}

TEST(Judge, AnotherFamilyIsSaidToBeImpossible) {
    auto row = plain();
    row.after_a = {"2001:db8::1", "2001:db8::1"};
    EXPECT_EQ(judged(row).what, Case::OtherFamily);
    EXPECT_THAT(judged(row).plan, IsEmpty());
    row = plain();
    row.after_b = {"2001:db8::1", "203.0.113.1"};
    EXPECT_EQ(judged(row).what, Case::OtherFamily);
}

TEST(Judge, Ipv6) {
    const Spot a{"2001:db8:a::1", "2001:db8:a::1"};
    const Spot b{"2001:db8:b::1", "2001:db8:b::1"};
    const auto got = judged({a, b, false, b, a, false, true});
    EXPECT_EQ(got.what, Case::Direct);
    EXPECT_EQ(name(got.plan.front(), true), "B");
}

// ---- Leaving a relay ----

/// Both inside, with tokens; the proxy meets them at the ports that their NAPTs gave them.
class Crossing : public testing::Test {
  protected:
    Crossing() {
        auto row = plain();
        row.after_a = kInsideA;
        row.after_b = kInsideB;
        for (auto* one : {&a, &b}) {
            *one = report(row, one == &a);
            one->crosses = true;
            for (std::uint32_t i = 0; i < 2; i++) {
                one->connections[i].token = (one == &a ? 10 : 20) + i;
            }
        }
        for (std::uint32_t i = 0; i < 2; i++) {
            const auto port = static_cast<std::uint16_t>(60'000 + i);
            met.push_back(
                {{10 + i, a.seen, port}, {20 + i, b.seen, static_cast<std::uint16_t>(port + 100)}});
        }
    }

    Report a;
    Report b;
    std::vector<RelayPair> met;
};

TEST_F(Crossing, EachIsToldWhereTheProxyMeetsTheOther) {
    const Step step{
        {0,
         b.seen,
         true,
         {{kPortA, kPortA, kPortB, 60'100}, {kPortA + 1, kPortA + 1, kPortB + 1, 60'101}}},
        {1,
         a.seen,
         true,
         {{kPortB, kPortB, kPortA, 60'000}, {kPortB + 1, kPortB + 1, kPortA + 1, 60'001}}}};
    EXPECT_EQ(crossing(a, b, met), step);
    std::swap(met[1].first, met[1].second);  // however the proxy numbers them
    EXPECT_EQ(crossing(a, b, met), step);
}

TEST_F(Crossing, OnlyWhatTheProxyHasMet) {
    met.pop_back();
    const auto step = crossing(a, b, met);
    ASSERT_THAT(step, SizeIs(2));
    EXPECT_THAT(step[0].connections, SizeIs(1));
    EXPECT_THAT(step[1].connections, SizeIs(1));
    EXPECT_THAT(crossing(a, b, {}), IsEmpty());
}

TEST_F(Crossing, NobodyIsAimedElsewhere) {
    met[0].first.address = ip("192.0.2.66");
    EXPECT_THAT(crossing(a, b, met).at(0).connections, SizeIs(1)) << "seen there by nobody else";
    met[1].second.address = ip("192.0.2.66");
    EXPECT_THAT(crossing(a, b, met), IsEmpty());
}

TEST_F(Crossing, NotWhereItCannotWork) {
    auto old = a;
    old.crosses = false;
    EXPECT_THAT(crossing(old, b, met), IsEmpty());
    EXPECT_THAT(crossing(b, old, met), IsEmpty());
    b.seen = a.seen;
    for (auto& pair : met) {
        pair.second.address = b.seen;
    }
    EXPECT_THAT(crossing(a, b, met), IsEmpty());
}

}  // namespace
}  // namespace mobility::judge
