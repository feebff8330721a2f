// SPDX-License-Identifier: GPL-2.0-or-later
// Between values and protobuf: all that can be wrong with a message is found here.
#include "libmobility/message.hpp"

#include <utility>

#include "libmobility/wire.hpp"

namespace mobility {

namespace {

using wire::put;
using wire::raw;
using wire::Reader;

// ---- Hosts to servers ----

Result<ToServer> decode(const v1::Hello& in) {
    Reader read;
    return read.result<ToServer>(
        Hello{in.version(), read.text(in.software()), read.text(in.enrolment()),
              read.tickets(in.tickets(), kMaxTickets, "more than 64 tickets"), in.voucher()},
        "Hello");
}

Ports decode_ports(Reader& read, const v1::Ports& in) {
    const auto own = read.port(in.own());
    return {own, read.port(in.peer()), in.own_after() == 0 ? own : read.port(in.own_after()),
            in.token()};
}

Result<ToServer> decode(const v1::Report& in) {
    Reader read;
    Report out{
        read.part(in.own()),
        read.part(in.peer()),
        read.ip(in.before()),
        read.ip(in.peer_before()),
        read.ip(in.after()),
        read.connections(in.connections(), [&](const auto& c) { return decode_ports(read, c); }),
        in.crosses()};
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
        put(ticket, *out.add_tickets());
    }
    out.set_voucher(from.voucher);
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
        added.set_token(ports.token);
    }
    out.set_crosses(from.crosses);
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
    Welcome out{in.version(), read.ip(in.seen_address()), read.port(in.seen_port()),
                in.most_pairs()};
    if (in.has_voucher()) {
        out.voucher = read.voucher(in.voucher());
    }
    return read.result<ToHost>(out, "Welcome");
}

Result<ToHost> decode(const v1::Refused& in) {
    Reader read;
    Refused out{wire::known(in.why(), Refused::Why::NotYours), read.text(in.text()), {}};
    if (!in.pair().empty()) {
        out.pair = read.pair(in.pair());
    }
    return read.result<ToHost>(std::move(out), "Refused");
}

Resume decode_resume(Reader& read, const v1::Resume& in) {
    return {read.port(in.own()), read.port(in.own_after()), read.port(in.peer()),
            read.port(in.peer_after())};
}

Result<ToHost> decode(const v1::Ask& in) {
    Reader read;
    Ask out{read.pair(in.pair()), {}};
    if (!in.peer().empty()) {
        out.hint = {read.ip(in.peer()), read.connections(in.connections(), [&](const auto& c) {
                        return decode_resume(read, c);
                    })};
    }
    return read.result<ToHost>(std::move(out), "Ask");
}

Result<ToHost> decode(const v1::Notice& in) {
    Reader read;
    Notice out{
        read.pair(in.pair()),
        in.judgement(),
        in.step(),
        read.ip(in.peer()),
        in.trial(),
        read.connections(in.connections(), [&](const auto& c) { return decode_resume(read, c); }),
        in.relay()};
    if (in.has_delay()) {
        out.delay = std::chrono::milliseconds(in.delay());
        read.require(*out.delay <= kMaxDelay, "a delay of more than 10 seconds");
        read.require(out.trial && !out.relay, "a delay of what is no trial");
    }
    return read.result<ToHost>(std::move(out), "Notice");
}

Result<ToHost> decode(const v1::Verdict& in) {
    Reader read;
    const Verdict out{read.pair(in.pair()), in.judgement(),
                      wire::known(in.what(), Verdict::What::NoProxy)};
    return read.result<ToHost>(out, "Verdict");
}

void put(const Welcome& from, v1::ToHost& to) {
    auto& out = *to.mutable_welcome();
    out.set_version(from.version);
    out.set_seen_address(raw(from.seen));
    out.set_seen_port(from.seen_port);
    out.set_most_pairs(from.most_pairs);
    if (from.voucher) {
        put(*from.voucher, *out.mutable_voucher());
    }
}

void put(const Refused& from, v1::ToHost& to) {
    auto& out = *to.mutable_refused();
    out.set_why(static_cast<v1::Refused::Why>(from.why));
    out.set_text(from.text);
    if (from.pair) {
        out.set_pair(raw(*from.pair));
    }
}

void put(const Resume& from, v1::Resume& out) {
    out.set_own(from.own);
    out.set_own_after(from.own_after);
    out.set_peer(from.peer);
    out.set_peer_after(from.peer_after);
}

void put(const Ask& from, v1::ToHost& to) {
    auto& out = *to.mutable_ask();
    out.set_pair(raw(from.pair));
    if (from.hint) {
        out.set_peer(raw(from.hint->peer));
        for (const auto& connection : from.hint->connections) {
            put(connection, *out.add_connections());
        }
    }
}

void put(const Notice& from, v1::ToHost& to) {
    auto& out = *to.mutable_notice();
    out.set_pair(raw(from.pair));
    out.set_judgement(from.judgement);
    out.set_step(from.step);
    out.set_peer(raw(from.peer));
    out.set_trial(from.trial);
    for (const auto& connection : from.connections) {
        put(connection, *out.add_connections());
    }
    out.set_relay(from.relay);
    if (from.delay) {
        out.set_delay(static_cast<std::uint32_t>(from.delay->count()));
    }
}

void put(const Verdict& from, v1::ToHost& to) {
    auto& out = *to.mutable_verdict();
    out.set_pair(raw(from.pair));
    out.set_judgement(from.judgement);
    out.set_what(static_cast<v1::Verdict::What>(from.what));
}

}  // namespace

std::string encode(const ToServer& message) {
    return wire::encode_as<v1::ToServer>(message, [](const auto& one, auto& to) { put(one, to); });
}

std::string encode(const ToHost& message) {
    return wire::encode_as<v1::ToHost>(message, [](const auto& one, auto& to) { put(one, to); });
}

Result<ToServer> decode_to_server(std::string_view bytes) {
    const auto in = wire::parse<v1::ToServer>(bytes);
    if (!in) {
        return in.error();
    }
    switch (in->what_case()) {
        case v1::ToServer::kHello:
            return decode(in->hello());
        case v1::ToServer::kReport:
            return decode(in->report());
        case v1::ToServer::kOutcome:
            return decode(in->outcome());
        case v1::ToServer::kForget:
            return decode(in->forget());
        case v1::ToServer::WHAT_NOT_SET:
            break;
    }
    return wire::unknown_kind();
}

Result<ToHost> decode_to_host(std::string_view bytes) {
    const auto in = wire::parse<v1::ToHost>(bytes);
    if (!in) {
        return in.error();
    }
    switch (in->what_case()) {
        case v1::ToHost::kWelcome:
            return decode(in->welcome());
        case v1::ToHost::kRefused:
            return decode(in->refused());
        case v1::ToHost::kAsk:
            return decode(in->ask());
        case v1::ToHost::kNotice:
            return decode(in->notice());
        case v1::ToHost::kVerdict:
            return decode(in->verdict());
        case v1::ToHost::WHAT_NOT_SET:
            break;
    }
    return wire::unknown_kind();
}

}  // namespace mobility
