// SPDX-License-Identifier: GPL-2.0-or-later
// The host's own side of the proxy: sends packets that are made here, and knows which of its
// ports are taken.
#pragma once

#include <cstdint>
#include <memory>

#include "relay/relays.hpp"

namespace mobility::proxy {

class Packets {
  public:
    /// Needs CAP_NET_RAW. An error names the address family.
    static Result<std::unique_ptr<Packets>> open(const Relays::Ports& ports);
    ~Packets();
    Packets(const Packets&) = delete;
    Packets& operator=(const Packets&) = delete;

    /// An IP packet from an address of this host; in fragments if it is too long, and may be;
    /// lost as any, if it cannot be sent.
    void send(const Octets& packet);
    /// Could a program bind to it?
    [[nodiscard]] static bool is_free(const Endpoint& endpoint);
    [[nodiscard]] std::uint64_t unsent() const { return unsent_; }

  private:
    Packets(int v4, int v6) : v4_(v4), v6_(v6) {}

    /// False with errno.
    bool send_once(const Octets& packet);

    int v4_;  ///< -1: none
    int v6_;
    std::uint64_t unsent_ = 0;
    std::uint16_t fragmented_ = 0;  ///< the last one's identification
};

}  // namespace mobility::proxy
