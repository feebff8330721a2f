// SPDX-License-Identifier: GPL-2.0-or-later
// The data path's programs in the running kernel: packet in, packet out. Checksums are
// computed here anew, all other bytes compared.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include "datapath_host.hpp"

namespace mobility::proxy {
namespace {

/// By tc and by XDP, of IPv4 and of IPv6.
struct Case {
    const char* program;
    bool v6;
};

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
    return std::string(info.param.program).substr(6) + (info.param.v6 ? "_ipv6" : "_ipv4");
}

class RelayTest : public ::testing::TestWithParam<Case> {
  protected:
    static void SetUpTestSuite() {
        shared = std::make_unique<Host>();
        auto options = shared->options();
        options.attach = Attach::Xdp;  // tc is there as well
        shared->open(options);
    }
    static void TearDownTestSuite() { shared.reset(); }
    RelayTest() {
        host.forget();
        if (xdp()) {
            Host::away_from_refresh();
        }
    }

    [[nodiscard]] static bool xdp() { return std::string(GetParam().program) == "relay_xdp"; }
    [[nodiscard]] static bool v6() { return GetParam().v6; }

    void set_flow() { ASSERT_TRUE(host.path().set(in, out, 7)); }

    [[nodiscard]] Spec segment() const {
        Spec spec;
        spec.tuple = in;
        spec.payload = pattern(10);
        return spec;
    }
    Ran run(const Bytes& packet) { return host.run(GetParam().program, host.frame_in(packet)); }

    /// What it is to be when it leaves: tc leaves the link layer to the neighbour's entry.
    [[nodiscard]] Bytes relayed(Spec spec) const {
        spec.tuple = out;
        spec.ttl--;
        return xdp() ? frame(host.right_neighbour, host.right_mac, build(spec))
                     : host.frame_in(build(spec));
    }
    void expect_relayed(const Spec& spec) {
        const Ran ran = run(build(spec));
        EXPECT_EQ(ran.verdict, xdp() ? kXdpRedirect : kTcRedirect);
        EXPECT_EQ(ran.out, relayed(spec));
    }
    /// The host's stack gets it as it was.
    void expect_untouched(const Bytes& packet) {
        const Ran ran = run(packet);
        EXPECT_EQ(ran.verdict, xdp() ? kXdpPass : kTcPass);
        EXPECT_EQ(ran.out, host.frame_in(packet));
    }
    /// XDP leaves it to tc, which drops it and counts why.
    void expect_dropped(const Bytes& packet, flow_counter why) {
        host.counted(why);
        if (xdp()) {
            expect_untouched(packet);
            EXPECT_EQ(host.counted(why), 0U);
            return;
        }
        EXPECT_EQ(run(packet).verdict, kTcDrop);
        EXPECT_EQ(host.counted(why), 1U);
    }
    /// As above, but user space gets it, whole.
    void expect_handed_up(const Bytes& packet, Event::Why why = Event::Why::Segment) {
        expect_dropped(packet, FLOW_COUNT_TO_USER);
        const auto events = host.events();
        ASSERT_EQ(events.size(), xdp() ? 0U : 1U);
        if (!xdp()) {
            EXPECT_EQ(events[0].why, why);
            EXPECT_EQ(events[0].length, packet.size());
            EXPECT_EQ(events[0].packet, packet);
        }
    }

