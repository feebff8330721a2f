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

TEST_F(ResumerTest, AReportIsSentWhenItsChannelHasFollowed) {
    joined = false;  // the channel is on a trial yet
    leave_home();
    said.clear();
    joined = true;
    change(99).reason = Reason::Command;
    happens();
    EXPECT_THAT(words<Report>(), SizeIs(2)) << "of both servers";
    change(99).reason = Reason::Committed;
    happens();
    EXPECT_THAT(words<Report>(), SizeIs(2)) << "once";
    EXPECT_EQ(resumer->counters().reports, 2);
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

TEST_F(ResumerTest, AMoveOnTheWayDoesNotLeaveWhatWasTold) {
    const auto further = make_address("203.0.113.10");
    const auto moves = [&](const boost::asio::ip::address& to) {
        for (const std::uint64_t cookie : {17, 18}) {
            auto& one = change(cookie);
            one.state = ConnectionState::MigSent;
            one.reason = Reason::Command;
            one.new_local.address = to_kernel(further);
            one.new_remote.address = to_kernel(to);
            one.new_remote.port = 80;
        }
        happens();
    };
    leave_home();
    resumer->on_message(from(kAway), a_notice());
    migrated.clear();
    moves(kPeerHome);  // who moves all knows nothing of where the peer is
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_EQ(migrated[0].new_local.address, to_kernel(further));
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerAway));
    EXPECT_FALSE(migrated[0].trial);
    moves(kPeerAway);
    EXPECT_THAT(migrated, SizeIs(2)) << "they are on the way there";
    arrive(kPeerAway);
    EXPECT_TRUE(words<Outcome>().at(0).resumed);
}

TEST_F(ResumerTest, APlaceWhereTheyHaveJustArrivedIsASuccess) {
    arrive(kPeerAway);
    resumer->on_message(from(kAway), a_notice());
    EXPECT_THAT(migrated, IsEmpty());
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_TRUE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerTest, WhatSendsNobodyAnywhereIsNoTry) {
    arrive(kPeerAway);
    for (std::size_t i = 0; i < 2 * Resumer::kMaxTold; i++) {
        resumer->on_message(from(kAway), a_notice());
    }
    EXPECT_THAT(migrated, IsEmpty());
    EXPECT_EQ(resumer->counters().held_back, 0);
    auto notice = a_notice();
    notice.peer = make_address("198.51.100.88");
    resumer->on_message(from(kAway), notice);
    EXPECT_THAT(migrated, SizeIs(2));
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

// ---- Relays ----

/// Both are sent to a proxy, by different ports.
class ResumerRelayTest : public ResumerTest {
  protected:
    [[nodiscard]] Notice a_relay(const boost::asio::ip::address& proxy, std::uint16_t port = 10'000,
                                 std::uint32_t judgement = 1) const {
        Notice notice = a_notice(judgement);
        notice.peer = proxy;
        notice.relay = true;
        notice.connections = {{5000, 5000, 80, port},
                              {5001, 5001, 80, static_cast<std::uint16_t>(port + 1)}};
        return notice;
    }
    /// They have arrived there; they know their peer's own port.
    void arrive_at(const boost::asio::ip::address& proxy, std::uint16_t port = 10'000) {
        for (const std::uint64_t cookie : {17, 18}) {
            auto& one = change(cookie);
            one.local.address = to_kernel(kAway);
            one.remote = {to_kernel(proxy), port++};
            one.reason = Reason::Committed;
            one.peer_inner = tcpmigrate::PeerInner{{}, 80};
        }
        happens();
    }
    [[nodiscard]] bool relayed(std::uint64_t cookie) const {
        return resumer->is_relayed(*table->find(cookie));
    }

    const boost::asio::ip::address proxy = make_address("203.0.113.50");
    const boost::asio::ip::address other_proxy = make_address("203.0.113.60");
};

TEST_F(ResumerRelayTest, ReportsSayWhichTokensRequestsName) {
    auto read = fake::sample(17);
    read.token_remote = 0xdeadbeef;
    table->learn(read);
    leave_home();  // events do not have them
    EXPECT_THAT(words<Report>().at(0).connections,
                ElementsAre(Ports{5000, 80, 5000, 0xdeadbeef}, Ports{5001, 80, 5001, 0}));
}

TEST_F(ResumerRelayTest, AProxyIsAPlaceLikeAnyOther) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(proxy));
    EXPECT_EQ(migrated[0].new_remote.port, 10'000);
    EXPECT_EQ(migrated[1].new_remote.port, 10'001);
    EXPECT_FALSE(migrated[0].trial);
    EXPECT_FALSE(relayed(17)) << "not there yet";
    arrive_at(proxy);
    EXPECT_TRUE(words<Outcome>().at(0).resumed);
    EXPECT_TRUE(relayed(17));
    EXPECT_TRUE(relayed(18));
    EXPECT_FALSE(relayed(99));
}

TEST_F(ResumerRelayTest, WhosePathWorksTriesIt) {
    resumer->on_message(from(kHome), a_relay(proxy));
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_TRUE(migrated[0].trial);
}

TEST_F(ResumerRelayTest, AMoveOfRelayedOnesIsReportedFromTheProxy) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    arrive_at(proxy);
    said.clear();
    for (const std::uint64_t cookie : {17, 18}) {
        auto& one = change(cookie);
        one = *table->find(cookie);
        one.state = ConnectionState::MigSent;
        one.new_local.address = to_kernel(kHome);
    }
    happens();
    const auto report = words<Report>().at(0);
    EXPECT_EQ(report.before, kAway);
    EXPECT_EQ(report.after, kHome);
    EXPECT_EQ(report.peer_before, proxy);
    EXPECT_THAT(report.connections, ElementsAre(Ports{5000, 80, 5000}, Ports{5001, 80, 5001}))
        << "the peer's own port";
}

