// SPDX-License-Identifier: GPL-2.0-or-later
// Orders of relays: which proxy is given which, without a socket; and the channels to
// proxies, over loopback, with a proxy that does as it is told.
#include "proxies/proxies.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <deque>
#include <functional>

#include "libmobility/within.hpp"
#include "loopback.hpp"
#include "metrics/metrics.hpp"
#include "quiet.hpp"
#include "temporary.hpp"

namespace mobility::server {
namespace {

namespace asio = boost::asio;
using asio::ip::address;
using asio::ip::make_address;
using asio::ip::make_address_v4;
using asio::ip::make_address_v6;
using asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Why = Declined::Why;

constexpr Name kA({1});
constexpr Name kB({2});
const auto kFirst = make_address_v4("203.0.113.1");
const auto kSecond = make_address_v4("203.0.113.2");

Wish wish(std::uint64_t number, std::uint32_t connections = 1) {
    Wish out{{number, kA, kB, {}}, {}};
    for (std::uint32_t i = 1; i <= connections; i++) {
        out.order.connections.push_back(
            {{i, make_address("192.168.1.1"), 4000}, {i, make_address("10.0.0.1"), 22}});
    }
    return out;
}

Ready ready(const asio::ip::address_v4& where, std::uint32_t relays = 0) {
    return {kVersion, where, {}, {relays, 100}};
}

class OrdersTest : public testing::Test {
  protected:
    /// To whom this was given; nothing if to nobody, or more.
    static std::vector<ProxyId> given(const Orders::Dealt& dealt) {
        std::vector<ProxyId> out;
        for (const auto& [proxy, order] : dealt.send) {
            out.push_back(proxy);
        }
        return out;
    }
    std::vector<ProxyId> order(std::uint64_t number, std::uint32_t connections = 1) {
        return given(orders.order(wish(number, connections), now));
    }
    Orders::Dealt reserves(ProxyId proxy, std::uint64_t number, const address& where = kFirst) {
        return orders.reserved(proxy, {number, where, {10'000}}, now);
    }
    Orders::Dealt declines(ProxyId proxy, std::uint64_t number, Why why = Why::Full) {
        return orders.declined(proxy, {number, why, ""}, now);
    }

    std::set<std::uint64_t> unwanted;
    OrderLimits limits;
    Orders orders{limits, [this](std::uint64_t number) { return !unwanted.contains(number); }};
    Time now = Time() + seconds(1000);
};

TEST_F(OrdersTest, WithoutAProxyTheyFailAtOnce) {
    EXPECT_THAT(orders.order(wish(1), now).failed, ElementsAre(1));
    EXPECT_EQ(orders.out(), 0);
    EXPECT_EQ(orders.counters().failed, 1);
}

TEST_F(OrdersTest, WhatIsReservedIsHandedOn) {
    orders.ready(1, ready(kFirst));
    EXPECT_THAT(order(7), ElementsAre(1));
    EXPECT_EQ(orders.out(), 1);
    EXPECT_THAT(reserves(1, 7).reserved, ElementsAre(Reserved{7, kFirst, {10'000}}));
    EXPECT_EQ(orders.out(), 0);
    EXPECT_EQ(orders.find(1)->out, 0);
    EXPECT_FALSE(orders.next());
    EXPECT_EQ(orders.counters().reserved, 1);
    EXPECT_THAT(reserves(1, 7).reserved, IsEmpty());
    EXPECT_EQ(orders.counters().late, 1);
}

TEST_F(OrdersTest, TheOneOfWhichTheMostIsFreeIsTaken) {
    orders.ready(1, ready(kFirst, 50));
    orders.ready(2, ready(kSecond, 40));
    EXPECT_THAT(order(1), ElementsAre(2));
    orders.load(2, {60, 100});
    EXPECT_THAT(order(2), ElementsAre(1));
    // What was ordered counts already.
    EXPECT_THAT(order(3, 20), ElementsAre(1));
    EXPECT_THAT(order(4), ElementsAre(2));
    orders.load(1, {0, 0});  // does not say how many: nothing is free
    EXPECT_THAT(order(5), ElementsAre(2));
}

TEST_F(OrdersTest, OfEqualsEachHasItsTurn) {
    for (ProxyId id = 1; id <= 3; id++) {
        orders.ready(id, ready(kFirst));
    }
    for (std::uint64_t number = 1; number <= 6; number++) {
        const auto at = order(number);
        EXPECT_THAT(at, ElementsAre((number - 1) % 3 + 1));
        orders.load(at.at(0), {0, 100});
    }
}

TEST_F(OrdersTest, AFullOneIsTriedLast) {
    orders.ready(1, ready(kFirst, 98));
    orders.ready(2, {kVersion, kSecond, {}, {990, 1000}});
    EXPECT_THAT(order(1, 3), ElementsAre(2));
    EXPECT_THAT(given(declines(2, 1)), ElementsAre(1)) << "it may have become empty";
}

TEST_F(OrdersTest, OnlyThoseOfTheFamilyAreAsked) {
    orders.ready(1, ready(kFirst));
    orders.ready(2, {kVersion, {}, make_address_v6("2001:db8::2"), {0, 100}});
    Wish v6 = wish(1);
    v6.order.connections = {{{1, make_address("fd00::1"), 1}, {2, make_address("fd00::2"), 2}}};
    EXPECT_THAT(given(orders.order(v6, now)), ElementsAre(2));
    EXPECT_THAT(declines(2, 1, Why::Family).failed, ElementsAre(1));
    EXPECT_THAT(order(2), ElementsAre(1));
}

TEST_F(OrdersTest, TheOneThatHasItIsAskedFirst) {
    orders.ready(1, ready(kFirst, 100));
    orders.ready(2, ready(kSecond));
    auto known = wish(1);
    known.rather = kFirst;
    EXPECT_THAT(given(orders.order(known, now)), ElementsAre(1)) << "though it is full";
    EXPECT_THAT(given(declines(1, 1)), ElementsAre(2));
}

TEST_F(OrdersTest, WhoDeclinesIsFollowedByTheNext) {
    orders.ready(1, ready(kFirst));
    orders.ready(2, ready(kSecond, 1));
    orders.ready(3, ready(kSecond, 2));
    EXPECT_THAT(order(1), ElementsAre(1));
    EXPECT_THAT(given(declines(1, 1, Why::Quota)), ElementsAre(2));
    EXPECT_THAT(given(declines(1, 1)), IsEmpty()) << "it has already";
    EXPECT_THAT(given(declines(2, 1)), ElementsAre(3));
    EXPECT_THAT(declines(3, 1).failed, ElementsAre(1));
    EXPECT_EQ(orders.out(), 0);
    const auto& counted = orders.counters();
    EXPECT_EQ(counted.declined.at(static_cast<std::size_t>(Why::Full)), 3);
    EXPECT_EQ(counted.declined.at(static_cast<std::size_t>(Why::Quota)), 1);
    EXPECT_EQ(counted.ordered, 3);
    EXPECT_EQ(counted.failed, 1);
}

TEST_F(OrdersTest, WithoutAnAnswerTheNextIsAskedAndTheFirstAnswerCounts) {
    orders.ready(1, ready(kFirst));
    orders.ready(2, ready(kSecond, 50));
    order(1);
    EXPECT_EQ(orders.next(), now + seconds(2));
    EXPECT_THAT(given(orders.expire(now + seconds(2) - milliseconds(1))), IsEmpty());
    now += seconds(2);
    const auto dealt = orders.expire(now);
    EXPECT_THAT(given(dealt), ElementsAre(2));
    EXPECT_THAT(dealt.unanswered, ElementsAre(std::pair<ProxyId, std::uint64_t>(1, 1)));
    EXPECT_THAT(order(2), ElementsAre(2)) << "the first is silent";
    EXPECT_THAT(reserves(1, 1).reserved, SizeIs(1)) << "after all";
    EXPECT_EQ(orders.find(2)->out, 1) << "the other order";
    EXPECT_THAT(order(3), ElementsAre(1)) << "it has spoken";
    EXPECT_THAT(reserves(2, 1, kSecond).reserved, IsEmpty());
    EXPECT_EQ(orders.counters().late, 1);
    EXPECT_EQ(orders.counters().unanswered, 1);
}

TEST_F(OrdersTest, NoneInTimeIsAFailure) {
    orders.ready(1, ready(kFirst));
    order(1);
    now += seconds(2);
    EXPECT_THAT(orders.expire(now).failed, ElementsAre(1));
    EXPECT_FALSE(orders.next());
    EXPECT_EQ(orders.find(1)->out, 0);
}

TEST_F(OrdersTest, WhoIsGoneLeavesItsOrdersToOthers) {
    orders.ready(1, ready(kFirst));
    orders.ready(2, ready(kSecond, 90));
    order(1);
    order(2);
    EXPECT_THAT(given(orders.gone(1, now)), ElementsAre(2, 2));
    EXPECT_EQ(orders.find(1), nullptr);
    EXPECT_THAT(orders.gone(2, now).failed, ElementsAre(1, 2));
    EXPECT_EQ(orders.out(), 0);
    orders.load(2, {1, 2});
    EXPECT_THAT(orders.gone(2, now).failed, IsEmpty());
}

TEST_F(OrdersTest, WhatNobodyWaitsForIsNotOrderedAgain) {
    orders.ready(1, ready(kFirst));
    orders.ready(2, ready(kSecond));
    order(1);
    unwanted.insert(1);
    const auto dealt = declines(1, 1);
    EXPECT_THAT(dealt.send, IsEmpty());
    EXPECT_THAT(dealt.failed, IsEmpty());
    EXPECT_EQ(orders.out(), 0);
}

TEST_F(OrdersTest, AnswersThatCannotBeAreNone) {
    orders.ready(1, ready(kFirst));
    orders.ready(2, ready(kSecond, 1));
    orders.ready(3, ready(kSecond, 2));
    order(1);
    EXPECT_THAT(given(reserves(1, 1, make_address("198.51.100.1"))), ElementsAre(2))
        << "hosts are not sent to others";
    EXPECT_THAT(given(orders.reserved(2, {1, kSecond, {1, 2}}, now)), ElementsAre(3));
    EXPECT_EQ(orders.counters().bad, 2);
    EXPECT_THAT(reserves(2, 2, kSecond).reserved, IsEmpty());
    EXPECT_THAT(reserves(3, 1, kSecond).reserved, SizeIs(1));
}

TEST_F(OrdersTest, NobodyAnswersForAnother) {
    orders.ready(1, ready(kFirst));
    orders.ready(2, ready(kSecond, 1));
    order(1);
    EXPECT_THAT(reserves(2, 1, kSecond).reserved, IsEmpty());
    EXPECT_THAT(declines(2, 1).send, IsEmpty());
    EXPECT_EQ(orders.out(), 1);
}

TEST_F(OrdersTest, TheyAreFew) {
    limits.orders = 3;
    limits.orders_per_proxy = 2;
    orders.set_limits(limits);
    orders.ready(1, ready(kFirst));
    EXPECT_THAT(order(1), ElementsAre(1));
    EXPECT_THAT(order(2), ElementsAre(1));
    EXPECT_THAT(orders.order(wish(3), now).failed, ElementsAre(3)) << "no other proxy";
    orders.ready(2, ready(kSecond, 90));
    EXPECT_THAT(order(4), ElementsAre(2));
    EXPECT_THAT(orders.order(wish(5), now).failed, ElementsAre(5));
    EXPECT_EQ(orders.counters().crowded, 1);
    reserves(1, 1);
    EXPECT_THAT(order(6), ElementsAre(1));
}

// ---- On sockets ----

constexpr std::chrono::minutes kSoon(3);  // for what happens at once: who hangs fails

/// A proxy that accepts servers, and has its test say what it answers.
class FakeProxy {
  public:
    explicit FakeProxy(asio::io_context& io) : acceptor_(io, {make_address("127.0.0.1"), 0}) {}

    [[nodiscard]] ProxyPlace place() const { return {acceptor_.local_endpoint(), host.name()}; }
    /// The next server's channel.
    asio::awaitable<std::unique_ptr<Channel>> accept() {
        auto [failed, socket] = co_await acceptor_.async_accept(kNoThrow);
        EXPECT_FALSE(failed);
        auto made = co_await Channel::accept(std::move(socket), host.tls);
        EXPECT_TRUE(made) << made.error().message;
        co_return std::move(*made);
    }
    /// ... which has heard this after it has said its Greeting.
    asio::awaitable<std::unique_ptr<Channel>> greeted(FromProxy answer) {
        auto channel = co_await accept();
        const auto said = co_await hear(*channel);
        EXPECT_TRUE(said && std::holds_alternative<Greeting>(*said));
        EXPECT_THAT(std::get<Greeting>(*said).software, HasSubstr("mobility-server "));
        co_await say(*channel, std::move(answer));
        co_return channel;
    }
    static asio::awaitable<void> say(Channel& to, FromProxy message) {
        const auto bytes = encode(message);
        const auto written = co_await to.write(bytes);
        EXPECT_TRUE(written);
    }
    /// Nothing if the channel ends.
    static asio::awaitable<std::optional<ToProxy>> hear(Channel& from) {
        const auto bytes = co_await within(kSoon, from.read());
        if (!bytes) {
            EXPECT_FALSE(bytes.error().is(ETIMEDOUT));
            co_return std::nullopt;
        }
        co_return *decode_to_proxy(*bytes);
    }
    void close() { acceptor_.close(); }

    Host host;

  private:
    tcp::acceptor acceptor_;
};

class ProxiesTest : public LoopbackTest {
  protected:
    using Task = std::function<asio::awaitable<void>()>;

    ProxiesTest() {
        // However slow the machine is: only the tests of it end by it.
        config.limits.patience = std::chrono::hours(1);
        config.introduction = std::chrono::hours(1);
        config.retry = milliseconds(1);
        config.retry_longest = milliseconds(1);
        config.places = {one.place()};
    }

    void run(const Task& task) {
        proxies = std::make_unique<Proxies>(
            io, server.tls,
            Proxies::Customer{
                [](std::uint64_t) { return true; },
                [this](const Reserved& r) { reserved.push_back(r); },
                [this](std::uint64_t number) { failed.push_back(number); },
                [this](const Met& one, const Ready& by) { met.emplace_back(one, by); }},
            quiet());
        proxies->configure(config);
        run_dry(task(), [this] { proxies->stop(); });
    }
    /// Waits until it is so; if it never is, the run takes too long.
    asio::awaitable<void> until(const std::function<bool()>& so) {
        while (!so()) {
            asio::steady_timer timer(io, milliseconds(1));
            co_await timer.async_wait(asio::use_awaitable);
        }
    }
    asio::awaitable<void> until_ready(std::size_t count = 1) {
        co_await until([this, count] {
            const auto all = proxies->seen();
            return static_cast<std::size_t>(std::ranges::count_if(
                       all, [](const auto& seen) { return seen.ready; })) == count;
        });
    }
    // In an expression with co_await, GCC 12 destroys aggregates in braces twice.
    static FromProxy a_ready(std::uint32_t relays = 0, std::uint32_t version = kVersion) {
        auto out = ready(kFirst, relays);
        out.version = version;
        return out;
    }
    static FromProxy a_reserved(std::uint64_t number) { return Reserved{number, kFirst, {10'000}}; }
    static FromProxy a_declined(std::uint64_t number, Why why) {
        return Declined{number, why, "no"};
    }
    static FromProxy a_load(std::uint32_t relays) { return Load{relays, 100}; }

    Host server;
    FakeProxy one{io};
    FakeProxy two{io};
    ProxyConfig config;
    std::unique_ptr<Proxies> proxies;
    std::vector<Reserved> reserved;
    std::vector<std::uint64_t> failed;
    std::vector<std::pair<Met, Ready>> met;
};

TEST_F(ProxiesTest, OrdersAndHandsOnWhatIsReserved) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.greeted(a_ready());
        co_await until_ready();
        EXPECT_EQ(channel->peer(), server.name());
        const auto wanted = wish(7);
        proxies->order(wanted);
        const auto order = co_await FakeProxy::hear(*channel);
        EXPECT_TRUE(order && std::get<Order>(*order) == wanted.order);
        co_await FakeProxy::say(*channel, a_reserved(7));
        co_await until([this] { return !reserved.empty(); });
        EXPECT_EQ(reserved.at(0).number, 7);
        EXPECT_EQ(proxies->counters().ready, 1);
    });
}

TEST_F(ProxiesTest, WhereEndsAreMetIsHandedOnWithWhoSaysIt) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.greeted(a_ready());
        co_await until_ready();
        FromProxy word = Met{7, {{{1, kFirst, 1}, {2, kSecond, 2}}}};
        co_await FakeProxy::say(*channel, word);
        co_await until([this] { return !met.empty(); });
        EXPECT_EQ(FromProxy(met.at(0).first), word);
        EXPECT_EQ(FromProxy(met.at(0).second), a_ready());
    });
}

TEST_F(ProxiesTest, WithoutOneThatIsReadyOrdersFailAtOnce) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.accept();
        const auto wanted = wish(7);
        proxies->order(wanted);
        EXPECT_THAT(failed, ElementsAre(7));
    });
}

TEST_F(ProxiesTest, TheNextIsAskedIfOneDeclinesOrIsGone) {
    config.places.push_back(two.place());
    run([this]() -> asio::awaitable<void> {
        auto first = co_await one.greeted(a_ready());
        auto second = co_await two.greeted(a_ready(50));
        co_await until_ready(2);
        const auto wanted = wish(7);
        proxies->order(wanted);
        EXPECT_TRUE(co_await FakeProxy::hear(*first));
        co_await FakeProxy::say(*first, a_declined(7, Why::Quota));
        EXPECT_TRUE(co_await FakeProxy::hear(*second));
        co_await FakeProxy::say(*second, a_reserved(7));
        co_await until([this] { return !reserved.empty(); });
        const auto other = wish(8);
        proxies->order(other);
        EXPECT_TRUE(co_await FakeProxy::hear(*first));
        first->close();
        EXPECT_TRUE(co_await FakeProxy::hear(*second));
        co_await FakeProxy::say(*second, a_declined(8, Why::Full));
        co_await until([this] { return !failed.empty(); });
        EXPECT_THAT(failed, ElementsAre(8));
    });
}

TEST_F(ProxiesTest, WhoDoesNotAnswerInTimeIsNotWaitedFor) {
    config.limits.patience = milliseconds(20);
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.greeted(a_ready());
        co_await until_ready();
        const auto wanted = wish(7);
        proxies->order(wanted);
        co_await until([this] { return !failed.empty(); });
        EXPECT_EQ(proxies->orders().counters().unanswered, 1);
        EXPECT_TRUE(proxies->seen().at(0).ready) << "the channel stays";
    });
}

TEST_F(ProxiesTest, AChannelThatEndsIsMadeAgain) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.greeted(a_ready());
        co_await until_ready();
        channel->close();
        co_await until_ready(0);
        channel = co_await one.greeted(a_ready());
        co_await until_ready();
        EXPECT_EQ(proxies->counters().ready, 2);
        EXPECT_EQ(proxies->counters().ended, 1);
    });
}

