// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/channel.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <csignal>
#include <utility>

#include "libmobility/address.hpp"
#include "libmobility/tcp_info.hpp"
#include "libmobility/within.hpp"

namespace mobility {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::string_view kExporterLabel = "EXPORTER-Channel-Binding";
constexpr std::size_t kPiece = 4096;

/// Any certificate is good whose key is a host's: names are checked by the caller.
int any_host(int /*preverified*/, X509_STORE_CTX* store) {
    const X509* shown = X509_STORE_CTX_get0_cert(store);
    return shown != nullptr && X509_STORE_CTX_get_error_depth(store) == 0 && Name::of(*shown) ? 1
                                                                                              : 0;
}

bool configure(SSL_CTX* context, const Identity& identity) {
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, any_host);
    SSL_CTX_set_verify_depth(context, 0);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set1_sigalgs_list(context, "ed25519") == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1 &&
           SSL_CTX_use_certificate(context, &identity.certificate()) == 1 &&
           SSL_CTX_use_PrivateKey(context, &identity.key()) == 1;
}

std::string name_of(const tcp::socket& socket) {
    boost::system::error_code failed;
    const auto there = socket.remote_endpoint(failed);
    if (failed) {
        return "a peer that is gone";
    }
    const auto address = there.address().to_string();
    return (there.address().is_v6() ? "[" + address + "]" : address) + ":" +
           std::to_string(there.port());
}

}  // namespace

Result<Tls> Tls::create(const Identity& identity) {
    Context context(SSL_CTX_new(TLS_method()));
    if (!context || !configure(context.get(), identity)) {
        return tcpmigrate::make_error(ENOMEM, "cannot set up TLS: " + complaint());
    }
    static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
    return Tls(std::move(context));
}

Channel::Channel(tcp::socket socket, const Tls& tls)
    : socket_(std::move(socket)), ssl_(SSL_new(tls.context())), where_(name_of(socket_)) {}

Error Channel::error(int code, const std::string& what) const {
    return tcpmigrate::make_error(code, where_ + ": " + what);
}

Result<void> Channel::prepare() {
    boost::system::error_code failed;
    socket_.native_non_blocking(true, failed);
    if (failed || !ssl_ || SSL_set_fd(ssl_.get(), socket_.native_handle()) != 1) {
        return error(ENOMEM, "cannot start TLS");
    }
    return {};
}

Awaitable<void> Channel::wait_for(int ssl_error, int system_error) {
    if (ssl_error == SSL_ERROR_ZERO_RETURN) {
        co_return error(EPIPE, "the peer has closed the channel");
    }
    if (ssl_error != SSL_ERROR_WANT_READ && ssl_error != SSL_ERROR_WANT_WRITE) {
        const bool silent = ssl_error == SSL_ERROR_SYSCALL && system_error == 0;
        co_return error(ssl_error == SSL_ERROR_SYSCALL && !silent ? system_error : ECONNRESET,
                        "the channel has ended: " + complaint());
    }
    boost::system::error_code failed;
    co_await socket_.async_wait(
        ssl_error == SSL_ERROR_WANT_READ ? tcp::socket::wait_read : tcp::socket::wait_write,
        asio::redirect_error(asio::use_awaitable, failed));
    if (failed || !socket_.is_open()) {
        co_return error(ECANCELED, "the channel was closed here");
    }
    co_return Result<void>{};
}

template <typename Call>
Awaitable<int> Channel::repeat(Call call) {
    while (socket_.is_open()) {
        ERR_clear_error();
        errno = 0;
        const int done = call(ssl_.get());
        if (done > 0) {
            co_return done;
        }
        const int system_error = errno;
        const auto ready = co_await wait_for(SSL_get_error(ssl_.get(), done), system_error);
        if (!ready) {
            co_return ready.error();
        }
    }
    co_return error(ECANCELED, "the channel was closed here");
}

Result<void> Channel::know_peer(const std::optional<Name>& expected) {
    const X509* certificate = SSL_get0_peer_certificate(ssl_.get());
    if (certificate == nullptr) {
        return error(EPROTO, "the peer has shown no certificate");
    }
    auto name = Name::of(*certificate);
    if (!name) {
        return error(EPROTO, name.error().message);
    }
    peer_ = *name;
    if (expected && *expected != peer_) {
        return error(EACCES,
                     "the host there is " + peer_.to_string() + ", not " + expected->to_string());
    }
    const auto exported = secret(kExporterLabel);
    if (!exported) {
        return exported.error();
    }
    exporter_ = *exported;
    return {};
}

