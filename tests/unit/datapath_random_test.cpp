// SPDX-License-Identifier: GPL-2.0-or-later
// Packets made at random, most of them nearly right, through the data path and through a model of
// it in plain C++, which knows bytes and nothing of sums: it computes them anew.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "datapath_host.hpp"

namespace mobility::proxy {
namespace {

const Tuple kIn4{at("10.0.1.2", 1234), at("10.0.1.1", 40000)};
const Tuple kOut4{at("10.0.1.1", 40001), at("10.0.2.2", 5678)};
const Tuple kIn6{at("fd01::2", 1234), at("fd01::1", 40000)};
const Tuple kOut6{at("fd01::1", 40001), at("fd02::2", 5678)};
constexpr std::size_t kMtu = 1400;

/// What is to become of a packet.
struct Fate {
    enum class What : std::uint8_t { Untouched, Copied, Dropped, HandedUp, Relayed };
    What what = What::Untouched;
    flow_counter count = FLOW_COUNTERS;  ///< which one grows
    Event::Why why = Event::Why::Segment;
    Bytes out;
};

/// The host's view of a packet, read with bounds checked everywhere.
class Model {
  public:
    Model(const Bytes& packet, bool v6) : packet_(packet), v6_(v6) {}
    Fate fate() { return v6_ ? ip6() : ip4(); }

  private:
    [[nodiscard]] unsigned get8(std::size_t i) const { return packet_.at(i); }
    [[nodiscard]] unsigned get16(std::size_t i) const { return get8(i) << 8 | get8(i + 1); }
    [[nodiscard]] bool has(std::size_t from, std::size_t size) const {
        return from + size <= packet_.size();
    }
    [[nodiscard]] bool is(std::size_t where, const Address& address) const {
        for (std::size_t i = 0; i < (v6_ ? 16 : 4); i++) {
            const unsigned byte =
                v6_ ? address.to_v6().to_bytes()[i] : address.to_v4().to_bytes()[i];
            if (get8(where + i) != byte) {
                return false;
            }
        }
        return true;
    }
    static bool our_port(unsigned port) { return port >= 40000 && port <= 40999; }
    static Fate up(Event::Why why, flow_counter count = FLOW_COUNT_TO_USER) {
        return {Fate::What::HandedUp, count, why, {}};
    }
    static Fate drop(flow_counter count) { return {Fate::What::Dropped, count, {}, {}}; }

