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
#include <linux/net.h>
#include <linux/random.h>
#include <linux/siphash.h>
#include <linux/tcp.h>
#include <linux/unaligned.h>
#include <net/tcp.h>

#include "tcp_migrate.h"

/* ---- Initiator ---- */

/* Is the peer's request @reqno newer than what was last committed? Both ends
 * may have used the same number at once: the active opener's wins, or each
 * would refuse the other's for ever.
 */
static bool tcp_mig_newer(const struct tcp_migrate *mig, u32 reqno)
{
	return after(reqno, mig->committed) ||
	       (reqno == mig->committed && mig->committed_own && !mig->role);
}

static void tcp_mig_set_committed(struct tcp_migrate *mig, u32 reqno, bool own)
{
	mig->committed = reqno;
	mig->committed_own = own;
	mig->believes = 1;
	mig->echo = 0;
}

/* What the next segment of the peer on this path begins after. */
static void tcp_mig_begin_path(struct sock *sk, struct tcp_migrate *mig,
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

/* Where we are, as we see it: changed by no NAPT, read by a proxy (A3.2). */
static void tcp_mig_fill_own_address(const struct tcp_migrate *mig,
				     const struct tcp_mig_tuple *t,
				     struct tcp_mig_mreq *m)
{
	m->port = t->lport;
	if (ipv6_addr_v4mapped(&t->laddr)) {
		m->addr = t->laddr.s6_addr32[3];
	} else {
		m->addr = tcp_mig_addr_hash(mig->key_local, &t->laddr);
		m->flags |= TCPMIG_F_V6;
	}
}

static void tcp_mig_put_signed_mreq(const struct tcp_migrate *mig, u8 key_id,
				    const struct tcp_mig_mreq *m, u8 *opt)
{
	u8 key[TCPMIG_KEY_LEN];

	tcp_mig_key(mig, key_id, key);
	tcp_mig_put_mreq(opt, m, tcp_mig_mac_mreq(key, m));
	memzero_explicit(key, sizeof(key));
}

int tcp_mig_send_request(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	struct tcp_mig_mreq m = {
		.sub = TCPMIG_SUB_MREQ,
		.flags = own->key_id | tcp_mig_role_flag(mig),
		.reqno = own->reqno,
		.token = tcp_mig_token(mig->key_peer),
		.nonce = own->nonce,
		.seq = own->isn,
	};
	/* Nothing of this attempt has left the host yet. */
	bool first = !own->tries || own->unsent;
	u8 opt[TCPMIG_LEN_MREQ];
	int err;

	tcp_mig_fill_own_address(mig, &own->t, &m);
	tcp_mig_put_signed_mreq(mig, own->key_id, &m, opt);
	err = tcp_mig_xmit(sk, &own->t, own->ifindex, own->isn,
			   __tcp_migrate_ack(sk, tcp_sk(sk)->rcv_nxt),
			   own->nosyn ? TCPHDR_ACK : TCPHDR_SYN, false,
			   opt, sizeof(opt));
	own->unsent = first && err == -ENOBUFS;
	own->tries++;
	if (!first) {
		own->rexmit = 1;
		MIG_INC(sock_net(sk), MSYNRETRANS);
	} else if (!own->unsent) {
		own->sent_us = (u32)tcp_clock_us();
		MIG_INC(sock_net(sk), MSYNSENT);
	}
	if (err && err != -ENOBUFS)
		MIG_INC(sock_net(sk), NOROUTE);
	return err;
}

/* A new attempt gets a number that no attempt of either end has had. */
void tcp_mig_new_try(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;

	mig->seen++;
	own->reqno = mig->seen;
	own->nonce = get_random_u32();
	own->isn = tcp_sk(sk)->snd_una - 1;
	own->key_id = mig->key_send;
	own->tries = 0;
	own->valid = 1;
	own->answered = 0;
	own->unbound = 0;
	own->rexmit = 0;
	own->spliced = 0;
	own->hold = 0;
	own->unsent = 0;
	own->refused = 0;
}

/* An RST answered the MSYN on the current tuple: most likely of a NAPT, which
 * lets no SYN in to the peer. What it lets in is asked at once; the next
 * repetition is an MSYN again.
 */
void tcp_mig_refused(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	u8 tries = own->tries;

	tcp_mig_new_try(sk, mig);
	own->tries = tries - 1;
	own->nosyn = 1;
	own->refused = 1;
	tcp_mig_send_request(sk, mig);
}

void tcp_mig_cancel_try(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_tuple cur;

	if (!mig->own.valid)
		return;
	tcp_mig_sk_tuple(sk, &cur);
	if (!tcp_mig_tuple_eq(&cur, &mig->own.t))
		tcp_mig_alias_retire(mig, &mig->own.t);
	mig->own.valid = 0;
	mig->own.trial = 0;
}

static bool tcp_mig_source_routed(const struct sock *sk)
{
	const struct ip_options_rcu *opt;

	opt = rcu_dereference_protected(inet_sk(sk)->inet_opt,
					lockdep_sock_is_held(sk));
	return opt && opt->opt.srr;
}

/**
 * tcp_mig_start() - send a Migrate-Request
 * @sk: the socket, locked by user or by a timer; BH disabled
 * @t: where to
 * @ifindex: interface to send from, 0 for any
 * @flags: TCP_MIGRATE_MIGRATE_FLAGS_*
 *
 * Return: 0; -ENOTCONN (state), -EPERM (no key that policy allows),
 * -EADDRINUSE (another connection has the tuple, or waits on it),
 * -EADDRNOTAVAIL (local address is not ours), -ENETUNREACH ..., or as
 * tcp_mig_check_tuple().
 */
int tcp_mig_start(struct sock *sk, const struct tcp_mig_tuple *t, int ifindex,
		  u32 flags)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	struct tcp_mig_tuple cur;
	bool same;
	int err;

	if (!mig || !mig->agreed || !((1 << sk->sk_state) & MIG_TCP_STATES) ||
	    tcp_sk(sk)->repair)
		return -ENOTCONN;
	if (!tcp_mig_key_ok(sk, mig, mig->key_send))
		return -EPERM;
	if (tcp_mig_source_routed(sk) || tcp_mig_has_auth(sk))
		return -EOPNOTSUPP;
	err = tcp_mig_check_tuple(sk, t);
	if (err)
		return err;

	if (!tcp_mig_is_local(sk, &t->laddr))
		return -EADDRNOTAVAIL;
	if (ifindex && sk->sk_bound_dev_if && ifindex != sk->sk_bound_dev_if)
		return -EINVAL;

	tcp_mig_sk_tuple(sk, &cur);
	same = tcp_mig_tuple_eq(&cur, t);
	if (!same && tcp_mig_taken(sk, t))
		return -EADDRINUSE;
	if (!(mig->own.valid && tcp_mig_tuple_eq(&mig->own.t, t)))
		tcp_mig_cancel_try(sk, mig);
	if (!same) {
		err = tcp_mig_alias_add(mig, t, MIG_ALIAS_NEW);
		if (err)
			goto failed;
	}
	mig->rounds = 0;
	mig->own.t = *t;
	mig->own.ifindex = ifindex;
	mig->own.trial = !!(flags & TCP_MIGRATE_MIGRATE_FLAGS_TRIAL);
	mig->own.nosyn = same && (flags & TCP_MIGRATE_MIGRATE_FLAGS_NO_SYN);
	mig->own.turns = 0;
	mig->soft = 0;
	tcp_mig_new_try(sk, mig);
	err = tcp_mig_send_request(sk, mig);
	if (err && mig->own.trial)
		goto failed;
	/* Without a route it is tried again: one may come. */
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_MIG_SENT,
			  err && err != -ENOBUFS ?
				TCP_MIGRATE_REASON_NO_ROUTE :
				TCP_MIGRATE_REASON_COMMAND);
	tcp_mig_arm(sk, mig, tcp_mig_rto(sk, 0));
	return 0;

