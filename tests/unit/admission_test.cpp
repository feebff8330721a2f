// SPDX-License-Identifier: GPL-2.0-or-later
// Who may use a server: lists, tokens, tickets.
#include "admission/admission.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "temporary.hpp"

namespace mobility::server {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using testing::HasSubstr;
using As = Admitted::As;
using Clock = std::chrono::system_clock;

constexpr Name kHost({1});
constexpr Name kOther({2});
constexpr PairId kPair{7};
constexpr const char* kToken = "0123456789abcdef";

class AdmissionTest : public testing::Test {
  protected:
    Admission load() {
        auto loaded = Admission::load(files());
        EXPECT_TRUE(loaded) << loaded.error().message;
        return std::move(*loaded);
    }
    [[nodiscard]] AdmissionFiles files() const {
        return {dir.at("hosts"), dir.at("tokens"), dir.at("enrolled")};
    }
    [[nodiscard]] std::string load_error() const {
        const auto loaded = Admission::load(files());
        return loaded ? "" : loaded.error().message;
    }
    [[nodiscard]] Ticket ticket(const Name& guest, Clock::time_point expires) const {
        return *issue(issuer, guest, kPair,
                      std::chrono::time_point_cast<std::chrono::seconds>(expires));
    }
    static Hello with(std::string token, std::vector<Ticket> tickets = {}) {
        return {kVersion, "test", std::move(token), std::move(tickets)};
    }

