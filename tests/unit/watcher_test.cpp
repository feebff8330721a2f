// SPDX-License-Identifier: GPL-2.0-or-later
// The Watcher on the running kernel, which need not be patched: each test in a network
// namespace of its own, in a child process. What is changed is changed by ip(8).
#include "watch/watcher.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <spdlog/sinks/null_sink.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "watch/decide.hpp"

namespace mobility::watch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

constexpr seconds kSoon(10);  // for what happens at once: a limit that fails the test

Address ip(const std::string& text) {
    return *Address::parse(text);
}

/// Runs ip(8) on lines of a batch.
void ip_batch(const std::string& lines, const char* family = "-4") {
    const std::string command = std::string("ip ") + family + " -force -batch - >/dev/null";
    FILE* pipe = ::popen(command.c_str(), "w");
    std::fputs(lines.c_str(), pipe);
    if (::pclose(pipe) != 0) {
        std::cout << "ip has failed:\n" << lines << std::flush;
        ::_exit(1);  // of the child: nothing that follows makes sense
    }
}

void ip6_batch(const std::string& lines) {
    ip_batch(lines, "-6");
}

/// An interface with a carrier, which "peer-NAME" gives and takes.
std::string link(const std::string& name) {
    return "link add " + name + " type veth peer name peer-" + name + "\nlink set peer-" + name +
           " addrgenmode none up\nlink set " + name + " addrgenmode none up\n";
}

void set(const std::string& sysctl) {
    ASSERT_EQ(std::system(("sysctl -qw " + sysctl).c_str()), 0);
}

/// A Watcher and what it has handed out, in a namespace.
class Scene {
  public:
    explicit Scene(const Config& config = with_veth()) {
        auto opened = Watcher::open(io, config, log());
        EXPECT_TRUE(opened) << opened.error().message;
        watcher = std::move(*opened);
        watcher->start([this](const View& before, const View& after) {
            if (on_view) {
                on_view(before, after);
            }
            views++;
        });
        io.poll();
    }
    Scene(const Scene&) = delete;
    Scene& operator=(const Scene&) = delete;
    ~Scene() {
        watcher->stop();
        io.restart();
        io.run_for(kSoon);
        EXPECT_TRUE(io.stopped()) << "something is still under way";
    }

    /// A namespace has no hardware: veth has to do.
    static Config with_veth() {
        Config config;
        config.interfaces = {{.name = "eth*", .kind = "veth"}};
        return config;
    }
    static Log log() {
        return std::make_shared<spdlog::logger>("test",
                                                std::make_shared<spdlog::sinks::null_sink_mt>());
    }

    /// Runs until the view is so.
    ::testing::AssertionResult until(const std::function<bool(const View&)>& so) {
        const auto end = std::chrono::steady_clock::now() + kSoon;
        while (!so(watcher->view()) && std::chrono::steady_clock::now() < end) {
            io.run_one_for(milliseconds(100));
        }
        return so(watcher->view()) ? ::testing::AssertionSuccess()
                                   : ::testing::AssertionFailure() << "the view is not so";
    }
    /// Takes what has come and hands it out, also what waits for the end of its burst.
    void take_all() {
        for (int i = 0; i < 3; i++) {
            io.poll();
            std::this_thread::sleep_for(kAfterBurst);
        }
    }
    [[nodiscard]] const Place* place(const std::string& address) const {
        const auto& places = watcher->view().places;
        const auto found = std::ranges::find(places, ip(address), &Place::address);
        return found == places.end() ? nullptr : &*found;
    }
    ::testing::AssertionResult until_running(const std::string& name) {
        return until([&](const View&) {
            const auto& links = watcher->state().links();
            return std::ranges::any_of(
                links, [&](const auto& l) { return l.second.name == name && l.second.running; });
        });
    }
    ::testing::AssertionResult until_reach(const std::string& address, Reach reach) {
        return until([&](const View&) {
            const auto* there = place(address);
            return there != nullptr && there->reach == reach && !there->tentative;
        });
    }

