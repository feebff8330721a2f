// SPDX-License-Identifier: GPL-2.0-or-later
// What the kernel has measured of a TCP connection, and the C library's tcp_info does not have.
#pragma once

#include <chrono>

namespace mobility {

/// Of the last minutes: without what queues and delayed acknowledgments have added to others.
/// 0 if the kernel does not say.
std::chrono::microseconds shortest_rtt(int socket);

}  // namespace mobility
