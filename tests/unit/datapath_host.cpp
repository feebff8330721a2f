// SPDX-License-Identifier: GPL-2.0-or-later
#include "datapath_host.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <stdexcept>

namespace mobility::proxy {

namespace {

/// Of a kernel newer than the headers: what the packet's sum is said to be is right afterwards.
constexpr std::uint32_t kChecksumComplete = 1U << 2;

void put16(Bytes& bytes, unsigned value) {
    bytes.push_back(static_cast<std::uint8_t>(value >> 8));
    bytes.push_back(static_cast<std::uint8_t>(value));
}

void put32(Bytes& bytes, std::uint32_t value) {
    put16(bytes, value >> 16);
    put16(bytes, value & 0xffff);
}

void append(Bytes& bytes, const Bytes& more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
}

void set16(Bytes& bytes, std::size_t where, unsigned value) {
    bytes.at(where) = static_cast<std::uint8_t>(value >> 8);
    bytes.at(where + 1) = static_cast<std::uint8_t>(value);
}

Bytes address_bytes(const Address& address) {
    if (address.is_v4()) {
        const auto bytes = address.to_v4().to_bytes();
        return {bytes.begin(), bytes.end()};
    }
    const auto bytes = address.to_v6().to_bytes();
    return {bytes.begin(), bytes.end()};
}

Bytes tcp_of(const Spec& spec) {
    Bytes tcp;
    put16(tcp, spec.tuple.from.port);
    put16(tcp, spec.tuple.to.port);
    put32(tcp, spec.seq);
    put32(tcp, spec.ack);
    tcp.push_back(static_cast<std::uint8_t>((20 + spec.options.size()) / 4 << 4));
    tcp.push_back(spec.flags);
    put16(tcp, spec.window);
    put16(tcp, 0);
    put16(tcp, spec.urgent);
    append(tcp, spec.options);
    append(tcp, spec.payload);
    Bytes pseudo = address_bytes(spec.tuple.from.address);
    append(pseudo, address_bytes(spec.tuple.to.address));
    put32(pseudo, static_cast<std::uint32_t>(tcp.size()));
    put32(pseudo, IPPROTO_TCP);
    append(pseudo, tcp);
    set16(tcp, 16, checksum(pseudo));
    return tcp;
}

}  // namespace

std::uint16_t checksum(const Bytes& bytes) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i++) {
        sum += static_cast<std::uint64_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
    }
    while (sum > 0xffff) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return static_cast<std::uint16_t>(~sum);
}

Bytes build(const Spec& spec) {
    const Bytes tcp = tcp_of(spec);
    Bytes ip;
    if (spec.tuple.from.address.is_v4()) {
        const std::size_t header = 20 + spec.ip_options.size();
        ip.push_back(static_cast<std::uint8_t>(0x40 | header / 4));
        ip.push_back(spec.tos);
        put16(ip, static_cast<unsigned>(header + tcp.size()));
        put16(ip, spec.id);
        put16(ip, spec.dont_fragment ? 0x4000 : 0);
        ip.push_back(spec.ttl);
        ip.push_back(IPPROTO_TCP);
        put16(ip, 0);
        append(ip, address_bytes(spec.tuple.from.address));
        append(ip, address_bytes(spec.tuple.to.address));
        append(ip, spec.ip_options);
        set16(ip, 10, checksum(ip));
    } else {
        put32(ip, 6U << 28 | static_cast<std::uint32_t>(spec.tos) << 20 | spec.label);
        put16(ip, static_cast<unsigned>(tcp.size()));
        ip.push_back(IPPROTO_TCP);
        ip.push_back(spec.ttl);
        append(ip, address_bytes(spec.tuple.from.address));
        append(ip, address_bytes(spec.tuple.to.address));
    }
    append(ip, tcp);
    return ip;
}

Bytes frame(const Mac& to, const Mac& from, const Bytes& packet,
            const std::vector<std::pair<std::uint16_t, std::uint16_t>>& tags) {
    Bytes all(to.begin(), to.end());
    all.insert(all.end(), from.begin(), from.end());
    for (const auto& [protocol, number] : tags) {
        put16(all, protocol);
        put16(all, number);
    }
    put16(all, !packet.empty() && packet[0] >> 4 == 6 ? 0x86dd : 0x0800);
    append(all, packet);
    return all;
}

Bytes pattern(std::size_t size) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; i++) {
        bytes[i] = static_cast<std::uint8_t>(i * 7 + i / 251);
    }
    return bytes;
}

Bytes ours(std::uint8_t form, std::uint8_t length) {
    Bytes option(length);
    option[0] = 254;
    option[1] = length;
    option[2] = 0x4d;
    option[3] = 0x49;
    option[4] = static_cast<std::uint8_t>(form << 4);
    return option;
}

