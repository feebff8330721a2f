// SPDX-License-Identifier: GPL-2.0-or-later
#include "segment.hpp"

#include <algorithm>
#include <array>

namespace mobility::proxy {

namespace {

using boost::asio::ip::address_v4;
using boost::asio::ip::address_v6;

constexpr std::size_t kIp4 = 20;
constexpr std::size_t kIp6 = 40;
constexpr std::size_t kTcp = 20;
constexpr std::size_t kWindow = 14;  ///< in a TCP header
constexpr std::size_t kFragmentHeader = 8;
constexpr std::size_t kLongest = 0xffff;
constexpr std::uint8_t kProtocolTcp = 6;
constexpr std::uint8_t kProtocolFragment = 44;
constexpr std::uint8_t kProtocolIcmp = 1;
constexpr std::uint8_t kProtocolIcmp6 = 58;
constexpr std::uint8_t kTtl = 64;
// Of the third 16-bit word of IPv4's header.
constexpr unsigned kDontFragment = 0x4000;
constexpr unsigned kMoreFragments = 0x2000;
constexpr unsigned kOffset = 0x1fff;
// TCP options.
constexpr std::uint8_t kEnd = 0;
constexpr std::uint8_t kNop = 1;
constexpr std::uint8_t kWindowScale = 3;
constexpr unsigned kMostScale = 14;
constexpr std::uint8_t kTimestamps = 8;
constexpr std::uint8_t kExperiment = 254;
constexpr std::uint16_t kExid = 0x4D49;
constexpr std::size_t kMreqLength = 28;
constexpr std::size_t kConfirmLength = 24;
/// What an ICMP error quotes: IPv4, as Linux sends; IPv6, up to the least MTU.
constexpr std::size_t kQuote4 = 548;
constexpr std::size_t kQuote6 = 1232;

std::uint16_t get16(View bytes, std::size_t at) {
    return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

std::uint32_t get32(View bytes, std::size_t at) {
    return std::uint32_t{get16(bytes, at)} << 16 | get16(bytes, at + 2);
}

void put16(Octets& bytes, std::size_t at, std::uint32_t value) {
    bytes.at(at) = static_cast<std::uint8_t>(value >> 8);
    bytes.at(at + 1) = static_cast<std::uint8_t>(value);
}

void put32(Octets& bytes, std::size_t at, std::uint32_t value) {
    put16(bytes, at, value >> 16);
    put16(bytes, at + 2, value);
}

template <std::size_t size>
std::array<std::uint8_t, size> take(View bytes, std::size_t at) {
    std::array<std::uint8_t, size> out{};
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), size, out.begin());
    return out;
}

template <typename Range>
void put(Octets& bytes, std::size_t at, const Range& range) {
    std::copy(range.begin(), range.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
}

/// RFC 1071, not yet complemented.
std::uint32_t sum(View bytes, std::uint32_t begin = 0) {
    std::uint64_t total = begin;
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
        total += get16(bytes, i);
    }
    if (bytes.size() % 2 == 1) {
        total += std::uint32_t{bytes.back()} << 8;
    }
    while (total >> 16 != 0) {
        total = (total & 0xffff) + (total >> 16);
    }
    return static_cast<std::uint32_t>(total);
}

std::uint16_t checksum(View bytes, std::uint32_t begin = 0) {
    return static_cast<std::uint16_t>(~sum(bytes, begin));
}

/// Where things are in an IP packet.
struct Layout {
    bool v4 = true;
    std::size_t head = 0;    ///< length of the IP header
    std::size_t length = 0;  ///< of the packet, as it says
    std::uint8_t protocol = 0;
    bool fragment = false;
};

std::optional<Layout> layout(View packet) {
    if (packet.size() >= kIp4 && packet[0] >> 4 == 4) {
        const Layout out{true, static_cast<std::size_t>(packet[0] & 15) * 4, get16(packet, 2),
                         packet[9], (get16(packet, 6) & 0x3fff) != 0};
        const bool good = out.head >= kIp4 && out.length >= out.head && packet.size() >= out.head;
        return good ? std::optional(out) : std::nullopt;
    }
    if (packet.size() >= kIp6 && packet[0] >> 4 == 6) {
        return Layout{false, kIp6, kIp6 + get16(packet, 4), packet[6], false};
    }
    return {};
}

Address source(View packet, bool v4) {
    return v4 ? Address(address_v4(take<4>(packet, 12))) : address_v6(take<16>(packet, 8));
}

Address destination(View packet, bool v4) {
    return v4 ? Address(address_v4(take<4>(packet, 16))) : address_v6(take<16>(packet, 24));
}

void put_addresses(Octets& packet, const Address& from, const Address& to) {
    if (from.is_v4()) {
        put(packet, 12, from.to_v4().to_bytes());
        put(packet, 16, to.to_v4().to_bytes());
    } else {
        put(packet, 8, from.to_v6().to_bytes());
        put(packet, 24, to.to_v6().to_bytes());
    }
}

/// Of the pseudo header.
std::uint32_t pseudo(View packet, const Layout& at, std::uint8_t protocol) {
    const auto addresses = at.v4 ? packet.subspan(12, 8) : packet.subspan(8, 32);
    return sum(addresses, static_cast<std::uint32_t>(packet.size() - at.head) + protocol);
}

/// Length and checksums, as they have to be.
Octets finished(Octets packet, std::uint8_t protocol, std::size_t checksum_at) {
    packet = with_length(std::move(packet));
    const auto at = *layout(packet);
    put16(packet, at.head + checksum_at, 0);
    const bool bare = at.v4 && protocol == kProtocolIcmp;
    put16(packet, at.head + checksum_at,
          checksum(View(packet).subspan(at.head), bare ? 0 : pseudo(packet, at, protocol)));
    return packet;
}

Octets finished_tcp(Octets packet) {
    return finished(std::move(packet), kProtocolTcp, 16);
}

/// A packet with a header like that of `like`, and nothing else in it.
Octets ip_header(bool v4, std::uint8_t protocol, const Address& from, const Address& to,
                 std::size_t content) {
    Octets packet((v4 ? kIp4 : kIp6) + content);
    if (v4) {
        packet[0] = 0x45;
        packet[6] = 0x40;  // do not fragment
        packet[8] = kTtl;
        packet[9] = protocol;
        put16(packet, 2, static_cast<std::uint32_t>(packet.size()));
    } else {
        packet[0] = 0x60;
        packet[6] = protocol;
        packet[7] = kTtl;
    }
    put_addresses(packet, from, to);
    return packet;
}

std::optional<MigrateOption> parse_migrate(View option) {
    if (option.size() < 8 || get16(option, 2) != kExid) {
        return {};
    }
    MigrateOption out{static_cast<Form>(option[4] >> 4), 0, 0, 0, {option.begin(), option.end()}};
    switch (out.form) {
        case Form::Mreq:
        case Form::Mans:
            if (option.size() != kMreqLength) {
                return {};
            }
            out.reqno = option[5];
            out.token = get32(option, 6);
            out.port = get16(option, 22);
            return out;
        case Form::Confirm:
            if (option.size() != kConfirmLength) {
                return {};
            }
            out.reqno = option[5];
            out.token = get32(option, 8);
            return out;
        case Form::Permit:
        case Form::Rst:
        case Form::Echo:
            return out;
    }
    return {};
}

/// Calls `each` with every option as a whole, until it returns false; false if they are none.
template <typename Each>
bool each_option(View options, Each each) {
    for (std::size_t at = 0; at < options.size() && options[at] != kEnd;) {
        if (options[at] == kNop) {
            at++;
            continue;
        }
        if (at + 1 >= options.size() || options[at + 1] < 2 ||
            at + options[at + 1] > options.size()) {
            return false;
        }
        each(options.subspan(at, options[at + 1]));
        at += options[at + 1];
    }
    return true;
}

View options_of(const Segment& segment) {
    return View(segment.packet).subspan(segment.head + kTcp, segment.body - segment.head - kTcp);
}

/// Of a SYN's options (RFC 7323); 0 if they have none.
unsigned window_scale(View options) {
    unsigned scale = 0;
    each_option(options, [&](View option) {
        if (option[0] == kWindowScale && option.size() == 3) {
            scale = std::min<unsigned>(option[2], kMostScale);
        }
    });
    return scale;
}

Octets retouched(const Segment& segment, const Tuple& to) {
    Octets out = segment.packet;
    put_addresses(out, to.from.address, to.to.address);
    put16(out, segment.head, to.from.port);
    put16(out, segment.head + 2, to.to.port);
    // The way begins anew here.
    out.at(segment.tuple.from.address.is_v4() ? 8 : 7) = kTtl;
    return out;
}

void set_flags(Octets& packet, const Segment& segment, std::uint8_t flags) {
    packet.at(segment.head + 13) = flags;
}

}  // namespace

