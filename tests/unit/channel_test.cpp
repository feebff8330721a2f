// SPDX-License-Identifier: GPL-2.0-or-later
// Channels over loopback: who is who, order, limits, bad ends.
#include "libmobility/channel.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <functional>
#include <string>

#include "loopback.hpp"

namespace mobility {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using testing::HasSubstr;
using ChannelPtr = std::unique_ptr<Channel>;
using Made = Result<ChannelPtr>;

class ChannelTest : public LoopbackTest {
  protected:
    using Task = std::function<asio::awaitable<void>(Made, Made)>;

    /// Runs a task on both ends of a channel, or on why there is none.
    void on_channel(const Task& task, std::optional<Name> expected = {}) {
        with_sockets([&](tcp::socket connected, tcp::socket accepted) -> asio::awaitable<void> {
            std::optional<Made> client;
            asio::co_spawn(
                io,
                [&]() -> asio::awaitable<void> {
                    client =
                        co_await Channel::connect(std::move(connected), client_host.tls, expected);
                },
                asio::detached);
            Made server = co_await Channel::accept(std::move(accepted), server_host.tls);
            while (!client) {
                co_await asio::post(io, asio::use_awaitable);
            }
            co_await task(std::move(*client), std::move(server));
        });
    }

    using OnSockets = std::function<asio::awaitable<void>(tcp::socket, tcp::socket)>;

    /// Runs a task on two sockets that are connected.
    void with_sockets(const OnSockets& task) {
        tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
        tcp::socket connected(io);
        connected.connect(acceptor.local_endpoint());
        tcp::socket accepted = acceptor.accept();
        run_dry(task(std::move(connected), std::move(accepted)));
    }

