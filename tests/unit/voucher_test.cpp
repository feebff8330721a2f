// SPDX-License-Identifier: GPL-2.0-or-later
// Vouchers: which are good for whom, and when; for whom a server signs them.
#include "libmobility/voucher.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "admission/vouching.hpp"

namespace mobility {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr Name kHost({1});
constexpr Name kOther({2});

class VoucherTest : public testing::Test {
  protected:
    /// For `host`, from so long after now.
    [[nodiscard]] Voucher voucher(seconds since = seconds(0), seconds good_for = hours(1),
                                  const Name& host = kHost) const {
        return *vouch(server, host, now + since, now + since + good_for);
    }
    [[nodiscard]] Result<Vouched> check(const std::vector<Voucher>& shown,
                                        const Name& host = kHost) const {
        return check_vouchers(shown, host, {server.name()}, now);
    }
    [[nodiscard]] std::string why_not(const Voucher& shown, const Name& host = kHost) const {
        const auto checked = check({shown}, host);
        EXPECT_FALSE(checked);
        EXPECT_TRUE(checked || checked.error().is(EACCES));
        return checked ? "" : checked.error().message;
    }

    Identity server = std::move(*Identity::create());
    std::chrono::sys_seconds now{hours(500'000)};
};

TEST_F(VoucherTest, SaysWhoVouchesAndUntilWhen) {
    const auto checked = check({voucher()});
    ASSERT_TRUE(checked) << checked.error().message;
    EXPECT_EQ(*checked, (Vouched{server.name(), now + hours(1)}));
}

TEST_F(VoucherTest, IsOfNoUseToAnotherHost) {
    EXPECT_THAT(why_not(voucher(), kOther), HasSubstr("not signed by that server for this host"));
}

TEST_F(VoucherTest, OfAServerThatIsNotTrustedIsNone) {
    const auto another = Identity::create();
    const auto foreign = *vouch(*another, kHost, now, now + hours(1));
    EXPECT_TRUE(check({foreign}).error().is(ENOENT));
    EXPECT_TRUE(check({}).error().is(ENOENT));
    EXPECT_TRUE(check({foreign, voucher()})) << "it does not harm the others";
    // Nor is one that only names the right one.
    auto borrowed = foreign;
    borrowed.server = voucher().server;
    EXPECT_THAT(why_not(borrowed), HasSubstr("not signed"));
}

TEST_F(VoucherTest, NothingOfItCanBeChanged) {
    const auto good = voucher();
    auto changed = good;
    changed.expires += seconds(1);
    EXPECT_THAT(why_not(changed), HasSubstr("not signed"));
    changed = good;
    changed.since -= seconds(1);
    EXPECT_THAT(why_not(changed), HasSubstr("not signed"));
    for (std::size_t i = 0; i < good.signature.size(); i++) {
        changed = good;
        changed.signature.at(i) ^= 1;
        EXPECT_THAT(why_not(changed), HasSubstr("not signed")) << i;
    }
}

TEST_F(VoucherTest, ItsTimeIsOverWhenTheClocksCannotDifferSoMuch) {
    EXPECT_TRUE(check({voucher(-hours(1) - minutes(10))}));
    EXPECT_THAT(why_not(voucher(-hours(1) - minutes(10) - seconds(1))), HasSubstr("has expired"));
    EXPECT_TRUE(check({voucher(minutes(10))}));
    EXPECT_THAT(why_not(voucher(minutes(10) + seconds(1))), HasSubstr("not good yet"));
    const Vouched vouched{kOther, now};
    EXPECT_TRUE(vouched.good(now + minutes(10)));
    EXPECT_FALSE(vouched.good(now + minutes(10) + seconds(1)));
}

TEST_F(VoucherTest, ForTooLongOrForNoTimeIsNotTaken) {
    EXPECT_TRUE(check({voucher(seconds(0), hours(7 * 24))}));
    EXPECT_THAT(why_not(voucher(seconds(0), hours(7 * 24) + seconds(1))), HasSubstr("7 days"));
    EXPECT_THAT(why_not(voucher(seconds(0), seconds(0))), HasSubstr("no time"));
    EXPECT_THAT(why_not(voucher(seconds(0), -hours(1))), HasSubstr("no time"));
    // As far as a decoder goes.
    EXPECT_THAT(why_not(voucher(seconds(0), seconds(1LL << 48))), HasSubstr("7 days"));
}

TEST_F(VoucherTest, AForgedOneIsTheLastThatIsLookedAt) {
    auto forged = voucher();
    forged.signature[0] ^= 1;
    EXPECT_FALSE(check({forged, voucher()}));
    EXPECT_TRUE(check({voucher(-hours(9)), voucher()})) << "one that has expired is honest";
}

/// The server's side.
class VouchingTest : public VoucherTest {
  protected:
    using Hosts = server::VouchingConfig::Hosts;
    using As = server::Admitted::As;

    [[nodiscard]] bool vouches(Hosts hosts, As as) const {
        const server::Vouching vouching(server, {hosts, hours(2)});
        return vouching.voucher(as, kHost, now)->has_value();
    }
};

TEST_F(VouchingTest, SignsForThoseThatItIsToldTo) {
    for (const auto hosts : {Hosts::Nobody, Hosts::Listed, Hosts::Admitted}) {
        EXPECT_EQ(vouches(hosts, As::Listed), hosts != Hosts::Nobody);
        EXPECT_EQ(vouches(hosts, As::Enrolled), hosts == Hosts::Admitted);
        EXPECT_FALSE(vouches(hosts, As::Guest)) << "hosts let them in";
        EXPECT_FALSE(vouches(hosts, As::Nobody));
    }
    const server::Vouching vouching(server, {Hosts::Listed, hours(2)});
    EXPECT_EQ(*check({**vouching.voucher(As::Listed, kHost, now)}),
              (Vouched{server.name(), now + hours(2)}));
}

TEST_F(VouchingTest, ByDefaultForNobody) {
    EXPECT_FALSE(*server::Vouching(server, {}).voucher(As::Listed, kHost, now));
}

}  // namespace
}  // namespace mobility
