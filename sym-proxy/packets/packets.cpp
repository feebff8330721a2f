// SPDX-License-Identifier: GPL-2.0-or-later
#include "packets.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <cerrno>
#include <cstring>

namespace mobility::proxy {

namespace {

using boost::asio::ip::tcp;

constexpr std::size_t kLeastMtu = 68;  // RFC 791

/// An IPPROTO_RAW socket takes packets with their headers; of IPv4 it is so by itself.
Result<int> raw_socket(int family) {
    const int fd = ::socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
    const int on = 1;
    if (fd < 0 || (family == AF_INET6 &&
                   ::setsockopt(fd, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof(on)) != 0)) {
        const int code = errno;
        if (fd >= 0) {
            ::close(fd);
        }
        return tcpmigrate::make_error(code, std::string("cannot make a raw socket of ") +
                                                (family == AF_INET ? "IPv4" : "IPv6") +
                                                ": is CAP_NET_RAW there?");
    }
    return fd;
}

sockaddr_in destination_of(const Octets& packet) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(1);  // any
    std::memcpy(&to.sin_addr, &packet[16], sizeof(to.sin_addr));
    return to;
}

/// What the way there takes; 0 if there is none.
std::size_t mtu_to(const sockaddr_in& to) {
    int mtu = 0;
    socklen_t size = sizeof(mtu);
    const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 ||
        ::getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &size) != 0) {
        mtu = 0;
    }
    if (fd >= 0) {
        ::close(fd);
    }
    return static_cast<std::size_t>(mtu);
}

}  // namespace

Result<std::unique_ptr<Packets>> Packets::open(const Relays::Ports& ports) {
    std::unique_ptr<Packets> out(new Packets(-1, -1));
    for (const auto& [wanted, family, fd] :
         {std::tuple(ports.address.has_value(), AF_INET, &out->v4_),
          std::tuple(ports.address6.has_value(), AF_INET6, &out->v6_)}) {
        if (!wanted) {
            continue;
        }
        const auto made = raw_socket(family);
        if (!made) {
            return made.error();
        }
        *fd = *made;
    }
    return out;
}

Packets::~Packets() {
    for (const int fd : {v4_, v6_}) {
        if (fd >= 0) {
            ::close(fd);
        }
    }
}

bool Packets::send_once(const Octets& packet) {
    if (packet[0] >> 4 == 4) {
        const auto to = destination_of(packet);
        return ::sendto(v4_, packet.data(), packet.size(), 0,
                        reinterpret_cast<const sockaddr*>(&to), sizeof(to)) >= 0;
    }
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    std::memcpy(&to.sin6_addr, &packet[24], sizeof(to.sin6_addr));
    return ::sendto(v6_, packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                    sizeof(to)) >= 0;
}

void Packets::send(const Octets& packet) {
    if (send_once(packet)) {
        return;
    }
    const bool too_long = errno == EMSGSIZE && may_fragment(packet);
    const auto mtu = too_long ? mtu_to(destination_of(packet)) : 0;
    if (mtu < kLeastMtu) {
        unsent_++;
        return;
    }
    fragmented_ = fragmented_ % 0xffff + 1;  // 0 says that the kernel is to choose, for each
    for (const auto& piece : fragmented(packet, mtu, fragmented_)) {
        unsent_ += send_once(piece) ? 0 : 1;
    }
}

bool Packets::is_free(const Endpoint& endpoint) {
    const tcp::endpoint where(endpoint.address, endpoint.port);
    const int fd = ::socket(where.protocol().family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool free = fd >= 0 && ::bind(fd, where.data(), where.size()) == 0;
    if (fd >= 0) {
        ::close(fd);
    }
    return free;
}

}  // namespace mobility::proxy