std::optional<Segment> parse_segment(View packet, std::size_t length) {
    const auto at = layout(packet);
    if (!at || at->protocol != kProtocolTcp || at->fragment || at->length > length ||
        packet.size() < at->head + kTcp) {
        return {};
    }
    const auto tcp = packet.subspan(at->head);
    const std::size_t header = static_cast<std::size_t>(tcp[12] >> 4) * 4;
    if (header < kTcp || tcp.size() < header || at->length < at->head + header) {
        return {};
    }
    Segment out;
    out.tuple = {{source(packet, at->v4), get16(tcp, 0)},
                 {destination(packet, at->v4), get16(tcp, 2)}};
    out.seq = get32(tcp, 4);
    out.ack = get32(tcp, 8);
    out.flags = tcp[13];
    out.payload = at->length - at->head - header;
    out.whole = packet.size() >= at->length;
    out.head = at->head;
    out.body = at->head + header;
    const auto here = packet.first(std::min(packet.size(), at->length));
    out.packet.assign(here.begin(), here.end());
    const bool good = each_option(tcp.subspan(kTcp, header - kTcp), [&](View option) {
        if (option[0] == kExperiment && !out.migrate) {
            out.migrate = parse_migrate(option);
        } else if (option[0] == kTimestamps && option.size() == 10) {
            out.tsval = get32(option, 2);
            out.tsecr = get32(option, 6);
        }
    });
    return good ? std::optional(std::move(out)) : std::nullopt;
}

