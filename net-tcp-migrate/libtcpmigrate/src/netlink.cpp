// SPDX-License-Identifier: GPL-2.0-or-later
// Transport and EventSource over libnl sockets. Datagrams are read with
// nl_recv() and taken apart in message.cpp: no libnl callbacks, so nothing of
// ours is ever called from C.

#include <linux/netlink.h>
#include <linux/tcp_migrate.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "tcpmigrate/transport.hpp"

namespace tcpmigrate {

namespace {

/// Room for some ten thousand events, so that moving many connections at once
/// does not overrun the socket; without CAP_NET_ADMIN the kernel grants less.
constexpr int kEventBuffer = 16 << 20;
constexpr int kRequestBuffer = 1 << 20;

struct SocketDeleter {
    void operator()(nl_sock* socket) const noexcept { nl_socket_free(socket); }
};
using Socket = std::unique_ptr<nl_sock, SocketDeleter>;

struct FreeDeleter {
    // nl_recv() hands out memory of malloc(), by contract to be freed so.
    void operator()(unsigned char* memory) const noexcept {
        std::free(memory);  // NOLINT(cppcoreguidelines-no-malloc,cppcoreguidelines-owning-memory)
    }
};

Error no_family() {
    return make_error(ENOENT,
                      "this kernel has no netlink family \"" TCP_MIGRATE_FAMILY_NAME
                      "\": boot a kernel with the tcp-migrate patches (CONFIG_TCP_MIGRATE=y)");
}

struct OpenSocket {
    Socket socket;
    std::uint16_t family = 0;
};

/// A connected generic netlink socket, and the id of our family.
Result<OpenSocket> open_socket(int buffer) {
    OpenSocket opened{Socket(nl_socket_alloc()), 0};
    if (!opened.socket) {
        return make_error(ENOMEM, "out of memory for a netlink socket");
    }
    if (const int error = genl_connect(opened.socket.get()); error < 0) {
        return make_error(EPROTONOSUPPORT, std::string("cannot open a generic netlink socket: ") +
                                               nl_geterror(error));
    }
    const int family = genl_ctrl_resolve(opened.socket.get(), TCP_MIGRATE_FAMILY_NAME);
    if (family < 0) {
        return no_family();
    }
    opened.family = static_cast<std::uint16_t>(family);
    // Ask for a datagram's length before reading it: dumps grow as they like.
    nl_socket_enable_msg_peek(opened.socket.get());
    const int fd = nl_socket_get_fd(opened.socket.get());
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) < 0) {
        // The plain option is capped by net.core.rmem_max but always works.
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    }
    return opened;
}

/// One datagram. EINTR and ENOBUFS come back as such; errno is read because
/// libnl's own numbers do not tell them apart.
Result<Bytes> receive_datagram(nl_sock* socket) {
    sockaddr_nl from{};
    unsigned char* raw = nullptr;
    errno = 0;
    const int size = nl_recv(socket, &from, &raw, nullptr);
    const int cause = errno;
    const std::unique_ptr<unsigned char, FreeDeleter> owner(raw);
    if (size < 0) {
        const int code = size == -NLE_NOMEM ? ENOBUFS : (cause != 0 ? cause : EIO);
        return make_error(code, std::string("receiving from netlink: ") + std::strerror(code));
    }
    if (from.nl_pid != 0) {
        return Bytes{};  // not from the kernel
    }
    const auto* first = reinterpret_cast<const std::byte*>(raw);
    return size == 0 ? Bytes{} : Bytes(first, first + size);
}

class NetlinkTransport final : public Transport {
  public:
    NetlinkTransport(Socket socket, std::uint16_t family)
        : socket_(std::move(socket)), family_(family) {
        const int on = 1;
        // Without extended errors the plain errno is shown; nothing else is lost.
        setsockopt(nl_socket_get_fd(socket_.get()), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
        setsockopt(nl_socket_get_fd(socket_.get()), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    }

    Result<Reply> transact(NlMsg request) override {
        nlmsghdr* header = nlmsg_hdr(request.get());
        header->nlmsg_type = family_;
        if (const int error = nl_send_auto(socket_.get(), request.get()); error < 0) {
            return make_error(EIO, std::string("sending to netlink: ") + nl_geterror(error));
        }
        return collect(header->nlmsg_seq);
    }

  private:
    Result<Reply> collect(std::uint32_t seq) {
        Reply reply;
        while (!reply.done) {
            auto datagram = receive_datagram(socket_.get());
            if (!datagram && datagram.error().is(EINTR)) {
                continue;
            }
            if (!datagram) {
                return datagram.error();
            }
            if (auto result = absorb_datagram(*datagram, seq, reply); !result) {
                return result.error();
            }
        }
        if (reply.error) {
            return *reply.error;
        }
        return reply;
    }

    Socket socket_;
    std::uint16_t family_;
};

class NetlinkEvents final : public EventSource {
  public:
    NetlinkEvents(Socket socket, std::uint16_t family)
        : socket_(std::move(socket)), family_(family) {}

    [[nodiscard]] int fd() const override { return nl_socket_get_fd(socket_.get()); }

    Result<std::vector<Connection>> receive(std::chrono::milliseconds timeout) override {
        pollfd wait{fd(), POLLIN, 0};
        const int ready =
            poll(&wait, 1, timeout.count() < 0 ? -1 : static_cast<int>(timeout.count()));
        if (ready == 0 || (ready < 0 && errno == EINTR)) {
            return std::vector<Connection>{};
        }
        auto datagram = receive_datagram(socket_.get());
        if (!datagram && (datagram.error().is(EINTR) || datagram.error().is(EAGAIN))) {
            return std::vector<Connection>{};
        }
        if (!datagram) {
            return datagram.error();
        }
        return decode_events(*datagram, family_);
    }

  private:
    Socket socket_;
    std::uint16_t family_;
};

}  // namespace

Result<std::unique_ptr<Transport>> open_netlink_transport() {
    auto opened = open_socket(kRequestBuffer);
    if (!opened) {
        return opened.error();
    }
    return std::unique_ptr<Transport>(
        std::make_unique<NetlinkTransport>(std::move(opened->socket), opened->family));
}

Result<std::unique_ptr<EventSource>> open_netlink_events() {
    auto opened = open_socket(kEventBuffer);
    if (!opened) {
        return opened.error();
    }
    nl_sock* socket = opened->socket.get();
    const int group =
        genl_ctrl_resolve_grp(socket, TCP_MIGRATE_FAMILY_NAME, TCP_MIGRATE_MCGRP_EVENTS);
    if (group < 0) {
        return make_error(ENOENT,
                          "the kernel's tcp_migrate family has no multicast group \"events\"");
    }
    if (const int error = nl_socket_add_membership(socket, group); error < 0) {
        return make_error(
            error == -NLE_PERM ? EPERM : EIO,
            std::string("cannot join the multicast group \"events\": ") + nl_geterror(error));
    }
    return std::unique_ptr<EventSource>(
        std::make_unique<NetlinkEvents>(std::move(opened->socket), opened->family));
}

}  // namespace tcpmigrate
