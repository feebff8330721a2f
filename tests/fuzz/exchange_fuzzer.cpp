// SPDX-License-Identifier: GPL-2.0-or-later
// Feeds arbitrary bytes to the decoders of what hosts say to servers and to each other, and servers
// to proxies: what one of them accepts can be said again, in a frame, and means the same. The
// vouchers of an Offer are looked at, by somebody who trusts whoever has signed them.

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>
#include <variant>

#include "libmobility/message.hpp"
#include "libmobility/peer_message.hpp"
#include "libmobility/proxy_message.hpp"

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

void check_vouchers_of(std::string_view bytes) {
    const auto message = mobility::decode_to_peer(bytes);
    const auto* offer = message ? std::get_if<mobility::Offer>(&*message) : nullptr;
    if (offer == nullptr) {
        return;
    }
    std::set<mobility::Name> trusted;
    for (const auto& voucher : offer->vouchers) {
        if (const auto name = mobility::name_of(voucher.server)) {
            trusted.insert(*name);
        }
    }
    const std::chrono::sys_seconds now(std::chrono::hours(1));
    if (mobility::check_vouchers(offer->vouchers, offer->own.host, trusted, now)) {
        std::abort();  // nobody can forge one
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    check(bytes, mobility::decode_to_server);
    check(bytes, mobility::decode_to_host);
    check(bytes, mobility::decode_to_peer);
    check(bytes, mobility::decode_to_proxy);
    check(bytes, mobility::decode_from_proxy);
    check_vouchers_of(bytes);
    return 0;
}