TEST_F(ProxiesTest, WhoIsNotAdmittedSaysWhyAndTriesAgain) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.greeted(a_declined(0, Why::NotAdmitted));
        channel = co_await one.greeted(a_ready(0, kVersion + 1));
        EXPECT_THAT(proxies->seen().at(0).why, HasSubstr("not-admitted: no"));
        channel = co_await one.greeted(a_load(1));
        EXPECT_THAT(proxies->seen().at(0).why, HasSubstr("another version"));
        channel = co_await one.greeted(a_ready());
        co_await until_ready();
        EXPECT_EQ(proxies->counters().failed, 3);
        // Also later.
        co_await FakeProxy::say(*channel, a_declined(0, Why::NotAdmitted));
        channel = co_await one.greeted(a_ready());
        co_await FakeProxy::say(*channel, a_ready());
        channel = co_await one.greeted(a_ready());
        EXPECT_THAT(proxies->seen().at(0).why, HasSubstr("a second Ready"));
    });
}

TEST_F(ProxiesTest, AnotherNameIsNoProxyOfOurs) {
    config.places[0].name = two.host.name();
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.accept();
        EXPECT_FALSE(co_await FakeProxy::hear(*channel));
        co_await until([this] { return proxies->counters().failed > 0; });
        EXPECT_EQ(proxies->counters().ready, 0);
    });
}