Result<std::array<std::uint8_t, 32>> Channel::secret(std::string_view label) const {
    std::array<std::uint8_t, 32> value{};
    if (SSL_export_keying_material(ssl_.get(), value.data(), value.size(), label.data(),
                                   label.size(), nullptr, 0, 0) != 1) {
        return error(EPROTO, "no exporter value: " + complaint());
    }
    return value;
}

Awaitable<void> Channel::handshake(bool connecting, const std::optional<Name>& expected) {
    const auto prepared = prepare();
    if (!prepared) {
        co_return prepared.error();
    }
    const auto shaken = co_await repeat(connecting ? SSL_connect : SSL_accept);
    if (!shaken) {
        co_return shaken.error();
    }
    co_return know_peer(expected);
}

Awaitable<std::unique_ptr<Channel>> Channel::connect(tcp::socket socket, const Tls& tls,
                                                     std::optional<Name> expected) {
    std::unique_ptr<Channel> channel(new Channel(std::move(socket), tls));
    const auto done = co_await channel->handshake(true, expected);
    if (!done) {
        co_return done.error();
    }
    co_return channel;
}

Awaitable<std::unique_ptr<Channel>> Channel::accept(tcp::socket socket, const Tls& tls) {
    std::unique_ptr<Channel> channel(new Channel(std::move(socket), tls));
    const auto done = co_await channel->handshake(false, {});
    if (!done) {
        co_return done.error();
    }
    co_return channel;
}

Awaitable<std::string> Channel::read() {
    for (;;) {
        auto message = frames_.next();
        if (!message) {
            co_return error(EMSGSIZE, message.error().message);
        }
        if (*message) {
            co_return std::move(**message);
        }
        // The bytes are on the stack of the call, not of the coroutine: an idle
        // channel holds none.
        const auto got = co_await repeat([this](SSL* ssl) {
            std::array<std::byte, kPiece> piece;  // NOLINT(*-member-init): SSL_read fills it
            const int length = SSL_read(ssl, piece.data(), static_cast<int>(piece.size()));
            if (length > 0) {
                frames_.take(std::span(piece).first(static_cast<std::size_t>(length)));
            }
            return length;
        });
        if (!got) {
            co_return got.error();
        }
    }
}

Awaitable<void> Channel::write(std::string message) {
    auto framed = frame(message);
    if (!framed) {
        co_return error(EMSGSIZE, framed.error().message);
    }
    std::string_view left = *framed;
    while (!left.empty()) {
        const auto written = co_await repeat([&left](SSL* ssl) {
            return SSL_write(ssl, left.data(), static_cast<int>(left.size()));
        });
        if (!written) {
            co_return written.error();
        }
        left.remove_prefix(static_cast<std::size_t>(*written));
    }
    co_return Result<void>{};
}

Result<tcp::endpoint> Channel::remote() const {
    boost::system::error_code failed;
    const auto there = socket_.remote_endpoint(failed);
    if (failed) {
        return error(ENOTCONN, "the channel has ended");
    }
    return tcp::endpoint(plain(there.address()), there.port());
}

std::chrono::microseconds Channel::rtt() {
    tcp_info info{};
    socklen_t size = sizeof(info);
    const int failed = ::getsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size);
    return std::chrono::microseconds(failed == 0 ? info.tcpi_rtt : 0);
}

std::chrono::microseconds Channel::shortest_rtt() {
    return mobility::shortest_rtt(socket_.native_handle());
}

void Channel::say_goodbye() {
    if (SSL_is_init_finished(ssl_.get()) != 0) {
        SSL_shutdown(ssl_.get());
    }
    ERR_clear_error();
}

void Channel::close() {
    if (!socket_.is_open()) {
        return;
    }
    say_goodbye();
    boost::system::error_code ignored;
    socket_.close(ignored);
}

Awaitable<void> Channel::drain() {
    for (std::size_t taken = 0; taken < kMostAfterEnd && socket_.is_open();) {
        // Past TLS: nobody will look at it. With MSG_TRUNC nothing is copied.
        const auto got =
            ::recv(socket_.native_handle(), nullptr, kMaxFrame, MSG_DONTWAIT | MSG_TRUNC);
        if (got > 0) {
            taken += static_cast<std::size_t>(got);
            continue;
        }
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            break;
        }
        const auto more = co_await wait_for(SSL_ERROR_WANT_READ, 0);
        if (!more) {
            co_return more.error();
        }
    }
    co_return Result<void>{};
}

asio::awaitable<void> Channel::finish(std::chrono::steady_clock::duration patience) {
    if (!socket_.is_open()) {
        co_return;
    }
    say_goodbye();
    boost::system::error_code ended;
    socket_.shutdown(tcp::socket::shutdown_send, ended);
    if (!ended) {
        static_cast<void>(co_await within(patience, drain()));
    }
    socket_.close(ended);
}

}  // namespace mobility
