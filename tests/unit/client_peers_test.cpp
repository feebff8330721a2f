// SPDX-License-Identifier: GPL-2.0-or-later
// Whom a client trusts, and the exchange before a move over loopback: two clients, each with
// a kernel of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fstream>

#include "daemon/address.hpp"
#include "daemon/peers.hpp"
#include "daemon/trust.hpp"
#include "fake_kernel.hpp"
#include "libmobility/within.hpp"
#include "loopback.hpp"
#include "quiet.hpp"
#include "temporary.hpp"

namespace mobility::client {
namespace {

namespace asio = boost::asio;
using asio::ip::make_address;
using asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// ---- Trust ----

class TrustTest : public testing::Test {
  protected:
    TrustTest() {
        config.listed = dir.at("hosts");
        config.pins = dir.at("pins");
    }
    Trust load() {
        return std::move(*Trust::load(config, [this] { return now; }));
    }
    [[nodiscard]] std::string why_not(const Name& name, const char* there) {
        const auto checked = load().check(name, make_address(there));
        return checked ? "" : checked.error().message;
    }

    Temporary dir;
    TrustConfig config;
    const Name one{{1}};
    const Name two{{2}};
    std::chrono::sys_seconds now{std::chrono::hours(500'000)};
    const boost::asio::ip::address somewhere = make_address("198.51.100.1");
};

TEST_F(TrustTest, PinsAreKept) {
    auto trust = load();
    EXPECT_EQ(trust.of(one), Trusted::FirstUse);
    ASSERT_TRUE(trust.pin(one, somewhere, false));
    EXPECT_EQ(trust.of(one), Trusted::Pinned);
    EXPECT_EQ(load().of(one), Trusted::Pinned);
    EXPECT_EQ(why_not(one, "198.51.100.1"), "");
    EXPECT_EQ(why_not(one, "198.51.100.2"), "") << "it may move";
}

TEST_F(TrustTest, AnotherHostAtAPinnedPlaceIsRefused) {
    ASSERT_TRUE(load().pin(one, somewhere, false));
    EXPECT_THAT(why_not(two, "198.51.100.1"), HasSubstr("was " + one.to_string()));
    EXPECT_TRUE(load().check(two, std::nullopt)) << "not reached there by this host";
    dir.write("hosts", two.to_string() + "\n");
    EXPECT_EQ(why_not(two, "198.51.100.1"), "") << "it is known by other means";
}

TEST_F(TrustTest, APinGoesAlongWithItsHost) {
    auto trust = load();
    ASSERT_TRUE(trust.pin(one, somewhere, false));
    ASSERT_TRUE(trust.moved(one, make_address("198.51.100.9")));
    EXPECT_EQ(why_not(two, "198.51.100.1"), "");
    EXPECT_NE(why_not(two, "198.51.100.9"), "");
}

TEST_F(TrustTest, PrivatePlacesBelongToNobody) {
    for (const auto* there : {"192.168.1.1", "10.0.0.1", "172.16.0.1", "100.64.0.1", "fd00::1"}) {
        ASSERT_TRUE(load().pin(one, make_address(there), false));
        EXPECT_EQ(why_not(two, there), "") << there;
    }
}

/// Two servers, of which one is trusted to vouch for hosts.
class VouchedTest : public TrustTest {
  protected:
    VouchedTest() {
        config.vouching = {server.name()};
        config.require = TrustConfig::Require::Vouched;
    }
    [[nodiscard]] std::vector<Voucher> vouchers(const Name& name) const {
        return {*vouch(server, name, now, now + std::chrono::hours(1))};
    }
    /// Why it may not be spoken with; empty if it may.
    [[nodiscard]] std::string refusal(const Trust& trust, const Name& name,
                                      const std::vector<Voucher>& shown,
                                      const char* there = "198.51.100.1") const {
        const auto before = trust.check(name, make_address(there));
        const auto after = trust.admit(name, trust.vouched(name, shown));
        return !before ? before.error().message : !after ? after.error().message : "";
    }

    Identity server = std::move(*Identity::create());
};

TEST_F(VouchedTest, PolicyCanDemandAVoucher) {
    auto trust = load();
    EXPECT_EQ(refusal(trust, one, vouchers(one)), "");
    EXPECT_THAT(refusal(trust, one, {}), HasSubstr("(it has shown no voucher): have one do so"));
    EXPECT_THAT(refusal(trust, one, vouchers(two)), HasSubstr("not signed"));
    EXPECT_EQ(trust.of(one, true), Trusted::Vouched);
    config.vouching = {two};
    ASSERT_TRUE(trust.reload(config));
    EXPECT_THAT(refusal(trust, one, vouchers(one)), HasSubstr("servers not trusted here"));
    dir.write("hosts", one.to_string() + "\n");
    EXPECT_EQ(refusal(load(), one, {}), "") << "listed is more";
}

TEST_F(VouchedTest, AVoucherIsLessThanToHaveBeenMet) {
    config.require = TrustConfig::Require::Pinned;
    EXPECT_THAT(refusal(load(), one, vouchers(one)), HasSubstr("not known"));
    ASSERT_TRUE(load().pin(one, somewhere, false));
    EXPECT_EQ(load().of(one, true), Trusted::Pinned);
    config.require = TrustConfig::Require::Vouched;
    EXPECT_EQ(refusal(load(), one, {}), "");
}

TEST_F(VouchedTest, WhoWasTakenForAVoucherNeedsOneAgain) {
    ASSERT_TRUE(load().pin(one, somewhere, true));
    EXPECT_EQ(dir.read("pins").substr(dir.read("pins").find('\n') + 1),
              one.to_string() + " 198.51.100.1 vouched\n");
    EXPECT_EQ(load().of(one), Trusted::FirstUse);
    EXPECT_THAT(refusal(load(), one, {}), HasSubstr("no voucher"));
    EXPECT_EQ(refusal(load(), one, vouchers(one)), "");
    // Whoever takes it without one has met it.
    ASSERT_TRUE(load().pin(one, std::nullopt, false));
    EXPECT_EQ(load().of(one), Trusted::Pinned);
    ASSERT_TRUE(load().pin(one, std::nullopt, true));
    EXPECT_EQ(load().of(one), Trusted::Pinned) << "and does not forget it";
}

TEST_F(VouchedTest, NoVoucherHelpsAgainstAPin) {
    for (const bool by_voucher : {false, true}) {
        ASSERT_TRUE(load().pin(one, somewhere, by_voucher));
        EXPECT_THAT(refusal(load(), two, vouchers(two)), HasSubstr("was " + one.to_string()));
        std::filesystem::remove(dir.at("pins"));
    }
}

TEST_F(VouchedTest, ThoseThatWereVouchedForAreForgottenFirst) {
    auto file = one.to_string() + " -\n";
    for (std::size_t i = 1; i < Trust::kMaxPins; i++) {
        const Name name({7, static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(i >> 8)});
        file += name.to_string() + " - vouched\n";
    }
    dir.write("pins", file);
    auto trust = load();
    ASSERT_TRUE(trust.pin(two, somewhere, true));
    EXPECT_EQ(trust.pins(), Trust::kMaxPins);
    EXPECT_EQ(trust.of(one), Trusted::Pinned);
}

TEST_F(TrustTest, PolicyCanDemandMore) {
    ASSERT_TRUE(load().pin(one, somewhere, false));
    config.require = TrustConfig::Require::Pinned;
    EXPECT_EQ(why_not(one, "198.51.100.1"), "");
    EXPECT_THAT(why_not(two, "198.51.100.2"), HasSubstr("not known"));
    config.require = TrustConfig::Require::Listed;
    EXPECT_THAT(why_not(one, "198.51.100.1"), HasSubstr("not in"));
    dir.write("hosts", one.to_string() + " a friend\n");
    EXPECT_EQ(why_not(one, "198.51.100.1"), "");
}

TEST_F(TrustTest, MistakesAreNamedWithTheirLine) {
    dir.write("pins", "# fine\n" + one.to_string() + " nowhere\n");
    const auto trust = Trust::load(config);
    ASSERT_FALSE(trust);
    EXPECT_THAT(trust.error().message, HasSubstr("pins:2:"));
    dir.write("pins", "");
    dir.write("hosts", "me\n");
    EXPECT_FALSE(Trust::load(config));
}

TEST_F(TrustTest, PinsThatCannotBeWrittenAreKnownAllTheSame) {
    auto trust = load();
    std::filesystem::remove_all(dir.path());
    EXPECT_FALSE(trust.pin(one, somewhere, false));
    EXPECT_EQ(trust.of(one), Trusted::Pinned);
}

// ---- Two clients ----

/// A client, and the kernel below it.
struct End {
    End(asio::io_context& context, const char* where, bool opener, const char* other)
        : io(context), here(make_address(where)) {
        config.listen = {{here, 0}};
        // However slow the machine is: only tests of these times end by them.
        config.introduction = config.linger = std::chrono::hours(1);
        trusting.listed = dir.at("hosts");
        trusting.pins = dir.at("pins");
        auto connection = fake::sample(opener ? 17 : 27);
        connection.opener = opener;
        connection.local = {to_kernel(here), static_cast<std::uint16_t>(opener ? 5000 : 80)};
        connection.remote = {to_kernel(make_address(other)),
                             static_cast<std::uint16_t>(opener ? 80 : 5000)};
        kernel.connections = {connection};
    }
    /// With the port that both use.
    void start(std::uint16_t port) {
        config.port = port;
        config.listen[0].port(port);
        trust = std::make_unique<Trust>(std::move(*Trust::load(trusting, [this] { return now; })));
        table = std::move(
            *Table::over(io, quiet(), fake::make_transport(kernel), fake::make_events(kernel)));
        prover = std::make_unique<Prover>(*table);
        peers = std::make_unique<Peers>(io, host.tls, host.name(), *trust, settings, *table,
                                        *prover, book, config, quiet());
        table->start([this](const Connection& c) { peers->on_event(c); },
                     [this](bool reread) { peers->on_batch(reread); });
        const auto listening = peers->listen();
        ASSERT_TRUE(listening) << listening.error().message;
    }
    [[nodiscard]] std::vector<int> key_operations() const {
        std::vector<int> out;
        for (const auto& request : kernel.requests) {
            if (request.command == TCP_MIGRATE_CMD_KEY) {
                out.push_back(request.u8(TCP_MIGRATE_A_CONN_KEY_OP));
            }
        }
        return out;
    }
    /// That was added last.
    [[nodiscard]] tcpmigrate::Bytes secret() const {
        tcpmigrate::Bytes last;
        for (const auto& request : kernel.requests) {
            if (request.has(TCP_MIGRATE_A_CONN_KEY)) {
                last = request.attributes.at(TCP_MIGRATE_A_CONN_KEY);
            }
        }
        return last;
    }

    asio::io_context& io;
    boost::asio::ip::address here;
    Temporary dir;
    Host host;
    fake::Kernel kernel;
    TrustConfig trusting;
    std::chrono::sys_seconds now{std::chrono::hours(500'000)};
    PeerConfig config;
    Settings settings;
    Book book;
    std::unique_ptr<Trust> trust;
    std::unique_ptr<Table> table;
    std::unique_ptr<Prover> prover;
    std::unique_ptr<Peers> peers;
};

class PeersTest : public LoopbackTest {
  protected:
    using Task = std::function<asio::awaitable<void>()>;

    void run(const Task& task) {
        // A port that is free at both addresses.
        tcp::acceptor probe(io, tcp::endpoint(tcp::v4(), 0));
        const auto port = probe.local_endpoint().port();
        probe.close();
        a.start(port);
        b.start(port);
        run_dry(task(), [this] {
            a.peers->stop();
            b.peers->stop();
        });
    }
    /// If it never is, the run takes too long.
    asio::awaitable<void> until(const std::function<bool()>& so) {
        while (!so()) {
            asio::steady_timer timer(io, milliseconds(1));
            co_await timer.async_wait(asio::use_awaitable);
        }
    }
    /// Each end hears of another connection that A has opened.
    void connect_again() {
        auto mine = a.kernel.connections[0];
        auto theirs = b.kernel.connections[0];
        mine.cookie = 18;
        theirs.cookie = 28;
        mine.local.port = theirs.remote.port = 5001;
        a.kernel.connections.push_back(mine);
        b.kernel.connections.push_back(theirs);
        b.kernel.events.emplace_back(std::vector{theirs});
        b.table->take();
        a.kernel.events.emplace_back(std::vector{mine});
        a.table->take();
    }
    [[nodiscard]] bool agreed() const {
        const auto* at_a = a.book.find(b.host.name());
        const auto* at_b = b.book.find(a.host.name());
        return at_a != nullptr && at_b != nullptr && at_a->agreed() && at_b->agreed() &&
               at_a->connections.contains(17) && at_b->connections.contains(27) &&
               at_a->connections.at(17) == Guard::Exclusive &&
               at_b->connections.at(27) == Guard::Exclusive;
    }

    End a{io, "127.0.0.1", true, "127.0.0.2"};
    End b{io, "127.0.0.2", false, "127.0.0.1"};
};

TEST_F(PeersTest, WhoOpenedAConnectionSeeksItsPeer) {
    run([this]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        co_await until([this] { return agreed(); });
        EXPECT_EQ(a.peers->counters().opened, 1);
        EXPECT_EQ(b.peers->counters().accepted, 1);
        EXPECT_TRUE(a.peers->has_channel(b.host.name()));
        EXPECT_EQ(a.peers->wanted(b.here), 0);
        EXPECT_EQ(a.trust->of(b.host.name()), Trusted::Pinned);
        EXPECT_EQ(a.book.find(b.host.name())->id(), b.book.find(a.host.name())->id());
    });
    EXPECT_FALSE(a.secret().empty());
    EXPECT_EQ(a.secret(), b.secret());
    EXPECT_THAT(a.key_operations(), SizeIs(3));
}

TEST_F(PeersTest, TokensOfWhatIsProvedAreKnown) {
    // Of one that has begun after the start: its event does not have them.
    auto late = a.kernel.connections[0];
    a.kernel.connections.clear();
    run([this, late]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        a.kernel.connections = {late};
        a.kernel.connections[0].token_remote = 0xdeadbeef;
        a.kernel.events.emplace_back(std::vector{late});
        a.table->take();
        EXPECT_FALSE(a.table->find(17)->token_remote);
        co_await until([this] { return agreed(); });
        EXPECT_EQ(a.table->find(17)->token_remote, 0xdeadbeef);
        a.kernel.events.emplace_back(std::vector{late});
        a.table->take();
        EXPECT_EQ(a.table->find(17)->token_remote, 0xdeadbeef) << "whatever comes";
    });
}

TEST_F(PeersTest, AProxyIsNotPinnedAsThePeersPlace) {
    run([this]() -> asio::awaitable<void> {
        bool relayed = true;
        a.peers->tell_relayed([&](const Connection&) { return relayed; });
        a.peers->on_batch(true);
        co_await until([this] { return agreed(); });
        EXPECT_TRUE(a.trust->pin(b.host.name(), make_address("198.51.100.1"), false));
        auto moved = a.kernel.connections[0];
        moved.reason = tcpmigrate::Reason::Committed;
        const auto arrive = [&](const char* there) {
            moved.remote.address = to_kernel(make_address(there));
            a.kernel.events.emplace_back(std::vector{moved});
            a.table->take();
        };
        arrive("203.0.113.50");
        EXPECT_THAT(a.dir.read("pins"), HasSubstr(b.host.name().to_string() + " 198.51.100.1\n"));
        relayed = false;
        arrive("198.51.100.77");
        EXPECT_THAT(a.dir.read("pins"), HasSubstr(b.host.name().to_string() + " 198.51.100.77\n"));
    });
}

TEST_F(PeersTest, FurtherConnectionsUseTheSameChannel) {
    run([this]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        co_await until([this] { return agreed(); });
        connect_again();
        co_await until([this] {
            return b.book.find(a.host.name())->connections.contains(28) &&
                   a.book.find(b.host.name())->connections.contains(18);
        });
        EXPECT_EQ(a.peers->counters().opened, 1);
    });
}

TEST_F(PeersTest, BothSeekEachOtherAndOneChannelStays) {
    // Each has opened a connection to the other.
    auto mine = a.kernel.connections[0];
    mine.cookie = 19;
    mine.opener = false;
    mine.local.port = 80;
    mine.remote.port = 6000;
    auto theirs = b.kernel.connections[0];
    theirs.cookie = 29;
    theirs.opener = true;
    theirs.local.port = 6000;
    theirs.remote.port = 80;
    a.kernel.connections.push_back(mine);
    b.kernel.connections.push_back(theirs);
    a.config.retry = b.config.retry = seconds(1);
    run([this]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        b.peers->on_batch(true);
        co_await until([this] {
            return agreed() && a.book.owner(19) == b.host.name() &&
                   b.book.owner(29) == a.host.name();
        });
        EXPECT_EQ(a.secret(), b.secret());
    });
}

TEST_F(PeersTest, APeerWithoutADaemonIsTriedEverLater) {
    a.config.retry = seconds(1);
    run([this]() -> asio::awaitable<void> {
        b.peers->stop();
        a.peers->on_batch(true);
        co_await until([this] {
            const auto& attempts = a.peers->attempts();
            return attempts.contains(b.here) && attempts.at(b.here).failures == 2;
        });
        EXPECT_THAT(a.peers->attempts().at(b.here).why, HasSubstr("refused"));
        EXPECT_EQ(a.peers->wanted(b.here), 1);
        // The connection ends: nobody is sought any more.
        auto gone = a.kernel.connections[0];
        gone.state = tcpmigrate::State::None;
        a.kernel.events.emplace_back(std::vector{gone});
        a.table->take();
        EXPECT_EQ(a.peers->wanted(b.here), 0);
    });
}

TEST_F(PeersTest, StrangersAreClosedAtOnce) {
    run([this]() -> asio::awaitable<void> {
        b.kernel.connections.clear();
        b.kernel.events.emplace_back(ENOBUFS);  // have it read anew
        b.table->take();
        tcp::socket socket(io, tcp::endpoint(a.here, 0));
        co_await socket.async_connect(
            tcp::endpoint(b.here, static_cast<std::uint16_t>(b.config.port)), asio::use_awaitable);
        std::array<char, 1> byte{};
        const auto [ended, size] = co_await asio::async_read(socket, asio::buffer(byte), kNoThrow);
        EXPECT_TRUE(ended);
        EXPECT_EQ(b.peers->counters().strangers, 1);
    });
}

TEST_F(PeersTest, ManyStrangersOfOneAddressAreTooMany) {
    b.config.strangers_per_address = 2;
    run([this]() -> asio::awaitable<void> {
        std::vector<tcp::socket> sockets;
        for (int i = 0; i < 3; i++) {
            sockets.emplace_back(io, tcp::endpoint(a.here, 0));
            co_await sockets.back().async_connect(
                tcp::endpoint(b.here, static_cast<std::uint16_t>(b.config.port)),
                asio::use_awaitable);
        }
        co_await until([this] { return b.peers->counters().crowded == 1; });
    });
}

TEST_F(PeersTest, WhoProvesNothingIsAStrangerStill) {
    b.config.strangers_per_address = 1;
    run([this]() -> asio::awaitable<void> {
        Host unknown;
        tcp::socket socket(io, tcp::endpoint(a.here, 0));
        const tcp::endpoint there(b.here, static_cast<std::uint16_t>(b.config.port));
        co_await socket.async_connect(there, asio::use_awaitable);
        const auto silent = co_await Channel::connect(std::move(socket), unknown.tls);
        EXPECT_TRUE(silent);
        co_await until([this] { return b.peers->counters().accepted == 1; });
        tcp::socket next(io, tcp::endpoint(a.here, 0));
        co_await next.async_connect(there, asio::use_awaitable);
        co_await until([this] { return b.peers->counters().crowded == 1; });
        (*silent)->close();
        co_await until([this] { return b.peers->strangers() == 0; });
        a.peers->on_batch(true);
        co_await until([this] { return agreed(); });
        EXPECT_EQ(b.peers->strangers(), 0) << "who has proved something is none";
        EXPECT_EQ(b.peers->counters().crowded, 1);
    });
}

TEST_F(PeersTest, SoManyAttemptsAtOnceAndTheOthersLater) {
    a.config.attempts = 1;
    // Another peer, after B by its address, whose daemon does not say a word.
    const auto silent = make_address("127.0.0.3");
    auto other = a.kernel.connections[0];
    other.cookie = 18;
    other.local.port = 5001;
    other.remote = {to_kernel(silent), 80};
    a.kernel.connections.push_back(other);
    run([&]() -> asio::awaitable<void> {
        const tcp::acceptor acceptor(
            io, tcp::endpoint(silent, static_cast<std::uint16_t>(a.config.port)));
        a.peers->on_batch(true);
        EXPECT_TRUE(a.peers->attempts().at(b.here).busy);
        EXPECT_FALSE(a.peers->attempts().at(silent).busy) << "it waits";
        co_await until([this] { return agreed(); });
        co_await until([&] { return a.peers->attempts().at(silent).busy; });
    });
}

TEST_F(PeersTest, WhoIsNotTrustedIsRefused) {
    b.trusting.require = TrustConfig::Require::Listed;
    a.config.retry = seconds(100);
    run([this]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        co_await until([this] {
            const auto& attempts = a.peers->attempts();
            return attempts.contains(b.here) && attempts.at(b.here).failures == 1;
        });
        EXPECT_EQ(b.peers->counters().refused, 1);
        EXPECT_THAT(a.peers->attempts().at(b.here).why, HasSubstr("not trusted"));
        EXPECT_THAT(b.key_operations(), IsEmpty());
    });
}

/// Two clients, and a server whose vouchers they want to see.
class VouchedPeersTest : public PeersTest {
  protected:
    VouchedPeersTest() {
        for (auto* end : {&a, &b}) {
            end->trusting.require = TrustConfig::Require::Vouched;
            end->trusting.vouching = {server.name()};
            end->settings.vouchers = [this, end] { return vouchers(end->host.name()); };
        }
    }
    [[nodiscard]] std::vector<Voucher> vouchers(const Name& name) const {
        return {*vouch(server.identity, name, start, start + std::chrono::hours(1))};
    }
    /// A does not get to B.
    asio::awaitable<void> refused() {
        a.config.retry = seconds(100);
        a.peers->reconfigure(a.config);
        a.peers->on_batch(true);
        co_await until([this] {
            const auto& attempts = a.peers->attempts();
            return attempts.contains(b.here) && attempts.at(b.here).failures == 1;
        });
    }

