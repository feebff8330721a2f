// SPDX-License-Identifier: GPL-2.0-or-later
// The exchange after a move, as one host goes through it: each message and event, in each
// state.
#include "daemon/resumer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "daemon/address.hpp"
#include "fake_kernel.hpp"
#include "quiet.hpp"

namespace mobility::client {
namespace {

using boost::asio::ip::make_address;
using std::chrono::milliseconds;
using std::chrono::seconds;
using tcpmigrate::Reason;
using ConnectionState = tcpmigrate::State;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

const Name kSelf({0xa});
const Name kPeer({0xb});
const Name kServer({0x51});
const Name kOther({0x52});
const auto kHome = make_address("192.0.2.1");
const auto kAway = make_address("203.0.113.9");
const auto kPeerHome = make_address("198.51.100.2");
const auto kPeerAway = make_address("198.51.100.77");

ServerPlace place(const Name& server) {
    return {server, boost::asio::ip::address_v4({203, 0, 113, 1}), {}, 7790};
}

class ResumerTest : public testing::Test {
  protected:
    /// What was said, and to which server from where.
    struct Word {
        Servers::Key to;
        ToServer message;
    };

    ResumerTest() {
        kernel.connections = {fake::sample(17), fake::sample(18), fake::sample(99)};
        auto opened =
            Table::over(io, quiet(), fake::make_transport(kernel), fake::make_events(kernel));
        EXPECT_TRUE(opened);
        table = std::move(*opened);
        auto& pair = *book.open(kSelf, kPeer, kHome);
        pair.agree({kPeer, kPeerHome, {7}});
        pair.servers = {place(kServer), place(kOther)};
        book.put(kPeer, 17, Guard::Exclusive);
        book.put(kPeer, 18, Guard::Exclusive);
        id = pair.id();
        resumer = std::make_unique<Resumer>(
            *table, book,
            Resumer::Hands{[this](const Servers::Key& to, const ToServer& message) {
                               said.push_back({to, message});
                               return joined;
                           },
                           [this](const Servers::Key&) { return rtt; },
                           [this](const tcpmigrate::MigrateRequest& request) -> Result<void> {
                               if (refused) {
                                   return tcpmigrate::make_error(EADDRINUSE, "no");
                               }
                               migrated.push_back(request);
                               return {};
                           },
                           [this] { return now; }},
            quiet());
        table->start([this](const Connection& c) { resumer->on_event(c); },
                     [this](bool reread) { resumer->on_batch(reread); });
    }

    /// A connection with another tuple, target, state; told as an event.
    Connection& change(std::uint64_t cookie) {
        auto& one = changed.emplace_back(fake::sample(cookie));
        one.peer_inner.reset();
        return one;
    }
    void happens() {
        kernel.events.emplace_back(std::vector<Connection>(changed.begin(), changed.end()));
        changed.clear();
        table->take();
    }
    /// The kernel has been told to move both.
    void leave_home() {
        for (const auto cookie : {17, 18}) {
            auto& one = change(static_cast<std::uint64_t>(cookie));
            one.state = ConnectionState::MigSent;
            one.reason = Reason::Command;
            one.new_local.address = to_kernel(kAway);
        }
        happens();
    }
    /// They have arrived; `peer`: where the peer is then.
    void arrive(const boost::asio::ip::address& peer) {
        for (const auto cookie : {17, 18}) {
            auto& one = change(static_cast<std::uint64_t>(cookie));
            one.local.address = to_kernel(kAway);
            one.remote.address = to_kernel(peer);
            one.reason = Reason::Committed;
            one.migrations = 1;
        }
        happens();
    }
    Notice a_notice(std::uint32_t judgement = 1) const {
        Notice notice;
        notice.pair = id;
        notice.judgement = judgement;
        notice.peer = kPeerAway;
        notice.connections = {{5000, 5000, 80, 80}, {5001, 5001, 80, 80}};
        return notice;
    }
    [[nodiscard]] Ask an_ask() const {
        Ask ask{id, Ask::Hint{kPeerAway, {}}};
        ask.hint->connections = a_notice().connections;
        return ask;
    }
    static Servers::Key from(const boost::asio::ip::address& address,
                             const Name& server = kServer) {
        return {place(server), address};
    }
    template <typename Message>
    [[nodiscard]] std::vector<Message> words() const {
        std::vector<Message> out;
        for (const auto& word : said) {
            if (const auto* message = std::get_if<Message>(&word.message)) {
                out.push_back(*message);
            }
        }
        return out;
    }

