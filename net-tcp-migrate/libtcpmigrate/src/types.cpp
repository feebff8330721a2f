// SPDX-License-Identifier: GPL-2.0-or-later
// Names, addresses and secrets: text to value and back.

#include "tcpmigrate/types.hpp"

#include <arpa/inet.h>
#include <linux/tcp_migrate.h>
#include <strings.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

namespace tcpmigrate {

namespace {

constexpr std::array<std::byte, 12> kMappedPrefix{
    std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},    std::byte{0},
    std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0xff}, std::byte{0xff}};

constexpr std::array<std::string_view, 5> kStates{"none", "idle", "mig-sent", "mig-confirm",
                                                  "mig-wait"};
static_assert(kStates.size() == TCP_MIGRATE_STATE_MIG_WAIT + 1);

struct ReasonText {
    std::string_view name;
    std::string_view sentence;
};
constexpr std::array<ReasonText, 18> kReasons{{
    {"none", ""},
    {"agreed", "both ends have agreed that the connection can migrate"},
    {"command", "a migrate command"},
    {"peer", "the peer's Migrate-Request"},
    {"committed", "the new path is in use"},
    {"timeout", "no answer in time"},
    {"rst", "a reset that did not prove its origin"},
    {"rst-auth", "a reset that the peer has signed"},
    {"retries", "the limit of retransmissions, probes or keepalives was reached"},
    {"path-alive", "the current path carried a segment again"},
    {"trial-failed", "the trial found no path; the old one is kept"},
    {"tuple-in-use", "the new addresses and ports belong to another socket"},
    {"no-route", "there is no route from the new local address to the peer; it is retried"},
    {"closed", "the connection is gone"},
    {"rst-hint", "a reset answered the Migrate-Request; it is retried"},
    {"peer-nat", "the peer is behind a NAPT now, or no longer"},
    {"aborted", "an abort command"},
    {"stalled", "retransmissions remain without an answer (tcp_retries1); they go on"},
}};
static_assert(kReasons.size() == TCP_MIGRATE_REASON_STALLED + 1);
static_assert(static_cast<int>(Reason::Stalled) == TCP_MIGRATE_REASON_STALLED);
static_assert(static_cast<int>(State::MigWait) == TCP_MIGRATE_STATE_MIG_WAIT);
static_assert(static_cast<int>(KeyOp::Remove) == TCP_MIGRATE_KEY_OP_REMOVE);

// include/net/tcp_states.h
constexpr std::array<std::string_view, 13> kTcpStates{
    "?",     "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",   "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "NEW_SYN_RECV"};

Result<std::uint16_t> parse_port(std::string_view text) {
    unsigned value = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, fault] = std::from_chars(text.data(), end, value);
    if (text.empty() || fault != std::errc() || stop != end || value == 0 || value > 65535) {
        return make_error(EINVAL, "'" + std::string(text) + "' is not a port (1 to 65535)");
    }
    return static_cast<std::uint16_t>(value);
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

std::string_view trim(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

}  // namespace

Result<Address> Address::parse(std::string_view text) {
    const std::string terminated(text);
    std::array<std::byte, 16> raw{};
    if (inet_pton(AF_INET, terminated.c_str(), raw.data()) == 1) {
        return from_bytes(std::span(raw).first(4));
    }
    if (inet_pton(AF_INET6, terminated.c_str(), raw.data()) == 1) {
        return from_bytes(raw);
    }
    return make_error(EINVAL, "'" + terminated + "' is not an IPv4 or IPv6 address");
}

Result<Address> Address::from_bytes(std::span<const std::byte> bytes) {
    if (bytes.size() != 4 && bytes.size() != 16) {
        return make_error(EINVAL,
                          "an address has 4 or 16 bytes, not " + std::to_string(bytes.size()));
    }
    if (bytes.size() == 16 &&
        std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin())) {
        bytes = bytes.subspan(kMappedPrefix.size());
    }
    Address address;
    address.v6_ = bytes.size() == 16;
    std::copy(bytes.begin(), bytes.end(), address.bytes_.begin());
    return address;
}

int Address::family() const {
    return v6_ ? AF_INET6 : AF_INET;
}

std::span<const std::byte> Address::bytes() const {
    return std::span(bytes_).first(v6_ ? 16 : 4);
}

std::string Address::to_string() const {
    std::array<char, INET6_ADDRSTRLEN> text{};
    inet_ntop(family(), bytes_.data(), text.data(), text.size());
    return text.data();
}

