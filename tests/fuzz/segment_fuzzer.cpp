// SPDX-License-Identifier: GPL-2.0-or-later
// Feeds arbitrary packets to what reads and makes the symmetric proxy's segments. Whatever is
// made of one that was understood is understood again, has the ends it was to have and all of
// its data, and checksums that were right stay right; so do those of what the proxy says itself.

#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <cstdlib>

#include "relay/segment.hpp"
#include "tests/unit/proxy_packets.hpp"

namespace {

using namespace mobility::proxy;  // NOLINT(google-build-using-namespace)

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

Tuple elsewhere(const Tuple& tuple) {
    const bool v6 = tuple.from.address.is_v6();
    return {{boost::asio::ip::make_address(v6 ? "2001:db8::9" : "203.0.113.9"), 20'000},
            {boost::asio::ip::make_address(v6 ? "2001:db8::1" : "198.51.100.1"), 50'001}};
}

/// A segment made of another one, of which it is told whether its checksums were right.
Segment check_made(const Octets& packet, const Tuple& to, bool were_right) {
    const auto made = parse_segment(packet, packet.size());
    require(made && made->whole && made->tuple == to);
    require(!were_right || test::is_sound(packet));
    return *made;
}

void check_segment(View packet) {
    const auto segment = parse_segment(packet, packet.size());
    if (!segment) {
        return;
    }
    require(segment->head < segment->body && segment->body <= packet.size());
    if (!segment->whole) {
        return;
    }
    const bool right = segment->packet.size() >= 40 && test::is_sound(segment->packet);
    const auto to = elsewhere(segment->tuple);
    const auto moved = check_made(readdressed(*segment, to), to, right);
    require(moved.seq == segment->seq && moved.ack == segment->ack &&
            moved.flags == segment->flags && moved.payload == segment->payload &&
            moved.migrate == segment->migrate);
    if (segment->is_msyn()) {
        const auto answer = check_made(answer_from(*segment, 7, to), to, right);
        require(answer.ack == 8 && answer.seq == segment->seq);
        const auto request = check_made(request_from(*segment, 9, to), to, right);
        require(!request.is_syn() && request.ack == 9);
        require(syn_options(*segment).size() <= 40);
    }
    if (segment->is(Form::Mans)) {
        const auto answer = answer_with_syn(*segment, {}, to);
        require(parse_segment(answer, answer.size()).has_value());
    }
    if (const auto reset = reset_for(*segment)) {
        const auto made = parse_segment(*reset, reset->size());
        require(made && (made->flags & flag::kRst) != 0 && test::is_sound(*reset));
        require(!reset_for(*made));
    }
}

void check_icmp(View packet) {
    if (const auto error = parse_icmp_error(packet)) {
        require(!translated(*error, elsewhere(error->quoted)).empty());
    }
    if (const auto segment = parse_segment(packet, packet.size())) {
        const auto said = too_big_for(packet, 1280);
        const auto error = parse_icmp_error(said);
        require(error && error->mtu == 1280 && error->quoted == segment->tuple);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const View packet(data, size);
    check_segment(packet);
    check_icmp(packet);
    static_cast<void>(parse_quoted(packet));
    // Only the beginning was handed up.
    static_cast<void>(parse_segment(packet, size + 100));
    return 0;
}