failed:
	tcp_mig_cancel_try(sk, mig);
	if (mig->state == TCP_MIGRATE_STATE_MIG_SENT)
		tcp_mig_to_idle(sk, mig, TCP_MIGRATE_REASON_TRIAL_FAILED);
	return err;
}

/* Probe the current path: a request on the current tuple, without SYN, since
 * a SYN would not pass a NAPT's existing entry towards the inside.
 */
void tcp_mig_probe(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	bool again = !own->valid || own->key_id != mig->key_send;
	u8 tries = own->valid ? own->tries : 0;
	struct tcp_mig_tuple cur;

	tcp_mig_sk_tuple(sk, &cur);
	if (!own->valid) {
		own->t = cur;
		own->ifindex = 0;
		own->trial = 0;
		own->nosyn = 1;
		own->turns = 0;
	} else if (tcp_mig_tuple_eq(&cur, &own->t) &&
		   (own->turns || !own->nosyn)) {
		/* A NAPT of ours may want a SYN; one of the peer's, or its
		 * firewall, lets none in.
		 */
		own->turns = 1;
		own->nosyn = !own->nosyn;
		again = true;
	}
	if (again)
		tcp_mig_new_try(sk, mig);
	own->tries = tries;
	tcp_mig_send_request(sk, mig);
}