    boost::asio::io_context io{1};
    fake::Kernel kernel;
    std::unique_ptr<Table> table;
    Book book;
    PairId id{};
    std::unique_ptr<Resumer> resumer;
    std::deque<Connection> changed;  ///< references into it stay good
    std::vector<Word> said;
    std::vector<tcpmigrate::MigrateRequest> migrated;
    Resumer::Duration rtt = milliseconds(50);
    bool joined = true;
    bool refused = false;
    Resumer::Time now{};
};

TEST_F(ResumerTest, AMoveIsReportedToAllServersAtOnce) {
    leave_home();
    ASSERT_THAT(said, SizeIs(2));
    EXPECT_EQ(said[0].to, from(kAway));
    EXPECT_EQ(said[1].to, from(kAway, kOther));
    const auto report = words<Report>().at(0);
    EXPECT_EQ(report.pair(), id);
    EXPECT_EQ(report.before, kHome);
    EXPECT_EQ(report.after, kAway);
    EXPECT_EQ(report.peer_before, kPeerHome);
    EXPECT_THAT(report.connections, ElementsAre(Ports{5000, 80, 5000}, Ports{5001, 80, 5001}));
    EXPECT_EQ(resumer->seen(kPeer).state, "reported");
    EXPECT_EQ(resumer->seen(kPeer).unsettled, 2);
}

TEST_F(ResumerTest, ATrialIsNoMoveYet) {
    table->trials() = {17, 18};
    leave_home();
    EXPECT_THAT(said, IsEmpty());
    ASSERT_TRUE(resumer->wanted().contains(from(kHome)));
    EXPECT_THAT(resumer->wanted().at(from(kHome)), ElementsAre(kAway)) << "it goes there";
    table->trials().clear();  // the old path is gone: they move in earnest
    leave_home();
    EXPECT_THAT(words<Report>(), SizeIs(2));
}

TEST_F(ResumerTest, ASecondMoveIsReportedFromWhereThePeerKnowsUs) {
    leave_home();
    said.clear();
    auto& one = change(17);
    one.state = ConnectionState::MigSent;
    one.new_local.address = to_kernel(make_address("203.0.113.10"));
    auto& other = change(18);
    other = one;
    other.cookie = 18;
    other.local.port = 5001;
    happens();
    const auto reports = words<Report>();
    ASSERT_THAT(reports, SizeIs(2));
    EXPECT_EQ(reports[0].before, kHome);
    EXPECT_EQ(reports[0].after, make_address("203.0.113.10"));
}

TEST_F(ResumerTest, WhatIsKnownIsNotRepeated) {
    leave_home();
    said.clear();
    leave_home();
    EXPECT_THAT(said, IsEmpty());
}

TEST_F(ResumerTest, ALostPathIsReported) {
    auto& one = change(17);
    one.state = ConnectionState::MigWait;
    one.reason = Reason::Rst;
    happens();
    ASSERT_THAT(words<Report>(), SizeIs(2));
    EXPECT_EQ(words<Report>()[0].before, words<Report>()[0].after);
}

TEST_F(ResumerTest, SilenceIsReportedAndForgotten) {
    const auto stalls = [this](std::uint64_t cookie) {
        change(cookie).reason = Reason::Stalled;
        happens();
    };
    stalls(99);
    EXPECT_THAT(said, IsEmpty()) << "of no pair";
    stalls(17);
    ASSERT_THAT(words<Report>(), SizeIs(2));
    EXPECT_EQ(words<Report>()[0].before, words<Report>()[0].after);
    EXPECT_EQ(resumer->seen(kPeer).unsettled, 0) << "it may go on this moment";
    stalls(17);
    EXPECT_THAT(words<Report>(), SizeIs(2)) << "servers are at it";
    ASSERT_TRUE(resumer->next());
    now = *resumer->next();
    resumer->expire();
    EXPECT_THAT(words<Forget>(), SizeIs(2));
    stalls(17);
    EXPECT_THAT(words<Report>(), SizeIs(4)) << "still nothing";
}

TEST_F(ResumerTest, ConnectionsOfNoPairAreNotReported) {
    auto& one = change(99);
    one.state = ConnectionState::MigSent;
    one.new_local.address = to_kernel(kAway);
    happens();
    EXPECT_THAT(said, IsEmpty());
}

TEST_F(ResumerTest, WhoResumesByHimselfHasServersForget) {
    leave_home();
    said.clear();
    arrive(kPeerHome);
    EXPECT_THAT(words<Forget>(), SizeIs(2));
    EXPECT_EQ(resumer->seen(kPeer).state, "settled");
    EXPECT_FALSE(resumer->next());
}

TEST_F(ResumerTest, AReportIsSentWhenItsChannelHasBeenJoined) {
    joined = false;
    leave_home();
    said.clear();
    joined = true;
    resumer->on_joined(from(kHome));
    EXPECT_THAT(said, IsEmpty());
    resumer->on_joined(from(kAway));
    EXPECT_THAT(words<Report>(), SizeIs(1));
    resumer->on_joined(from(kAway, Name({9})));
    EXPECT_THAT(words<Report>(), SizeIs(1)) << "not a server of this pair";
}

TEST_F(ResumerTest, AnAskIsAnsweredByTheServerThatAsks) {
    resumer->on_message(from(kHome, kOther), Ask{id, {}});
    ASSERT_THAT(said, SizeIs(1));
    EXPECT_EQ(said[0].to, from(kHome, kOther));
    EXPECT_EQ(words<Report>().at(0).after, kHome);
    resumer->on_message(from(kHome), Ask{{1, 2, 3}, {}});
    EXPECT_THAT(said, SizeIs(1));
    EXPECT_EQ(resumer->counters().unknown, 1);
}

TEST_F(ResumerTest, WhereThePeerMayBeIsTriedAtOnceAndOnlyOnce) {
    resumer->on_message(from(kHome), an_ask());
    EXPECT_THAT(words<Report>(), SizeIs(1));
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_TRUE(migrated[0].trial) << "the path works";
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerAway));
    resumer->on_message(from(kHome), a_notice(3));
    EXPECT_THAT(migrated, SizeIs(2));
    arrive(kPeerAway);
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_EQ(words<Outcome>()[0].judgement, 3);
    EXPECT_TRUE(words<Outcome>()[0].resumed);
    EXPECT_EQ(resumer->counters().resumed, 1);
}

