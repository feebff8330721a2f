// SPDX-License-Identifier: GPL-2.0
/* TCP migration: what received segments and time-outs do to a connection.
 *
 * A reset that proves its origin (RST option) ends the connection, whatever
 * its sequence number. One that does not leads to MIG_WAIT and a probe, once
 * both ends believe in migration. TCP's own time-outs lead there as well.
 *
 * Segments of the current path run through here before TCP's own checks, only
 * while something is going on (tp->mig_busy) or if they carry our option, come
 * from another tuple, or take the slow path anyway.
 */
#include <crypto/algapi.h>
#include <linux/tcp.h>
#include <linux/unaligned.h>
#include <net/tcp.h>

#include "tcp_migrate.h"

#define MIG_TRIAL_TRIES		2	/* then the path that was kept is asked */
#define MIG_ROUNDS		4	/* of that; then MIG_WAIT */

/* ---- Resets and time-outs ---- */

/* A peer that may not have agreed would not sign, and without a key that policy
 * allows nothing can be proved: treat a reset as plain TCP does.
 */
static bool tcp_mig_believes(const struct sock *sk,
			     const struct tcp_migrate *mig)
{
	return mig->believes && !tcp_mig_has_auth(sk) &&
	       tcp_mig_key_ok(sk, mig, mig->key_send);
}

static bool tcp_mig_rst_ok(const struct sock *sk,
			   const struct tcp_migrate *mig,
			   const struct sk_buff *skb,
			   const struct tcp_mig_opt *opt)
{
	u8 key[TCPMIG_KEY_LEN], mac[8];

	if (!!(opt->flags & TCPMIG_F_ROLE) == mig->role)
		return false;
	if (!tcp_mig_key_ok(sk, mig, opt->key_id))
		return false;
	tcp_mig_key(mig, opt->key_id, key);
	put_unaligned_be64(tcp_mig_mac_rst(key, !mig->role,
					   TCP_SKB_CB(skb)->seq), mac);
	memzero_explicit(key, sizeof(key));
	return !crypto_memneq(mac, opt->raw + 8, sizeof(mac));
}

/* @exact: on the current tuple, and at the sequence number that an answer to
 * our probe has.
 */
static void tcp_mig_rst_hint(struct sock *sk, struct tcp_migrate *mig,
			     bool exact)
{
	struct tcp_mig_net *tn = tcp_mig_net(sock_net(sk));
	u32 end = mig->since + READ_ONCE(tn->wait_rst) * HZ;

	MIG_INC(sock_net(sk), RSTHINT);
	/* Told once: anybody can send them. */
	if (mig->state == TCP_MIGRATE_STATE_MIG_SENT &&
	    mig->reason != TCP_MIGRATE_REASON_RST_HINT) {
		mig->reason = TCP_MIGRATE_REASON_RST_HINT;
		tcp_mig_event(sk, mig, 0);
	}
	if (exact && mig->state == TCP_MIGRATE_STATE_MIG_WAIT &&
	    before(end, mig->wait_end))
		mig->wait_end = end;
}

/* Does this RST answer the MSYN that we have sent on the current tuple? */
static bool tcp_mig_answers_msyn(const struct sock *sk,
				 const struct tcp_migrate *mig,
				 const struct sk_buff *skb)
{
	const struct tcp_mig_try *own = &mig->own;
	struct tcp_mig_tuple cur;

	tcp_mig_sk_tuple(sk, &cur);
	return mig->state == TCP_MIGRATE_STATE_MIG_SENT && !own->nosyn &&
	       own->tries && tcp_mig_tuple_eq(&cur, &own->t) &&
	       tcp_hdr(skb)->ack && TCP_SKB_CB(skb)->ack_seq == own->isn + 1;
}