    static constexpr milliseconds kAfterBurst{5};  // longer than Config's

    boost::asio::io_context io{1};
    std::unique_ptr<Watcher> watcher;
    std::function<void(const View&, const View&)> on_view;
    int views = 0;
};

class WatcherTest : public testing::Test {
  protected:
    /// Runs the body in a child with a network namespace of its own, with lo up.
    static void in_namespace(const std::function<void()>& body) {
        if (::geteuid() != 0) {
            GTEST_SKIP() << "needs root for a network namespace";
        }
        std::cout.flush();
        const pid_t child = ::fork();
        if (child == 0) {
            int code = kNoNamespace;
            if (::unshare(CLONE_NEWNET) == 0) {
                ip_batch("link set lo up\n");
                body();
                code = HasFailure() ? 1 : 0;
            }
            std::cout.flush();
            std::fflush(stdout);
            ::_exit(code);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
        if (WEXITSTATUS(status) == kNoNamespace) {
            GTEST_SKIP() << "network namespaces are not to be had here";
        }
        EXPECT_EQ(WEXITSTATUS(status), 0) << "see above";
    }

    static constexpr int kNoNamespace = 99;
};

const std::string kAddress = "addr add 192.0.2.10/24 dev eth0\nroute add default via 192.0.2.1\n";
const std::string kCable = link("eth0") + kAddress;
const std::string kSecond = link("eth1") + "addr add 198.51.100.20/24 dev eth1\n";

TEST_F(WatcherTest, ReadsWhatThereIs) {
    in_namespace([] {
        ip_batch(kCable + kSecond + "link set peer-eth1 down\n");
        ip6_batch(
            "addr add 2001:db8::10/64 dev eth0 nodad\n"
            "route add default via fe80::1 dev eth0 metric 512\n");
        Scene scene;
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        EXPECT_EQ(scene.place("192.0.2.10")->gateway, ip("192.0.2.1"));
        EXPECT_EQ(scene.place("192.0.2.10")->interface_name, "eth0");
        EXPECT_TRUE(scene.until_reach("2001:db8::10", Reach::Everywhere));
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Nowhere)) << "its peer is down";
        const auto& view = scene.watcher->view();
        EXPECT_THAT(view.others, testing::Contains(ip("127.0.0.1")));
        EXPECT_TRUE(view.works(*scene.place("192.0.2.10"), ip("203.0.113.1")));
        EXPECT_FALSE(view.works(*scene.place("198.51.100.20"), ip("198.51.100.1")));
    });
}

TEST_F(WatcherTest, KindsAreKnown) {
    in_namespace([] {
        ip_batch(kCable + "link add br0 type bridge\n");
        const Scene scene(Config{});
        EXPECT_THAT(scene.watcher->view().places, IsEmpty());
        std::set<std::string> kinds;
        for (const auto& [index, link] : scene.watcher->state().links()) {
            kinds.insert(link.kind);
        }
        EXPECT_THAT(kinds, testing::IsSupersetOf({"bridge", "veth"}));
    });
}

/// CPU time that this thread has used.
std::chrono::nanoseconds cpu() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

#ifdef __SANITIZE_ADDRESS__
constexpr milliseconds kLittleTime(20);
#else
constexpr milliseconds kLittleTime(1);
#endif

TEST_F(WatcherTest, AGainIsHandedOutWithoutATimer) {
    in_namespace([] {
        ip_batch(link("eth0"));
        Config config = Scene::with_veth();
        config.quiet = config.longest = seconds(3600);
        Scene scene(config);
        EXPECT_TRUE(scene.until_running("eth0"));
        std::vector<Move> moves;
        scene.on_view = [&](const View& before, const View& after) {
            const std::vector<Use> uses{{.local = ip("192.0.2.99"), .remote = ip("203.0.113.5")}};
            moves = decide(before, after, uses, {});
        };
        ip_batch(kAddress);
        // Everything is in the socket: it only has to be taken, without waiting for anything.
        const auto began = cpu();
        scene.io.poll();
        const auto used = std::chrono::duration_cast<std::chrono::microseconds>(cpu() - began);
        ASSERT_THAT(moves, SizeIs(1));
        EXPECT_EQ(moves[0].what, Move::What::Move);
        EXPECT_EQ(moves[0].to, ip("192.0.2.10"));
        std::cout << "from the kernel's messages to the move: " << used.count() << " us of CPU\n";
        EXPECT_LT(used, kLittleTime);
    });
}

