// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/identity.hpp"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace mobility {

namespace {

using tcpmigrate::Error;
using tcpmigrate::make_error;

using Bio = std::unique_ptr<BIO, FreedBy<BIO_free_all>>;

Error system_error(const std::filesystem::path& file, const char* what) {
    const int code = errno;
    return make_error(code, file.string() + ": " + what + ": " + std::strerror(code));
}

/// A certificate lives as long as its key: dates mean nothing here (clocks of
/// hosts differ), so it is valid from the beginning of time to its end.
bool set_dates(X509* certificate) {
    return ASN1_TIME_set_string_X509(X509_getm_notBefore(certificate), "19700101000000Z") == 1 &&
           ASN1_TIME_set_string_X509(X509_getm_notAfter(certificate), "99991231235959Z") == 1;
}

Certificate self_signed(EVP_PKEY* key) {
    Certificate certificate(X509_new());
    auto* x = certificate.get();
    if (x == nullptr || X509_set_version(x, X509_VERSION_3) != 1 ||
        ASN1_INTEGER_set(X509_get_serialNumber(x), 1) != 1 || !set_dates(x) ||
        X509_set_pubkey(x, key) != 1 || X509_sign(x, key, nullptr) == 0) {
        return nullptr;
    }
    return certificate;
}

/// Writes all of it; false with errno if it cannot.
bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const auto written = ::write(fd, bytes.data(), bytes.size());
        if (written < 0 && errno != EINTR) {
            return false;
        }
        bytes.remove_prefix(written > 0 ? static_cast<std::size_t>(written) : 0);
    }
    return true;
}

/// A file under another name until it is whole.
Result<void> write_new(const std::filesystem::path& file, std::string_view bytes) {
    auto draft = file;
    draft += ".new";
    ::unlink(draft.c_str());
    const int fd =
        ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return system_error(draft, "cannot create");
    }
    const bool good = write_all(fd, bytes) && ::fsync(fd) == 0;
    Result<void> result = good ? Result<void>() : system_error(draft, "cannot write");
    ::close(fd);
    // link() fails if the name is taken, rename() would not.
    if (good && ::link(draft.c_str(), file.c_str()) != 0) {
        result = system_error(file, "cannot create");
    }
    ::unlink(draft.c_str());
    return result;
}

Result<Bio> open_private(const std::filesystem::path& file) {
    struct stat about {};
    if (::stat(file.c_str(), &about) != 0) {
        return system_error(file, "cannot read");
    }
    if ((about.st_mode & 077) != 0) {
        return make_error(
            EACCES, file.string() + " holds a private key and others may read it: chmod 600 it");
    }
    Bio bio(BIO_new_file(file.c_str(), "re"));
    if (!bio) {
        return make_error(EACCES, file.string() + ": " + complaint());
    }
    return bio;
}

}  // namespace

Result<Name> Name::parse(std::string_view text) {
    std::array<std::uint8_t, kSize> bytes{};
    bool good = text.size() == 2 * kSize;
    for (std::size_t i = 0; good && i < kSize; i++) {
        const char* digits = text.data() + 2 * i;
        const auto read = std::from_chars(digits, digits + 2, bytes[i], 16);
        good = read.ec == std::errc() && read.ptr == digits + 2;
    }
    if (!good) {
        return make_error(EINVAL, "\"" + std::string(text.substr(0, 80)) +
                                      "\" is no host's name: 64 hexadecimal digits");
    }
    return Name(bytes);
}

Result<Name> Name::of(const X509& certificate) {
    EVP_PKEY* key = X509_get0_pubkey(&certificate);
    if (key == nullptr) {
        ERR_clear_error();
        return make_error(EPROTO, "a certificate without a key that can be read names no host");
    }
    return of(*key);
}

Result<Name> Name::of(EVP_PKEY& key) {
    if (EVP_PKEY_get_id(&key) != EVP_PKEY_ED25519) {
        return make_error(EPROTO, "a key that is not Ed25519 names no host");
    }
    std::uint8_t* der = nullptr;
    const int length = i2d_PUBKEY(&key, &der);
    if (length <= 0) {
        return make_error(EPROTO, "a public key cannot be encoded: " + complaint());
    }
    std::array<std::uint8_t, kSize> bytes{};
    SHA256(der, static_cast<std::size_t>(length), bytes.data());
    OPENSSL_free(der);
    return Name(bytes);
}

std::string Name::to_string() const {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const auto byte : bytes_) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

Result<Identity> Identity::from(Key key, Certificate certificate) {
    auto name = Name::of(*certificate);
    if (!name) {
        return name.error();
    }
    return Identity(std::move(key), std::move(certificate), *name);
}

Result<Identity> Identity::create() {
    Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    auto certificate = key ? self_signed(key.get()) : nullptr;
    if (!certificate) {
        return make_error(ENOMEM, "cannot make a key and its certificate: " + complaint());
    }
    return from(std::move(key), std::move(certificate));
}

Result<Identity> Identity::load(const std::filesystem::path& file) {
    auto bio = open_private(file);
    if (!bio) {
        return bio.error();
    }
    Key key(PEM_read_bio_PrivateKey(bio->get(), nullptr, nullptr, nullptr));
    Certificate certificate(key ? PEM_read_bio_X509(bio->get(), nullptr, nullptr, nullptr)
                                : nullptr);
    if (!certificate) {
        return make_error(
            EBADMSG, file.string() +
                         " is no identity (private key and certificate, as PEM): " + complaint());
    }
    if (X509_check_private_key(certificate.get(), key.get()) != 1) {
        ERR_clear_error();
        return make_error(EBADMSG, file.string() + ": the certificate is of another key");
    }
    return from(std::move(key), std::move(certificate));
}

Result<void> Identity::save(const std::filesystem::path& file) const {
    const Bio bio(BIO_new(BIO_s_secmem()));
    if (!bio ||
        PEM_write_bio_PrivateKey(bio.get(), key_.get(), nullptr, nullptr, 0, nullptr, nullptr) !=
            1 ||
        PEM_write_bio_X509(bio.get(), certificate_.get()) != 1) {
        return make_error(ENOMEM,
                          "cannot encode the identity " + name_.to_string() + ": " + complaint());
    }
    char* text = nullptr;
    const auto length = BIO_get_mem_data(bio.get(), &text);
    return write_new(file, std::string_view(text, static_cast<std::size_t>(length)));
}

Result<Identity> Identity::load_or_create(const std::filesystem::path& file) {
    auto there = load(file);
    if (there || !there.error().is(ENOENT)) {
        return there;
    }
    auto made = create();
    if (!made) {
        return made;
    }
    const auto saved = made->save(file);
    // Somebody else was faster: there is one identity of a host.
    if (!saved && saved.error().is(EEXIST)) {
        return load(file);
    }
    if (!saved) {
        return saved.error();
    }
    return made;
}

}  // namespace mobility
