// SPDX-License-Identifier: GPL-2.0-or-later
// What the daemons share: frames, identities, pairs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <string>

#include "libmobility/frame.hpp"
#include "libmobility/identity.hpp"
#include "libmobility/pace.hpp"
#include "libmobility/pair.hpp"
#include "temporary.hpp"

namespace mobility {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

std::span<const std::byte> bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

std::string next(FrameReader& reader) {
    auto message = reader.next();
    EXPECT_TRUE(message) << message.error().message;
    return message && *message ? **message : "(none)";
}

TEST(Frame, BytesAreLengthInNetworkOrderAndMessage) {
    EXPECT_EQ(*frame("abc"), std::string("\0\0\0\3abc", 7));
    EXPECT_EQ(frame(std::string(kMaxFrame, 'x'))->substr(0, 4), std::string("\0\1\0\0", 4));
}

TEST(Frame, NothingAndTooMuchAreRefused) {
    EXPECT_TRUE(frame("").error().is(EMSGSIZE));
    EXPECT_TRUE(frame(std::string(kMaxFrame + 1, 'x')).error().is(EMSGSIZE));
}

TEST(Frame, ComesInAnyPieces) {
    const std::string stream =
        *frame("one") + *frame("second") + *frame(std::string(kMaxFrame, 'z'));
    for (const std::size_t piece : {1UL, 2UL, 3UL, 5UL, 7UL, 1000UL, stream.size()}) {
        FrameReader reader;
        std::vector<std::string> got;
        for (std::size_t at = 0; at < stream.size(); at += piece) {
            reader.take(bytes(std::string_view(stream).substr(at, piece)));
            for (auto message = reader.next(); message && *message; message = reader.next()) {
                got.push_back(**message);
            }
            EXPECT_LE(reader.held(), kFrameHead + kMaxFrame);
        }
        ASSERT_EQ(got.size(), 3U) << piece;
        EXPECT_EQ(got[0], "one");
        EXPECT_EQ(got[1], "second");
        EXPECT_EQ(got[2], std::string(kMaxFrame, 'z'));
        EXPECT_EQ(reader.held(), 0U);
    }
}

TEST(Frame, BadHeadIsAnErrorAtOnceAndStays) {
    for (const auto& head : {std::string("\0\0\0\0", 4), std::string("\0\1\0\1", 4),
                             std::string("\xff\xff\xff\xff", 4)}) {
        FrameReader reader;
        reader.take(bytes(*frame("good") + head));
        EXPECT_EQ(next(reader), "good");
        EXPECT_TRUE(reader.next().error().is(EMSGSIZE));
        reader.take(bytes(*frame("more")));
        EXPECT_TRUE(reader.next().error().is(EMSGSIZE));
    }
}

class IdentityFile : public testing::Test {
  protected:
    [[nodiscard]] std::filesystem::path file() const { return folder.at("identity.pem"); }