/* Return: true if the RST was dealt with here. */
static bool tcp_mig_rcv_rst(struct sock *sk, struct tcp_migrate *mig,
			    struct sk_buff *skb,
			    const struct tcp_mig_opt *opt, bool on_path)
{
	if (!tcp_mig_believes(sk, mig))
		return false;
	if (opt && opt->sub == TCPMIG_SUB_RST) {
		if (tcp_mig_rst_ok(sk, mig, skb, opt)) {
			MIG_INC(sock_net(sk), RSTAUTH);
			mig->reason = TCP_MIGRATE_REASON_RST_AUTH;
			tcp_reset(sk, skb);
			return true;
		}
		MIG_INC(sock_net(sk), RSTAUTHBAD);
	}
	if (!on_path || mig->gate ||
	    mig->state == TCP_MIGRATE_STATE_MIG_CONFIRM) {
		tcp_mig_rst_hint(sk, mig, on_path &&
				 TCP_SKB_CB(skb)->seq ==
				 __tcp_migrate_ack(sk, tcp_sk(sk)->rcv_nxt));
		if (on_path && tcp_mig_answers_msyn(sk, mig, skb))
			tcp_mig_refused(sk, mig);
		return true;
	}
	return false;	/* RFC 5961 decides; then __tcp_migrate_rst() */
}

/* An exact RST without proof: of the peer's reboot, of a stranger who has its
 * old address, of a NAPT that forgot us, or forged. One probe tells.
 */
bool __tcp_migrate_rst(struct sock *sk)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	bool waits;

	if (!tcp_mig_believes(sk, mig))
		return false;
	local_bh_disable();	/* the RST may come from the backlog */
	tcp_mig_cancel_try(sk, mig);
	waits = tcp_mig_enter_wait(sk, mig, TCP_MIGRATE_REASON_RST, ECONNRESET);
	if (waits) {
		MIG_INC(sock_net(sk), RSTDEFERRED);
		tcp_mig_probe(sk, mig);
	}
	local_bh_enable();
	return waits;
}

/* Whoever listens may know how to reach the peer: its NAPT may have forgotten
 * the connection, and only the peer can remind it. Said at every time-out, so
 * less and less often, and only while this path is in use: also if another one
 * is tried meanwhile, which may never answer.
 */
void __tcp_migrate_stalled(struct sock *sk)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	u8 reason = mig->reason;

	if (!tcp_mig_believes(sk, mig) ||
	    (mig->state != TCP_MIGRATE_STATE_IDLE &&
	     (mig->state != TCP_MIGRATE_STATE_MIG_SENT || mig->gate)))
		return;
	/* Its end is not told: who asks later shall not hear of it. */
	mig->reason = TCP_MIGRATE_REASON_STALLED;
	tcp_mig_event(sk, mig, 0);
	mig->reason = reason;
}

/* TCP's own retransmissions, probes or keepalives were in vain. */
bool __tcp_migrate_timed_out(struct sock *sk)
{
	struct tcp_migrate *mig = tcp_mig(sk);

	if (!tcp_mig_believes(sk, mig))
		return false;
	/* The program set its own limit: it is honoured. */
	if (READ_ONCE(inet_csk(sk)->icsk_user_timeout))
		return false;
	if (mig->gate)
		return true;
	tcp_mig_cancel_try(sk, mig);
	if (!tcp_mig_enter_wait(sk, mig, TCP_MIGRATE_REASON_RETRIES,
				READ_ONCE(sk->sk_err_soft) ?: ETIMEDOUT))
		return false;
	tcp_mig_probe(sk, mig);
	return true;
}

static void tcp_mig_timer_sent(struct sock *sk, struct tcp_migrate *mig)
{
	u8 max = READ_ONCE(tcp_mig_net(sock_net(sk))->syn_retries);

	if (mig->own.tries <= max) {
		u8 tries = mig->own.tries;

		if (mig->own.refused)
			mig->own.nosyn = 0;
		/* Data went on over the old path: a fresh sequence number.
		 * Or the key is another now.
		 */
		if (mig->own.trial || mig->soft || mig->own.refused ||
		    mig->own.key_id != mig->key_send)
			tcp_mig_new_try(sk, mig);
		mig->own.tries = tries;
		tcp_mig_send_request(sk, mig);
		tcp_mig_arm(sk, mig, tcp_mig_rto(sk, mig->own.tries - 1));
		return;
	}
	if (mig->own.trial) {
		MIG_INC(sock_net(sk), TRIALFAILED);
		tcp_mig_cancel_try(sk, mig);
		tcp_mig_to_idle(sk, mig, TCP_MIGRATE_REASON_TRIAL_FAILED);
	} else if (!tcp_mig_enter_wait(sk, mig, TCP_MIGRATE_REASON_TIMEOUT,
				       ETIMEDOUT)) {
		tcp_done_with_error(sk, ETIMEDOUT);
	}
}

