// SPDX-License-Identifier: GPL-2.0
/* TCP migration: KUnit tests of the parts without state.
 *
 * The vectors were computed by an independent implementation, which prints them
 * and checks that they are here (tests/kunit/vectors.py).
 */
#include <kunit/test.h>
#include <linux/tcp.h>
#include <linux/unaligned.h>

#include "tcp_migrate.h"

#define KEY_A	0x0102030405060708ULL
#define KEY_B	0x1112131415161718ULL

struct test_hdr {
	struct tcphdr	th;
	u8		opt[40];
};

static void set_options(struct test_hdr *h, const u8 *opt, unsigned int len)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->opt, opt, len);
	h->th.doff = (sizeof(struct tcphdr) + ALIGN(len, 4)) / 4;
}

static void permit_roundtrip(struct kunit *test)
{
	struct tcp_mig_opt opt;
	struct test_hdr h;
	u8 p[20];

	tcp_mig_put_permit(p, KEY_A, false, htonl(0x0a000001), htons(4321));
	set_options(&h, p, sizeof(p));
	KUNIT_ASSERT_TRUE(test, tcp_mig_parse(&h.th, &opt));
	KUNIT_EXPECT_EQ(test, opt.sub, TCPMIG_SUB_PERMIT);
	KUNIT_EXPECT_EQ(test, opt.key, KEY_A);
	KUNIT_EXPECT_TRUE(test, opt.addr == htonl(0x0a000001));
	KUNIT_EXPECT_TRUE(test, opt.port == htons(4321));
	KUNIT_EXPECT_EQ(test, p[0], 254);
	KUNIT_EXPECT_EQ(test, get_unaligned_be16(p + 2), TCPMIG_EXID);
}

/* A later version, or another algorithm, is an option that we do not know. */
static void permit_of_another_version(struct kunit *test)
{
	struct tcp_mig_opt opt;
	struct test_hdr h;
	u8 p[20];

	tcp_mig_put_permit(p, KEY_A, false, htonl(0x0a000001), htons(4321));
	for (p[5] = 1; p[5]; p[5]++) {
		set_options(&h, p, sizeof(p));
		KUNIT_EXPECT_FALSE(test, tcp_mig_parse(&h.th, &opt));
	}
}

static void mreq_roundtrip(struct kunit *test)
{
	struct tcp_mig_mreq m = {
		.sub = TCPMIG_SUB_MANS, .flags = TCPMIG_F_ROLE | 2,
		.reqno = 0x12345678, .token = 0xa1a2a3a4, .nonce = 0xb1b2b3b4,
		.addr = htonl(0xc0a80001), .port = htons(80),
	};
	struct tcp_mig_opt opt;
	struct test_hdr h;
	u8 p[28];

	tcp_mig_put_mreq(p, &m, 0xd1d2d3d4d5d6d7d8ULL);
	set_options(&h, p, sizeof(p));
	KUNIT_ASSERT_TRUE(test, tcp_mig_parse(&h.th, &opt));
	KUNIT_EXPECT_EQ(test, opt.sub, TCPMIG_SUB_MANS);
	KUNIT_EXPECT_EQ(test, opt.flags, TCPMIG_F_ROLE | 2);
	KUNIT_EXPECT_EQ(test, opt.key_id, 2);
	KUNIT_EXPECT_EQ(test, opt.reqno, 0x78);
	KUNIT_EXPECT_EQ(test, opt.token, 0xa1a2a3a4);
	KUNIT_EXPECT_EQ(test, opt.nonce, 0xb1b2b3b4);
	KUNIT_EXPECT_TRUE(test, opt.addr == m.addr);
	KUNIT_EXPECT_TRUE(test, opt.port == m.port);
	KUNIT_EXPECT_EQ(test, get_unaligned_be64(opt.raw + 14),
			0xd1d2d3d4d5d6d7d8ULL);
}

