// SPDX-License-Identifier: GPL-2.0-or-later
// The things libtcpmigrate speaks about: addresses, connections and how they
// are named, requests and their answers.
//
// Conventions: numbers, ports and tokens are in host byte order; only the bytes
// of an Address are in network order. Times are milliseconds. All types own
// what they hold and can be copied freely, except Secret, which is wiped.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tcpmigrate/result.hpp"

namespace tcpmigrate {

/// An IPv4 or IPv6 address. IPv4-mapped IPv6 is IPv4, as in the kernel's
/// interface.
class Address {
  public:
    /// 0.0.0.0.
    Address() = default;

    /// "192.0.2.1" or "2001:db8::1" (no zone, no brackets). EINVAL otherwise.
    static Result<Address> parse(std::string_view text);
    /// 4 or 16 bytes in network order. EINVAL for any other length.
    static Result<Address> from_bytes(std::span<const std::byte> bytes);

    /// AF_INET or AF_INET6.
    [[nodiscard]] int family() const;
    /// The 4 or 16 bytes, in network order; valid as long as the Address.
    [[nodiscard]] std::span<const std::byte> bytes() const;
    [[nodiscard]] bool is_v6() const { return v6_; }
    [[nodiscard]] std::string to_string() const;

    auto operator<=>(const Address&) const = default;

  private:
    bool v6_ = false;
    std::array<std::byte, 16> bytes_{};
};

/// Address and port; prints as "192.0.2.1:80" or "[2001:db8::1]:80".
struct Endpoint {
    Address address;
    std::uint16_t port = 0;

    static Result<Endpoint> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;
    auto operator<=>(const Endpoint&) const = default;
};

/// Where to move one end to; what is absent stays as it is.
struct Target {
    std::optional<Address> address;
    std::optional<std::uint16_t> port;

    /// "ADDR" or "ADDR:PORT" (IPv6 with a port in brackets).
    static Result<Target> parse(std::string_view text);
    [[nodiscard]] bool empty() const { return !address && !port; }
    auto operator<=>(const Target&) const = default;
};

/// Migration sub-state, beside the TCP state (uapi enum tcp_migrate_state).
enum class State : std::uint8_t { None, Idle, MigSent, MigConfirm, MigWait };

/// Why a state was entered (uapi enum tcp_migrate_reason).
enum class Reason : std::uint8_t {
    None,
    Agreed,
    Command,
    Peer,
    Committed,
    Timeout,
    Rst,
    RstAuth,
    Retries,
    PathAlive,
    TrialFailed,
    TupleInUse,
    NoRoute,
    Closed,
    RstHint,
    PeerNat,
    Aborted,
    Stalled,
};

/// Names as in the YAML specification ("mig-sent", "trial-failed"); a value
/// that this library does not know yet prints as "state-9", "reason-42".
[[nodiscard]] std::string to_string(State state);
[[nodiscard]] std::string to_string(Reason reason);
/// The reverse for states; nothing if the name is unknown.
[[nodiscard]] std::optional<State> state_from_string(std::string_view name);
/// One sentence that explains the reason to a person.
[[nodiscard]] std::string_view explain(Reason reason);
/// "ESTABLISHED" and so on for the kernel's sk_state; "tcp-99" if unknown.
[[nodiscard]] std::string tcp_state_to_string(std::uint8_t tcp_state);

/// The peer's own address as it sees itself: IPv4, or 4 bytes of a keyed hash
/// of its IPv6 address, which can only be compared.
struct PeerInner {
    std::array<std::byte, 4> address{};
    std::uint16_t port = 0;
};

/// One connection, as a reply or an event describes it.
struct Connection {
    std::uint64_t cookie = 0;  ///< socket cookie, as in sock_diag and SO_COOKIE
    Endpoint local;
    Endpoint remote;
    State state = State::None;
    std::uint8_t tcp_state = 0;  ///< sk_state: 1 is ESTABLISHED
    Reason reason = Reason::None;
    bool opener = false;           ///< this end opened the connection
    std::uint32_t reqno = 0;       ///< ReqNo of the last committed migration
    std::uint32_t migrations = 0;  ///< how often the tuple has changed
    bool peer_nat = false;         ///< the peer is behind a NAPT
    std::optional<PeerInner> peer_inner;
    std::optional<std::uint32_t> token_local;   ///< only with CAP_NET_ADMIN
    std::optional<std::uint32_t> token_remote;  ///< only with CAP_NET_ADMIN
    Target new_local;                           ///< of a migration under way
    Target new_remote;                          ///< of a migration under way
    std::uint32_t if_index = 0;                 ///< bound interface, 0: none
    std::optional<std::uint32_t> uid;
    std::optional<std::uint64_t> inode;
    std::uint32_t age_ms = 0;              ///< since the sub-state was entered
    std::optional<std::uint32_t> left_ms;  ///< until it times out; absent: never
    std::uint8_t key_id = 0;               ///< key of own requests, 0: in-band
    std::uint8_t key_mask = 0;             ///< bit n: key n is accepted
    std::uint32_t error = 0;               ///< closed event: errno of the socket