TEST_F(ProxiesTest, WhoDoesNotBecomeReadyInTimeIsLeft) {
    config.introduction = milliseconds(50);
    run([this]() -> asio::awaitable<void> {
        co_await until([this] { return proxies->counters().failed > 1; });
        EXPECT_EQ(proxies->counters().ready, 0);
    });
}

TEST_F(ProxiesTest, NonsenseEndsTheChannel) {
    run([this]() -> asio::awaitable<void> {
        auto channel = co_await one.greeted(a_ready());
        const auto said = co_await channel->write("nonsense");
        EXPECT_TRUE(said);
        channel = co_await one.greeted(a_ready());
        co_await until_ready();
        EXPECT_EQ(proxies->counters().ended, 1);
    });
}

TEST_F(ProxiesTest, AReloadTouchesOnlyWhatHasChanged) {
    run([this]() -> asio::awaitable<void> {
        auto first = co_await one.greeted(a_ready());
        co_await until_ready();
        config.places = {two.place(), one.place()};
        proxies->configure(config);
        auto second = co_await two.greeted(a_ready(50));
        co_await until_ready(2);
        EXPECT_EQ(proxies->counters().ready, 2) << "the first one's channel is the same";
        const auto wanted = wish(7);
        proxies->order(wanted);
        EXPECT_TRUE(co_await FakeProxy::hear(*first));
        config.places = {two.place()};
        proxies->configure(config);
        EXPECT_TRUE(co_await FakeProxy::hear(*second)) << "its order is not lost";
        EXPECT_FALSE(co_await FakeProxy::hear(*first));
        EXPECT_THAT(proxies->seen(), SizeIs(1));
    });
}