TEST_F(ResumerRelayTest, WhoMovesByTheRelayAloneStaysReportedForAWhile) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    arrive_at(proxy);
    joined = false;  // from the new place
    leave_home();
    said.clear();
    arrive_at(proxy);
    EXPECT_THAT(words<Forget>(), IsEmpty());
    joined = true;
    said.clear();
    resumer->on_joined(from(kAway));
    EXPECT_THAT(words<Report>(), SizeIs(1));
    now += seconds(6);
    resumer->expire();
    EXPECT_THAT(words<Report>(), SizeIs(1));
    EXPECT_THAT(words<Forget>(), SizeIs(2)) << "nobody knew anything better";
    EXPECT_EQ(resumer->seen(kPeer).state, "settled");
}

TEST_F(ResumerRelayTest, WhoHearsOfAGlobalPeerLeavesTheRelayInATrial) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    arrive_at(proxy);
    migrated.clear();
    resumer->on_message(from(kAway), an_ask());
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_TRUE(migrated[0].trial);
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerAway));
    EXPECT_EQ(migrated[0].new_remote.port, 80) << "its own port";
    resumer->on_message(from(kAway), a_notice(2));
    for (const std::uint64_t cookie : {17, 18}) {
        auto& one = change(cookie);
        one.local.address = to_kernel(kAway);
        one.remote.address = to_kernel(kPeerAway);
        one.reason = Reason::Committed;
    }
    happens();
    EXPECT_EQ(words<Outcome>().back().judgement, 2);
    EXPECT_TRUE(words<Outcome>().back().resumed);
    EXPECT_FALSE(relayed(17));
}