TEST_F(ResumerTest, AHintsOutcomeIsSaidWhenItsNoticeComes) {
    resumer->on_message(from(kHome), an_ask());
    arrive(kPeerAway);
    EXPECT_THAT(words<Outcome>(), IsEmpty());
    resumer->on_message(from(kAway), a_notice(3));
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_TRUE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerTest, ANoticeOfAnotherPlaceThanTheHintsIsTried) {
    resumer->on_message(from(kHome), an_ask());
    auto notice = a_notice();
    notice.peer = make_address("198.51.100.88");
    resumer->on_message(from(kHome), notice);
    ASSERT_THAT(migrated, SizeIs(4));
    EXPECT_EQ(migrated[2].new_remote.address, to_kernel(notice.peer));
    EXPECT_THAT(words<Outcome>(), IsEmpty());
}

TEST_F(ResumerTest, AHintDoesNotDisturbANotice) {
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    auto ask = an_ask();
    ask.hint->peer = make_address("198.51.100.88");
    resumer->on_message(from(kAway), ask);
    EXPECT_THAT(migrated, SizeIs(2));
}

TEST_F(ResumerTest, HintsAreTriedOnlySoOften) {
    for (std::size_t i = 0; i < 2 * Resumer::kMaxTold; i++) {
        resumer->on_message(from(kHome), an_ask());
        arrive(kPeerAway);
        arrive(kPeerHome);
    }
    EXPECT_THAT(migrated, SizeIs(2 * Resumer::kMaxTold));
}