/* No answer to our CONFIRM. Stray segments may have confused a NAPT that knew
 * the tuple from before: only a SYN puts it right, hence MSYN again, as a new
 * attempt.
 */
static void tcp_mig_timer_confirm(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_try *own = &mig->own;

	if (own->tries++ < (own->trial ? MIG_TRIAL_TRIES : MIG_CONFIRM_TRIES)) {
		tcp_mig_send_confirm(sk, mig);
		tcp_mig_arm(sk, mig, tcp_mig_confirm_rto(sk, mig));
		return;
	}
	MIG_INC(sock_net(sk), CONFIRMMISSING);
	if (own->trial) {
		/* The peer may have committed it, so that it must be told:
		 * by a request on the path that we have kept.
		 */
		MIG_INC(sock_net(sk), TRIALFAILED);
		tcp_mig_cancel_try(sk, mig);
		tcp_mig_sk_tuple(sk, &own->t);
		own->ifindex = 0;
		own->nosyn = 1;
		mig->soft = 1;
	}
	tcp_mig_new_try(sk, mig);
	if (++mig->rounds >= MIG_ROUNDS &&
	    tcp_mig_enter_wait(sk, mig, TCP_MIGRATE_REASON_TIMEOUT, ETIMEDOUT))
		return;
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_MIG_SENT,
			  TCP_MIGRATE_REASON_TIMEOUT);
	tcp_mig_send_request(sk, mig);
	tcp_mig_arm(sk, mig, tcp_mig_rto(sk, 0));
}

static void tcp_mig_timer_wait(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_mig_net *tn = tcp_mig_net(sock_net(sk));
	u32 end = mig->wait_end;

	if (sock_flag(sk, SOCK_DEAD) &&
	    before(mig->since + READ_ONCE(tn->wait_orphan) * HZ, end))
		end = mig->since + READ_ONCE(tn->wait_orphan) * HZ;
	if (!before(tcp_jiffies32, end) || !check_net(sock_net(sk))) {
		MIG_INC(sock_net(sk), WAITTIMEOUT);
		tcp_done_with_error(sk, mig->wait_err);
		return;
	}
	tcp_mig_probe(sk, mig);
	tcp_mig_arm(sk, mig, min_t(u32, MIG_PROBE_INTERVAL,
				   end - tcp_jiffies32));
}

/* See tcp_mig_look_again(). The device may hold the flight back for longer, or
 * the new one's queue be full.
 */
static void tcp_mig_timer_held(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_sock *tp = tcp_sk(sk);

	mig->held = 0;
	if (!before(tp->snd_una, mig->held_nxt))
		return;
	tcp_mstamp_refresh(tp);
	tcp_mig_resend(sk, mig->held_nxt);
	/* TCP's own timer goes on, once it has fired. */
	if (!tp->lost_out || tp->retrans_out || inet_csk(sk)->icsk_retransmits)
		return;
	mig->held = 1;
	tcp_mig_arm(sk, mig, max(HZ / 100, 1));
}

static void tcp_mig_timer_idle(struct sock *sk, struct tcp_migrate *mig)
{
	if (mig->held)
		tcp_mig_timer_held(sk, mig);
	tcp_mig_age_pends(sk, mig);
}