/* Return: false if the connection must end as in plain TCP. */
bool tcp_mig_enter_wait(struct sock *sk, struct tcp_migrate *mig, u8 reason,
			int err)
{
	struct tcp_mig_net *tn = tcp_mig_net(sock_net(sk));
	int secs = READ_ONCE(tn->wait_silence);

	if (!((1 << sk->sk_state) & MIG_TCP_STATES))
		return false;
	if (!mig->waiting &&
	    atomic_read(&tn->waiting) >= READ_ONCE(tn->wait_max)) {
		MIG_INC(sock_net(sk), WAITOVERFLOW);
		return false;
	}
	if (sock_flag(sk, SOCK_DEAD))
		secs = min(secs, READ_ONCE(tn->wait_orphan));
	mig->soft = 0;
	mig->wait_err = err;
	mig->wait_end = tcp_jiffies32 + secs * HZ;
	MIG_INC(sock_net(sk), WAIT);
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_MIG_WAIT, reason);
	tcp_mig_arm(sk, mig, MIG_PROBE_INTERVAL);
	return true;
}

void tcp_mig_to_idle(struct sock *sk, struct tcp_migrate *mig, u8 reason)
{
	mig->own.valid = 0;
	mig->own.trial = 0;
	mig->soft = 0;
	mig->rounds = 0;
	tcp_mig_disarm(sk, mig);
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_IDLE, reason);
}

static void tcp_mig_make_confirm(struct tcp_migrate *mig)
{
	u8 key[TCPMIG_KEY_LEN];

	tcp_mig_key(mig, mig->own.key_id, key);
	tcp_mig_mac_confirm(mig->confirm, key, mig->role, mig->own.reqno,
			    mig->own.nonce, mig->own.peer_nonce);
	memzero_explicit(key, sizeof(key));
}

static void tcp_mig_xmit_confirm(struct sock *sk,
				 const struct tcp_migrate *mig, u32 seq)
{
	const struct tcp_mig_try *own = &mig->own;
	u8 opt[TCPMIG_LEN_CONFIRM];

	tcp_mig_put_confirm(opt, own->key_id | tcp_mig_role_flag(mig) |
				 (own->trial ? TCPMIG_F_ALIVE : 0),
			    own->reqno, tcp_mig_token(mig->key_peer),
			    mig->confirm);
	tcp_mig_xmit(sk, &own->t, own->ifindex, seq, own->peer_isn + 1,
		     TCPHDR_ACK, false, opt, sizeof(opt));
}

/* CONFIRM without data, also on a tuple the socket is not (yet) on. On the one
 * it is on, the sequence number says how much has been sent, as far as a NAPT
 * lets it pass that has seen only the window of a SYN: this ends the peer's
 * clamp, so that it acknowledges at once what the old path had delivered. If
 * more was sent, and no NAPT is there, another one says so first. (A NAPT would
 * not translate it, nor what it is answered with, and reset.)
 */
void tcp_mig_send_confirm(struct sock *sk, struct tcp_migrate *mig)
{
	u32 seq = mig->own.isn + 1, nxt = tcp_sk(sk)->snd_nxt;

	if (mig->own.trial || mig->own.unbound) {
		tcp_mig_xmit_confirm(sk, mig, seq);
	} else if (after(nxt, seq + MIG_NAPT_WINDOW)) {
		if (!mig->own.napt)
			tcp_mig_xmit_confirm(sk, mig, nxt);
		tcp_mig_xmit_confirm(sk, mig, seq + MIG_NAPT_WINDOW);
	} else {
		tcp_mig_xmit_confirm(sk, mig, nxt);
	}
}