TEST_F(WatcherTest, ALossWaitsForTheEndOfItsBurst) {
    in_namespace([] {
        ip_batch(kCable);
        Config config = Scene::with_veth();
        config.hold = {};
        config.quiet = config.longest = milliseconds(300);
        Scene scene(config);
        ip_batch("addr del 192.0.2.10/24 dev eth0\n");
        scene.io.poll();
        EXPECT_EQ(scene.views, 1);
        EXPECT_TRUE(scene.until([](const View& view) { return view.places.empty(); }));
        EXPECT_EQ(scene.views, 2);
    });
}

TEST_F(WatcherTest, WhatPassesInABurstIsNotHandedOut) {
    in_namespace([] {
        ip_batch(kCable);
        Config config = Scene::with_veth();
        config.quiet = config.longest = milliseconds(300);
        Scene scene(config);
        ip_batch("route add 10.0.0.0/8 dev eth0 metric 7\nroute del 10.0.0.0/8\n");
        scene.io.poll();
        scene.io.run_for(milliseconds(500));
        EXPECT_EQ(scene.views, 1);
    });
}

TEST_F(WatcherTest, ARenewalToAnotherAddress) {
    in_namespace([] {
        ip_batch(kCable);
        Scene scene;
        ip_batch("addr flush dev eth0\n");
        EXPECT_TRUE(scene.until([&](const View&) {
            return scene.place("192.0.2.10") != nullptr && !scene.place("192.0.2.10")->present;
        }));
        ip_batch("addr add 192.0.2.11/24 dev eth0\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.11", Reach::Near));
        ip_batch("route add default via 192.0.2.1\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.11", Reach::Everywhere));
        EXPECT_TRUE(scene.until([&](const View&) { return !scene.place("192.0.2.10"); }))
            << "the hold has to end by itself";
    });
}

TEST_F(WatcherTest, RoutesThatVanishWithoutAWord) {
    in_namespace([] {
        ip_batch(kCable);
        Scene scene;
        // An interface that is set down takes its IPv4 routes along, and tells of the link only.
        ip_batch("link set eth0 down\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Nowhere));
        EXPECT_THAT(scene.watcher->state().routing().routes(), IsEmpty());
        ip_batch("link set eth0 up\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Near));
        ip_batch("route add default via 192.0.2.1\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        ip_batch("addr del 192.0.2.10/24 dev eth0\naddr add 192.0.2.10/24 dev eth0\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Near));
        EXPECT_EQ(scene.watcher->counters().reread, 1);
    });
}

TEST_F(WatcherTest, CarrierComesAndGoes) {
    in_namespace([] {
        ip_batch(kCable);
        Scene scene;
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        ip_batch("link set peer-eth0 down\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Nowhere));
        EXPECT_TRUE(scene.place("192.0.2.10")->held);
        ip_batch("link set peer-eth0 up\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        EXPECT_FALSE(scene.place("192.0.2.10")->held);
        ip_batch("link del eth0\n");
        EXPECT_TRUE(scene.until([](const View& view) { return view.places.empty(); }));
    });
}

TEST_F(WatcherTest, RoutesOfADeadLinkIfTheKernelIgnoresThem) {
    in_namespace([] {
        ip_batch(kCable + kSecond +
                 "link set peer-eth1 down\n"
                 "route add default via 192.0.2.1 metric 600\nroute del default metric 0\n"
                 "route add default via 198.51.100.1 metric 100\n");
        Scene scene;
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Near)) << "the dead link is preferred";
        set("net.ipv4.conf.all.ignore_routes_with_linkdown=1");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        set("net.ipv4.conf.all.ignore_routes_with_linkdown=0");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Near));
        set("net.ipv4.conf.eth1.ignore_routes_with_linkdown=1");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
    });
}