void tcp_mig_timer(struct timer_list *t)
{
	struct tcp_migrate *mig = from_timer(mig, t, timer);
	struct sock *sk = mig->sk;

	bh_lock_sock(sk);
	if (rcu_access_pointer(tcp_sk(sk)->mig) != mig)
		goto out;
	if (sock_owned_by_user(sk)) {
		tcp_mig_arm(sk, mig, max(HZ / 100, 1));
		smp_mb();	/* pairs with tcp_mig_drop() */
		if (rcu_access_pointer(tcp_sk(sk)->mig) != mig)
			tcp_mig_disarm(sk, mig);
		goto out;
	}
	if (tcp_mig_user_timed_out(sk, mig)) {
		tcp_done_with_error(sk, READ_ONCE(sk->sk_err_soft) ?: ETIMEDOUT);
		goto out;
	}
	switch (mig->state) {
	case TCP_MIGRATE_STATE_IDLE:
		tcp_mig_timer_idle(sk, mig);
		break;
	case TCP_MIGRATE_STATE_MIG_SENT:
		tcp_mig_timer_sent(sk, mig);
		break;
	case TCP_MIGRATE_STATE_MIG_CONFIRM:
		tcp_mig_timer_confirm(sk, mig);
		break;
	case TCP_MIGRATE_STATE_MIG_WAIT:
		tcp_mig_timer_wait(sk, mig);
		break;
	}
out:
	bh_unlock_sock(sk);
	sock_put(sk);
}

/* ---- Receive ---- */

/* In window, and an ACK of what may have been sent: as much as plain TCP asks
 * of a segment before it believes it.
 */
static bool tcp_mig_acceptable(const struct sock *sk, const struct sk_buff *skb)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	const struct tcp_skb_cb *cb = TCP_SKB_CB(skb);

	if (!tcp_hdr(skb)->ack || tcp_hdr(skb)->rst || tcp_hdr(skb)->syn)
		return false;
	if (after(cb->seq, tp->rcv_nxt + tcp_receive_window(tp)) ||
	    before(cb->end_seq, tp->rcv_nxt - tcp_mig_lag(tp)))
		return false;
	return !after(cb->ack_seq, tp->snd_nxt) &&
	       !before(cb->ack_seq, tp->snd_una - tp->max_window);
}

/* Until all that the old path had been given is acknowledged, the congestion
 * window is no more than the initial one, what was sent into the new path, and
 * what the old one still holds: wherever it was delivered, an acknowledgment
 * comes over the new path, and TCP would take it for a delivery there.
 */
static void tcp_mig_limit(struct sock *sk, struct tcp_migrate *mig,
			  const struct sk_buff *skb)
{
	u32 una = TCP_SKB_CB(skb)->ack_seq, most;
	struct tcp_sock *tp = tcp_sk(sk);

	if (!before(tp->snd_una, mig->flight_end)) {
		tcp_mig_end_limit(sk, mig);
		tcp_mig_update_busy(sk, mig);
		return;
	}
	if (!tcp_mig_acceptable(sk, skb))
		return;
	most = tcp_init_cwnd(tp, __sk_dst_get(sk)) +
	       tp->data_segs_out - mig->segs_before;
	if (before(una, tp->snd_una))
		una = tp->snd_una;
	if (mig->flight_alive && before(una, mig->flight_end))
		most += DIV_ROUND_UP(mig->flight_end - una, tp->mss_cache);
	tp->snd_cwnd_clamp = min(most, mig->cwnd_clamp);
	if (tcp_snd_cwnd(tp) > tp->snd_cwnd_clamp)
		tcp_snd_cwnd_set(tp, tp->snd_cwnd_clamp);
}

/* An acceptable segment of the current path. */
static void tcp_mig_path_used(struct sock *sk, struct tcp_migrate *mig)
{
	/* While a CONFIRM of ours is unanswered the two ends may be on
	 * different tuples: only they themselves can say.
	 */
	if (mig->state != TCP_MIGRATE_STATE_MIG_WAIT || mig->unconfirmed)
		return;
	MIG_INC(sock_net(sk), WAITALIVE);
	tcp_mig_cancel_try(sk, mig);
	tcp_mig_to_idle(sk, mig, TCP_MIGRATE_REASON_PATH_ALIVE);
	tcp_mig_restart(sk);
}

