// SPDX-License-Identifier: GPL-2.0
/* TCP migration: the option's bytes and the MACs over them.
 *
 * Nothing here knows a socket; everything is covered by KUnit
 * (tcp_migrate_test.c). The layouts are those of docs/protocol.md: kind 254
 * (RFC 6994), length, ExID, then a nibble that names the form and a nibble of
 * flags. A length that does not fit its form makes the option unknown, as RFC
 * 9293 3.1 wants of options one does not understand.
 */
#include <linux/siphash.h>
#include <linux/unaligned.h>
#include <crypto/sha2.h>

#include "tcp_migrate.h"

static u8 tcp_mig_sub_len(u8 sub)
{
	switch (sub) {
	case TCPMIG_SUB_PERMIT:
		return TCPMIG_LEN_PERMIT;
	case TCPMIG_SUB_MREQ:
	case TCPMIG_SUB_MANS:
		return TCPMIG_LEN_MREQ;
	case TCPMIG_SUB_CONFIRM:
		return TCPMIG_LEN_CONFIRM;
	case TCPMIG_SUB_RST:
		return TCPMIG_LEN_RST;
	case TCPMIG_SUB_ECHO:
		return TCPMIG_LEN_ECHO;
	}
	return 0;
}

/* Of a length that fits its form, and of the version that we speak? */
static bool tcp_mig_known(const u8 *p, u8 len)
{
	u8 sub = p[4] >> 4;

	return len == tcp_mig_sub_len(sub) &&
	       (sub != TCPMIG_SUB_PERMIT || p[5] == TCPMIG_VERSION);
}

static void tcp_mig_decode(const u8 *p, struct tcp_mig_opt *opt)
{
	opt->raw = p;
	opt->sub = p[4] >> 4;
	opt->flags = p[4] & 0xf;
	opt->key_id = p[4] & TCPMIG_F_KEYID;
	opt->reqno = p[5];

	switch (opt->sub) {
	case TCPMIG_SUB_PERMIT:
		memcpy(&opt->port, p + 6, 2);
		memcpy(&opt->addr, p + 8, 4);
		opt->key = get_unaligned_be64(p + 12);
		break;
	case TCPMIG_SUB_MREQ:
	case TCPMIG_SUB_MANS:
		opt->token = get_unaligned_be32(p + 6);
		opt->nonce = get_unaligned_be32(p + 10);
		memcpy(&opt->port, p + 22, 2);
		memcpy(&opt->addr, p + 24, 4);
		break;
	case TCPMIG_SUB_CONFIRM:
		opt->held = get_unaligned_be16(p + 6);
		opt->token = get_unaligned_be32(p + 8);
		break;
	}
}

/**
 * tcp_mig_parse() - find our option in a TCP header
 * @th: header; th->doff * 4 bytes are readable
 * @opt: filled in if one is found; opt->raw points into the header
 *
 * Return: true if a well-formed option of ours is there. The first one counts.
 */
bool tcp_mig_parse(const struct tcphdr *th, struct tcp_mig_opt *opt)
{
	const u8 *p = (const u8 *)(th + 1);
	int left = th->doff * 4 - sizeof(*th);

	while (left > 0) {
		u8 len;

		if (*p == TCPOPT_EOL)
			return false;
		if (*p == TCPOPT_NOP) {
			p++;
			left--;
			continue;
		}
		if (left < 2)
			return false;
		len = p[1];
		if (len < 2 || len > left)
			return false;
		if (*p == TCPOPT_EXP && len >= TCPMIG_LEN_ECHO &&
		    get_unaligned_be16(p + 2) == TCPMIG_EXID &&
		    tcp_mig_known(p, len)) {
			tcp_mig_decode(p, opt);
			return true;
		}
		p += len;
		left -= len;
	}
	return false;
}

static void tcp_mig_head(u8 *p, u8 len, u8 sub, u8 flags)
{
	p[0] = TCPOPT_EXP;
	p[1] = len;
	put_unaligned_be16(TCPMIG_EXID, p + 2);
	p[4] = sub << 4 | flags;
}