TEST_F(WatcherTest, AddressesOfIPv6) {
    in_namespace([] {
        ip_batch(link("eth0"));
        Scene scene;
        EXPECT_TRUE(scene.until_running("eth0"));
        bool was_tentative = false;
        scene.on_view = [&](const View&, const View& after) {
            was_tentative = was_tentative || std::ranges::any_of(after.places, &Place::tentative);
        };
        ip6_batch("addr add 2001:db8::10/64 dev eth0\nroute add default via fe80::1 dev eth0\n");
        const auto is = [&](bool Place::*flag) {
            return [&scene, flag](const View&) { return scene.place("2001:db8::10")->*flag; };
        };
        EXPECT_TRUE(scene.until_reach("2001:db8::10", Reach::Everywhere));
        EXPECT_TRUE(was_tentative);
        EXPECT_FALSE(scene.place("2001:db8::10")->deprecated);
        ip6_batch("addr change 2001:db8::10/64 dev eth0 preferred_lft 0\n");
        EXPECT_TRUE(scene.until(is(&Place::deprecated)));
        EXPECT_FALSE(scene.place("2001:db8::10")->prefers_temporary);
        set("net.ipv6.conf.eth0.use_tempaddr=2");
        ip_batch("link set eth0 mtu 1400\n");  // it is told with the link
        EXPECT_TRUE(scene.until(is(&Place::prefers_temporary)));
    });
}

TEST_F(WatcherTest, RulesAndTables) {
    in_namespace([] {
        ip_batch(kCable + kSecond + "route add default via 198.51.100.1 dev eth1 table 102\n");
        Scene scene;
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Near));
        ip_batch("rule add from 198.51.100.20 lookup 102\n");
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Everywhere));
        // As wg-quick sets rules up.
        ip_batch(
            "rule add not fwmark 0xca6c lookup 103\n"
            "rule add lookup main suppress_prefixlength 0\n"
            "route add default dev eth0 table 103\n");
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Near));
        ip_batch("rule del not fwmark 0xca6c lookup 103\n");
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Everywhere));
        ip_batch("route add unreachable default table 104\nrule add priority 5 lookup 104\n");
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Near));
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Near));
    });
}

TEST_F(WatcherTest, SeveralNextHopsAndReplacements) {
    in_namespace([] {
        ip_batch(kCable + kSecond);
        Scene scene;
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        ip_batch("route replace default via 198.51.100.1\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Near));
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Everywhere));
        EXPECT_EQ(scene.watcher->counters().reread, 1);
        ip_batch("route replace default nexthop via 192.0.2.1 nexthop via 198.51.100.1\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Everywhere));
        ip_batch("route replace default via inet6 fe80::7 dev eth0\n");
        EXPECT_TRUE(scene.until_reach("198.51.100.20", Reach::Near));
        EXPECT_EQ(scene.place("192.0.2.10")->gateway, ip("fe80::7"));
    });
}

TEST_F(WatcherTest, SeveralNextHopsOfIPv6) {
    in_namespace([] {
        ip_batch(kCable + kSecond);
        ip6_batch(
            "addr add 2001:db8:1::10/64 dev eth0 nodad\n"
            "addr add 2001:db8:2::20/64 dev eth1 nodad\n");
        Scene scene;
        ip6_batch("route add default nexthop via fe80::1 dev eth0 nexthop via fe80::2 dev eth1\n");
        EXPECT_TRUE(scene.until_reach("2001:db8:1::10", Reach::Everywhere));
        EXPECT_TRUE(scene.until_reach("2001:db8:2::20", Reach::Everywhere));
        ip6_batch("route del default via fe80::1 dev eth0\n");
        EXPECT_TRUE(scene.until_reach("2001:db8:1::10", Reach::Near));
        EXPECT_TRUE(scene.until_reach("2001:db8:2::20", Reach::Everywhere));
    });
}

