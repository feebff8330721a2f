// SPDX-License-Identifier: GPL-2.0-or-later
// A client's vouchers, over loopback: what servers give, when they are asked again.
#include "daemon/vouchers.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "fake_kernel.hpp"
#include "libmobility/listener.hpp"
#include "libmobility/message.hpp"
#include "loopback.hpp"
#include "quiet.hpp"

namespace mobility::client {
namespace {

namespace asio = boost::asio;
using asio::ip::make_address;
using asio::ip::tcp;
using std::chrono::hours;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

/// Answers each Hello with what it is told to.
class FakeServer {
  public:
    explicit FakeServer(asio::io_context& io)
        : listener_(
              io,
              [this, &io](tcp::socket socket) {
                  asio::co_spawn(io, serve(std::move(socket)), asio::detached);
              },
              [](const boost::system::error_code&) {}) {
        const auto where = listener_.listen({make_address("127.0.0.1"), 0});
        EXPECT_TRUE(where);
        port_ = where->port();
    }
    void stop() { listener_.stop(); }
    [[nodiscard]] Vouchers::Wanted wanted() const {
        return {{host.name(), asio::ip::address_v4::loopback(), {}, port_}, "token"};
    }
    [[nodiscard]] Voucher voucher(const Name& name, hours good_for = hours(2)) const {
        const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
        return *vouch(host.identity, name, now, now + good_for);
    }

    Host host;
    std::optional<Voucher> gives;
    bool refuses = false;
    std::vector<Hello> hellos;

  private:
    asio::awaitable<void> serve(tcp::socket socket) {
        const auto channel = co_await Channel::accept(std::move(socket), host.tls);
        if (!channel) {
            co_return;
        }
        const auto bytes = co_await (*channel)->read();
        if (bytes) {
            hellos.push_back(std::get<Hello>(*decode_to_server(*bytes)));
            const ToHost refused = Refused{Refused::Why::NotAdmitted, "not you", {}};
            const ToHost welcome = Welcome{1, make_address("127.0.0.1"), 1, 1, gives};
            const auto answer = encode(refuses ? refused : welcome);
            const auto said = co_await (*channel)->write(answer);
            EXPECT_TRUE(said);
        }
        co_await (*channel)->finish(std::chrono::seconds(100));
    }

    Listener listener_;
    std::uint16_t port_ = 0;
};

class VouchersTest : public LoopbackTest {
  protected:
    VouchersTest() {
        table = std::move(
            *Table::over(io, quiet(), fake::make_transport(kernel), fake::make_events(kernel)));
        prover = std::make_unique<Prover>(*table);
        vouchers = std::make_unique<Vouchers>(io, client.tls, client.name(), *prover, quiet());
        vouchers->when_first([this] { firsts++; });
    }
    void run(const std::function<asio::awaitable<void>()>& task) {
        run_dry(task(), [this] {
            vouchers->stop();
            server.stop();
        });
    }
    asio::awaitable<void> until(const std::function<bool()>& so) {
        while (!so()) {
            asio::steady_timer timer(io, milliseconds(1));
            co_await timer.async_wait(asio::use_awaitable);
        }
    }
    /// Until so many were taken, good or not.
    asio::awaitable<void> answers(std::uint64_t number) {
        const auto& c = vouchers->counters();
        co_await until([&c, number] { return c.got + c.none + c.failed == number; });
    }
    [[nodiscard]] std::string why() const { return vouchers->seen().at(0).why; }

    Host client;
    FakeServer server{io};
    fake::Kernel kernel;
    std::unique_ptr<Table> table;
    std::unique_ptr<Prover> prover;
    std::unique_ptr<Vouchers> vouchers;
    int firsts = 0;
};

TEST_F(VouchersTest, AreFetchedAndShown) {
    server.gives = server.voucher(client.name());
    run([this]() -> asio::awaitable<void> {
        vouchers->want({server.wanted()});
        EXPECT_EQ(why(), "not asked yet");
        co_await answers(1);
        EXPECT_THAT(vouchers->all(), ElementsAre(*server.gives));
        EXPECT_EQ(vouchers->seen().at(0).voucher, server.gives);
        EXPECT_EQ(why(), "");
        EXPECT_EQ(firsts, 1);
        EXPECT_TRUE(server.hellos.at(0).voucher);
        EXPECT_EQ(server.hellos.at(0).enrolment, "token");
        vouchers->retry();
        vouchers->want({server.wanted()});
        EXPECT_THAT(vouchers->all(), SizeIs(1)) << "it is kept";
        vouchers->want({});
        EXPECT_THAT(vouchers->all(), IsEmpty());
    });
    EXPECT_THAT(server.hellos, SizeIs(1));
}

TEST_F(VouchersTest, WhatPeersWouldNotTakeIsNotShown) {
    Host other;
    auto forged = server.voucher(client.name());
    forged.signature[0] ^= 1;
    const auto of_another = *vouch(other.identity, client.name(), forged.since, forged.expires);
    const std::vector<Voucher> bad{server.voucher(other.name()), forged, of_another,
                                   server.voucher(client.name(), hours(169)),
                                   server.voucher(client.name(), hours(-1))};
    run([&]() -> asio::awaitable<void> {
        for (const auto& one : bad) {
            server.gives = one;
            vouchers->want({server.wanted()});
            co_await answers(vouchers->counters().failed + 1);
            EXPECT_THAT(vouchers->all(), IsEmpty());
            EXPECT_THAT(why(), HasSubstr("none for this host"));
            vouchers->want({});
        }
    });
    EXPECT_EQ(vouchers->counters().failed, bad.size());
    EXPECT_EQ(firsts, 0);
}

TEST_F(VouchersTest, AServerThatDoesNotVouchTakesTheLastOneAway) {
    server.gives = server.voucher(client.name());
    run([this]() -> asio::awaitable<void> {
        vouchers->want({server.wanted()});
        co_await answers(1);
        server.gives.reset();
        // Another token makes it another wish.
        auto anew = server.wanted();
        anew.token.clear();
        vouchers->want({anew});
        co_await answers(2);
        EXPECT_THAT(vouchers->all(), IsEmpty());
        EXPECT_THAT(why(), HasSubstr("does not vouch"));
        EXPECT_EQ(vouchers->seen().at(0).failures, 0);
    });
}

TEST_F(VouchersTest, WhatHasFailedIsTriedAgainAndAtOnceElsewhere) {
    server.refuses = true;
    run([this]() -> asio::awaitable<void> {
        vouchers->want({server.wanted()});
        co_await answers(1);
        EXPECT_THAT(why(), HasSubstr("not you"));
        EXPECT_EQ(vouchers->seen().at(0).failures, 1);
        co_await answers(2);
        for (std::uint64_t number = 3; number < 20; number++) {
            // Would take hours otherwise.
            vouchers->retry();
            co_await answers(number);
        }
        server.refuses = false;
        server.gives = server.voucher(client.name());
        vouchers->retry();
        co_await answers(20);
        EXPECT_EQ(vouchers->seen().at(0).failures, 0);
        EXPECT_EQ(firsts, 1);
    });
}

TEST_F(VouchersTest, OnlyTheServerThatIsMeantIsAsked) {
    run([this]() -> asio::awaitable<void> {
        auto wrong = server.wanted();
        wrong.server.host = client.name();
        vouchers->want({wrong});
        co_await answers(1);
        EXPECT_EQ(vouchers->counters().failed, 1);
    });
    EXPECT_THAT(server.hellos, IsEmpty());
}

}  // namespace
}  // namespace mobility::client