/* Every length but the right one makes the option unknown. */
static void every_length(struct kunit *test)
{
	static const u8 good[16] = {
		[TCPMIG_SUB_PERMIT] = 20, [TCPMIG_SUB_MREQ] = 28,
		[TCPMIG_SUB_CONFIRM] = 24, [TCPMIG_SUB_RST] = 16,
		[TCPMIG_SUB_ECHO] = 8, [TCPMIG_SUB_MANS] = 28,
	};
	struct tcp_mig_opt opt;
	struct test_hdr h;
	u8 p[40] = { 254, 0, 0x4d, 0x49 };
	int sub, len;

	for (sub = 0; sub < 16; sub++) {
		for (len = 0; len < 256; len++) {
			p[1] = len;
			p[4] = sub << 4;
			set_options(&h, p, 40);
			KUNIT_EXPECT_EQ_MSG(test, tcp_mig_parse(&h.th, &opt),
					    len && len == good[sub],
					    "sub %d length %d", sub, len);
		}
	}
}

/* An option that reaches beyond the header is not read. */
static void truncated(struct kunit *test)
{
	struct tcp_mig_opt opt;
	struct test_hdr h;
	u8 p[28];
	int doff;

	tcp_mig_put_mreq(p, &(struct tcp_mig_mreq){ .sub = TCPMIG_SUB_MREQ },
			 0);
	set_options(&h, p, sizeof(p));
	for (doff = 5; doff < 12; doff++) {
		h.th.doff = doff;
		KUNIT_EXPECT_FALSE(test, tcp_mig_parse(&h.th, &opt));
	}
	h.th.doff = 12;
	KUNIT_EXPECT_TRUE(test, tcp_mig_parse(&h.th, &opt));
}

static void behind_other_options(struct kunit *test)
{
	u8 p[40] = { 2, 4, 5, 0xb4, 1, 1, 4, 2, 254, 6, 0xf9, 0x89, 0, 0 };
	struct tcp_mig_opt opt;
	struct test_hdr h;

	p[14] = 1;
	p[15] = 1;
	tcp_mig_put_echo(p + 16, TCPMIG_F_ROLE, 0xabcdef);
	set_options(&h, p, 40);
	KUNIT_ASSERT_TRUE(test, tcp_mig_parse(&h.th, &opt));
	KUNIT_EXPECT_EQ(test, opt.sub, TCPMIG_SUB_ECHO);
	KUNIT_EXPECT_EQ(test, get_unaligned_be24(opt.raw + 5), 0xabcdef);
	p[15] = 0;	/* end of list before it */
	set_options(&h, p, 40);
	KUNIT_EXPECT_FALSE(test, tcp_mig_parse(&h.th, &opt));
}

static void reqno_extends(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, tcp_mig_reqno(0, 1), 1);
	KUNIT_EXPECT_EQ(test, tcp_mig_reqno(0xff, 0), 0x100);
	KUNIT_EXPECT_EQ(test, tcp_mig_reqno(0x100, 0xff), 0xff);
	KUNIT_EXPECT_EQ(test, tcp_mig_reqno(0x1234, 0x34), 0x1234);
	KUNIT_EXPECT_EQ(test, tcp_mig_reqno(0x12345678, 0x79), 0x12345679);
	KUNIT_EXPECT_EQ(test, tcp_mig_reqno(0xffffffff, 0), 0);
}

static void key0_vector(struct kunit *test)
{
	static const u8 want[32] = {
		0x50, 0x0c, 0xba, 0xc5, 0x3f, 0x37, 0x93, 0x62, 0x8c, 0x74,
		0x24, 0x0a, 0xa6, 0x51, 0xe2, 0xe8, 0xa2, 0xf8, 0xcb, 0x29,
		0xfa, 0x7e, 0xf6, 0xe6, 0x5b, 0xd7, 0x26, 0x1d, 0x27, 0x60,
		0xbb, 0xcd,
	};
	u8 key[32];

	tcp_mig_key0(key, KEY_A, KEY_B);
	KUNIT_EXPECT_MEMEQ(test, key, want, sizeof(want));
}

