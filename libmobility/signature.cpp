// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/signature.hpp"

#include <cerrno>

namespace mobility {

namespace {

using tcpmigrate::make_error;
using Digest = std::unique_ptr<EVP_MD_CTX, FreedBy<EVP_MD_CTX_free>>;

Key key_from(const PublicKey& key) {
    return Key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()));
}

}  // namespace

Result<PublicKey> public_key(const Identity& identity) {
    PublicKey key{};
    std::size_t size = key.size();
    if (EVP_PKEY_get_raw_public_key(&identity.key(), key.data(), &size) != 1) {
        return make_error(ENOMEM, "cannot read a key: " + complaint());
    }
    return key;
}

Result<Signature> sign(const Identity& identity, const Bytes& bytes) {
    Signature signature{};
    std::size_t size = signature.size();
    const Digest digest(EVP_MD_CTX_new());
    if (!digest ||
        EVP_DigestSignInit(digest.get(), nullptr, nullptr, nullptr, &identity.key()) != 1 ||
        EVP_DigestSign(digest.get(), signature.data(), &size, bytes.get().data(),
                       bytes.get().size()) != 1) {
        return make_error(ENOMEM, "cannot sign: " + complaint());
    }
    return signature;
}

Result<Name> name_of(const PublicKey& key) {
    const auto made = key_from(key);
    if (!made) {
        return make_error(EPROTO, "a key that is none: " + complaint());
    }
    return Name::of(*made);
}

bool is_signed(const PublicKey& key, const Bytes& bytes, const Signature& signature) {
    const auto made = key_from(key);
    const Digest digest(EVP_MD_CTX_new());
    const bool good =
        made && digest &&
        EVP_DigestVerifyInit(digest.get(), nullptr, nullptr, nullptr, made.get()) == 1 &&
        EVP_DigestVerify(digest.get(), signature.data(), signature.size(), bytes.get().data(),
                         bytes.get().size()) == 1;
    ERR_clear_error();
    return good;
}

}  // namespace mobility
