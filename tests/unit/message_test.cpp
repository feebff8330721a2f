// SPDX-License-Identifier: GPL-2.0-or-later
// Requests are read back with libnl's own parser; replies are built with libnl
// and read by our decoder, whole, cut short, shifted and damaged.
#include <gtest/gtest.h>

#include <algorithm>

#include "fake_kernel.hpp"

using namespace tcpmigrate;
using fake::parse_request;

namespace {

fake::Request sent(Result<NlMsg> msg) {
    EXPECT_TRUE(msg) << msg.error().message;
    return msg ? parse_request(*msg) : fake::Request{};
}

/// Every field set, and no two alike.
Connection full(bool v6) {
    Connection c = fake::sample(0x1122334455667788);
    c.local = *Endpoint::parse(v6 ? "[2001:db8::1]:5001" : "192.0.2.1:5001");
    c.remote = *Endpoint::parse(v6 ? "[2001:db8::2]:443" : "198.51.100.2:443");
    c.state = State::MigSent;
    c.reason = Reason::RstHint;
    c.tcp_state = 8;
    c.opener = false;
    c.reqno = 0x80000003;
    c.migrations = 4;
    c.peer_nat = true;
    c.peer_inner = PeerInner{{std::byte{10}, std::byte{0}, std::byte{0}, std::byte{9}}, 6000};
    c.token_local = 0xdeadbeef;
    c.token_remote = 0x00c0ffee;
    c.new_local = *Target::parse(v6 ? "[2001:db8::3]:7000" : "192.0.2.3:7000");
    c.new_remote = *Target::parse(v6 ? "2001:db8::4" : "198.51.100.4");
    c.if_index = 3;
    c.uid = 1000;
    c.inode = 0x9988776655443322;
    c.age_ms = 250;
    c.left_ms = 750;
    c.key_id = 2;
    c.key_mask = 5;
    c.error = ECONNRESET;
    return c;
}

void expect_same(const Connection& a, const Connection& b) {
    EXPECT_EQ(a.cookie, b.cookie);
    EXPECT_EQ(a.local, b.local);
    EXPECT_EQ(a.remote, b.remote);
    EXPECT_EQ(a.state, b.state);
    EXPECT_EQ(a.reason, b.reason);
    EXPECT_EQ(a.tcp_state, b.tcp_state);
    EXPECT_EQ(a.opener, b.opener);
    EXPECT_EQ(a.reqno, b.reqno);
    EXPECT_EQ(a.migrations, b.migrations);
    EXPECT_EQ(a.peer_nat, b.peer_nat);
    ASSERT_EQ(a.peer_inner.has_value(), b.peer_inner.has_value());
    if (a.peer_inner) {
        EXPECT_EQ(a.peer_inner->address, b.peer_inner->address);
        EXPECT_EQ(a.peer_inner->port, b.peer_inner->port);
    }
    EXPECT_EQ(a.token_local, b.token_local);
    EXPECT_EQ(a.token_remote, b.token_remote);
    EXPECT_EQ(a.new_local, b.new_local);
    EXPECT_EQ(a.new_remote, b.new_remote);
    EXPECT_EQ(a.if_index, b.if_index);
    EXPECT_EQ(a.uid, b.uid);
    EXPECT_EQ(a.inode, b.inode);
    EXPECT_EQ(a.age_ms, b.age_ms);
    EXPECT_EQ(a.left_ms, b.left_ms);
    EXPECT_EQ(a.key_id, b.key_id);
    EXPECT_EQ(a.key_mask, b.key_mask);
    EXPECT_EQ(a.error, b.error);
}

Bytes operator+(Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

}  // namespace

TEST(Encode, DumpAsksForAll) {
    const auto request = sent(encode_dump());
    EXPECT_EQ(request.command, TCP_MIGRATE_CMD_GET);
    EXPECT_EQ(request.flags & NLM_F_DUMP, NLM_F_DUMP);
    EXPECT_TRUE(request.attributes.empty());
}

TEST(Encode, NamesByCookieTokenAndTuple) {
    EXPECT_EQ(sent(encode_get(Cookie{0x1122334455667788})).u64(TCP_MIGRATE_A_CONN_COOKIE),
              0x1122334455667788U);
    EXPECT_EQ(sent(encode_abort(Token{0xdeadbeef})).u32(TCP_MIGRATE_A_CONN_TOKEN), 0xdeadbeefU);
    const auto tuple = sent(encode_export(
        Tuple{*Endpoint::parse("[2001:db8::1]:5000"), *Endpoint::parse("[2001:db8::2]:80")}));
    EXPECT_EQ(tuple.command, TCP_MIGRATE_CMD_EXPORT);
    EXPECT_EQ(tuple.address(TCP_MIGRATE_A_CONN_LOCAL_ADDR), "2001:db8::1");
    EXPECT_EQ(tuple.port(TCP_MIGRATE_A_CONN_LOCAL_PORT), 5000);
    EXPECT_EQ(tuple.address(TCP_MIGRATE_A_CONN_REMOTE_ADDR), "2001:db8::2");
    EXPECT_EQ(tuple.port(TCP_MIGRATE_A_CONN_REMOTE_PORT), 80);
    EXPECT_EQ(tuple.attributes.at(TCP_MIGRATE_A_CONN_FAMILY).at(0), std::byte{AF_INET6});
}

TEST(Encode, MigrateCarriesOnlyWhatIsGiven) {
    const auto bare = sent(encode_migrate({Cookie{1}, {}, {}}));
    EXPECT_EQ(bare.attributes.size(), 1U);
    MigrateRequest request{Cookie{1}, *Target::parse("192.0.2.9"),
                           *Target::parse("198.51.100.9:81")};
    request.if_index = 5;
    request.trial = true;
    const auto seen = sent(encode_migrate(request));
    EXPECT_EQ(seen.command, TCP_MIGRATE_CMD_MIGRATE);
    EXPECT_EQ(seen.address(TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR), "192.0.2.9");
    EXPECT_FALSE(seen.has(TCP_MIGRATE_A_CONN_NEW_LOCAL_PORT));
    EXPECT_EQ(seen.address(TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR), "198.51.100.9");
    EXPECT_EQ(seen.port(TCP_MIGRATE_A_CONN_NEW_REMOTE_PORT), 81);
    EXPECT_EQ(seen.u32(TCP_MIGRATE_A_CONN_IF_INDEX), 5U);
    EXPECT_EQ(seen.u32(TCP_MIGRATE_A_CONN_FLAGS), 1U);
    request.no_syn = true;
    EXPECT_EQ(sent(encode_migrate(request)).u32(TCP_MIGRATE_A_CONN_FLAGS), 3U);
}

TEST(Encode, MigrateAll) {
    MigrateAllRequest request;
    request.old_local = *Address::parse("192.0.2.1");
    request.remote = *Address::parse("198.51.100.2");
    request.new_local = *Address::parse("192.0.2.9");
    request.no_syn = true;
    const auto seen = sent(encode_migrate_all(request));
    EXPECT_EQ(seen.command, TCP_MIGRATE_CMD_MIGRATE_ALL);
    EXPECT_EQ(seen.address(TCP_MIGRATE_A_CONN_LOCAL_ADDR), "192.0.2.1");
    EXPECT_EQ(seen.address(TCP_MIGRATE_A_CONN_REMOTE_ADDR), "198.51.100.2");
    EXPECT_EQ(seen.address(TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR), "192.0.2.9");
    EXPECT_FALSE(seen.has(TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR));
    EXPECT_EQ(seen.u32(TCP_MIGRATE_A_CONN_FLAGS), 2U);
}

TEST(Encode, MixedFamiliesAreRefused) {
    auto tuple =
        encode_get(Tuple{*Endpoint::parse("192.0.2.1:1"), *Endpoint::parse("[2001:db8::2]:2")});
    ASSERT_FALSE(tuple);
    EXPECT_TRUE(tuple.error().is(EINVAL));
    EXPECT_FALSE(
        encode_migrate({Cookie{1}, *Target::parse("192.0.2.9"), *Target::parse("2001:db8::1")}));
    MigrateAllRequest all;
    all.old_local = *Address::parse("192.0.2.1");
    all.new_local = *Address::parse("2001:db8::9");
    EXPECT_FALSE(encode_migrate_all(all));
}

TEST(Encode, Key) {
    KeyRequest request;
    request.target = *Address::parse("198.51.100.2");
    request.key_id = 3;
    request.secret = *Secret::parse(std::string(32, 'k'));
    const auto seen = sent(encode_key(request));
    EXPECT_EQ(seen.address(TCP_MIGRATE_A_CONN_REMOTE_ADDR), "198.51.100.2");
    EXPECT_EQ(seen.u8(TCP_MIGRATE_A_CONN_KEY_ID), 3);
    EXPECT_EQ(seen.u8(TCP_MIGRATE_A_CONN_KEY_OP), TCP_MIGRATE_KEY_OP_ADD);
    EXPECT_EQ(seen.attributes.at(TCP_MIGRATE_A_CONN_KEY), Bytes(32, std::byte{'k'}));
    request.op = KeyOp::Promote;
    EXPECT_FALSE(encode_key(request)) << "a secret where none belongs";
    request.secret.reset();
    EXPECT_EQ(sent(encode_key(request)).u8(TCP_MIGRATE_A_CONN_KEY_OP), TCP_MIGRATE_KEY_OP_PROMOTE);
    request.op = KeyOp::Add;
    EXPECT_FALSE(encode_key(request)) << "no secret";
    request.op = KeyOp::Remove;
    for (const int id : {0, 4, 255}) {
        request.key_id = static_cast<std::uint8_t>(id);
        EXPECT_FALSE(encode_key(request)) << id;
    }
}

TEST(Decode, EveryField) {
    for (const bool v6 : {false, true}) {
        const auto message = fake::make_connection_message(TCP_MIGRATE_CMD_GET, full(v6));
        auto decoded = decode_connection(message);
        ASSERT_TRUE(decoded) << decoded.error().message;
        expect_same(*decoded, full(v6));
    }
}

TEST(Decode, OptionalFieldsAreAbsent) {
    auto decoded =
        decode_connection(fake::make_connection_message(TCP_MIGRATE_CMD_GET, fake::sample()));
    ASSERT_TRUE(decoded);
    expect_same(*decoded, fake::sample());
}

TEST(Decode, AtAnyAlignment) {
    const auto message = fake::make_connection_message(TCP_MIGRATE_CMD_GET, full(true));
    for (std::size_t shift = 0; shift < 8; shift++) {
        const auto shifted = Bytes(shift) + message;
        auto decoded = decode_connection(std::span(shifted).subspan(shift));
        ASSERT_TRUE(decoded);
        expect_same(*decoded, full(true));
    }
}

TEST(Decode, CutShortIsRefused) {
    const auto message = fake::make_connection_message(TCP_MIGRATE_CMD_GET, full(false));
    for (std::size_t size = 0; size < message.size(); size++) {
        const Bytes cut(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size));
        auto decoded = decode_connection(cut);
        ASSERT_FALSE(decoded) << size;
        EXPECT_TRUE(decoded.error().is(EBADMSG));
    }
}