    Fate ip4() {
        if (!has(0, 20) || !is(16, kIn4.to.address) || get8(0) >> 4 != 4 || (get8(0) & 15) < 5) {
            return {};
        }
        l4_ = (get8(0) & 15) * 4;
        length_ = get16(2) == 0 ? packet_.size() : get16(2);
        const unsigned protocol = get8(9);
        if ((get16(6) & 0x3fff) != 0) {
            return protocol == 6 ? fragment((get16(6) & 0x1fff) == 0) : Fate{};
        }
        return protocol == 6 ? tcp() : protocol == 1 ? icmp() : Fate{};
    }
    Fate ip6() {
        if (!has(0, 40) || !is(24, kIn6.to.address) || get8(0) >> 4 != 6) {
            return {};
        }
        l4_ = 40;
        length_ = get16(4) == 0 ? packet_.size() : get16(4) + 40;
        if (get8(6) == 6) {
            return tcp();
        }
        return get8(6) == 58 ? icmp() : extensions(get8(6));
    }
    Fate extensions(unsigned next) {
        for (int i = 0; i < 4; i++) {
            if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60) {
                break;
            }
            if (!has(l4_, 8)) {
                return {};
            }
            if (next == 44) {
                const bool is_tcp = get8(l4_) == 6;
                const bool first = (get16(l4_ + 2) & 0xfff8) == 0;
                l4_ += 8;
                return is_tcp ? fragment(first) : Fate{};
            }
            const std::size_t size = next == 51 ? (get8(l4_ + 1) + 2) * 4 : (get8(l4_ + 1) + 1) * 8;
            next = get8(l4_);
            l4_ += size;
        }
        const bool ours = next == 6 && has(l4_, 4) && our_port(get16(l4_ + 2));
        return ours ? drop(FLOW_COUNT_MALFORMED) : Fate{};
    }
    Fate fragment(bool first) {
        if (length_ > packet_.size() || length_ <= l4_) {
            return {};
        }
        if (!first) {
            return {Fate::What::Copied, FLOW_COUNT_FRAGMENTS, Event::Why::Fragment, {}};
        }
        return has(l4_, 4) && our_port(get16(l4_ + 2))
                   ? up(Event::Why::Fragment, FLOW_COUNT_FRAGMENTS)
                   : Fate{};
    }
    Fate icmp() {
        const std::vector<unsigned> errors =
            v6_ ? std::vector<unsigned>{1, 2, 3, 4} : std::vector<unsigned>{3, 11, 12};
        if (!has(l4_, 8) || length_ > packet_.size() ||
            std::find(errors.begin(), errors.end(), get8(l4_)) == errors.end()) {
            return {};
        }
        const std::size_t quoted = l4_ + 8;
        if (!has(quoted, v6_ ? 40 : 20) || get8(quoted) >> 4 != (v6_ ? 6U : 4U) ||
            get8(quoted + (v6_ ? 6 : 9)) != 6 ||
            !is(quoted + (v6_ ? 8 : 12), v6_ ? kIn6.to.address : kIn4.to.address)) {
            return {};
        }
        if (!v6_ && ((get8(quoted) & 15) < 5 || (get16(quoted + 6) & 0x1fff) != 0)) {
            return {};
        }
        const std::size_t port = quoted + (v6_ ? 40 : (get8(quoted) & 15) * 4);
        return has(port, 2) && our_port(get16(port)) ? up(Event::Why::Icmp) : Fate{};
    }
    [[nodiscard]] bool for_user(std::size_t end) const {
        for (std::size_t i = l4_ + 20; i + 5 <= end;) {
            if (get8(i) == 0) {
                return false;
            }
            if (get8(i) == 1) {
                i++;
                continue;
            }
            const unsigned form = get8(i + 4) >> 4;
            if (get8(i + 1) < 2) {
                return false;
            }
            if (get8(i) == 254 && get8(i + 1) >= 5 && get16(i + 2) == 0x4d49 &&
                (form == 1 || form == 2 || form == 6)) {
                return true;
            }
            i += get8(i + 1);
        }
        return false;
    }
    Fate tcp() {
        if (!has(l4_, 4) || !our_port(get16(l4_ + 2))) {
            return {};
        }
        if (!has(l4_, 20)) {
            return drop(FLOW_COUNT_MALFORMED);
        }
        const std::size_t header = (get8(l4_ + 12) >> 4) * 4;
        if (header < 20 || l4_ + header > length_ || length_ > packet_.size()) {
            return drop(FLOW_COUNT_MALFORMED);
        }
        const Tuple& in = v6_ ? kIn6 : kIn4;
        const bool known = is(v6_ ? 8 : 12, in.from.address) && get16(l4_) == in.from.port &&
                           get16(l4_ + 2) == in.to.port;
        if (!known || (get8(l4_ + 13) & kSyn) != 0 || for_user(l4_ + header)) {
            return up(Event::Why::Segment);
        }
        if (get8(v6_ ? 7 : 8) <= 1) {
            return drop(FLOW_COUNT_TTL);
        }
        if (length_ > kMtu) {
            return up(Event::Why::TooBig, FLOW_COUNT_TOO_BIG);
        }
        return {Fate::What::Relayed, FLOW_COUNT_RELAYED, {}, rewritten()};
    }

