// SPDX-License-Identifier: GPL-2.0-or-later
// A client's channels to servers, over loopback: who is spoken with, when again, and what is
// shown.
#include "daemon/servers.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "fake_kernel.hpp"
#include "libmobility/listener.hpp"
#include "libmobility/within.hpp"
#include "loopback.hpp"
#include "quiet.hpp"

namespace mobility::client {
namespace {

namespace asio = boost::asio;
using asio::ip::make_address;
using asio::ip::tcp;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

Ticket ticket(std::uint8_t pair) {
    return {
        {1}, Name({2}), PairId{pair}, std::chrono::sys_seconds(std::chrono::seconds(9)), {pair}};
}

std::vector<int> pairs_of(const std::vector<Ticket>& tickets) {
    std::vector<int> out;
    for (const auto& one : tickets) {
        out.push_back(one.pair[0]);
    }
    return out;
}

TEST(ServersTickets, AreShownInTurn) {
    std::vector<Ticket> all;
    for (std::uint8_t i = 0; i < 5; i++) {
        all.push_back(ticket(i));
    }
    std::size_t turn = 0;
    EXPECT_THAT(pairs_of(Servers::in_turn(all, {}, turn, 2)), ElementsAre(0, 1));
    EXPECT_THAT(pairs_of(Servers::in_turn(all, {}, turn, 2)), ElementsAre(2, 3));
    EXPECT_THAT(pairs_of(Servers::in_turn(all, {}, turn, 2)), ElementsAre(4, 0));
    EXPECT_THAT(pairs_of(Servers::in_turn(all, {PairId{4}}, turn, 2)), ElementsAre(4, 1))
        << "one that is needed is shown in any case";
    EXPECT_THAT(pairs_of(Servers::in_turn(all, {}, turn, 9)), SizeIs(5));
    EXPECT_THAT(Servers::in_turn({}, {}, turn, 9), IsEmpty());
}

/// As much of a server as a channel needs.
class FakeServer {
  public:
    explicit FakeServer(asio::io_context& context)
        : io_(context),
          listener_(
              io_,
              [this](tcp::socket socket) {
                  asio::co_spawn(io_, serve(std::move(socket)), asio::detached);
              },
              [](const boost::system::error_code&) {}) {
        const auto where = listener_.listen({make_address("127.0.0.1"), 0});
        EXPECT_TRUE(where);
        port = where->port();
    }
    void stop() {
        listener_.stop();
        for (const auto& channel : channels) {
            channel->close();
        }
    }
    [[nodiscard]] ServerPlace place() const {
        return {host.name(), asio::ip::address_v4::loopback(), {}, port};
    }

    Host host;
    std::uint16_t port = 0;
    bool refuses = false;
    std::size_t asks = 0;                  ///< that follow the Welcome
    std::vector<std::vector<int>> hellos;  ///< pairs of their tickets
    std::list<std::shared_ptr<Channel>> channels;

  private:
    asio::awaitable<void> serve(tcp::socket socket) {
        auto made = co_await Channel::accept(std::move(socket), host.tls);
        if (!made) {
            co_return;
        }
        const std::shared_ptr<Channel> channel = std::move(*made);
        channels.push_back(channel);
        const auto bytes = co_await channel->read();
        if (bytes) {
            const auto hello = decode_to_server(*bytes);
            hellos.push_back(pairs_of(std::get<Hello>(*hello).tickets));
            co_await answer(*channel);
        }
        while (true) {
            const auto more = co_await channel->read();
            if (!more) {
                break;
            }
        }
        channel->close();
        channels.remove(channel);
    }
    asio::awaitable<void> answer(Channel& channel) const {
        const ToHost refused = Refused{Refused::Why::NotAdmitted, "not you", {}};
        const ToHost welcome = Welcome{1, make_address("127.0.0.1"), 1, 1};
        const auto first = encode(refuses ? refused : welcome);
        auto said = co_await channel.write(first);
        const auto ask = encode(ToHost(Ask{}));
        for (std::size_t i = 0; i < asks && said; i++) {
            said = co_await channel.write(ask);
        }
    }

    asio::io_context& io_;
    Listener listener_;
};

class ServersTest : public LoopbackTest {
  protected:
    using Task = std::function<asio::awaitable<void>()>;

    ServersTest() {
        auto opened =
            Table::over(io, quiet(), fake::make_transport(kernel), fake::make_events(kernel));
        EXPECT_TRUE(opened);
        table = std::move(*opened);
        prover = std::make_unique<Prover>(*table);
        servers = std::make_unique<Servers>(io, client.tls, *table, *prover, quiet());
        servers->start(
            [this](const Servers::Key&, const ToHost& message) {
                heard += std::holds_alternative<Ask>(message) ? 1 : 0;
            },
            [this](const Servers::Key& key) { joined.push_back(key); });
    }
    void run(const Task& task) {
        run_dry(task(), [this] {
            servers->stop();
            server.stop();
        });
    }
    asio::awaitable<void> until(const std::function<bool()>& so) {
        while (!so()) {
            asio::steady_timer timer(io, milliseconds(1));
            co_await timer.async_wait(asio::use_awaitable);
        }
    }
    [[nodiscard]] Servers::Key key() const { return {server.place(), make_address("127.0.0.1")}; }
    void want(std::vector<Ticket> tickets) {
        servers->want({{key(), {"", std::move(tickets), {}}}});
    }

