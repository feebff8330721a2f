// SPDX-License-Identifier: GPL-2.0-or-later
// Segments that really go from link to link: what BPF_PROG_TEST_RUN does not do.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "datapath_host.hpp"

namespace mobility::proxy {
namespace {

/// The far end of a link, or of a tunnel.
class Wire {
  public:
    virtual ~Wire() { close(fd_); }
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;

    void send(const Bytes& bytes) const {
        if (write(fd_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
            throw std::runtime_error(std::string("sending: ") + std::strerror(errno));
        }
    }
    /// Whether this comes before anything has been quiet for two seconds; all else is let go by.
    [[nodiscard]] bool gets(const Bytes& wanted) const {
        pollfd waiting{fd_, POLLIN, 0};
        while (poll(&waiting, 1, 2000) > 0) {
            Bytes got(4096);
            got.resize(
                static_cast<std::size_t>(std::max<ssize_t>(0, read(fd_, got.data(), got.size()))));
            if (got == wanted) {
                return true;
            }
        }
        return false;
    }

  protected:
    explicit Wire(int fd) : fd_(fd) {
        if (fd < 0) {
            throw std::runtime_error(std::strerror(errno));
        }
    }
    [[nodiscard]] int fd() const { return fd_; }

  private:
    int fd_;
};

/// Frames of an Ethernet link.
class Ethernet : public Wire {
  public:
    explicit Ethernet(const char* name)
        : Wire(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))) {
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = htons(ETH_P_ALL);
        address.sll_ifindex = static_cast<int>(if_nametoindex(name));
        if (bind(fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
            throw std::runtime_error(std::string(name) + ": " + std::strerror(errno));
        }
    }
};

/// Packets of a tunnel, which has no link layer. The link is there as long as this.
class Tunnel : public Wire {
  public:
    Tunnel() : Wire(open("/dev/net/tun", O_RDWR | O_CLOEXEC)) {
        ifreq request{};
        std::strcpy(request.ifr_name, "tunnel");
        request.ifr_flags = IFF_TUN | IFF_NO_PI;
        if (ioctl(fd(), TUNSETIFF, &request) != 0) {
            throw std::runtime_error(std::string("tunnel: ") + std::strerror(errno));
        }
        command(
            "ip link set tunnel up && ip address add 10.0.3.1/24 dev tunnel && "
            "ip address add fd03::1/64 dev tunnel nodad");
    }
};

class LinkTest : public ::testing::Test {
  protected:
    static Spec segment(const Tuple& tuple) {
        Spec spec;
        spec.tuple = tuple;
        spec.payload = pattern(33);
        return spec;
    }
    static Bytes packet(Spec spec, const Tuple& out) {
        spec.tuple = out;
        spec.ttl--;
        return build(spec);
    }
    void relay(const Tuple& in, const Tuple& out) { ASSERT_TRUE(host.path().set(in, out, 1)); }
    /// A segment from A, which is behind `left`, to B, behind `right`.
    void expect_through() {
        for (const auto& [in, out] : {std::pair(kIn4, kRight4), std::pair(kIn6, kRight6)}) {
            relay(in, out);
            left.send(host.frame_in(build(segment(in))));
            EXPECT_TRUE(
                right.gets(frame(host.right_neighbour, host.right_mac, packet(segment(in), out))));
        }
    }

