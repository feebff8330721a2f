// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/pair.hpp"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <string_view>
#include <vector>

namespace mobility {

namespace {

// What the bytes are for comes first, so that none of them means something elsewhere.
constexpr std::string_view kPairLabel = "tcp-migrate pair 1";
constexpr std::string_view kProofLabel = "tcp-migrate proof 1";

class Bytes {
  public:
    explicit Bytes(std::string_view label) : bytes_(label.begin(), label.end()) {}

    template <typename Range>
    Bytes& add(const Range& range) {
        bytes_.insert(bytes_.end(), range.begin(), range.end());
        return *this;
    }
    Bytes& add(std::uint8_t byte) {
        bytes_.push_back(byte);
        return *this;
    }
    /// Sixteen bytes; an IPv4 address as an IPv4-mapped one.
    Bytes& add(const boost::asio::ip::address& address) {
        using boost::asio::ip::make_address_v6;
        using boost::asio::ip::v4_mapped;
        return add(address.is_v6() ? address.to_v6().to_bytes()
                                   : make_address_v6(v4_mapped, address.to_v4()).to_bytes());
    }
    [[nodiscard]] const std::vector<std::uint8_t>& get() const { return bytes_; }

  private:
    std::vector<std::uint8_t> bytes_;
};

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
