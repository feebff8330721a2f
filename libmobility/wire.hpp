// SPDX-License-Identifier: GPL-2.0-or-later
// What all our messages have in common on their way between values and protobuf: a
// Reader that finds what is wrong with fields, and put() for what occurs in several.
// For the .cpp files of messages only: it drags in what protoc has written.
#pragma once

#include <algorithm>
#include <array>
#include <boost/asio/ip/address.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "libmobility/message.hpp"
#include "proto/server.pb.h"

namespace mobility::wire {

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

    /// The list, if no two of it are the same by `key`: who has something done many times
    /// by one message pays for one.
    template <typename List, typename Key>
    List distinct(List list, const char* what, Key key) {
        using Value = std::decay_t<decltype(key(*list.begin()))>;
        std::set<Value> seen;
        for (const auto& one : list) {
            require(seen.insert(key(one)).second, what);
        }
        return list;
    }

    /// At least one.
    template <typename Field, typename One>
    auto connections(const Field& field, One one) {
        const char* what = "not 1 to 2048 connections";
        require(!field.empty(), what);
        return distinct(list(field, kMaxConnections, what, one), "the same connection twice",
                        [](const auto& c) { return std::pair(c.own, c.peer); });
    }

    template <typename Field>
    std::vector<Ticket> tickets(const Field& field, std::size_t most, const char* what) {
        return distinct(list(field, most, what, [&](const auto& one) { return ticket(one); }),
                        "the same ticket twice", [](const Ticket& one) { return one.signature; });
    }

    /// At most one of a server.
    template <typename Field>
    std::vector<Voucher> vouchers(const Field& field, std::size_t most, const char* what) {
        return distinct(list(field, most, what, [&](const auto& one) { return voucher(one); }),
                        "two vouchers of a server", [](const Voucher& one) { return one.server; });
    }

    Voucher voucher(const v1::Voucher& field) {
        return {bytes<32>(field.server(), "no key of 32 bytes"), time(field.since()),
                time(field.expires()), bytes<64>(field.signature(), "no signature of 64 bytes")};
    }

    /// Beyond what a date can be, it never comes all the same.
    static std::chrono::sys_seconds time(std::uint64_t field) {
        return std::chrono::sys_seconds(
            std::chrono::seconds(std::min<std::uint64_t>(field, 1ULL << 48)));
    }

    Ticket ticket(const v1::Ticket& field) {
        return {bytes<32>(field.issuer(), "no key of 32 bytes"),
                Name(bytes<Name::kSize>(field.guest(), "no host of 32 bytes")), pair(field.pair()),
                time(field.expires()), bytes<64>(field.signature(), "no signature of 64 bytes")};
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

inline std::string raw(const address& ip) {
    return ip.is_v4() ? raw(ip.to_v4().to_bytes()) : raw(ip.to_v6().to_bytes());
}

/// An enumerator that this version does not know means nothing in particular.
template <typename To, typename From>
To known(From value, To last) {
    const auto number = static_cast<int>(value);
    return number >= 0 && number <= static_cast<int>(last) ? static_cast<To>(number) : To{};
}

inline void put(const PairPart& from, v1::PairPart& out) {
    out.set_host(raw(from.host.bytes()));
    out.set_address(raw(from.address));
    out.set_random(raw(from.random));
}

inline std::uint64_t seconds_of(std::chrono::sys_seconds time) {
    return static_cast<std::uint64_t>(time.time_since_epoch().count());
}

inline void put(const Voucher& from, v1::Voucher& out) {
    out.set_server(raw(from.server));
    out.set_since(seconds_of(from.since));
    out.set_expires(seconds_of(from.expires));
    out.set_signature(raw(from.signature));
}

inline void put(const Ticket& from, v1::Ticket& out) {
    out.set_issuer(raw(from.issuer));
    out.set_guest(raw(from.guest.bytes()));
    out.set_pair(raw(from.pair));
    out.set_expires(seconds_of(from.expires));
    out.set_signature(raw(from.signature));
}

/// The bytes of a variant of messages, each put into a Wire by `put_one`.
template <typename Wire, typename Message, typename Put>
std::string encode_as(const Message& message, Put put_one) {
    Wire wire;
    std::visit([&](const auto& one) { put_one(one, wire); }, message);
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

inline Error unknown_kind() {
    return tcpmigrate::make_error(EBADMSG, "a message of a kind that this version does not know");
}

}  // namespace mobility::wire
