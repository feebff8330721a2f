// SPDX-License-Identifier: GPL-2.0-or-later
// The exchange before a move: two sessions talk to each other; each message, each state, and
// those who should not get anything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <set>

#include "pairing/session.hpp"

namespace mobility::client {
namespace {

using boost::asio::ip::make_address;
using tcpmigrate::KeyOp;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr std::array<std::uint8_t, 32> kChannel{1};
constexpr std::array<std::uint8_t, 32> kSecret{2};
const Name kOpener({0xa});
const Name kAccepter({0xb});
const Name kStranger({0xc});

/// Connections and their keys, as a kernel has them.
class FakeKernel final : public Kernel {
  public:
    std::vector<Provable> connections(const boost::asio::ip::address& peer) override {
        return peer == peer_address ? list : std::vector<Provable>();
    }
    Result<Exporter> exporter(std::uint64_t cookie) override {
        if (dead.contains(cookie)) {
            return tcpmigrate::make_error(ENOENT, "no such connection");
        }
        exported++;
        // The same at both ends.
        const auto number = cookie % 1000;
        return Exporter{static_cast<std::uint8_t>(number), static_cast<std::uint8_t>(number >> 8)};
    }
    Result<void> key(std::uint64_t cookie, KeyOp op,
                     std::span<const std::uint8_t, 32> secret) override {
        EXPECT_TRUE(std::ranges::equal(secret, kSecret));
        if (refused == op) {
            return tcpmigrate::make_error(EBUSY, "no");
        }
        log->emplace_back(who + std::to_string(cookie % 1000) + "+!="[static_cast<int>(op)]);
        for (auto& connection : list) {
            if (connection.cookie == cookie && op != KeyOp::Add) {
                connection.held = op == KeyOp::Promote ? Guard::Promoted : Guard::Exclusive;
            } else if (connection.cookie == cookie && connection.held == Guard::Proved) {
                connection.held = Guard::Added;
            }
        }
        return {};
    }

    boost::asio::ip::address peer_address;
    std::vector<Provable> list;
    std::set<std::uint64_t> dead;
    std::optional<KeyOp> refused;
    std::size_t exported = 0;  ///< how often it was asked for
    std::string who;
    std::vector<std::string>* log = nullptr;
};

ServerPlace server(std::uint8_t number) {
    return {Name({number}), boost::asio::ip::address_v4({203, 0, 113, number}), {}, 7790};
}

/// A host with what it has agreed on, and its session.
struct End {
    End(const Name& name, const char* address, std::vector<std::string>& log)
        : self(name), here(make_address(address)) {
        kernel.who = name == kOpener ? "a" : "b";
        kernel.log = &log;
    }
    void meet(const End& other, const boost::asio::ip::address& seen) {
        kernel.peer_address = seen;
        session = std::make_unique<Session>(
            ChannelView{self, other.self, here, seen, kChannel, kSecret}, settings, kernel, book);
    }
    [[nodiscard]] const Pair& pair(const Name& peer) const { return *book.find(peer); }

    Name self;
    boost::asio::ip::address here;
    Settings settings;
    FakeKernel kernel;
    Book book;
    std::unique_ptr<Session> session;
};

class Pairing : public testing::Test {
  protected:
    Pairing() {
        connect(1);
        meet();
    }
    void meet() {
        a.meet(b, b.here);
        b.meet(a, outside);
    }
    /// A connection that A has opened; B sees it come from its NAPT.
    void connect(std::uint64_t number) {
        const auto port = static_cast<std::uint16_t>(4000 + number);
        a.kernel.list.push_back({1000 + number, port, 22, 22, true});
        b.kernel.list.push_back(
            {2000 + number, 22, static_cast<std::uint16_t>(port + 1000), port, false});
    }
    /// Delivers messages until nobody has anything to say.
    void talk(Session::Messages from_a, Session::Messages from_b = {}) {
        std::deque<std::pair<bool, ToPeer>> wire;
        const auto send = [&](bool by_a, Session::Messages& messages) {
            for (auto& message : messages) {
                // As it would come over the wire.
                wire.emplace_back(by_a, *decode_to_peer(encode(message)));
                said.push_back(message.index());
            }
        };
        send(true, from_a);
        send(false, from_b);
        while (!wire.empty()) {
            const auto [by_a, message] = wire.front();
            wire.pop_front();
            auto reply = (by_a ? b : a).session->take(message);
            send(!by_a, reply);
        }
    }
    Offer offer() { return std::get<Offer>(a.session->start().at(0)); }
    /// What B says to an Offer that was changed on the way, which ends it.
    PeerRefused::Why refusal(const Offer& changed) {
        const auto reply = b.session->take(changed);
        EXPECT_TRUE(b.session->ended());
        EXPECT_EQ(b.book.owner(2001), std::nullopt);
        return std::get<PeerRefused>(reply.at(0)).why;
    }