TEST(Decode, UnknownAttributesAreSkippedAndDamagedOnesRefused) {
    auto with = [](std::uint16_t length, std::uint16_t type) {
        auto message = fake::make_connection_message(TCP_MIGRATE_CMD_GET, fake::sample());
        nlattr attribute{length, type};
        const auto* first = reinterpret_cast<const std::byte*>(&attribute);
        message.insert(message.end(), first, first + sizeof(attribute));
        nlmsghdr header{};
        std::memcpy(&header, message.data(), sizeof(header));
        header.nlmsg_len = static_cast<std::uint32_t>(message.size());
        std::memcpy(message.data(), &header, sizeof(header));
        return decode_connection(message);
    };
    EXPECT_TRUE(with(4, TCP_MIGRATE_A_CONN_MAX + 1));
    EXPECT_TRUE(with(4, 0x3fff));
    EXPECT_FALSE(with(5, 1)) << "longer than the message";
    EXPECT_FALSE(with(3, 1)) << "shorter than its header";
    EXPECT_FALSE(with(0, 1)) << "must not loop for ever";
}

TEST(Decode, NeedsAnIdentity) {
    const auto nothing = fake::make_message(TCP_MIGRATE_CMD_GET, [](nl_msg*) {});
    EXPECT_FALSE(decode_connection(nothing));
    auto odd = fake::sample();
    odd.remote = *Endpoint::parse("[2001:db8::1]:80");
    EXPECT_FALSE(decode_connection(fake::make_connection_message(TCP_MIGRATE_CMD_GET, odd)));
}