TEST_F(ResumerTest, ANoticeHasConnectionsMigrate) {
    leave_home();
    said.clear();
    resumer->on_message(from(kAway), a_notice());
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_EQ(migrated[0].new_local.address, to_kernel(kAway));
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerAway));
    EXPECT_EQ(migrated[0].new_remote.port, 80);
    EXPECT_FALSE(migrated[0].trial);
    EXPECT_THAT(said, IsEmpty());
    arrive(kPeerAway);
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_TRUE(words<Outcome>()[0].resumed);
    EXPECT_EQ(words<Outcome>()[0].judgement, 1);
    EXPECT_EQ(resumer->seen(kPeer).state, "settled");
    EXPECT_EQ(resumer->counters().resumed, 1);
}

TEST_F(ResumerTest, ATrialIsATrial) {
    leave_home();
    auto notice = a_notice();
    notice.trial = true;
    resumer->on_message(from(kAway), notice);
    EXPECT_TRUE(migrated.at(0).trial);
}

TEST_F(ResumerTest, APathThatWorksIsKeptUntilAnotherHasBeenProved) {
    auto& one = change(18);
    one.state = ConnectionState::MigWait;
    one.reason = Reason::Rst;
    happens();
    resumer->on_message(from(kHome), a_notice());
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_TRUE(migrated[0].trial) << "whatever the server says";
    EXPECT_FALSE(migrated[1].trial) << "nothing is to be lost";
}

TEST_F(ResumerTest, WhereATrialGoesToIsNoPlaceToGoOnFrom) {
    table->trials() = {17, 18};
    leave_home();
    resumer->on_message(from(kHome), a_notice());
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_FALSE(migrated[0].new_local.address);
    EXPECT_TRUE(migrated[0].trial) << "the old path works";
}

TEST_F(ResumerTest, OnlyServersOfThePairAreHeard) {
    const auto stranger = from(kHome, Name({9}));
    resumer->on_message(stranger, a_notice());
    resumer->on_message(stranger, an_ask());
    resumer->on_message(stranger, Verdict{id, 1, Verdict::What::NeedsProxy});
    EXPECT_THAT(migrated, IsEmpty());
    EXPECT_THAT(said, IsEmpty());
    EXPECT_EQ(resumer->counters().unknown, 3);
    auto& pair = *book.open(kSelf, kPeer, kHome);
    pair.servers = {place(kServer), place(kOther), place(Name({7})), place(Name({8})),
                    place(Name({9}))};
    resumer->on_message(stranger, a_notice());
    EXPECT_THAT(migrated, IsEmpty()) << "not one of the four that are spoken with";
}

TEST_F(ResumerTest, ConnectionsWithTheSamePortsAreReportedOnce) {
    // Of two addresses of the peer, behind one NAPT.
    for (const auto cookie : {17, 18}) {
        auto& one = change(static_cast<std::uint64_t>(cookie));
        one.local.port = 5000;
        one.remote.port = static_cast<std::uint16_t>(6000 + cookie);
        one.peer_inner = tcpmigrate::PeerInner{{}, 80};
        one.state = ConnectionState::MigWait;
    }
    happens();
    EXPECT_THAT(words<Report>().at(0).connections, ElementsAre(Ports{5000, 80, 5000}));
}

TEST_F(ResumerTest, APlaceWhereTheyHaveJustArrivedIsASuccess) {
    arrive(kPeerAway);
    resumer->on_message(from(kAway), a_notice());
    EXPECT_THAT(migrated, IsEmpty());
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_TRUE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerTest, APeerThatIsWhereItWasDoesNotHearUs) {
    arrive(kPeerAway);
    now += seconds(30);
    resumer->on_message(from(kAway), a_notice());
    ASSERT_THAT(migrated, SizeIs(2)) << "a NAPT has forgotten them";
    EXPECT_TRUE(migrated[0].trial);
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerAway));
    EXPECT_THAT(words<Outcome>(), IsEmpty());
    arrive(kPeerAway);
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_TRUE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerTest, ANoticeOfNothingOfOursIsUseless) {
    auto notice = a_notice();
    notice.connections = {{4, 4, 4, 4}};
    resumer->on_message(from(kHome), notice);
    EXPECT_FALSE(words<Outcome>().at(0).resumed);
    notice = a_notice();
    notice.peer = make_address("2001:db8::1");
    resumer->on_message(from(kHome), notice);
    EXPECT_FALSE(words<Outcome>().at(1).resumed);
    EXPECT_EQ(resumer->counters().useless, 2);
    EXPECT_THAT(migrated, IsEmpty());
}

