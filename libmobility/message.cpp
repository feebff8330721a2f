// SPDX-License-Identifier: GPL-2.0-or-later
// Between values and protobuf: all that can be wrong with a message is found here.
#include "libmobility/message.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "proto/server.pb.h"

namespace mobility {

namespace {

using boost::asio::ip::address;
using boost::asio::ip::address_v4;
using boost::asio::ip::address_v6;

/// Reads fields and remembers the first that is wrong, so that a decoder need not
/// ask after each; what it reads after that is of no use and never given out.
class Reader {
  public:
    void require(bool good, const char* what) {
        if (!good && wrong_ == nullptr) {
            wrong_ = what;
        }
    }

    template <std::size_t size>
    std::array<std::uint8_t, size> bytes(const std::string& field, const char* what) {
        std::array<std::uint8_t, size> out{};
        require(field.size() == size, what);
        std::copy_n(field.begin(), std::min(size, field.size()), out.begin());
        return out;
    }

    PairId pair(const std::string& field) { return bytes<16>(field, "no pair ID of 16 bytes"); }

    address ip(const std::string& field) {
        if (field.size() == 4) {
            return address_v4(bytes<4>(field, ""));
        }
        const auto v6 = address_v6(bytes<16>(field, "no address of 4 or 16 bytes"));
        require(!v6.is_v4_mapped(), "an IPv4-mapped address: they are sent as 4 bytes");
        return v6;
    }

    std::uint16_t port(std::uint32_t field) {
        require(field > 0 && field <= 0xffff, "a port that is not 1 to 65535");
        return static_cast<std::uint16_t>(field);
    }

    std::string text(const std::string& field) {
        require(field.size() <= kMaxText, "a text of more than 256 bytes");
        return field.substr(0, kMaxText);
    }

    PairPart part(const v1::PairPart& field) {
        return {Name(bytes<Name::kSize>(field.host(), "no host of 32 bytes")), ip(field.address()),
                bytes<16>(field.random(), "no random number of 16 bytes")};
    }

    /// As many as there are, by `one`; none if there are too many.
    template <typename Field, typename One>
    auto list(const Field& field, std::size_t most, const char* what, One one) {
        std::vector<decltype(one(*field.begin()))> out;
        const bool good = static_cast<std::size_t>(field.size()) <= most;
        require(good, what);
        if (good) {
            std::ranges::transform(field, std::back_inserter(out), one);
        }
        return out;
    }

    /// At least one.
    template <typename Field, typename One>
    auto connections(const Field& field, One one) {
        const char* what = "not 1 to 2048 connections";
        require(!field.empty(), what);
        return list(field, kMaxConnections, what, one);
    }

    Ticket ticket(const v1::Ticket& field) {
        // Beyond what a date can be, it never ends all the same.
        const auto expires = std::min<std::uint64_t>(field.expires(), 1ULL << 48);
        return {bytes<32>(field.issuer(), "no key of 32 bytes"),
                Name(bytes<Name::kSize>(field.guest(), "no host of 32 bytes")), pair(field.pair()),
                std::chrono::sys_seconds(std::chrono::seconds(expires)),
                bytes<64>(field.signature(), "no signature of 64 bytes")};
    }

    /// The message, if nothing was wrong.
    template <typename To, typename Message>
    Result<To> result(Message message, const char* kind) const {
        if (wrong_ != nullptr) {
            return tcpmigrate::make_error(EBADMSG, std::string(kind) + " with " + wrong_);
        }
        return To(std::move(message));
    }