TEST_F(ResumerRelayTest, WhereTheRelayHasBeenForLongIsTriedAgain) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    arrive_at(proxy);
    migrated.clear();
    resumer->on_message(from(kAway), a_relay(proxy, 10'000, 2));
    EXPECT_THAT(migrated, IsEmpty()) << "it has just come there";
    now += seconds(30);
    resumer->on_message(from(kAway), a_relay(proxy, 10'000, 3));
    ASSERT_THAT(migrated, SizeIs(2)) << "the proxy may have lost it";
    EXPECT_TRUE(migrated[0].trial);
}

TEST_F(ResumerRelayTest, AnotherPortOfTheSameProxyIsAnotherPlace) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    arrive_at(proxy);
    said.clear();
    resumer->on_message(from(kAway), a_relay(proxy, 20'000, 2));
    migrated.clear();
    arrive_at(proxy);
    EXPECT_THAT(words<Outcome>(), IsEmpty()) << "still at the old one";
    EXPECT_THAT(migrated, SizeIs(2)) << "the peer's own request was faster: once more";
    arrive_at(proxy, 20'000);
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_TRUE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerRelayTest, APeerThatHasComeByItselfNeedsNoRelay) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    migrated.clear();
    arrive(kPeerAway);
    EXPECT_THAT(migrated, IsEmpty());
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_FALSE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerRelayTest, WhatThePeerHasCrossedTwiceIsOver) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    arrive_at(proxy);
    said.clear();
    resumer->on_message(from(kAway), a_notice(2));
    arrive_at(proxy);
    EXPECT_THAT(words<Outcome>(), IsEmpty());
    migrated.clear();
    arrive_at(proxy);
    EXPECT_THAT(migrated, IsEmpty());
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_FALSE(words<Outcome>()[0].resumed);
}

TEST_F(ResumerRelayTest, TheFirstServersProxyIsTriedFirst) {
    leave_home();
    resumer->on_message(from(kAway, kOther), a_relay(other_proxy));
    resumer->on_message(from(kAway), a_relay(proxy));
    ASSERT_THAT(migrated, SizeIs(4));
    EXPECT_EQ(migrated[2].new_remote.address, to_kernel(proxy)) << "the peer goes there as well";
    EXPECT_THAT(words<Outcome>(), IsEmpty());
    migrated.clear();
    now += milliseconds(400);
    resumer->expire();
    ASSERT_THAT(migrated, SizeIs(2)) << "nobody came";
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(other_proxy));
}

TEST_F(ResumerRelayTest, TheSecondServersProxyWaits) {
    leave_home();
    resumer->on_message(from(kAway), a_relay(proxy));
    resumer->on_message(from(kAway, kOther), a_relay(other_proxy));
    EXPECT_THAT(migrated, SizeIs(2));
    arrive_at(proxy);
    ASSERT_THAT(words<Outcome>(), SizeIs(1));
    EXPECT_TRUE(words<Outcome>()[0].resumed);
    now += milliseconds(400);
    resumer->expire();
    EXPECT_THAT(migrated, SizeIs(2));
}

TEST_F(ResumerRelayTest, TheSameProxyOfTwoServersIsOnePlace) {
    leave_home();
    resumer->on_message(from(kAway, kOther), a_relay(proxy));
    resumer->on_message(from(kAway), a_relay(proxy));
    EXPECT_THAT(migrated, SizeIs(2));
}

TEST_F(ResumerRelayTest, OnlyRelaysHaveAnOrder) {
    leave_home();
    resumer->on_message(from(kAway, kOther), a_notice());
    resumer->on_message(from(kAway), a_relay(proxy));
    EXPECT_THAT(migrated, SizeIs(2));
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
    resumer->on_message(from(kAway), Verdict{id, 2, Verdict::What::NoProxy});
    EXPECT_EQ(resumer->seen(kPeer).verdict, "no-proxy");
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

// ---- Leaving a relay ----

class LeaverTest : public ResumerTest {
  protected:
    [[nodiscard]] Notice a_moment(milliseconds delay, std::uint32_t step = 1) const {
        auto notice = a_notice();
        notice.step = step;
        notice.trial = true;
        notice.connections[0].peer_after = 4001;
        notice.connections[1].peer_after = 4002;
        notice.delay = delay;
        return notice;
    }
    void told(milliseconds delay, std::uint32_t step = 1, const Name& server = kServer) {
        resumer->on_message(from(kHome, server), a_moment(delay, step));
    }
    void pass(milliseconds time) {
        now += time;
        resumer->expire();
    }
    /// The kernel has begun a trial, and what came of it.
    void tries(std::uint64_t cookie) {
        table->trials().insert(cookie);
        auto& one = change(cookie);
        one.state = ConnectionState::MigSent;
        one.reason = Reason::Command;
        one.new_local.address = to_kernel(kHome);
        happens();
    }
    void fails(std::uint64_t cookie) {
        change(cookie).reason = Reason::TrialFailed;
        happens();
    }
    void crosses(std::uint64_t cookie) {
        auto& one = change(cookie);
        one.reason = Reason::Committed;
        one.remote.address = to_kernel(kPeerAway);
        one.migrations = 2;
        happens();
    }
    [[nodiscard]] std::vector<std::pair<std::uint32_t, bool>> outcomes() const {
        std::vector<std::pair<std::uint32_t, bool>> out;
        for (const auto& outcome : words<Outcome>()) {
            out.emplace_back(outcome.step, outcome.resumed);
        }
        return out;
    }
    using Step = std::pair<std::uint32_t, bool>;
};

TEST_F(LeaverTest, ItBeginsWhenTheServerHasSaid) {
    told(milliseconds(40));
    EXPECT_EQ(resumer->next(), now + milliseconds(40));
    pass(milliseconds(39));
    EXPECT_THAT(migrated, IsEmpty());
    pass(milliseconds(1));
    ASSERT_THAT(migrated, SizeIs(2));
    EXPECT_TRUE(migrated[0].trial && migrated[1].trial);
    EXPECT_FALSE(migrated[0].new_local.address);
    EXPECT_EQ(migrated[0].new_remote.address, to_kernel(kPeerAway));
    EXPECT_EQ(migrated[0].new_remote.port, 4001);
    EXPECT_EQ(migrated[1].new_remote.port, 4002);
    EXPECT_FALSE(resumer->next());
    EXPECT_EQ(resumer->seen(kPeer).state, "settled");
}

TEST_F(LeaverTest, WithoutADelayItBeginsAtOnce) {
    told(milliseconds(0));
    EXPECT_THAT(migrated, SizeIs(2));
}

TEST_F(LeaverTest, AllHaveToCross) {
    told(milliseconds(0));
    tries(17);
    tries(18);
    crosses(17);
    EXPECT_THAT(said, IsEmpty());
    crosses(18);
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, true)));
    EXPECT_EQ(resumer->leaver().counters().crossed, 1);
}

