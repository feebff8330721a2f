// SPDX-License-Identifier: GPL-2.0
/* TCP migration: the end that is asked, the thesis' SYN_RECV. A good request
 * gets a slot (pend) and an answer, which changes nothing else. CONFIRM from
 * where the answer went commits: the socket goes to the new tuple, and an ACK
 * with a CONFIRM of our own says so.
 *
 *   tcp_mig_rcv_request() MSYN,ACK
 *   tcp_mig_commit_pend() commit, ACK with CONFIRM
 *
 * What the other end does is in tcp_migrate_ask.c.
 *
 * All functions run with the socket locked and BH disabled.
 */
#include <crypto/algapi.h>
#include <linux/net.h>
#include <linux/siphash.h>
#include <linux/tcp.h>
#include <net/tcp.h>

#include "tcp_migrate.h"

/* Our nonce is bound to where the request came from, so that a copy of it from
 * another address gets another answer; and to a secret that the peer does not
 * know, so that it cannot prove to receive where it does not.
 */
static u32 tcp_mig_pend_nonce(const struct tcp_migrate *mig, u32 reqno,
			      u32 peer_nonce, const struct tcp_mig_tuple *t)
{
	static siphash_aligned_key_t secret;
	struct {
		struct tcp_mig_tuple t;
		u32 token, reqno, nonce;
	} __aligned(SIPHASH_ALIGNMENT) in = {
		.t = *t, .token = mig->id.token, .reqno = reqno,
		.nonce = peer_nonce,
	};

	net_get_random_once(&secret, sizeof(secret));
	return (u32)siphash(&in, sizeof(in), &secret);
}

struct tcp_mig_pend *tcp_mig_find_pend(struct tcp_migrate *mig,
				       const struct tcp_mig_tuple *t)
{
	int i;

	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (mig->pend[i].valid && tcp_mig_tuple_eq(&mig->pend[i].t, t))
			return &mig->pend[i];
	}
	return NULL;
}

/* A slot for @t: its own, a free one, or that of the lowest ReqNo. Copies of
 * one request take the last slot from each other; whoever loses it proves
 * itself as well, see tcp_mig_recall_pend().
 */
static struct tcp_mig_pend *tcp_mig_get_pend(struct tcp_migrate *mig,
					     const struct tcp_mig_tuple *t)
{
	struct tcp_mig_pend *p = tcp_mig_find_pend(mig, t);
	int i;

	if (p)
		return p;
	p = &mig->pend[TCPMIG_PENDS - 1];
	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (!mig->pend[i].valid)
			return &mig->pend[i];
		if (before(mig->pend[i].reqno, p->reqno))
			p = &mig->pend[i];
	}
	p->valid = 0;
	return p;
}

/* Forget what is older than the last commit, and only that. */
void tcp_mig_clear_pends(struct tcp_migrate *mig)
{
	int i;

	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (!tcp_mig_newer(mig, mig->pend[i].reqno))
			mig->pend[i].valid = 0;
	}
}

/* Forget what nobody has proved for long: header prediction is off until then.
 * Who asks again gets the same answer again. At rest only: else the timer is
 * that of another state, which ends there.
 */
void tcp_mig_age_pends(struct sock *sk, struct tcp_migrate *mig)
{
	u32 now = (u32)tcp_clock_us();
	bool left = false;
	int i;

	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (!mig->pend[i].valid)
			continue;
		if (now - mig->pend[i].sent_us < jiffies_to_usecs(MIG_PEND_LIFE))
			left = true;
		else
			mig->pend[i].valid = 0;
	}
	tcp_mig_update_busy(sk, mig);
	if (left && mig->state == TCP_MIGRATE_STATE_IDLE &&
	    !timer_pending(&mig->timer))
		tcp_mig_arm(sk, mig, MIG_PEND_LIFE + HZ);
}

/* The answer to a request from @t whose slot another copy has got: all of it
 * but our nonce is in that copy's, and the nonce is made anew. The MSS option
 * is not; a copy's may be forged.
 */
