// SPDX-License-Identifier: GPL-2.0-or-later
// Two rtnetlink sockets: one that is told of changes, one that asks what there is (mixing
// both loses changes). Nothing here waits for long: the kernel answers while it is asked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "tcpmigrate/result.hpp"
#include "watch/host_state.hpp"

struct nl_sock;

namespace mobility::watch {

using tcpmigrate::Result;

class RouteSocket {
  public:
    /// Told of links, addresses, routes, rules, settings and next hops.
    static Result<RouteSocket> events(int receive_buffer);
    /// For dump().
    static Result<RouteSocket> requests();

    [[nodiscard]] int fd() const;

    /// The next datagram of the kernel, if there is one. It is valid until the next call.
    /// ENOBUFS: some were lost; EMSGSIZE: this one was too large, and is lost.
    Result<std::optional<std::span<const std::byte>>> receive();

    /// Everything of a kind (RTM_GETLINK, ...) and family is applied to `state`. False:
    /// it changed meanwhile, so that the result may not hold together.
    Result<bool> dump(int type, int family, HostState& state);

  private:
    struct Deleter {
        void operator()(nl_sock* socket) const noexcept;
    };
    using Socket = std::unique_ptr<nl_sock, Deleter>;

    explicit RouteSocket(Socket socket) : socket_(std::move(socket)), buffer_(kBuffer) {}
    static Result<RouteSocket> open();
    Result<std::uint32_t> ask(int type, int family);

    /// More than the kernel puts into one datagram.
    static constexpr std::size_t kBuffer = std::size_t{64} << 10;

    Socket socket_;
    std::vector<std::byte> buffer_;
};

/// All that is followed, read at once. False as for dump().
Result<bool> read_all(RouteSocket& requests, HostState& state);

}  // namespace mobility::watch