void tcp_mig_put_permit(u8 *p, u64 key, bool v6, __be32 addr, __be16 port)
{
	tcp_mig_head(p, TCPMIG_LEN_PERMIT, TCPMIG_SUB_PERMIT,
		     v6 ? TCPMIG_F_V6 : 0);
	p[5] = TCPMIG_VERSION;
	memcpy(p + 6, &port, 2);
	memcpy(p + 8, &addr, 4);
	put_unaligned_be64(key, p + 12);
}

void tcp_mig_put_mreq(u8 *p, const struct tcp_mig_mreq *m, u64 mac)
{
	tcp_mig_head(p, TCPMIG_LEN_MREQ, m->sub, m->flags);
	p[5] = m->reqno;
	put_unaligned_be32(m->token, p + 6);
	put_unaligned_be32(m->nonce, p + 10);
	put_unaligned_be64(mac, p + 14);
	memcpy(p + 22, &m->port, 2);
	memcpy(p + 24, &m->addr, 4);
}

void tcp_mig_put_confirm(u8 *p, u8 flags, u32 reqno, u16 held, u32 token,
			 const u8 mac[TCPMIG_LEN_CONFIRM_MAC])
{
	tcp_mig_head(p, TCPMIG_LEN_CONFIRM, TCPMIG_SUB_CONFIRM, flags);
	p[5] = reqno;
	put_unaligned_be16(held, p + 6);
	put_unaligned_be32(token, p + 8);
	memcpy(p + 12, mac, TCPMIG_LEN_CONFIRM_MAC);
}

void tcp_mig_put_rst(u8 *p, u8 flags, u64 mac)
{
	tcp_mig_head(p, TCPMIG_LEN_RST, TCPMIG_SUB_RST, flags);
	memset(p + 5, 0, 3);
	put_unaligned_be64(mac, p + 8);
}

void tcp_mig_put_echo(u8 *p, u8 flags, u32 mac24)
{
	tcp_mig_head(p, TCPMIG_LEN_ECHO, TCPMIG_SUB_ECHO, flags);
	put_unaligned_be24(mac24, p + 5);
}

/* The token is public, the key is not: SipHash is a PRF under the key, and
 * 64 bits of key bound the security of either in any case.
 */
u32 tcp_mig_token(u64 key)
{
	siphash_key_t k = { { key, 0x5443504d746f6b6eULL /* TCPMtokn */ } };

	return (u32)siphash_1u32(0, &k);
}

/* 24 bits are enough: a false ECHO only makes the server believe that a path
 * carries the option, and needs the path. The ISNs as an end sees them: a box
 * that shifts sequence numbers would corrupt the stream when the connection
 * leaves its path, and makes RSTs and requests fail on it.
 */
u32 tcp_mig_echo_mac(u64 key_active, u64 key_passive, u8 flags,
		     u32 isn_active, u32 isn_passive)
{
	siphash_key_t k = { { key_active, key_passive } };

	return (u32)siphash_3u32(flags, isn_active, isn_passive, &k) & 0xffffff;
}

__be32 tcp_mig_addr_hash(u64 key, const struct in6_addr *addr)
{
	siphash_key_t k = { { key, ~key } };
	u64 hi = get_unaligned_be64(&addr->s6_addr[0]);
	u64 lo = get_unaligned_be64(&addr->s6_addr[8]);

	return cpu_to_be32((u32)(siphash_2u64(hi, lo, &k) >> 32));
}

/* HMAC-SHA256 (RFC 2104) for keys of 32 bytes and messages of one block. */
static void tcp_mig_hmac(u8 out[SHA256_DIGEST_SIZE],
			 const u8 key[TCPMIG_KEY_LEN], const u8 *msg,
			 unsigned int len)
{
	u8 block[SHA256_BLOCK_SIZE + SHA256_BLOCK_SIZE];
	int i;

	memset(block, 0, SHA256_BLOCK_SIZE);
	memcpy(block, key, TCPMIG_KEY_LEN);
	for (i = 0; i < SHA256_BLOCK_SIZE; i++)
		block[i] ^= 0x36;
	memcpy(block + SHA256_BLOCK_SIZE, msg, len);
	sha256(block, SHA256_BLOCK_SIZE + len, out);

	for (i = 0; i < SHA256_BLOCK_SIZE; i++)
		block[i] ^= 0x36 ^ 0x5c;
	memcpy(block + SHA256_BLOCK_SIZE, out, SHA256_DIGEST_SIZE);
	sha256(block, SHA256_BLOCK_SIZE + SHA256_DIGEST_SIZE, out);
	memzero_explicit(block, sizeof(block));
}