bool tcp_mig_recall_pend(const struct tcp_migrate *mig, u8 reqno,
			 const struct tcp_mig_tuple *t,
			 struct tcp_mig_pend *p)
{
	int i;

	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (!mig->pend[i].valid || (u8)mig->pend[i].reqno != reqno)
			continue;
		*p = mig->pend[i];
		p->t = *t;
		p->nonce = tcp_mig_pend_nonce(mig, p->reqno, p->peer_nonce, t);
		p->nat = tcp_mig_is_nat(mig->key_peer, p->peer_addr,
					p->peer_port, &t->raddr, t->rport);
		p->peer_mss = 0;
		p->rexmit = 1;
		return true;
	}
	return false;
}

/* A NAPT lets nothing pass beyond the window of an MSYN,ACK, which is not
 * scaled. If what we have got, and the initial window after that, reach further,
 * an ACK, whose window is scaled, opens the NAPT for them. It acknowledges only
 * what the path has seen.
 */
static void tcp_mig_open_napt(struct sock *sk, struct tcp_migrate *mig,
			      const struct tcp_mig_pend *p)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	if ((p->nosyn && !p->relayed) || p->bare ||
	    !after(tp->rcv_nxt + TCP_INIT_CWND * tp->advmss,
		   p->peer_isn + 1 + MIG_NAPT_WINDOW))
		return;
	/* Copies of a request must not gain much by it. */
	if (!tcp_mig_refuse_allowed(sk, mig))
		return;
	tcp_mig_xmit(sk, &p->t, 0, p->isn + 1, p->peer_isn + 1, TCPHDR_ACK,
		     false, NULL, 0);
}

static void tcp_mig_send_answer(struct sock *sk, struct tcp_migrate *mig,
				const struct tcp_mig_pend *p, bool repeated)
{
	struct tcp_mig_mreq m = {
		.sub = TCPMIG_SUB_MANS,
		.flags = p->key_id | tcp_mig_role_flag(mig),
		.reqno = p->reqno,
		.token = tcp_mig_token(mig->key_peer),
		.nonce = p->nonce,
		.asker_nonce = p->peer_nonce,
		.seq = p->isn,
	};
	u8 opt[TCPMIG_LEN_MREQ];

	if (repeated && !tcp_mig_reply_allowed(sk, mig))
		return;
	/* What we have got, where no NAPT looks; and whether there is one. */
	m.port = p->nat ? 0 : p->t.lport;
	m.addr = htonl(tcp_sk(sk)->rcv_nxt);
	tcp_mig_put_signed_mreq(mig, p->key_id, &m, opt);
	MIG_INC(sock_net(sk), MANSSENT);
	tcp_mig_xmit(sk, &p->t, 0, p->isn, p->peer_isn + 1,
		     p->nosyn ? TCPHDR_ACK : TCPHDR_SYN | TCPHDR_ACK, p->bare,
		     opt, sizeof(opt));
	tcp_mig_open_napt(sk, mig, p);
}

/* Both ends asked each other at once, from where the other's request goes: the
 * answer says the same as our request, so that NAPTs and the symmetric proxy
 * see one handshake. A request from elsewhere proves no address yet: our own
 * attempt goes on until the peer's is committed.
 */
static void tcp_mig_crossing(const struct tcp_migrate *mig,
			     struct tcp_mig_pend *p)
{
	const struct tcp_mig_try *own = &mig->own;

	if (own->valid && !own->answered && tcp_mig_tuple_eq(&own->t, &p->t)) {
		p->nonce = own->nonce;
		p->isn = own->isn;
	}
}

/* Only an MSYN has MSS, and the symmetric proxy leaves it there. The asker is
 * elsewhere, though not for us; it may have asked from where it was as well.
 */
static void tcp_mig_see_relayed(struct tcp_mig_pend *p, const struct tcphdr *th)
{
	if (p->relayed || !p->nosyn || th->syn)
		return;
	p->peer_mss = tcp_mig_mss_option(th);
	p->relayed = !!p->peer_mss;
}

