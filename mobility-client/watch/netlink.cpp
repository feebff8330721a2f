// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/netlink.hpp"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "watch/decode.hpp"

namespace mobility::watch {

namespace {

using tcpmigrate::make_error;

constexpr timeval kPatience{2, 0};  ///< with a kernel that answers at once

struct MessageDeleter {
    void operator()(nl_msg* message) const noexcept { nlmsg_free(message); }
};
using MessagePtr = std::unique_ptr<nl_msg, MessageDeleter>;

tcpmigrate::Error failed(const std::string& what, int code) {
    return make_error(code, "rtnetlink: " + what + ": " + std::strerror(code));
}

}  // namespace

void RouteSocket::Deleter::operator()(nl_sock* socket) const noexcept {
    nl_socket_free(socket);
}

Result<RouteSocket> RouteSocket::open() {
    Socket socket(nl_socket_alloc());
    if (!socket) {
        return failed("cannot make a socket", ENOMEM);
    }
    if (const int error = nl_connect(socket.get(), NETLINK_ROUTE); error < 0) {
        return make_error(EPROTONOSUPPORT,
                          std::string("rtnetlink: cannot open a socket: ") + nl_geterror(error));
    }
    return RouteSocket(std::move(socket));
}

Result<RouteSocket> RouteSocket::events(int receive_buffer) {
    auto opened = open();
    if (!opened) {
        return opened;
    }
    auto* socket = opened->socket_.get();
    for (const int group :
         {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
          RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_NETCONF,
          RTNLGRP_IPV6_NETCONF, RTNLGRP_NEXTHOP}) {
        if (const int error = nl_socket_add_membership(socket, group); error < 0) {
            return make_error(EPROTONOSUPPORT, "rtnetlink: cannot join group " +
                                                   std::to_string(group) + ": " +
                                                   nl_geterror(error));
        }
    }
    if (::setsockopt(opened->fd(), SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer,
                     sizeof(receive_buffer)) < 0) {
        // The plain option is capped by net.core.rmem_max but always works.
        ::setsockopt(opened->fd(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    if (const int error = nl_socket_set_nonblocking(socket); error < 0) {
        return make_error(EIO,
                          std::string("rtnetlink: cannot be non-blocking: ") + nl_geterror(error));
    }
    return opened;
}

Result<RouteSocket> RouteSocket::requests() {
    auto opened = open();
    if (opened) {
        ::setsockopt(opened->fd(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
    }
    return opened;
}

int RouteSocket::fd() const {
    return nl_socket_get_fd(socket_.get());
}

Result<std::optional<std::span<const std::byte>>> RouteSocket::receive() {
    for (;;) {
        sockaddr_nl from{};
        iovec part{buffer_.data(), buffer_.size()};
        msghdr header{};
        header.msg_name = &from;
        header.msg_namelen = sizeof(from);
        header.msg_iov = &part;
        header.msg_iovlen = 1;
        const auto size = ::recvmsg(fd(), &header, 0);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0 && errno == EAGAIN) {
            return std::optional<std::span<const std::byte>>();
        }
        if (size < 0) {
            return failed("receiving", errno);
        }
        if (from.nl_pid != 0) {
            continue;  // not from the kernel
        }
        if ((header.msg_flags & MSG_TRUNC) != 0) {
            buffer_.resize(buffer_.size() * 2);
            return failed("receiving", EMSGSIZE);
        }
        return std::optional(
            std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(size)));
    }
}

Result<std::uint32_t> RouteSocket::ask(int type, int family) {
    const MessagePtr request(nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_DUMP));
    rtgenmsg general{static_cast<unsigned char>(family)};
    if (!request || nlmsg_append(request.get(), &general, sizeof(general), NLMSG_ALIGNTO) < 0) {
        return failed("cannot make a request", ENOMEM);
    }
    if (const int error = nl_send_auto(socket_.get(), request.get()); error < 0) {
        return make_error(EIO, std::string("rtnetlink: sending: ") + nl_geterror(error));
    }
    return nlmsg_hdr(request.get())->nlmsg_seq;
}

Result<bool> RouteSocket::dump(int type, int family, HostState& state) {
    const auto sequence = ask(type, family);
    if (!sequence) {
        return sequence.error();
    }
    bool whole = true;
    for (;;) {
        const auto datagram = receive();
        if (!datagram) {
            return datagram.error();
        }
        if (!*datagram) {
            return failed("no answer", ETIMEDOUT);
        }
        const auto decoded = decode(**datagram, *sequence);
        for (const auto& change : decoded.changes) {
            whole = state.apply(change) && whole;
        }
        whole = whole && !decoded.interrupted;
        // A kernel without IPv6, or without rules, has none.
        if (decoded.error != 0 && decoded.error != EOPNOTSUPP && decoded.error != EAFNOSUPPORT) {
            return failed("request " + std::to_string(type) + " is refused", decoded.error);
        }
        if (decoded.done) {
            return whole;
        }
    }
}

Result<bool> read_all(RouteSocket& requests, HostState& state) {
    // Links first: that dump waits for whoever is changing something, so that what the kernel
    // does to routes without telling is done when they are read.
    constexpr std::array<std::pair<int, int>, 8> kinds{{{RTM_GETLINK, AF_UNSPEC},
                                                        {RTM_GETADDR, AF_UNSPEC},
                                                        {RTM_GETRULE, AF_INET},
                                                        {RTM_GETRULE, AF_INET6},
                                                        {RTM_GETNETCONF, AF_INET},
                                                        {RTM_GETNETCONF, AF_INET6},
                                                        {RTM_GETROUTE, AF_INET},
                                                        {RTM_GETROUTE, AF_INET6}}};
    bool whole = true;
    for (const auto& [type, family] : kinds) {
        const auto dumped = requests.dump(type, family, state);
        if (!dumped) {
            return dumped.error();
        }
        whole = whole && *dumped;
    }
    return whole;
}

}  // namespace mobility::watch
