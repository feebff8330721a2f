// SPDX-License-Identifier: GPL-2.0-or-later
// The server on its sockets: real channels over loopback, and whatever else connects.
#include "service/service.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>

#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <functional>

#include "libmobility/metrics.hpp"
#include "libmobility/within.hpp"
#include "loopback.hpp"
#include "metrics/metrics.hpp"
#include "temporary.hpp"

namespace mobility::server {
namespace {

namespace asio = boost::asio;
using asio::ip::make_address;
using asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using Why = Refused::Why;
using ChannelPtr = std::unique_ptr<Channel>;

constexpr const char* kToken = "0123456789abcdef";
constexpr std::chrono::minutes kSoon(3);  // for what happens at once: who hangs fails

class ServiceTest : public LoopbackTest {
  protected:
    using Task = std::function<asio::awaitable<void>()>;

    ServiceTest() {
        // However slow the machine is: only the test of it ends by it.
        limits.introduction = std::chrono::hours(1);
        dir.write("hosts", a.name().to_string() + "\n" + b.name().to_string() + "\n");
        dir.write("tokens", kToken);
        admission = std::make_unique<Admission>(
            std::move(*Admission::load({dir.at("hosts"), dir.at("tokens"), dir.at("enrolled")})));
    }

    /// Starts the server, runs the task, stops the server; it has to run dry.
    void run(const Task& task) {
        service =
            std::make_unique<Service>(io, server.tls, *admission, vouching, limits, exchange,
                                      std::make_shared<spdlog::logger>(
                                          "test", std::make_shared<spdlog::sinks::null_sink_mt>()));
        const auto there = service->listen({make_address("127.0.0.1"), 0});
        ASSERT_TRUE(there) << there.error().message;
        where = *there;
        run_dry(task(), [this] { service->stop(); });
        EXPECT_EQ(service->channels(), 0);
        EXPECT_EQ(service->strangers(), 0);
    }