/* A segment has come over the current path. */
void tcp_mig_track_path(struct sock *sk, struct tcp_migrate *mig,
			const struct sk_buff *skb)
{
	u32 end = TCP_SKB_CB(skb)->end_seq;

	if (!mig->clamp || !tcp_mig_acceptable(sk, skb))
		return;
	if (after(end, mig->path_rcv))
		mig->path_rcv = end;
	if (!before(mig->path_rcv, tcp_mig_rcv_end(tcp_sk(sk)))) {
		mig->clamp = 0;
		tcp_mig_update_busy(sk, mig);
		/* What was held back is owed, also to a segment without data. */
		inet_csk_schedule_ack(sk);
		inet_csk(sk)->icsk_ack.pending |= ICSK_ACK_NOW;
	}
}

/* A segment of a path that was left may bring what the current one has not
 * carried: what has come until now is all that may be acknowledged there.
 */
static void tcp_mig_track_old(struct sock *sk, struct tcp_migrate *mig)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	u32 end = tcp_mig_rcv_end(tp);

	if (mig->clamp)
		return;
	/* Segments without data may have shown the path more. */
	if (!between(mig->path_rcv, end, tp->rcv_nxt + tcp_receive_window(tp)))
		mig->path_rcv = end;
	mig->clamp = 1;
	tcp_mig_update_busy(sk, mig);
}

/* A trial's CONFIRM has the sequence number of the oldest segment in flight and a
 * newer timestamp than all of them: those that come after it, on the slower path
 * that is left, are no old duplicates (RFC 7323, 5.3) for that.
 */
static void tcp_mig_old_paws(struct sock *sk, const struct tcp_migrate *mig,
			     const struct sk_buff *skb)
{
	struct tcp_options_received *rx = &tcp_sk(sk)->rx_opt;
	struct tcp_options_received opt = { .tstamp_ok = 1 };

	if (!rx->tstamp_ok || before(rx->ts_recent, mig->ts_left))
		return;
	tcp_parse_options(sock_net(sk), skb, &opt, 1, NULL);
	if (opt.saw_tstamp && before(opt.rcv_tsval, rx->ts_recent) &&
	    !before(opt.rcv_tsval, mig->ts_left))
		rx->ts_recent = opt.rcv_tsval;
}

/* Requests and answers; always consumed. */
static void tcp_mig_rcv_handshake(struct sock *sk, struct tcp_migrate *mig,
				  struct sk_buff *skb,
				  const struct tcp_mig_tuple *t, bool on_path,
				  const struct tcp_mig_opt *opt)
{
	const struct tcphdr *th = tcp_hdr(skb);
	struct tcp_mig_mreq m;

	if (tcp_mig_is_answer(th, opt)) {
		tcp_mig_rcv_answer(sk, mig, skb, t, opt);
		return;
	}
	if (tcp_mig_verify(sk, mig, skb, opt, &m))
		tcp_mig_rcv_request(sk, mig, skb, t, on_path, &m, opt->key_id);
	else if (th->syn && !on_path && tcp_mig_refuse_allowed(sk, mig))
		tcp_mig_send_closed(sk, skb);
}

/* Late segments of a path we have left are as good as any. */
static bool tcp_mig_is_old(const struct tcp_migrate *mig,
			   const struct tcp_mig_tuple *t)
{
	struct sock *sk;
	u8 kind;

	sk = tcp_mig_alias_lookup(mig->id.net, t, &kind);
	if (sk)
		sock_put(sk);
	return sk == mig->sk && kind == MIG_ALIAS_OLD;
}

static bool tcp_mig_discard(struct sk_buff *skb)
{
	kfree_skb_reason(skb, SKB_DROP_REASON_TCP_FLAGS);
	return true;
}

static bool tcp_mig_rcv(struct sock *sk, struct tcp_migrate *mig,
			struct sk_buff *skb, const struct tcphdr *th)
{
	struct tcp_mig_opt o, *opt = NULL;
	struct tcp_mig_tuple t, cur;
	bool on_path, on_new;

	if (th->doff * 4 > sizeof(*th) && tcp_mig_parse(th, &o))
		opt = &o;
	tcp_mig_skb_tuple(skb, &t);
	tcp_mig_sk_tuple(sk, &cur);
	on_path = tcp_mig_tuple_eq(&t, &cur);

