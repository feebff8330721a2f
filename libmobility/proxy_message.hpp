// SPDX-License-Identifier: GPL-2.0-or-later
// What a mobility server and a symmetric proxy say to each other, as values
// (requirement A3.1; docs/proxy.md). proto/proxy.proto has the wire format. Ports and
// tokens are in host byte order. All types own what they hold.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "libmobility/identity.hpp"
#include "libmobility/message.hpp"
#include "tcpmigrate/result.hpp"

namespace mobility {

/// Bound of an Order and of a Reserved: so many fit a frame, with IPv6 addresses too.
constexpr std::size_t kMaxRelays = 1024;

/// A server to a proxy, first of all.
struct Greeting {
    std::uint32_t version = kVersion;
    std::string software;
    bool wants_met = false;

    bool operator==(const Greeting&) const = default;
};

struct Load {
    std::uint32_t relays = 0;
    std::uint32_t most = 0;

    bool operator==(const Load&) const = default;
};

struct Ready {
    std::uint32_t version = kVersion;
    std::optional<boost::asio::ip::address_v4> address;  ///< this one or the other, or both
    std::optional<boost::asio::ip::address_v6> address6;
    Load load;

    bool operator==(const Ready&) const = default;
};

/// One end of a connection (thesis 3.3.1).
struct RelayEnd {
    std::uint32_t token = 0;           ///< that its requests name: its peer's
    boost::asio::ip::address address;  ///< its own, before any translation
    std::uint16_t port = 0;

    bool operator==(const RelayEnd&) const = default;
};

struct RelayPair {
    RelayEnd first;
    RelayEnd second;

    bool operator==(const RelayPair&) const = default;
};

struct Order {
    std::uint64_t number = 0;  ///< never 0
    Name first;
    Name second;
    std::vector<RelayPair> connections;  ///< 1 to kMaxRelays, all of one family

    bool operator==(const Order&) const = default;
};

struct Reserved {
    std::uint64_t number = 0;
    boost::asio::ip::address address;
    std::vector<std::uint16_t> ports;  ///< in the order of the connections

    bool operator==(const Reserved&) const = default;
};

struct Declined {
    enum class Why : std::uint8_t {
        NoReason,
        Version,
        NotAdmitted,
        Full,
        Quota,
        Family,
        Malformed,
        Duplicate,
    };
    std::uint64_t number = 0;  ///< 0: not about an Order; then the channel ends
    Why why = Why::NoReason;
    std::string text;

    bool operator==(const Declined&) const = default;
};

/// Where a proxy sees the ends of connections that it has joined.
struct Met {
    std::uint64_t number = 0;
    std::vector<RelayPair> connections;  ///< as of an Order

    bool operator==(const Met&) const = default;
};

using ToProxy = std::variant<Greeting, Order>;
using FromProxy = std::variant<Ready, Reserved, Declined, Load, Met>;

/// The bytes of a message, for one frame. What decode would refuse must not be given in.
std::string encode(const ToProxy& message);
std::string encode(const FromProxy& message);

/// EBADMSG, with what is wrong, if the bytes are no message, of a kind that is not
/// known, lack something, or are beyond a bound.
Result<ToProxy> decode_to_proxy(std::string_view bytes);
Result<FromProxy> decode_from_proxy(std::string_view bytes);

/// For logs: "full".
std::string_view to_string(Declined::Why why);

}  // namespace mobility