/* The new path is ours. Return: 0 or why not. */
static int tcp_mig_commit_own(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	struct tcp_mig_tuple cur;
	int err;

	tcp_mig_sk_tuple(sk, &cur);
	if (!tcp_mig_tuple_eq(&cur, &own->t)) {
		err = tcp_mig_readdress(sk, &own->t);
		if (err) {
			MIG_INC(sock_net(sk), TUPLEINUSE);
			return err;
		}
	}
	/* The same tuple can be another path: behind another NAPT. */
	if (!own->nosyn) {
		tcp_mig_begin_path(sk, mig, own->peer_isn);
		/* A trial's old path brings acknowledgments itself. */
		if (!own->trial)
			tcp_mig_acked(sk, own->peer_rcv);
		tcp_mig_reset_path(sk, own->trial ? 0 : own->rtt_us,
				   own->peer_mss, own->trial);
	}
	if (own->unbound && after(own->peer_reqno, own->reqno))
		tcp_mig_set_committed(mig, own->peer_reqno, false);
	else
		tcp_mig_set_committed(mig, own->reqno, true);
	MIG_INC(sock_net(sk), COMMIT);
	return 0;
}

static void tcp_mig_commit_failed(struct sock *sk, struct tcp_migrate *mig,
				  int err)
{
	bool trial = mig->own.trial;

	mig->unconfirmed = 0;
	tcp_mig_cancel_try(sk, mig);
	if (trial) {
		MIG_INC(sock_net(sk), TRIALFAILED);
		tcp_mig_to_idle(sk, mig, TCP_MIGRATE_REASON_TUPLE_IN_USE);
	} else if (!tcp_mig_enter_wait(sk, mig,
				       TCP_MIGRATE_REASON_TUPLE_IN_USE,
				       ETIMEDOUT)) {
		tcp_done_with_error(sk, -err);
	}
}

/* Microseconds, at least one, since a segment was sent. */
static u32 tcp_mig_since(u32 sent_us)
{
	return max_t(u32, 1, (u32)tcp_clock_us() - sent_us);
}

/* A good answer came. */
static void tcp_mig_answered(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	int err;

	own->answered = 1;
	own->tries = 0;
	own->rtt_us = own->rexmit ? 0 : tcp_mig_since(own->sent_us);
	mig->unconfirmed = 1;
	tcp_mig_make_confirm(mig);
	if (own->trial || own->unbound) {
		/* From now on the peer may have committed it: nothing older
		 * counts any more.
		 */
		tcp_mig_set_committed(mig, own->reqno, true);
		tcp_mig_send_confirm(sk, mig);
		tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_MIG_CONFIRM,
				  TCP_MIGRATE_REASON_PEER);
		tcp_mig_arm(sk, mig, tcp_mig_confirm_rto(sk, mig));
		return;
	}
	err = tcp_mig_commit_own(sk, mig);
	if (err) {
		tcp_mig_commit_failed(sk, mig, err);
		return;
	}
	/* Nothing to send yet that a NAPT would let pass? */
	own->hold = own->napt && after(tcp_sk(sk)->snd_una,
				       own->isn + 1 + MIG_NAPT_WINDOW);
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_MIG_CONFIRM,
			  TCP_MIGRATE_REASON_COMMITTED);
	tcp_mig_arm(sk, mig, tcp_mig_confirm_rto(sk, mig));
	/* Alone, before data which a NAPT might not let pass. */
	if (tcp_sk(sk)->snd_nxt != own->isn + 1)
		tcp_mig_send_confirm(sk, mig);
	if (!own->hold)
		tcp_mig_restart(sk);
}

/* What was sent beyond the window that a NAPT had seen may have fallen to it;
 * look again when the acknowledgments of it would be here.
 */
static void tcp_mig_look_again(struct sock *sk, struct tcp_migrate *mig)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	if (!mig->own.napt ||
	    !after(tp->snd_nxt, mig->own.isn + 1 + MIG_NAPT_WINDOW))
		return;
	mig->held_nxt = tp->snd_nxt;
	tcp_mig_arm(sk, mig, usecs_to_jiffies(tp->srtt_us >> 5) + HZ / 200);
}

