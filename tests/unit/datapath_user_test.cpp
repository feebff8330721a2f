// SPDX-License-Identifier: GPL-2.0-or-later
// The data path and user space: what is handed up, what survives a restart, and what tc and
// XDP do that the other does not.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "datapath_host.hpp"

namespace mobility::proxy {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

const Tuple kIn4{at("10.0.1.2", 1234), at("10.0.1.1", 40000)};
const Tuple kOut4{at("10.0.1.1", 40001), at("10.0.2.2", 5678)};
const Tuple kIn6{at("fd01::2", 1234), at("fd01::1", 40000)};
const Tuple kOut6{at("fd01::1", 40001), at("fd02::2", 5678)};

Spec segment(const Tuple& tuple, std::size_t payload = 10) {
    Spec spec;
    spec.tuple = tuple;
    spec.payload = pattern(payload);
    return spec;
}

class UserTest : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        shared = std::make_unique<Host>();
        shared->open();
    }
    static void TearDownTestSuite() { shared.reset(); }
    UserTest() { host.forget(); }

    static inline std::unique_ptr<Host> shared;
    Host& host = *shared;
};

/// An ICMP error from a router, about this packet.
Bytes icmp(std::uint8_t type, std::uint8_t code, const Bytes& about, bool v6) {
    Bytes message = {type, code, 0, 0, 0, 0, 5, 0};
    message = message + about;
    Spec outer;
    outer.tuple = v6 ? Tuple{at("fd01::9", 0), at("fd01::1", 0)}
                     : Tuple{at("10.0.1.9", 0), at("10.0.1.1", 0)};
    Bytes packet = build(outer);
    packet.resize(v6 ? 40 : 20);
    packet[v6 ? 6 : 9] = v6 ? 58 : 1;
    packet = packet + message;
    const std::size_t length = v6 ? message.size() : packet.size();
    packet[v6 ? 4 : 2] = static_cast<std::uint8_t>(length >> 8);
    packet[v6 ? 5 : 3] = static_cast<std::uint8_t>(length);
    return packet;
}

class IcmpTest : public UserTest {
  protected:
    void expect_event(const Bytes& packet) {
        EXPECT_EQ(host.tc(packet).verdict, kTcDrop);
        const auto events = host.events();
        ASSERT_EQ(events.size(), 1U);
        EXPECT_EQ(events[0].why, Event::Why::Icmp);
        EXPECT_EQ(events[0].packet, packet);
    }
    void expect_untouched(const Bytes& packet) {
        const Ran ran = host.tc(packet);
        EXPECT_EQ(ran.verdict, kTcPass);
        EXPECT_EQ(ran.out, host.frame_in(packet));
        EXPECT_THAT(host.events(), IsEmpty());
    }
    /// Of each type, only these are errors; all but those are the host's own.
    void expect_types(const std::vector<std::uint8_t>& errors, const Bytes& about, bool v6) {
        for (unsigned type = 0; type < 256; type++) {
            const Bytes packet = icmp(static_cast<std::uint8_t>(type), 0, about, v6);
            if (std::find(errors.begin(), errors.end(), type) != errors.end()) {
                expect_event(packet);
            } else {
                expect_untouched(packet);
            }
        }
    }
    /// Cut off anywhere before the port it cannot be told whose it is.
    void expect_cut(const Bytes& about, std::size_t ip_header, bool v6) {
        const std::uint8_t type = v6 ? 1 : 3;
        for (std::size_t size = 0; size <= about.size(); size++) {
            const Bytes cut(about.begin(), about.begin() + static_cast<std::ptrdiff_t>(size));
            if (size >= ip_header + 2) {
                expect_event(icmp(type, 1, cut, v6));
            } else {
                expect_untouched(icmp(type, 1, cut, v6));
            }
        }
        Bytes short_packet = icmp(type, 1, about, v6);
        short_packet.pop_back();  // less than its header says
        expect_untouched(short_packet);
    }
};

TEST_F(IcmpTest, ErrorsAboutOurSegments) {
    expect_types({3, 11, 12}, build(segment(kOut4)), false);
    expect_types({1, 2, 3, 4}, build(segment(kOut6)), true);
}

