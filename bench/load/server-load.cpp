// SPDX-License-Identifier: GPL-2.0-or-later
// Hosts for a mobility server to bear: server-load NAME PORT TOKEN HOSTS REPORTS SECONDS
//
// Connects HOSTS hosts, each with an identity and a loopback address of its own, to the
// server NAME on this machine. When all have joined it writes a line of JSON (how many, in
// how many seconds) and waits for a line: the server's memory is read meanwhile. Then pairs
// of hosts have moved, in turn, REPORTS reports a second for SECONDS: the first host of a
// pair reports, at once its peer is asked, reports as well, and is told where the first is.
// Each report has an answer so, and a second line of JSON has the times between the two, in
// milliseconds, counted from when the report was to be made.
#include <netinet/in.h>
#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "libmobility/channel.hpp"
#include "libmobility/message.hpp"
#include "libmobility/within.hpp"

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace mobility;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kAtOnce = 32;  ///< handshakes under way: each costs both ends a signature
constexpr std::chrono::seconds kPatience(60);

struct Options {
    Name server;
    std::uint16_t port = 0;
    std::string token;
    std::size_t hosts = 0;
    double reports = 0;  ///< a second
    double seconds = 0;
};

struct Host {
    Identity identity = std::move(*Identity::create());
    Tls tls = std::move(*Tls::create(identity));
    std::unique_ptr<Channel> channel;
    Clock::time_point reported;  ///< when its last report was to be made
    bool waits = false;          ///< for the answer to it
    bool writing = false;
};

/// 127.1.0.0 and on: the server takes only so many strangers of one address.
asio::ip::address address_of(std::size_t host) {
    return asio::ip::address_v4(0x7f010000U + static_cast<std::uint32_t>(host));
}

class Load {
  public:
    Load(asio::io_context& io, Options options) : io_(io), options_(std::move(options)) {
        hosts_.resize(options_.hosts);
    }

    asio::awaitable<void> run() {
        const auto began = Clock::now();
        for (std::size_t i = 0; i < kAtOnce; i++) {
            asio::co_spawn(io_, join_more(), asio::detached);
        }
        while (joined_ + failed_ < hosts_.size()) {
            co_await pause(milliseconds(20));
        }
        const std::chrono::duration<double> took = Clock::now() - began;
        std::cout << nlohmann::json{{"joined", joined_},
                                    {"failed", failed_},
                                    {"why", why_},
                                    {"seconds", took.count()}}
                  << std::endl;
        std::string line;
        std::getline(std::cin, line);
        co_await report_all();
        std::cout << nlohmann::json{{"reports", sent_},
                                    {"ms", times_},
                                    {"late", late_},
                                    {"ended", ended_}}
                  << std::endl;
        io_.stop();
    }

  private:
    asio::awaitable<void> pause(Clock::duration time) {
        asio::steady_timer timer(io_, time);
        co_await timer.async_wait(kNoThrow);
    }

    asio::awaitable<void> join_more() {
        while (next_ < hosts_.size()) {
            const auto i = next_++;
            hosts_[i] = std::make_unique<Host>();
            const auto joined = co_await within(kPatience, join(i));
            if (joined) {
                joined_++;
                asio::co_spawn(io_, listen(i), asio::detached);
            } else {
                failed_++;
                why_ = joined.error().message;
            }
        }
    }