/* The peer has proved that our CONFIRM reached it. */
static void tcp_mig_confirmed(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	bool late = own->trial || own->unbound;
	bool held = own->hold;
	bool owes = tcp_sk(sk)->packets_out || held;
	int err = 0;

	if (late)
		err = tcp_mig_commit_own(sk, mig);
	if (err) {
		tcp_mig_commit_failed(sk, mig, err);
		return;
	}
	own->spliced = own->unbound;
	own->unbound = 0;
	mig->unconfirmed = 0;
	tcp_mig_to_idle(sk, mig, TCP_MIGRATE_REASON_COMMITTED);
	if (owes) {
		/* With SND.NXT: ends the peer's clamp in one RTT. */
		tcp_send_ack(sk);
		/* What was held goes out only now. */
		if (!held)
			tcp_mig_look_again(sk, mig);
	}
	if (late || held)
		tcp_mig_restart(sk);
}

/* ---- Verification ---- */

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

static u16 tcp_mig_mss_option(const struct tcphdr *th)
{
	return th->syn ? tcp_parse_mss_option(th, 0) : 0;
}

/* ---- Responder: the thesis' SYN_RECV ---- */

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
static void tcp_mig_clear_pends(struct tcp_migrate *mig)
{
	int i;

	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (!tcp_mig_newer(mig, mig->pend[i].reqno))
			mig->pend[i].valid = 0;
	}
}

/* The answer to a request from @t whose slot another copy has got: all of it
 * but our nonce is in that copy's, and the nonce is made anew. The MSS option
 * is not; a copy's may be forged.
 */