static void tcp_mig_fill_pend(const struct sock *sk,
			      const struct tcp_migrate *mig,
			      struct tcp_mig_pend *p, const struct sk_buff *skb,
			      const struct tcp_mig_tuple *t,
			      const struct tcp_mig_mreq *m, u8 key_id)
{
	const struct tcphdr *th = tcp_hdr(skb);
	u32 isn = tcp_sk(sk)->snd_una - 1;

	/* A newer request from the same place: NAPTs know our answer to the
	 * one before, and take another sequence number for nobody's.
	 */
	if (!p->valid || isn - p->isn > MIG_NAPT_WINDOW / 2)
		p->isn = isn;
	p->t = *t;
	p->reqno = m->reqno;
	p->nonce = tcp_mig_pend_nonce(mig, m->reqno, m->nonce, t);
	p->peer_nonce = m->nonce;
	p->peer_isn = m->seq;
	p->peer_addr = m->addr;
	p->peer_port = m->port;
	p->peer_mss = tcp_mig_mss_option(th);
	p->key_id = key_id;
	p->nosyn = !th->syn;
	p->relayed = 0;
	p->bare = th->doff * 4 == sizeof(*th) + TCPMIG_LEN_MREQ;
	p->nat = tcp_mig_is_nat(mig->key_peer, m->addr, m->port, &t->raddr,
				t->rport);
	p->sent_us = (u32)tcp_clock_us();
	p->rexmit = 0;
	p->valid = 1;
	tcp_mig_see_relayed(p, th);
	tcp_mig_crossing(mig, p);
}

/* The outcome of a request whose MAC was good. */
void tcp_mig_rcv_request(struct sock *sk, struct tcp_migrate *mig,
			 struct sk_buff *skb, const struct tcp_mig_tuple *t,
			 bool on_path, const struct tcp_mig_mreq *m, u8 key_id)
{
	struct tcp_mig_pend *p;
	bool repeated;

	if (!tcp_mig_newer(mig, m->reqno)) {
		/* A duplicate in the network, or a replay. Silence where an
		 * RST could harm the path in use.
		 */
		MIG_INC(sock_net(sk), BADREQNO);
		if (!on_path && tcp_mig_refuse_allowed(sk, mig))
			tcp_mig_send_closed(sk, skb);
		return;
	}
	if (tcp_mig_check_tuple(sk, t)) {
		MIG_INC(sock_net(sk), BADTUPLE);
		return;
	}
	MIG_INC(sock_net(sk), MSYNRCVD);
	if (after(m->reqno, mig->seen))
		mig->seen = m->reqno;

	p = tcp_mig_get_pend(mig, t);
	repeated = p->valid && p->reqno == m->reqno;
	if ((p->valid && before(m->reqno, p->reqno)) ||
	    (repeated && p->peer_nonce != m->nonce)) {
		MIG_INC(sock_net(sk), BADREQNO);
		return;
	}
	if (repeated) {
		p->rexmit = 1;
		tcp_mig_see_relayed(p, tcp_hdr(skb));
	} else {
		tcp_mig_fill_pend(sk, mig, p, skb, t, m, key_id);
	}
	tcp_mig_age_pends(sk, mig);
	tcp_mig_send_answer(sk, mig, p, repeated);
}

static void tcp_mig_make_ack(struct tcp_migrate *mig,
			     const struct tcp_mig_pend *p)
{
	u8 key[TCPMIG_KEY_LEN];

	tcp_mig_key(mig, p->key_id, key);
	tcp_mig_mac_confirm(mig->confirm_ack, key, mig->role, p->reqno,
			    p->nonce, p->peer_nonce, 0);
	tcp_mig_mac_confirm(mig->confirmed_by, key, !mig->role, p->reqno,
			    p->peer_nonce, p->nonce, 0);
	memzero_explicit(key, sizeof(key));
}

/* The peer moved while an attempt of ours was under way. If it reached us
 * where ours starts from, ours is done; else ours goes on, to the new place.
 */
static noinline_for_stack void tcp_mig_reaim(struct sock *sk,
					     struct tcp_migrate *mig,
					     const struct tcp_mig_try *old)
{
	struct tcp_mig_tuple t, cur;

	tcp_mig_sk_tuple(sk, &cur);
	if (!old->valid || old->nosyn ||
	    ipv6_addr_equal(&old->t.laddr, &cur.laddr))
		return;
	t = cur;
	t.laddr = old->t.laddr;
	tcp_mig_start(sk, &t, old->ifindex,
		      old->trial ? TCP_MIGRATE_MIGRATE_FLAGS_TRIAL : 0);
}