Result<Target> Target::parse(std::string_view text) {
    std::string_view address = text;
    std::optional<std::string_view> port;
    if (text.starts_with('[')) {
        const auto close = text.find(']');
        const auto rest = close == text.npos ? std::string_view("?") : text.substr(close + 1);
        if (!rest.empty() && !rest.starts_with(':')) {
            return make_error(EINVAL, "'" + std::string(text) + "' is not [ADDRESS]:PORT");
        }
        address = text.substr(1, close - 1);
        port = rest.empty() ? std::nullopt : std::optional(rest.substr(1));
    } else if (std::count(text.begin(), text.end(), ':') == 1) {
        const auto colon = text.find(':');
        address = text.substr(0, colon);
        port = text.substr(colon + 1);
    }
    Target target;
    auto parsed = Address::parse(address);
    if (!parsed) {
        return parsed.error();
    }
    target.address = *parsed;
    if (port) {
        auto number = parse_port(*port);
        if (!number) {
            return number.error();
        }
        target.port = *number;
    }
    return target;
}

Result<Endpoint> Endpoint::parse(std::string_view text) {
    auto target = Target::parse(text);
    if (!target) {
        return target.error();
    }
    if (!target->port) {
        return make_error(EINVAL, "'" + std::string(text) +
                                      "' has no port: write ADDRESS:PORT, IPv6 as [ADDRESS]:PORT");
    }
    return Endpoint{*target->address, *target->port};
}

std::string Endpoint::to_string() const {
    const auto text = address.to_string();
    return (address.is_v6() ? "[" + text + "]" : text) + ":" + std::to_string(port);
}

std::string to_string(State state) {
    const auto index = static_cast<std::size_t>(state);
    return index < kStates.size() ? std::string(kStates[index]) : "state-" + std::to_string(index);
}

std::string to_string(Reason reason) {
    const auto index = static_cast<std::size_t>(reason);
    return index < kReasons.size() ? std::string(kReasons[index].name)
                                   : "reason-" + std::to_string(index);
}

std::optional<State> state_from_string(std::string_view name) {
    const auto* const found = std::find(kStates.begin(), kStates.end(), name);
    if (found == kStates.end()) {
        return std::nullopt;
    }
    return static_cast<State>(found - kStates.begin());
}

std::string_view explain(Reason reason) {
    const auto index = static_cast<std::size_t>(reason);
    return index < kReasons.size() ? kReasons[index].sentence
                                   : "a reason this version does not know";
}

std::string tcp_state_to_string(std::uint8_t tcp_state) {
    return tcp_state > 0 && tcp_state < kTcpStates.size() ? std::string(kTcpStates[tcp_state])
                                                          : "tcp-" + std::to_string(tcp_state);
}

std::string Connection::tuple() const {
    return local.to_string() + " -> " + remote.to_string();
}

std::string to_string(const Name& name) {
    if (const auto* cookie = std::get_if<Cookie>(&name)) {
        return "cookie " + std::to_string(cookie->value);
    }
    if (const auto* token = std::get_if<Token>(&name)) {
        std::array<char, 16> text{};
        (void)std::snprintf(text.data(), text.size(), "token %08x", token->value);
        return text.data();
    }
    const auto& tuple = *std::get_if<Tuple>(&name);
    return tuple.local.to_string() + " -> " + tuple.remote.to_string();
}

Secret::~Secret() {
    wipe();
}

Secret::Secret(Secret&& other) noexcept : bytes_(other.bytes_) {
    other.wipe();
}

Secret& Secret::operator=(Secret&& other) noexcept {
    if (this != &other) {
        bytes_ = other.bytes_;
        other.wipe();
    }
    return *this;
}

void Secret::wipe() noexcept {
    explicit_bzero(bytes_.data(), bytes_.size());
}

Result<Secret> Secret::parse(std::string_view content) {
    Secret secret;
    if (content.size() == size) {
        std::memcpy(secret.bytes_.data(), content.data(), size);
        return secret;
    }
    const auto digits = trim(content);
    for (std::size_t i = 0; i < size && digits.size() == 2 * size; i++) {
        const int high = hex_digit(digits[2 * i]);
        const int low = hex_digit(digits[2 * i + 1]);
        if (high < 0 || low < 0) {
            break;
        }
        secret.bytes_[i] = static_cast<std::byte>(high * 16 + low);
        if (i + 1 == size) {
            return secret;
        }
    }
    return make_error(EINVAL,
                      "a secret is 32 raw bytes or 64 hexadecimal digits; make one with "
                      "`openssl rand -hex 32`");
}

}  // namespace tcpmigrate
