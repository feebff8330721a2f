// SPDX-License-Identifier: GPL-2.0-or-later
// Feeds arbitrary bytes to the decoders of what hosts say to servers and to each other: what one of
// them accepts can be said again, in a frame, and means the same.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "libmobility/message.hpp"
#include "libmobility/peer_message.hpp"

namespace {

template <typename Decode>
void check(std::string_view bytes, Decode decode) {
    const auto message = decode(bytes);
    if (!message) {
        return;
    }
    const auto said = mobility::encode(*message);
    const auto again = decode(said);
    if (!again || *again != *message || !mobility::frame(said)) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    check(bytes, mobility::decode_to_server);
    check(bytes, mobility::decode_to_host);
    check(bytes, mobility::decode_to_peer);
    return 0;
}
