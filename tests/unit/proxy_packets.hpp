// SPDX-License-Identifier: GPL-2.0-or-later
// TCP segments for tests of the proxy, made field by field, and an Internet checksum that is
// not the proxy's own.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "relay/segment.hpp"

namespace mobility::proxy::test {

struct Made {
    Tuple tuple;
    std::uint32_t seq = 0;
    std::uint32_t ack = 0;
    std::uint8_t flags = flag::kAck;
    Octets options;  ///< a multiple of four
    Octets payload;
};

inline void add(Octets& to, std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; i--) {
        to.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
    }
}

inline void append(Octets& to, const Octets& more) {
    to.insert(to.end(), more.begin(), more.end());
}

inline Octets bytes_of(const Address& address) {
    if (address.is_v4()) {
        const auto raw = address.to_v4().to_bytes();
        return {raw.begin(), raw.end()};
    }
    const auto raw = address.to_v6().to_bytes();
    return {raw.begin(), raw.end()};
}

/// RFC 1071, byte by byte.
inline std::uint16_t internet_checksum(const Octets& bytes) {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < bytes.size(); i++) {
        total += i % 2 == 0 ? std::uint64_t{bytes[i]} << 8 : bytes[i];
    }
    while (total > 0xffff) {
        total = (total >> 16) + (total & 0xffff);
    }
    return static_cast<std::uint16_t>(0xffff - total);
}

inline Octets tcp_bytes(const Made& made) {
    Octets tcp;
    add(tcp, made.tuple.from.port, 2);
    add(tcp, made.tuple.to.port, 2);
    add(tcp, made.seq, 4);
    add(tcp, made.ack, 4);
    add(tcp, (5 + made.options.size() / 4) << 4, 1);
    add(tcp, made.flags, 1);
    add(tcp, 0x1234, 2);
    add(tcp, 0, 4);
    append(tcp, made.options);
    append(tcp, made.payload);
    return tcp;
}

inline Octets packet(const Made& made) {
    auto tcp = tcp_bytes(made);
    const auto from = bytes_of(made.tuple.from.address);
    const auto to = bytes_of(made.tuple.to.address);
    Octets pseudo = from;
    append(pseudo, to);
    add(pseudo, tcp.size(), 4);
    add(pseudo, 6, 4);
    append(pseudo, tcp);
    const auto sum = internet_checksum(pseudo);
    tcp[16] = static_cast<std::uint8_t>(sum >> 8);
    tcp[17] = static_cast<std::uint8_t>(sum);
    Octets out;
    if (from.size() == 4) {
        add(out, 0x4500, 2);
        add(out, 20 + tcp.size(), 2);
        add(out, 0xabcd4000, 4);
        add(out, 0x40060000, 4);
        append(out, from);
        append(out, to);
        const auto head = internet_checksum(out);
        out[10] = static_cast<std::uint8_t>(head >> 8);
        out[11] = static_cast<std::uint8_t>(head);
    } else {
        add(out, 0x60000000, 4);
        add(out, tcp.size(), 2);
        add(out, 0x0640, 2);
        append(out, from);
        append(out, to);
    }
    append(out, tcp);
    return out;
}

/// Are all checksums of this packet right?
inline bool is_sound(const Octets& packet) {
    const bool v4 = packet.at(0) >> 4 == 4;
    const std::size_t head = v4 ? std::size_t{packet[0] & 15U} * 4 : 40;
    const auto at = [&](std::size_t begin, std::size_t end) {
        return Octets(packet.begin() + static_cast<std::ptrdiff_t>(begin),
                      packet.begin() + static_cast<std::ptrdiff_t>(end));
    };
    if (v4 && internet_checksum(at(0, head)) != 0) {
        return false;
    }
    const std::uint8_t protocol = v4 ? packet[9] : packet[6];
    Octets covered;
    if (!(v4 && protocol == 1)) {
        covered = v4 ? at(12, 20) : at(8, 40);
        add(covered, packet.size() - head, 4);
        add(covered, protocol, 4);
    }
    append(covered, at(head, packet.size()));
    const std::size_t length = v4 ? std::size_t{packet[2]} << 8 | packet[3]
                                  : 40 + (std::size_t{packet[4]} << 8 | packet[5]);
    return length == packet.size() && internet_checksum(covered) == 0;
}

inline Octets mreq(Form form, std::uint8_t reqno, std::uint32_t token, std::uint16_t port,
                   std::uint32_t nonce = 7) {
    Octets out{254,  28, 0x4d, 0x49, static_cast<std::uint8_t>(static_cast<unsigned>(form) << 4),
               reqno};
    add(out, token, 4);
    add(out, nonce, 4);
    add(out, 0x1122334455667788, 8);
    add(out, port, 2);
    add(out, 0xc0a8010b, 4);
    return out;
}

inline Octets confirm(std::uint8_t reqno, std::uint32_t token) {
    Octets out{254, 24, 0x4d, 0x49, 0x20, reqno, 0, 0};
    add(out, token, 4);
    out.resize(24, 0x5a);
    return out;
}

inline Octets timestamps(std::uint32_t value, std::uint32_t echo) {
    Octets out{1, 1, 8, 10};
    add(out, value, 4);
    add(out, echo, 4);
    return out;
}

/// MSS, SACK permitted, window scale: what an MSYN has before ours.
inline Octets syn_words() {
    return {2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 1, 1, 1};
}

inline Octets operator+(Octets a, const Octets& b) {
    append(a, b);
    return a;
}

}  // namespace mobility::proxy::test
