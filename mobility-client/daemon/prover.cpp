// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/prover.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <string_view>

#include "daemon/address.hpp"

namespace mobility::client {

namespace {

/// What the kernel has of the pair key.
Guard guard_of(const Connection& connection) {
    constexpr unsigned bit = 1U << kPairKeyId;
    if ((connection.key_mask & bit) == 0) {
        return Guard::Proved;
    }
    if (connection.key_mask == bit && connection.key_id == kPairKeyId) {
        return Guard::Exclusive;
    }
    return connection.key_id == kPairKeyId ? Guard::Promoted : Guard::Added;
}

}  // namespace

std::uint64_t cookie_of(int socket) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    return ::getsockopt(socket, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

void Prover::forget(std::uint64_t cookie) {
    if (table_.find(cookie) == nullptr) {
        own_.erase(cookie);
    }
}

bool Prover::any(const boost::asio::ip::address& peer) const {
    const auto there = to_kernel(peer);
    return std::ranges::any_of(table_.all(), [&](const auto& entry) {
        return entry.second.remote.address == there && !own_.contains(entry.first);
    });
}

std::vector<Provable> Prover::connections(const boost::asio::ip::address& peer) {
    const auto there = to_kernel(peer);
    std::vector<Provable> out;
    // Keys change without an event: the Table does not know of them.
    const auto all = table_.kernel().list();
    if (!all) {
        return out;
    }
    for (const auto& one : *all) {
        if (one.remote.address != there || one.state == tcpmigrate::State::None ||
            own_.contains(one.cookie)) {
            continue;
        }
        table_.learn(one);
        const auto inner = one.peer_inner ? one.peer_inner->port : std::uint16_t{0};
        out.push_back({one.cookie, one.local.port, one.remote.port,
                       inner != 0 ? inner : one.remote.port, one.opener, guard_of(one)});
    }
    return out;
}

Result<Kernel::Exporter> Prover::exporter(std::uint64_t cookie) {
    const auto reply = table_.kernel().export_value(tcpmigrate::Cookie{cookie});
    if (!reply) {
        return reply.error();
    }
    Exporter out{};
    std::ranges::transform(reply->exporter, out.begin(),
                           [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
    return out;
}

Result<void> Prover::key(std::uint64_t cookie, tcpmigrate::KeyOp op,
                         std::span<const std::uint8_t, 32> secret) {
    tcpmigrate::KeyRequest request{tcpmigrate::Cookie{cookie}, op, kPairKeyId, {}};
    if (op == tcpmigrate::KeyOp::Add) {
        auto parsed = tcpmigrate::Secret::parse(
            std::string_view(reinterpret_cast<const char*>(secret.data()), secret.size()));
        if (!parsed) {
            return parsed.error();
        }
        request.secret = std::move(*parsed);
    }
    const auto done = table_.kernel().key(request);
    return done ? Result<void>() : done.error();
}

}  // namespace mobility::client
