// SPDX-License-Identifier: GPL-2.0
/* TCP migration: the three steps over a new path, at both ends.
 *
 *   initiator                                   peer
 *   MIG_SENT     -- MSYN: MREQ(ReqNo, nonce) ->  pend (thesis: SYN_RECV)
 *   commit      <-- MSYN,ACK: MANS(nonce')  --
 *   MIG_CONFIRM  -- CONFIRM(nonce, nonce')  ->   commit
 *   IDLE        <-- ACK: CONFIRM(nonce',..) --   IDLE
 *
 * A request without SYN goes the same way over the current tuple. An MREQ that
 * comes as SYN,ACK is somebody else's request, which a symmetric proxy has
 * spliced with ours: it is not bound to our nonce, so that end commits only on
 * the peer's CONFIRM.
 *
 * All functions run with the socket locked and BH disabled.
 */
#include <crypto/algapi.h>
#include <linux/tcp.h>
#include <linux/unaligned.h>
#include <net/tcp.h>

#include "tcp_migrate.h"

/* Is the peer's request @reqno newer than what was last committed? Both ends
 * may have used the same number at once: the active opener's wins, or each
 * would refuse the other's for ever.
 */
bool tcp_mig_newer(const struct tcp_migrate *mig, u32 reqno)
{
	return after(reqno, mig->committed) ||
	       (reqno == mig->committed && mig->committed_own && !mig->role);
}

void tcp_mig_set_committed(struct tcp_migrate *mig, u32 reqno, bool own)
{
	mig->committed = reqno;
	mig->committed_own = own;
	mig->believes = 1;
	mig->echo = 0;
}

/* What the next segment of the peer on this path begins after. */
void tcp_mig_begin_path(struct sock *sk, struct tcp_migrate *mig,
			u32 peer_isn)
{
	struct tcp_sock *tp = tcp_sk(sk);

	tcp_mstamp_refresh(tp);
	mig->path_rcv = peer_isn + 1;
	mig->path_ts = tcp_time_stamp_ts(tp);
	mig->moved = tcp_jiffies32;
	mig->ts_left = tp->rx_opt.ts_recent;
	mig->clamp = before(mig->path_rcv, tcp_mig_rcv_end(tp));
	mig->migrations++;
}

void tcp_mig_put_signed_mreq(const struct tcp_migrate *mig, u8 key_id,
			     const struct tcp_mig_mreq *m, u8 *opt)
{
	u8 key[TCPMIG_KEY_LEN];

	tcp_mig_key(mig, key_id, key);
	tcp_mig_put_mreq(opt, m, tcp_mig_mac_mreq(key, m));
	memzero_explicit(key, sizeof(key));
}

/* Microseconds, at least one, since a segment was sent. */
u32 tcp_mig_since(u32 sent_us)
{
	return max_t(u32, 1, (u32)tcp_clock_us() - sent_us);
}

static bool tcp_mig_seq_ok(const struct sock *sk, u32 isn)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return between(isn + 1, tp->rcv_nxt - tcp_mig_lag(tp),
		       tp->rcv_nxt + tp->rcv_wnd);
}

static bool tcp_mig_mac_ok(const struct tcp_migrate *mig, u8 key_id,
			   const struct tcp_mig_mreq *m, const u8 *raw)
{
	u8 key[TCPMIG_KEY_LEN];
	u8 mac[8];

	tcp_mig_key(mig, key_id, key);
	put_unaligned_be64(tcp_mig_mac_mreq(key, m), mac);
	memzero_explicit(key, sizeof(key));
	return !crypto_memneq(mac, raw + 14, sizeof(mac));
}

/* Everything about an MREQ or MANS that does not depend on why it came. */
bool tcp_mig_verify(struct sock *sk, struct tcp_migrate *mig,
		    const struct sk_buff *skb, const struct tcp_mig_opt *opt,
		    struct tcp_mig_mreq *m)
{
	struct net *net = sock_net(sk);

	m->sub = opt->sub;
	m->flags = opt->flags;
	m->reqno = tcp_mig_reqno(mig->seen, opt->reqno);
	m->token = opt->token;
	m->nonce = opt->nonce;
	m->asker_nonce = mig->own.nonce;
	m->addr = opt->addr;
	m->port = opt->port;
	m->seq = TCP_SKB_CB(skb)->seq;