/* The answer to CONFIRM, signed with it: data could be a late segment of an
 * earlier life of this tuple.
 */
static void tcp_mig_ack_confirm(struct sock *sk, struct tcp_migrate *mig)
{
	mig->ack_stamp = tcp_jiffies32;
	mig->sign_ack = 1;
	tcp_send_ack(sk);
	mig->sign_ack = 0;
}

/* @alive: the path that is left is, too; what is in flight there arrives. */
void tcp_mig_commit_pend(struct sock *sk, struct tcp_migrate *mig,
			 const struct sk_buff *skb,
			 const struct tcp_mig_pend *pend, bool alive)
{
	struct tcp_mig_try own = mig->own;
	struct tcp_mig_pend p = *pend;
	struct tcp_mig_tuple cur;
	bool was_gated = mig->gate;
	bool moved, new_path;

	tcp_mig_sk_tuple(sk, &cur);
	moved = !tcp_mig_tuple_eq(&cur, &p.t);
	new_path = moved || !p.nosyn || p.relayed;
	if (moved && tcp_mig_readdress(sk, &p.t)) {
		MIG_INC(sock_net(sk), TUPLEINUSE);
		return;
	}
	tcp_mig_cancel_try(sk, mig);
	tcp_mig_set_committed(mig, p.reqno, false);
	tcp_mig_clear_pends(mig);
	mig->unconfirmed = 0;
	mig->ack_valid = 1;
	mig->ack_reqno = p.reqno;
	mig->ack_key = p.key_id;
	mig->peer_addr = p.peer_addr;
	mig->peer_port = p.peer_port;
	if (mig->peer_nat != p.nat) {
		mig->peer_nat = p.nat;
		mig->reason = TCP_MIGRATE_REASON_PEER_NAT;
		tcp_mig_event(sk, mig, 0);
	}
	tcp_mig_make_ack(mig, &p);
	if (new_path) {
		tcp_mig_begin_path(sk, mig, p.peer_isn);
		tcp_mig_track_path(sk, mig, skb);
		/* The path that is left may bring more before the asker has
		 * said here how far it has sent: header prediction would not
		 * notice.
		 */
		if (alive)
			mig->clamp = 1;
		tcp_mig_reset_path(sk, p.rexmit ? 0 : tcp_mig_since(p.sent_us),
				   p.peer_mss, alive);
	}
	MIG_INC(sock_net(sk), COMMIT);
	MIG_INC(sock_net(sk), COMMITPASSIVE);
	tcp_mig_to_idle(sk, mig, moved || p.relayed ?
					 TCP_MIGRATE_REASON_COMMITTED :
					 TCP_MIGRATE_REASON_PATH_ALIVE);
	tcp_mig_ack_confirm(sk, mig);
	if (new_path || was_gated)
		tcp_mig_restart(sk);
	tcp_mig_reaim(sk, mig, &own);
}

/* Repeated after the commit: our signed ACK was lost, or the mover has sent
 * more than one segment before it came.
 */
bool tcp_mig_rcv_old_confirm(struct sock *sk, struct tcp_migrate *mig,
			     const struct sk_buff *skb,
			     const struct tcp_mig_tuple *t,
			     const struct tcp_mig_opt *opt)
{
	const struct tcp_skb_cb *cb = TCP_SKB_CB(skb);
	struct tcp_mig_tuple cur;

	tcp_mig_sk_tuple(sk, &cur);
	if (!mig->ack_valid || (u8)mig->ack_reqno != opt->reqno ||
	    !tcp_mig_tuple_eq(t, &cur) ||
	    crypto_memneq(mig->confirmed_by, opt->raw + 12,
			  sizeof(mig->confirmed_by)))
		return false;
	/* Not for each segment of a flight, and never in a loop. */
	if ((cb->seq == cb->end_seq ||
	     !before(tcp_jiffies32, mig->ack_stamp + HZ / 10)) &&
	    tcp_mig_reply_allowed(sk, mig))
		tcp_mig_ack_confirm(sk, mig);
	return true;
}