    asio::awaitable<tcp::socket> plain_socket() {
        tcp::socket socket(io);
        co_await socket.async_connect(where, asio::use_awaitable);
        co_return socket;
    }
    /// A channel that has not said anything yet.
    asio::awaitable<ChannelPtr> channel(Host& host) {
        auto made = co_await Channel::connect(co_await plain_socket(), host.tls, server.name());
        EXPECT_TRUE(made) << made.error().message;
        co_return std::move(*made);
    }
    static asio::awaitable<void> say(Channel& to, ToServer message) {
        const auto bytes = encode(message);
        const auto said = co_await to.write(bytes);
        EXPECT_TRUE(said) << said.error().message;
    }
    // In an expression with co_await, GCC 12 destroys aggregates in braces twice.
    static ToServer a_hello(std::uint32_t version = kVersion, std::string token = {},
                            std::vector<Ticket> tickets = {}) {
        return Hello{version, "test", std::move(token), std::move(tickets)};
    }
    static ToServer a_wish_for_a_voucher(std::string token = {}, std::vector<Ticket> tickets = {}) {
        return Hello{kVersion, "test", std::move(token), std::move(tickets), true};
    }
    static ToServer a_forget(const PairId& pair = {}) { return Forget{pair}; }
    static ToServer an_outcome(const PairId& pair, std::uint32_t judgement, bool resumed) {
        return Outcome{pair, judgement, 0, resumed};
    }
    /// With which A lets a guest speak of a pair.
    [[nodiscard]] std::vector<Ticket> ticket_of_a(const Host& guest, const PairId& pair) const {
        const auto soon = std::chrono::system_clock::now() + std::chrono::hours(1);
        return {
            *issue(a.identity, guest.name(), pair, std::chrono::time_point_cast<seconds>(soon))};
    }
    /// What the server says next; nothing if the channel ends.
    static asio::awaitable<std::optional<ToHost>> hear(Channel& from) {
        const auto bytes = co_await within(kSoon, from.read());
        if (!bytes) {
            EXPECT_FALSE(bytes.error().is(ETIMEDOUT));
            co_return std::nullopt;
        }
        co_return *decode_to_host(*bytes);
    }
    asio::awaitable<std::optional<ToHost>> hello(Channel& to, std::string token = "",
                                                 std::vector<Ticket> tickets = {}) {
        co_await say(to, a_hello(kVersion, std::move(token), std::move(tickets)));
        co_return co_await hear(to);
    }
    /// One that is welcome.
    asio::awaitable<ChannelPtr> joined(Host& host, std::string token = "",
                                       std::vector<Ticket> tickets = {}) {
        auto made = co_await channel(host);
        const auto answer = co_await hello(*made, std::move(token), std::move(tickets));
        EXPECT_TRUE(answer && std::holds_alternative<Welcome>(*answer));
        co_return made;
    }
    /// The reason of a refusal; NoReason if it is none.
    static Why why(const std::optional<ToHost>& answer) {
        const auto* refused = answer ? std::get_if<Refused>(&*answer) : nullptr;
        EXPECT_NE(refused, nullptr);
        return refused != nullptr ? refused->why : Why::NoReason;
    }
    /// Waits until it is so; if it never is, the run takes too long.
    asio::awaitable<void> until(const std::function<bool()>& so) {
        while (!so()) {
            asio::steady_timer timer(io, milliseconds(1));
            co_await timer.async_wait(asio::use_awaitable);
        }
    }
    /// Own report, about a connection of A's port 4000 to B's port 22.
    Report about(const Host& own, const Host& peer) const {
        const auto old_a = make_address("198.51.100.1");
        const auto old_b = make_address("198.51.100.2");
        const bool is_a = own.name() == a.name();
        return {{own.name(), is_a ? old_a : old_b, {1}},
                {peer.name(), is_a ? old_b : old_a, {1}},
                is_a ? old_a : old_b,
                is_a ? old_b : old_a,
                make_address("127.0.0.1"),
                {is_a ? Ports{4000, 22, 4000} : Ports{22, 4000, 22}}};
    }
    /// A first, then B.
    asio::awaitable<void> both_report_from_inside(Channel& to_a, Channel& to_b) {
        for (const bool of_a : {true, false}) {
            auto report = of_a ? about(a, b) : about(b, a);
            report.after = make_address("192.168.1.11");
            report.connections[0].token = of_a ? 1 : 2;
            co_await say(of_a ? to_a : to_b, report);
            co_await until([this, of_a] {
                return service->exchange().counters().reports == (of_a ? 1U : 2U);
            });
        }
    }
    const ServiceCounters& counters() { return service->counters(); }
    std::uint64_t refused(Why reason) {
        return counters().refused.at(static_cast<std::size_t>(reason));
    }