TEST_F(ProxiesTest, IsMeasured) {
    Temporary dir;
    auto admission = *Admission::load({dir.at("h"), dir.at("t"), dir.at("e")});
    const Vouching vouching{server.identity, {}};
    run([&]() -> asio::awaitable<void> {
        Service service(io, server.tls, admission, vouching, {}, {}, quiet());
        auto channel = co_await one.greeted(a_ready(3));
        co_await until_ready();
        auto text = metrics_text(service, proxies.get());
        const auto label =
            "{proxy=\"127.0.0.1:" + std::to_string(one.place().address.port()) + "\"}";
        EXPECT_THAT(text, HasSubstr("mobility_server_proxy_up" + label + " 1\n"));
        EXPECT_THAT(text, HasSubstr("mobility_server_proxy_relays" + label + " 3\n"));
        EXPECT_THAT(text, HasSubstr("mobility_server_proxy_most" + label + " 100\n"));
        const auto wanted = wish(7);
        proxies->order(wanted);
        EXPECT_THAT(metrics_text(service, proxies.get()),
                    HasSubstr("\nmobility_server_orders_out 1\n"));
        co_await FakeProxy::say(*channel, a_load(5));
        co_await FakeProxy::say(*channel, a_declined(7, Why::Full));
        co_await until([this] { return !failed.empty(); });
        text = metrics_text(service, proxies.get());
        EXPECT_THAT(text, HasSubstr("mobility_server_proxy_relays" + label + " 5\n"));
        EXPECT_THAT(text, HasSubstr("mobility_server_proxy_declined_total{why=\"full\"} 1\n"));
        EXPECT_THAT(text, HasSubstr("\nmobility_server_orders_failed_total 1\n"));
        EXPECT_THAT(metrics_text(service), testing::Not(HasSubstr("mobility_server_proxy")));
    });
}

}  // namespace
}  // namespace mobility::server