    void put16(Bytes& bytes, std::size_t where, unsigned value) const {
        bytes.at(where) = static_cast<std::uint8_t>(value >> 8);
        bytes.at(where + 1) = static_cast<std::uint8_t>(value);
    }
    /// The sum of these bytes, as a checksum's complement.
    static unsigned sum(const Bytes& bytes, std::size_t from, std::size_t to, unsigned start) {
        unsigned long all = start;
        for (std::size_t i = from; i < to; i++) {
            all += static_cast<unsigned long>(bytes[i]) << ((i - from) % 2 == 0 ? 8 : 0);
        }
        while (all > 0xffff) {
            all = (all & 0xffff) + (all >> 16);
        }
        return static_cast<unsigned>(all);
    }
    /// Sum of what a checksum of TCP covers in the headers and ports, and of itself.
    [[nodiscard]] unsigned tcp_sum(const Bytes& bytes) const {
        return sum(bytes, l4_, l4_ + 4, sum(bytes, v6_ ? 8 : 12, v6_ ? 40 : 20, 0));
    }
    /// Wrong checksums stay as wrong as they were: the difference is kept.
    static unsigned kept(unsigned check, unsigned before, unsigned after) {
        unsigned long all = (~check & 0xffffUL) + (~before & 0xffffUL) + after;
        while (all > 0xffff) {
            all = (all & 0xffff) + (all >> 16);
        }
        return static_cast<unsigned>(~all & 0xffff);
    }
    [[nodiscard]] Bytes rewritten() const {
        const Tuple& out = v6_ ? kOut6 : kOut4;
        Bytes made = packet_;
        Spec spec;
        spec.tuple = out;
        const Bytes other = build(spec);
        const std::size_t from = v6_ ? 8 : 12;
        std::copy(other.begin() + static_cast<std::ptrdiff_t>(from),
                  other.begin() + (v6_ ? 40 : 20),
                  made.begin() + static_cast<std::ptrdiff_t>(from));
        put16(made, l4_, out.from.port);
        put16(made, l4_ + 2, out.to.port);
        made[v6_ ? 7 : 8]--;
        if (!v6_) {
            const auto header = [this](const Bytes& bytes) {
                return sum(bytes, 12, l4_, sum(bytes, 0, 10, 0));
            };
            put16(made, 10, kept(get16(10), header(packet_), header(made)));
        }
        put16(made, l4_ + 16, kept(get16(l4_ + 16), tcp_sum(packet_), tcp_sum(made)));
        return made;
    }

    const Bytes& packet_;
    bool v6_;
    std::size_t l4_ = 0;
    std::size_t length_ = 0;
};

/// Packets: of the flows or nearly, with all kinds of options, with a few bytes changed.
class Source {
  public:
    Bytes next(bool v6) {
        Spec spec;
        spec.tuple = v6 ? kIn6 : kIn4;
        if (one_in(8)) {
            spec.tuple.from.port = number(65536);
        }
        if (one_in(8)) {
            spec.tuple.to.port = static_cast<std::uint16_t>(39990 + number(1020));
        }
        spec.flags = one_in(6) ? static_cast<std::uint8_t>(number(256)) : kAck;
        spec.ttl = static_cast<std::uint8_t>(one_in(4) ? number(4) : number(256));
        spec.seq = chance_();
        spec.ack = chance_();
        spec.tos = static_cast<std::uint8_t>(number(256));
        spec.options = options();
        if (!v6 && one_in(4)) {
            spec.ip_options = Bytes(4UL * number(11), 1);
        }
        spec.payload = pattern(one_in(5) ? 1300 + number(100) : number(64));
        Bytes packet = build(spec);
        if (one_in(6)) {
            packet = icmp(packet, v6);
        } else if (v6 && one_in(6)) {
            extend(packet);
        }
        return damaged(std::move(packet));
    }
    std::uint16_t number(unsigned below) { return static_cast<std::uint16_t>(chance_() % below); }
    bool one_in(unsigned n) { return number(n) == 0; }

