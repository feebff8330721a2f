// SPDX-License-Identifier: GPL-2.0-or-later
// The client daemon's parts: configuration, table of connections, moves, control socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "daemon/config.hpp"
#include "daemon/control.hpp"
#include "daemon/mover.hpp"
#include "daemon/table.hpp"
#include "fake_kernel.hpp"
#include "libmobility/within.hpp"
#include "loopback.hpp"
#include "quiet.hpp"
#include "temporary.hpp"
#include "watch_host.hpp"

namespace mobility::client {
namespace {

namespace asio = boost::asio;
using nlohmann::json;
using std::chrono::milliseconds;
using tcpmigrate::Address;
using tcpmigrate::Reason;
using tcpmigrate::State;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// ---- Configuration ----

std::string wrong(const std::string& text) {
    const auto config = parse_config(text, "file");
    EXPECT_FALSE(config) << text;
    return config ? "" : config.error().message;
}

TEST(ClientConfig, SettingsAreTaken) {
    const auto config = parse_config(R"(
[control]
socket = "/run/x"
group = "staff"
[moves]
better_place = "stay"
leave_deprecated = true
temporary_addresses = "avoid"
hold_ms = 0
[[interface]]
name = "wlan*"
rank = 2
[[interface]]
kind = "veth"
use = false
[client]
identity = "/key"
[peers]
exchange = false
listen = ["192.0.2.1:9"]
port = 9
exclusive = false
require = "listed"
retry_seconds = 7
vouching_servers = ["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
[servers]
accept_of_peers = false
vouchers = false
ticket_hours = 2
[[server]]
name = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
address6 = "2001:db8::1"
port = 99
[log]
level = "debug"
lines = 7
)",
                                     "file");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->control, "/run/x");
    EXPECT_EQ(config->control_group, "staff");
    EXPECT_EQ(config->watch.policy.better, watch::Policy::Better::Stay);
    EXPECT_TRUE(config->watch.policy.leave_deprecated);
    EXPECT_EQ(config->watch.temporary, watch::Config::Temporary::Avoid);
    EXPECT_EQ(config->watch.hold, milliseconds(0));
    EXPECT_EQ(config->watch.rule_for("wlan0", "").rank, 2);
    EXPECT_FALSE(config->watch.rule_for("x", "veth").use);
    EXPECT_EQ(config->log_level, "debug");
    EXPECT_EQ(config->log_lines, 7);
    EXPECT_EQ(config->identity, "/key");
    EXPECT_FALSE(config->peers.exchange);
    EXPECT_EQ(config->peers.port, 9);
    EXPECT_FALSE(config->peers.exclusive);
    EXPECT_EQ(config->peers.retry, std::chrono::seconds(7));
    EXPECT_EQ(config->trust.require, TrustConfig::Require::Listed);
    EXPECT_THAT(config->trust.vouching, testing::ElementsAre(config->servers.at(0).place.host));
    EXPECT_FALSE(config->vouchers);
    EXPECT_FALSE(config->accept_servers);
    EXPECT_EQ(config->tickets, std::chrono::hours(2));
    ASSERT_THAT(config->servers, SizeIs(1));
    EXPECT_FALSE(config->servers[0].place.address);
    EXPECT_EQ(config->servers[0].place.address6->to_string(), "2001:db8::1");
    EXPECT_EQ(config->servers[0].place.port, 99);
}

/// The file that is installed says what the defaults are, and nothing else.
TEST(ClientConfig, DocumentedFileIsTheDefault) {
    std::ifstream in(MOBILITY_CLIENT_TOML);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    ASSERT_FALSE(text.empty());
    const auto config = parse_config(text, "file");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(*config, Config());
    // What is only shown is right as well, but for a file that is not there.
    const auto with_token = std::regex_replace(text, std::regex("# ((\\w+ = )|(\\[\\[))"), "$1");
    const auto shown = std::regex_replace(with_token, std::regex("token_file = .*"), "");
    const auto all = parse_config(shown, "file");
    ASSERT_TRUE(all) << all.error().message;
    EXPECT_THAT(all->watch.interfaces, SizeIs(1));
    ASSERT_THAT(all->servers, SizeIs(1));
    EXPECT_EQ(all->servers[0].place.port, kServerPort);
}

TEST(ClientConfig, MistakesAreNamedWithTheirLine) {
    EXPECT_THAT(wrong("[[interface]]\nnmae = \"x\"\n"),
                HasSubstr("file:2: there is no setting \"nmae\" in [[interface]]"));
    EXPECT_THAT(wrong("[interface]\nname = \"x\"\n"), HasSubstr("must be sections"));
    EXPECT_THAT(wrong("[moves]\nbetter_place = \"run\"\n"), HasSubstr("trial, stay"));
    EXPECT_THAT(wrong("[moves]\nleave_deprecated = 1\n"), HasSubstr("must be true or false"));
    EXPECT_THAT(wrong("[moves]\nhold_ms = -1\n"), HasSubstr("number from 0"));
    EXPECT_THAT(wrong("[log]\nlines = 0\n"), HasSubstr("number from 1"));
    EXPECT_THAT(wrong("[[server]]\nname = \"me\"\n"), HasSubstr("file:2: name must be 64"));
    EXPECT_THAT(wrong("[[server]]\naddress = \"192.0.2.1\"\n"), HasSubstr("needs its name"));
    EXPECT_THAT(wrong("[[server]]\ntoken_file = \"/nonexistent\"\n"), HasSubstr("file:2:"));
    EXPECT_THAT(wrong("[peers]\nrequire = \"all\"\n"), HasSubstr("any, vouched, pinned, listed"));
    EXPECT_THAT(wrong("[peers]\nrequire = \"vouched\"\n"), HasSubstr("needs vouching_servers"));
    EXPECT_THAT(wrong("[peers]\nvouching_servers = [\"me\"]\n"), HasSubstr("64 hexadecimal"));
    EXPECT_THAT(wrong("[peers]\nvouching_servers = \"me\"\n"), HasSubstr("must be a list"));
}

// ---- Table and moves ----

class DaemonTest : public testing::Test {
  protected:
    DaemonTest() {
        kernel.connections = {fake::sample(17), fake::sample(18)};
        auto opened =
            Table::over(io, quiet(), fake::make_transport(kernel), fake::make_events(kernel));
        EXPECT_TRUE(opened) << opened.error().message;
        table = std::move(*opened);
        mover = std::make_unique<Mover>(*table, watch::Policy(), quiet());
        table->start([this](const Connection& c) { mover->on_event(c); },
                     [this](bool reread) { mover->on_batch(reread); });
        mover->on_batch(true);
    }
    /// The host has changed so; time goes on by a second.
    void happens(const std::string& changes) {
        host.does(changes);
        time += std::chrono::seconds(1);
        const auto before = view;
        view = watch::make_view(host.state, watch::Config(), before, time);
        mover->on_view(before, view);
    }
    void event(const Connection& connection) {
        kernel.events.emplace_back(std::vector{connection});
        table->take();
    }
    /// A connection after its move to this address.
    static Connection moved(std::uint64_t cookie, const char* to, std::uint32_t times = 1) {
        auto connection = fake::sample(cookie);
        connection.local.address = *Address::parse(to);
        connection.migrations = times;
        connection.reason = Reason::Committed;
        return connection;
    }
    /// The commands since the last call.
    std::vector<fake::Request> commands() {
        std::vector<fake::Request> out;
        for (const auto& request : kernel.requests) {
            if (request.command == TCP_MIGRATE_CMD_MIGRATE_ALL) {
                out.push_back(request);
            }
        }
        kernel.requests.clear();
        return out;
    }
    /// The host is where its connections are.
    void at_home() {
        happens("link eth0; addr 192.0.2.1/24 dev eth0; route default via 192.0.2.254 dev eth0");
        EXPECT_THAT(commands(), IsEmpty());
    }

