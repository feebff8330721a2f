// SPDX-License-Identifier: GPL-2.0-or-later
// The way to the kernel: one socket for requests, another for events (mixing
// both loses notifications). Both are interfaces, so that everything above can
// be tested without a kernel that knows the family.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "tcpmigrate/message.hpp"

namespace tcpmigrate {

/// Sends requests. Not thread safe: one Transport per thread.
class Transport {
  public:
    Transport() = default;
    virtual ~Transport() = default;
    Transport(const Transport&) = delete;
    Transport& operator=(const Transport&) = delete;

    /// Sends one request and collects the whole answer. What the kernel
    /// refuses comes back as Error with the kernel's errno.
    virtual Result<Reply> transact(NlMsg request) = 0;
};

/// Receives events.
class EventSource {
  public:
    EventSource() = default;
    virtual ~EventSource() = default;
    EventSource(const EventSource&) = delete;
    EventSource& operator=(const EventSource&) = delete;

    /// File descriptor to poll for reading, owned by this object.
    [[nodiscard]] virtual int fd() const = 0;

    /// Waits at most `timeout` (negative: for ever) and returns the events of
    /// one datagram, none on time-out or if a signal came (EINTR is not an
    /// error). ENOBUFS: events were lost, dump anew; the source stays usable.
    virtual Result<std::vector<Connection>> receive(std::chrono::milliseconds timeout) = 0;
};

/// Opens a generic netlink socket for requests. ENOENT: this kernel has no
/// "tcp_migrate" family.
[[nodiscard]] Result<std::unique_ptr<Transport>> open_netlink_transport();

/// Opens a second socket that has joined the multicast group "events".
[[nodiscard]] Result<std::unique_ptr<EventSource>> open_netlink_events();

}  // namespace tcpmigrate