  private:
    Bytes options() {
        Bytes all;
        while (all.size() < 40 && !one_in(3)) {
            switch (number(6)) {
                case 0:
                    all = all + kTimestamp;
                    break;
                case 1:
                    all = all + ours(static_cast<std::uint8_t>(number(8)),
                                     static_cast<std::uint8_t>(5 + number(28)));
                    break;
                case 2:
                    all.push_back(1);
                    break;
                case 3:
                    all = all + Bytes{5, 10, 0, 0, 0, 1, 0, 0, 0, 2};
                    break;
                case 4:
                    all = all + ours(5, 8);
                    break;
                default:
                    all.push_back(static_cast<std::uint8_t>(number(256)));
                    break;
            }
        }
        all.resize(std::min<std::size_t>(40, (all.size() + 3) / 4 * 4), 1);
        return all;
    }
    Bytes icmp(const Bytes& about, bool v6) {
        Spec outer;
        outer.tuple = v6 ? kIn6 : kIn4;
        Bytes packet = build(outer);
        packet.resize(v6 ? 40 : 20);
        packet[v6 ? 6 : 9] = v6 ? 58 : 1;
        Bytes quoted = about;
        // It has left the proxy, or so it says.
        Spec left;
        left.tuple = {outer.tuple.to, outer.tuple.from};
        const Bytes header = build(left);
        if (!one_in(4)) {
            std::copy(header.begin(), header.begin() + (v6 ? 44 : 24), quoted.begin());
        }
        packet =
            packet + Bytes{static_cast<std::uint8_t>(number(14)), 0, 0, 0, 0, 0, 0, 0} + quoted;
        const std::size_t length = packet.size() - (v6 ? 40 : 0);
        packet[v6 ? 4 : 2] = static_cast<std::uint8_t>(length >> 8);
        packet[v6 ? 5 : 3] = static_cast<std::uint8_t>(length);
        return packet;
    }
    /// Extension headers of IPv6, by the payload's length as it was: that is wrong too, then.
    void extend(Bytes& packet) {
        const Bytes kinds = {0, 43, 44, 51, 60, 17, 6};
        for (unsigned i = number(6); i > 0; i--) {
            Bytes header = {packet[6], static_cast<std::uint8_t>(number(3))};
            header.resize((header[1] + 1UL) * 8);
            packet[6] = kinds[number(static_cast<unsigned>(kinds.size()))];
            packet.insert(packet.begin() + 40, header.begin(), header.end());
        }
    }
    Bytes damaged(Bytes packet) {
        for (unsigned i = one_in(2) ? number(4) : 0; i > 0; i--) {
            packet[number(static_cast<unsigned>(std::min<std::size_t>(packet.size(), 100)))] =
                static_cast<std::uint8_t>(number(256));
        }
        if (one_in(8)) {
            packet.resize(20 + number(static_cast<unsigned>(packet.size())));
        }
        return packet;
    }

    std::mt19937 chance_{42};
};

class RandomTest : public ::testing::Test {
  protected:
    RandomTest() {
        auto options = host.options();
        options.attach = Attach::Xdp;
        options.events_per_second = 1'000'000'000;
        host.open(options);
    }

