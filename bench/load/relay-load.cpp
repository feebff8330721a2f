// SPDX-License-Identifier: GPL-2.0-or-later
// What bench needs of a relay, without the daemon: the data path alone, senders, sinks.
//
//   relay-load path PINS ADDRESS FIRST LAST TO ATTACH INTERFACE...
//       Relays every connection to ADDRESS, ports FIRST to LAST, to the same port of TO: the upper
//       half of the ports is for the way back. A line "SOURCE PORT DPORT" makes the flow of a
//       blast. Until its input ends; then the counters.
//   relay-load blast INTERFACE TO-MAC FROM-MAC SOURCE PORT DESTINATION DPORT SIZE SECONDS
//       Segments of a connection that need not be there, SIZE bytes long with Ethernet's header, as
//       fast as it can; then how many, and its CPU seconds.
//   relay-load sink INTERFACE tc|xdp|pass
//       Drops everything that comes in, by a BPF program; pass: lets it pass, by XDP, which
//       some links want at the other end of one that sends by XDP. At each line of input it
//       says how many it has seen, until that ends.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "datapath/data_path.hpp"
#include "datapath/flow.h"

namespace {

using namespace mobility::proxy;
using boost::asio::ip::make_address_v4;
using Bytes = std::vector<std::uint8_t>;

[[noreturn]] void die(const std::string& what) {
    std::cerr << "relay-load: " << what << ": " << std::strerror(errno) << "\n";
    std::exit(1);
}

std::uint16_t folded(const std::uint8_t* bytes, std::size_t size, std::uint64_t sum) {
    for (std::size_t i = 0; i < size; i++) {
        sum += static_cast<std::uint64_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
    }
    while (sum > 0xffff) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return static_cast<std::uint16_t>(~sum);
}

/// Addresses, ports and checksums of an IPv4 packet without options.
void address(Bytes& packet, const Tuple& tuple) {
    auto* ip = reinterpret_cast<iphdr*>(packet.data());
    auto* tcp = reinterpret_cast<tcphdr*>(packet.data() + sizeof(iphdr));
    ip->saddr = htonl(tuple.from.address.to_v4().to_uint());
    ip->daddr = htonl(tuple.to.address.to_v4().to_uint());
    ip->check = 0;
    ip->check = htons(folded(packet.data(), sizeof(iphdr), 0));
    tcp->source = htons(tuple.from.port);
    tcp->dest = htons(tuple.to.port);
    tcp->check = 0;
    const std::size_t length = packet.size() - sizeof(iphdr);
    std::uint64_t pseudo = IPPROTO_TCP + length;
    for (std::size_t i = 12; i < 20; i += 2) {
        pseudo += static_cast<std::uint64_t>(packet[i]) << 8 | packet[i + 1];
    }
    tcp->check = htons(folded(packet.data() + sizeof(iphdr), length, pseudo));
}

/// Relays SYNs itself, as the daemon would, and makes their flows.
class Splicer {
  public:
    Splicer(Address own, Address to, std::uint16_t first, std::uint16_t last)
        : own_(std::move(own)),
          to_(std::move(to)),
          first_(first),
          last_(last),
          raw_(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)) {}

    void use(DataPath& path) { path_ = &path; }
    /// Both ways of a connection from there, by a port of the upper half.
    void make(const Endpoint& from, std::uint16_t port) {
        const std::uint16_t half = static_cast<std::uint16_t>((last_ - first_ + 1) / 2);
        const auto back = static_cast<std::uint16_t>(first_ + half + made_++ % half);
        const Tuple in{from, {own_, port}};
        const Tuple out{{own_, back}, {to_, port}};
        const Tuple other{out.to, out.from};
        const Tuple home{in.to, in.from};
        if (!path_->set(in, out, made_) || !path_->set(other, home, made_)) {
            die("setting a flow");
        }
    }
    void on(const Event& event) {
        Bytes packet(event.packet.begin(), event.packet.end());
        if (event.why != Event::Why::Segment || packet.size() < 40 || packet[0] != 0x45) {
            return;
        }
        const auto* tcp = reinterpret_cast<const tcphdr*>(packet.data() + sizeof(iphdr));
        in_addr source{};
        std::memcpy(&source, packet.data() + 12, sizeof(source));
        const Tuple in{{Address(make_address_v4(ntohl(source.s_addr))), ntohs(tcp->source)},
                       {own_, ntohs(tcp->dest)}};
        if (tcp->syn && !tcp->ack && !path_->get(in)) {
            make(in.from, in.to.port);
        }
        if (const auto flow = path_->get(in)) {
            address(packet, flow->out);
            sockaddr_in where{};
            where.sin_family = AF_INET;
            where.sin_addr.s_addr = htonl(flow->out.to.address.to_v4().to_uint());
            if (sendto(raw_, packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&where),
                       sizeof(where)) < 0) {
                die("sending a SYN");
            }
        }
    }

  private:
    Address own_;
    Address to_;
    std::uint16_t first_;
    std::uint16_t last_;
    int raw_;
    DataPath* path_ = nullptr;
    std::uint32_t made_ = 0;
};