static bool tcp_mig_recall_pend(const struct tcp_migrate *mig, u8 reqno,
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

static void tcp_mig_fill_pend(const struct sock *sk,
			      const struct tcp_migrate *mig,
			      struct tcp_mig_pend *p, const struct sk_buff *skb,
			      const struct tcp_mig_tuple *t,
			      const struct tcp_mig_mreq *m, u8 key_id)
{
	const struct tcphdr *th = tcp_hdr(skb);

	p->t = *t;
	p->reqno = m->reqno;
	p->isn = tcp_sk(sk)->snd_una - 1;
	p->nonce = tcp_mig_pend_nonce(mig, m->reqno, m->nonce, t);
	p->peer_nonce = m->nonce;
	p->peer_isn = m->seq;
	p->peer_addr = m->addr;
	p->peer_port = m->port;
	p->peer_mss = tcp_mig_mss_option(th);
	p->key_id = key_id;
	p->nosyn = !th->syn;
	p->bare = th->doff * 4 == sizeof(*th) + TCPMIG_LEN_MREQ;
	p->nat = tcp_mig_is_nat(mig->key_peer, m->addr, m->port, &t->raddr,
				t->rport);
	p->sent_us = (u32)tcp_clock_us();
	p->rexmit = 0;
	p->valid = 1;
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
	if (repeated)
		p->rexmit = 1;
	else
		tcp_mig_fill_pend(sk, mig, p, skb, t, m, key_id);
	tcp_mig_update_busy(sk, mig);
	tcp_mig_send_answer(sk, mig, p, repeated);
}

static void tcp_mig_make_ack(struct tcp_migrate *mig,
			     const struct tcp_mig_pend *p)
{
	u8 key[TCPMIG_KEY_LEN];

	tcp_mig_key(mig, p->key_id, key);
	tcp_mig_mac_confirm(mig->confirm_ack, key, mig->role, p->reqno,
			    p->nonce, p->peer_nonce);
	tcp_mig_mac_confirm(mig->confirmed_by, key, !mig->role, p->reqno,
			    p->peer_nonce, p->nonce);
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
static void tcp_mig_commit_pend(struct sock *sk, struct tcp_migrate *mig,
				const struct sk_buff *skb,
				const struct tcp_mig_pend *pend, bool alive)
{
	struct tcp_mig_try own = mig->own;
	struct tcp_mig_pend p = *pend;
	struct tcp_mig_tuple cur;
	bool was_gated = mig->gate;
	bool moved;

	tcp_mig_sk_tuple(sk, &cur);
	moved = !tcp_mig_tuple_eq(&cur, &p.t);
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
	if (moved || !p.nosyn) {
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
	tcp_mig_to_idle(sk, mig, moved ? TCP_MIGRATE_REASON_COMMITTED :
					 TCP_MIGRATE_REASON_PATH_ALIVE);
	tcp_mig_ack_confirm(sk, mig);
	if (moved || !p.nosyn || was_gated)
		tcp_mig_restart(sk);
	tcp_mig_reaim(sk, mig, &own);
}

static bool tcp_mig_confirm_ok(const struct tcp_migrate *mig, u8 key_id,
			       u32 reqno, u32 nonce_peer, u32 nonce_own,
			       const u8 *raw)
{
	u8 key[TCPMIG_KEY_LEN], mac[TCPMIG_LEN_CONFIRM_MAC];

	tcp_mig_key(mig, key_id, key);
	tcp_mig_mac_confirm(mac, key, !mig->role, reqno, nonce_peer, nonce_own);
	memzero_explicit(key, sizeof(key));
	return !crypto_memneq(mac, raw + 12, sizeof(mac));
}

/* Repeated after the commit: our signed ACK was lost, or the mover has sent
 * more than one segment before it came.
 */
static bool tcp_mig_rcv_old_confirm(struct sock *sk, struct tcp_migrate *mig,
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
			tcp_mig_confirmed(sk, mig);
		} else if (tcp_mig_reply_allowed(sk, mig)) {
			/* The peer has not got our CONFIRM yet. */
			tcp_mig_send_confirm(sk, mig);
		}
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
	/* The peer's answer to ours. */
	if (own->valid && own->answered && !own->unbound &&
	    (u8)own->reqno == opt->reqno && tcp_mig_tuple_eq(t, &own->t) &&
	    tcp_mig_confirm_ok(mig, own->key_id, own->reqno, own->peer_nonce,
			       own->nonce, opt->raw)) {
		tcp_mig_confirmed(sk, mig);
		return true;
	}
	return tcp_mig_rcv_old_confirm(sk, mig, skb, t, opt);
}

/* ---- Answers ---- */

bool tcp_mig_is_answer(const struct tcphdr *th, const struct tcp_mig_opt *opt)
{
	return opt->sub == TCPMIG_SUB_MANS || (th->syn && th->ack);
}

void tcp_mig_rcv_answer(struct sock *sk, struct tcp_migrate *mig,
			struct sk_buff *skb, const struct tcp_mig_tuple *t,
			const struct tcp_mig_opt *opt)
{
	const struct tcphdr *th = tcp_hdr(skb);
	struct tcp_mig_try *own = &mig->own;
	bool bound = opt->sub == TCPMIG_SUB_MANS;
	struct tcp_mig_mreq m;

	if (!own->valid || !tcp_mig_tuple_eq(t, &own->t) ||
	    (th->syn && TCP_SKB_CB(skb)->ack_seq != own->isn + 1) ||
	    (bound && opt->reqno != (u8)own->reqno)) {
		MIG_INC(sock_net(sk), BADANSWER);
		return;
	}
	if (!tcp_mig_verify(sk, mig, skb, opt, &m))
		return;
	if (!after(m.reqno, mig->committed) && !own->answered && !bound) {
		MIG_INC(sock_net(sk), BADREQNO);
		return;
	}
	MIG_INC(sock_net(sk), MANSRCVD);
	if (own->answered && !(own->unbound && bound)) {
		/* Our CONFIRM was lost. */
		if (mig->state == TCP_MIGRATE_STATE_MIG_CONFIRM)
			tcp_mig_send_confirm(sk, mig);
		return;
	}
	if (after(m.reqno, mig->seen))
		mig->seen = m.reqno;
	own->unbound = !bound;
	own->peer_reqno = m.reqno;
	own->peer_key_id = opt->key_id;
	own->peer_nonce = m.nonce;
	own->peer_isn = m.seq;
	own->peer_mss = tcp_mig_mss_option(th);
	own->peer_rcv = bound ? ntohl(m.addr) : own->isn + 1;
	own->napt = !bound || !m.port || mig->peer_nat;
	tcp_mig_answered(sk, mig);
}

/* A plain SYN,ACK came from our target: no patched host, or one that does not
 * know us. RST it, as any end does that did not ask (RFC 9293 3.5.2).
 */
void tcp_mig_rcv_plain_synack(struct sock *sk, struct tcp_migrate *mig,
			      struct sk_buff *skb)
{
	MIG_INC(sock_net(sk), NOTMIGRATE);
	if (tcp_mig_refuse_allowed(sk, mig))
		tcp_mig_send_closed(sk, skb);
}