    fake::Kernel kernel;
    Host client;
    FakeServer server{io};
    std::unique_ptr<Table> table;
    std::unique_ptr<Prover> prover;
    std::unique_ptr<Servers> servers;
    std::vector<Servers::Key> joined;
    std::size_t heard = 0;
};

TEST_F(ServersTest, AChannelIsJoinedAndHeard) {
    server.asks = 1;
    run([this]() -> asio::awaitable<void> {
        want({ticket(7)});
        co_await until([this] { return heard == 1; });
        EXPECT_THAT(joined, ElementsAre(key()));
        EXPECT_THAT(server.hellos, ElementsAre(ElementsAre(7)));
        EXPECT_TRUE(servers->say(key(), Forget{}));
        servers->want({});
        EXPECT_FALSE(servers->say(key(), Forget{}));
        co_await until([this] { return server.channels.empty(); });
    });
}

TEST_F(ServersTest, AChannelThatIsAheadOfItsConnectionsIsKept) {
    run([this]() -> asio::awaitable<void> {
        want({});
        co_await until([this] { return joined.size() == 1; });
        auto behind = key();
        behind.from = make_address("127.0.0.9");
        const std::map<Servers::Key, Servers::Wanted> on_the_way{{behind, {"", {}, {key().from}}}};
        servers->want(on_the_way);
        EXPECT_THAT(servers->seen(), SizeIs(1));
        EXPECT_TRUE(servers->say(key(), Forget{}));
        // Their trial has failed.
        const std::map<Servers::Key, Servers::Wanted> back{{behind, {"", {}, {}}}};
        servers->want(back);
        EXPECT_FALSE(servers->say(key(), Forget{}));
        co_await until([this] { return joined.size() == 2; });
        EXPECT_EQ(joined[1], behind);
    });
}

TEST_F(ServersTest, WhoLiesAboutItsPlaceKeepsNobodyFromAServer) {
    run([this]() -> asio::awaitable<void> {
        auto lie = key();
        lie.server.port = 1;
        servers->want({{lie, {}}, {key(), {}}});
        co_await until([this] { return joined.size() == 1; });
        EXPECT_EQ(joined[0], key());
    });
}

TEST_F(ServersTest, NewTicketsAreShownBesideTheChannelThatThereIs) {
    run([this]() -> asio::awaitable<void> {
        want({ticket(1)});
        co_await until([this] { return joined.size() == 1; });
        want({ticket(1), ticket(2)});
        EXPECT_TRUE(servers->say(key(), Forget{})) << "it stays joined";
        want({ticket(1), ticket(2), ticket(3)});
        while (joined.size() == 1) {
            EXPECT_TRUE(servers->say(key(), Forget{}));
            asio::steady_timer timer(io, milliseconds(1));
            co_await timer.async_wait(asio::use_awaitable);
        }
        EXPECT_TRUE(servers->say(key(), Forget{}));
        EXPECT_THAT(server.hellos.at(1), testing::UnorderedElementsAre(1, 2, 3));
        co_await until([this] { return server.channels.size() == 1; });
        // Fewer are nothing that a server has to be told.
        want({ticket(2)});
        EXPECT_THAT(servers->seen(), SizeIs(1));
        EXPECT_THAT(joined, SizeIs(2));
    });
}

TEST_F(ServersTest, ATicketThatWasNotShownIsShownWhenItIsMissed) {
    run([this]() -> asio::awaitable<void> {
        constexpr int last = kMaxTickets;
        std::vector<Ticket> many;
        for (std::uint8_t i = 0; i <= kMaxTickets; i++) {
            many.push_back(ticket(i));
        }
        want(many);
        co_await until([this] { return joined.size() == 1; });
        EXPECT_THAT(server.hellos.at(0), testing::Not(testing::Contains(last)));
        const PairId missed{kMaxTickets};
        const auto refusal = encode(ToHost(Refused{Refused::Why::NotAdmitted, "", missed}));
        const auto said = co_await server.channels.front()->write(refusal);
        EXPECT_TRUE(said);
        co_await until([this] { return joined.size() == 2; });
        EXPECT_THAT(server.hellos.at(1), testing::Contains(last));
    });
}

TEST_F(ServersTest, AStreamOfMessagesLetsOthersHaveTheirTurn) {
    server.asks = 1500;
    run([this]() -> asio::awaitable<void> {
        std::size_t turns = 0;
        bool over = false;
        asio::co_spawn(
            io,
            [&]() -> asio::awaitable<void> {
                while (heard < server.asks) {
                    turns++;
                    co_await asio::post(io, asio::use_awaitable);
                }
                over = true;
            },
            asio::detached);
        want({});
        co_await until([&] { return over; });
        EXPECT_GE(turns, server.asks);
    });
}

TEST_F(ServersTest, WhoIsMadeAgainDoesNotComeSooner) {
    server.refuses = true;
    run([this]() -> asio::awaitable<void> {
        want({});
        const auto failures = [this] { return servers->seen().at(0).failures; };
        co_await until([&] { return failures() == 2; });
        servers->want({});
        want({});
        EXPECT_EQ(failures(), 2U);
        co_await until([&] { return failures() == 3; });
        EXPECT_THAT(server.hellos, SizeIs(3));
    });
}

}  // namespace
}  // namespace mobility::client