    Temporary dir;
    Identity issuer = std::move(*Identity::create());
    Clock::time_point now = Clock::now();
};

TEST_F(AdmissionTest, NobodyWithoutFiles) {
    const auto admitted = load().admit(kHost, with(""), now);
    EXPECT_EQ(admitted->as, As::Nobody);
    EXPECT_THAT(admitted->why_not, HasSubstr("neither listed"));
}

TEST_F(AdmissionTest, ListedHostsAndRemarks) {
    dir.write("hosts", "# all of ours\n\n  " + kHost.to_string() + " laptop\n" +
                           Name({3}).to_string() + "\n");
    auto admission = load();
    EXPECT_EQ(admission.admit(kHost, with(""), now)->as, As::Listed);
    EXPECT_EQ(admission.admit(Name({3}), with(""), now)->as, As::Listed);
    EXPECT_EQ(admission.admit(kOther, with(""), now)->as, As::Nobody);
}

TEST_F(AdmissionTest, TokenEnrolsForGood) {
    dir.write("tokens", std::string(kToken) + " for the office\n");
    auto admission = load();
    EXPECT_EQ(admission.admit(kHost, with("0123456789abcdeF"), now)->as, As::Nobody);
    EXPECT_EQ(admission.admit(kHost, with(""), now)->as, As::Nobody);
    EXPECT_EQ(admission.admit(kHost, with(kToken), now)->as, As::Enrolled);
    EXPECT_EQ(dir.read("enrolled"), kHost.to_string() + "\n");
    dir.write("tokens", "");
    EXPECT_TRUE(admission.reload());
    EXPECT_EQ(admission.admit(kHost, with(kToken), now)->as, As::Enrolled);
    EXPECT_EQ(admission.admit(kOther, with(kToken), now)->as, As::Nobody);
    EXPECT_EQ(load().admit(kHost, with(""), now)->as, As::Enrolled);
    EXPECT_EQ(dir.read("enrolled"), kHost.to_string() + "\n");
}

TEST_F(AdmissionTest, EnrolmentThatCannotBeWrittenFails) {
    dir.write("tokens", kToken);
    auto admission = load();
    std::filesystem::create_directory(dir.at("enrolled"));
    const auto admitted = admission.admit(kHost, with(kToken), now);
    ASSERT_FALSE(admitted);
    EXPECT_THAT(admitted.error().message, HasSubstr(dir.at("enrolled").string()));
    EXPECT_FALSE(admission.knows(kHost));
}

TEST_F(AdmissionTest, TicketLetsAGuestSpeakOfItsPair) {
    dir.write("hosts", issuer.name().to_string());
    auto admission = load();
    const auto admitted = admission.admit(kHost, with("", {ticket(kHost, now + hours(1))}), now);
    EXPECT_EQ(admitted->as, As::Guest);
    EXPECT_EQ(admitted->pairs, (std::map<PairId, Name>{{kPair, issuer.name()}}));
    EXPECT_FALSE(admission.knows(kHost));
}

TEST_F(AdmissionTest, BadTicketsAdmitNobodyAndSayWhy) {
    dir.write("hosts", issuer.name().to_string());
    auto admission = load();
    const auto why_not = [&](const Ticket& one) {
        const auto admitted = admission.admit(kHost, with("", {one}), now);
        EXPECT_EQ(admitted->as, As::Nobody);
        return admitted->why_not;
    };
    EXPECT_THAT(why_not(ticket(kOther, now + hours(1))), HasSubstr("another host's"));
    EXPECT_THAT(why_not(ticket(kHost, now - minutes(11))), HasSubstr("expired"));
    auto changed = ticket(kHost, now + hours(1));
    changed.pair[0] ^= 1;
    EXPECT_THAT(why_not(changed), HasSubstr("not signed"));
    changed = ticket(kHost, now - hours(1));
    changed.expires += hours(2);
    EXPECT_THAT(why_not(changed), HasSubstr("not signed"));
    const auto stranger = Identity::create();
    changed = *issue(*stranger, kHost, kPair, changed.expires);
    EXPECT_THAT(why_not(changed), HasSubstr("issuer is not admitted"));
}

TEST_F(AdmissionTest, ClocksMayDiffer) {
    dir.write("hosts", issuer.name().to_string());
    EXPECT_TRUE(*load().admit(kHost, with("", {ticket(kHost, now - minutes(9))}), now));
}

TEST_F(AdmissionTest, ATicketMayNeverEnd) {
    dir.write("hosts", issuer.name().to_string());
    const std::chrono::sys_seconds last(std::chrono::seconds(1LL << 48));  // as a decoder gives out
    EXPECT_TRUE(*load().admit(kHost, with("", {*issue(issuer, kHost, kPair, last)}), now));
}

TEST_F(AdmissionTest, GuestsAdmitNobody) {
    dir.write("hosts", issuer.name().to_string());
    auto admission = load();
    const auto guest = Identity::create();
    const auto first = ticket(guest->name(), now + hours(1));
    EXPECT_TRUE(*admission.admit(guest->name(), with("", {first}), now));
    const auto second = *issue(*guest, kHost, kPair, first.expires);
    EXPECT_FALSE(*admission.admit(kHost, with("", {second}), now));
}

TEST_F(AdmissionTest, BadFilesAreRefusedWithTheirLine) {
    dir.write("hosts", "# a remark\nlaptop\n");
    EXPECT_THAT(load_error(), HasSubstr(dir.at("hosts").string() + ":2: \"laptop\""));
    dir.write("hosts", "");
    dir.write("tokens", "short\n");
    EXPECT_THAT(load_error(), HasSubstr("tokens:1: a token has 16 to 256"));
    dir.write("tokens", kToken);
    std::filesystem::permissions(dir.at("tokens"), std::filesystem::perms::others_read,
                                 std::filesystem::perm_options::add);
    EXPECT_THAT(load_error(), HasSubstr("chmod"));
}

TEST_F(AdmissionTest, BadReloadChangesNothing) {
    dir.write("hosts", kHost.to_string());
    auto admission = load();
    dir.write("hosts", kOther.to_string() + "\nnonsense\n");
    EXPECT_TRUE(admission.reload().error().is(EBADMSG));
    EXPECT_TRUE(admission.knows(kHost));
    EXPECT_FALSE(admission.knows(kOther));
}

TEST(Ticket, SaysWhoHasIssuedIt) {
    const auto issuer = Identity::create();
    const auto made = issue(*issuer, kHost, kPair, {});
    ASSERT_TRUE(made);
    EXPECT_EQ(*issuer_of(*made), issuer->name());
    EXPECT_TRUE(is_signed(*made));
    for (std::size_t i = 0; i < made->signature.size(); i++) {
        auto changed = *made;
        changed.signature.at(i) ^= 1;
        EXPECT_FALSE(is_signed(changed)) << i;
    }
}

}  // namespace
}  // namespace mobility::server
