// SPDX-License-Identifier: GPL-2.0-or-later
// Between values and protobuf: all that can be wrong with a message is found here.
#include "libmobility/proxy_message.hpp"

#include <array>
#include <set>
#include <utility>

#include "libmobility/wire.hpp"
#include "proto/proxy.pb.h"

namespace mobility {

namespace {

using boost::asio::ip::address_v4;
using boost::asio::ip::address_v6;
using wire::raw;
using wire::Reader;

// ---- Servers to proxies ----

Result<ToProxy> decode(const v1::Greeting& in) {
    Reader read;
    return read.result<ToProxy>(Greeting{in.version(), read.text(in.software()), in.wants_met()},
                                "Greeting");
}

RelayEnd decode_end(Reader& read, const v1::RelayEnd& in) {
    return {in.token(), read.ip(in.address()), read.port(in.port())};
}

template <typename Field>
std::vector<RelayPair> decode_pairs(Reader& read, const Field& in) {
    auto out = read.list(in, kMaxRelays, "more than 1024 connections", [&](const auto& one) {
        return RelayPair{decode_end(read, one.first()), decode_end(read, one.second())};
    });
    read.require(!out.empty(), "no connections");
    std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
    for (const auto& [first, second] : out) {
        read.require(first.address.is_v4() == second.address.is_v4() &&
                         first.address.is_v4() == out.front().first.address.is_v4(),
                     "addresses of two families");
        read.require(seen.emplace(first.token, second.token).second, "the same connection twice");
    }
    return out;
}

Result<ToProxy> decode(const v1::Order& in) {
    Reader read;
    Order out{in.number(), Name(read.bytes<Name::kSize>(in.first(), "no host of 32 bytes")),
              Name(read.bytes<Name::kSize>(in.second(), "no host of 32 bytes")),
              decode_pairs(read, in.connections())};
    read.require(out.number != 0, "no number");
    read.require(out.first != out.second, "the same host at both ends");
    return read.result<ToProxy>(std::move(out), "Order");
}

void put(const Greeting& from, v1::ToProxy& to) {
    to.mutable_greeting()->set_version(from.version);
    to.mutable_greeting()->set_software(from.software);
    to.mutable_greeting()->set_wants_met(from.wants_met);
}

void put(const RelayEnd& from, v1::RelayEnd& out) {
    out.set_token(from.token);
    out.set_address(raw(from.address));
    out.set_port(from.port);
}

template <typename Message>
void put(const std::vector<RelayPair>& from, Message& out) {
    for (const auto& one : from) {
        auto& added = *out.add_connections();
        put(one.first, *added.mutable_first());
        put(one.second, *added.mutable_second());
    }
}

void put(const Order& from, v1::ToProxy& to) {
    auto& out = *to.mutable_order();
    out.set_number(from.number);
    out.set_first(raw(from.first.bytes()));
    out.set_second(raw(from.second.bytes()));
    put(from.connections, out);
}

// ---- Proxies to servers ----

Load decode_load(const v1::Load& in) {
    return {in.relays(), in.most()};
}

Result<FromProxy> decode(const v1::Ready& in) {
    Reader read;
    Ready out{in.version(), {}, {}, decode_load(in.load())};
    if (!in.address().empty()) {
        out.address = address_v4(read.bytes<4>(in.address(), "an IPv4 address of not 4 bytes"));
    }
    if (!in.address6().empty()) {
        out.address6 = address_v6(read.bytes<16>(in.address6(), "an IPv6 address of not 16 bytes"));
    }
    read.require(out.address || out.address6, "no address");
    return read.result<FromProxy>(out, "Ready");
}

Result<FromProxy> decode(const v1::Reserved& in) {
    Reader read;
    Reserved out{in.number(), read.ip(in.address()),
                 read.list(in.ports(), kMaxRelays, "more than 1024 ports",
                           [&](std::uint32_t port) { return read.port(port); })};
    read.require(out.number != 0, "no number");
    read.require(!out.ports.empty(), "no ports");
    return read.result<FromProxy>(std::move(out), "Reserved");
}

Result<FromProxy> decode(const v1::Declined& in) {
    Reader read;
    return read.result<FromProxy>(
        Declined{in.number(), wire::known(in.why(), Declined::Why::Duplicate),
                 read.text(in.text())},
        "Declined");
}

Result<FromProxy> decode(const v1::Met& in) {
    Reader read;
    Met out{in.number(), decode_pairs(read, in.connections())};
    read.require(out.number != 0, "no number");
    return read.result<FromProxy>(std::move(out), "Met");
}

void put(const Load& from, v1::Load& out) {
    out.set_relays(from.relays);
    out.set_most(from.most);
}

void put(const Load& from, v1::FromProxy& to) {
    put(from, *to.mutable_load());
}

void put(const Ready& from, v1::FromProxy& to) {
    auto& out = *to.mutable_ready();
    out.set_version(from.version);
    if (from.address) {
        out.set_address(raw(from.address->to_bytes()));
    }
    if (from.address6) {
        out.set_address6(raw(from.address6->to_bytes()));
    }
    put(from.load, *out.mutable_load());
}

void put(const Reserved& from, v1::FromProxy& to) {
    auto& out = *to.mutable_reserved();
    out.set_number(from.number);
    out.set_address(raw(from.address));
    for (const auto port : from.ports) {
        out.add_ports(port);
    }
}

void put(const Declined& from, v1::FromProxy& to) {
    auto& out = *to.mutable_declined();
    out.set_number(from.number);
    out.set_why(static_cast<v1::Declined::Why>(from.why));
    out.set_text(from.text);
}

void put(const Met& from, v1::FromProxy& to) {
    to.mutable_met()->set_number(from.number);
    put(from.connections, *to.mutable_met());
}

}  // namespace

std::string encode(const ToProxy& message) {
    return wire::encode_as<v1::ToProxy>(message, [](const auto& one, auto& to) { put(one, to); });
}

std::string encode(const FromProxy& message) {
    return wire::encode_as<v1::FromProxy>(message, [](const auto& one, auto& to) { put(one, to); });
}

Result<ToProxy> decode_to_proxy(std::string_view bytes) {
    const auto in = wire::parse<v1::ToProxy>(bytes);
    if (!in) {
        return in.error();
    }
    switch (in->what_case()) {
        case v1::ToProxy::kGreeting:
            return decode(in->greeting());
        case v1::ToProxy::kOrder:
            return decode(in->order());
        case v1::ToProxy::WHAT_NOT_SET:
            break;
    }
    return wire::unknown_kind();
}

Result<FromProxy> decode_from_proxy(std::string_view bytes) {
    const auto in = wire::parse<v1::FromProxy>(bytes);
    if (!in) {
        return in.error();
    }
    switch (in->what_case()) {
        case v1::FromProxy::kReady:
            return decode(in->ready());
        case v1::FromProxy::kReserved:
            return decode(in->reserved());
        case v1::FromProxy::kDeclined:
            return decode(in->declined());
        case v1::FromProxy::kLoad:
            return FromProxy(decode_load(in->load()));
        case v1::FromProxy::kMet:
            return decode(in->met());
        case v1::FromProxy::WHAT_NOT_SET:
            break;
    }
    return wire::unknown_kind();
}

std::string_view to_string(Declined::Why why) {
    static constexpr std::array<std::string_view, 8> kWords{
        "no-reason", "version", "not-admitted", "full", "quota", "family", "malformed", "duplicate",
    };
    return kWords.at(static_cast<std::size_t>(why));
}

}  // namespace mobility
