// SPDX-License-Identifier: GPL-2.0
/* TCP migration: the end that asks. It sends the MSYN, or a request without
 * SYN over the current tuple, takes the answer, goes to the new tuple, and
 * proves with CONFIRM that it receives there.
 *
 *   tcp_mig_start()      MSYN;                      MIG_SENT
 *   tcp_mig_rcv_answer() commit, CONFIRM;           MIG_CONFIRM
 *   tcp_mig_confirmed()  the peer has used the path; IDLE
 *
 * A trial, and an attempt whose answer is not bound to our nonce, commit only
 * in the last step. What repeats these steps is tcp_mig_timer(); what the other
 * end does is in tcp_migrate_answer.c.
 *
 * All functions run with the socket locked and BH disabled.
 */
#include <linux/random.h>
#include <linux/tcp.h>
#include <net/tcp.h>

#include "tcp_migrate.h"

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

static int tcp_mig_xmit_request(struct sock *sk, const struct tcp_migrate *mig,
				const struct tcp_mig_tuple *t, int ifindex,
				u8 tcp_flags)
{
	const struct tcp_mig_try *own = &mig->own;
	struct tcp_mig_mreq m = {
		.sub = TCPMIG_SUB_MREQ,
		.flags = own->key_id | tcp_mig_role_flag(mig),
		.reqno = own->reqno,
		.token = tcp_mig_token(mig->key_peer),
		.nonce = own->nonce,
		.seq = own->isn,
	};
	u8 opt[TCPMIG_LEN_MREQ];

	tcp_mig_fill_own_address(mig, t, &m);
	tcp_mig_put_signed_mreq(mig, own->key_id, &m, opt);
	return tcp_mig_xmit(sk, t, ifindex, own->isn,
			    __tcp_migrate_ack(sk, tcp_sk(sk)->rcv_nxt),
			    tcp_flags, false, opt, sizeof(opt));
}

int tcp_mig_send_request(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	/* Nothing of this attempt has left the host yet. */
	bool first = !own->tries || own->unsent;
	int err;

	err = tcp_mig_xmit_request(sk, mig, &own->t, own->ifindex,
				   own->nosyn ? TCPHDR_ACK : TCPHDR_SYN);
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

/* The number after the highest that either end has used, as far as we know.
 * Eight bits of it travel, and of many attempts in vain the peer may have heard
 * nothing: after so many they begin anew behind what was committed. None of
 * these was ever proved.
 */
static u32 tcp_mig_next_reqno(struct tcp_migrate *mig)
{
	u32 base = mig->committed;
	int i;

	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (mig->pend[i].valid && after(mig->pend[i].reqno, base))
			base = mig->pend[i].reqno;
	}
	if (after(mig->seen, base + MIG_REQNO_SPAN))
		mig->seen = base;
	return ++mig->seen;
}

/* A new attempt. */
void tcp_mig_new_try(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;

	own->reqno = tcp_mig_next_reqno(mig);
	own->nonce = get_random_u32();
	own->isn = tcp_sk(sk)->snd_una - 1;
	own->key_id = mig->key_send;
	own->tries = 0;
	own->valid = 1;
	own->answered = 0;
	own->unbound = 0;
	own->crossed = 0;
	own->rexmit = 0;
	own->spliced = 0;
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
 * Where nothing goes there is no old path that a trial could keep: it is an
 * ordinary request then. If it fails, what was under way goes on.
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
	struct tcp_mig_try old;
	bool same, again;
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
	if (!same) {
		err = tcp_mig_alias_add(mig, t, MIG_ALIAS_NEW);
		if (err)
			return err;
	}
	old = mig->own;
	again = old.valid && tcp_mig_tuple_eq(&old.t, t);
	mig->own.t = *t;
	mig->own.ifindex = ifindex;
	mig->own.trial = (flags & TCP_MIGRATE_MIGRATE_FLAGS_TRIAL) &&
			 !mig->gate;
	mig->own.nosyn = same && (flags & TCP_MIGRATE_MIGRATE_FLAGS_NO_SYN);
	mig->own.turns = 0;
	mig->own.heard = 0;
	tcp_mig_new_try(sk, mig);
	err = tcp_mig_send_request(sk, mig);
	if (err && mig->own.trial) {
		if (!again)
			tcp_mig_alias_retire(mig, t);
		mig->own = old;
		return err;
	}
	if (old.valid && !again && !tcp_mig_tuple_eq(&old.t, &cur))
		tcp_mig_alias_retire(mig, &old.t);
	mig->rounds = 0;
	mig->soft = 0;
	/* Without a route it is tried again: one may come. */
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_MIG_SENT,
			  err && err != -ENOBUFS ?
				TCP_MIGRATE_REASON_NO_ROUTE :
				TCP_MIGRATE_REASON_COMMAND);
	tcp_mig_arm(sk, mig, tcp_mig_rto(sk, 0));
	return 0;
}