    Temporary folder;
};

TEST_F(IdentityFile, IsTheSameAfterSavingAndLoading) {
    const auto made = Identity::create();
    ASSERT_TRUE(made) << made.error().message;
    ASSERT_TRUE(made->save(file()));
    const auto loaded = Identity::load(file());
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(loaded->name(), made->name());
    EXPECT_EQ(*Name::of(loaded->certificate()), made->name());
    EXPECT_EQ(X509_verify(&loaded->certificate(), &loaded->key()), 1);
}

TEST_F(IdentityFile, IsForItsOwnerAloneAndNothingElseIsLeft) {
    ASSERT_TRUE(Identity::create()->save(file()));
    struct stat about {};
    ASSERT_EQ(stat(file().c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0600U);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST_F(IdentityFile, IsNeverWrittenOver) {
    const auto first = Identity::load_or_create(file());
    ASSERT_TRUE(first);
    EXPECT_TRUE(Identity::create()->save(file()).error().is(EEXIST));
    EXPECT_EQ(Identity::load_or_create(file())->name(), first->name());
}

TEST_F(IdentityFile, OthersMustNotReadIt) {
    ASSERT_TRUE(Identity::create()->save(file()));
    chmod(file().c_str(), 0640);
    const auto loaded = Identity::load(file());
    EXPECT_TRUE(loaded.error().is(EACCES));
    EXPECT_THAT(loaded.error().message, HasSubstr("chmod 600"));
    EXPECT_TRUE(Identity::load_or_create(file()).error().is(EACCES));
}

TEST_F(IdentityFile, BadFilesAreNamed) {
    EXPECT_TRUE(Identity::load(file()).error().is(ENOENT));
    EXPECT_TRUE(Identity::load_or_create(folder.at("none/x.pem")).error().is(ENOENT));
    folder.write("identity.pem", "-----BEGIN PRIVATE KEY-----\nrubbish\n");
    const auto loaded = Identity::load(file());
    EXPECT_TRUE(loaded.error().is(EBADMSG));
    EXPECT_THAT(loaded.error().message, HasSubstr(file().string()));
    EXPECT_TRUE(Identity::load_or_create(file()).error().is(EBADMSG));
}

TEST_F(IdentityFile, CertificateOfAnotherKeyIsRefused) {
    ASSERT_TRUE(Identity::create()->save(folder.at("a")));
    ASSERT_TRUE(Identity::create()->save(folder.at("b")));
    const auto a = folder.read("a");
    const auto b = folder.read("b");
    const std::string mark = "-----BEGIN CERTIFICATE-----";
    folder.write("identity.pem", a.substr(0, a.find(mark)) + b.substr(b.find(mark)));
    EXPECT_TRUE(Identity::load(file()).error().is(EBADMSG));
}

TEST(Name, OnlyAnEd25519KeyNamesAHost) {
    const Key rsa(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", std::size_t{2048}));
    const Certificate certificate(X509_new());
    ASSERT_EQ(X509_set_pubkey(certificate.get(), rsa.get()), 1);
    EXPECT_TRUE(Name::of(*certificate).error().is(EPROTO));
    const Certificate empty(X509_new());
    EXPECT_TRUE(Name::of(*empty).error().is(EPROTO));
}

TEST(Name, IsWrittenAndReadInHexadecimal) {
    const std::string text = "00ff" + std::string(60, 'a');
    EXPECT_EQ(Name::parse(text)->to_string(), text);
    for (const std::string bad : {"", "00", "0x", "zz"}) {
        EXPECT_TRUE(Name::parse(bad + std::string(62, 'a') + "!").error().is(EINVAL));
    }
    EXPECT_TRUE(Name::parse(std::string(64, 'g')).error().is(EINVAL));
    EXPECT_TRUE(Name::parse("+1" + std::string(62, 'a')).error().is(EINVAL));
}

PairPart part(std::uint8_t seed, const std::string& address) {
    std::array<std::uint8_t, 32> name{};
    name.fill(seed);
    PairPart p{.host = Name(name), .address = boost::asio::ip::make_address(address), .random = {}};
    p.random.fill(static_cast<std::uint8_t>(seed + 1));
    return p;
}

// The hash was made with Python's hashlib.
TEST(Pair, IdIsTheHashOfBothParts) {
    const auto a = part(0x11, "192.0.2.1");
    const auto b = part(0x22, "2001:db8::1");
    const PairId known{0x45, 0x11, 0x1a, 0x3f, 0x1b, 0x7d, 0xcf, 0x5b,
                       0xe5, 0x12, 0x50, 0x2b, 0xdd, 0x73, 0xae, 0xe7};
    EXPECT_EQ(pair_id(a, b), known);
    EXPECT_EQ(pair_id(b, a), known);
}

TEST(Pair, IdDependsOnEverything) {
    const auto a = part(0x11, "192.0.2.1");
    const auto b = part(0x22, "198.51.100.1");
    std::set<PairId> ids{pair_id(a, b)};
    auto changed = a;
    changed.random[15] ^= 1;
    EXPECT_TRUE(ids.insert(pair_id(changed, b)).second);
    changed = a;
    changed.address = boost::asio::ip::make_address("192.0.2.2");
    EXPECT_TRUE(ids.insert(pair_id(changed, b)).second);
    EXPECT_TRUE(ids.insert(pair_id(part(0x12, "192.0.2.1"), b)).second);
    auto other = b;
    other.random[0] ^= 1;
    EXPECT_TRUE(ids.insert(pair_id(a, other)).second);
}

TEST(Pair, ProofIsOfThisConnectionChannelRoleAndTheseHosts) {
    std::array<std::uint8_t, 32> connection{1};
    std::array<std::uint8_t, 32> channel{2};
    const auto a = part(0x11, "192.0.2.1").host;
    const auto b = part(0x22, "192.0.2.2").host;
    const auto proof = prove(connection, Role::Opener, channel, a, b);
    EXPECT_TRUE(equal(proof, prove(connection, Role::Opener, channel, a, b)));
    EXPECT_FALSE(equal(proof, prove(connection, Role::Accepter, channel, a, b)));
    EXPECT_FALSE(equal(proof, prove(connection, Role::Opener, channel, b, a)));
    channel[31] = 1;
    EXPECT_FALSE(equal(proof, prove(connection, Role::Opener, channel, a, b)));
    channel[31] = 0;
    connection[31] = 1;
    EXPECT_FALSE(equal(proof, prove(connection, Role::Opener, channel, a, b)));
}

TEST(Pace, WhoSaysTooMuchWaitsForIt) {
    constexpr Pace::Limit limit{.per_second = 10, .burst = 3};
    Pace::Time now{};
    Pace pace(limit, now);
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(pace.step(limit, now), 0s);
    }
    EXPECT_EQ(pace.step(limit, now), 100ms);
    EXPECT_EQ(pace.step(limit, now), 200ms) << "it has not waited";
    now += 200ms;
    EXPECT_EQ(pace.step(limit, now), 100ms);
    now += 1h;
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(pace.step(limit, now), 0s) << "no more than the burst is saved";
    }
    EXPECT_GT(pace.step(limit, now), 0s);
}

}  // namespace
}  // namespace mobility
