// SPDX-License-Identifier: GPL-2.0-or-later
// Feeds arbitrary bytes to every decoder of libtcpmigrate. Beside what the
// sanitizers see, what was decoded must make sense.

#include <cstdint>
#include <cstdlib>
#include <span>

#include "tcpmigrate/message.hpp"

namespace {

void check(bool holds) {
    if (!holds) {
        std::abort();
    }
}

void check_connection(const tcpmigrate::Connection& conn) {
    check(conn.local.address.is_v6() == conn.remote.address.is_v6());
    check(!conn.tuple().empty());
    check(!to_string(conn.state).empty() && !to_string(conn.reason).empty());
    // What was printed must be read back as the same.
    auto again = tcpmigrate::Address::parse(conn.local.address.to_string());
    check(again && *again == conn.local.address);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto input = std::as_bytes(std::span(data, size));
    if (auto conn = tcpmigrate::decode_connection(input)) {
        check_connection(*conn);
    }
    (void)tcpmigrate::decode_migrate_all(input);
    (void)tcpmigrate::decode_key_count(input);
    (void)tcpmigrate::decode_export(input);
    if (auto events = tcpmigrate::decode_events(input, 0x1f)) {
        for (const auto& event : *events) {
            check_connection(event);
        }
    }
    tcpmigrate::Reply reply;
    if (tcpmigrate::absorb_datagram(input, 7, reply)) {
        check(!reply.error || reply.done);
        for (const auto& message : reply.messages) {
            (void)tcpmigrate::decode_connection(message);
        }
    }
    return 0;
}