static void strong_vector(struct kunit *test)
{
	static const u8 want[32] = {
		0x5b, 0xac, 0xdf, 0xe2, 0x17, 0xc8, 0x31, 0xe5, 0x92, 0x1e,
		0xc2, 0x74, 0x15, 0xf8, 0x1e, 0x77, 0x7d, 0x61, 0xbd, 0xf6,
		0x8d, 0xfc, 0xbd, 0x0d, 0x81, 0x7f, 0xf1, 0x1a, 0x01, 0xa0,
		0x10, 0xf9,
	};
	u8 key[32], secret[32];

	memset(secret, 0x5a, sizeof(secret));
	tcp_mig_key_strong(key, secret, KEY_A, KEY_B);
	KUNIT_EXPECT_MEMEQ(test, key, want, sizeof(want));
}

static void exporter_vector(struct kunit *test)
{
	static const u8 want[32] = {
		0xe3, 0xa4, 0x80, 0x9d, 0x2c, 0xc8, 0x64, 0xc7, 0xb8, 0x64,
		0x07, 0x85, 0x71, 0x0a, 0x65, 0x64, 0x17, 0x28, 0xf9, 0x13,
		0xf7, 0x60, 0xfe, 0x79, 0x84, 0x44, 0x9d, 0x55, 0x3e, 0xf4,
		0x88, 0xe0,
	};
	u8 key[32], out[32];

	tcp_mig_key0(key, KEY_A, KEY_B);
	tcp_mig_exporter(out, key);
	KUNIT_EXPECT_MEMEQ(test, out, want, sizeof(want));
}

static void token_vectors(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, tcp_mig_token(KEY_A), 0x2dd894ed);
	KUNIT_EXPECT_EQ(test, tcp_mig_token(KEY_B), 0xc8508e68);
}

static void address_hash_vector(struct kunit *test)
{
	static const struct in6_addr addr = {	/* 2001:db8::1 */
		.s6_addr = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 },
	};

	KUNIT_EXPECT_EQ(test, ntohl(tcp_mig_addr_hash(KEY_A, &addr)),
			0xc810033d);
}

static void mac_vectors(struct kunit *test)
{
	static const u8 confirm[TCPMIG_LEN_CONFIRM_MAC] = {
		0x66, 0x0a, 0x40, 0x20, 0x1e, 0xe1, 0x9e, 0xa0, 0x9e, 0x75,
		0xca, 0xc1,
	};
	static const u8 held[TCPMIG_LEN_CONFIRM_MAC] = {
		0xd7, 0xdf, 0x88, 0x1f, 0xe5, 0xca, 0x43, 0x51, 0x08, 0x9b,
		0x16, 0x02,
	};
	struct tcp_mig_mreq m = {
		.sub = TCPMIG_SUB_MREQ, .flags = TCPMIG_F_ROLE,
		.reqno = 0x12345678, .token = 0xa1a2a3a4, .nonce = 0xb1b2b3b4,
		.asker_nonce = 0xc1c2c3c4, .addr = htonl(0xc0a80001),
		.port = htons(80), .seq = 0xd1d2d3d4,
	};
	u8 key[32], mac[TCPMIG_LEN_CONFIRM_MAC];

	memset(key, 0x5a, sizeof(key));
	KUNIT_EXPECT_EQ(test, tcp_mig_mac_mreq(key, &m), 0x5875512678d2fac3ULL);
	m.sub = TCPMIG_SUB_MANS;
	KUNIT_EXPECT_EQ(test, tcp_mig_mac_mreq(key, &m), 0x10ab88de945b6125ULL);
	KUNIT_EXPECT_EQ(test, tcp_mig_mac_rst(key, true, 0xd1d2d3d4),
			0x4136439498386465ULL);
	tcp_mig_mac_confirm(mac, key, true, 0x12345678, 0xb1b2b3b4, 0xc1c2c3c4,
			    0);
	KUNIT_EXPECT_MEMEQ(test, mac, confirm, sizeof(confirm));
	tcp_mig_mac_confirm(mac, key, true, 0x12345678, 0xb1b2b3b4, 0xc1c2c3c4,
			    0xe1e2);
	KUNIT_EXPECT_MEMEQ(test, mac, held, sizeof(held));
}

