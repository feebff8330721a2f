// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/pair.hpp"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <string_view>

#include "libmobility/bytes.hpp"

namespace mobility {

namespace {

constexpr std::string_view kPairLabel = "tcp-migrate pair 1";
constexpr std::string_view kProofLabel = "tcp-migrate proof 1";

void add_part(Bytes& bytes, const PairPart& part) {
    bytes.add(part.host.bytes()).add(part.address).add(part.random);
}

}  // namespace

PairId pair_id(const PairPart& one, const PairPart& other) {
    const bool one_leads = one.host < other.host;
    Bytes bytes(kPairLabel);
    add_part(bytes, one_leads ? one : other);
    add_part(bytes, one_leads ? other : one);
    std::array<std::uint8_t, SHA256_DIGEST_LENGTH> digest{};
    SHA256(bytes.get().data(), bytes.get().size(), digest.data());
    PairId id{};
    std::copy_n(digest.begin(), id.size(), id.begin());
    return id;
}

Proof prove(std::span<const std::uint8_t, 32> connection_exporter, Role prover_role,
            std::span<const std::uint8_t, 32> channel_exporter, const Name& prover,
            const Name& peer) {
    Bytes bytes(kProofLabel);
    bytes.add(static_cast<std::uint8_t>(prover_role)).add(channel_exporter);
    bytes.add(prover.bytes()).add(peer.bytes());
    Proof proof{};
    unsigned int length = proof.size();
    HMAC(EVP_sha256(), connection_exporter.data(), static_cast<int>(connection_exporter.size()),
         bytes.get().data(), bytes.get().size(), proof.data(), &length);
    return proof;
}

bool equal(const Proof& one, const Proof& other) {
    return CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

}  // namespace mobility