    asio::io_context io{1};
    fake::Kernel kernel;
    std::unique_ptr<Table> table;
    std::unique_ptr<Mover> mover;
    watch::TestHost host;
    watch::View view;
    watch::Time time;
};

TEST_F(DaemonTest, TableFollowsEvents) {
    EXPECT_THAT(table->all(), SizeIs(2));
    event(fake::sample(19));
    EXPECT_NE(table->find(19), nullptr);
    auto gone = fake::sample(17);
    gone.state = State::None;
    gone.reason = Reason::Closed;
    event(gone);
    EXPECT_EQ(table->find(17), nullptr);
    EXPECT_EQ(table->counters().events, 2);
}

TEST_F(DaemonTest, LostEventsHaveEverythingReadAnew) {
    kernel.connections = {fake::sample(20)};
    kernel.events.emplace_back(ENOBUFS);
    table->take();
    EXPECT_THAT(table->all(), SizeIs(1));
    EXPECT_NE(table->find(20), nullptr);
    EXPECT_EQ(table->counters().overruns, 1);
    EXPECT_EQ(table->counters().reread, 2);
}

TEST_F(DaemonTest, KernelThatCannotBeReadChangesNothing) {
    kernel.refuse[TCP_MIGRATE_CMD_GET] = ENOMEM;
    kernel.events.emplace_back(ENOBUFS);
    table->take();
    EXPECT_THAT(table->all(), SizeIs(2));
    EXPECT_EQ(table->counters().errors, 1);
}

TEST_F(DaemonTest, KernelWithoutTheExtensionIsNamed) {
    kernel.refuse[TCP_MIGRATE_CMD_GET] = EOPNOTSUPP;
    const auto opened =
        Table::over(io, quiet(), fake::make_transport(kernel), fake::make_events(kernel));
    ASSERT_FALSE(opened);
    EXPECT_TRUE(opened.error().is(EOPNOTSUPP));
}

TEST_F(DaemonTest, NewAddressTakesAllAlong) {
    at_home();
    kernel.migrate_all_reply.count = 2;
    happens(
        "addr del 192.0.2.1/24 dev eth0; addr 203.0.113.5/24 dev eth0;"
        "route default via 203.0.113.254 dev eth0");
    const auto made = commands();
    ASSERT_THAT(made, SizeIs(1));
    EXPECT_EQ(made[0].address(TCP_MIGRATE_A_CONN_LOCAL_ADDR), "192.0.2.1");
    EXPECT_EQ(made[0].address(TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR), "203.0.113.5");
    EXPECT_FALSE(made[0].has(TCP_MIGRATE_A_CONN_FLAGS) &&
                 made[0].u32(TCP_MIGRATE_A_CONN_FLAGS) != 0);
    EXPECT_EQ(mover->counters().begun, 2);
}

TEST_F(DaemonTest, BetterPlaceIsTriedOnce) {
    at_home();
    happens("link wlan0; addr 203.0.113.5/24 dev wlan0; route default dev wlan0 table 9");
    commands();
    // As people have it: the new interface has the better default route, each address its own.
    happens(
        "rule prio 5 from 203.0.113.5 lookup 9; rule prio 5 from 192.0.2.1 lookup 8;"
        "route default via 192.0.2.254 dev eth0 table 8;"
        "route del default via 192.0.2.254 dev eth0;"
        "route default via 192.0.2.254 dev eth0 metric 700;"
        "route default via 203.0.113.254 dev wlan0 metric 600");
    const auto made = commands();
    ASSERT_THAT(made, SizeIs(1));
    EXPECT_EQ(made[0].u32(TCP_MIGRATE_A_CONN_FLAGS), 1);  // a trial
    // It fails; an unrelated event does not repeat it.
    auto failed = fake::sample(17);
    failed.reason = Reason::TrialFailed;
    event(failed);
    event(moved(18, "192.0.2.1"));
    EXPECT_THAT(commands(), SizeIs(testing::Le(1)));
}

TEST_F(DaemonTest, WithoutAPathATrialIsAMove) {
    auto waiting = fake::sample(17);
    waiting.state = State::MigWait;
    event(waiting);
    table->has_begun(17, true);
    table->has_begun(18, true);
    table->has_begun(99, true);
    EXPECT_THAT(table->trials(), testing::ElementsAre(18));
    // That is under way, with the old path in use: so is another trial.
    auto trying = fake::sample(18);
    trying.state = State::MigSent;
    trying.new_local.address = *Address::parse("203.0.113.5");
    event(trying);
    table->has_begun(18, true);
    EXPECT_THAT(table->trials(), testing::ElementsAre(18));
    table->has_begun(18, false);
    EXPECT_THAT(table->trials(), IsEmpty());
    table->has_begun(18, true);
    EXPECT_THAT(table->trials(), IsEmpty()) << "it has left the old path";
    EXPECT_EQ(table->place_of(*table->find(18)), *Address::parse("203.0.113.5"));
}

TEST_F(DaemonTest, ATrialThatTheKernelRefusesIsNone) {
    at_home();
    happens("link wlan0; addr 203.0.113.5/24 dev wlan0; route default dev wlan0 table 9");
    kernel.migrate_all_reply.failed = 2;
    happens(
        "rule prio 5 from 203.0.113.5 lookup 9; rule prio 5 from 192.0.2.1 lookup 8;"
        "route default via 192.0.2.254 dev eth0 table 8;"
        "route del default via 192.0.2.254 dev eth0;"
        "route default via 192.0.2.254 dev eth0 metric 700;"
        "route default via 203.0.113.254 dev wlan0 metric 600");
    EXPECT_THAT(commands(), SizeIs(1));
    EXPECT_THAT(table->trials(), IsEmpty());
}

TEST_F(DaemonTest, WhoMissedSomethingWhileMovingIsAskedAgain) {
    at_home();
    happens(
        "addr del 192.0.2.1/24 dev eth0; addr 203.0.113.5/24 dev eth0;"
        "route default via 203.0.113.254 dev eth0");
    commands();
    // The kernel has moved it to an address that is gone already.
    event(moved(17, "198.51.100.77"));
    const auto made = commands();
    ASSERT_FALSE(made.empty());
    EXPECT_EQ(mover->counters().committed, 1);
    bool found = false;
    for (const auto& request : made) {
        found = found || request.address(TCP_MIGRATE_A_CONN_LOCAL_ADDR) == "198.51.100.77";
    }
    EXPECT_TRUE(found);
}

TEST_F(DaemonTest, OnlyTheOtherFamilyIsNotNative) {
    at_home();
    happens(
        "addr del 192.0.2.1/24 dev eth0; addr 2001:db8::5/64 dev eth0;"
        "route default6 via 2001:db8::1 dev eth0");
    time += std::chrono::seconds(10);
    happens("");
    EXPECT_THAT(commands(), IsEmpty());
    ASSERT_THAT(mover->stuck(), SizeIs(1));
    EXPECT_EQ(mover->stuck().begin()->second.what, watch::Move::What::NotNative);
    EXPECT_EQ(mover->counters().not_native, 1);
}

TEST_F(DaemonTest, RefusalOfTheKernelIsCounted) {
    at_home();
    kernel.refuse[TCP_MIGRATE_CMD_MIGRATE_ALL] = EPERM;
    happens(
        "addr del 192.0.2.1/24 dev eth0; addr 203.0.113.5/24 dev eth0;"
        "route default via 203.0.113.254 dev eth0");
    EXPECT_EQ(mover->counters().refused, 1);
}

// ---- Control socket ----

class ControlTest : public LoopbackTest {
  protected:
    ControlTest()
        : control(
              io,
              [](const ControlRequest& request) -> Result<json> {
                  if (request.command == "fail") {
                      return tcpmigrate::make_error(ENOENT, "nothing");
                  }
                  return json{{"echo", request.command}};
              },
              quiet()) {}