std::optional<Fragment> parse_fragment(View packet) {
    const auto at = layout(packet);
    const auto skipped = at && !at->v4 ? kFragmentHeader : 0;
    if (!at || packet.size() < at->length || at->length <= at->head + skipped ||
        at->protocol != (at->v4 ? kProtocolTcp : kProtocolFragment) ||
        (!at->v4 && packet[kIp6] != kProtocolTcp)) {
        return {};
    }
    const unsigned field = get16(packet, at->v4 ? 6 : kIp6 + 2);
    Fragment out{source(packet, at->v4), destination(packet, at->v4), 0, 0, false, {}, {}};
    out.id = at->v4 ? get16(packet, 4) : get32(packet, kIp6 + 4);
    out.offset = at->v4 ? std::size_t{field & kOffset} * 8 : field & ~7U;
    out.last = at->v4 ? (field & kMoreFragments) == 0 : (field & 1U) == 0;
    out.header.assign(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(at->head));
    if (at->v4) {
        put16(out.header, 6, 0);
    } else {
        out.header[6] = kProtocolTcp;
    }
    out.data = packet.first(at->length).subspan(at->head + skipped);
    const bool good = (out.last || out.data.size() % 8 == 0) &&
                      at->head + out.offset + out.data.size() <= kLongest;
    return good ? std::optional(std::move(out)) : std::nullopt;
}