TEST_F(IcmpTest, ErrorsAboutOthersAreNotTouched) {
    for (const auto& [address, port] : {std::pair("10.0.1.1", 39999), std::pair("10.0.1.1", 41000),
                                        std::pair("10.0.1.3", 40001)}) {
        const Tuple tuple{at(address, static_cast<std::uint16_t>(port)), kOut4.to};
        expect_untouched(icmp(3, 4, build(segment(tuple)), false));
    }
    expect_untouched(icmp(1, 4, build(segment({at("fd01::1", 39999), kOut6.to})), true));
    expect_untouched(icmp(1, 4, build(segment({at("fd01::3", 40001), kOut6.to})), true));
    Bytes udp = build(segment(kOut4));
    udp[9] = 17;
    expect_untouched(icmp(3, 3, udp, false));
    Bytes later_fragment = build(segment(kOut4));
    later_fragment[7] = 1;
    expect_untouched(icmp(3, 3, later_fragment, false));
}

TEST_F(IcmpTest, CutOff) {
    expect_cut(build(segment(kOut4)), 20, false);
    expect_cut(build(segment(kOut6)), 40, true);
    Spec with_options = segment(kOut4);
    with_options.ip_options = Bytes(12, 1);
    expect_cut(build(with_options), 32, false);
}

TEST_F(UserTest, LongEventsAreCutOff) {
    const Bytes packet = build(segment(kIn4, 2500));
    EXPECT_EQ(host.tc(packet).verdict, kTcDrop);
    const auto events = host.events();
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].length, 2540U);
    EXPECT_EQ(events[0].packet, Bytes(packet.begin(), packet.begin() + FLOW_EVENT_BYTES));
}

TEST_F(UserTest, EventsOfASecondAreBounded) {
    auto options = host.options();
    options.events_per_second = 5;
    host.open(options);
    for (int i = 0; i < 30; i++) {
        host.tc(build(segment(kIn4)));
    }
    // A second may have begun in between.
    const auto made = host.events().size();
    EXPECT_TRUE(made == 5 || made == 10) << made;
    EXPECT_EQ(host.counted(FLOW_COUNT_TO_USER), made);
    EXPECT_EQ(host.counted(FLOW_COUNT_LOST), 30 - made);
    host.open();
}

TEST_F(UserTest, EventsThatNobodyTakesAreCounted) {
    auto options = host.options();
    options.events_per_second = 1'000'000;
    host.open(options);
    for (int i = 0; i < 1000; i++) {
        host.tc(build(segment(kIn4, 1500)));
    }
    const auto made = host.events().size();
    EXPECT_EQ(made, (1U << 20) / (1540U + 20 + 8));  // a record's own header has 8 bytes
    EXPECT_EQ(host.counted(FLOW_COUNT_TO_USER), made);
    EXPECT_EQ(host.counted(FLOW_COUNT_LOST), 1000 - made);
    host.open();
}

TEST_F(UserTest, SegmentsOfGroAreCountedOneByOne) {
    ASSERT_TRUE(host.path().set(kIn4, kOut4, 1));
    const Bytes packet = build(segment(kIn4, 2500));
    EXPECT_EQ(host.run("relay_tc", host.frame_in(packet), 1000, 3).verdict, kTcRedirect);
    EXPECT_EQ(host.path().get(kIn4)->packets, 3U);
    EXPECT_EQ(host.path().get(kIn4)->bytes, 2500U + 3 * 40);
    EXPECT_EQ(host.counted(FLOW_COUNT_RELAYED), 3U);
    // Who has made it may not have counted.
    EXPECT_EQ(host.run("relay_tc", host.frame_in(packet), 1000, 0).verdict, kTcRedirect);
    EXPECT_EQ(host.path().get(kIn4)->packets, 6U);
    // It is the segments that have to fit: 40 and 1360 bytes do.
    EXPECT_EQ(host.run("relay_tc", host.frame_in(packet), 1360, 2).verdict, kTcRedirect);
    EXPECT_EQ(host.run("relay_tc", host.frame_in(packet), 1361, 2).verdict, kTcDrop);
    EXPECT_EQ(host.events().at(0).mtu, 1400U);
}