	if (opt && (opt->sub == TCPMIG_SUB_MREQ ||
		    opt->sub == TCPMIG_SUB_MANS)) {
		tcp_mig_rcv_handshake(sk, mig, skb, &t, on_path, opt);
		return tcp_mig_discard(skb);
	}
	if (th->rst)
		return tcp_mig_rcv_rst(sk, mig, skb, opt, on_path) &&
		       tcp_mig_discard(skb);

	on_new = mig->own.valid && tcp_mig_tuple_eq(&t, &mig->own.t);
	if (th->syn && !on_path) {
		if (th->ack && on_new)
			tcp_mig_rcv_plain_synack(sk, mig, skb);
		return tcp_mig_discard(skb);
	}

	if (opt && opt->sub == TCPMIG_SUB_CONFIRM) {
		if (!tcp_mig_rcv_confirm(sk, mig, skb, &t, opt)) {
			MIG_INC(sock_net(sk), BADCONFIRM);
			if (!on_path && !tcp_mig_is_old(mig, &t))
				return tcp_mig_discard(skb);
		}
		if (sk->sk_state == TCP_CLOSE)
			return tcp_mig_discard(skb);
		tcp_mig_sk_tuple(sk, &cur);
		on_path = tcp_mig_tuple_eq(&t, &cur);
	}
	if (opt && opt->sub == TCPMIG_SUB_ECHO)
		tcp_mig_rcv_echo(sk, mig, opt);
	else if (mig->echo && tcp_mig_acceptable(sk, skb))
		tcp_mig_no_echo(sk, mig);
	if (!rcu_access_pointer(tcp_sk(sk)->mig))
		return false;

	if (mig->limited)
		tcp_mig_limit(sk, mig, skb);
	if (!on_path) {
		/* Nobody but the peer may speak on a tuple under negotiation,
		 * and it does so with CONFIRM.
		 */
		if (on_new || tcp_mig_find_pend(mig, &t)) {
			MIG_INC(sock_net(sk), FOREIGN);
			return tcp_mig_discard(skb);
		}
		MIG_INC(sock_net(sk), OLDPATH);
		tcp_mig_track_old(sk, mig);
		tcp_mig_old_paws(sk, mig, skb);
		return false;
	}
	if (mig->state > TCP_MIGRATE_STATE_IDLE &&
	    tcp_mig_acceptable(sk, skb)) {
		mig->own.heard = 1;
		tcp_mig_path_used(sk, mig);
	}
	if (sk->sk_state == TCP_CLOSE)
		return tcp_mig_discard(skb);
	tcp_mig_track_path(sk, mig, skb);
	return false;
}

/* Backlogged segments come from process context, with BH enabled. RCU keeps
 * the state in memory when the segment ends the connection.
 */
bool __tcp_migrate_rcv(struct sock *sk, struct sk_buff *skb,
		       const struct tcphdr *th)
{
	bool consumed;

	rcu_read_lock();
	local_bh_disable();
	consumed = tcp_mig_rcv(sk, tcp_mig(sk), skb, th);
	local_bh_enable();
	rcu_read_unlock();
	return consumed;
}

static int tcp_mig_iif(const struct sk_buff *skb)
{
	return ip_hdr(skb)->version == 4 ? inet_iif(skb) : inet6_iif(skb);
}

static int tcp_mig_sdif(const struct sk_buff *skb)
{
	return ip_hdr(skb)->version == 4 ? inet_sdif(skb) : inet6_sdif(skb);
}

/* Can a listener have sent cookies of late? Five minutes after the host has
 * started, those that never had to seem to have (jiffies pass zero).
 */
static bool tcp_mig_may_have_cookies(const struct net *net,
				     const struct sock *sk)
{
	if (READ_ONCE(net->ipv4.sysctl_tcp_syncookies) == 2)
		return true;
	return (sk->sk_reuseport ||
		READ_ONCE(tcp_sk(sk)->rx_opt.ts_recent_stamp)) &&
	       !tcp_synq_no_recent_overflow(sk);
}