    /// "192.0.2.1:5000 -> 198.51.100.2:80"
    [[nodiscard]] std::string tuple() const;
};

/// Three ways to name one connection.
struct Cookie {
    std::uint64_t value = 0;
    auto operator<=>(const Cookie&) const = default;
};
struct Token {
    std::uint32_t value = 0;  ///< the local token
    auto operator<=>(const Token&) const = default;
};
struct Tuple {
    Endpoint local;
    Endpoint remote;
    auto operator<=>(const Tuple&) const = default;
};
using Name = std::variant<Cookie, Token, Tuple>;

/// "cookie 17", "token 1a2b3c4d", "192.0.2.1:5000 -> 198.51.100.2:80".
[[nodiscard]] std::string to_string(const Name& name);

/// Moves one connection. At least one target or `no_syn` makes sense; with
/// none the kernel proves the current path anew.
struct MigrateRequest {
    Name name;
    Target new_local;
    Target new_remote;
    std::uint32_t if_index = 0;  ///< bind the socket to this interface; 0: leave
    bool trial = false;          ///< keep using the old path until the new one works
    bool no_syn = false;         ///< ask on the current tuple, without SYN
};

/// Moves every connection of an old local address.
struct MigrateAllRequest {
    Address old_local;
    std::optional<Address> remote;  ///< only connections to this peer
    std::optional<Address> new_local;
    std::optional<Address> new_remote;
    std::uint32_t if_index = 0;
    bool trial = false;
    bool no_syn = false;
};

/// Answer to MigrateAllRequest.
struct MigrateAllReply {
    std::uint32_t count = 0;   ///< connections that started to move
    std::uint32_t failed = 0;  ///< connections that could not start
    std::uint32_t error = 0;   ///< errno of the first failure, 0 if none
};

/// 32 bytes of key material that are wiped when the object dies. Move only.
class Secret {
  public:
    static constexpr std::size_t size = 32;

    Secret() = default;
    ~Secret();
    Secret(Secret&& other) noexcept;
    Secret& operator=(Secret&& other) noexcept;
    Secret(const Secret&) = delete;
    Secret& operator=(const Secret&) = delete;

    /// Reads 32 raw bytes, or 64 hexadecimal digits with blanks around them.
    static Result<Secret> parse(std::string_view content);

    [[nodiscard]] std::span<const std::byte, size> bytes() const { return bytes_; }

  private:
    void wipe() noexcept;
    std::array<std::byte, size> bytes_{};
};

enum class KeyOp : std::uint8_t { Add, Promote, Exclusive, Remove };

/// Installs, promotes, demands or removes a pair key for one connection, or
/// for all connections to a remote address.
struct KeyRequest {
    std::variant<Cookie, Token, Tuple, Address> target;
    KeyOp op = KeyOp::Add;
    std::uint8_t key_id = 1;       ///< 1 to 3 (0 is the in-band key)
    std::optional<Secret> secret;  ///< for KeyOp::Add
};

/// One-way value of a connection, the same at both ends.
struct ExportReply {
    std::uint64_t cookie = 0;
    std::array<std::byte, 32> exporter{};
};

}  // namespace tcpmigrate