/* Where a command led may be dead for good, and the current path alive, though
 * nobody says anything there; or the peer has not heard the CONFIRM that made it
 * the current one. The same request goes there as well, if it is still ours; see
 * tcp_mig_answered_here().
 */
static void tcp_mig_probe_here(struct sock *sk, struct tcp_migrate *mig,
			       const struct tcp_mig_tuple *cur)
{
	if (!tcp_mig_xmit_request(sk, mig, cur, 0, TCPHDR_ACK))
		MIG_INC(sock_net(sk), MSYNRETRANS);
}

/* Probe: a request where a command led and on the current tuple. There without
 * SYN, since a SYN would not pass a NAPT's existing entry towards the inside.
 */
void tcp_mig_probe(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	bool again = !own->valid || own->key_id != mig->key_send;
	u8 tries = own->valid ? own->tries : 0;
	struct tcp_mig_tuple cur;
	bool here;

	tcp_mig_sk_tuple(sk, &cur);
	here = !own->valid || tcp_mig_tuple_eq(&cur, &own->t);
	if (!own->valid) {
		own->t = cur;
		own->ifindex = 0;
		own->trial = 0;
		own->nosyn = 1;
		own->turns = 0;
	} else if (here && (own->turns || !own->nosyn)) {
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
	if (!here)
		tcp_mig_probe_here(sk, mig, &cur);
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
	tcp_mig_age_pends(sk, mig);
}

/* What has come beyond the sequence number of the peer's spliced request, which
 * is all that its NAPT has seen and we may acknowledge; in units of 16 bytes,
 * rounded down. In any other handshake MANS or the ACK of CONFIRM tells it.
 */
static u16 tcp_mig_held(const struct sock *sk, const struct tcp_mig_try *own)
{
	u32 held = tcp_sk(sk)->rcv_nxt - (own->peer_isn + 1);

	if (!own->unbound || (s32)held < 0)
		return 0;
	return min_t(u32, held >> MIG_HELD_SHIFT, U16_MAX);
}

static void tcp_mig_make_confirm(const struct sock *sk,
				 struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	u8 key[TCPMIG_KEY_LEN];

	own->held = tcp_mig_held(sk, own);
	tcp_mig_key(mig, own->key_id, key);
	tcp_mig_mac_confirm(mig->confirm, key, mig->role, own->reqno,
			    own->nonce, own->peer_nonce, own->held);
	memzero_explicit(key, sizeof(key));
}

/* A trial leaves a path that delivers what is in flight, unless nothing has
 * come there since. The peer is told, and has to judge by that.
 */
static bool tcp_mig_old_path_alive(const struct tcp_mig_try *own)
{
	return own->trial && own->heard;
}

/* What was sent after a trial began may still be on its way on a slow old path,
 * even if that is silent.
 */
static bool tcp_mig_flight_alive(struct sock *sk, const struct tcp_mig_try *own)
{
	const struct sk_buff *skb = tcp_rtx_queue_head(sk);

	if (!own->trial || own->heard || !skb)
		return own->trial;
	return (s32)((u32)tcp_skb_timestamp_us(skb) - own->sent_us) >= 0;
}

static void tcp_mig_xmit_confirm(struct sock *sk,
				 const struct tcp_migrate *mig, u32 seq)
{
	const struct tcp_mig_try *own = &mig->own;
	u8 opt[TCPMIG_LEN_CONFIRM];

	tcp_mig_put_confirm(opt, own->key_id | tcp_mig_role_flag(mig) |
				 (tcp_mig_old_path_alive(own) ? TCPMIG_F_ALIVE : 0),
			    own->reqno, own->held,
			    tcp_mig_token(mig->key_peer), mig->confirm);
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
	bool alive = tcp_mig_flight_alive(sk, own);
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
		/* An old path that lives brings acknowledgments itself. */
		if (!alive)
			tcp_mig_acked(sk, own->peer_rcv);
		tcp_mig_reset_path(sk, alive ? 0 : own->rtt_us, own->peer_mss,
				   alive);
	}
	if (own->unbound && after(own->peer_reqno, own->reqno))
		tcp_mig_set_committed(mig, own->peer_reqno, false);
	else
		tcp_mig_set_committed(mig, own->reqno, true);
	tcp_mig_clear_pends(mig);
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

/* If the peer has asked as well, and was answered with our own nonce, its slot
 * and our attempt are one handshake: each end proves itself once.
 */
static void tcp_mig_join_crossing(struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	struct tcp_mig_pend *p = tcp_mig_find_pend(mig, &own->t);

	if (!p || p->reqno != own->reqno || p->nonce != own->nonce ||
	    p->peer_nonce != own->peer_nonce)
		return;
	own->crossed = 1;
	own->peer_reqno = p->reqno;
	own->peer_key_id = p->key_id;
	p->valid = 0;
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
	tcp_mig_make_confirm(sk, mig);
	if (!own->unbound)
		tcp_mig_join_crossing(mig);
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
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_MIG_CONFIRM,
			  TCP_MIGRATE_REASON_COMMITTED);
	tcp_mig_arm(sk, mig, tcp_mig_confirm_rto(sk, mig));
	/* Alone, before data which a NAPT might not let pass. */
	if (tcp_sk(sk)->snd_nxt != own->isn + 1)
		tcp_mig_send_confirm(sk, mig);
	tcp_mig_restart(sk);
}