Octets with_length(Octets packet) {
    if (packet[0] >> 4 == 4) {
        put16(packet, 2, static_cast<std::uint32_t>(packet.size()));
        put16(packet, 10, 0);
        put16(packet, 10,
              checksum(View(packet).first(static_cast<std::size_t>(packet[0] & 15) * 4)));
    } else {
        put16(packet, 4, static_cast<std::uint32_t>(packet.size() - kIp6));
    }
    return packet;
}

bool may_fragment(View packet) {
    return packet[0] >> 4 == 4 && (get16(packet, 6) & kDontFragment) == 0;
}

std::vector<Octets> fragmented(View packet, std::size_t mtu, std::uint16_t id) {
    const std::size_t head = static_cast<std::size_t>(packet[0] & 15) * 4;
    const std::size_t step = (mtu - head) / 8 * 8;
    std::vector<Octets> out;
    for (std::size_t at = head; at < packet.size(); at += step) {
        const auto data = packet.subspan(at, std::min(step, packet.size() - at));
        auto& piece =
            out.emplace_back(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(head));
        piece.insert(piece.end(), data.begin(), data.end());
        put16(piece, 4, id);
        const unsigned more = at + step < packet.size() ? kMoreFragments : 0;
        put16(piece, 6, more | static_cast<unsigned>((at - head) / 8));
        piece = with_length(std::move(piece));
    }
    return out;
}

std::optional<Tuple> parse_quoted(View packet) {
    const auto at = layout(packet);
    if (!at || at->protocol != kProtocolTcp || packet.size() < at->head + 4) {
        return {};
    }
    return Tuple{{source(packet, at->v4), get16(packet, at->head)},
                 {destination(packet, at->v4), get16(packet, at->head + 2)}};
}

Segment without_data(const Segment& segment) {
    Segment out = segment;
    out.packet.resize(out.body);
    out.packet.shrink_to_fit();
    out.payload = 0;
    out.whole = true;
    return out;
}

Octets readdressed(const Segment& segment, const Tuple& to) {
    return finished_tcp(retouched(segment, to));
}

Octets answer_from(const Segment& msyn, std::uint32_t others_seq, const Tuple& to) {
    auto out = retouched(msyn, to);
    put32(out, msyn.head + 8, others_seq + 1);
    set_flags(out, msyn, flag::kSyn | flag::kAck);
    return finished_tcp(std::move(out));
}

Octets request_from(const Segment& msyn, std::uint32_t ack, const Tuple& to) {
    auto out = retouched(msyn, to);
    put32(out, msyn.head + 8, ack);
    // Only that of a SYN is not scaled.
    put16(out, msyn.head + kWindow,
          std::uint32_t{get16(msyn.packet, msyn.head + kWindow)} >> window_scale(options_of(msyn)));
    set_flags(out, msyn, flag::kAck);
    return finished_tcp(std::move(out));
}

Octets answer_with_syn(const Segment& mans, View syn_options, const Tuple& to) {
    auto out = retouched(mans, to);
    const auto& option = mans.migrate->bytes;
    // An end of options that were not filled up is no end here: ours follows.
    Octets options(syn_options.begin(), syn_options.end());
    options.resize((options.size() + 3) / 4 * 4, kNop);
    options.insert(options.end(), option.begin(), option.end());
    out.resize(mans.head + kTcp);
    out.insert(out.end(), options.begin(), options.end());
    out.at(mans.head + 12) = static_cast<std::uint8_t>((kTcp + options.size()) / 4 << 4);
    // What is beyond this a NAPT does not let pass.
    const auto window = std::uint32_t{get16(mans.packet, mans.head + kWindow)}
                        << window_scale(syn_options);
    put16(out, mans.head + kWindow, std::min(window, 0xffffU));
    set_flags(out, mans, flag::kSyn | flag::kAck);
    return finished_tcp(std::move(out));
}