    Host server;
    const std::chrono::sys_seconds start = a.now;
};

TEST_F(VouchedPeersTest, WhoHaveNeverMetAgree) {
    run([this]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        co_await until([this] { return agreed(); });
        EXPECT_EQ(a.book.find(b.host.name())->vouched->by, server.name());
        EXPECT_EQ(a.trust->of(b.host.name()), Trusted::FirstUse) << "it has to show it again";
        EXPECT_EQ(a.peers->counters().vouched, 1);
        EXPECT_EQ(b.peers->counters().vouched, 1);
    });
}

TEST_F(VouchedPeersTest, AnotherHostsVoucherIsRefused) {
    a.settings.vouchers = [this] { return vouchers(b.host.name()); };
    run([this]() -> asio::awaitable<void> {
        co_await refused();
        EXPECT_EQ(b.peers->counters().refused, 1);
        EXPECT_EQ(b.peers->counters().vouchers_bad, 1);
        EXPECT_THAT(a.peers->attempts().at(b.here).why, HasSubstr("no server that is trusted"));
        EXPECT_THAT(b.key_operations(), IsEmpty());
        EXPECT_EQ(b.trust->pins(), 0);
    });
}

TEST_F(VouchedPeersTest, WhoHasNoVoucherIsRefusedByWhoHasConnected) {
    b.settings.vouchers = [] { return std::vector<Voucher>(); };
    run([this]() -> asio::awaitable<void> {
        co_await refused();
        EXPECT_EQ(a.peers->counters().refused, 1);
        EXPECT_EQ(a.peers->counters().vouchers_bad, 0);
        EXPECT_THAT(a.peers->attempts().at(b.here).why, HasSubstr("have one do so"));
        EXPECT_THAT(a.key_operations(), IsEmpty());
    });
}

TEST_F(VouchedPeersTest, TheChannelEndsWithTheVoucher) {
    a.config.retry = milliseconds(1);
    run([this]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        co_await until([this] { return agreed(); });
        a.now = b.now = start + std::chrono::hours(1) + kClocks + seconds(1);
        connect_again();
        // What B is told on the old channel does not count, and the next one needs a voucher.
        co_await until([this] { return b.peers->counters().refused > 0; });
        EXPECT_EQ(b.book.owner(28), std::nullopt);
        EXPECT_TRUE(agreed()) << "the pair stays";
    });
}

TEST_F(PeersTest, ChannelsThatAreIdleEnd) {
    run([this]() -> asio::awaitable<void> {
        a.peers->on_batch(true);
        co_await until([this] { return agreed(); });
        // From the next word on.
        a.config.linger = milliseconds(1);
        a.peers->reconfigure(a.config);
        connect_again();
        co_await until([this] {
            return !a.peers->has_channel(b.host.name()) && !b.peers->has_channel(a.host.name());
        });
        EXPECT_TRUE(agreed()) << "the pair stays";
        co_await until([this] { return a.peers->attempts().empty(); });
    });
}

}  // namespace
}  // namespace mobility::client