/* The peer has proved that our CONFIRM reached it. */
void tcp_mig_confirmed(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;
	bool late = own->trial || own->unbound;
	bool owes = tcp_sk(sk)->packets_out;
	int err = 0;

	if (late)
		err = tcp_mig_commit_own(sk, mig);
	if (err) {
		tcp_mig_commit_failed(sk, mig, err);
		return;
	}
	own->spliced = own->unbound || own->crossed;
	own->unbound = 0;
	own->tries = 0;
	mig->unconfirmed = 0;
	tcp_mig_to_idle(sk, mig, TCP_MIGRATE_REASON_COMMITTED);
	if (owes) {
		/* With SND.NXT: ends the peer's clamp in one RTT. */
		tcp_send_ack(sk);
		tcp_mig_look_again(sk, mig);
	}
	if (late)
		tcp_mig_restart(sk);
}

bool tcp_mig_is_answer(const struct tcphdr *th, const struct tcp_mig_opt *opt)
{
	return opt->sub == TCPMIG_SUB_MANS || (th->syn && th->ack);
}

/* Is @t the current tuple, probed beside that of the attempt? */
static bool tcp_mig_asked_here(const struct sock *sk,
			       const struct tcp_migrate *mig,
			       const struct tcp_mig_tuple *t)
{
	struct tcp_mig_tuple cur;

	if (mig->state != TCP_MIGRATE_STATE_MIG_WAIT || mig->own.answered ||
	    tcp_mig_tuple_eq(t, &mig->own.t))
		return false;
	tcp_mig_sk_tuple(sk, &cur);
	return tcp_mig_tuple_eq(t, &cur);
}

/* The peer is reached on the current tuple: the attempt ends there. */
static void tcp_mig_answered_here(struct tcp_migrate *mig,
				  const struct tcp_mig_tuple *t)
{
	struct tcp_mig_try *own = &mig->own;

	tcp_mig_alias_retire(mig, &own->t);
	own->t = *t;
	own->ifindex = 0;
	own->nosyn = 1;
	own->turns = 0;
	own->rexmit = 1;
}

void tcp_mig_rcv_answer(struct sock *sk, struct tcp_migrate *mig,
			struct sk_buff *skb, const struct tcp_mig_tuple *t,
			const struct tcp_mig_opt *opt)
{
	const struct tcphdr *th = tcp_hdr(skb);
	struct tcp_mig_try *own = &mig->own;
	bool bound = opt->sub == TCPMIG_SUB_MANS;
	struct tcp_mig_mreq m;
	bool here;

	here = bound && !th->syn && tcp_mig_asked_here(sk, mig, t);
	if (!own->valid || !(here || tcp_mig_tuple_eq(t, &own->t)) ||
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
	if (own->answered &&
	    !(own->unbound && (bound || after(m.reqno, own->peer_reqno)))) {
		/* Our CONFIRM was lost. */
		if (mig->state == TCP_MIGRATE_STATE_MIG_CONFIRM)
			tcp_mig_send_confirm(sk, mig);
		return;
	}
	if (here)
		tcp_mig_answered_here(mig, t);
	if (own->answered)
		own->rexmit = 1;	/* no round trip since our request */
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
