// SPDX-License-Identifier: GPL-2.0-or-later
// Who a host is: an Ed25519 key of its own, whose public half names it. The
// certificate around it is signed by the key itself and says nothing more; TLS
// wants one. Nobody has to be asked for a name, and a name cannot be taken.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <array>
#include <compare>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "libmobility/openssl.hpp"
#include "tcpmigrate/result.hpp"

namespace mobility {

using tcpmigrate::Result;

using Key = std::unique_ptr<EVP_PKEY, FreedBy<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, FreedBy<X509_free>>;

/// SHA-256 of a host's public key (its SubjectPublicKeyInfo, DER). Orders and
/// compares by its bytes; it is public, so not in constant time.
class Name {
  public:
    static constexpr std::size_t kSize = 32;

    constexpr Name() = default;
    constexpr explicit Name(const std::array<std::uint8_t, kSize>& bytes) : bytes_(bytes) {}

    /// 64 hexadecimal digits. EINVAL otherwise.
    static Result<Name> parse(std::string_view text);
    /// Of a certificate that a peer has shown, or of a key. EPROTO if it is not Ed25519.
    static Result<Name> of(const X509& certificate);
    static Result<Name> of(EVP_PKEY& key);

    [[nodiscard]] std::span<const std::uint8_t, kSize> bytes() const { return bytes_; }
    /// 64 lower-case hexadecimal digits.
    [[nodiscard]] std::string to_string() const;
    auto operator<=>(const Name&) const = default;

  private:
    std::array<std::uint8_t, kSize> bytes_{};
};

/// A host's key and certificate.
class Identity {
  public:
    /// A new one. ENOMEM if OpenSSL cannot.
    static Result<Identity> create();

    /// Reads a file that save() has written. ENOENT if there is none, EACCES if
    /// others than its owner may read it, EBADMSG if it is not such a file.
    static Result<Identity> load(const std::filesystem::path& file);

    /// load(), or if there is no such file, create() and save().
    static Result<Identity> load_or_create(const std::filesystem::path& file);

    /// Writes key and certificate as PEM, for the owner alone (mode 0600), whole or
    /// not at all. EEXIST if the file is there: a key is never written over.
    [[nodiscard]] Result<void> save(const std::filesystem::path& file) const;

    [[nodiscard]] const Name& name() const { return name_; }
    /// Owned by the Identity.
    [[nodiscard]] EVP_PKEY& key() const { return *key_; }
    [[nodiscard]] X509& certificate() const { return *certificate_; }

  private:
    Identity(Key key, Certificate certificate, Name name)
        : key_(std::move(key)), certificate_(std::move(certificate)), name_(name) {}
    static Result<Identity> from(Key key, Certificate certificate);

    Key key_;
    Certificate certificate_;
    Name name_;
};

}  // namespace mobility
