// SPDX-License-Identifier: GPL-2.0-or-later
// A channel between two hosts: TLS 1.3 with both certificates, over a TCP socket
// that is an ordinary one and so migratable itself; messages in frames.
//
// OpenSSL works on the socket directly, and Asio only waits for it. An idle
// channel thus holds no buffers: a server has many of them.
//
// Who the peer is, is its Name; whether it may do anything is the caller's matter,
// but for one that was expected by name. Certificates of any other key than Ed25519
// end the handshake. Errors name the peer's address.
#pragma once

#include <openssl/ssl.h>

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "libmobility/frame.hpp"
#include "libmobility/identity.hpp"
#include "libmobility/openssl.hpp"

namespace mobility {

template <typename T>
using Awaitable = boost::asio::awaitable<Result<T>>;

/// TLS as this host speaks it; for all its channels, in both directions.
class Tls {
  public:
    /// Takes what it needs of the identity. ENOMEM if OpenSSL refuses. From now on
    /// the process ignores SIGPIPE: OpenSSL writes to sockets as to files.
    static Result<Tls> create(const Identity& identity);

    [[nodiscard]] SSL_CTX* context() const { return context_.get(); }

  private:
    using Context = std::unique_ptr<SSL_CTX, FreedBy<SSL_CTX_free>>;

    explicit Tls(Context context) : context_(std::move(context)) {}

    Context context_;
};

/// Not thread-safe: everything happens on the socket's executor. At most one read()
/// and one write() may be under way at a time. To give up waiting, close(): what is
/// under way then ends with ECANCELED.
class Channel {
  public:
    /// Handshake as the end that connected. EACCES if the peer is not `expected`.
    static Awaitable<std::unique_ptr<Channel>> connect(boost::asio::ip::tcp::socket socket,
                                                       const Tls& tls,
                                                       std::optional<Name> expected = {});
    /// Handshake as the end that accepted.
    static Awaitable<std::unique_ptr<Channel>> accept(boost::asio::ip::tcp::socket socket,
                                                      const Tls& tls);

    /// From now on no message may be longer; at most kMaxFrame, which is so at first.
    void limit(std::size_t longest) { frames_.limit(longest); }
    /// The next message. EPIPE when the peer has closed the channel in order,
    /// ECONNRESET when it ended any other way, EMSGSIZE if a frame is too long.
    Awaitable<std::string> read();

    /// Returns when the kernel has taken all of it.
    Awaitable<void> write(std::string message);

    /// Says so to the peer if that needs no waiting, and closes the socket. What the peer has
    /// said meanwhile makes a reset of it, which can overtake the last message.
    void close();

    /// The same in order, after the last message: what the peer says until it has closed its
    /// end is thrown away; for so long at most, and up to kMostAfterEnd bytes. No read() or
    /// write() is under way then; close() ends it.
    boost::asio::awaitable<void> finish(std::chrono::steady_clock::duration patience);

    static constexpr std::size_t kMostAfterEnd = 4 * kMaxFrame;

    [[nodiscard]] const Name& peer() const { return peer_; }
    /// "198.51.100.1:4321", the peer's address when the channel was made.
    [[nodiscard]] const std::string& where() const { return where_; }
    /// The peer's address as it is now: the connection may have been migrated. An IPv4
    /// address is one whatever family the socket has. ENOTCONN if the channel has ended.
    [[nodiscard]] Result<boost::asio::ip::tcp::endpoint> remote() const;
    /// The kernel's smoothed round-trip time; 0 if it does not say.
    [[nodiscard]] std::chrono::microseconds rtt();
    /// ... and the shortest of late, which is that of the way; 0 likewise.
    [[nodiscard]] std::chrono::microseconds shortest_rtt();
    /// For its options; what is sent on it belongs to TLS.
    [[nodiscard]] boost::asio::ip::tcp::socket& socket() { return socket_; }
    /// The channel binding "tls-exporter" of RFC 9266; the same at both ends.
    [[nodiscard]] const std::array<std::uint8_t, 32>& exporter() const { return exporter_; }
    /// Another value of TLS's exporter (RFC 8446, 7.5), under a label of its own; the same at
    /// both ends, and not to be had from any other.
    [[nodiscard]] Result<std::array<std::uint8_t, 32>> secret(std::string_view label) const;

  private:
    Channel(boost::asio::ip::tcp::socket socket, const Tls& tls);

    Result<void> prepare();
    Awaitable<void> handshake(bool connecting, const std::optional<Name>& expected);
    Result<void> know_peer(const std::optional<Name>& expected);
    /// Repeats an OpenSSL call until it needs nothing more; its result if positive.
    template <typename Call>
    Awaitable<int> repeat(Call call);
    /// What an OpenSSL call that has failed needs: waits, or says why it cannot.
    Awaitable<void> wait_for(int ssl_error, int system_error);
    /// Takes what comes, until the peer has ended the connection.
    Awaitable<void> drain();
    void say_goodbye();
    Error error(int code, const std::string& what) const;

    boost::asio::ip::tcp::socket socket_;
    std::unique_ptr<SSL, FreedBy<SSL_free>> ssl_;
    std::string where_;
    Name peer_;
    std::array<std::uint8_t, 32> exporter_{};
    FrameReader frames_;
};

}  // namespace mobility
