// SPDX-License-Identifier: GPL-2.0-or-later
// Client over a fake kernel, and the watch that follows migrations.
#include <gtest/gtest.h>

#include "fake_kernel.hpp"
#include "tcpmigrate/client.hpp"

using namespace tcpmigrate;
using Outcome = MigrationWatch::Outcome;

namespace {

Connection with(Connection conn, State state, Reason reason) {
    conn.state = state;
    conn.reason = reason;
    return conn;
}

Connection moved(Connection conn) {
    conn.reqno++;
    conn.migrations++;
    return conn;
}

Outcome outcome(const MigrationWatch& watch, std::uint64_t cookie) {
    return watch.entries().at(cookie).outcome;
}

}  // namespace

TEST(Client, ListIsSortedAndHasNoDoubles) {
    fake::Kernel kernel;
    kernel.connections = {fake::sample(20), fake::sample(17), fake::sample(20)};
    auto all = Client(fake::make_transport(kernel)).list();
    ASSERT_TRUE(all);
    ASSERT_EQ(all->size(), 2U);
    EXPECT_EQ((*all)[0].cookie, 17U);
}

TEST(Client, RepeatsAnInterruptedDump) {
    fake::Kernel kernel;
    kernel.connections = {fake::sample()};
    kernel.interrupted_dumps = 2;
    ASSERT_TRUE(Client(fake::make_transport(kernel)).list());
    EXPECT_EQ(kernel.requests.size(), 3U);
}

TEST(Client, ButNotForEver) {
    fake::Kernel kernel;
    kernel.connections = {fake::sample()};
    kernel.interrupted_dumps = 1000;
    auto all = Client(fake::make_transport(kernel)).list();
    ASSERT_TRUE(all);
    EXPECT_EQ(all->size(), 1U);
    EXPECT_EQ(kernel.requests.size(), 4U);
}

TEST(Client, ErrorsKeepTheErrno) {
    fake::Kernel kernel;
    auto missing = Client(fake::make_transport(kernel)).get(Cookie{5});
    ASSERT_FALSE(missing);
    EXPECT_TRUE(missing.error().is(ENOENT));
    kernel.refuse[TCP_MIGRATE_CMD_MIGRATE] = EBUSY;
    auto busy = Client(fake::make_transport(kernel)).migrate({Cookie{5}, {}, {}});
    ASSERT_FALSE(busy);
    EXPECT_TRUE(busy.error().is(EBUSY));
}

TEST(Watch, CommittedEventEndsIt) {
    MigrationWatch watch({fake::sample(17)});
    watch.observe(with(fake::sample(17), State::MigSent, Reason::Command));
    watch.observe(with(fake::sample(17), State::MigSent, Reason::RstHint));
    EXPECT_EQ(watch.pending(), 1U);
    watch.observe(with(moved(fake::sample(17)), State::MigConfirm, Reason::Committed));
    EXPECT_EQ(outcome(watch, 17), Outcome::Committed);
    EXPECT_EQ(watch.pending(), 0U);
    watch.observe(with(fake::sample(17), State::None, Reason::Closed));
    EXPECT_EQ(outcome(watch, 17), Outcome::Committed) << "what comes later does not count";
}

TEST(Watch, EveryWayToFail) {
    for (const auto reason :
         {Reason::Timeout, Reason::RstAuth, Reason::Retries, Reason::PathAlive, Reason::TrialFailed,
          Reason::TupleInUse, Reason::NoRoute, Reason::Closed, Reason::Aborted}) {
        MigrationWatch watch({fake::sample(17)});
        watch.observe(with(fake::sample(17), State::Idle, reason));
        EXPECT_EQ(outcome(watch, 17), Outcome::Failed) << to_string(reason);
    }
    MigrationWatch waiting({fake::sample(17)});
    waiting.observe(with(fake::sample(17), State::MigWait, Reason::Rst));
    EXPECT_EQ(outcome(waiting, 17), Outcome::Failed);
}

TEST(Watch, OthersAreIgnored) {
    MigrationWatch watch({fake::sample(17)});
    watch.observe(with(fake::sample(18), State::Idle, Reason::Committed));
    EXPECT_EQ(watch.pending(), 1U);
    EXPECT_EQ(watch.entries().size(), 1U);
}

TEST(Watch, ReconcileAfterLostEvents) {
    MigrationWatch watch({fake::sample(1), fake::sample(2), fake::sample(3), fake::sample(4)});
    watch.reconcile({moved(fake::sample(1)), with(fake::sample(2), State::MigSent, Reason::Command),
                     with(fake::sample(3), State::Idle, Reason::TrialFailed)},
                    true);
    EXPECT_EQ(outcome(watch, 1), Outcome::Committed);
    EXPECT_EQ(outcome(watch, 2), Outcome::Pending);
    EXPECT_EQ(outcome(watch, 3), Outcome::Failed);
    EXPECT_EQ(outcome(watch, 4), Outcome::Failed) << "it is gone";
    EXPECT_EQ(watch.entries().at(4).last.reason, Reason::Closed);
    EXPECT_TRUE(watch.any_failed());
}

TEST(Watch, RestingJustAfterTheCommandIsNoFailure) {
    MigrationWatch watch({fake::sample(1)});
    watch.reconcile({fake::sample(1)}, false);
    EXPECT_EQ(outcome(watch, 1), Outcome::Pending);
}

TEST(Netlink, UnpatchedKernelIsNamed) {
    auto transport = open_netlink_transport();
    if (transport) {
        GTEST_SKIP() << "this kernel has tcp_migrate";
    }
    EXPECT_TRUE(transport.error().is(ENOENT));
    EXPECT_NE(transport.error().message.find("tcp_migrate"), std::string::npos);
    EXPECT_FALSE(open_netlink_events());
}

TEST(Netlink, PatchedKernelAnswers) {
    auto client = Client::open();
    if (!client) {
        GTEST_SKIP() << client.error().message;
    }
    EXPECT_TRUE(client->list());
    auto missing = client->get(Cookie{0xfffffffffffffff});
    ASSERT_FALSE(missing);
    EXPECT_TRUE(missing.error().is(ENOENT));
}
