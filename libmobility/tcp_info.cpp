// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/tcp_info.hpp"

// Not together with netinet/tcp.h, whose tcp_info is shorter.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace mobility {

std::chrono::microseconds shortest_rtt(int socket) {
    tcp_info info{};
    socklen_t size = sizeof(info);
    const int failed = ::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size);
    const bool known = failed == 0 &&
                       size >= offsetof(tcp_info, tcpi_min_rtt) + sizeof(info.tcpi_min_rtt) &&
                       info.tcpi_min_rtt != std::numeric_limits<std::uint32_t>::max();
    return std::chrono::microseconds(known ? info.tcpi_min_rtt : 0);
}

}  // namespace mobility