TEST_F(ResumerTest, WhatTheKernelRefusesIsSaidToTheServer) {
    leave_home();
    refused = true;
    resumer->on_message(from(kAway), a_notice());
    EXPECT_FALSE(words<Outcome>().at(0).resumed);
}

TEST_F(ResumerTest, AFailedAttemptIsSaidToTheServer) {
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    for (const auto cookie : {17, 18}) {
        auto& one = change(static_cast<std::uint64_t>(cookie));
        one.state = ConnectionState::MigWait;
        one.reason = Reason::Timeout;
        one.new_local.address = to_kernel(kAway);
    }
    happens();
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_FALSE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerTest, AnotherServersWordWaits) {
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    migrated.clear();
    auto second = a_notice(7);
    second.peer = make_address("198.51.100.88");
    resumer->on_message(from(kAway, kOther), second);
    EXPECT_THAT(migrated, IsEmpty());
    EXPECT_EQ(*resumer->next(), now + milliseconds(400));
    now += milliseconds(400);
    resumer->expire();
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(second.peer));
}

TEST_F(ResumerTest, WhoseTimeIsOverKeepsNobodyWaiting) {
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    now += milliseconds(400);
    resumer->expire();
    migrated.clear();
    resumer->on_message(from(kAway, kOther), a_notice(7));
    EXPECT_THAT(migrated, SizeIs(2));
}

TEST_F(ResumerTest, AnotherServersWordIsTriedAsSoonAsTheFirstHasFailed) {
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    auto second = a_notice(7);
    second.peer = make_address("198.51.100.88");
    resumer->on_message(from(kAway, kOther), second);
    migrated.clear();
    for (const auto cookie : {17, 18}) {
        auto& one = change(static_cast<std::uint64_t>(cookie));
        one.state = ConnectionState::MigWait;
        one.reason = Reason::Timeout;
    }
    happens();
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(second.peer));
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_FALSE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerTest, WhatTheKernelRefusesAtOnceLeavesTheNext) {
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    auto second = a_notice(7);
    second.connections = {{4, 4, 4, 4}};
    resumer->on_message(from(kAway, kOther), second);
    // The first server says something else, which waits: somebody else has not been tried.
    auto third = a_notice(2);
    third.peer = make_address("198.51.100.99");
    resumer->on_message(from(kAway), third);
    migrated.clear();
    now += milliseconds(400);
    resumer->expire();
    EXPECT_EQ(resumer->counters().useless, 1);
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(third.peer));
}

TEST_F(ResumerTest, AServerIsWaitedForOnlySoLong) {
    leave_home();
    rtt = seconds(100);
    resumer->on_message(from(kAway), a_notice());
    EXPECT_EQ(*resumer->next(), now + milliseconds(4200));
}

TEST_F(ResumerTest, WhereNobodyAnswersIsLeftForWhereThePeerWas) {
    leave_home();
    resumer->on_message(from(kAway), a_notice(1));
    ASSERT_THAT(migrated, SizeIs(2));
    now += seconds(2);
    resumer->on_message(from(kAway), a_notice(2));
    migrated.clear();
    said.clear();
    now += seconds(1);
    resumer->expire();
    ASSERT_THAT(migrated, SizeIs(2)) << "three seconds after the first";
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerHome));
    EXPECT_EQ(migrated[0].new_remote.port, 80);
    EXPECT_EQ(migrated[0].new_local.address, to_kernel(kAway));
    EXPECT_FALSE(migrated[0].trial);
    EXPECT_EQ(words<Outcome>().at(0).resumed, false);
    migrated.clear();
    now += seconds(4);
    resumer->expire();
    EXPECT_THAT(migrated, IsEmpty()) << "once";
}

TEST_F(ResumerTest, ATrialWithoutAPathIsLeftAsWell) {
    leave_home();
    auto notice = a_notice();
    notice.trial = true;
    resumer->on_message(from(kAway), notice);
    migrated.clear();
    now += seconds(3);
    resumer->expire();
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerHome));
}

TEST_F(ResumerTest, WhoHasArrivedDoesNotGoBack) {
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    arrive(kPeerAway);
    migrated.clear();
    now += seconds(4);
    resumer->expire();
    EXPECT_THAT(migrated, IsEmpty());
}

