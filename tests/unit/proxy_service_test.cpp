// SPDX-License-Identifier: GPL-2.0-or-later
// What servers and the proxy say to each other, over loopback; what is relayed is only noted.
#include "service/service.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/use_awaitable.hpp>

#include "libmobility/within.hpp"
#include "loopback.hpp"
#include "proxy_fakes.hpp"
#include "quiet.hpp"

namespace mobility::proxy {
namespace {

namespace asio = boost::asio;
using asio::ip::make_address;
using asio::ip::tcp;
using testing::HasSubstr;
using testing::SizeIs;
using ChannelPtr = std::unique_ptr<Channel>;
using Why = Declined::Why;

constexpr std::chrono::minutes kSoon(3);  // for what happens at once: who hangs fails
constexpr Name kA({1});
constexpr Name kB({2});

class ProxyServiceTest : public LoopbackTest {
  protected:
    using Task = std::function<asio::awaitable<void>()>;

    ProxyServiceTest() {
        // However slow the machine is: only the test of it ends by it.
        limits.introduction = std::chrono::hours(1);
    }

    void run(const Task& task) {
        service = std::make_unique<Service>(io, host.tls, relays, ports, std::set{server.name()},
                                            limits, quiet());
        where = *service->listen({make_address("127.0.0.1"), 0});
        run_dry(task(), [this] { service->stop(); });
    }
    /// A channel to it, on which nothing was said yet.
    asio::awaitable<ChannelPtr> connect(const Host& as) {
        tcp::socket socket(io);
        co_await socket.async_connect(where, asio::use_awaitable);
        auto made = co_await Channel::connect(std::move(socket), as.tls, host.name());
        EXPECT_TRUE(made) << made.error().message;
        co_return std::move(*made);
    }
    static asio::awaitable<void> say(Channel& to, ToProxy message) {
        const auto bytes = encode(message);
        EXPECT_TRUE(co_await to.write(bytes));
    }
    /// Nothing if the channel ends.
    static asio::awaitable<std::optional<FromProxy>> hear(Channel& from) {
        const auto bytes = co_await within(kSoon, from.read());
        if (!bytes) {
            EXPECT_FALSE(bytes.error().is(ETIMEDOUT));
            co_return std::nullopt;
        }
        co_return *decode_from_proxy(*bytes);
    }
    /// One that may order.
    asio::awaitable<ChannelPtr> joined() {
        auto channel = co_await connect(server);
        co_await say(*channel, a_greeting());
        const auto first = co_await hear(*channel);
        EXPECT_TRUE(first && std::holds_alternative<Ready>(*first));
        co_return channel;
    }
    /// Why the channel ends, which is said on it.
    asio::awaitable<void> expect_declined(Channel& channel, Why why) {
        const auto last = co_await hear(channel);
        const auto* declined = last ? std::get_if<Declined>(&*last) : nullptr;
        EXPECT_TRUE(declined != nullptr && declined->why == why && declined->number == 0);
        EXPECT_FALSE(co_await hear(channel));
    }
    // In an expression with co_await, GCC 12 destroys aggregates in braces twice.
    static ToProxy a_greeting(std::uint32_t version = kVersion) {
        return Greeting{version, "test"};
    }
    static ToProxy an_order(std::uint64_t number, std::uint32_t token = 7) {
        return Order{number,
                     kA,
                     kB,
                     {{{token, make_address("192.168.1.1"), 4000},
                       {token + 1, make_address("10.0.0.1"), 22}}}};
    }

