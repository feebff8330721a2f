// SPDX-License-Identifier: GPL-2.0-or-later
// What the clients of two hosts say to each other before a move (A2.1), as values:
// proto/peer.proto says what each is for and in which order they come. As in
// message.hpp, decode_to_peer() gives out only what is complete and within bounds. Ports
// are in host byte order. All types own what they hold.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libmobility/frame.hpp"
#include "libmobility/identity.hpp"
#include "libmobility/pair.hpp"
#include "libmobility/ticket.hpp"
#include "libmobility/voucher.hpp"

namespace mobility {

/// Of the protocol between two hosts' clients.
constexpr std::uint32_t kPeerVersion = 1;

/// Bounds; a message beyond them is malformed.
constexpr std::size_t kMaxServers = 8;    ///< of an Offer or an Answer; as many vouchers
constexpr std::size_t kMaxProofs = 1024;  ///< of any message

/// A mobility server, as one host tells the other of it.
struct ServerPlace {
    Name host;
    std::optional<boost::asio::ip::address_v4> address;  ///< one of the two at least
    std::optional<boost::asio::ip::address_v6> address6;
    std::uint16_t port = 0;

    bool operator==(const ServerPlace&) const = default;
    std::strong_ordering operator<=>(const ServerPlace&) const = default;
};

/// A connection as the end that proves it sees it, before any translation.
struct ConnectionProof {
    std::uint16_t own = 0;
    std::uint16_t peer = 0;
    Proof proof{};
    bool keyed = false;  ///< the prover holds a pair key for it already

    bool operator==(const ConnectionProof&) const = default;
};

struct Offer {
    std::uint32_t version = kPeerVersion;
    std::string software;
    PairPart own;
    std::vector<ServerPlace> servers;          ///< the best first
    std::vector<ConnectionProof> connections;  ///< at least one
    std::vector<Voucher> vouchers = {};        ///< for the sender, one of a server

    bool operator==(const Offer&) const = default;
};

struct Answer {
    std::uint32_t version = kPeerVersion;
    std::string software;
    PairPart own;
    boost::asio::ip::address seen;             ///< where it sees the receiver
    std::vector<std::uint32_t> usable;         ///< places in Offer.servers, growing
    std::vector<ServerPlace> servers;          ///< others
    std::vector<Ticket> tickets;               ///< that admit the receiver
    std::vector<ConnectionProof> connections;  ///< at least one
    std::vector<Voucher> vouchers = {};        ///< for the sender, one of a server

    bool operator==(const Answer&) const = default;
};

struct Confirm {
    PairId pair{};
    boost::asio::ip::address seen;
    std::vector<std::uint32_t> usable;  ///< places in Answer.servers, growing
    std::vector<Ticket> tickets;

    bool operator==(const Confirm&) const = default;
};

struct Prove {
    std::uint32_t batch = 0;
    std::vector<ConnectionProof> connections;  ///< at least one

    bool operator==(const Prove&) const = default;
};

struct Proved {
    std::uint32_t batch = 0;
    std::vector<ConnectionProof> connections;  ///< none, if none was good

    bool operator==(const Proved&) const = default;
};

struct Stage {
    std::uint32_t batch = 0;
    bool own = false;  ///< the sender has proved it first; else the receiver has

    bool operator==(const Stage&) const = default;
};

struct PeerRefused {
    enum class Why : std::uint8_t {
        NoReason,
        Version,
        NoConnection,
        NotProved,
        OtherIdentity,
        Policy,
        TooMuch,
        Malformed,
    };
    Why why = Why::NoReason;
    std::string text;

    bool operator==(const PeerRefused&) const = default;
};

using ToPeer = std::variant<Offer, Answer, Confirm, Prove, Proved, Stage, PeerRefused>;

/// The bytes of a message, for one frame. What decode_to_peer() would refuse must not
/// be given in.
std::string encode(const ToPeer& message);

/// EBADMSG, with what is wrong, as decode_to_server().
Result<ToPeer> decode_to_peer(std::string_view bytes);

}  // namespace mobility