TEST_F(WatcherTest, WhatIsNotFollowedIsReadAnew) {
    in_namespace([] {
        ip_batch(kCable);
        Scene scene;
        ip_batch("nexthop add id 7 via 192.0.2.1 dev eth0\nroute add 203.0.113.0/24 nhid 7\n");
        const auto leads = [](const View& view) {
            return std::ranges::any_of(view.routing.routes(), [](const Route& route) {
                return route.to == Prefix{ip("203.0.113.0"), 24};
            });
        };
        EXPECT_TRUE(scene.until(leads));
        // The route goes with its next hop, without a word about it.
        ip_batch("nexthop del id 7\n");
        EXPECT_TRUE(scene.until([&](const View& view) { return !leads(view); }));
        EXPECT_GT(scene.watcher->counters().reread, 1);
    });
}

TEST_F(WatcherTest, AfterAnOverrunTheViewIsRight) {
    in_namespace([] {
        Config config = Scene::with_veth();
        config.receive_buffer = 1;  // the kernel makes it its smallest
        Scene scene(config);
        ip_batch(link("eth0"));
        std::string lines;
        for (int i = 0; i < 200; i++) {
            const auto n = std::to_string(i);
            lines += "addr add 10.0." + n + ".1/24 dev eth0\n";
            lines += "route add default via 10.0." + n + ".2 metric " + n + "\n";
            if (i % 3 != 0) {
                lines += "addr del 10.0." + n + ".1/24 dev eth0\n";
            }
        }
        ip_batch(lines);
        ip_batch(
            "route flush 0/0\naddr add 192.0.2.10/24 dev eth0\n"
            "route add default via 192.0.2.1\n");
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        EXPECT_GT(scene.watcher->counters().overruns, 0);
        // What has been followed is what is read by somebody who comes now.
        EXPECT_TRUE(scene.until(
            [](const View& view) { return std::ranges::all_of(view.places, &Place::present); }));
        const Scene fresh;
        EXPECT_EQ(scene.watcher->view().places, fresh.watcher->view().places);
        EXPECT_EQ(scene.watcher->view().routing, fresh.watcher->view().routing);
        EXPECT_THAT(scene.watcher->view().places, SizeIs(68));
    });
}

TEST_F(WatcherTest, WhatIsFollowedIsWhatIsRead) {
    in_namespace([] {
        Scene scene;
        ip_batch(kCable + kSecond +
                 "addr add 192.0.2.11/24 dev eth0\nroute append default via 198.51.100.1\n"
                 "route add 10.0.0.0/8 via 198.51.100.1\naddr del 192.0.2.10/24 dev eth0\n"
                 "link set eth1 down\nlink set eth1 up\n"
                 "rule add from 10.0.0.0/8 lookup 7\nrule add to 10.0.0.0/8 iif eth0 lookup 8\n"
                 "rule add priority 3 goto 32766\n");
        ip6_batch(
            "addr add 2001:db8::10/64 dev eth0 nodad\n"
            "route add default via fe80::1 dev eth0 metric 5\n"
            "route append default via fe80::2 dev eth0 metric 5\n"
            "route change default via fe80::3 dev eth0 metric 5\n"
            "rule add from 2001:db8::/32 prohibit\n");
        EXPECT_TRUE(scene.until([](const View& view) {
            const Scene fresh;
            return view == fresh.watcher->view();
        }));
    });
}