TEST_F(ResumerTest, OneServersManyPlacesDoNotHoldBackAnothers) {
    leave_home();
    for (std::uint32_t i = 0; i < 20; i++) {
        resumer->on_message(from(kAway), a_notice(i));
    }
    EXPECT_EQ(resumer->counters().tried, Resumer::kMaxTold);
    resumer->on_message(from(kAway, kOther), a_notice(50));
    now += milliseconds(400);
    resumer->expire();
    EXPECT_EQ(resumer->counters().tried, Resumer::kMaxTold + 1);
}

TEST_F(ResumerTest, PlacesAreTriedOnlySoOften) {
    leave_home();
    for (std::uint32_t i = 0; i < 20; i++) {
        resumer->on_message(from(kAway), a_notice(i));
    }
    EXPECT_EQ(resumer->counters().tried, Resumer::kMaxTold);
    EXPECT_EQ(resumer->counters().held_back, 20 - Resumer::kMaxTold);
    now += seconds(61);
    resumer->on_message(from(kAway), a_notice(30));
    EXPECT_EQ(resumer->counters().tried, Resumer::kMaxTold + 1);
}

TEST_F(ResumerTest, ReportsAreRepeatedEverLater) {
    leave_home();
    said.clear();
    std::vector<seconds> pauses;
    for (int i = 0; i < 6; i++) {
        pauses.push_back(std::chrono::duration_cast<seconds>(*resumer->next() - now));
        now = *resumer->next();
        resumer->expire();
    }
    EXPECT_THAT(pauses, ElementsAre(seconds(5), seconds(10), seconds(20), seconds(40), seconds(60),
                                    seconds(60)));
    EXPECT_THAT(words<Report>(), SizeIs(12));
}

TEST_F(ResumerTest, AVerdictIsShown) {
    leave_home();
    resumer->on_message(from(kAway), Verdict{id, 1, Verdict::What::NeedsProxy});
    EXPECT_EQ(resumer->seen(kPeer).verdict, "needs-proxy");
    arrive(kPeerHome);
    EXPECT_EQ(resumer->seen(kPeer).verdict, "");
}

TEST_F(ResumerTest, AVerdictIsShownToWhoWasAskedAsWell) {
    resumer->on_message(from(kHome), Verdict{id, 1, Verdict::What::PeerSilent});
    EXPECT_EQ(resumer->seen(kPeer).verdict, "") << "nobody has asked";
    resumer->on_message(from(kHome), Ask{id, {}});
    resumer->on_message(from(kHome), Verdict{id, 2, Verdict::What::NeedsProxy});
    EXPECT_EQ(resumer->seen(kPeer).verdict, "needs-proxy");
    change(17);
    happens();
    EXPECT_EQ(resumer->seen(kPeer).verdict, "needs-proxy") << "nothing has arrived";
    arrive(kPeerAway);
    EXPECT_EQ(resumer->seen(kPeer).verdict, "");
}

TEST_F(ResumerTest, PeopleCanHaveItReport) {
    EXPECT_EQ(resumer->report_all(), 1);
    EXPECT_THAT(words<Report>(), SizeIs(2));
    now = *resumer->next();
    resumer->expire();
    EXPECT_THAT(words<Report>(), SizeIs(2)) << "nothing is unsettled";
    EXPECT_FALSE(resumer->next());
}

TEST_F(ResumerTest, ServersAreWantedFromWhereTheConnectionsAre) {
    EXPECT_THAT(resumer->wanted(), SizeIs(2));
    EXPECT_TRUE(resumer->wanted().contains(from(kHome)));
    leave_home();
    EXPECT_TRUE(resumer->wanted().contains(from(kAway)));
    EXPECT_FALSE(resumer->wanted().contains(from(kHome)));
}

TEST_F(ResumerTest, APairThatIsForgottenSaysNothing) {
    leave_home();
    said.clear();
    book.forget(kPeer);
    now += seconds(5);
    resumer->expire();
    resumer->on_message(from(kAway), a_notice());
    EXPECT_THAT(said, IsEmpty());
    EXPECT_EQ(resumer->counters().unknown, 1);
}

}  // namespace
}  // namespace mobility::client