TEST_F(UserTest, OneInterfaceNeedNotForward) {
    command("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    const Tuple back4{kOut4.from, at("10.0.1.2", 9)};
    const Tuple back6{kOut6.from, at("fd01::2", 9)};
    ASSERT_TRUE(host.path().set(kIn4, back4, 1));
    ASSERT_TRUE(host.path().set(kIn6, back6, 1));
    EXPECT_EQ(host.tc(build(segment(kIn4))).verdict, kTcDrop);
    EXPECT_EQ(host.counted(FLOW_COUNT_NO_ROUTE), 1U);
    host.open();
    EXPECT_THAT(host.path().warnings(), Contains(HasSubstr("net.ipv4.conf.left.forwarding is 0")));
    auto options = host.options();
    options.interfaces = {"left"};
    host.open(options);
    EXPECT_THAT(host.path().warnings(), IsEmpty());
    Spec spec = segment(kIn4, 1460);
    const Ran ran = host.tc(build(spec));
    EXPECT_EQ(ran.verdict, kTcRedirect);
    spec.tuple = back4;
    spec.ttl--;
    EXPECT_EQ(ran.out, host.frame_in(build(spec)));
    EXPECT_EQ(host.tc(build(segment(kIn6))).verdict, kTcRedirect);
    EXPECT_EQ(host.tc(build(segment(kIn4, 1461))).verdict, kTcDrop);
    EXPECT_EQ(host.events().at(0).mtu, 1500U);
    command("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1");
    host.open();
}

TEST_F(UserTest, FlowsAreThereForAll) {
    std::map<Tuple, std::uint32_t> set;
    for (std::uint16_t i = 0; i < 700; i++) {
        Tuple tuple = i % 2 != 0 ? kIn4 : kIn6;
        tuple.from.port = i;
        ASSERT_TRUE(host.path().set(tuple, i % 2 != 0 ? kOut4 : kOut6, i));
        set[tuple] = i;
    }
    std::map<Tuple, std::uint32_t> seen;
    for (const auto& [tuple, flow] : host.path().flows()) {
        seen[tuple] = flow.relay;
        EXPECT_EQ(flow.out, tuple.from.address.is_v4() ? kOut4 : kOut6);
    }
    EXPECT_EQ(seen, set);
}

TEST_F(UserTest, FullMap) {
    for (std::uint16_t i = 0; i < 1000; i++) {
        ASSERT_TRUE(host.path().set({at("10.0.1.2", i), kIn4.to}, kOut4, i));
    }
    const auto full = host.path().set({at("10.0.1.2", 1000), kIn4.to}, kOut4, 1);
    ASSERT_FALSE(full);
    EXPECT_TRUE(full.error().is(ENOSPC)) << full.error().message;
    EXPECT_TRUE(host.path().set({at("10.0.1.2", 0), kIn4.to}, kOut4, 1));
    ASSERT_TRUE(host.path().remove({at("10.0.1.2", 0), kIn4.to}));
    EXPECT_TRUE(host.path().set({at("10.0.1.2", 1000), kIn4.to}, kOut4, 1));
    const auto none = host.path().remove({at("10.0.1.2", 0), kIn4.to});
    ASSERT_FALSE(none);
    EXPECT_TRUE(none.error().is(ENOENT));
    EXPECT_FALSE(host.path().get({at("10.0.1.2", 0), kIn4.to}));
}

/// What a command prints.
std::string output(const std::string& line) {
    std::string all;
    FILE* pipe = popen(line.c_str(), "r");
    for (int byte = fgetc(pipe); byte != EOF; byte = fgetc(pipe)) {
        all += static_cast<char>(byte);
    }
    pclose(pipe);
    return all;
}

std::string filters() {
    return output("tc filter show dev left ingress");
}

TEST_F(UserTest, RelaysSurviveARestart) {
    ASSERT_TRUE(host.path().set(kIn4, kOut4, 3));
    EXPECT_EQ(host.tc(build(segment(kIn4))).verdict, kTcRedirect);
    host.close();
    EXPECT_THAT(filters(), HasSubstr("relay_tc"));
    host.open();
    ASSERT_TRUE(host.path().get(kIn4));
    EXPECT_EQ(host.path().get(kIn4)->packets, 1U);
    EXPECT_EQ(host.path().get(kIn4)->relay, 3U);
    EXPECT_EQ(host.tc(build(segment(kIn4))).verdict, kTcRedirect);
    EXPECT_EQ(host.path().get(kIn4)->packets, 2U);
    const std::string once = filters();
    EXPECT_EQ(once.find("handle"), once.rfind("handle")) << once;
}

TEST_F(UserTest, InterfacesNoLongerNamedAreLetGo) {
    auto options = host.options();
    options.attach = Attach::Xdp;
    host.open(options);
    EXPECT_THAT(output("ip link show left"), HasSubstr("xdp"));
    options.interfaces = {"right"};
    host.open(options);
    EXPECT_THAT(filters(), IsEmpty());
    EXPECT_THAT(output("ip link show left"), ::testing::Not(HasSubstr("xdp")));
    EXPECT_THAT(output("ip link show right"), HasSubstr("xdp"));
    host.open();
    EXPECT_THAT(output("ip link show right"), ::testing::Not(HasSubstr("xdp")));
}

TEST_F(UserTest, VethIsLeftItsOffloads) {
    const auto attached = host.path().attached();
    ASSERT_EQ(attached.size(), 2U);
    EXPECT_EQ(attached[0].interface, "left");
    EXPECT_EQ(attached[0].how, Attach::Tc);
    EXPECT_THAT(attached[0].why, HasSubstr("veth"));
}

TEST_F(UserTest, UnpinningEndsAll) {
    host.path().unpin();
    EXPECT_THAT(filters(), IsEmpty());
    EXPECT_NE(access(host.pins().c_str(), F_OK), 0);
    host.open();
    EXPECT_THAT(host.path().flows(), IsEmpty());
}

TEST_F(UserTest, MapsOfAnotherLayoutAreReplaced) {
    ASSERT_TRUE(host.path().set(kIn4, kOut4, 3));
    host.set_layout(FLOW_LAYOUT + 1);
    host.open();
    EXPECT_THAT(host.path().warnings(), ElementsAre(HasSubstr("another version")));
    EXPECT_THAT(host.path().flows(), IsEmpty());
    EXPECT_EQ(host.tc(build(segment(kIn4))).verdict, kTcDrop);
}

TEST_F(UserTest, RelaysKeepTheirMapWhenAnotherSizeIsAskedFor) {
    ASSERT_TRUE(host.path().set(kIn4, kOut4, 3));
    auto options = host.options();
    options.most_flows = 2000;
    host.open(options);
    EXPECT_THAT(host.path().warnings(), ElementsAre(HasSubstr("room for 1000 flows")));
    EXPECT_TRUE(host.path().get(kIn4));
    ASSERT_TRUE(host.path().remove(kIn4));
    host.open(options);
    EXPECT_THAT(host.path().warnings(), IsEmpty());
    host.open();
}

TEST_F(UserTest, ErrorsNameWhatIsConcerned) {
    const auto error_of = [this](const std::function<void(DataPathOptions&)>& change) {
        auto options = host.options();
        change(options);
        auto path = DataPath::open(options, {});
        return path ? std::string() : path.error().message;
    };
    EXPECT_THAT(error_of([](auto& options) {
                    options.interfaces = {"left", "nosuch"};
                }),
                HasSubstr("nosuch"));
    EXPECT_THAT(error_of([](auto& options) { options.interfaces.clear(); }),
                HasSubstr("no interface"));
    EXPECT_THAT(error_of([](auto& options) { options.pins = "/tmp/not-bpf"; }),
                HasSubstr("not on a BPF file system"));
    EXPECT_THAT(error_of([](auto& options) {
                    options.interfaces = {"lo"};
                    options.attach = Attach::Xdp;
                }),
                HasSubstr("lo: native XDP"));
    host.open();
}

/// XDP, where frames may have VLAN tags.
class VlanTest : public UserTest {
  protected:
    VlanTest() {
        auto options = host.options();
        options.attach = Attach::Xdp;
        host.open(options);
        Host::away_from_refresh();
    }
    ~VlanTest() override { host.open(); }

    using Tags = std::vector<std::pair<std::uint16_t, std::uint16_t>>;
    /// XDP's verdict on the segment with tags, and whether it left as it should.
    std::uint32_t relay(const Tuple& in, const Tuple& out, const Tags& tags, const Tags& tags_out) {
        EXPECT_TRUE(host.path().set(in, out, 1));
        Spec spec = segment(in);
        const Ran ran =
            host.run("relay_xdp", frame(host.left_mac, host.left_neighbour, build(spec), tags));
        if (ran.verdict != kXdpPass) {
            spec.tuple = out;
            spec.ttl--;
            EXPECT_EQ(ran.out, frame(host.right_neighbour, host.right_mac, build(spec), tags_out));
        }
        return ran.verdict;
    }
    void tag_way_out(std::uint16_t protocol, std::uint16_t number) {
        flow_way way{};
        way.link = host.right();
        way.tag_protocol = htons(protocol);
        way.tag = htons(number);
        std::copy(host.right_mac.begin(), host.right_mac.end(), std::begin(way.mac));
        host.set_way(host.right(), way);
    }
};

TEST_F(VlanTest, TagsAreTakenAway) {
    EXPECT_EQ(relay(kIn4, kOut4, {}, {}), kXdpRedirect);
    EXPECT_EQ(relay(kIn4, kOut4, {{0x8100, 5}}, {}), kXdpRedirect);
    EXPECT_EQ(relay(kIn4, kOut4, {{0x88a8, 5}, {0x8100, 7}}, {}), kXdpRedirect);
    EXPECT_EQ(relay(kIn6, kOut6, {{0x88a8, 5}, {0x8100, 7}}, {}), kXdpRedirect);
    EXPECT_EQ(relay(kIn4, kOut4, {{0x88a8, 5}, {0x8100, 7}, {0x8100, 8}}, {}), kXdpPass);
}

TEST_F(VlanTest, TagsAreAdded) {
    tag_way_out(0x8100, 9);
    EXPECT_EQ(relay(kIn4, kOut4, {}, {{0x8100, 9}}), kXdpRedirect);
    EXPECT_EQ(relay(kIn6, kOut6, {}, {{0x8100, 9}}), kXdpRedirect);
    EXPECT_EQ(relay(kIn4, kOut4, {{0x8100, 5}}, {{0x8100, 9}}), kXdpRedirect);
    EXPECT_EQ(relay(kIn4, kOut4, {{0x88a8, 5}, {0x8100, 7}}, {{0x8100, 9}}), kXdpRedirect);
    tag_way_out(0x88a8, 4094);
    EXPECT_EQ(relay(kIn6, kOut6, {}, {{0x88a8, 4094}}), kXdpRedirect);
}

TEST_F(VlanTest, BackTheWayItCame) {
    const Tuple back{kOut4.from, at("10.0.1.2", 9)};
    ASSERT_TRUE(host.path().set(kIn4, back, 1));
    Spec spec = segment(kIn4);
    const Ran ran = host.run("relay_xdp", host.frame_in(build(spec)));
    EXPECT_EQ(ran.verdict, kXdpTx);
    spec.tuple = back;
    spec.ttl--;
    EXPECT_EQ(ran.out, frame(host.left_neighbour, host.left_mac, build(spec)));
}

TEST_F(VlanTest, CutOffTags) {
    const Bytes whole =
        frame(host.left_mac, host.left_neighbour, build(segment(kIn4)), {{0x88a8, 5}, {0x8100, 7}});
    ASSERT_TRUE(host.path().set(kIn4, kOut4, 1));
    for (std::size_t size = 14; size < whole.size(); size++) {
        const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        const Ran ran = host.run("relay_xdp", cut);
        EXPECT_EQ(ran.verdict, kXdpPass);
        EXPECT_EQ(ran.out, cut);
    }
}

}  // namespace
}  // namespace mobility::proxy