static void tcp_mig_key_pair(u8 p[16], u64 key_active, u64 key_passive)
{
	put_unaligned_be64(key_active, p);
	put_unaligned_be64(key_passive, p + 8);
}

/* K0 = HMAC(key_active | key_passive | 0.., "TCPM v0") */
void tcp_mig_key0(u8 out[TCPMIG_KEY_LEN], u64 key_active, u64 key_passive)
{
	u8 key[TCPMIG_KEY_LEN] = {};

	tcp_mig_key_pair(key, key_active, key_passive);
	tcp_mig_hmac(out, key, "TCPM v0", 7);
	memzero_explicit(key, sizeof(key));
}

/* Ks = HMAC(secret, "TCPM v1" | key_active | key_passive) */
void tcp_mig_key_strong(u8 out[TCPMIG_KEY_LEN], const u8 secret[TCPMIG_KEY_LEN],
			u64 key_active, u64 key_passive)
{
	u8 msg[7 + 16] = "TCPM v1";

	tcp_mig_key_pair(msg + 7, key_active, key_passive);
	tcp_mig_hmac(out, secret, msg, sizeof(msg));
	memzero_explicit(msg, sizeof(msg));
}

/* One-way: whoever learns it cannot migrate the connection. */
void tcp_mig_exporter(u8 out[TCPMIG_KEY_LEN], const u8 key0[TCPMIG_KEY_LEN])
{
	tcp_mig_hmac(out, key0, "TCPM exporter", 13);
}

static u64 tcp_mig_mac64(const u8 key[TCPMIG_KEY_LEN], const u8 *msg, int len)
{
	u8 mac[SHA256_DIGEST_SIZE];

	tcp_mig_hmac(mac, key, msg, len);
	return get_unaligned_be64(mac);
}

/* Not covered, because NAPTs and proxies change them: outer addresses and
 * ports, the ACK, window, MSS and window scale. Covered: SEG.SEQ, so that a
 * box that shifts sequence numbers cannot corrupt the stream unseen.
 */
u64 tcp_mig_mac_mreq(const u8 key[TCPMIG_KEY_LEN], const struct tcp_mig_mreq *m)
{
	u8 msg[32] = "MREQ";

	msg[4] = m->sub << 4 | m->flags;
	put_unaligned_be32(m->reqno, msg + 5);
	put_unaligned_be32(m->token, msg + 9);
	put_unaligned_be32(m->nonce, msg + 13);
	memcpy(msg + 17, &m->port, 2);
	memcpy(msg + 19, &m->addr, 4);
	put_unaligned_be32(m->seq, msg + 23);
	put_unaligned_be32(m->sub == TCPMIG_SUB_MANS ? m->asker_nonce : 0,
			   msg + 27);
	return tcp_mig_mac64(key, msg, 31);
}

void tcp_mig_mac_confirm(u8 out[TCPMIG_LEN_CONFIRM_MAC],
			 const u8 key[TCPMIG_KEY_LEN], bool role, u32 reqno,
			 u32 nonce_own, u32 nonce_peer, u16 held)
{
	u8 mac[SHA256_DIGEST_SIZE];
	u8 msg[19] = "CONF";

	msg[4] = role;
	put_unaligned_be32(reqno, msg + 5);
	put_unaligned_be32(nonce_own, msg + 9);
	put_unaligned_be32(nonce_peer, msg + 13);
	put_unaligned_be16(held, msg + 17);
	tcp_mig_hmac(mac, key, msg, held ? 19 : 17);
	memcpy(out, mac, TCPMIG_LEN_CONFIRM_MAC);
}

u64 tcp_mig_mac_rst(const u8 key[TCPMIG_KEY_LEN], bool role, u32 seq)
{
	u8 msg[8] = "RST";

	msg[3] = role;
	put_unaligned_be32(seq, msg + 4);
	return tcp_mig_mac64(key, msg, sizeof(msg));
}