    Temporary dir;
    Host server, a, b, stranger;
    std::unique_ptr<Admission> admission;
    ServiceLimits limits;
    Limits exchange;
    Vouching vouching{server.identity, {VouchingConfig::Hosts::Listed, std::chrono::hours(1)}};
    std::unique_ptr<Service> service;
    tcp::endpoint where;
};

TEST_F(ServiceTest, WelcomesHostsThatAreListedAndSaysWhereItSeesThem) {
    run([this]() -> asio::awaitable<void> {
        auto to = co_await channel(a);
        const auto answer = co_await hello(*to);
        EXPECT_TRUE(answer && std::holds_alternative<Welcome>(*answer));
        const auto& welcome = std::get<Welcome>(*answer);
        EXPECT_EQ(welcome.seen, make_address("127.0.0.1"));
        EXPECT_EQ(welcome.most_pairs, exchange.pairs_per_host);
        EXPECT_EQ(service->channels(), 1);
        EXPECT_EQ(service->strangers(), 0);
        to->close();
        co_await until([this] { return service->channels() == 0; });
    });
}

TEST_F(ServiceTest, RefusesStrangersAndSaysWhy) {
    run([this]() -> asio::awaitable<void> {
        auto to = co_await channel(stranger);
        EXPECT_EQ(why(co_await hello(*to)), Why::NotAdmitted);
        EXPECT_FALSE(co_await hear(*to));
        to = co_await channel(a);
        co_await say(*to, a_hello(kVersion + 1));
        EXPECT_EQ(why(co_await hear(*to)), Why::Version);
        to = co_await channel(a);
        co_await say(*to, a_forget());
        EXPECT_EQ(why(co_await hear(*to)), Why::Malformed);
        to->close();
        co_await until([this] { return counters().introduction_failed == 3; });
        EXPECT_EQ(refused(Why::NotAdmitted), 1);
        EXPECT_EQ(counters().joined, 0);
    });
}

TEST_F(ServiceTest, TokensEnrol) {
    run([this]() -> asio::awaitable<void> {
        co_await joined(stranger, kToken);
        co_await joined(stranger);
    });
}

TEST_F(ServiceTest, VouchesForThoseThatItLists) {
    limits.channels_per_host = 1;
    run([this]() -> asio::awaitable<void> {
        auto joined_before = co_await joined(a);
        auto to = co_await channel(a);
        co_await say(*to, a_wish_for_a_voucher());
        const auto answer = co_await hear(*to);
        EXPECT_TRUE(answer && std::holds_alternative<Welcome>(*answer));
        const auto shown = std::get<Welcome>(*answer).voucher;
        EXPECT_TRUE(shown);
        const auto now = std::chrono::floor<seconds>(std::chrono::system_clock::now());
        EXPECT_TRUE(shown && check_vouchers({*shown}, a.name(), {server.name()}, now));
        EXPECT_FALSE(co_await hear(*to)) << "the channel ends";
        EXPECT_EQ(counters().vouched, 1);
        EXPECT_EQ(counters().joined, 1) << "it takes no other's place";
        EXPECT_EQ(counters().introduction_failed, 0);
        EXPECT_THAT(metrics_text(*service), HasSubstr("mobility_server_vouchers_total 1\n"));
    });
}

TEST_F(ServiceTest, VouchesForNobodyElse) {
    run([this]() -> asio::awaitable<void> {
        auto to = co_await channel(stranger);
        co_await say(*to, a_wish_for_a_voucher());
        EXPECT_EQ(why(co_await hear(*to)), Why::NotAdmitted);
        // Nor for guests, nor for those that have enrolled.
        const auto tickets = ticket_of_a(stranger, PairId{1});
        for (const auto& wish : {a_wish_for_a_voucher("", tickets), a_wish_for_a_voucher(kToken)}) {
            to = co_await channel(stranger);
            co_await say(*to, wish);
            const auto answer = co_await hear(*to);
            EXPECT_TRUE(answer && std::holds_alternative<Welcome>(*answer));
            EXPECT_FALSE(std::get<Welcome>(*answer).voucher);
        }
        // Who does not ask gets none.
        auto plain = co_await channel(a);
        const auto welcome = co_await hello(*plain);
        EXPECT_FALSE(std::get<Welcome>(*welcome).voucher);
        EXPECT_EQ(counters().vouched, 0);
        EXPECT_EQ(counters().not_vouched, 2);
    });
}

TEST_F(ServiceTest, TellsBothEndsOfAPairWhatToDo) {
    run([this]() -> asio::awaitable<void> {
        auto to_a = co_await joined(a);
        auto to_b = co_await joined(b);
        const auto id = about(a, b).pair();
        co_await say(*to_a, about(a, b));
        const auto ask = co_await hear(*to_b);
        EXPECT_TRUE(ask && std::holds_alternative<Ask>(*ask) && std::get<Ask>(*ask).pair == id);
        co_await say(*to_b, about(b, a));
        const auto notice = co_await hear(*to_b);
        EXPECT_TRUE(notice && std::holds_alternative<Notice>(*notice));
        EXPECT_EQ(std::get<Notice>(*notice).peer, make_address("127.0.0.1"));
        EXPECT_EQ(service->exchange().pairs(), 1);
        co_await say(*to_b, an_outcome(id, std::get<Notice>(*notice).judgement, true));
        co_await until([this] { return service->exchange().pairs() == 0; });
        EXPECT_THAT(metrics_text(*service), HasSubstr("mobility_server_resumed_total 1\n"));
    });
}

TEST_F(ServiceTest, HasARelayOrderedAndTellsBothOfIt) {
    exchange.proxies = true;
    run([this]() -> asio::awaitable<void> {
        std::vector<Wish> wishes;
        service->when_ordering([&](const Wish& wish) { wishes.push_back(wish); });
        auto to_a = co_await joined(a);
        auto to_b = co_await joined(b);
        co_await both_report_from_inside(*to_a, *to_b);
        EXPECT_EQ(wishes.size(), 1);
        EXPECT_EQ(wishes.at(0).order.connections.at(0).second.port, 22);
        service->reserved({wishes.at(0).order.number, make_address("203.0.113.9"), {10'000}});
        co_await hear(*to_b);  // Ask
        const auto at_a = co_await hear(*to_a);
        const auto at_b = co_await hear(*to_b);
        for (const auto& told : {at_a, at_b}) {
            EXPECT_TRUE(told && std::holds_alternative<Notice>(*told));
            EXPECT_EQ(std::get<Notice>(*told).peer, make_address("203.0.113.9"));
            EXPECT_EQ(std::get<Notice>(*told).connections.at(0).peer_after, 10'000);
            EXPECT_TRUE(std::get<Notice>(*told).relay);
        }
        service->no_proxy(7);
        EXPECT_EQ(service->exchange().pairs(), 1) << "of no order";
        EXPECT_THAT(metrics_text(*service), HasSubstr("mobility_server_orders_total 1\n"));
    });
}

TEST_F(ServiceTest, WithoutAProxyThatTakesItBothAreToldSo) {
    exchange.proxies = true;
    run([this]() -> asio::awaitable<void> {
        auto to_a = co_await joined(a);
        auto to_b = co_await joined(b);
        co_await both_report_from_inside(*to_a, *to_b);
        const auto verdict = co_await hear(*to_a);
        EXPECT_TRUE(verdict && std::holds_alternative<Verdict>(*verdict));
        EXPECT_EQ(std::get<Verdict>(*verdict).what, Verdict::What::NoProxy);
    });
}

TEST_F(ServiceTest, ActsInTimeWithoutAWord) {
    exchange.silence = milliseconds(50);
    exchange.keep = milliseconds(200);
    run([this]() -> asio::awaitable<void> {
        auto to_a = co_await joined(a);
        co_await say(*to_a, about(a, b));
        const auto verdict = co_await hear(*to_a);
        EXPECT_TRUE(verdict && std::holds_alternative<Verdict>(*verdict));
        EXPECT_EQ(std::get<Verdict>(*verdict).what, Verdict::What::PeerSilent);
        co_await until([this] { return service->exchange().pairs() == 0; });
    });
}

TEST_F(ServiceTest, GuestsSpeakOfTheirPairOnly) {
    run([this]() -> asio::awaitable<void> {
        const auto good = about(stranger, a);
        auto to = co_await joined(stranger, "", ticket_of_a(stranger, good.pair()));
        co_await say(*to, about(stranger, b));
        EXPECT_EQ(why(co_await hear(*to)), Why::NotAdmitted);
        co_await say(*to, good);
        co_await until([this] { return service->exchange().pairs() == 1; });
    });
}

TEST_F(ServiceTest, GuestsOfOneHostAreFew) {
    limits.guests_per_host = 1;
    run([this]() -> asio::awaitable<void> {
        Host another;
        const PairId pair{1};
        const auto its_ticket = ticket_of_a(another, pair);
        auto first = co_await joined(stranger, "", ticket_of_a(stranger, pair));
        auto second = co_await channel(another);
        EXPECT_EQ(why(co_await hello(*second, "", its_ticket)), Why::TooMuch);
        first->close();
        co_await until([this] { return service->channels() == 0; });
        co_await joined(another, "", its_ticket);
    });
}

TEST_F(ServiceTest, MalformedMessagesEndTheChannelWithAWord) {
    run([this]() -> asio::awaitable<void> {
        auto to_a = co_await joined(a);
        const auto nonsense = co_await to_a->write("nonsense");
        EXPECT_TRUE(nonsense);
        EXPECT_EQ(why(co_await hear(*to_a)), Why::Malformed);
        EXPECT_FALSE(co_await hear(*to_a));
        to_a = co_await joined(a);
        co_await say(*to_a, a_hello());
        EXPECT_EQ(why(co_await hear(*to_a)), Why::Malformed);
        co_await until([this] { return service->channels() == 0; });
    });
}

TEST_F(ServiceTest, StrangersMaySayLittle) {
    run([this]() -> asio::awaitable<void> {
        auto to = co_await channel(a);
        const auto said = co_await to->write(std::string(kMaxHello + 1, 'x'));
        EXPECT_TRUE(said);
        EXPECT_FALSE(co_await hear(*to));
        // Who is admitted may say more.
        to = co_await joined(a);
        auto longest = about(a, b);
        longest.connections.clear();
        for (std::uint16_t port = 10000; port < 10000 + kMaxConnections; port++) {
            longest.connections.push_back({port, 65534, 65533});
        }
        co_await say(*to, longest);
        co_await until([this] { return service->exchange().pairs() == 1; });
    });
}

TEST_F(ServiceTest, StrangersHaveLittleTime) {
    limits.introduction = milliseconds(100);
    run([this]() -> asio::awaitable<void> {
        auto silent = co_await plain_socket();
        auto socket = co_await plain_socket();
        const auto half = co_await Channel::connect(std::move(socket), a.tls, server.name());
        char byte = 0;
        const auto [ended, size] =
            co_await asio::async_read(silent, asio::buffer(&byte, 1), kNoThrow);
        EXPECT_TRUE(ended);
        if (half) {  // or there was not even time for that
            EXPECT_FALSE(co_await hear(**half));
        }
        co_await until([this] { return service->strangers() == 0; });
        EXPECT_EQ(counters().introduction_failed, 2);
    });
}

TEST_F(ServiceTest, NewStrangersPushOutTheOldest) {
    limits.strangers = 3;
    run([this]() -> asio::awaitable<void> {
        std::list<tcp::socket> idle;
        for (int i = 0; i < 6; i++) {
            idle.push_back(co_await plain_socket());
        }
        co_await until([this] { return counters().pushed_out == 3; });
        co_await joined(a);
        EXPECT_EQ(counters().pushed_out, 4);
    });
}

TEST_F(ServiceTest, OneAddressHasFewStrangers) {
    limits.strangers_per_address = 2;
    run([this]() -> asio::awaitable<void> {
        auto first = co_await plain_socket();
        auto second = co_await plain_socket();
        auto third = co_await plain_socket();
        char byte = 0;
        const auto [ended, size] =
            co_await asio::async_read(third, asio::buffer(&byte, 1), kNoThrow);
        EXPECT_TRUE(ended);
        EXPECT_EQ(counters().crowded, 1);
        first.close();
        co_await until([this] { return service->strangers() == 1; });
        co_await joined(a);
    });
}

TEST_F(ServiceTest, ANewChannelOfAHostEndsItsOldest) {
    limits.channels_per_host = 2;
    limits.channels = 2;
    run([this]() -> asio::awaitable<void> {
        auto first = co_await joined(a);
        auto second = co_await joined(a);
        auto third = co_await joined(a);
        EXPECT_FALSE(co_await hear(*first));
        EXPECT_EQ(counters().replaced, 1);
        // Another host finds no room.
        auto to_b = co_await channel(b);
        EXPECT_EQ(why(co_await hello(*to_b)), Why::Busy);
        second->close();
        third->close();
        co_await until([this] { return service->channels() == 0; });
        co_await joined(b);
    });
}

TEST_F(ServiceTest, WhoSaysTooMuchWaits) {
    limits.burst = 5;
    limits.messages_per_second = 10;
    run([this]() -> asio::awaitable<void> {
        auto to_a = co_await joined(a);
        for (int i = 0; i < 20; i++) {
            co_await say(*to_a, a_forget());
        }
        co_await until([this] { return counters().received == 20; });
        EXPECT_GE(counters().throttled, 1);
        EXPECT_EQ(service->channels(), 1);
    });
}

TEST_F(ServiceTest, WhoTakesNothingIsEnded) {
    limits.unsent = kMaxFrame;
    limits.burst = 1'000'000;
    run([this]() -> asio::awaitable<void> {
        auto to_a = co_await joined(a);
        auto to_b = co_await joined(b);
        auto from_a = about(a, b);
        auto from_b = about(b, a);
        from_a.connections.clear();
        from_b.connections.clear();
        for (std::uint16_t port = 10000; port < 10000 + kMaxConnections; port++) {
            from_a.connections.push_back({port, 22, port});
            from_b.connections.push_back({22, port, 22});
        }
        // Each report of B is answered by 40 kB, which B does not read.
        co_await say(*to_a, from_a);
        for (int i = 0; i < 1000 && counters().slow == 0; i++) {
            const auto said = co_await within(kSoon, to_b->write(encode(ToServer(from_b))));
            if (!said) {
                break;
            }
        }
        co_await until([this] { return counters().slow == 1; });
        EXPECT_EQ(service->channels(), 1);
        co_await say(*to_a, a_forget(from_a.pair()));
        co_await until([this] { return service->exchange().pairs() == 0; });
    });
}

TEST_F(ServiceTest, HostsThatAreAdmittedNoMoreAreEnded) {
    run([this]() -> asio::awaitable<void> {
        auto to_a = co_await joined(a);
        auto to_b = co_await joined(b);
        dir.write("hosts", b.name().to_string());
        EXPECT_TRUE(admission->reload());
        service->review(limits, exchange);
        EXPECT_FALSE(co_await hear(*to_a));
        EXPECT_EQ(service->channels(), 1);
    });
}

TEST_F(ServiceTest, StopEndsEverything) {
    std::list<ChannelPtr> open;
    std::list<tcp::socket> idle;
    run([&]() -> asio::awaitable<void> {
        open.push_back(co_await joined(a));
        open.push_back(co_await joined(b));
        idle.push_back(co_await plain_socket());
        co_await until([this] { return service->strangers() == 1; });
    });
}

TEST_F(ServiceTest, MetricsAreServedOverHttp) {
    run([this]() -> asio::awaitable<void> {
        MetricsListener metrics(io, [this] { return metrics_text(*service); });
        const auto there = metrics.listen({make_address("127.0.0.1"), 0});
        EXPECT_TRUE(there);
        const auto get = [&](const std::string& request) -> asio::awaitable<std::string> {
            tcp::socket socket(io);
            co_await socket.async_connect(*there, asio::use_awaitable);
            co_await asio::async_write(socket, asio::buffer(request), asio::use_awaitable);
            std::string answer;
            co_await asio::async_read(socket, asio::dynamic_buffer(answer), kNoThrow);
            co_return answer;
        };
        auto to_a = co_await joined(a);
        const auto good = co_await get("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        EXPECT_THAT(good, HasSubstr("200 OK"));
        EXPECT_THAT(good, HasSubstr("\nmobility_server_channels 1\n"));
        EXPECT_THAT(good, HasSubstr("mobility_server_refused_total{why=\"busy\"} 0\n"));
        EXPECT_THAT(co_await get("GET / HTTP/1.0\r\n\r\n"), HasSubstr("404 Not Found"));
        EXPECT_THAT(co_await get("POST /metrics HTTP/1.0\r\n\r\n"), HasSubstr("405"));
        EXPECT_EQ(co_await get("nonsense\r\n\r\n"), "");
        EXPECT_EQ(co_await get("GET /" + std::string(20000, 'x') + " HTTP/1.0\r\n\r\n"), "");
        metrics.stop();
        // Its coroutine ends before it goes.
        asio::steady_timer timer(io, milliseconds(20));
        co_await timer.async_wait(asio::use_awaitable);
    });
}

}  // namespace
}  // namespace mobility::server
