// SPDX-License-Identifier: GPL-2.0-or-later
// Netlink messages as bytes: requests are encoded, replies and events decoded,
// without a socket. Everything here is pure and can be tested and fuzzed
// without a kernel that knows the family.
//
// A request has family id 0 and sequence number 0: the Transport fills in both,
// it alone knows them. Decoding takes untrusted bytes of any alignment and
// length and never reads past them; a damaged message gives EBADMSG. Attributes
// that are unknown are skipped, so that a newer kernel can be talked to.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tcpmigrate/types.hpp"

struct nl_msg;

namespace tcpmigrate {

/// Frees an nl_msg, and wipes it first: it may carry a key.
struct NlMsgDeleter {
    void operator()(nl_msg* msg) const noexcept;
};
using NlMsg = std::unique_ptr<nl_msg, NlMsgDeleter>;
using Bytes = std::vector<std::byte>;

/// Encoders. They fail with EINVAL for a request that makes no sense (mixed
/// address families, key id out of range), with ENOMEM if there is no memory.
[[nodiscard]] Result<NlMsg> encode_dump();
[[nodiscard]] Result<NlMsg> encode_get(const Name& name);
[[nodiscard]] Result<NlMsg> encode_migrate(const MigrateRequest& request);
[[nodiscard]] Result<NlMsg> encode_migrate_all(const MigrateAllRequest& request);
[[nodiscard]] Result<NlMsg> encode_abort(const Name& name);
[[nodiscard]] Result<NlMsg> encode_key(const KeyRequest& request);
[[nodiscard]] Result<NlMsg> encode_export(const Name& name);

/// Decoders. `message` starts with its nlmsghdr and may be longer than the
/// length that is written there.
[[nodiscard]] Result<Connection> decode_connection(std::span<const std::byte> message);
[[nodiscard]] Result<MigrateAllReply> decode_migrate_all(std::span<const std::byte> message);
[[nodiscard]] Result<std::uint32_t> decode_key_count(std::span<const std::byte> message);
[[nodiscard]] Result<ExportReply> decode_export(std::span<const std::byte> message);

/// What the kernel has answered to one request so far.
struct Reply {
    std::vector<Bytes> messages;  ///< payload messages, each with its nlmsghdr
    bool done = false;            ///< an ACK, an error or the end of a dump was seen
    bool interrupted = false;     ///< the dump was inconsistent (NLM_F_DUMP_INTR)
    std::optional<Error> error;   ///< the kernel refused; with its extended message
};

/// Adds one received datagram to `reply`. Messages with another sequence
/// number than `seq` are skipped. EBADMSG if the datagram is damaged.
[[nodiscard]] Result<void> absorb_datagram(std::span<const std::byte> datagram, std::uint32_t seq,
                                           Reply& reply);

/// Splits a datagram of the multicast group into its event messages; those of
/// other families (id `family`) or commands are skipped.
[[nodiscard]] Result<std::vector<Connection>> decode_events(std::span<const std::byte> datagram,
                                                            std::uint16_t family);

}  // namespace tcpmigrate