/* A tuple that we have left may begin another connection, which is younger than
 * ours: it has a request, a TIME_WAIT, or only a cookie. On one that we ask for
 * there is no room for cookies.
 */
static bool tcp_mig_alias_takes(const struct net *net, const struct sock *sk,
				const struct tcphdr *th, u8 kind)
{
	if (!sk)
		return true;
	if (sk->sk_state != TCP_LISTEN)
		return false;
	return th->syn || kind == MIG_ALIAS_NEW ||
	       !tcp_mig_may_have_cookies(net, sk);
}

/* A token says nothing of addresses, and a socket of one family cannot take
 * segments of the other. Nor can one that is bound to another device.
 */
static bool tcp_mig_sk_takes(struct net *net, const struct sock *sk,
			     const struct sk_buff *skb)
{
	bool v4 = sk->sk_family == AF_INET ||
		  ipv6_addr_v4mapped(&sk->sk_v6_daddr);

	return v4 == (ip_hdr(skb)->version == 4) &&
	       inet_sk_bound_dev_eq(net, sk->sk_bound_dev_if, tcp_mig_iif(skb),
				    tcp_mig_sdif(skb));
}

/* @found, whose reference is taken over, if it can take the segment; else NULL. */
static struct sock *tcp_mig_demux_checked(struct net *net, struct sock *found,
					  const struct sk_buff *skb)
{
	if (!found || tcp_mig_sk_takes(net, found, skb))
		return found;
	sock_gen_put(found);
	return NULL;
}

static struct sock *tcp_mig_demux_token(struct net *net,
					const struct sk_buff *skb, u32 token)
{
	return tcp_mig_demux_checked(net, tcp_mig_token_lookup(net, token),
				     skb);
}

static struct sock *tcp_mig_demux_alias(struct net *net,
					const struct sk_buff *skb,
					const struct sock *sk)
{
	const struct tcphdr *th = tcp_hdr(skb);
	struct tcp_mig_tuple t;
	struct sock *found;
	u8 kind;

	if (th->syn && !th->ack)
		return NULL;
	tcp_mig_skb_tuple(skb, &t);
	found = tcp_mig_alias_lookup(net, &t, &kind);
	if (found && !tcp_mig_alias_takes(net, sk, th, kind)) {
		sock_gen_put(found);
		return NULL;
	}
	return tcp_mig_demux_checked(net, found, skb);
}

/* Runs without the socket lock, under RCU; takes over @sk's reference. */
struct sock *__tcp_migrate_demux(struct net *net, struct sk_buff *skb,
				 struct sock *sk, bool *refcounted)
{
	const struct tcphdr *th = tcp_hdr(skb);
	bool idle = !sk || ((1 << sk->sk_state) &
			    (TCPF_LISTEN | TCPF_TIME_WAIT | TCPF_NEW_SYN_RECV));
	struct sock *found = NULL;
	struct tcp_mig_opt opt;
	bool ours;

	ours = tcp_mig_parse(th, &opt);
	if (ours && (opt.sub == TCPMIG_SUB_MREQ ||
		     opt.sub == TCPMIG_SUB_MANS)) {
		found = tcp_mig_demux_token(net, skb, opt.token);
		if (!found && idle && th->syn && !th->ack &&
		    READ_ONCE(tcp_mig_net(net)->enabled)) {
			/* As a closed port would, even if one listens here. */
			MIG_INC(net, NOTOKEN);
			goto none;
		}
	} else if (ours && opt.sub == TCPMIG_SUB_CONFIRM && idle &&
		   !(sk && sk->sk_state == TCP_NEW_SYN_RECV)) {
		/* By token, so that it is found even if more requests came
		 * than are remembered. It carries no SYN.
		 */
		if (!th->syn)
			found = tcp_mig_demux_token(net, skb, opt.token);
	}
	if (!found && idle)
		found = tcp_mig_demux_alias(net, skb, sk);
	if (!found)
		return sk;
none:
	if (sk && *refcounted)
		sock_gen_put(sk);
	*refcounted = found;
	return found;
}