/* What the MAC must cover: a change of any field changes it. */
static void mac_covers(struct kunit *test)
{
	struct tcp_mig_mreq m = { .sub = TCPMIG_SUB_MANS };
	u8 key[32] = {};
	u64 mac = tcp_mig_mac_mreq(key, &m);
#define EXPECT_COVERED(field, value) do {				\
		struct tcp_mig_mreq n = m;				\
									\
		n.field = value;					\
		KUNIT_EXPECT_NE(test, tcp_mig_mac_mreq(key, &n), mac);	\
	} while (0)

	EXPECT_COVERED(sub, TCPMIG_SUB_MREQ);
	EXPECT_COVERED(flags, TCPMIG_F_ROLE);
	EXPECT_COVERED(reqno, 0x100);
	EXPECT_COVERED(token, 1);
	EXPECT_COVERED(nonce, 1);
	EXPECT_COVERED(asker_nonce, 1);
	EXPECT_COVERED(addr, htonl(1));
	EXPECT_COVERED(port, htons(1));
	EXPECT_COVERED(seq, 1);
	key[31] = 1;
	KUNIT_EXPECT_NE(test, tcp_mig_mac_mreq(key, &m), mac);
}

static u32 echo(u64 a, u64 b, u8 flags, u32 shift_a, u32 shift_b)
{
	return tcp_mig_echo_mac(a, b, flags, 0x21222324 + shift_a,
				0x31323334 + shift_b);
}

static void echo_covers(struct kunit *test)
{
	u32 mac = echo(KEY_A, KEY_B, TCPMIG_F_ROLE, 0, 0);

	KUNIT_EXPECT_EQ(test, mac, 0xd566e9);
	KUNIT_EXPECT_EQ(test, echo(KEY_A, KEY_B, 0, 0, 0), 0x4a8459);
	KUNIT_EXPECT_EQ(test, echo(KEY_A, KEY_B, TCPMIG_F_AGREED, 0, 0),
			0xada95f);
	KUNIT_EXPECT_EQ(test, echo(KEY_A, KEY_B,
				   TCPMIG_F_ROLE | TCPMIG_F_AGREED, 0, 0),
			0x287b9d);
	KUNIT_EXPECT_NE(test, echo(KEY_B, KEY_A, TCPMIG_F_ROLE, 0, 0), mac);
	KUNIT_EXPECT_NE(test, echo(KEY_A, KEY_B, TCPMIG_F_ROLE, 1, 0), mac);
	KUNIT_EXPECT_NE(test, echo(KEY_A, KEY_B, TCPMIG_F_ROLE, 0, 1), mac);
	KUNIT_EXPECT_NE(test, tcp_mig_token(KEY_A), tcp_mig_token(KEY_B));
}

static struct kunit_case tcp_migrate_cases[] = {
	KUNIT_CASE(permit_roundtrip),
	KUNIT_CASE(permit_of_another_version),
	KUNIT_CASE(mreq_roundtrip),
	KUNIT_CASE(every_length),
	KUNIT_CASE(truncated),
	KUNIT_CASE(behind_other_options),
	KUNIT_CASE(reqno_extends),
	KUNIT_CASE(key0_vector),
	KUNIT_CASE(strong_vector),
	KUNIT_CASE(exporter_vector),
	KUNIT_CASE(token_vectors),
	KUNIT_CASE(address_hash_vector),
	KUNIT_CASE(mac_vectors),
	KUNIT_CASE(mac_covers),
	KUNIT_CASE(echo_covers),
	{}
};

static struct kunit_suite tcp_migrate_suite = {
	.name = "tcp-migrate",
	.test_cases = tcp_migrate_cases,
};

kunit_test_suite(tcp_migrate_suite);