    Awaitable<void> join(std::size_t i) {
        auto& host = *hosts_[i];
        tcp::socket socket(io_, tcp::v4());
        // The port is chosen when the other end is known: there are enough then.
        const int late = 1;
        ::setsockopt(socket.native_handle(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late,
                     sizeof(late));
        boost::system::error_code error;
        socket.bind({address_of(i), 0}, error);
        if (!error) {
            const tcp::endpoint there(asio::ip::address_v4::loopback(), options_.port);
            std::tie(error) = co_await socket.async_connect(there, kNoThrow);
        }
        if (error) {
            co_return tcpmigrate::make_error(error.value(), error.message());
        }
        auto made = co_await Channel::connect(std::move(socket), host.tls, options_.server);
        if (!made) {
            co_return made.error();
        }
        host.channel = std::move(*made);
        Hello hello;
        hello.software = "server-load";
        hello.enrolment = options_.token;
        const auto bytes = encode(ToServer(hello));
        const auto said = co_await host.channel->write(bytes);
        if (!said) {
            co_return said.error();
        }
        const auto answer = co_await host.channel->read();
        if (!answer) {
            co_return answer.error();
        }
        const auto message = decode_to_host(*answer);
        if (!message || !std::holds_alternative<Welcome>(*message)) {
            co_return tcpmigrate::make_error(EPROTO, "no Welcome");
        }
        co_return Result<void>{};
    }

    asio::awaitable<void> listen(std::size_t i) {
        for (;;) {
            const auto bytes = co_await hosts_[i]->channel->read();
            if (!bytes) {
                break;
            }
            const auto message = decode_to_host(*bytes);
            if (!message) {
                break;
            }
            hear(i, *message);
        }
        ended_++;
    }

    static std::size_t peer_of(std::size_t i) { return i ^ 1U; }

    PairPart part(std::size_t i) const {
        return {hosts_[i]->identity.name(), before(i), {static_cast<std::uint8_t>(i)}};
    }
    /// Where it was before all moves.
    static asio::ip::address before(std::size_t i) {
        return asio::ip::address_v4(0xc6336400U + static_cast<std::uint32_t>(i % 2));
    }

    void answered(std::size_t i) {
        auto& host = *hosts_[i];
        if (host.waits) {
            host.waits = false;
            const std::chrono::duration<double, std::milli> took = Clock::now() - host.reported;
            times_.push_back(took.count());
        }
    }

    void hear(std::size_t i, const ToHost& message) {
        if (std::holds_alternative<Ask>(message)) {
            answered(peer_of(i));
            report(i, Clock::now());
        } else if (const auto* notice = std::get_if<Notice>(&message)) {
            answered(i);
            say(i, Outcome{notice->pair, notice->judgement, notice->step, true});
        }
    }

    void report(std::size_t i, Clock::time_point due) {
        const auto peer = peer_of(i);
        Report report;
        report.own = part(i);
        report.peer = part(peer);
        report.before = before(i);
        report.peer_before = before(peer);
        report.after = address_of(i);
        report.connections.push_back(i % 2 == 0 ? Ports{4000, 22, 4000} : Ports{22, 4000, 22});
        hosts_[i]->reported = due;
        hosts_[i]->waits = true;
        sent_++;
        say(i, report);
    }

    void say(std::size_t i, const ToServer& message) {
        if (hosts_[i]->writing) {
            late_++;
            return;
        }
        hosts_[i]->writing = true;
        asio::co_spawn(io_, write(i, encode(message)), asio::detached);
    }
    asio::awaitable<void> write(std::size_t i, std::string bytes) {
        static_cast<void>(co_await hosts_[i]->channel->write(std::move(bytes)));
        hosts_[i]->writing = false;
    }

    /// One pair after the other; each makes two reports.
    asio::awaitable<void> report_all() {
        const std::chrono::duration<double> every(2 / options_.reports);
        const auto rounds = static_cast<std::size_t>(options_.seconds * options_.reports / 2);
        const auto began = Clock::now();
        for (std::size_t n = 0; n < rounds; n++) {
            const auto due =
                began + std::chrono::duration_cast<Clock::duration>(static_cast<double>(n) * every);
            if (Clock::now() < due) {
                co_await pause(due - Clock::now());
            }
            report(n * 2 % hosts_.size(), due);
        }
        co_await pause(std::chrono::seconds(2));
        for (const auto& host : hosts_) {
            late_ += host->waits ? 1 : 0;
        }
    }

    asio::io_context& io_;
    Options options_;
    std::vector<std::unique_ptr<Host>> hosts_;
    std::size_t next_ = 0, joined_ = 0, failed_ = 0, sent_ = 0;
    std::size_t late_ = 0;   ///< reports without an answer, and what could not be said in time
    std::size_t ended_ = 0;  ///< channels
    std::string why_;
    std::vector<double> times_;
};

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    const auto name = words.size() == 6 ? Name::parse(words[0]) : Result<Name>(Name());
    if (words.size() != 6 || !name) {
        std::cerr << "usage: server-load NAME PORT TOKEN HOSTS REPORTS_A_SECOND SECONDS\n";
        return 2;
    }
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    asio::io_context io{1};
    Load load(io, {*name, static_cast<std::uint16_t>(std::stoul(words[1])), words[2],
                   std::stoul(words[3]) & ~1UL, std::stod(words[4]), std::stod(words[5])});
    asio::co_spawn(io, load.run(), asio::detached);
    io.run();
    return 0;
}
