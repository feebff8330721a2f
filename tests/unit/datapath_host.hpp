// SPDX-License-Identifier: GPL-2.0-or-later
// What the data path's tests have in common: a network namespace with a proxy's two links,
// packets built by hand, and the programs run on them by BPF_PROG_TEST_RUN.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datapath/data_path.hpp"
#include "datapath/flow.h"
#include "datapath/object.hpp"
#include "temporary.hpp"

namespace mobility::proxy {

using Bytes = std::vector<std::uint8_t>;
using Mac = std::array<std::uint8_t, 6>;

constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16, kUrg = 32;
// What a program says.
constexpr std::uint32_t kTcPass = 0xffffffff, kTcDrop = 2, kTcRedirect = 7;
constexpr std::uint32_t kXdpPass = 2, kXdpTx = 3, kXdpRedirect = 4;

/// A TCP segment, or what looks like one.
struct Spec {
    Tuple tuple;
    std::uint32_t seq = 1000;
    std::uint32_t ack = 5000;
    std::uint8_t flags = kAck;
    std::uint16_t window = 512;
    std::uint16_t urgent = 0;
    Bytes options;     ///< of TCP; a multiple of 4
    Bytes ip_options;  ///< likewise; of IPv4
    Bytes payload;
    std::uint8_t tos = 0;  ///< with ECN; traffic class of IPv6
    std::uint8_t ttl = 64;
    std::uint16_t id = 0x1234;
    bool dont_fragment = true;
    std::uint32_t label = 0x12345;  ///< flow label of IPv6
};

/// RFC 1071, byte by byte.
std::uint16_t checksum(const Bytes& bytes);
/// The IP packet, with right checksums.
Bytes build(const Spec& spec);
/// An Ethernet header before it, with VLAN tags (protocol, number).
Bytes frame(const Mac& to, const Mac& from, const Bytes& packet,
            const std::vector<std::pair<std::uint16_t, std::uint16_t>>& tags = {});
/// So many bytes of a pattern.
Bytes pattern(std::size_t size);
Endpoint at(const std::string& address, std::uint16_t port);

/// One of the project's options, by its form.
Bytes ours(std::uint8_t form, std::uint8_t length);
Bytes operator+(Bytes first, const Bytes& second);
const Bytes kTimestamp = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8};

/// What a program has made of a packet.
struct Ran {
    std::uint32_t verdict = 0;
    Bytes out;
};

/// An event, kept.
struct Kept {
    Event::Why why = Event::Why::Segment;
    std::uint32_t length = 0;
    std::uint32_t mtu = 0;
    Bytes packet;
};

/// Network and mount namespace of the test's own, with the links `left` (10.0.1.1, fd01::1) and
/// `right` (10.0.2.1, fd02::1, MTU 1400), whose neighbours are .2 and ::2. Ends the test with a
/// failure if that is not permitted.
class Host {
  public:
    Host();
    ~Host();
    Host(const Host&) = delete;
    Host& operator=(const Host&) = delete;

    /// The proxy is 10.0.1.1 and fd01::1, ports 40000 to 40999.
    [[nodiscard]] DataPathOptions options() const;
    /// Opens the data path, and gets at its programs.
    void open(const DataPathOptions& options);
    void open() { open(options()); }
    void close();
    /// No flows, no events, all counters as if they were 0.
    void forget();

    /// XDP leaves one segment of a flow to tc when a period of 2^34 ns begins; none does in the
    /// next seconds.
    static void away_from_refresh();

    /// Makes what is pinned that of another version.
    void set_layout(std::uint32_t layout);
    /// The map `ways`: XDP sends by this link, with this tag.
    void set_way(std::uint32_t interface, const flow_way& way);
    /// Runs a program as if the packet had come in on `left`.
    Ran run(const char* program, const Bytes& frame, std::uint32_t gso_size = 0,
            std::uint32_t gso_segs = 0);
    Ran tc(const Bytes& packet) { return run("relay_tc", frame_in(packet)); }
    /// The frame of a packet to the proxy from its neighbour.
    [[nodiscard]] Bytes frame_in(const Bytes& packet) const;
    /// Events since the last call.
    std::vector<Kept> events();
    /// How much a counter has grown since the last call.
    std::uint64_t counted(flow_counter what);

    DataPath& path() { return *path_; }
    [[nodiscard]] const Object& object() const { return *object_; }
    [[nodiscard]] std::string pins() const { return files_.at("bpf/pins").string(); }
    [[nodiscard]] std::uint32_t left() const { return left_; }
    [[nodiscard]] std::uint32_t right() const { return right_; }

    const Mac left_mac{2, 0, 0, 0, 1, 1};
    const Mac left_neighbour{2, 0, 0, 0, 1, 2};
    const Mac right_mac{2, 0, 0, 0, 2, 1};
    const Mac right_neighbour{2, 0, 0, 0, 2, 2};

  private:
    Temporary files_;
    std::unique_ptr<DataPath> path_;
    std::optional<Object> object_;
    std::vector<Kept> kept_;
    std::array<std::uint64_t, FLOW_COUNTERS> last_{};
    std::uint32_t left_ = 0;
    std::uint32_t right_ = 0;
};

/// A command of the shell that has to succeed.
void command(const std::string& line);

}  // namespace mobility::proxy