/// By which interface the kernel sends from there to the peer; "" if it does not.
std::string asked(const std::string& from, const std::string& peer) {
    const auto command = "ip route get " + peer + " from " + from + " ipproto tcp 2>/dev/null";
    FILE* pipe = ::popen(command.c_str(), "r");
    std::string answer(1000, '\0');
    answer.resize(std::fread(answer.data(), 1, answer.size(), pipe));
    ::pclose(pipe);
    std::istringstream words(answer);
    for (std::string word; words >> word;) {
        if (word == "dev" && words >> word) {
            return word;
        }
    }
    return {};
}

/// Places work exactly where the kernel says so.
void agrees_with_the_kernel(const View& view) {
    const std::vector<std::string> peers{"203.0.113.1",      "192.0.2.77",     "198.51.100.77",
                                         "10.1.2.3",         "10.9.9.9",       "172.16.0.1",
                                         "2001:db8:ffff::1", "2001:db8:1::77", "2001:db8:77::1"};
    for (const auto& place : view.places) {
        for (const auto& peer : peers) {
            if (ip(peer).is_v6() == place.address.is_v6()) {
                const auto from = place.address.to_string();
                const auto by = asked(from, peer);
                EXPECT_EQ(view.works(place, ip(peer)), by == place.interface_name)
                    << "from " << from << " to " << peer << " by " << by;
            }
        }
    }
}

TEST_F(WatcherTest, TheKernelAgrees) {
    in_namespace([] {
        ip_batch(kCable + kSecond);
        ip6_batch(
            "addr add 2001:db8:1::10/64 dev eth0 nodad\n"
            "addr add 2001:db8:2::20/64 dev eth1 nodad\n"
            "route add default via fe80::1 dev eth0 metric 20\n"
            "route add default via fe80::2 dev eth1 metric 10\n");
        Scene scene;
        EXPECT_TRUE(scene.until_reach("192.0.2.10", Reach::Everywhere));
        EXPECT_TRUE(scene.until_running("eth1"));
        // One thing after the other; each alone changes what is so.
        for (const char* change :
             {"route add default via 198.51.100.1 metric 5",
              "route add 10.0.0.0/8 dev eth0",
              "route add 10.1.0.0/16 via 198.51.100.1",
              "route add unreachable 10.9.0.0/16",
              "route add default via 198.51.100.1 table 102",
              "rule add from 198.51.100.20 lookup 102",
              "rule add to 172.16.0.0/12 lookup main suppress_prefixlength 0 priority 20",
              "rule add to 172.16.0.0/12 prohibit priority 21",
              "rule add priority 19 goto 32766",
              "rule del priority 19",
              "route replace default via 192.0.2.2",
              "rule add not from 192.0.2.0/24 lookup 103 priority 7",
              "route add throw 203.0.113.0/24 table 103",
              "route add default dev eth0 table 103",
              "rule add fwmark 0x10/0xff prohibit priority 2",
              "rule add iif lo lookup 102 priority 9",
              "rule add ipproto udp prohibit priority 3",
              "route del default metric 0",
              "-6 route add 2001:db8:77::/48 via fe80::1 dev eth0",
              "-6 route add default from 2001:db8:1::/48 via fe80::3 dev eth0 metric 5",
              "-6 rule add from 2001:db8:2::/64 lookup 102",
              "-6 route add default via fe80::1 dev eth0 table 102",
              "-6 route del default metric 10",
              "link set eth0 down"}) {
            SCOPED_TRACE(change);
            const bool v6 = std::string(change).starts_with("-6");
            ip_batch(std::string(change).substr(v6 ? 3 : 0) + "\n", v6 ? "-6" : "-4");
            scene.take_all();
            agrees_with_the_kernel(scene.watcher->view());
        }
    });
}

TEST_F(WatcherTest, OtherSettings) {
    in_namespace([] {
        ip_batch(kCable);
        Scene scene;
        EXPECT_THAT(scene.watcher->view().places, SizeIs(1));
        scene.watcher->reconfigure(Config{});
        EXPECT_THAT(scene.watcher->view().places, IsEmpty());
        EXPECT_EQ(scene.views, 2);
    });
}

}  // namespace
}  // namespace mobility::watch
