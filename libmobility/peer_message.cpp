// SPDX-License-Identifier: GPL-2.0-or-later
// Between values and protobuf: all that can be wrong with a message is found here.
#include "libmobility/peer_message.hpp"

#include <functional>
#include <utility>

#include "libmobility/wire.hpp"
#include "proto/peer.pb.h"

namespace mobility {

namespace {

using wire::put;
using wire::raw;
using wire::Reader;

// ---- Reading ----

ServerPlace decode_server(Reader& read, const v1::Server& in) {
    ServerPlace out{Name(read.bytes<Name::kSize>(in.host(), "no server of 32 bytes")),
                    {},
                    {},
                    read.port(in.port())};
    if (!in.address().empty()) {
        out.address = boost::asio::ip::address_v4(
            read.bytes<4>(in.address(), "an IPv4 address that has not 4 bytes"));
    }
    if (!in.address6().empty()) {
        out.address6 = boost::asio::ip::address_v6(
            read.bytes<16>(in.address6(), "an IPv6 address that has not 16 bytes"));
    }
    read.require(out.address || out.address6, "a server without an address");
    return out;
}

template <typename Field>
std::vector<ServerPlace> decode_servers(Reader& read, const Field& field) {
    return read.distinct(read.list(field, kMaxServers, "more than 8 servers",
                                   [&](const auto& one) { return decode_server(read, one); }),
                         "the same server twice", [](const ServerPlace& one) { return one.host; });
}

/// Places in a list of servers that the other end has sent.
template <typename Field>
std::vector<std::uint32_t> decode_usable(Reader& read, const Field& field) {
    auto out = read.list(field, kMaxServers, "more than 8 usable servers",
                         [](std::uint32_t place) { return place; });
    read.require(out.empty() || out.back() < kMaxServers, "a server that is none of 8");
    read.require(std::ranges::adjacent_find(out, std::greater_equal<>{}) == out.end(),
                 "servers out of order");
    return out;
}

template <typename Field>
std::vector<Ticket> decode_tickets(Reader& read, const Field& field) {
    return read.tickets(field, kMaxServers, "more than 8 tickets");
}

template <typename Field>
std::vector<Voucher> decode_vouchers(Reader& read, const Field& field) {
    return read.vouchers(field, kMaxServers, "more than 8 vouchers");
}

template <typename Field>
std::vector<ConnectionProof> decode_proofs(Reader& read, const Field& field) {
    auto proofs = read.list(field, kMaxProofs, "more than 1024 connections", [&](const auto& one) {
        return ConnectionProof{read.port(one.own()), read.port(one.peer()),
                               read.template bytes<32>(one.proof(), "no proof of 32 bytes"),
                               one.keyed()};
    });
    // Not by the ports: two of a host with several addresses may have the same.
    return read.distinct(std::move(proofs), "the same proof twice",
                         [](const ConnectionProof& one) { return one.proof; });
}

template <typename Field>
std::vector<ConnectionProof> decode_some_proofs(Reader& read, const Field& field) {
    read.require(!field.empty(), "no connection");
    return decode_proofs(read, field);
}

Result<ToPeer> decode(const v1::Offer& in) {
    Reader read;
    return read.result<ToPeer>(
        Offer{in.version(), read.text(in.software()), read.part(in.own()),
              decode_servers(read, in.servers()), decode_some_proofs(read, in.connections()),
              decode_vouchers(read, in.vouchers())},
        "Offer");
}

Result<ToPeer> decode(const v1::Answer& in) {
    Reader read;
    return read.result<ToPeer>(
        Answer{in.version(), read.text(in.software()), read.part(in.own()),
               read.ip(in.seen_address()), decode_usable(read, in.usable()),
               decode_servers(read, in.servers()), decode_tickets(read, in.tickets()),
               decode_some_proofs(read, in.connections()), decode_vouchers(read, in.vouchers())},
        "Answer");
}

Result<ToPeer> decode(const v1::Confirm& in) {
    Reader read;
    return read.result<ToPeer>(
        Confirm{read.pair(in.pair()), read.ip(in.seen_address()), decode_usable(read, in.usable()),
                decode_tickets(read, in.tickets())},
        "Confirm");
}

Result<ToPeer> decode(const v1::Prove& in) {
    Reader read;
    return read.result<ToPeer>(Prove{in.batch(), decode_some_proofs(read, in.connections())},
                               "Prove");
}

Result<ToPeer> decode(const v1::Proved& in) {
    Reader read;
    return read.result<ToPeer>(Proved{in.batch(), decode_proofs(read, in.connections())}, "Proved");
}

Result<ToPeer> decode(const v1::Stage& in) {
    const Reader read;
    return read.result<ToPeer>(Stage{in.batch(), in.prover()}, "Stage");
}

Result<ToPeer> decode(const v1::PeerRefused& in) {
    Reader read;
    return read.result<ToPeer>(
        PeerRefused{wire::known(in.why(), PeerRefused::Why::Malformed), read.text(in.text())},
        "PeerRefused");
}

// ---- Writing ----

template <typename Out>
void put_servers(const std::vector<ServerPlace>& from, Out& out) {
    for (const auto& server : from) {
        auto& added = *out.add_servers();
        added.set_host(raw(server.host.bytes()));
        if (server.address) {
            added.set_address(raw(server.address->to_bytes()));
        }
        if (server.address6) {
            added.set_address6(raw(server.address6->to_bytes()));
        }
        added.set_port(server.port);
    }
}

template <typename Out>
void put_proofs(const std::vector<ConnectionProof>& from, Out& out) {
    for (const auto& connection : from) {
        auto& added = *out.add_connections();
        added.set_own(connection.own);
        added.set_peer(connection.peer);
        added.set_proof(raw(connection.proof));
        added.set_keyed(connection.keyed);
    }
}

template <typename Out>
void put_vouchers(const std::vector<Voucher>& from, Out& out) {
    for (const auto& voucher : from) {
        put(voucher, *out.add_vouchers());
    }
}

/// What Answer and Confirm both have.
template <typename From, typename Out>
void put_agreement(const From& from, Out& out) {
    out.set_seen_address(raw(from.seen));
    for (const auto place : from.usable) {
        out.add_usable(place);
    }
    for (const auto& ticket : from.tickets) {
        put(ticket, *out.add_tickets());
    }
}

void put(const Offer& from, v1::ToPeer& to) {
    auto& out = *to.mutable_offer();
    out.set_version(from.version);
    out.set_software(from.software);
    put(from.own, *out.mutable_own());
    put_servers(from.servers, out);
    put_proofs(from.connections, out);
    put_vouchers(from.vouchers, out);
}

void put(const Answer& from, v1::ToPeer& to) {
    auto& out = *to.mutable_answer();
    out.set_version(from.version);
    out.set_software(from.software);
    put(from.own, *out.mutable_own());
    put_agreement(from, out);
    put_servers(from.servers, out);
    put_proofs(from.connections, out);
    put_vouchers(from.vouchers, out);
}

void put(const Confirm& from, v1::ToPeer& to) {
    auto& out = *to.mutable_confirm();
    out.set_pair(raw(from.pair));
    put_agreement(from, out);
}

void put(const Prove& from, v1::ToPeer& to) {
    to.mutable_prove()->set_batch(from.batch);
    put_proofs(from.connections, *to.mutable_prove());
}

void put(const Proved& from, v1::ToPeer& to) {
    to.mutable_proved()->set_batch(from.batch);
    put_proofs(from.connections, *to.mutable_proved());
}

void put(const Stage& from, v1::ToPeer& to) {
    to.mutable_stage()->set_batch(from.batch);
    to.mutable_stage()->set_prover(from.own);
}

void put(const PeerRefused& from, v1::ToPeer& to) {
    to.mutable_refused()->set_why(static_cast<v1::PeerRefused::Why>(from.why));
    to.mutable_refused()->set_text(from.text);
}

}  // namespace

std::string encode(const ToPeer& message) {
    return wire::encode_as<v1::ToPeer>(message, [](const auto& one, auto& to) { put(one, to); });
}

Result<ToPeer> decode_to_peer(std::string_view bytes) {
    const auto in = wire::parse<v1::ToPeer>(bytes);
    if (!in) {
        return in.error();
    }
    switch (in->what_case()) {
        case v1::ToPeer::kOffer:
            return decode(in->offer());
        case v1::ToPeer::kAnswer:
            return decode(in->answer());
        case v1::ToPeer::kConfirm:
            return decode(in->confirm());
        case v1::ToPeer::kProve:
            return decode(in->prove());
        case v1::ToPeer::kProved:
            return decode(in->proved());
        case v1::ToPeer::kStage:
            return decode(in->stage());
        case v1::ToPeer::kRefused:
            return decode(in->refused());
        case v1::ToPeer::WHAT_NOT_SET:
            break;
    }
    return wire::unknown_kind();
}

}  // namespace mobility