    Host host;
    Ethernet left{"left-peer"};
    Ethernet right{"right-peer"};
    const Tuple kIn4{at("10.0.1.2", 1234), at("10.0.1.1", 40000)};
    const Tuple kIn6{at("fd01::2", 1234), at("fd01::1", 40000)};
    const Tuple kRight4{at("10.0.1.1", 40001), at("10.0.2.2", 5678)};
    const Tuple kRight6{at("fd01::1", 40001), at("fd02::2", 5678)};
    const Tuple kTunnel4{at("10.0.1.1", 40001), at("10.0.3.2", 5678)};
    const Tuple kTunnel6{at("fd01::1", 40001), at("fd03::2", 5678)};
};

TEST_F(LinkTest, ByTc) {
    host.open();
    expect_through();
}

TEST_F(LinkTest, ByTcWhenNobodyWatches) {
    host.open();
    relay(kIn4, kRight4);
    host.close();
    left.send(host.frame_in(build(segment(kIn4))));
    EXPECT_TRUE(
        right.gets(frame(host.right_neighbour, host.right_mac, packet(segment(kIn4), kRight4))));
}

TEST_F(LinkTest, ByXdp) {
    auto options = host.options();
    options.attach = Attach::Xdp;
    host.open(options);
    // veth takes what XDP sends only if it polls.
    command("ethtool -K right-peer gro on");
    Host::away_from_refresh();
    expect_through();
}

TEST_F(LinkTest, ToAndFromTunnels) {
    const Tunnel tunnel;
    auto options = host.options();
    options.interfaces = {"left", "right", "tunnel"};
    host.open(options);
    for (const auto& [in, out] : {std::pair(kIn4, kTunnel4), std::pair(kIn6, kTunnel6)}) {
        relay(in, out);
        left.send(host.frame_in(build(segment(in))));
        EXPECT_TRUE(tunnel.gets(packet(segment(in), out)));
    }
    for (const auto& [in, out] : {std::pair(kTunnel4, kRight4), std::pair(kTunnel6, kRight6)}) {
        const Tuple back{in.to, in.from};
        relay(back, out);
        tunnel.send(build(segment(back)));
        EXPECT_TRUE(
            right.gets(frame(host.right_neighbour, host.right_mac, packet(segment(back), out))));
        // And to where it came from.
        const Tuple hairpin{back.to, back.from};
        relay(back, hairpin);
        tunnel.send(build(segment(back)));
        EXPECT_TRUE(tunnel.gets(packet(segment(back), hairpin)));
    }
}

/// VLAN 9 is on `right` and on its other end, and there is 10.0.4.2 behind it.
TEST_F(LinkTest, ToAndFromVlans) {
    if (std::system("ip link add link right name vlan type vlan id 9 2>/dev/null") != 0) {
        GTEST_SKIP() << "this kernel has no VLANs";
    }
    command(
        "ip link add link right-peer name vlan-peer type vlan id 9 && ip link set vlan up && "
        "ip link set vlan-peer up && ip address add 10.0.4.1/24 dev vlan && "
        "ip neigh add 10.0.4.2 lladdr 02:00:00:00:02:02 dev vlan && "
        "ethtool -K right-peer gro on && ethtool -K left-peer gro on");
    const Ethernet vlan("vlan-peer");
    const Tuple there{kRight4.from, at("10.0.4.2", 5678)};
    const Tuple back{there.to, there.from};
    const Tuple home{kIn4.to, kIn4.from};
    for (const auto attach : {Attach::Tc, Attach::Xdp}) {
        auto options = host.options();
        options.attach = attach;
        options.interfaces = {"left", "right", "vlan"};
        host.open(options);
        Host::away_from_refresh();
        relay(kIn4, there);
        left.send(host.frame_in(build(segment(kIn4))));
        EXPECT_TRUE(
            vlan.gets(frame(host.right_neighbour, host.right_mac, packet(segment(kIn4), there))));
        relay(back, home);
        vlan.send(frame(host.right_mac, host.right_neighbour, build(segment(back))));
        EXPECT_TRUE(
            left.gets(frame(host.left_neighbour, host.left_mac, packet(segment(back), home))));
        EXPECT_EQ(host.counted(FLOW_COUNT_RELAYED), 2U);
    }
}

TEST_F(LinkTest, NeighbourIsLookedFor) {
    command("ip neigh del 10.0.2.2 dev right");
    host.open();
    relay(kIn4, kRight4);
    left.send(host.frame_in(build(segment(kIn4))));
    Bytes question = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    question.insert(question.end(), host.right_mac.begin(), host.right_mac.end());
    question = question + Bytes{8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    question.insert(question.end(), host.right_mac.begin(), host.right_mac.end());
    // The segment's own new source is who asks.
    question = question + Bytes{10, 0, 1, 1, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2};
    ASSERT_TRUE(right.gets(question));
    command("ip neigh replace 10.0.2.2 lladdr 02:00:00:00:02:02 dev right");
    EXPECT_TRUE(
        right.gets(frame(host.right_neighbour, host.right_mac, packet(segment(kIn4), kRight4))));
}

TEST_F(LinkTest, OneLinkOfAHostThatDoesNotForward) {
    command("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    auto options = host.options();
    options.interfaces = {"left"};
    host.open(options);
    for (const auto& [in, out] : {std::pair(kIn4, Tuple{kRight4.from, at("10.0.1.2", 9)}),
                                  std::pair(kIn6, Tuple{kRight6.from, at("fd01::2", 9)})}) {
        relay(in, out);
        left.send(host.frame_in(build(segment(in))));
        EXPECT_TRUE(left.gets(frame(host.left_neighbour, host.left_mac, packet(segment(in), out))));
    }
}

}  // namespace
}  // namespace mobility::proxy