    Host host;
    Host server;
    Host other;
    ServiceLimits limits;
    FakeDataPath flows;
    FakeJournal journal;
    Relays::Ports ports{make_address("203.0.113.9").to_v4(), {}, 20'000, 20'001};
    Relays relays{ports,
                  {},
                  flows,
                  journal,
                  Relays::Hands{[](const Octets&) {}, [] { return Time(); },
                                [](const Endpoint&) { return true; }, [] { return 0U; },
                                [](const Relays::Customer&, const RelayPair&) {}},
                  quiet()};
    std::unique_ptr<Service> service;
    tcp::endpoint where;
};

TEST_F(ProxyServiceTest, OrdersAreAnsweredInTheirOrder) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await joined();
        co_await say(*channel, an_order(5, 10));
        co_await say(*channel, an_order(6, 20));
        co_await say(*channel, an_order(7, 30));
        for (const std::uint64_t number : {5, 6}) {
            const auto answer = co_await hear(*channel);
            const auto* reserved = answer ? std::get_if<Reserved>(&*answer) : nullptr;
            EXPECT_TRUE(reserved != nullptr && reserved->number == number &&
                        reserved->address == make_address("203.0.113.9") &&
                        reserved->ports.size() == 1);
        }
        // Two ports are two connections.
        const auto answer = co_await hear(*channel);
        const auto* declined = answer ? std::get_if<Declined>(&*answer) : nullptr;
        EXPECT_TRUE(declined != nullptr && declined->number == 7 && declined->why == Why::Full);
        EXPECT_EQ(service->channels(), 1);
    });
}

TEST_F(ProxyServiceTest, ServersThatAreNotListedOrderNothing) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await connect(other);
        co_await say(*channel, a_greeting());
        co_await say(*channel, an_order(5));
        co_await expect_declined(*channel, Why::NotAdmitted);
        EXPECT_EQ(relays.counters().orders, 0);
        EXPECT_EQ(service->counters().not_admitted, 1);
    });
}

TEST_F(ProxyServiceTest, AnotherVersionIsToldOurs) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await connect(server);
        co_await say(*channel, a_greeting(kVersion + 1));
        co_await expect_declined(*channel, Why::Version);
    });
}

TEST_F(ProxyServiceTest, TheFirstMessageIsAGreeting) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await connect(server);
        co_await say(*channel, an_order(5));
        co_await expect_declined(*channel, Why::Malformed);
        EXPECT_EQ(relays.counters().orders, 0);
    });
}

TEST_F(ProxyServiceTest, NonsenseEndsTheChannelAndSaysWhy) {
    run([this]() -> asio::awaitable<void> {
        auto one = co_await joined();
        co_await one->write("\xff\xff\xff");
        co_await expect_declined(*one, Why::Malformed);
        auto two = co_await joined();
        co_await say(*two, a_greeting());
        co_await expect_declined(*two, Why::Malformed);
        EXPECT_EQ(service->counters().malformed, 2);
    });
}

TEST_F(ProxyServiceTest, WhoDoesNotIntroduceItselfIsLeft) {
    limits.introduction = std::chrono::milliseconds(20);
    run([this]() -> asio::awaitable<void> {
        auto silent = co_await connect(server);
        EXPECT_FALSE(co_await hear(*silent));
        EXPECT_EQ(service->counters().introduction_failed, 1);
        EXPECT_EQ(service->channels(), 0);
    });
}

TEST_F(ProxyServiceTest, StrangersAreFew) {
    limits.strangers = 1;
    run([this]() -> asio::awaitable<void> {
        auto first = co_await connect(server);
        tcp::socket second(io);
        co_await second.async_connect(where, asio::use_awaitable);
        char byte = 0;
        const auto [failed, size] =
            co_await second.async_read_some(asio::buffer(&byte, 1), kNoThrow);
        EXPECT_TRUE(failed);
        EXPECT_EQ(service->counters().crowded, 1);
        co_await say(*first, a_greeting());
        EXPECT_TRUE(co_await hear(*first));
    });
}

TEST_F(ProxyServiceTest, ChannelsAreFew) {
    limits.servers = 1;
    run([this]() -> asio::awaitable<void> {
        auto first = co_await joined();
        auto second = co_await connect(server);
        co_await say(*second, a_greeting());
        co_await expect_declined(*second, Why::Full);
        EXPECT_EQ(service->channels(), 1);
    });
}

TEST_F(ProxyServiceTest, WhoIsTakenOffTheListLeaves) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await joined();
        service->review({other.name()}, limits);
        EXPECT_FALSE(co_await hear(*channel));
    });
}

}  // namespace
}  // namespace mobility::proxy