  private:
    const char* wrong_ = nullptr;
};

template <typename Array>
std::string raw(const Array& bytes) {
    return {bytes.begin(), bytes.end()};
}

std::string raw(const address& ip) {
    return ip.is_v4() ? raw(ip.to_v4().to_bytes()) : raw(ip.to_v6().to_bytes());
}

/// An enumerator that this version does not know means nothing in particular.
template <typename To, typename From>
To known(From value, To last) {
    const auto number = static_cast<int>(value);
    return number >= 0 && number <= static_cast<int>(last) ? static_cast<To>(number) : To{};
}

// ---- Hosts to servers ----

Result<ToServer> decode(const v1::Hello& in) {
    Reader read;
    return read.result<ToServer>(
        Hello{in.version(), read.text(in.software()), read.text(in.enrolment()),
              read.list(in.tickets(), kMaxTickets, "more than 64 tickets",
                        [&](const auto& one) { return read.ticket(one); })},
        "Hello");
}

Ports decode_ports(Reader& read, const v1::Ports& in) {
    const auto own = read.port(in.own());
    return {own, read.port(in.peer()), in.own_after() == 0 ? own : read.port(in.own_after())};
}

Result<ToServer> decode(const v1::Report& in) {
    Reader read;
    Report out{
        read.part(in.own()),
        read.part(in.peer()),
        read.ip(in.before()),
        read.ip(in.peer_before()),
        read.ip(in.after()),
        read.connections(in.connections(), [&](const auto& c) { return decode_ports(read, c); })};
    read.require(out.own.host != out.peer.host, "the same host at both ends");
    read.require(out.before.is_v4() == out.peer_before.is_v4(), "addresses of two families before");
    return read.result<ToServer>(std::move(out), "Report");
}

Result<ToServer> decode(const v1::Outcome& in) {
    Reader read;
    const Outcome out{read.pair(in.pair()), in.judgement(), in.step(), in.resumed()};
    return read.result<ToServer>(out, "Outcome");
}

Result<ToServer> decode(const v1::Forget& in) {
    Reader read;
    const Forget out{read.pair(in.pair())};
    return read.result<ToServer>(out, "Forget");
}

void put(const Hello& from, v1::ToServer& to) {
    auto& out = *to.mutable_hello();
    out.set_version(from.version);
    out.set_software(from.software);
    out.set_enrolment(from.enrolment);
    for (const auto& ticket : from.tickets) {
        auto& added = *out.add_tickets();
        added.set_issuer(raw(ticket.issuer));
        added.set_guest(raw(ticket.guest.bytes()));
        added.set_pair(raw(ticket.pair));
        added.set_expires(static_cast<std::uint64_t>(ticket.expires.time_since_epoch().count()));
        added.set_signature(raw(ticket.signature));
    }
}

void put(const PairPart& from, v1::PairPart& out) {
    out.set_host(raw(from.host.bytes()));
    out.set_address(raw(from.address));
    out.set_random(raw(from.random));
}

void put(const Report& from, v1::ToServer& to) {
    auto& out = *to.mutable_report();
    put(from.own, *out.mutable_own());
    put(from.peer, *out.mutable_peer());
    out.set_before(raw(from.before));
    out.set_peer_before(raw(from.peer_before));
    out.set_after(raw(from.after));
    for (const auto& ports : from.connections) {
        auto& added = *out.add_connections();
        added.set_own(ports.own);
        added.set_peer(ports.peer);
        added.set_own_after(ports.own_after == ports.own ? 0 : ports.own_after);
    }
}

void put(const Outcome& from, v1::ToServer& to) {
    auto& out = *to.mutable_outcome();
    out.set_pair(raw(from.pair));
    out.set_judgement(from.judgement);
    out.set_step(from.step);
    out.set_resumed(from.resumed);
}

void put(const Forget& from, v1::ToServer& to) {
    to.mutable_forget()->set_pair(raw(from.pair));
}

// ---- Servers to hosts ----

Result<ToHost> decode(const v1::Welcome& in) {
    Reader read;
    const Welcome out{in.version(), read.ip(in.seen_address()), read.port(in.seen_port()),
                      in.most_pairs()};
    return read.result<ToHost>(out, "Welcome");
}

Result<ToHost> decode(const v1::Refused& in) {
    Reader read;
    Refused out{known(in.why(), Refused::Why::NotYours), read.text(in.text()), {}};
    if (!in.pair().empty()) {
        out.pair = read.pair(in.pair());
    }
    return read.result<ToHost>(std::move(out), "Refused");
}

Result<ToHost> decode(const v1::Ask& in) {
    Reader read;
    const Ask out{read.pair(in.pair())};
    return read.result<ToHost>(out, "Ask");
}

Resume decode_resume(Reader& read, const v1::Resume& in) {
    return {read.port(in.own()), read.port(in.own_after()), read.port(in.peer()),
            read.port(in.peer_after())};
}

Result<ToHost> decode(const v1::Notice& in) {
    Reader read;
    return read.result<ToHost>(
        Notice{read.pair(in.pair()), in.judgement(), in.step(), read.ip(in.peer()), in.trial(),
               read.connections(in.connections(),
                                [&](const auto& c) { return decode_resume(read, c); })},
        "Notice");
}

Result<ToHost> decode(const v1::Verdict& in) {
    Reader read;
    const Verdict out{read.pair(in.pair()), in.judgement(),
                      known(in.what(), Verdict::What::PeerSilent)};
    return read.result<ToHost>(out, "Verdict");
}

void put(const Welcome& from, v1::ToHost& to) {
    auto& out = *to.mutable_welcome();
    out.set_version(from.version);
    out.set_seen_address(raw(from.seen));
    out.set_seen_port(from.seen_port);
    out.set_most_pairs(from.most_pairs);
}

void put(const Refused& from, v1::ToHost& to) {
    auto& out = *to.mutable_refused();
    out.set_why(static_cast<v1::Refused::Why>(from.why));
    out.set_text(from.text);
    if (from.pair) {
        out.set_pair(raw(*from.pair));
    }
}

void put(const Ask& from, v1::ToHost& to) {
    to.mutable_ask()->set_pair(raw(from.pair));
}

void put(const Notice& from, v1::ToHost& to) {
    auto& out = *to.mutable_notice();
    out.set_pair(raw(from.pair));
    out.set_judgement(from.judgement);
    out.set_step(from.step);
    out.set_peer(raw(from.peer));
    out.set_trial(from.trial);
    for (const auto& connection : from.connections) {
        auto& added = *out.add_connections();
        added.set_own(connection.own);
        added.set_own_after(connection.own_after);
        added.set_peer(connection.peer);
        added.set_peer_after(connection.peer_after);
    }
}

void put(const Verdict& from, v1::ToHost& to) {
    auto& out = *to.mutable_verdict();
    out.set_pair(raw(from.pair));
    out.set_judgement(from.judgement);
    out.set_what(static_cast<v1::Verdict::What>(from.what));
}

template <typename Wire, typename Message>
std::string encode_as(const Message& message) {
    Wire wire;
    std::visit([&](const auto& one) { put(one, wire); }, message);
    return wire.SerializeAsString();
}

template <typename Wire>
Result<Wire> parse(std::string_view bytes) {
    Wire wire;
    if (bytes.size() > kMaxFrame ||
        !wire.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
        return tcpmigrate::make_error(
            EBADMSG, std::to_string(bytes.size()) + " bytes that are no message of this protocol");
    }
    return wire;
}

Error unknown_kind() {
    return tcpmigrate::make_error(EBADMSG, "a message of a kind that this version does not know");
}

}  // namespace

std::string encode(const ToServer& message) {
    return encode_as<v1::ToServer>(message);
}

std::string encode(const ToHost& message) {
    return encode_as<v1::ToHost>(message);
}

Result<ToServer> decode_to_server(std::string_view bytes) {
    const auto wire = parse<v1::ToServer>(bytes);
    if (!wire) {
        return wire.error();
    }
    switch (wire->what_case()) {
        case v1::ToServer::kHello:
            return decode(wire->hello());
        case v1::ToServer::kReport:
            return decode(wire->report());
        case v1::ToServer::kOutcome:
            return decode(wire->outcome());
        case v1::ToServer::kForget:
            return decode(wire->forget());
        case v1::ToServer::WHAT_NOT_SET:
            break;
    }
    return unknown_kind();
}

Result<ToHost> decode_to_host(std::string_view bytes) {
    const auto wire = parse<v1::ToHost>(bytes);
    if (!wire) {
        return wire.error();
    }
    switch (wire->what_case()) {
        case v1::ToHost::kWelcome:
            return decode(wire->welcome());
        case v1::ToHost::kRefused:
            return decode(wire->refused());
        case v1::ToHost::kAsk:
            return decode(wire->ask());
        case v1::ToHost::kNotice:
            return decode(wire->notice());
        case v1::ToHost::kVerdict:
            return decode(wire->verdict());
        case v1::ToHost::WHAT_NOT_SET:
            break;
    }
    return unknown_kind();
}

}  // namespace mobility