/// A line from standard input; false at its end.
bool read_flow(Splicer& splicer) {
    std::string line;
    if (!std::getline(std::cin, line)) {
        return false;
    }
    std::istringstream words(line);
    std::string source;
    unsigned port = 0;
    unsigned to = 0;
    words >> source >> port >> to;
    splicer.make({boost::asio::ip::make_address(source), static_cast<std::uint16_t>(port)},
                 static_cast<std::uint16_t>(to));
    std::cout << "made" << std::endl;
    return true;
}

int run_path(const std::vector<std::string>& words) {
    DataPathOptions options;
    options.pins = words.at(0);
    options.address = make_address_v4(words.at(1));
    options.first_port = static_cast<std::uint16_t>(std::stoi(words.at(2)));
    options.last_port = static_cast<std::uint16_t>(std::stoi(words.at(3)));
    options.attach = words.at(5) == "xdp"  ? Attach::Xdp
                     : words.at(5) == "tc" ? Attach::Tc
                                           : Attach::Auto;
    options.interfaces.assign(words.begin() + 6, words.end());
    Splicer splicer(Address(*options.address), boost::asio::ip::make_address(words.at(4)),
                    options.first_port, options.last_port);
    auto path = DataPath::open(options, [&](const Event& event) { splicer.on(event); });
    if (!path) {
        std::cerr << "relay-load: " << path.error().message << "\n";
        return 1;
    }
    splicer.use(**path);
    std::cout << "ready" << std::endl;
    std::array<pollfd, 2> waiting{pollfd{STDIN_FILENO, POLLIN, 0},
                                  pollfd{(*path)->fd(), POLLIN, 0}};
    for (bool more = true; more;) {
        poll(waiting.data(), waiting.size(), -1);
        if (waiting[1].revents != 0) {
            (*path)->poll();
        }
        more = waiting[0].revents == 0 || read_flow(splicer);
    }
    for (const auto count : (*path)->counters()) {
        std::cout << count << " ";
    }
    std::cout << std::endl;
    (*path)->unpin();
    return 0;
}

/// An acknowledgment with so much behind it that the frame has this size.
Bytes segment(const Tuple& tuple, std::size_t size) {
    Bytes packet(size - ETH_HLEN);
    auto* ip = reinterpret_cast<iphdr*>(packet.data());
    ip->version = 4;
    ip->ihl = 5;
    ip->tot_len = htons(static_cast<std::uint16_t>(packet.size()));
    ip->frag_off = htons(0x4000);
    ip->ttl = 64;
    ip->protocol = IPPROTO_TCP;
    auto* tcp = reinterpret_cast<tcphdr*>(packet.data() + sizeof(iphdr));
    tcp->doff = 5;
    tcp->ack = 1;
    tcp->seq = htonl(1);
    tcp->ack_seq = htonl(1);
    tcp->window = htons(1024);
    address(packet, tuple);
    return packet;
}

bpf_insn insn(int code, unsigned dst, unsigned src, int offset, int immediate) {
    return bpf_insn{static_cast<__u8>(code), static_cast<__u8>(dst & 15U),
                    static_cast<__u8>(src & 15U), static_cast<__s16>(offset), immediate};
}

// Some parts of an instruction's code are 0 and so equal; their names say what it is.
// NOLINTBEGIN(misc-redundant-expression)

/// A program that writes the frame's first bytes and sends it by this link. Frames come back to be
/// sent again as they were left, with other addresses, so that each has to be written anew.
std::vector<bpf_insn> sending(const Bytes& frame, int index) {
    constexpr std::size_t written = ETH_HLEN + sizeof(iphdr) + sizeof(tcphdr);
    std::vector<bpf_insn> code = {
        insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, XDP_DROP),
        insn(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, offsetof(xdp_md, data), 0),
        insn(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_3, BPF_REG_1, offsetof(xdp_md, data_end), 0),
        insn(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_4, BPF_REG_2, 0, 0),
        insn(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_4, 0, 0, written),
        insn(BPF_JMP | BPF_JGT | BPF_X, BPF_REG_4, BPF_REG_3, written / 2 + 3, 0)};
    for (std::size_t i = 0; i < written; i += 2) {
        code.push_back(insn(BPF_ST | BPF_MEM | BPF_H, BPF_REG_2, 0, static_cast<int>(i),
                            frame[i] | frame[i + 1] << 8));
    }
    for (const auto& one : {insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, index),
                            insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, 0),
                            insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect),
                            insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)}) {
        code.push_back(one);
    }
    return code;
}

