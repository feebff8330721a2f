// SPDX-License-Identifier: GPL-2.0-or-later
// What is a move, and where to: one row for each state and event. A row begins with a host;
// each step lets time pass and things happen, names a connection, and says what it has to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "watch/decide.hpp"
#include "watch_host.hpp"

namespace mobility::watch {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// A cable and a Wi-Fi, each with a rule for its address, so that both can be used at once.
const std::string kCable =
    "link eth0; addr 192.0.2.10/24 dev eth0; route default via 192.0.2.1 dev eth0 metric 100;"
    "route default via 192.0.2.1 dev eth0 table 101; rule from 192.0.2.10 lookup 101;";
const std::string kWifi =
    "link wlan0; addr 198.51.100.20/24 dev wlan0;"
    "route default via 198.51.100.1 dev wlan0 metric 600;"
    "route default via 198.51.100.1 dev wlan0 table 102; rule from 198.51.100.20 lookup 102;";
// The same without rules, as most hosts have it.
const std::string kPlainCable =
    "link eth0; addr 192.0.2.10/24 dev eth0; route default via 192.0.2.1 dev eth0 metric 100;";
const std::string kPlainWifi =
    "link wlan0; addr 198.51.100.20/24 dev wlan0;"
    "route default via 198.51.100.1 dev wlan0 metric 600;";
const std::string kCable6 =
    "link eth0; addr 2001:db8:1::10/64 dev eth0;"
    "route default6 via fe80::1 dev eth0 metric 1024;";
const std::string kNoDefault = "route del default via 192.0.2.1 dev eth0 metric 100;";

const std::string kOnCable = "192.0.2.10 > 203.0.113.5";
const std::string kOnWifi = "198.51.100.20 > 203.0.113.5";
const std::string kOnCable6 = "2001:db8:1::10 > 2001:db8:ffff::5";

struct Step {
    std::string events;
    std::string use;     ///< "LOCAL > REMOTE [moving TO [trial]] [bound NAME]"
    std::string expect;  ///< "WHAT [ADDRESS dev NAME [trial]]: WHY"
    int after_ms = 0;    ///< time that passes before
};

struct Row {
    const char* name;
    std::string start;
    std::vector<Step> steps;
    Config config = {};
};

void PrintTo(const Row& row, std::ostream* out) {
    *out << row.name;
}

Config with(const std::function<void(Config&)>& change) {
    Config config;
    change(config);
    return config;
}
const Config kPreferWifi = with([](Config& c) { c.interfaces = {{.name = "wl*", .rank = -1}}; });
const Config kStay = with([](Config& c) { c.policy.better = Policy::Better::Stay; });
const Config kLeaveDeprecated = with([](Config& c) { c.policy.leave_deprecated = true; });
const Config kPreferTemporary = with([](Config& c) { c.temporary = Config::Temporary::Prefer; });
const Config kAvoidTemporary = with([](Config& c) { c.temporary = Config::Temporary::Avoid; });
const Config kUseVeth = with([](Config& c) { c.interfaces = {{.name = "eth*", .kind = "veth"}}; });
const Config kIgnoreWifi =
    with([](Config& c) { c.interfaces = {{.name = "wlan?", .use = false}}; });

std::vector<Row> rows_of_addresses() {
    return {
        // DHCP.
        {"RenewalToAnotherAddress",
         kPlainCable,
         {{"addr del 192.0.2.10/24 dev eth0", kOnCable, "wait: held"},
          {"addr 192.0.2.11/24 dev eth0", kOnCable, "wait: held", 5},
          {"route default via 192.0.2.1 dev eth0 metric 100", kOnCable,
           "move 192.0.2.11 dev eth0: lost", 5}}},
        {"RenewalThatAddsFirst",
         kPlainCable,
         {{"addr 192.0.2.11/24 dev eth0 secondary", kOnCable, "stay: works"},
          {"addr del 192.0.2.10/24 dev eth0; addr 192.0.2.11/24 dev eth0", kOnCable,
           "move 192.0.2.11 dev eth0: lost"}}},
        {"RenewalAtOnce",
         kPlainCable,
         {{"addr del 192.0.2.10/24 dev eth0; addr 192.0.2.11/24 dev eth0;"
           "route default via 192.0.2.1 dev eth0",
           kOnCable, "move 192.0.2.11 dev eth0: lost"}}},
        {"RenewalDoesNotLeadAwayFromTheInterface",
         kCable + kWifi,
         {{"addr del 192.0.2.10/24 dev eth0", kOnCable, "wait: held"},
          {"addr 192.0.2.11/24 dev eth0; route default via 192.0.2.1 dev eth0 metric 100", kOnCable,
           "move 192.0.2.11 dev eth0: lost", 50}}},
        {"LeaseLostForGood",
         kCable + kWifi,
         {{"addr del 192.0.2.10/24 dev eth0", kOnCable, "wait: held"},
          {"", kOnCable, "move 198.51.100.20 dev wlan0: lost", 250}}},
        // A gap without an address.
        {"GoneThenAnotherComes",
         kPlainCable,
         {{"link eth0 gone", kOnCable, "wait: lost"},
          {"link wlan0; addr 198.51.100.20/24 dev wlan0", kOnCable, "wait: lost", 60'000},
          {"route default via 198.51.100.1 dev wlan0", kOnCable,
           "move 198.51.100.20 dev wlan0: lost"}}},
        {"GoneThenTheSameComes",
         kPlainCable,
         {{"link eth0 gone", kOnCable, "wait: lost"},
          {"link eth0; addr 192.0.2.10/24 dev eth0; route default via 192.0.2.1 dev eth0", kOnCable,
           "move 192.0.2.10 dev eth0: back", 60'000}}},
        {"BackBeforeItWasGivenUp",
         kPlainCable,
         {{"addr del 192.0.2.10/24 dev eth0", kOnCable, "wait: held"},
          {"addr 192.0.2.10/24 dev eth0; route default via 192.0.2.1 dev eth0 metric 100", kOnCable,
           "stay: works", 50}}},
        {"OnlyTheOtherFamilyIsLeft",
         kPlainCable + kCable6,
         {{"addr del 192.0.2.10/24 dev eth0", kOnCable, "wait: held"},
          {"", kOnCable, "not-native: lost", 250},
          {"addr 192.0.2.12/24 dev eth0; route default via 192.0.2.1 dev eth0", kOnCable,
           "move 192.0.2.12 dev eth0: lost"}}},
        {"OnlyIPv4IsLeft", kCable6, {{"link eth0 gone; " + kWifi, kOnCable6, "not-native: lost"}}},
        // The next hop's subnet decides between IPv4 addresses, then the first.
        {"AddressInTheGatewaysSubnet",
         "link eth0; addr 10.0.0.7/8 dev eth0; addr 192.0.2.11/24 dev eth0;"
         "route default via 192.0.2.1 dev eth0",
         {{"", "172.16.0.1 > 203.0.113.5", "move 192.0.2.11 dev eth0: lost"}}},
        {"AddressThatTheRouteNames",
         "link eth0; addr 192.0.2.11/24 dev eth0; addr 192.0.2.12/24 dev eth0;"
         "route default via 192.0.2.1 dev eth0 src 192.0.2.12",
         {{"", "172.16.0.1 > 203.0.113.5", "move 192.0.2.12 dev eth0: lost"}}},
    };
}

std::vector<Row> rows_of_interfaces() {
    return {
        // A better one appears while the old one lives.
        {"BetterByMetric", kWifi, {{kCable, kOnWifi, "move 192.0.2.10 dev eth0 trial: better"}}},
        {"BetterOnlyWhenItHasItsRoute",
         kWifi,
         {{"link eth0; addr 192.0.2.10/24 dev eth0; rule from 192.0.2.10 lookup 101", kOnWifi,
           "stay: works"},
          {kCable, kOnWifi, "move 192.0.2.10 dev eth0 trial: better"}}},
        {"WorseByMetric", kCable, {{kWifi, kOnCable, "stay: works"}}},
        {"AsGood",
         kCable,
         {{"link wlan0; addr 198.51.100.20/24 dev wlan0;"
           "route default via 198.51.100.1 dev wlan0 metric 100",
           kOnCable, "stay: works"}}},
        {"BetterByRank",
         kCable,
         {{kWifi, kOnCable, "move 198.51.100.20 dev wlan0 trial: better"}},
         kPreferWifi},
        {"WorseByRank", kWifi, {{kCable, kOnWifi, "stay: works"}}, kPreferWifi},
        {"BetterButToStay", kWifi, {{kCable, kOnWifi, "stay: works"}}, kStay},
        {"AFailedTrialIsNotRepeated",
         kWifi,
         {{kCable, kOnWifi, "move 192.0.2.10 dev eth0 trial: better"},
          {"addr 192.0.2.77/24 dev eth0", kOnWifi, "stay: works"}}},
        {"BetterByAChangedMetric",
         kCable + kWifi,
         {{kNoDefault + "route default via 192.0.2.1 dev eth0 metric 900", kOnCable,
           "move 198.51.100.20 dev wlan0 trial: better"}}},
        // Without a rule for it, an address sends by whichever interface is better.
        {"TheKernelLeavesByTheNewInterface",
         kPlainWifi,
         {{kPlainCable, kOnWifi, "move 192.0.2.10 dev eth0: lost"}}},
        {"TheKernelDoesNotLeaveByTheOther", kPlainCable, {{kPlainWifi, kOnCable, "stay: works"}}},
        {"ToTheOtherWhenItsDefaultIsTheOnlyOne",
         kPlainCable + kPlainWifi,
         {{"link eth0 gone", kOnCable, "move 198.51.100.20 dev wlan0: lost"}}},
        // The old one goes.
        {"LinkGone",
         kCable + kWifi,
         {{"link eth0 gone", kOnCable, "move 198.51.100.20 dev wlan0: lost"}}},
        {"LinkSetDown",
         kCable + kWifi,
         {{"link eth0 down", kOnCable, "move 198.51.100.20 dev wlan0: lost"}}},
        {"TheBestOfThree",
         kCable + kWifi +
             "link wwan0; addr 100.64.0.9/30 dev wwan0;"
             "route default via 100.64.0.10 dev wwan0 metric 700",
         {{"link eth0 gone", kOnCable, "move 198.51.100.20 dev wlan0: lost"},
          {"link wlan0 gone", kOnWifi, "move 100.64.0.9 dev wwan0: lost"}}},
        {"OthersAreNotConcerned", kCable + kWifi, {{"link eth0 gone", kOnWifi, "stay: works"}}},
        // Carrier and route.
        {"NoCarrier",
         kCable + kWifi,
         {{"link eth0 no-carrier", kOnCable, "stay: held"},
          {"", kOnCable, "stay: held", 150},
          {"", kOnCable, "move 198.51.100.20 dev wlan0: lost", 100}}},
        {"CarrierFlaps",
         kCable + kWifi,
         {{"link eth0 no-carrier", kOnCable, "stay: held"},
          {"link eth0", kOnCable, "stay: works", 150},
          {"link eth0 no-carrier", kOnCable, "stay: held", 1000}}},
        {"AHoldIsNotRenewed",
         kCable + kWifi,
         {{"route del default via 192.0.2.1 dev eth0 table 101;" + kNoDefault, kOnCable,
           "stay: held"},
          {"link eth0 no-carrier", kOnCable, "stay: held", 150},
          {"", kOnCable, "move 198.51.100.20 dev wlan0: lost", 100}}},
        {"NoCarrierAndAnotherPlaceComes",
         kCable,
         {{"link eth0 no-carrier", kOnCable, "stay: held"},
          {kWifi, kOnCable, "move 198.51.100.20 dev wlan0: lost", 50}}},
        {"NoCarrierAlone",
         kCable,
         {{"link eth0 no-carrier", kOnCable, "stay: held"},
          {"", kOnCable, "wait: lost", 250},
          {"link eth0", kOnCable, "move 192.0.2.10 dev eth0: back", 60'000}}},
        {"NoHoldIfNotWanted",
         kCable + kWifi,
         {{"link eth0 no-carrier", kOnCable, "move 198.51.100.20 dev wlan0: lost"}},
         with([](Config& c) { c.hold = {}; })},
        {"ADeadCablesRouteIsInTheWay",
         kPlainCable + kPlainWifi,
         {{"link eth0 no-carrier", kOnCable, "stay: held"},
          {"", kOnCable, "wait: lost", 250},
          {kNoDefault, kOnCable, "move 198.51.100.20 dev wlan0: lost", 5000}}},
        {"ADeadCablesRouteIsIgnored",
         kPlainCable + kPlainWifi + "ignore-linkdown all",
         {{"link eth0 no-carrier", kOnCable, "move 198.51.100.20 dev wlan0: lost"}}},
        {"RouteWithdrawn",
         kPlainCable + kWifi,
         {{kNoDefault, kOnCable, "stay: held"},
          {"", kOnCable, "move 198.51.100.20 dev wlan0: lost", 250}}},
        {"RouteReplaced",
         kPlainCable + kWifi,
         {{kNoDefault, kOnCable, "stay: held"},
          {"route default via 192.0.2.2 dev eth0 metric 100", kOnCable, "stay: works", 50}}},
        {"RouteToThePeerOnly",
         kPlainCable + kNoDefault,
         {{"link wlan0; addr 192.0.2.30/24 dev wlan0; link eth0 gone", "192.0.2.10 > 192.0.2.99",
           "move 192.0.2.30 dev wlan0: lost"},
          {"", kOnCable, "wait: lost"},
          {"route 203.0.113.0/24 via 192.0.2.1 dev wlan0", kOnCable,
           "move 192.0.2.30 dev wlan0: lost"}}},
    };
}

std::vector<Row> rows_of_ipv6() {
    const std::string wifi6 =
        "link wlan0; route default6 via fe80::2 dev wlan0 metric 600;"
        "addr 2001:db8:2::20/64 dev wlan0 ";
    const std::string rules =
        "; rule from 2001:db8:1::/64 lookup 101; rule from 2001:db8:2::/64 lookup 102;"
        "route default6 via fe80::1 dev eth0 table 101;"
        "route default6 via fe80::2 dev wlan0 table 102";
    const std::string gone = "addr del 2001:db8:1::10/64 dev eth0;";
    const std::string two = "addr 2001:db8:1::20/64 dev eth0; addr 2001:db8:1::30/64 dev eth0 ";
    return {
        // A router advertises another prefix.
        {"TentativeIsNotUsableYet",
         kCable6,
         {{gone + "addr 2001:db8:9::10/64 dev eth0 tentative", kOnCable6, "wait: held"},
          {"", kOnCable6, "wait: lost", 900},
          {"addr 2001:db8:9::10/64 dev eth0", kOnCable6, "move 2001:db8:9::10 dev eth0: lost",
           100}}},
        {"DuplicateIsNeverUsable",
         kCable6,
         {{gone + "addr 2001:db8:9::10/64 dev eth0 tentative", kOnCable6, "wait: held"},
          {"addr 2001:db8:9::10/64 dev eth0 tentative failed", kOnCable6, "wait: lost", 900}}},
        {"DuplicateFoundOfTheOneInUse",
         kCable6 + wifi6,
         {{"addr 2001:db8:1::10/64 dev eth0 failed", kOnCable6,
           "move 2001:db8:2::20 dev wlan0: lost"}},
         kPreferWifi},
        {"TentativeAgainAfterAFlap",
         kCable6,
         {{"addr 2001:db8:1::10/64 dev eth0 tentative", kOnCable6, "stay: works"}}},
        {"NewPrefixOldOneDeprecated",
         kCable6,
         {{"addr 2001:db8:9::10/64 dev eth0", kOnCable6, "stay: works"},
          {"addr 2001:db8:1::10/64 dev eth0 deprecated", kOnCable6, "stay: works"},
          {gone, kOnCable6, "move 2001:db8:9::10 dev eth0: lost"}}},
        {"DeprecatedIsLeftIfConfigured",
         kCable6,
         {{"addr 2001:db8:9::10/64 dev eth0", kOnCable6, "stay: works"},
          {"addr 2001:db8:1::10/64 dev eth0 deprecated", kOnCable6,
           "move 2001:db8:9::10 dev eth0 trial: deprecated"}},
         kLeaveDeprecated},
        {"DeprecatedHasNowhereToGo",
         kCable6,
         {{"addr 2001:db8:1::10/64 dev eth0 deprecated", kOnCable6, "stay: works"}},
         kLeaveDeprecated},
        {"DeprecatedIsTheLastChoice",
         kCable6 + two + "deprecated",
         {{gone, kOnCable6, "move 2001:db8:1::20 dev eth0: lost"},
          {"addr del 2001:db8:1::20/64 dev eth0", "2001:db8:1::20 > 2001:db8:ffff::5",
           "move 2001:db8:1::30 dev eth0: lost"}}},
        {"DeprecatedIsNoBetterPlace",
         kCable6 + rules,
         {{wifi6 + "deprecated", kOnCable6, "stay: works"},
          {wifi6, kOnCable6, "move 2001:db8:2::20 dev wlan0 trial: better"}}},
        // By RFC 6724.
        {"TemporaryAsTheKernelDoesNot",
         kCable6 + two + "temporary",
         {{gone, kOnCable6, "move 2001:db8:1::20 dev eth0: lost"}}},
        {"TemporaryAsTheKernelDoes",
         kCable6 + two + "temporary; link eth0 prefers-temporary",
         {{gone, kOnCable6, "move 2001:db8:1::30 dev eth0: lost"}}},
        {"TemporaryPreferred",
         kCable6 + two + "temporary",
         {{gone, kOnCable6, "move 2001:db8:1::30 dev eth0: lost"}},
         kPreferTemporary},
        {"TemporaryAvoided",
         kCable6 + two + "temporary; link eth0 prefers-temporary",
         {{gone, kOnCable6, "move 2001:db8:1::20 dev eth0: lost"}},
         kAvoidTemporary},
        {"GlobalForAGlobalPeer",
         kCable6 + "addr fd00::20/64 dev eth0; addr 2001:db8:1::30/64 dev eth0",
         {{gone, kOnCable6, "move 2001:db8:1::30 dev eth0: lost"}}},
        {"UniqueLocalForAUniqueLocalPeer",
         kCable6 + "addr 2001:db8:1::30/64 dev eth0; addr fd00::20/64 dev eth0",
         {{gone, "2001:db8:1::10 > fd00:1::5", "move fd00::20 dev eth0: lost"}}},
        {"LongestCommonPrefix",
         kCable6 + "addr 2001:db8:8::30/64 dev eth0; addr 2001:db8:fff0::20/64 dev eth0",
         {{gone, kOnCable6, "move 2001:db8:fff0::20 dev eth0: lost"}}},
        // Routers.
        {"ARouterIsPreferred",
         kCable6,
         {{"link wlan0; addr 2001:db8:2::20/64 dev wlan0;"
           "route default6 via fe80::2 dev wlan0 metric 1024 pref high",
           kOnCable6, "move 2001:db8:2::20 dev wlan0: lost"}}},
        {"RouterWithdraws",
         kCable6 + wifi6 + rules,
         {{"route del default6 via fe80::1 dev eth0 table 101", kOnCable6, "stay: held"},
          {"", kOnCable6, "move 2001:db8:2::20 dev wlan0: lost", 250}}},
    };
}

std::vector<Row> rows_of_what_is_left_alone() {
    const std::string tunnel = "link wg0 kind wireguard; addr 10.9.0.2/24 dev wg0;";
    const std::string in_tunnel = "10.9.0.2 > 10.9.0.1";
    return {
        {"Tunnel", tunnel + kCable, {{kWifi, in_tunnel, "stay: not-ours"}}},
        {"TunnelThatHasGone",
         tunnel + kCable,
         {{"link wg0 gone", in_tunnel, "stay: not-ours"},
          {kWifi, in_tunnel, "stay: not-ours", 60'000}}},
        {"NoMoveIntoATunnel",
         kCable + "link tun0 kind tun; addr 10.9.0.2/24 dev tun0;"
                  "route default dev tun0 metric 50",
         {{"link eth0 gone", kOnCable, "wait: lost"}}},
        {"ATunnelTakesTheDefaultRoute",
         kPlainCable,
         {{tunnel + "route default dev wg0 table 51820;"
                    "rule prio 100 lookup 254 suppress 0; rule prio 101 lookup 51820",
           kOnCable, "stay: held"},
          {"", kOnCable, "wait: lost", 250},
          {"rule del prio 101 lookup 51820", kOnCable, "move 192.0.2.10 dev eth0: back"}}},
        {"ContainersBridge",
         "link docker0 kind bridge; addr 172.17.0.1/16 dev docker0;" + kCable,
         {{"link docker0 gone", "172.17.0.1 > 172.17.0.2", "stay: not-ours"}}},
        {"ABridgeThatIsAWayOut",
         kWifi,
         {{"link br0 kind bridge; addr 192.0.2.10/24 dev br0;"
           "route default via 192.0.2.1 dev br0 metric 50;"
           "link wlan0 gone",
           kOnWifi, "move 192.0.2.10 dev br0: lost"}}},
        {"Veth",
         kWifi,
         {{"link eth0 kind veth;" + kPlainCable + "link wlan0 gone", kOnWifi, "wait: lost"}}},
        {"VethIfConfigured",
         kWifi,
         {{"link eth0 kind veth;" + kPlainCable + "link wlan0 gone", kOnWifi,
           "move 192.0.2.10 dev eth0: lost"}},
         kUseVeth},
        {"IgnoredIfConfigured",
         kCable + kWifi,
         {{"link eth0 gone", kOnCable, "wait: lost"}, {"", kOnWifi, "stay: not-ours"}},
         kIgnoreWifi},
        {"LinkLocalIsNoPlace",
         kCable,
         {{"link eth0 gone; link wlan0; addr 169.254.7.7/16 dev wlan0;"
           "route default via 169.254.0.1 dev wlan0",
           kOnCable, "wait: lost"}}},
        {"OnLinkLocal", kCable, {{"link eth0 gone", "fe80::7 > fe80::8", "stay: not-ours"}}},
        {"OnLoopback", kCable, {{"link eth0 gone", "127.0.0.1 > 127.0.0.1", "stay: not-ours"}}},
        {"WithinThisHost",
         kCable + kWifi,
         {{"link eth0 gone", "192.0.2.10 > 198.51.100.20", "stay: not-ours"}}},
        {"WithinThisHostOnOneAddress",
         kCable + kWifi,
         {{"link eth0 gone", "192.0.2.10 > 192.0.2.10", "stay: not-ours"}}},
    };
}

std::vector<Row> rows_of_moves_under_way() {
    return {
        {"NotDisturbed",
         kCable + kWifi,
         {{"link eth0 gone", kOnCable, "move 198.51.100.20 dev wlan0: lost"},
          {"addr 198.51.100.21/24 dev wlan0", kOnCable + " moving 198.51.100.20",
           "stay: under-way"}}},
        {"NotTurnedBackByTheOldPlace",
         kWifi,
         {{kCable, kOnCable + " moving 198.51.100.20", "stay: under-way"}}},
        {"ATrialHasLostItsOldPlace",
         kWifi + kCable,
         {{"link wlan0 gone", kOnWifi + " moving 192.0.2.10 trial",
           "move 192.0.2.10 dev eth0: lost"}}},
        {"ATrialWaitsOutAFlap",
         kWifi + kCable,
         {{"link wlan0 no-carrier", kOnWifi + " moving 192.0.2.10 trial", "stay: under-way"},
          {"", kOnWifi + " moving 192.0.2.10 trial", "move 192.0.2.10 dev eth0: lost", 250}}},
        {"ATrialHasLostItsTarget",
         kWifi + kCable,
         {{"link eth0 gone", kOnWifi + " moving 192.0.2.10 trial", "stay: works"}}},
        {"AMoveHasLostItsTarget",
         kWifi + kCable,
         {{"link eth0 gone", kOnWifi + " moving 192.0.2.10",
           "move 198.51.100.20 dev wlan0: back"}}},
        {"AMoveHasLostItsTargetAndGoesOn",
         kWifi + kCable,
         {{"link eth0 gone", "172.16.0.1 > 203.0.113.5 moving 192.0.2.10",
           "move 198.51.100.20 dev wlan0: lost"}}},
        {"NowhereToGo",
         kCable,
         {{"link eth0 gone", "172.16.0.1 > 203.0.113.5 moving 192.0.2.10", "wait: lost"}}},
        // A socket that is bound to an interface cannot leave it.
        {"BoundStaysAtItsInterface",
         kCable + kWifi,
         {{"link eth0 no-carrier", kOnCable + " bound eth0", "stay: held"},
          {"", kOnCable + " bound eth0", "wait: lost", 250}}},
        {"BoundMovesAtItsInterface",
         kPlainCable + kPlainWifi,
         {{"addr 198.51.100.21/24 dev wlan0; addr del 198.51.100.20/24 dev wlan0",
           kOnWifi + " bound wlan0", "move 198.51.100.21 dev wlan0: lost"}}},
    };
}

class DecideTest : public testing::TestWithParam<Row> {
  protected:
    Use use(const std::string& text) {
        std::istringstream words(text);
        std::string local, arrow, remote;
        words >> local >> arrow >> remote;
        Use made{.local = ip(local), .remote = ip(remote)};
        for (std::string word, next; words >> word;) {
            if (word == "trial") {
                made.under_way->trial = true;
            } else if (words >> next; word == "moving") {
                made.under_way = Use::UnderWay{ip(next), false};
            } else {
                made.bound = host.index(next);
            }
        }
        return made;
    }

    [[nodiscard]] std::string text(const Move& move) const {
        std::string said(to_string(move.what));
        if (move.what == Move::What::Move) {
            said += " " + move.to.to_string() + " dev " + host.state.links().at(move.index).name +
                    (move.trial ? " trial" : "");
        }
        return said + ": " + std::string(to_string(move.why));
    }

    TestHost host;
};

TEST_P(DecideTest, Row) {
    const auto& row = GetParam();
    Time now{std::chrono::hours(1)};
    host.does(row.start);
    auto before = make_view(host.state, row.config, {}, now);
    int number = 0;
    for (const auto& step : row.steps) {
        now += milliseconds(step.after_ms);
        host.does(step.events);
        const auto after = make_view(host.state, row.config, before, now);
        const std::vector uses{use(step.use)};
        const auto moves = decide(before, after, uses, row.config.policy);
        ASSERT_THAT(moves, SizeIs(1));
        EXPECT_EQ(text(moves.front()), step.expect) << "in step " << ++number << " of " << row.name;
        before = after;
    }
}

std::string name_of(const testing::TestParamInfo<Row>& info) {
    return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Addresses, DecideTest, testing::ValuesIn(rows_of_addresses()), name_of);
INSTANTIATE_TEST_SUITE_P(Interfaces, DecideTest, testing::ValuesIn(rows_of_interfaces()), name_of);
INSTANTIATE_TEST_SUITE_P(IPv6, DecideTest, testing::ValuesIn(rows_of_ipv6()), name_of);
INSTANTIATE_TEST_SUITE_P(LeftAlone, DecideTest, testing::ValuesIn(rows_of_what_is_left_alone()),
                         name_of);
INSTANTIATE_TEST_SUITE_P(UnderWay, DecideTest, testing::ValuesIn(rows_of_moves_under_way()),
                         name_of);

// ---- At the start, and after a move ----

TEST_F(DecideTest, WithAnEmptyViewBeforeEverythingIsNew) {
    host.does(kCable + kWifi);
    const auto view = make_view(host.state, {}, {}, {});
    const std::vector uses{use(kOnWifi), use(kOnCable), use("172.16.0.1 > 203.0.113.5")};
    const auto moves = decide({}, view, uses, {});
    ASSERT_THAT(moves, SizeIs(3));
    EXPECT_EQ(text(moves[0]), "move 192.0.2.10 dev eth0 trial: better");
    EXPECT_EQ(text(moves[1]), "stay: works");
    EXPECT_EQ(text(moves[2]), "move 192.0.2.10 dev eth0: lost");
    EXPECT_EQ(text(decide(view, view, uses, {})[0]), "stay: works");
}

// ---- Uses ----

tcpmigrate::Connection connection(std::uint64_t cookie, const std::string& remote,
                                  const std::string& moving = {}) {
    tcpmigrate::Connection made;
    made.cookie = cookie;
    made.local.address = ip("192.0.2.10");
    made.remote.address = ip(remote);
    if (!moving.empty()) {
        made.new_local.address = ip(moving);
    }
    return made;
}

TEST(UsesTest, EachOnce) {
    const std::vector connections{connection(1, "203.0.113.5"),
                                  connection(2, "203.0.113.5"),
                                  connection(3, "203.0.113.6"),
                                  connection(4, "203.0.113.6", "192.0.2.10"),
                                  connection(5, "203.0.113.6", "198.51.100.20"),
                                  connection(6, "203.0.113.6", "198.51.100.20")};
    const Use one{.local = ip("192.0.2.10"), .remote = ip("203.0.113.5")};
    Use other = one;
    other.remote = ip("203.0.113.6");
    Use moving = other;
    moving.under_way = Use::UnderWay{ip("198.51.100.20"), false};
    Use trial = moving;
    trial.under_way->trial = true;
    EXPECT_THAT(uses_of(connections, {}), ElementsAre(one, other, moving));
    EXPECT_THAT(uses_of(connections, {6}), ElementsAre(one, other, moving, trial));
}

// ---- Commands ----

class RequestsTest : public DecideTest {
  protected:
    std::vector<std::string> commands(const std::vector<Use>& uses) {
        const auto before = make_view(host.state, {}, {}, {});
        host.does("link eth0 gone");
        const auto after = make_view(host.state, {}, before, {});
        std::vector<std::string> made;
        for (const auto& request : requests(uses, decide(before, after, uses, {}))) {
            made.push_back(request.old_local.to_string() +
                           (request.remote ? " with " + request.remote->to_string() : "") + " to " +
                           request.new_local->to_string() + " dev " +
                           host.state.links().at(request.if_index).name +
                           (request.trial ? " trial" : ""));
        }
        return made;
    }
};

TEST_F(RequestsTest, OneForAllOfAnAddress) {
    host.does(kCable + kWifi);
    EXPECT_THAT(commands({use(kOnCable), use("192.0.2.10 > 203.0.113.6"), use(kOnWifi)}),
                ElementsAre("192.0.2.10 to 198.51.100.20 dev wlan0"));
}

TEST_F(RequestsTest, OnePerPeerWhereTheyDiffer) {
    host.does(kCable + kWifi + "link wwan0; addr 100.64.0.9/24 dev wwan0");
    EXPECT_THAT(commands({use(kOnCable), use("192.0.2.10 > 100.64.0.77"),
                          use("192.0.2.10 > 203.0.113.6 moving 198.51.100.20")}),
                ElementsAre("192.0.2.10 with 203.0.113.5 to 198.51.100.20 dev wlan0",
                            "192.0.2.10 with 100.64.0.77 to 100.64.0.9 dev wwan0"));
}

TEST_F(RequestsTest, NoneIfNothingIsToBeDone) {
    host.does(kCable);
    EXPECT_THAT(commands({use(kOnCable)}), IsEmpty());
    EXPECT_THAT(commands({}), IsEmpty());
}

}  // namespace
}  // namespace mobility::watch