    static inline std::unique_ptr<Host> shared;
    Host& host = *shared;
    const Tuple in = v6() ? Tuple{at("fd01::2", 1234), at("fd01::1", 40000)}
                          : Tuple{at("10.0.1.2", 1234), at("10.0.1.1", 40000)};
    const Tuple out = v6() ? Tuple{at("fd01::1", 40001), at("fd02::2", 5678)}
                           : Tuple{at("10.0.1.1", 40001), at("10.0.2.2", 5678)};
};

INSTANTIATE_TEST_SUITE_P(All, RelayTest,
                         ::testing::Values(Case{"relay_tc", false}, Case{"relay_tc", true},
                                           Case{"relay_xdp", false}, Case{"relay_xdp", true}),
                         name_of);

TEST_P(RelayTest, SegmentsOfAllLengths) {
    set_flow();
    for (const std::size_t size : {0, 1, 2, 3, 4, 5, 99, 100, 1000, 1001, 1339, 1340}) {
        Spec spec = segment();
        spec.payload = pattern(size);
        expect_relayed(spec);
    }
}

TEST_P(RelayTest, AllSums) {
    set_flow();
    std::mt19937 chance(1);
    for (int i = 0; i < 3000; i++) {
        Spec spec = segment();
        spec.payload.resize(chance() % 8);
        for (auto& byte : spec.payload) {
            byte = static_cast<std::uint8_t>(chance() % 3 == 0 ? 0xff : chance());
        }
        spec.seq = chance() % 4 == 0 ? 0xffffffff : chance();
        spec.id = static_cast<std::uint16_t>(chance());
        spec.ttl = static_cast<std::uint8_t>(2 + chance() % 254);
        const Ran ran = run(build(spec));
        ASSERT_EQ(ran.out, relayed(spec)) << i;
    }
}

TEST_P(RelayTest, OptionsOfTcp) {
    set_flow();
    const Bytes sack = {1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2};
    for (const Bytes& options :
         {kTimestamp, kTimestamp + sack, sack, ours(5, 8), kTimestamp + ours(5, 8), ours(0, 20),
          ours(4, 16), Bytes{254, 4, 0x4d, 0x48}, Bytes{254, 8, 0x4d, 0x48, 0x10, 0, 0, 0},
          Bytes{253, 8, 0x4d, 0x49, 0x10, 0, 0, 0}, Bytes(40, 1), Bytes(40, 0), Bytes{9, 0, 0, 0},
          Bytes{9, 1, 0, 0}, Bytes{9, 200, 0, 0}, Bytes{1, 1, 1, 254},
          // The list has ended, or the option is part of another.
          Bytes{0, 1, 1, 1} + ours(1, 28), Bytes{9, 32, 0, 0} + ours(1, 28)}) {
        Spec spec = segment();
        spec.options = options;
        expect_relayed(spec);
    }
}

TEST_P(RelayTest, OptionsForUserSpace) {
    set_flow();
    for (const Bytes& options :
         {ours(1, 28), ours(2, 24), ours(6, 28), kTimestamp + ours(1, 28),
          Bytes{9, 3, 0, 1} + ours(6, 28), ours(5, 8) + ours(2, 24), Bytes(12, 1) + ours(2, 24)}) {
        Spec spec = segment();
        spec.options = options;
        expect_handed_up(build(spec));
    }
}

TEST_P(RelayTest, WhatFollowsAProofGoesTheSameWay) {
    set_flow();
    expect_relayed(segment());
    Spec proof = segment();
    proof.options = kTimestamp + ours(2, 24);
    expect_handed_up(build(proof));
    expect_handed_up(build(segment()));
    Spec other = segment();
    other.tuple = {out.to, in.to};  // of the other end: no flow of its own
    expect_handed_up(build(other));
    // The end is elsewhere, or is not: what user space has made of it.
    set_flow();
    expect_relayed(segment());
    expect_handed_up(build(proof));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    expect_relayed(segment());
}

TEST_P(RelayTest, SynsForUserSpace) {
    set_flow();
    for (const std::uint8_t flags : {kSyn, std::uint8_t(kSyn | kAck), std::uint8_t(kSyn | kFin)}) {
        Spec spec = segment();
        spec.flags = flags;
        expect_handed_up(build(spec));
    }
}

TEST_P(RelayTest, WhatElseIsInHeaders) {
    set_flow();
    for (unsigned tos = 0; tos < 256; tos += 5) {
        Spec spec = segment();
        spec.tos = static_cast<std::uint8_t>(tos);
        spec.flags = static_cast<std::uint8_t>(kAck | kPsh | (tos & 1 ? 0xc0 : 0));
        expect_relayed(spec);
    }
    Spec urgent = segment();
    urgent.flags = kAck | kUrg;
    urgent.urgent = 3;
    expect_relayed(urgent);
    Spec fragmentable = segment();
    fragmentable.dont_fragment = false;
    expect_relayed(fragmentable);
}

TEST_P(RelayTest, OptionsOfIp) {
    if (v6()) {
        return;
    }
    set_flow();
    for (std::size_t size = 4; size <= 40; size += 4) {
        Spec spec = segment();
        spec.ip_options = Bytes(size, 1);
        spec.options = size % 8 == 0 ? kTimestamp : Bytes{};
        expect_relayed(spec);
    }
}

TEST_P(RelayTest, HopsEnd) {
    set_flow();
    Spec spec = segment();
    spec.ttl = 2;
    expect_relayed(spec);
    for (const std::uint8_t ttl : {1, 0}) {
        spec.ttl = ttl;
        expect_dropped(build(spec), FLOW_COUNT_TTL);
    }
    spec.ttl = 255;
    expect_relayed(spec);
}

TEST_P(RelayTest, Counts) {
    set_flow();
    const std::size_t header = v6() ? 60 : 40;
    for (std::size_t size = 0; size < 10; size++) {
        Spec spec = segment();
        spec.payload = pattern(size);
        expect_relayed(spec);
    }
    const auto seen = host.path().get(in);
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen->relay, 7U);
    EXPECT_EQ(seen->out, out);
    EXPECT_EQ(seen->packets, 10U);
    EXPECT_EQ(seen->bytes, 10 * header + 45);
    EXPECT_LT(seen->idle_ns, 60'000'000'000U);
    EXPECT_EQ(host.counted(FLOW_COUNT_RELAYED), 10U);
    set_flow();
    EXPECT_EQ(host.path().get(in)->packets, 0U);
}

TEST_P(RelayTest, AcksAreTracked) {
    set_flow();
    EXPECT_FALSE(host.path().get(in)->ack);
    Spec spec = segment();
    spec.flags = kPsh;
    expect_relayed(spec);
    EXPECT_FALSE(host.path().get(in)->ack);
    spec.flags = kAck;
    const std::vector<std::pair<std::uint32_t, std::uint32_t>> sent_and_highest = {
        {0xfffffff0, 0xfffffff0},
        {0xffffffe0, 0xfffffff0},
        {0xffffffff, 0xffffffff},
        {0, 0},
        {0xfffffff5, 0},
        {16, 16},
        {16, 16},
        {0x7fffffff, 0x7fffffff},
        {15, 0x7fffffff}};
    for (const auto& [sent, highest] : sent_and_highest) {
        spec.ack = sent;
        expect_relayed(spec);
        EXPECT_EQ(host.path().get(in)->ack, highest);
    }
}

TEST_P(RelayTest, EndsAreTracked) {
    set_flow();
    Spec spec = segment();
    expect_relayed(spec);
    EXPECT_FALSE(host.path().get(in)->fin_end);
    spec.flags = kFin | kAck;
    spec.seq = 0xfffffffc;
    expect_relayed(spec);
    EXPECT_EQ(host.path().get(in)->fin_end, 7U);
    EXPECT_FALSE(host.path().get(in)->rst);
    spec.flags = kRst;
    expect_relayed(spec);
    EXPECT_TRUE(host.path().get(in)->rst);
    EXPECT_EQ(host.path().get(in)->fin_end, 7U);
}

TEST_P(RelayTest, RstsAreNoLife) {
    set_flow();
    expect_relayed(segment());
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    Spec spec = segment();
    spec.flags = kRst;
    expect_relayed(spec);
    EXPECT_GE(host.path().get(in)->idle_ns, 40'000'000U);
    expect_relayed(segment());
    EXPECT_LT(host.path().get(in)->idle_ns, 40'000'000U);
}

TEST_P(RelayTest, RstsFromWhereTheEndIsNoLongerForUserSpace) {
    ASSERT_TRUE(host.path().set(in, out, 7, true));
    expect_relayed(segment());
    Spec spec = segment();
    spec.flags = kRst | kAck;
    expect_handed_up(build(spec));
    EXPECT_FALSE(host.path().get(in)->rst);
}

TEST_P(RelayTest, WithoutFlowForUserSpace) {
    expect_handed_up(build(segment()));
    set_flow();
    Spec other = segment();
    other.tuple.from.port++;
    expect_handed_up(build(other));
    ASSERT_TRUE(host.path().remove(in));
    expect_handed_up(build(segment()));
}

TEST_P(RelayTest, OtherPortsAndAddressesAreNotTouched) {
    set_flow();
    for (const std::uint16_t port : {0, 22, 39999, 41000, 65535}) {
        Spec spec = segment();
        spec.tuple.to.port = port;
        expect_untouched(build(spec));
    }
    for (const std::uint16_t port : {40001, 40999}) {
        Spec spec = segment();
        spec.tuple.to.port = port;
        expect_handed_up(build(spec));
    }
    Spec spec = segment();
    spec.tuple.to.address = at(v6() ? "fd02::1" : "10.0.2.1", 0).address;
    expect_untouched(build(spec));
    Bytes udp = build(segment());
    udp[v6() ? 6 : 9] = 17;
    expect_untouched(udp);
}

/// A packet that is as long as its header says, or not; cut off at every byte.
TEST_P(RelayTest, CutOff) {
    set_flow();
    for (const Bytes& options : {Bytes{}, kTimestamp, ours(5, 8) + Bytes(8, 1)}) {
        Spec spec = segment();
        spec.options = options;
        const Bytes whole = build(spec);
        // The kernel lets no less be tried than an IP header is long.
        const std::size_t header = v6() ? 40 : 20;
        for (std::size_t size = header; size < whole.size(); size++) {
            const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            if (size < header + 4) {
                expect_untouched(cut);
            } else {
                expect_dropped(cut, FLOW_COUNT_MALFORMED);
            }
            // As before, but the IP header knows.
            Bytes true_length = cut;
            true_length[v6() ? 5 : 3] = static_cast<std::uint8_t>(v6() ? size - 40 : size);
            const std::size_t headers = header + 20 + options.size();
            if (size >= header + 4 && size < headers) {
                expect_dropped(true_length, FLOW_COUNT_MALFORMED);
            } else if (size >= headers) {
                EXPECT_EQ(run(true_length).verdict, xdp() ? kXdpRedirect : kTcRedirect);
            }
        }
    }
}

TEST_P(RelayTest, HeadersThatAreNone) {
    set_flow();
    const Bytes good = build(segment());
    const std::size_t tcp = v6() ? 40 : 20;
    for (unsigned words = 0; words < 16; words++) {
        Bytes bad = good;
        bad[tcp + 12] = static_cast<std::uint8_t>(words << 4);
        if (words < 5 || words > 7) {
            expect_dropped(bad, FLOW_COUNT_MALFORMED);
        }
    }
    for (unsigned version = 0; version < 16; version++) {
        Bytes bad = good;
        bad[0] = static_cast<std::uint8_t>(version << 4 | (good[0] & 0xf));
        if (version != (v6() ? 6U : 4U)) {
            // The kernel takes the version of Ethernet's word for it, and so do we, but not on
            // trust.
            Bytes framed = frame(host.left_mac, host.left_neighbour, bad);
            framed[12] = v6() ? 0x86 : 0x08;
            framed[13] = v6() ? 0xdd : 0x00;
            EXPECT_EQ(host.run(GetParam().program, framed).verdict, xdp() ? kXdpPass : kTcPass);
        }
    }
}

TEST_P(RelayTest, WhoSaysMoreHasNotEnded) {
    set_flow();
    Spec spec = segment();
    spec.flags = kAck | kFin;
    spec.seq = 0xfffffff0;
    run(build(spec));
    spec.flags = kAck;
    run(build(spec));  // once more, without its FIN
    EXPECT_EQ(host.path().get(in)->fin_end, 0xfffffffbU);
    spec.seq = 0xfffffffa;
    run(build(spec));
    EXPECT_FALSE(host.path().get(in)->fin_end);
    spec.flags = kRst;
    run(build(spec));
    EXPECT_TRUE(host.path().get(in)->rst);
    spec.flags = kAck;
    run(build(spec));
    EXPECT_FALSE(host.path().get(in)->rst);
}

TEST_P(RelayTest, Fragments) {
    set_flow();
    const Bytes whole = build(segment());
    const auto fragment = [&](unsigned offset, bool more, std::uint8_t protocol = 6) {
        Bytes out = whole;
        const unsigned field =
            v6() ? offset << 3 | (more ? 1U : 0U) : offset | (more ? 0x2000U : 0U);
        const auto high = static_cast<std::uint8_t>(field >> 8);
        const auto low = static_cast<std::uint8_t>(field);
        if (v6()) {
            const Bytes header = {protocol, 0, high, low, 0, 0, 0, 9};
            out[6] = 44;
            out.insert(out.begin() + 40, header.begin(), header.end());
            out[5] = static_cast<std::uint8_t>(out[5] + 8);
        } else {
            out[6] = high;
            out[7] = low;
            out[9] = protocol;
        }
        return out;
    };
    // What is ours does not reach the host's stack: it would answer.
    expect_handed_up(fragment(0, true), Event::Why::Fragment);
    Bytes others = fragment(0, true);
    others[(v6() ? 48 : 20) + 2] = 1;
    expect_untouched(others);
    expect_untouched(fragment(0, true, 17));
    EXPECT_THAT(host.events(), ::testing::IsEmpty());
    // To which port a later one goes nobody knows.
    for (const auto& [offset, more] :
         {std::pair(0x10U, true), std::pair(0x10U, false), std::pair(0x1fffU, false)}) {
        expect_untouched(fragment(offset, more));
        EXPECT_THAT(host.events(), ::testing::SizeIs(xdp() ? 0 : 1));
        expect_untouched(fragment(offset, more, 17));
        EXPECT_THAT(host.events(), ::testing::IsEmpty());
    }
    EXPECT_EQ(host.counted(FLOW_COUNT_FRAGMENTS), xdp() ? 0U : 4U);
}

TEST_P(RelayTest, BehindExtensionHeaders) {
    if (!v6()) {
        return;
    }
    set_flow();
    const Bytes padding = {6, 0, 1, 4, 0, 0, 0, 0};
    for (const std::uint8_t kind : {0, 43, 60}) {
        Bytes packet = build(segment());
        packet[6] = kind;
        packet[5] = static_cast<std::uint8_t>(packet[5] + 8);
        packet.insert(packet.begin() + 40, padding.begin(), padding.end());
        expect_dropped(packet, FLOW_COUNT_MALFORMED);
        packet[48 + 2] = 1;  // another port
        expect_untouched(packet);
    }
}

TEST_P(RelayTest, TooBigForTheWayOut) {
    set_flow();
    const std::size_t header = v6() ? 60 : 40;
    Spec spec = segment();
    spec.payload = pattern(1400 - header);
    expect_relayed(spec);
    spec.payload = pattern(1401 - header);
    expect_dropped(build(spec), FLOW_COUNT_TOO_BIG);
    const auto events = host.events();
    ASSERT_EQ(events.size(), xdp() ? 0U : 1U);
    if (!xdp()) {
        EXPECT_EQ(events[0].why, Event::Why::TooBig);
        EXPECT_EQ(events[0].mtu, 1400U);
        EXPECT_EQ(events[0].length, 1401U);
        EXPECT_EQ(events[0].packet, build(spec));
    }
    EXPECT_EQ(host.path().get(in)->packets, 1U);
}

TEST_P(RelayTest, NoRoute) {
    const Tuple nowhere{out.from, at(v6() ? "fd09::9" : "10.9.9.9", 1)};
    ASSERT_TRUE(host.path().set(in, nowhere, 1));
    expect_dropped(build(segment()), FLOW_COUNT_NO_ROUTE);
}

TEST_P(RelayTest, NoNeighbour) {
    command(v6() ? "ip -6 neigh del fd02::2 dev right" : "ip neigh del 10.0.2.2 dev right");
    set_flow();
    // tc has the kernel look for it.
    const Ran ran = run(build(segment()));
    EXPECT_EQ(ran.verdict, xdp() ? kXdpPass : kTcRedirect);
    command(v6() ? "ip neigh add fd02::2 lladdr 02:00:00:00:02:02 dev right"
                 : "ip neigh add 10.0.2.2 lladdr 02:00:00:00:02:02 dev right");
}

TEST_P(RelayTest, FramesToOthersAreNotTouched) {
    set_flow();
    const Bytes other = frame(host.right_mac, host.left_neighbour, build(segment()));
    EXPECT_EQ(host.run(GetParam().program, other).verdict, xdp() ? kXdpPass : kTcPass);
}

TEST_P(RelayTest, PaddedFrames) {
    set_flow();
    Spec spec = segment();
    spec.payload = pattern(1);
    const Bytes padding(20);
    const Ran ran = run(build(spec) + padding);
    EXPECT_EQ(ran.verdict, xdp() ? kXdpRedirect : kTcRedirect);
    EXPECT_EQ(ran.out, relayed(spec) + padding);
    EXPECT_EQ(host.path().get(in)->bytes, v6() ? 61U : 41U);
    spec.flags = kSyn;
    const Bytes syn = build(spec);
    if (!xdp()) {
        EXPECT_EQ(run(syn + padding).verdict, kTcDrop);
        EXPECT_EQ(host.events().at(0).packet, syn);
    }
}

}  // namespace
}  // namespace mobility::proxy