TEST(Decode, ExporterMustBeWhole) {
    auto exporter = [](int size) {
        return decode_export(fake::make_message(TCP_MIGRATE_CMD_EXPORT, [&](nl_msg* msg) {
            const Bytes value(40, std::byte{7});
            nla_put_u64(msg, TCP_MIGRATE_A_CONN_COOKIE, 17);
            nla_put(msg, TCP_MIGRATE_A_CONN_EXPORTER, size, value.data());
        }));
    };
    ASSERT_TRUE(exporter(32));
    EXPECT_EQ(exporter(32)->cookie, 17U);
    EXPECT_EQ(exporter(32)->exporter[31], std::byte{7});
    EXPECT_FALSE(exporter(31));
    EXPECT_FALSE(exporter(33));
}

TEST(Reply, MessagesThenAck) {
    Reply reply;
    const auto message = fake::make_connection_message(TCP_MIGRATE_CMD_GET, fake::sample());
    ASSERT_TRUE(absorb_datagram(message, fake::kSeq, reply));
    EXPECT_FALSE(reply.done);
    ASSERT_TRUE(absorb_datagram(fake::make_error_message(0), fake::kSeq, reply));
    EXPECT_TRUE(reply.done);
    EXPECT_FALSE(reply.error);
    EXPECT_EQ(reply.messages, std::vector<Bytes>{message});
}

