// SPDX-License-Identifier: GPL-2.0-or-later
// A TCP segment in an IP packet, as the proxy sees those that are not simply sent on:
// what it says, and how it is made into another. Only addresses, ports, and what makes
// an MSYN into an MSYN,ACK or into a request without SYN ever changes (A3.2 to A3.4).
// Octets in, bytes out; no sockets. Numbers are in host byte order.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "datapath/data_path.hpp"

namespace mobility::proxy {

using Octets = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;

/// Forms of the migration option (docs/protocol.md, section 2).
enum class Form : std::uint8_t { Permit = 0, Mreq = 1, Confirm = 2, Rst = 4, Echo = 5, Mans = 6 };

/// What of the option is to be read.
struct MigrateOption {
    Form form = Form::Echo;
    std::uint8_t reqno = 0;   ///< Mreq, Mans, Confirm
    std::uint32_t token = 0;  ///< Mreq, Mans, Confirm: the receiver's
    std::uint16_t port = 0;   ///< Mreq: the sender's own
    Octets bytes;             ///< all of it

    bool operator==(const MigrateOption&) const = default;
};

namespace flag {
constexpr std::uint8_t kFin = 0x01;
constexpr std::uint8_t kSyn = 0x02;
constexpr std::uint8_t kRst = 0x04;
constexpr std::uint8_t kAck = 0x10;
}  // namespace flag

struct Segment {
    Tuple tuple;
    std::uint32_t seq = 0;
    std::uint32_t ack = 0;
    std::uint8_t flags = 0;
    std::size_t payload = 0;  ///< bytes of it, as its header says
    bool whole = false;       ///< the packet is all there
    std::optional<MigrateOption> migrate;
    /// Timestamps (RFC 7323), if it has them.
    std::optional<std::uint32_t> tsval;
    std::optional<std::uint32_t> tsecr;
    Octets packet;         ///< from the IP header
    std::size_t head = 0;  ///< where in it the TCP header begins
    std::size_t body = 0;  ///< ... ends, with options

    [[nodiscard]] bool is_syn() const { return (flags & (flag::kSyn | flag::kAck)) == flag::kSyn; }
    [[nodiscard]] bool is(Form form) const { return migrate && migrate->form == form; }
    /// An MSYN: asks for the end that the token is of.
    [[nodiscard]] bool is_msyn() const {
        return is_syn() && (flags & flag::kRst) == 0 && is(Form::Mreq);
    }
    /// The sequence number that follows it.
    [[nodiscard]] std::uint32_t end() const {
        return seq + static_cast<std::uint32_t>(payload) + ((flags & flag::kSyn) != 0 ? 1 : 0) +
               ((flags & flag::kFin) != 0 ? 1 : 0);
    }
};

/// A TCP segment of IPv4 or IPv6 (without extension headers), whole or its beginning, with
/// all of its headers; nothing if it is none. Its checksum is not looked at: who gets it does.
std::optional<Segment> parse_segment(View packet, std::size_t length);

/// A fragment of an IP packet with TCP in it. Of IPv6 the fragment header comes first.
struct Fragment {
    Address from;
    Address to;
    std::uint32_t id = 0;
    std::size_t offset = 0;
    bool last = false;
    Octets header;  ///< the IP header that the whole packet has, but for its length
    View data;      ///< of the packet that was parsed
};
/// Nothing if it is none, or longer than any packet.
std::optional<Fragment> parse_fragment(View packet);
/// A packet with the length that it has, and the checksum of its IP header.
Octets with_length(Octets packet);
/// May routers take it to pieces?
bool may_fragment(View packet);
/// In pieces that fit, each with this identification. Only of IPv4.
std::vector<Octets> fragmented(View packet, std::size_t mtu, std::uint16_t id);

/// Source and destination of an IP packet's TCP header, of which 4 bytes suffice: what an
/// ICMP error quotes.
std::optional<Tuple> parse_quoted(View packet);

/// The segment without its data.
Segment without_data(const Segment& segment);

/// The segment with another source and destination, of the same family. It has to be whole.
Octets readdressed(const Segment& segment, const Tuple& to);

/// A3.2: one end's MSYN, as the answer to the other's: ACK is that one's sequence number + 1.
Octets answer_from(const Segment& msyn, std::uint32_t others_seq, const Tuple& to);

/// A3.4: an MSYN as a request without SYN, for an end that is behind a NAPT: that lets it
/// pass as part of the connection it knows. All options stay: that it has those of a SYN
/// tells the end that the asker has moved. The window is said as that of any segment, scaled.
Octets request_from(const Segment& msyn, std::uint32_t ack, const Tuple& to);

/// A3.4: the answer to that (MANS without SYN), as the MSYN,ACK that the asker waits for.
/// The options of a SYN are those of an earlier MSYN of who answers, so that NAPTs
/// learn the window's scale, at most 12 bytes; and the window is said without it.
Octets answer_with_syn(const Segment& mans, View syn_options, const Tuple& to);

/// The options of an MSYN but ours: MSS, SACK permitted, window scale.
Octets syn_options(const Segment& msyn);

/// A reset as a closed port answers this segment; nothing for a reset.
std::optional<Octets> reset_for(const Segment& segment);

/// "Fragmentation needed" or "packet too big" to who has sent the packet, from where it was
/// sent to.
Octets too_big_for(View packet, std::uint32_t mtu);

/// An ICMP error about a packet that the proxy has sent on.
struct IcmpError {
    Tuple quoted;           ///< the packet that it is about
    std::uint32_t mtu = 0;  ///< of "too big"; 0: it is none
    Octets packet;
};
std::optional<IcmpError> parse_icmp_error(View packet);
/// The same error, about what the end sent: `sent` is that packet's tuple. From the proxy.
Octets translated(const IcmpError& error, const Tuple& sent);

}  // namespace mobility::proxy
