// SPDX-License-Identifier: GPL-2.0-or-later
// The data path as the daemon sees it: flows that the kernel's BPF programs rewrite and
// send on, and what they hand up. flow.bpf.c is the other half; flow.h what both share.
//
// Programs and maps are pinned (bpffs): flows go on while nobody holds a DataPath, and a
// new one finds them. Not thread-safe.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "tcpmigrate/result.hpp"

namespace mobility::proxy {

using Address = boost::asio::ip::address;
template <typename T>
using Result = tcpmigrate::Result<T>;

struct Endpoint {
    Address address;
    std::uint16_t port = 0;  ///< host byte order

    std::strong_ordering operator<=>(const Endpoint&) const = default;
};

/// A segment's source and destination.
struct Tuple {
    Endpoint from;
    Endpoint to;

    std::strong_ordering operator<=>(const Tuple&) const = default;
};

/// What has passed of a flow.
struct FlowSeen {
    std::uint32_t relay = 0;
    Tuple out;  ///< as its segments leave
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t idle_ns = 0;  ///< since the last segment; since it was made, if there was none
    std::optional<std::uint32_t> ack;
    std::optional<std::uint32_t> fin_end;
    bool rst = false;
};

/// Something that the data path has handed up. Only valid during the call.
struct Event {
    enum class Why : std::uint8_t { Segment, Icmp, TooBig, Fragment };
    Why why = Why::Segment;
    std::uint32_t length = 0;              ///< of the packet; may be more than there is of it
    std::uint32_t mtu = 0;                 ///< TooBig: what fits
    std::span<const std::uint8_t> packet;  ///< from the IP header
};

enum class Attach : std::uint8_t { Auto, Tc, Xdp };

struct DataPathOptions {
    std::optional<boost::asio::ip::address_v4> address;
    std::optional<boost::asio::ip::address_v6> address6;
    std::uint16_t first_port = 0;
    std::uint16_t last_port = 0;
    std::vector<std::string> interfaces;  ///< where segments come in; not empty
    Attach attach = Attach::Auto;  ///< Auto: native XDP where it costs the link nothing, else tc
    std::string pins = "/sys/fs/bpf/sym-proxy";  ///< folder; made if need be
    std::size_t most_flows = 131'072;
    std::uint32_t events_per_second = 10'000;
};

/// How an interface was attached to, for the log.
struct Attached {
    std::string interface;
    Attach how = Attach::Tc;
    std::string why;  ///< for people: "veth: XDP would cost it its offloads"
};

class DataPath {
  public:
    using OnEvent = std::function<void(const Event&)>;

    /// Loads the programs, or takes over pinned ones; attaches. Errors name the interface or
    /// the map. Flows that are pinned stay, see flows().
    static Result<std::unique_ptr<DataPath>> open(const DataPathOptions& options, OnEvent on_event);
    /// As unpin(), for whoever has no DataPath.
    static Result<void> unpin(const std::string& pins);
    virtual ~DataPath() = default;
    DataPath(const DataPath&) = delete;
    DataPath& operator=(const DataPath&) = delete;

    /// From now on segments of `in` leave as `out`. If there is such a flow already it is
    /// replaced, its counts begin anew. `late`: the end has left that place; what it sent before
    /// arrives, but for RSTs. ENOSPC if the map is full, EINVAL if `out` does not leave from the
    /// address that `in` goes to.
    virtual Result<void> set(const Tuple& in, const Tuple& out, std::uint32_t relay,
                             bool late = false) = 0;
    /// ENOENT if there is none.
    virtual Result<void> remove(const Tuple& in) = 0;
    [[nodiscard]] virtual std::optional<FlowSeen> get(const Tuple& in) const = 0;
    /// All of them; takes a moment with many.
    [[nodiscard]] virtual std::map<Tuple, FlowSeen> flows() const = 0;

    /// Becomes readable when there are events; poll() takes them.
    [[nodiscard]] virtual int fd() const = 0;
    virtual void poll() = 0;

    /// By enum flow_counter, sums of all CPUs.
    [[nodiscard]] virtual std::vector<std::uint64_t> counters() const = 0;
    [[nodiscard]] virtual std::vector<Attached> attached() const = 0;
    /// What open() found that somebody should know, for the log.
    [[nodiscard]] virtual std::vector<std::string> warnings() const { return {}; }
    /// Detaches and removes what is pinned: what is relayed ends here.
    virtual void unpin() = 0;

  protected:
    DataPath() = default;
};

/// What is pinned there, to look at: another process may have it.
class FlowView {
  public:
    /// ENOENT if nothing is.
    static Result<FlowView> open(const std::string& pins);
    FlowView(FlowView&& other) noexcept;
    FlowView& operator=(FlowView&&) = delete;
    ~FlowView();

    [[nodiscard]] std::optional<FlowSeen> get(const Tuple& in) const;

  private:
    explicit FlowView(int fd) : fd_(fd) {}
    int fd_;
};

}  // namespace mobility::proxy