TEST(Reply, SkipsOtherSequenceNumbers) {
    Reply reply;
    ASSERT_TRUE(absorb_datagram(fake::make_error_message(EPERM, "", 6), fake::kSeq, reply));
    EXPECT_FALSE(reply.done);
    EXPECT_FALSE(reply.error);
}

TEST(Reply, ErrorWithTheKernelsSentence) {
    Reply reply;
    ASSERT_TRUE(absorb_datagram(fake::make_error_message(EBUSY, "a trial is under way"), fake::kSeq,
                                reply));
    ASSERT_TRUE(reply.error);
    EXPECT_TRUE(reply.error->is(EBUSY));
    EXPECT_EQ(reply.error->message, "a trial is under way");
    Reply plain;
    ASSERT_TRUE(absorb_datagram(fake::make_error_message(EBUSY), fake::kSeq, plain));
    EXPECT_EQ(plain.error->message, std::strerror(EBUSY));
}

TEST(Reply, ImpossibleErrorNumberIsDamage) {
    for (const int error : {-1, 5000}) {
        Reply reply;
        EXPECT_FALSE(absorb_datagram(fake::make_error_message(error), fake::kSeq, reply)) << error;
    }
}

TEST(Reply, InterruptedDump) {
    Reply reply;
    ASSERT_TRUE(absorb_datagram(fake::make_done_message(NLM_F_DUMP_INTR), fake::kSeq, reply));
    EXPECT_TRUE(reply.done);
    EXPECT_TRUE(reply.interrupted);
}

TEST(Events, OnlyOfOurFamilyAndCommand) {
    const auto ours = fake::make_connection_message(TCP_MIGRATE_CMD_EVENT, fake::sample(1));
    const auto reply = fake::make_connection_message(TCP_MIGRATE_CMD_GET, fake::sample(2));
    const auto alien = fake::make_message(
        TCP_MIGRATE_CMD_EVENT, [](nl_msg*) {}, 0x20);
    auto events = decode_events(alien + reply + ours + ours, fake::kFamily);
    ASSERT_TRUE(events) << events.error().message;
    ASSERT_EQ(events->size(), 2U);
    EXPECT_EQ((*events)[0].cookie, 1U);
    EXPECT_FALSE(decode_events(ours + Bytes(3), fake::kFamily)) << "rubbish at the end";
}