    std::vector<std::string> keys;
    std::vector<std::size_t> said;
    boost::asio::ip::address outside = make_address("192.0.2.1");
    End a{kOpener, "192.168.1.11", keys};
    End b{kAccepter, "198.51.100.11", keys};
};

TEST_F(Pairing, BothAgreeAndGuardTheConnection) {
    talk(a.session->start());
    EXPECT_EQ(a.session->state(), Session::State::Open);
    EXPECT_EQ(b.session->state(), Session::State::Open);
    EXPECT_EQ(a.pair(kAccepter).id(), b.pair(kOpener).id());
    EXPECT_TRUE(a.pair(kAccepter).inside());
    EXPECT_FALSE(b.pair(kOpener).inside());
    EXPECT_EQ(a.book.owner(1001), kAccepter);
    EXPECT_EQ(b.book.owner(2001), kOpener);
    // Added at both ends before either promotes, promoted at both before either excludes.
    EXPECT_THAT(keys, ElementsAre("b1+", "a1+", "a1!", "b1!", "b1=", "a1="));
}

TEST_F(Pairing, FurtherConnectionsOfEitherEnd) {
    talk(a.session->start());
    keys.clear();
    EXPECT_THAT(a.session->refresh(), IsEmpty());
    connect(2);
    talk(a.session->refresh());
    EXPECT_THAT(b.session->refresh(), IsEmpty()) << "they are proved already";
    connect(3);
    talk({}, b.session->refresh());
    EXPECT_THAT(keys, ElementsAre("b2+", "a2+", "a2!", "b2!", "b2=", "a2=",  //
                                  "a3+", "b3+", "b3!", "a3!", "a3=", "b3="));
    EXPECT_EQ(a.pair(kAccepter).connections.at(1003), Guard::Exclusive);
}

TEST_F(Pairing, ManyConnectionsCostEachOnce) {
    // All to one port: that does not tell which of A's a proof of B is about.
    constexpr std::uint64_t kMany = 500;
    for (std::uint64_t number = 2; number <= kMany; number++) {
        connect(number);
    }
    talk(a.session->start());
    EXPECT_EQ(a.pair(kAccepter).connections.size(), kMany);
    EXPECT_EQ(b.pair(kOpener).connections.size(), kMany);
    EXPECT_EQ(a.kernel.exported, kMany);
    EXPECT_EQ(b.kernel.exported, kMany);
    a.kernel.list.pop_back();
    b.kernel.list.pop_back();
    connect(kMany + 1);
    talk(a.session->refresh());
    EXPECT_EQ(a.kernel.exported, kMany + 1) << "and once for all messages";
}

TEST_F(Pairing, BothProveTheSameAtOnce) {
    talk(a.session->start());
    connect(2);
    auto mine = a.session->refresh();
    auto theirs = b.session->refresh();
    talk(std::move(mine), std::move(theirs));
    EXPECT_EQ(a.session->state(), Session::State::Open) << a.session->reason();
    EXPECT_EQ(a.pair(kAccepter).connections.at(1002), Guard::Exclusive);
    EXPECT_EQ(b.pair(kOpener).connections.at(2002), Guard::Exclusive);
}

TEST_F(Pairing, ServersThatBothCanUse) {
    a.settings.servers = {server(1), server(2)};
    a.settings.usable = [](const auto& one) { return one == server(4); };
    b.settings.servers = {server(3), server(4)};
    b.settings.usable = [](const auto& one) { return one == server(2); };
    talk(a.session->start());
    EXPECT_THAT(a.pair(kAccepter).servers, ElementsAre(server(2), server(4)));
    EXPECT_THAT(b.pair(kOpener).servers, ElementsAre(server(2), server(4)));
}

TEST_F(Pairing, AServerOfBothIsOne) {
    a.settings.servers = b.settings.servers = {server(1)};
    a.settings.usable = b.settings.usable = [](const auto&) { return true; };
    talk(a.session->start());
    EXPECT_THAT(a.pair(kAccepter).servers, ElementsAre(server(1)));
    EXPECT_THAT(b.pair(kOpener).servers, ElementsAre(server(1)));
}

TEST_F(Pairing, TicketsGoToTheOtherEnd) {
    const auto by = [](std::uint8_t issuer) {
        return [issuer](const Name& guest, const PairId& pair) {
            return std::vector{Ticket{{issuer}, guest, pair, {}, {}}};
        };
    };
    a.settings.tickets = by(1);
    b.settings.tickets = by(2);
    talk(a.session->start());
    const auto& at_a = a.pair(kAccepter);
    EXPECT_THAT(at_a.tickets, ElementsAre(Ticket{{2}, kOpener, at_a.id(), {}, {}}));
    EXPECT_THAT(b.pair(kOpener).tickets, ElementsAre(Ticket{{1}, kAccepter, at_a.id(), {}, {}}));
}

/// A voucher, by which a peer is told from others here.
Voucher voucher(std::uint8_t server) {
    return {{server}, {}, {}, {}};
}

/// Takes those that show this one.
auto who_shows(const Voucher& wanted) {
    return [wanted](const ChannelView&, const std::vector<Voucher>& shown) {
        return std::ranges::find(shown, wanted) != shown.end()
                   ? Result<std::optional<Vouched>>(Vouched{Name({9}), {}})
                   : tcpmigrate::make_error(EACCES, "nobody vouches for it");
    };
}

TEST_F(Pairing, EachIsShownTheOthersVouchers) {
    a.settings.vouchers = [] { return std::vector{voucher(1)}; };
    b.settings.vouchers = [] { return std::vector{voucher(2), voucher(3)}; };
    a.settings.believed = who_shows(voucher(3));
    b.settings.believed = who_shows(voucher(1));
    talk(a.session->start());
    EXPECT_EQ(b.session->state(), Session::State::Open) << b.session->reason();
    for (const auto& [session, pair] : {std::pair(a.session.get(), &a.pair(kAccepter)),
                                        std::pair(b.session.get(), &b.pair(kOpener))}) {
        EXPECT_EQ(session->vouched(), (Vouched{Name({9}), {}}));
        EXPECT_EQ(pair->vouched, session->vouched());
    }
}

TEST_F(Pairing, AnOpenerThatIsNotBelievedGetsNothing) {
    a.settings.vouchers = [] { return std::vector{voucher(1)}; };
    b.settings.believed = who_shows(voucher(2));
    talk(a.session->start());
    EXPECT_TRUE(b.session->ended());
    EXPECT_EQ(b.session->reason(), "nobody vouches for it");
    EXPECT_THAT(a.session->reason(), StartsWith("no server that is trusted there vouches"));
    EXPECT_EQ(b.kernel.exported, 0) << "its proofs are not even looked at";
    EXPECT_EQ(b.book.find(kOpener), nullptr);
    EXPECT_THAT(keys, IsEmpty());
}

TEST_F(Pairing, AnAccepterThatIsNotBelievedGetsNothing) {
    a.settings.believed = who_shows(voucher(2));
    talk(a.session->start());
    EXPECT_TRUE(a.session->ended());
    EXPECT_TRUE(b.session->ended());
    EXPECT_EQ(a.book.owner(1001), std::nullopt);
    EXPECT_FALSE(a.pair(kAccepter).agreed());
    EXPECT_THAT(keys, ElementsAre("b1+")) << "which nobody uses";
}

TEST_F(Pairing, WhoIsVouchedForNoMoreIsSoInThePairAsWell) {
    b.settings.vouchers = [] { return std::vector{voucher(2)}; };
    a.settings.believed = who_shows(voucher(2));
    talk(a.session->start());
    EXPECT_TRUE(a.pair(kAccepter).vouched);
    a.settings.believed = Settings().believed;
    meet();
    connect(2);
    talk(a.session->start());
    EXPECT_FALSE(a.pair(kAccepter).vouched);
}

TEST_F(Pairing, AnotherChannelKeepsThePair) {
    talk(a.session->start());
    const auto id = a.pair(kAccepter).id();
    meet();
    connect(2);
    keys.clear();
    talk(a.session->start());
    EXPECT_EQ(a.pair(kAccepter).id(), id);
    EXPECT_EQ(a.pair(kAccepter).connections.at(1002), Guard::Exclusive);
    EXPECT_THAT(keys, ElementsAre("b2+", "a2+", "a2!", "b2!", "b2=", "a2=")) << "each once";
}

TEST_F(Pairing, AClientThatWasStartedAnewKeepsTheKeys) {
    talk(a.session->start());
    const auto id = a.pair(kAccepter).id();
    b.book = Book();
    meet();
    keys.clear();
    talk(a.session->start());
    EXPECT_NE(a.pair(kAccepter).id(), id) << "its part is another one";
    EXPECT_EQ(a.pair(kAccepter).id(), b.pair(kOpener).id());
    EXPECT_EQ(b.pair(kOpener).connections.at(2001), Guard::Exclusive);
    EXPECT_THAT(keys, IsEmpty());
}

TEST_F(Pairing, WhoHasReadTheHandshakeReplacesNoKeyAfterARestart) {
    talk(a.session->start());
    b.book = Book();
    a.book = Book();
    a.kernel.list.at(0).held = Guard::Proved;  // somebody at A's address who knows no key
    meet();
    keys.clear();
    talk(a.session->start());
    EXPECT_THAT(keys, Not(Contains(StartsWith("b"))));
    EXPECT_EQ(b.session->counters().other_identity, 1U);
}

TEST_F(Pairing, AChannelThatBrokeOffBeforeBothHadTheKey) {
    b.session->take(a.session->start().at(0));  // and the Answer is lost
    EXPECT_THAT(keys, ElementsAre("b1+"));
    meet();
    keys.clear();
    talk(a.session->start());
    EXPECT_THAT(keys, ElementsAre("b1+", "a1+", "a1!", "b1!", "b1=", "a1="))
        << "the new channel's key, at both";
}

TEST_F(Pairing, AChannelThatBrokeOffAfterBothHadTheKey) {
    const auto answer = b.session->take(a.session->start().at(0));
    a.session->take(answer.at(0));  // and the Stage is lost
    meet();
    keys.clear();
    talk(a.session->start());
    EXPECT_THAT(keys, ElementsAre("b1!", "b1=", "a1=")) << "that of the first channel";
    EXPECT_EQ(a.pair(kAccepter).connections.at(1001), Guard::Exclusive);
}

TEST_F(Pairing, WithoutAPairKey) {
    a.settings.pair_key = b.settings.pair_key = false;
    talk(a.session->start());
    EXPECT_EQ(a.pair(kAccepter).connections.at(1001), Guard::Proved);
    EXPECT_THAT(keys, IsEmpty());
}

TEST_F(Pairing, AKeyThatTheKernelRefusesIsCounted) {
    b.kernel.refused = KeyOp::Promote;
    b.settings.exclusive = a.settings.exclusive = false;
    talk(a.session->start());
    EXPECT_EQ(b.session->counters().key_errors, 1U);
    EXPECT_EQ(b.pair(kOpener).connections.at(2001), Guard::Added);
}

TEST_F(Pairing, NobodyToTalkTo) {
    a.kernel.list.clear();
    EXPECT_THAT(a.session->start(), IsEmpty());
    EXPECT_TRUE(a.session->ended());
    EXPECT_EQ(a.session->reason(), "no migratable connection to 198.51.100.11");
}

TEST_F(Pairing, WhoDoesNotKnowTheKeyProvesNothing) {
    auto forged = offer();
    forged.connections[0].proof[0] ^= 1;
    EXPECT_EQ(refusal(forged), PeerRefused::Why::NotProved);
    EXPECT_EQ(b.session->counters().not_proved, 1U);
}

TEST_F(Pairing, AProofOfAnotherPortIsNone) {
    auto forged = offer();
    forged.connections[0].own++;
    EXPECT_EQ(refusal(forged), PeerRefused::Why::NotProved);
}

TEST_F(Pairing, AProofFromElsewhereIsNone) {
    b.kernel.peer_address = make_address("192.0.2.99");
    EXPECT_EQ(refusal(offer()), PeerRefused::Why::NotProved);
}

TEST_F(Pairing, AProofOfAnotherChannelIsNone) {
    const auto replayed = offer();
    b.session =
        std::make_unique<Session>(ChannelView{kAccepter, kOpener, b.here, outside, {9}, kSecret},
                                  b.settings, b.kernel, b.book);
    EXPECT_EQ(refusal(replayed), PeerRefused::Why::NotProved);
}

TEST_F(Pairing, AProofInAnothersNameIsNone) {
    const auto relayed = offer();
    b.session = std::make_unique<Session>(
        ChannelView{kAccepter, kStranger, b.here, outside, kChannel, kSecret}, b.settings, b.kernel,
        b.book);
    EXPECT_EQ(refusal(relayed), PeerRefused::Why::OtherIdentity);
    auto renamed = relayed;
    renamed.own.host = kStranger;
    b.session = std::make_unique<Session>(
        ChannelView{kAccepter, kStranger, b.here, outside, kChannel, kSecret}, b.settings, b.kernel,
        b.book);
    EXPECT_EQ(refusal(renamed), PeerRefused::Why::NotProved);
}

TEST_F(Pairing, OurOwnProofSentBackIsNone) {
    auto mirrored = offer();
    const auto exporter = *b.kernel.exporter(2001);
    mirrored.connections[0].proof = prove(exporter, Role::Accepter, kChannel, kAccepter, kOpener);
    EXPECT_EQ(refusal(mirrored), PeerRefused::Why::NotProved);
}

TEST_F(Pairing, TheSecondIdentityOfAConnectionIsRefused) {
    talk(a.session->start());
    End thief{kStranger, "192.168.1.11", keys};
    thief.kernel.list = a.kernel.list;  // it has read the key in the handshake
    thief.meet(b, b.here);
    b.meet(thief, outside);
    const auto first = thief.session->start();
    const auto reply = b.session->take(first.at(0));
    EXPECT_EQ(std::get<PeerRefused>(reply.at(0)).why, PeerRefused::Why::OtherIdentity);
    EXPECT_EQ(b.session->counters().other_identity, 1U);
    EXPECT_EQ(b.book.owner(2001), kOpener);
}

TEST_F(Pairing, AVersionThatIsNotOurs) {
    auto later = offer();
    later.version = 2;
    EXPECT_EQ(refusal(later), PeerRefused::Why::Version);
}

TEST_F(Pairing, AnAnswerThatProvesNothingEndsIt) {
    const auto answer = std::get<Answer>(b.session->take(offer()).at(0));
    auto forged = answer;
    forged.connections[0].proof[0] ^= 1;
    const auto reply = a.session->take(forged);
    EXPECT_EQ(std::get<PeerRefused>(reply.at(0)).why, PeerRefused::Why::NotProved);
    EXPECT_EQ(a.book.owner(1001), std::nullopt);
    EXPECT_FALSE(a.pair(kAccepter).agreed());
}

TEST_F(Pairing, AServerThatWasNotOfferedEndsIt) {
    auto answer = std::get<Answer>(b.session->take(offer()).at(0));
    answer.usable = {0};
    const auto reply = a.session->take(answer);
    EXPECT_EQ(std::get<PeerRefused>(reply.at(0)).why, PeerRefused::Why::Malformed);
}

TEST_F(Pairing, AConnectionThatEndsMeanwhileIsLeftOut) {
    connect(2);
    const auto first = a.session->start();
    b.kernel.dead = {2002};
    talk(first);
    EXPECT_EQ(a.session->state(), Session::State::Open);
    EXPECT_EQ(a.book.owner(1002), std::nullopt);
    EXPECT_EQ(a.book.owner(1001), kAccepter);
}

TEST_F(Pairing, OutOfTurn) {
    const std::vector<ToPeer> early{Answer{},      Confirm{},      Prove{2, {{1, 2, {}}}},
                                    Proved{1, {}}, Stage{1, true}, Stage{1, false}};
    for (const auto& message : early) {
        meet();
        const auto reply = b.session->take(message);
        EXPECT_EQ(std::get<PeerRefused>(reply.at(0)).why, PeerRefused::Why::Malformed);
        EXPECT_THAT(b.session->take(offer()), IsEmpty()) << "it has ended";
        EXPECT_EQ(b.book.find(kOpener), nullptr) << "who has proved nothing is not in the book";
    }
    meet();
    talk(a.session->start());
    for (const auto& message :
         std::vector<ToPeer>{Offer{}, Prove{1, {{1, 2, {}}}}, Stage{9, true}}) {
        auto copy = *b.session;
        EXPECT_EQ(std::get<PeerRefused>(copy.take(message).at(0)).why, PeerRefused::Why::Malformed);
    }
}

TEST_F(Pairing, ARefusalEndsIt) {
    EXPECT_THAT(a.session->take(PeerRefused{PeerRefused::Why::Policy, "not you"}), IsEmpty());
    EXPECT_TRUE(a.session->ended());
    EXPECT_EQ(a.session->reason(), "not you");
}

TEST(Book, PairsWithoutConnectionsAreForgottenInTime) {
    std::chrono::steady_clock::time_point now{};
    Book book([&now] { return now; });
    const auto here = make_address("192.0.2.1");
    ASSERT_NE(book.open(kOpener, kAccepter, here), nullptr);
    ASSERT_NE(book.open(kOpener, kStranger, here), nullptr);
    book.put(kAccepter, 17, Guard::Proved);
    now += std::chrono::hours(1);
    EXPECT_EQ(book.forget_unused(std::chrono::minutes(59)), 1U);
    EXPECT_NE(book.find(kAccepter), nullptr) << "it has a connection";
    book.drop(17);
    now += std::chrono::minutes(59);
    EXPECT_EQ(book.forget_unused(std::chrono::minutes(59)), 0U) << "since it has ended";
    now += std::chrono::seconds(1);
    EXPECT_EQ(book.forget_unused(std::chrono::minutes(59)), 1U);
}

TEST(Book, WhenItIsFullTheLeastUsedPairGoes) {
    std::chrono::steady_clock::time_point now{};
    Book book([&now] { return now; });
    const auto here = make_address("192.0.2.1");
    const auto name = [](std::size_t number) {
        return Name({1, static_cast<std::uint8_t>(number), static_cast<std::uint8_t>(number >> 8)});
    };
    for (std::size_t i = 0; i < Book::kMaxPairs; i++) {
        now += std::chrono::seconds(1);
        ASSERT_NE(book.open(kOpener, name(i), here), nullptr);
    }
    book.put(name(0), 17, Guard::Proved);
    ASSERT_NE(book.open(kOpener, kStranger, here), nullptr);
    EXPECT_EQ(book.pairs().size(), Book::kMaxPairs);
    EXPECT_NE(book.find(name(0)), nullptr) << "it has a connection";
    EXPECT_EQ(book.find(name(1)), nullptr);
    for (std::size_t i = 2; i < Book::kMaxPairs; i++) {
        book.put(name(i), 100 + i, Guard::Proved);
    }
    book.put(kStranger, 18, Guard::Proved);
    EXPECT_EQ(book.open(kOpener, kAccepter, here), nullptr) << "all have connections";
}

TEST_F(Pairing, WhatTheBookHasForgottenEndsTheChannel) {
    talk(a.session->start());
    a.book.forget(kAccepter);
    connect(2);
    talk({}, b.session->refresh());
    EXPECT_TRUE(a.session->ended());
    EXPECT_FALSE(a.pair(kAccepter).agreed());
    meet();
    talk(a.session->start());
    EXPECT_EQ(a.pair(kAccepter).id(), b.pair(kOpener).id());
}

TEST_F(Pairing, TheBookForgetsWhatIsNoMore) {
    connect(2);
    talk(a.session->start());
    a.book.keep({1002});
    EXPECT_EQ(a.book.owner(1001), std::nullopt);
    EXPECT_EQ(a.book.owner(1002), kAccepter);
    a.book.keep({});
    EXPECT_TRUE(a.pair(kAccepter).agreed()) << "the pair stays for the next connection";
    a.book.forget(kAccepter);
    EXPECT_EQ(a.book.find(kAccepter), nullptr);
}

}  // namespace
}  // namespace mobility::client