    void expect_tc(const Bytes& packet, const Bytes& framed, const Fate& fate) {
        const Ran ran = host.run("relay_tc", framed);
        const auto events = host.events();
        const bool seen = fate.what == Fate::What::HandedUp || fate.what == Fate::What::Copied;
        ASSERT_EQ(events.size(), seen ? 1U : 0U);
        if (seen) {
            ASSERT_EQ(events[0].why, fate.why);
            ASSERT_LE(events[0].packet.size(), packet.size());
            ASSERT_TRUE(
                std::equal(events[0].packet.begin(), events[0].packet.end(), packet.begin()));
        }
        switch (fate.what) {
            case Fate::What::Untouched:
            case Fate::What::Copied:
                ASSERT_EQ(ran.verdict, kTcPass);
                ASSERT_EQ(ran.out, framed);
                break;
            case Fate::What::Dropped:
            case Fate::What::HandedUp:
                ASSERT_EQ(ran.verdict, kTcDrop);
                break;
            case Fate::What::Relayed:
                ASSERT_EQ(ran.verdict, kTcRedirect);
                ASSERT_EQ(ran.out, with_header(framed, fate.out));
                break;
        }
        if (fate.count != FLOW_COUNTERS) {
            ASSERT_EQ(host.counted(fate.count), 1U) << fate.count;
        }
        if (fate.count == FLOW_COUNT_TOO_BIG || fate.count == FLOW_COUNT_FRAGMENTS) {
            ASSERT_EQ(host.counted(FLOW_COUNT_TO_USER), 1U);
        }
    }
    void expect_xdp(const Bytes& framed, const Fate& fate) {
        const Ran ran = host.run("relay_xdp", framed);
        // Without a length of its own a packet is GRO's, which XDP does not see.
        const bool no_length = framed[12] == 0x08 ? framed[16] == 0 && framed[17] == 0
                                                  : framed[18] == 0 && framed[19] == 0;
        if (fate.what != Fate::What::Relayed || no_length) {
            ASSERT_EQ(ran.verdict, kXdpPass);
            ASSERT_EQ(ran.out, framed);
            return;
        }
        ASSERT_EQ(ran.verdict, kXdpRedirect);
        Bytes header(host.right_neighbour.begin(), host.right_neighbour.end());
        header.insert(header.end(), host.right_mac.begin(), host.right_mac.end());
        header.insert(header.end(), framed.begin() + 12, framed.begin() + 14);
        ASSERT_EQ(ran.out, with_header(header, fate.out));
        host.counted(FLOW_COUNT_RELAYED);
    }
    static Bytes with_header(const Bytes& header, const Bytes& packet) {
        return Bytes(header.begin(), header.begin() + 14) + packet;
    }

    Host host;
};

TEST_F(RandomTest, DoesAsTheModel) {
    Source source;
    std::map<Fate::What, int> seen;
    bool held = false;
    ASSERT_TRUE(host.path().set(kIn4, kOut4, 4));
    ASSERT_TRUE(host.path().set(kIn6, kOut6, 6));
    for (int i = 0; i < 20'000; i++) {
        const bool v6 = source.one_in(2);
        const Bytes packet = source.next(v6);
        Bytes framed = host.frame_in(packet);
        framed[12] = v6 ? 0x86 : 0x08;
        framed[13] = v6 ? 0xdd : 0x00;
        if (packet.size() < (v6 ? 40 : 20)) {
            continue;  // the kernel does not run programs on them
        }
        const Fate fate = Model(packet, v6).fate();
        seen[fate.what]++;
        if (i % 1000 == 0) {
            Host::away_from_refresh();
        }
        if (i % 1000 == 0 || held) {
            ASSERT_TRUE(host.path().set(kIn4, kOut4, 4));
            ASSERT_TRUE(host.path().set(kIn6, kOut6, 6));
        }
        // A proof would have what follows go its way.
        held = fate.what == Fate::What::HandedUp;
        SCOPED_TRACE("packet " + std::to_string(i) + ": " + ::testing::PrintToString(packet));
        expect_tc(packet, framed, fate);
        if (!HasFatalFailure()) {
            expect_xdp(framed, fate);
        }
        if (HasFatalFailure()) {
            return;
        }
    }
    // All kinds have come up, and often.
    EXPECT_GT(seen[Fate::What::Untouched], 1000);
    EXPECT_GT(seen[Fate::What::Dropped], 1000);
    EXPECT_GT(seen[Fate::What::HandedUp], 1000);
    EXPECT_GT(seen[Fate::What::Relayed], 1000);
}

}  // namespace
}  // namespace mobility::proxy
