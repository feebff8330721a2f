// SPDX-License-Identifier: GPL-2.0-or-later
// What a host and a mobility server say to each other, as values: proto/server.proto
// says what each is for. decode() gives out only what is complete and within bounds,
// so that whoever gets a message need not check it; a pair that two parts name is
// known by their ID. Ports are in host byte order. All types own what they hold.
#pragma once

#include <array>
#include <boost/asio/ip/address.hpp>
#include <chrono>
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

/// Of the protocol between hosts and servers.
constexpr std::uint32_t kVersion = 1;

/// Bounds; a message beyond them is malformed.
constexpr std::size_t kMaxConnections = 2048;             ///< of a Report or Notice
constexpr std::size_t kMaxText = 256;                     ///< bytes of any string
constexpr std::size_t kMaxTickets = 64;                   ///< of a Hello
constexpr std::size_t kMaxHello = std::size_t{16} << 10;  ///< bytes of an encoded Hello
constexpr std::chrono::milliseconds kMaxDelay(10'000);    ///< of a Notice

struct Hello {
    std::uint32_t version = kVersion;
    std::string software;
    std::string enrolment;
    std::vector<Ticket> tickets;
    bool voucher = false;  ///< nothing else is wanted

    bool operator==(const Hello&) const = default;
};

struct Welcome {
    std::uint32_t version = kVersion;
    boost::asio::ip::address seen;
    std::uint16_t seen_port = 0;
    std::uint32_t most_pairs = 0;
    std::optional<Voucher> voucher = std::nullopt;

    bool operator==(const Welcome&) const = default;
};

struct Refused {
    enum class Why : std::uint8_t {
        NoReason,
        Version,
        NotAdmitted,
        TooMuch,
        Busy,
        Malformed,
        NotYours,
    };
    Why why = Why::NoReason;
    std::string text;
    std::optional<PairId> pair;

    bool operator==(const Refused&) const = default;
};

/// A connection as the end that reports sees it (thesis 3.1.1).
struct Ports {
    std::uint16_t own = 0;        ///< before the move
    std::uint16_t peer = 0;       ///< the peer's; through a proxy, the proxy's
    std::uint16_t own_after = 0;  ///< after the move; the same as own if unchanged
    std::uint32_t token = 0;      ///< that this end's requests name: its peer's; 0: not told

    auto operator<=>(const Ports&) const = default;
};

/// The mobility information (A2.2).
struct Report {
    PairPart own;
    PairPart peer;
    boost::asio::ip::address before;
    boost::asio::ip::address peer_before;
    boost::asio::ip::address after;
    std::vector<Ports> connections;  ///< at least one
    bool crosses = false;            ///< Notices with a delay are understood

    [[nodiscard]] PairId pair() const { return pair_id(own, peer); }
    bool operator==(const Report&) const = default;
};

/// A connection as the end that is told sees it (A2.8).
struct Resume {
    std::uint16_t own = 0;         ///< own port before
    std::uint16_t own_after = 0;   ///< own port now
    std::uint16_t peer = 0;        ///< peer's port before, as this end reported it
    std::uint16_t peer_after = 0;  ///< peer's port now

    auto operator<=>(const Resume&) const = default;
};

struct Ask {
    /// Where the peer can be tried before there is a judgement.
    struct Hint {
        boost::asio::ip::address peer;
        std::vector<Resume> connections;  ///< at least one

        bool operator==(const Hint&) const = default;
    };
    PairId pair{};
    std::optional<Hint> hint;

    bool operator==(const Ask&) const = default;
};

struct Notice {
    PairId pair{};
    std::uint32_t judgement = 0;
    std::uint32_t step = 0;
    boost::asio::ip::address peer;
    bool trial = false;
    std::vector<Resume> connections;  ///< at least one
    bool relay = false;               ///< a proxy is there, to which the peer is sent as well
    /// A trial to begin so much later, so that the MSYNs of both ends cross.
    std::optional<std::chrono::milliseconds> delay = std::nullopt;

    bool operator==(const Notice&) const = default;
};

struct Outcome {
    PairId pair{};
    std::uint32_t judgement = 0;
    std::uint32_t step = 0;
    bool resumed = false;

    bool operator==(const Outcome&) const = default;
};

struct Verdict {
    enum class What : std::uint8_t {
        Nothing,
        NeedsProxy,
        OtherFamily,
        NoAnswer,
        Coincidence,
        PeerSilent,
        NoProxy,
    };
    PairId pair{};
    std::uint32_t judgement = 0;
    What what = What::Nothing;

    bool operator==(const Verdict&) const = default;
};

struct Forget {
    PairId pair{};

    bool operator==(const Forget&) const = default;
};

using ToServer = std::variant<Hello, Report, Outcome, Forget>;
using ToHost = std::variant<Welcome, Refused, Ask, Notice, Verdict>;

/// The bytes of a message, for one frame. What decode() would refuse must not be
/// given in.
std::string encode(const ToServer& message);
std::string encode(const ToHost& message);

/// EBADMSG, with what is wrong, if the bytes are no message, of a kind that is not
/// known, lack something, or are beyond a bound.
Result<ToServer> decode_to_server(std::string_view bytes);
Result<ToHost> decode_to_host(std::string_view bytes);

}  // namespace mobility