// NOLINTEND(misc-redundant-expression)

/// Sent as XDP sends: what comes to the other end is what a network card would hand to its driver.
int run_blast(const std::vector<std::string>& words) {
    const Tuple tuple{{boost::asio::ip::make_address(words.at(3)),
                       static_cast<std::uint16_t>(std::stoi(words.at(4)))},
                      {boost::asio::ip::make_address(words.at(5)),
                       static_cast<std::uint16_t>(std::stoi(words.at(6)))}};
    Bytes frame(12);
    for (const std::size_t which : {1, 2}) {
        ether_addr mac{};
        if (ether_aton_r(words.at(which).c_str(), &mac) == nullptr) {
            die("the MAC address");
        }
        std::copy(std::begin(mac.ether_addr_octet), std::end(mac.ether_addr_octet),
                  frame.begin() + static_cast<std::ptrdiff_t>((which - 1) * ETH_ALEN));
    }
    const Bytes packet = segment(tuple, std::stoul(words.at(7)));
    frame.insert(frame.end(), {8, 0});
    frame.insert(frame.end(), packet.begin(), packet.end());
    const auto code = sending(frame, static_cast<int>(if_nametoindex(words.at(0).c_str())));
    const int program =
        bpf_prog_load(BPF_PROG_TYPE_XDP, "blast", "GPL", code.data(), code.size(), nullptr);
    if (program < 0) {
        die("the program");
    }
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.repeat = 1 << 14;
    options.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    options.batch_size = 64;
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::duration<double>(std::stod(words.at(8)));
    std::uint64_t sent = 0;
    while (Clock::now() < end) {
        if (bpf_prog_test_run_opts(program, &options) != 0) {
            die("sending");
        }
        sent += static_cast<std::uint64_t>(options.repeat);
    }
    timespec used{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    std::cout << sent << " "
              << static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9
              << std::endl;
    return 0;
}

/// A program that counts in the first element of the map, and always says the same.
// NOLINTBEGIN(misc-redundant-expression): as above
std::vector<bpf_insn> counting(int map, int verdict) {
    return {insn(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
            insn(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
            insn(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
            insn(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map),
            insn(0, 0, 0, 0, 0),
            insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
            insn(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 2, 0),
            insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 1),
            insn(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD),
            insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict),
            insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)};
}

// NOLINTEND(misc-redundant-expression)

void attach_sink(int program, int index, bool tc) {
    if (!tc) {
        if (bpf_xdp_attach(index, program, XDP_FLAGS_DRV_MODE, nullptr) != 0) {
            die("XDP");
        }
        return;
    }
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = index;
    hook.attach_point = BPF_TC_INGRESS;
    bpf_tc_opts filter{};
    filter.sz = sizeof(filter);
    filter.prog_fd = program;
    bpf_tc_hook_create(&hook);
    if (bpf_tc_attach(&hook, &filter) != 0) {
        die("the filter");
    }
}

int run_sink(const std::vector<std::string>& words) {
    const bool tc = words.at(1) == "tc";
    const int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "count", sizeof(std::uint32_t),
                                   sizeof(std::uint64_t), 1, nullptr);
    const auto code = counting(map, tc ? 2 : words.at(1) == "pass" ? XDP_PASS : XDP_DROP);
    const int program = bpf_prog_load(tc ? BPF_PROG_TYPE_SCHED_CLS : BPF_PROG_TYPE_XDP, "sink",
                                      "GPL", code.data(), code.size(), nullptr);
    if (program < 0) {
        die("the program");
    }
    attach_sink(program, static_cast<int>(if_nametoindex(words.at(0).c_str())), tc);
    std::cout << "ready" << std::endl;
    std::string line;
    while (std::getline(std::cin, line)) {
        const std::uint32_t zero = 0;
        std::uint64_t count = 0;
        bpf_map_lookup_elem(map, &zero, &count);
        std::cout << count << std::endl;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string what = argc > 1 ? argv[1] : "";
    const std::vector<std::string> words(argv + std::min(argc, 2), argv + argc);
    try {
        return what == "path"    ? run_path(words)
               : what == "blast" ? run_blast(words)
               : what == "sink"  ? run_sink(words)
                                 : throw std::out_of_range("no command");
    } catch (const std::exception& e) {
        std::cerr << "relay-load: " << e.what() << "; see the beginning of relay-load.cpp\n";
        return 2;
    }
}