Octets syn_options(const Segment& msyn) {
    Octets out;
    each_option(options_of(msyn), [&](View option) {
        if (option[0] != kExperiment && out.size() + option.size() <= 12) {
            out.insert(out.end(), option.begin(), option.end());
        }
    });
    out.resize((out.size() + 3) / 4 * 4, kNop);
    return out;
}

std::optional<Octets> reset_for(const Segment& segment) {
    if ((segment.flags & flag::kRst) != 0) {
        return {};
    }
    const auto& [from, to] = segment.tuple;
    const bool v4 = from.address.is_v4();
    auto out = ip_header(v4, kProtocolTcp, to.address, from.address, kTcp);
    const std::size_t head = v4 ? kIp4 : kIp6;
    put16(out, head, to.port);
    put16(out, head + 2, from.port);
    const bool acks = (segment.flags & flag::kAck) != 0;
    put32(out, head + 4, acks ? segment.ack : 0);
    put32(out, head + 8, acks ? 0 : segment.end());
    out.at(head + 12) = 0x50;
    out.at(head + 13) = acks ? flag::kRst : flag::kRst | flag::kAck;
    return finished_tcp(std::move(out));
}

Octets too_big_for(View packet, std::uint32_t mtu) {
    const bool v4 = packet[0] >> 4 == 4;
    const auto quote = packet.first(std::min(packet.size(), v4 ? kQuote4 : kQuote6));
    auto out = ip_header(v4, v4 ? kProtocolIcmp : kProtocolIcmp6, destination(packet, v4),
                         source(packet, v4), 8 + quote.size());
    const std::size_t head = v4 ? kIp4 : kIp6;
    out.at(head) = v4 ? 3 : 2;
    out.at(head + 1) = v4 ? 4 : 0;
    put32(out, head + 4, v4 ? std::min(mtu, 0xffffU) : mtu);
    put(out, head + 8, quote);
    return finished(std::move(out), v4 ? kProtocolIcmp : kProtocolIcmp6, 2);
}

std::optional<IcmpError> parse_icmp_error(View packet) {
    const auto at = layout(packet);
    if (at) {
        packet = packet.first(std::min(packet.size(), at->length));
    }
    if (!at || at->fragment || packet.size() < at->head + 8 ||
        at->protocol != (at->v4 ? kProtocolIcmp : kProtocolIcmp6)) {
        return {};
    }
    const auto icmp = packet.subspan(at->head);
    // Errors: unreachable, time exceeded, parameter problem; IPv6: types below 128.
    const bool error = at->v4 ? icmp[0] == 3 || icmp[0] == 11 || icmp[0] == 12 : icmp[0] < 128;
    const auto quoted = error ? parse_quoted(icmp.subspan(8)) : std::nullopt;
    if (!quoted || quoted->from.address.is_v4() != at->v4) {
        return {};
    }
    const bool too_big = at->v4 ? icmp[0] == 3 && icmp[1] == 4 : icmp[0] == 2;
    const auto mtu = get32(icmp, 4);
    return IcmpError{*quoted, too_big ? (at->v4 ? mtu & 0xffff : mtu) : 0,
                     Octets(packet.begin(), packet.end())};
}

Octets translated(const IcmpError& error, const Tuple& sent) {
    const auto at = *layout(error.packet);
    const auto icmp = View(error.packet).subspan(at.head);
    auto out = ip_header(at.v4, at.protocol, sent.to.address, sent.from.address, icmp.size());
    const std::size_t head = at.v4 ? kIp4 : kIp6;
    put(out, head, icmp);
    // The quoted packet, as the end has sent it. Its checksums stay as they were: nobody
    // looks at them.
    Octets quoted(icmp.begin() + 8, icmp.end());
    const auto inner = *layout(quoted);
    put_addresses(quoted, sent.from.address, sent.to.address);
    put16(quoted, inner.head, sent.from.port);
    put16(quoted, inner.head + 2, sent.to.port);
    put(out, head + 8, quoted);
    return finished(std::move(out), at.protocol, 2);
}

}  // namespace mobility::proxy