	if (opt->token != mig->id.token || !mig->agreed) {
		MIG_INC(net, NOTOKEN);
		return false;
	}
	if (!!(opt->flags & TCPMIG_F_ROLE) == mig->role) {
		MIG_INC(net, BADROLE);
		return false;
	}
	if (!tcp_mig_key_ok(sk, mig, opt->key_id)) {
		MIG_INC(net, BADKEY);
		return false;
	}
	if (!tcp_mig_mac_ok(mig, opt->key_id, m, opt->raw)) {
		MIG_INC(net, BADMAC);
		return false;
	}
	if (!((1 << sk->sk_state) & MIG_TCP_STATES) || tcp_mig_has_auth(sk)) {
		MIG_INC(net, BADSTATE);
		return false;
	}
	if (!tcp_mig_seq_ok(sk, m->seq)) {
		MIG_INC(net, BADSEQ);
		return false;
	}
	return true;
}

u16 tcp_mig_mss_option(const struct tcphdr *th)
{
	return tcp_parse_mss_option(th, 0);
}

bool tcp_mig_confirm_ok(const struct tcp_migrate *mig, u8 key_id,
			u32 reqno, u32 nonce_peer, u32 nonce_own,
			const u8 *raw)
{
	u8 key[TCPMIG_KEY_LEN], mac[TCPMIG_LEN_CONFIRM_MAC];

	tcp_mig_key(mig, key_id, key);
	tcp_mig_mac_confirm(mac, key, !mig->role, reqno, nonce_peer, nonce_own,
			    get_unaligned_be16(raw + 6));
	memzero_explicit(key, sizeof(key));
	return !crypto_memneq(mac, raw + 12, sizeof(mac));
}

/* CONFIRM: alone or on data. What else the segment holds is not looked at
 * here. Return: false if it proves nothing.
 */
bool tcp_mig_rcv_confirm(struct sock *sk, struct tcp_migrate *mig,
			 const struct sk_buff *skb,
			 const struct tcp_mig_tuple *t,
			 const struct tcp_mig_opt *opt)
{
	struct tcp_mig_pend *p = tcp_mig_find_pend(mig, t), again;
	struct tcp_mig_try *own = &mig->own;
	bool unbound;

	if (!p && tcp_mig_recall_pend(mig, opt->reqno, t, &again))
		p = &again;
	unbound = own->valid && own->answered && own->unbound;
	if ((unbound || own->spliced) && tcp_mig_tuple_eq(t, &own->t) &&
	    (u8)own->peer_reqno == opt->reqno &&
	    tcp_mig_key_ok(sk, mig, own->peer_key_id) &&
	    tcp_mig_confirm_ok(mig, own->peer_key_id, own->peer_reqno,
			       own->peer_nonce, own->nonce, opt->raw)) {
		if (unbound) {
			MIG_INC(sock_net(sk), CONFIRMRCVD);
			own->peer_rcv += opt->held << MIG_HELD_SHIFT;
			tcp_mig_confirmed(sk, mig);
		} else if (own->tries < MIG_CONFIRM_TRIES &&
			   tcp_mig_reply_allowed(sk, mig)) {
			/* The peer has not got our CONFIRM yet, or this is how
			 * it answers one that came twice: not in a loop.
			 */
			own->tries++;
			tcp_mig_send_confirm(sk, mig);
		}
		return true;
	}
	/* The peer's answer to ours. */
	if (own->valid && own->answered && !own->unbound &&
	    (u8)own->reqno == opt->reqno && tcp_mig_tuple_eq(t, &own->t) &&
	    tcp_mig_confirm_ok(mig, own->key_id, own->reqno, own->peer_nonce,
			       own->nonce, opt->raw)) {
		tcp_mig_confirmed(sk, mig);
		return true;
	}
	if (p && (u8)p->reqno == opt->reqno && p->key_id == opt->key_id &&
	    tcp_mig_newer(mig, p->reqno) &&
	    tcp_mig_key_ok(sk, mig, p->key_id) &&
	    tcp_mig_confirm_ok(mig, p->key_id, p->reqno, p->peer_nonce,
			       p->nonce, opt->raw)) {
		MIG_INC(sock_net(sk), CONFIRMRCVD);
		tcp_mig_commit_pend(sk, mig, skb, p,
				    opt->flags & TCPMIG_F_ALIVE);
		return true;
	}
	return tcp_mig_rcv_old_confirm(sk, mig, skb, t, opt);
}