    /// What the socket says to these lines.
    asio::awaitable<std::string> say(std::string text, int lines) {
        asio::local::stream_protocol::socket socket(io);
        co_await socket.async_connect(dir.at("control").string(), asio::use_awaitable);
        co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
        std::string answer;
        for (int i = 0; i < lines; i++) {
            std::string buffer;
            const auto [failed, size] = co_await asio::async_read_until(
                socket, asio::dynamic_buffer(buffer), '\n', kNoThrow);
            answer += buffer;
            if (failed) {
                answer += "(end)";
                break;
            }
        }
        co_return answer;
    }
    asio::awaitable<void> until(const std::function<bool()>& so) {
        while (!so()) {
            asio::steady_timer timer(io, milliseconds(1));
            co_await timer.async_wait(asio::use_awaitable);
        }
    }
    void run(std::function<asio::awaitable<void>()> task) {
        const auto listening = control.listen(dir.at("control"), "");
        ASSERT_TRUE(listening) << listening.error().message;
        run_dry(task(), [this] { control.stop(); });
    }

    Temporary dir;
    Control control;
};

TEST(ControlRequests, AreReadWithWhatTheyDoNotKnowLeftOut) {
    const auto read = [](const char* line) { return *parse_request(line); };
    EXPECT_EQ(read(R"({"command":"log","lines":7,"follow":true})"),
              (ControlRequest{"log", 7, true}));
    EXPECT_EQ(read(R"({"command":"log","lines":-7,"follow":1,"x":[]})"),
              (ControlRequest{"log", 0, false}));
    for (const auto* line : {"", "{", "[]", "7", "null", R"("command")", R"({"command":null})"}) {
        EXPECT_FALSE(parse_request(line)) << line;
    }
}

TEST_F(ControlTest, AnswersLineByLine) {
    run([this]() -> asio::awaitable<void> {
        const auto said = co_await say("{\"command\":\"a\"}\n", 1);
        EXPECT_EQ(said, "{\"echo\":\"a\"}\n");
        const auto failed = co_await say("{\"command\":\"fail\"}\n", 1);
        EXPECT_THAT(failed, HasSubstr("\"errno\":2"));
    });
    EXPECT_EQ(control.requests(), 2);
}

TEST_F(ControlTest, WhoFollowsIsToldWhatComes) {
    run([this]() -> asio::awaitable<void> {
        asio::local::stream_protocol::socket socket(io);
        co_await socket.async_connect(dir.at("control").string(), asio::use_awaitable);
        const std::string request = "{\"command\":\"log\",\"follow\":true}\n";
        co_await asio::async_write(socket, asio::buffer(request), asio::use_awaitable);
        std::string buffer;
        const auto line = [&]() -> asio::awaitable<std::string> {
            const auto size = co_await asio::async_read_until(socket, asio::dynamic_buffer(buffer),
                                                              '\n', asio::use_awaitable);
            auto out = buffer.substr(0, size);
            buffer.erase(0, size);
            co_return out;
        };
        EXPECT_EQ(co_await line(), "{\"echo\":\"log\"}\n");
        control.tell("one");
        control.tell("two");
        EXPECT_EQ(co_await line(), "\"one\"\n");
        EXPECT_EQ(co_await line(), "\"two\"\n");
        control.tell("three");
        EXPECT_EQ(co_await line(), "\"three\"\n");
        EXPECT_EQ(control.followers(), 1);
        socket.close();
        co_await until([this] { return control.followers() == 0; });
    });
}

TEST_F(ControlTest, WhoFollowsAndDoesNotReadIsClosed) {
    run([this]() -> asio::awaitable<void> {
        std::list<asio::local::stream_protocol::socket> sockets;
        const std::string request = "{\"command\":\"log\",\"follow\":true}\n";
        for (std::size_t i = 0; i < Control::kMaxFollowers; i++) {
            auto& socket = sockets.emplace_back(io);
            co_await socket.async_connect(dir.at("control").string(), asio::use_awaitable);
            co_await asio::async_write(socket, asio::buffer(request), asio::use_awaitable);
        }
        co_await until([this] { return control.followers() == Control::kMaxFollowers; });
        EXPECT_THAT(co_await say(request, 1), HasSubstr("so many follow"));
        control.tell(std::string(Control::kMaxUntold + 1, 'x'));
        co_await until([this] { return control.followers() == 0; });
    });
}

TEST_F(ControlTest, NonsenseIsRefusedAndCounted) {
    run([this]() -> asio::awaitable<void> {
        for (const auto* line : {"nonsense\n", "[]\n", "{}\n", "{\"command\":7}\n", "\n"}) {
            const auto said = co_await say(line, 1);
            EXPECT_THAT(said, HasSubstr("a request is an object")) << line;
        }
        const auto said = co_await say(std::string(5000, 'x') + "\n", 1);
        EXPECT_EQ(said, "(end)");
    });
    EXPECT_EQ(control.refused(), 6);
}

TEST_F(ControlTest, OnlyOwnerAndGroupMayAsk) {
    run([this]() -> asio::awaitable<void> {
        struct stat info {};
        EXPECT_EQ(::stat(dir.at("control").c_str(), &info), 0);
        EXPECT_EQ(info.st_mode & 0777, 0660U);
        co_return;
    });
}

TEST_F(ControlTest, SecondDaemonIsToldSo) {
    run([this]() -> asio::awaitable<void> {
        Control other(
            io, [](const ControlRequest&) -> Result<json> { return json(); }, quiet());
        const auto listening = other.listen(dir.at("control"), "");
        EXPECT_FALSE(listening);
        EXPECT_TRUE(listening.error().is(EADDRINUSE));
        co_return;
    });
}

TEST_F(ControlTest, SocketOfADeadDaemonIsReplaced) {
    {
        asio::local::stream_protocol::acceptor dead(io);
        dead.open();
        dead.bind(asio::local::stream_protocol::endpoint(dir.at("control").string()));
    }
    run([this]() -> asio::awaitable<void> {
        const auto said = co_await say("{\"command\":\"a\"}\n", 1);
        EXPECT_THAT(said, HasSubstr("echo"));
    });
}

TEST_F(ControlTest, GroupThatDoesNotExistIsNamed) {
    const auto listening = control.listen(dir.at("control"), "no-such-group");
    ASSERT_FALSE(listening);
    EXPECT_THAT(listening.error().message, HasSubstr("no-such-group"));
}

}  // namespace
}  // namespace mobility::client
