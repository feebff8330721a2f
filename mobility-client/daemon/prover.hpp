// SPDX-License-Identifier: GPL-2.0-or-later
// What a Session asks of the kernel, answered by the Table and the kernel's family.
#pragma once

#include <cstdint>
#include <set>

#include "daemon/table.hpp"
#include "pairing/session.hpp"

namespace mobility::client {

/// The number of the pair key, of those that the kernel has room for (1 to 3): people who
/// install keys themselves take another.
constexpr std::uint8_t kPairKeyId = 1;

class Prover final : public Kernel {
  public:
    /// The Table outlives it.
    explicit Prover(Table& table) : table_(table) {}

    std::vector<Provable> connections(const boost::asio::ip::address& peer) override;
    Result<Exporter> exporter(std::uint64_t cookie) override;
    Result<void> key(std::uint64_t cookie, tcpmigrate::KeyOp op,
                     std::span<const std::uint8_t, 32> secret) override;

    /// The daemon's own connections (to peers, to servers) belong to no pair.
    void leave_out(std::uint64_t cookie) { own_.insert(cookie); }
    /// Its socket is closed; until the connection has ended it is the daemon's all the same.
    void forget(std::uint64_t cookie);
    /// The kernel says that it has.
    void ended(std::uint64_t cookie) { own_.erase(cookie); }
    [[nodiscard]] bool is_own(std::uint64_t cookie) const { return own_.contains(cookie); }
    /// Is there a connection of programs whose peer is at this address?
    [[nodiscard]] bool any(const boost::asio::ip::address& peer) const;

  private:
    Table& table_;
    std::set<std::uint64_t> own_;
};

/// Of a socket; 0 if the kernel does not say.
[[nodiscard]] std::uint64_t cookie_of(int socket);

}  // namespace mobility::client