    Host client_host, server_host;
};

TEST_F(ChannelTest, EachKnowsTheOtherAndTheExporterIsTheSame) {
    on_channel([this](Made client, Made server) -> asio::awaitable<void> {
        EXPECT_TRUE(client) << client.error().message;
        EXPECT_TRUE(server) << server.error().message;
        EXPECT_EQ((*client)->peer(), server_host.name());
        EXPECT_EQ((*server)->peer(), client_host.name());
        EXPECT_EQ((*client)->exporter(), (*server)->exporter());
        EXPECT_NE((*client)->exporter(), (std::array<std::uint8_t, 32>{}));
        const auto mine = (*client)->secret("EXPORTER-test");
        EXPECT_EQ(*mine, *(*server)->secret("EXPORTER-test"));
        EXPECT_NE(*mine, *(*server)->secret("EXPORTER-other"));
        EXPECT_NE(*mine, (*client)->exporter());
        EXPECT_THAT((*client)->where(), HasSubstr("127.0.0.1:"));
        co_return;
    });
}

TEST_F(ChannelTest, AnotherHostThanExpectedIsRefusedByName) {
    const auto other = Host().name();
    on_channel(
        [&](Made client, Made /*server*/) -> asio::awaitable<void> {
            EXPECT_TRUE(client.error().is(EACCES));
            EXPECT_THAT(client.error().message, HasSubstr(other.to_string()));
            EXPECT_THAT(client.error().message, HasSubstr(server_host.name().to_string()));
            co_return;
        },
        other);
}

TEST_F(ChannelTest, MessagesComeWholeAndInOrder) {
    const std::string big(kMaxFrame, 'b');
    on_channel([&](Made client, Made server) -> asio::awaitable<void> {
        EXPECT_TRUE(co_await (*client)->write("one"));
        EXPECT_TRUE(co_await (*client)->write("two"));
        EXPECT_EQ(*co_await (*server)->read(), "one");
        // Bigger than the socket's buffers at times: reader and writer take turns.
        asio::co_spawn(
            io, [&]() -> asio::awaitable<void> { EXPECT_TRUE(co_await (*client)->write(big)); },
            asio::detached);
        EXPECT_EQ(*co_await (*server)->read(), "two");
        EXPECT_EQ(*co_await (*server)->read(), big);
        EXPECT_TRUE(co_await (*server)->write("back"));
        EXPECT_EQ(*co_await (*client)->read(), "back");
    });
}

TEST_F(ChannelTest, WritesBothWaysAtOnceDoNotLock) {
    const std::string big(kMaxFrame, 'x');
    on_channel([&](Made client, Made server) -> asio::awaitable<void> {
        constexpr int kRounds = 100;
        int sent = 0;
        for (auto* end : {client->get(), server->get()}) {
            asio::co_spawn(
                io,
                [&, end]() -> asio::awaitable<void> {
                    for (int i = 0; i < kRounds; i++) {
                        EXPECT_TRUE(co_await end->write(big));
                    }
                    sent++;
                },
                asio::detached);
        }
        for (int i = 0; i < kRounds; i++) {
            EXPECT_EQ((co_await (*client)->read())->size(), big.size());
            EXPECT_EQ((co_await (*server)->read())->size(), big.size());
        }
        while (sent < 2) {
            co_await asio::post(io, asio::use_awaitable);
        }
    });
}

TEST_F(ChannelTest, TooLongAMessageIsRefusedAndTheChannelLives) {
    on_channel([](Made client, Made server) -> asio::awaitable<void> {
        const auto refused = co_await (*client)->write(std::string(kMaxFrame + 1, 'x'));
        EXPECT_TRUE(refused.error().is(EMSGSIZE));
        EXPECT_TRUE(co_await (*client)->write("still"));
        EXPECT_EQ(*co_await (*server)->read(), "still");
    });
}

TEST_F(ChannelTest, AnEndInOrderIsToldFromABrokenOne) {
    on_channel([](Made client, Made server) -> asio::awaitable<void> {
        EXPECT_TRUE(co_await (*client)->write("last"));
        (*client)->close();
        EXPECT_EQ(*co_await (*server)->read(), "last");
        EXPECT_TRUE((co_await (*server)->read()).error().is(EPIPE));
        EXPECT_TRUE((co_await (*client)->read()).error().is(ECANCELED));
        EXPECT_TRUE((co_await (*client)->write("x")).error().is(ECANCELED));
    });
    on_channel([](Made client, Made server) -> asio::awaitable<void> {
        // The socket ends without TLS saying so, as when somebody cuts it.
        EXPECT_TRUE(co_await (*server)->write("unread"));
        ::shutdown((*client)->socket().native_handle(), SHUT_WR);
        const auto ended = co_await (*server)->read();
        EXPECT_TRUE(ended.error().is(ECONNRESET));
        EXPECT_THAT(ended.error().message, HasSubstr((*server)->where()));
    });
}

TEST_F(ChannelTest, WhatWasSaidLastArrivesAlthoughMuchIsUnread) {
    on_channel([this](Made client, Made server) -> asio::awaitable<void> {
        // More than the sockets hold: it is under way when the other end finishes.
        const std::string big(kMaxFrame, 'b');
        bool refused = false;
        asio::co_spawn(
            io,
            [&]() -> asio::awaitable<void> {
                while (co_await (*client)->write(big)) {
                }
                refused = true;
            },
            asio::detached);
        for (int i = 0; i < 100; i++) {
            co_await asio::post(io, asio::use_awaitable);
        }
        EXPECT_TRUE(co_await (*server)->write("because"));
        co_await (*server)->finish(std::chrono::hours(1));
        while (!refused) {
            co_await asio::post(io, asio::use_awaitable);
        }
        EXPECT_EQ(*co_await (*client)->read(), "because");
        EXPECT_TRUE((co_await (*client)->read()).error().is(EPIPE));
    });
}

TEST_F(ChannelTest, FinishingWaitsForThePeerAndNotForEver) {
    on_channel([this](Made client, Made server) -> asio::awaitable<void> {
        bool over = false;
        asio::co_spawn(
            io,
            [&]() -> asio::awaitable<void> {
                co_await (*server)->finish(std::chrono::hours(1));
                over = true;
            },
            asio::detached);
        EXPECT_TRUE((co_await (*client)->read()).error().is(EPIPE));
        EXPECT_FALSE(over);
        (*client)->close();
        while (!over) {
            co_await asio::post(io, asio::use_awaitable);
        }
    });
    on_channel([](Made /*client*/, Made server) -> asio::awaitable<void> {
        co_await (*server)->finish(std::chrono::milliseconds(1));
        EXPECT_FALSE((*server)->socket().is_open());
    });
    on_channel([this](Made /*client*/, Made server) -> asio::awaitable<void> {
        asio::post(io, [&] { (*server)->close(); });
        co_await (*server)->finish(std::chrono::hours(1));
        co_await (*server)->finish(std::chrono::hours(1));
    });
}

TEST_F(ChannelTest, WritingToAnEndThatIsGoneIsAnErrorNotASignal) {
    on_channel([](Made client, Made server) -> asio::awaitable<void> {
        client->reset();
        Result<void> written;
        for (int i = 0; i < 10 && written; i++) {
            written = co_await (*server)->write("x");
        }
        EXPECT_FALSE(written);
    });
}

TEST_F(ChannelTest, CloseEndsAReadThatWaits) {
    on_channel([this](Made client, Made server) -> asio::awaitable<void> {
        asio::post(io, [&] { (*server)->close(); });
        EXPECT_TRUE((co_await (*server)->read()).error().is(ECANCELED));
        (*client)->close();
    });
}

TEST_F(ChannelTest, RubbishInsteadOfAHandshakeIsAnError) {
    with_sockets([this](tcp::socket connected, tcp::socket accepted) -> asio::awaitable<void> {
        co_await asio::async_write(connected, asio::buffer(std::string("GET / HTTP/1.0\r\n\r\n")),
                                   asio::use_awaitable);
        const auto made = co_await Channel::accept(std::move(accepted), server_host.tls);
        EXPECT_TRUE(made.error().is(ECONNRESET));
        EXPECT_THAT(made.error().message, HasSubstr("127.0.0.1:"));
    });
}

TEST_F(ChannelTest, AClientWithoutCertificateOrWithAnotherKindIsRefused) {
    const std::unique_ptr<SSL_CTX, FreedBy<SSL_CTX_free>> bare(SSL_CTX_new(TLS_method()));
    with_sockets([&](tcp::socket connected, tcp::socket accepted) -> asio::awaitable<void> {
        const std::unique_ptr<SSL, FreedBy<SSL_free>> ssl(SSL_new(bare.get()));
        connected.native_non_blocking(true);
        SSL_set_fd(ssl.get(), connected.native_handle());
        bool over = false;
        asio::co_spawn(
            io,
            [&]() -> asio::awaitable<void> {
                const auto made = co_await Channel::accept(std::move(accepted), server_host.tls);
                EXPECT_TRUE(made.error().is(ECONNRESET)) << made.error().message;
                over = true;
            },
            asio::detached);
        while (!over) {
            SSL_connect(ssl.get());
            co_await asio::post(io, asio::use_awaitable);
        }
    });
}

}  // namespace
}  // namespace mobility