Bytes operator+(Bytes first, const Bytes& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

Endpoint at(const std::string& address, std::uint16_t port) {
    return {boost::asio::ip::make_address(address), port};
}

void command(const std::string& line) {
    if (std::system(line.c_str()) != 0) {
        throw std::runtime_error("failed: " + line);
    }
}

Host::Host() {
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) {
        throw std::runtime_error(std::string("needs root, for a network of its own: ") +
                                 std::strerror(errno));
    }
    command("mount --make-rprivate / && mkdir " + files_.at("bpf").string() +
            " && mount -t bpf bpf " + files_.at("bpf").string());
    command(
        "ip link set lo up && "
        "ip link add left address 02:00:00:00:01:01 type veth peer left-peer address "
        "02:00:00:00:01:02 && "
        "ip link add right mtu 1400 address 02:00:00:00:02:01 type veth peer right-peer address "
        "02:00:00:00:02:02 mtu 1400 && "
        "sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1 && "
        "ip address add 10.0.1.1/24 dev left && ip address add 10.0.2.1/24 dev right && "
        "ip address add fd01::1/64 dev left nodad && ip address add fd02::1/64 dev right nodad && "
        "for i in left left-peer right right-peer; do ip link set $i up; done && "
        "ip neigh add 10.0.1.2 lladdr 02:00:00:00:01:02 dev left && "
        "ip neigh add fd01::2 lladdr 02:00:00:00:01:02 dev left && "
        "ip neigh add 10.0.2.2 lladdr 02:00:00:00:02:02 dev right && "
        "ip neigh add fd02::2 lladdr 02:00:00:00:02:02 dev right");
    left_ = if_nametoindex("left");
    right_ = if_nametoindex("right");
}

Host::~Host() {
    close();
    umount2(files_.at("bpf").c_str(), MNT_DETACH);
}

DataPathOptions Host::options() const {
    DataPathOptions options;
    options.address = boost::asio::ip::make_address_v4("10.0.1.1");
    options.address6 = boost::asio::ip::make_address_v6("fd01::1");
    options.first_port = 40000;
    options.last_port = 40999;
    options.interfaces = {"left", "right"};
    options.pins = pins();
    options.most_flows = 1000;
    return options;
}

void Host::open(const DataPathOptions& options) {
    close();
    auto path = DataPath::open(options, [this](const Event& event) {
        kept_.push_back(
            {event.why, event.length, event.mtu, Bytes(event.packet.begin(), event.packet.end())});
    });
    if (!path) {
        throw std::runtime_error("DataPath: " + path.error().message);
    }
    path_ = std::move(*path);
    auto object = Object::load(options.pins, options.most_flows);
    if (!object) {
        throw std::runtime_error("Object: " + object.error().message);
    }
    object_.emplace(std::move(*object));
}

void Host::close() {
    object_.reset();
    path_.reset();
}

void Host::forget() {
    for (const auto& flow : path_->flows()) {
        if (auto gone = path_->remove(flow.first); !gone) {
            throw std::runtime_error(gone.error().message);
        }
    }
    events();
    const auto now = path_->counters();
    std::copy(now.begin(), now.end(), last_.begin());
}

Ran Host::run(const char* program, const Bytes& frame, std::uint32_t gso_size,
              std::uint32_t gso_segs) {
    Ran ran;
    ran.out.resize(frame.size() + 256);
    __sk_buff skb{};
    skb.ifindex = left_;
    skb.gso_size = gso_size;
    skb.gso_segs = gso_segs;
    xdp_md xdp{};
    xdp.data_end = static_cast<std::uint32_t>(frame.size());
    xdp.ingress_ifindex = left_;
    const bool is_xdp = std::string(program) == "relay_xdp";
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.data_out = ran.out.data();
    options.data_size_out = static_cast<std::uint32_t>(ran.out.size());
    options.ctx_in = is_xdp ? static_cast<void*>(&xdp) : static_cast<void*>(&skb);
    options.ctx_size_in = is_xdp ? sizeof(xdp) : sizeof(skb);
    // What helpers are to keep right on the way is the sum of the packet that hardware has made.
    options.flags = is_xdp || gso_size != 0 ? 0 : kChecksumComplete;
    const int fd = object_->program(program);
    int error = bpf_prog_test_run_opts(fd, &options);
    if (error == -EINVAL && options.flags != 0) {
        options.flags = 0;
        options.data_size_out = static_cast<std::uint32_t>(ran.out.size());
        error = bpf_prog_test_run_opts(fd, &options);
    }
    if (error != 0) {
        throw std::runtime_error(std::string(program) + ": " + std::strerror(errno));
    }
    ran.verdict = options.retval;
    ran.out.resize(options.data_size_out);
    return ran;
}

void Host::away_from_refresh() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    constexpr std::uint64_t period = 1ULL << 34;
    const std::uint64_t ns = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                             static_cast<std::uint64_t>(now.tv_nsec);
    if (const std::uint64_t left = period - ns % period; left < 3'000'000'000) {
        usleep(static_cast<useconds_t>(left / 1000 + 100'000));
    }
}

void Host::set_layout(std::uint32_t layout) {
    const std::uint32_t zero = 0;
    flow_proxy proxy{};
    if (bpf_map_lookup_elem(object_->map("proxy"), &zero, &proxy) != 0) {
        throw std::runtime_error("the map proxy");
    }
    proxy.layout = layout;
    if (bpf_map_update_elem(object_->map("proxy"), &zero, &proxy, BPF_ANY) != 0) {
        throw std::runtime_error("the map proxy");
    }
}

void Host::set_way(std::uint32_t interface, const flow_way& way) {
    if (bpf_map_update_elem(object_->map("ways"), &interface, &way, BPF_ANY) != 0) {
        throw std::runtime_error("the map ways");
    }
}

Bytes Host::frame_in(const Bytes& packet) const {
    return frame(left_mac, left_neighbour, packet);
}

std::vector<Kept> Host::events() {
    path_->poll();
    return std::exchange(kept_, {});
}

std::uint64_t Host::counted(flow_counter what) {
    const std::uint64_t now = path_->counters().at(what);
    return now - std::exchange(last_.at(what), now);
}

}  // namespace mobility::proxy