TEST_F(LeaverTest, AFailureIsToldToTheServerAndNobodyElse) {
    told(milliseconds(0));
    tries(17);
    tries(18);
    crosses(17);
    auto& hint = change(18);
    hint.state = ConnectionState::MigSent;
    hint.reason = Reason::RstHint;  // a NAPT's
    happens();
    EXPECT_THAT(said, IsEmpty());
    fails(18);
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false)));
    EXPECT_THAT(said, SizeIs(1));
    EXPECT_EQ(resumer->seen(kPeer).verdict, "");
    // Once more: one is there already.
    told(milliseconds(0), 2);
    EXPECT_THAT(migrated, SizeIs(3));
    crosses(18);
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false), Step(2, true)));
}

TEST_F(LeaverTest, WhoeverThePeerWasFasterIsThere) {
    told(milliseconds(40));
    crosses(17);
    crosses(18);
    pass(milliseconds(40));
    EXPECT_THAT(migrated, IsEmpty());
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, true)));
}

TEST_F(LeaverTest, AMoveGoesBeforeIt) {
    told(milliseconds(40));
    leave_home();
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false)));
    EXPECT_THAT(words<Report>(), SizeIs(2));
    pass(milliseconds(40));
    EXPECT_THAT(migrated, IsEmpty());
    told(milliseconds(0), 2);  // the server does not know yet
    EXPECT_THAT(migrated, IsEmpty());
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false), Step(2, false)));
    resumer->on_message(from(kAway), a_notice());
    EXPECT_THAT(migrated, SizeIs(2));
}

TEST_F(LeaverTest, AMoveEndsIt) {
    told(milliseconds(0));
    tries(17);
    tries(18);
    table->trials().clear();
    leave_home();
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false)));
    EXPECT_THAT(words<Report>(), SizeIs(2));
    EXPECT_EQ(resumer->seen(kPeer).unsettled, 2);
}

TEST_F(LeaverTest, SoDoWhatServersSay) {
    told(milliseconds(40));
    resumer->on_message(from(kHome), Ask{id, {}});
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false)));
    told(milliseconds(40), 2);
    auto notice = a_notice(2);
    notice.peer = kPeerHome;
    notice.connections = {{5000, 5000, 80, 81}};
    resumer->on_message(from(kHome), notice);
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false), Step(2, false)));
    pass(milliseconds(40));
    EXPECT_THAT(migrated, SizeIs(1));
    told(milliseconds(0), 3);
    EXPECT_THAT(migrated, SizeIs(1)) << "something is being tried";
}

TEST_F(LeaverTest, OnlyOneServerAtATime) {
    told(milliseconds(40));
    told(milliseconds(0), 7, kOther);
    EXPECT_THAT(migrated, IsEmpty());
    EXPECT_THAT(outcomes(), ElementsAre(Step(7, false)));
    EXPECT_EQ(said[0].to, from(kHome, kOther));
    told(milliseconds(10), 2);  // knows better now
    pass(milliseconds(10));
    EXPECT_THAT(migrated, SizeIs(2));
}

TEST_F(LeaverTest, ItIsTriedOnlySoOftenAndTakesNoTurnOfOthers) {
    for (std::uint32_t i = 0; i < 20; i++) {
        told(milliseconds(0), i);
        fails(17);
        fails(18);
    }
    EXPECT_THAT(migrated, SizeIs(2 * Leaver::kMost));
    EXPECT_EQ(resumer->leaver().counters().held_back, 20 - Leaver::kMost);
    resumer->on_message(from(kHome), a_notice(2));
    EXPECT_THAT(migrated, SizeIs(2 * Leaver::kMost + 2));
    pass(std::chrono::minutes(2));
    fails(17);
    fails(18);
    told(milliseconds(0));
    EXPECT_THAT(migrated, SizeIs(2 * Leaver::kMost + 4));
}

TEST_F(LeaverTest, OfNoUseWhereNothingCanBeTried) {
    auto other = a_moment(milliseconds(0));
    other.connections = {{1, 1, 2, 2}};
    resumer->on_message(from(kHome), other);
    auto v6 = a_moment(milliseconds(0), 2);
    v6.peer = make_address("2001:db8::1");
    resumer->on_message(from(kHome), v6);
    refused = true;
    told(milliseconds(0), 3);
    EXPECT_THAT(migrated, IsEmpty());
    EXPECT_THAT(outcomes(), ElementsAre(Step(1, false), Step(2, false), Step(3, false)));
    resumer->on_message(from(kHome, Name({9})), a_moment(milliseconds(0)));
    EXPECT_THAT(said, SizeIs(3)) << "not a server of this pair";
}

}  // namespace
}  // namespace mobility::client
