// SPDX-License-Identifier: GPL-2.0-or-later
// A kernel with tcp_migrate, as far as its netlink family goes: it takes the
// real request messages, reads them with libnl's parser (not ours) and answers
// with real reply bytes. Events are scripted.
#pragma once

#include <linux/tcp_migrate.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "tcpmigrate/transport.hpp"

namespace fake {

using namespace tcpmigrate;

inline constexpr std::uint16_t kFamily = 0x1f;
inline constexpr std::uint32_t kSeq = 7;

/// Bytes of a message as the kernel would send it; `fill` puts the attributes.
Bytes make_message(std::uint8_t command, const std::function<void(nl_msg*)>& fill,
                   std::uint16_t type = kFamily, std::uint32_t seq = kSeq, int flags = 0);
/// A reply or event about one connection, with every attribute it has.
Bytes make_connection_message(std::uint8_t command, const Connection& conn);
/// NLMSG_ERROR; with `text` as extended error after the capped request.
Bytes make_error_message(int error, const std::string& text = {}, std::uint32_t seq = kSeq);
Bytes make_done_message(int flags = 0, std::uint32_t seq = kSeq);
/// An IPv4 connection at rest: 192.0.2.1:5000 -> 198.51.100.2:80 for cookie 17.
Connection sample(std::uint64_t cookie = 17);

/// One request as libnl's parser sees it.
struct Request {
    std::uint8_t command = 0;
    int flags = 0;
    std::map<int, Bytes> attributes;

    [[nodiscard]] std::uint32_t u32(int type) const;
    [[nodiscard]] std::uint64_t u64(int type) const;
    [[nodiscard]] std::uint8_t u8(int type) const;
    /// Big-endian 16 bit.
    [[nodiscard]] std::uint16_t port(int type) const;
    [[nodiscard]] std::string address(int type) const;
    [[nodiscard]] bool has(int type) const { return attributes.contains(type); }
};
Request parse_request(const NlMsg& msg);

struct Kernel {
    std::vector<Connection> connections;
    std::vector<Request> requests;  ///< all that came, in order
    std::map<int, int> refuse;      ///< command -> errno
    std::string refusal;            ///< extended error text
    MigrateAllReply migrate_all_reply;
    int interrupted_dumps = 0;         ///< so many dumps are inconsistent
    std::function<void()> on_migrate;  ///< runs when a migrate command comes
    std::function<void()> on_overrun;  ///< runs when a scripted receive error comes
    /// A batch of events, or an errno such as ENOBUFS.
    std::deque<std::variant<std::vector<Connection>, int>> events;
    std::chrono::milliseconds clock{0};

    Result<Reply> handle(const NlMsg& msg);
    Result<std::vector<Connection>> next_events(std::chrono::milliseconds timeout);

  private:
    void take_key(const Request& request);
    Bytes answer(const Request& request);
    Bytes dump();
};

std::unique_ptr<Transport> make_transport(Kernel& kernel);
std::unique_ptr<EventSource> make_events(Kernel& kernel);

}  // namespace fake
