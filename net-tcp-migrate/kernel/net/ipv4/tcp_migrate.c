// SPDX-License-Identifier: GPL-2.0
/* TCP migration: a connection moves to another four-tuple and goes on.
 *
 * Negotiation: SYN and SYN,ACK carry PERMIT; the client repeats ECHO until the
 * server's ECHO shows that options pass in both directions. Only then do both
 * ends believe.
 *
 * Migration, sub-states beside sk_state (the program notices a stall at most):
 *
 *   IDLE --migrate--> MIG_SENT --answer--> MIG_CONFIRM --peer used it--> IDLE
 *                        |                     |
 *                     time-out              time-out
 *                        v                     v
 *                     MIG_WAIT <------- MSYN again (new ReqNo)
 *
 * The initiator keeps its socket on the old tuple, gated, until the answer
 * comes, then re-addresses it and proves with CONFIRM that it receives there.
 * The peer answers from a pend slot, without any other change of state, and
 * re-addresses on a valid CONFIRM. A trial is not gated, and is committed only
 * when the peer has used the new tuple.
 *
 * A reset that does not prove its origin, and TCP's own time-outs, lead to
 * MIG_WAIT, where the path is probed now and then.
 *
 * All functions run with the socket locked unless they say otherwise.
 */
#define pr_fmt(fmt) "TCPMIG: " fmt

#include <crypto/algapi.h>
#include <linux/random.h>
#include <linux/tcp.h>
#include <linux/unaligned.h>
#include <net/mptcp.h>
#include <net/tcp.h>

#include "tcp_migrate.h"

#define CREATE_TRACE_POINTS
#include <trace/events/tcp_migrate.h>

DEFINE_STATIC_KEY_FALSE(tcp_migrate_key);
EXPORT_SYMBOL_GPL(tcp_migrate_key);

#define MIG_KIND_ACK		16	/* beside enum tcp_mig_sub + 1 */
#define MIG_KIND_CONFIRM_EDGE	17
#define MIG_RTO_MIN		(HZ / 5)
#define MIG_RTO_MAX		(8 * HZ)
#define MIG_ECHO_MAX		16	/* segments without the server's ECHO */
#define MIG_REPLIES_PER_SEC	20	/* per connection, to wrong or repeated MSYNs */

u64 tcp_mig_key_active(const struct tcp_migrate *mig)
{
	return mig->role ? mig->key_local : mig->key_peer;
}

u64 tcp_mig_key_passive(const struct tcp_migrate *mig)
{
	return mig->role ? mig->key_peer : mig->key_local;
}

/* The caller wipes @out. Key 0 is derived when needed, which is rare. */
void tcp_mig_key(const struct tcp_migrate *mig, u8 id, u8 out[TCPMIG_KEY_LEN])
{
	if (id && mig->keys)
		memcpy(out, mig->keys[id], TCPMIG_KEY_LEN);
	else
		tcp_mig_key0(out, tcp_mig_key_active(mig),
			     tcp_mig_key_passive(mig));
}

bool tcp_mig_key_ok(const struct sock *sk, const struct tcp_migrate *mig,
		    u8 id)
{
	if (mig->key_only)
		return id == mig->key_only;
	if (!id)
		return !READ_ONCE(tcp_mig_net(sock_net(sk))->require_strong);
	return mig->key_mask & BIT(id);
}

/* Header prediction and the transmit hooks of the gate and of acknowledgments look
 * at this one bit.
 */
void tcp_mig_update_busy(struct sock *sk, struct tcp_migrate *mig)
{
	struct tcp_sock *tp = tcp_sk(sk);
	bool busy = mig->echo || mig->clamp || mig->gate || mig->limited ||
		    mig->state > TCP_MIGRATE_STATE_IDLE ||
		    mig->pend[0].valid || mig->pend[1].valid;

	BUILD_BUG_ON(TCPMIG_PENDS != 2);
	if (busy == tp->mig_busy)
		return;
	tp->mig_busy = busy;
	if (busy)
		tp->pred_flags = 0;
	else if (sk->sk_state == TCP_ESTABLISHED)
		tcp_fast_path_check(sk);
}

static void tcp_mig_set_waiting(struct sock *sk, struct tcp_migrate *mig,
				bool on)
{
	if (mig->waiting == on)
		return;
	mig->waiting = on;
	atomic_add(on ? 1 : -1, &tcp_mig_net(sock_net(sk))->waiting);
}

void tcp_mig_set_state(struct sock *sk, struct tcp_migrate *mig, u8 state,
		       u8 reason)
{
	u8 old = mig->state;
	bool was_gated = mig->gate;

	mig->state = state;
	mig->reason = reason;
	mig->since = tcp_jiffies32;
	mig->held = 0;
	mig->gate = state == TCP_MIGRATE_STATE_MIG_WAIT ||
		    (state == TCP_MIGRATE_STATE_MIG_SENT && !mig->own.trial &&
		     !mig->soft) ||
		    (state == TCP_MIGRATE_STATE_MIG_CONFIRM &&
		     mig->own.unbound && !mig->own.trial);
	if (!was_gated)
		mig->gated = mig->since;
	tcp_mig_set_waiting(sk, mig, state == TCP_MIGRATE_STATE_MIG_WAIT);
	tcp_mig_update_busy(sk, mig);
	trace_tcp_migrate_state(sk, old, state, reason, mig->seen);
	tcp_mig_event(sk, mig, 0);
}

/* Jiffies until TCP_USER_TIMEOUT (RFC 5482) ends the connection, whose own
 * timers stand still while the gate is closed.
 */
static long tcp_mig_user_left(const struct sock *sk,
			      const struct tcp_migrate *mig)
{
	u32 limit = READ_ONCE(inet_csk(sk)->icsk_user_timeout);

	if (!limit || !mig->gate || tcp_sk(sk)->snd_una == tcp_sk(sk)->write_seq)
		return MAX_JIFFY_OFFSET;
	return (s32)(mig->gated + msecs_to_jiffies(limit) - tcp_jiffies32);
}

bool tcp_mig_user_timed_out(const struct sock *sk,
			    const struct tcp_migrate *mig)
{
	return tcp_mig_user_left(sk, mig) <= 0;
}

void tcp_mig_arm(struct sock *sk, struct tcp_migrate *mig, unsigned long delay)
{
	delay = clamp_t(long, tcp_mig_user_left(sk, mig), 1, delay);
	sk_reset_timer(sk, &mig->timer, jiffies + delay);
}

void tcp_mig_disarm(struct sock *sk, struct tcp_migrate *mig)
{
	sk_stop_timer(sk, &mig->timer);
}

/* Repetition of handshake segments: the old path's RTO is a fair first guess
 * for the new one, within bounds.
 */
unsigned long tcp_mig_rto(const struct sock *sk, u8 tries)
{
	unsigned long rto = clamp_t(unsigned long, inet_csk(sk)->icsk_rto,
				    MIG_RTO_MIN, HZ);

	return min_t(unsigned long, rto << min_t(u8, tries, 6), MIG_RTO_MAX);
}

/* Repetition of CONFIRM: by the handshake's round trip, not by an RTO that may
 * have grown on a path which the peer has left meanwhile.
 */
unsigned long tcp_mig_confirm_rto(const struct sock *sk,
				  const struct tcp_migrate *mig)
{
	u32 rtt = mig->own.rtt_us ?: tcp_sk(sk)->srtt_us >> 3;
	unsigned long rto;

	rto = clamp_t(unsigned long, 3 * usecs_to_jiffies(rtt), MIG_RTO_MIN,
		      MIG_RTO_MAX);
	return min_t(unsigned long, rto << min_t(u8, mig->own.tries, 6),
		     max_t(unsigned long, rto, HZ));
}

static bool tcp_mig_allowed(struct sock *sk, struct tcp_migrate *mig, u8 *count)
{
	u32 now = tcp_jiffies32 / HZ;

	if (mig->reply_stamp != now) {
		mig->reply_stamp = now;
		mig->reply_count = 0;
		mig->refuse_count = 0;
	}
	if (*count >= MIG_REPLIES_PER_SEC) {
		MIG_INC(sock_net(sk), REPLYLIMIT);
		return false;
	}
	(*count)++;
	return true;
}

bool tcp_mig_reply_allowed(struct sock *sk, struct tcp_migrate *mig)
{
	return tcp_mig_allowed(sk, mig, &mig->reply_count);
}

/* Refusals have a budget of their own: whoever has seen a token must not be
 * able to use up the answers to the owner.
 */
bool tcp_mig_refuse_allowed(struct sock *sk, struct tcp_migrate *mig)
{
	return tcp_mig_allowed(sk, mig, &mig->refuse_count);
}

/* ---- Life cycle ---- */

static struct tcp_migrate *tcp_mig_alloc(struct sock *sk, bool role, gfp_t gfp)
{
	struct tcp_migrate *mig = kmem_cache_zalloc(tcp_mig_cache,
						    gfp | __GFP_NOWARN);

	if (!mig) {
		MIG_INC(sock_net(sk), NOMEM);
		return NULL;
	}
	mig->id.net = sock_net(sk);
	mig->sk = sk;
	mig->role = role;
	INIT_HLIST_HEAD(&mig->aliases);
	timer_setup(&mig->timer, tcp_mig_timer, 0);
	return mig;
}

static void tcp_mig_free_rcu(struct rcu_head *rcu)
{
	struct tcp_migrate *mig = container_of(rcu, struct tcp_migrate, rcu);

	kfree_sensitive(mig->keys);
	memzero_explicit(mig, sizeof(*mig));
	kmem_cache_free(tcp_mig_cache, mig);
}

/* Two FINs, both acknowledged: no genuine RST of ours can follow. */
static bool tcp_mig_clean_end(const struct sock *sk,
			      const struct tcp_migrate *mig)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return !mig->rst_sent && sock_flag(sk, SOCK_DONE) &&
	       tp->snd_una == tp->write_seq;
}

/* Tell those who listen that this is no connection of ours any more. */
static void tcp_mig_gone(struct sock *sk, struct tcp_migrate *mig)
{
	if (!mig->agreed)
		return;
	mig->state = TCP_MIGRATE_STATE_NONE;
	if (mig->reason != TCP_MIGRATE_REASON_RST_AUTH &&
	    mig->reason != TCP_MIGRATE_REASON_ABORTED)
		mig->reason = TCP_MIGRATE_REASON_CLOSED;
	tcp_mig_event(sk, mig, READ_ONCE(sk->sk_err));
}

static void tcp_mig_drop(struct sock *sk)
{
	struct tcp_migrate *mig = tcp_mig(sk);

	tcp_mig_set_waiting(sk, mig, false);
	tcp_mig_end_limit(sk, mig);	/* the socket may be used again */
	tcp_mig_token_remove(mig);
	tcp_mig_alias_flush(mig);
	tcp_sk(sk)->mig_busy = 0;
	RCU_INIT_POINTER(tcp_sk(sk)->mig, NULL);
	/* Pairs with tcp_mig_timer(): it may re-arm on another CPU while a
	 * program owns the socket; one of us sees the other.
	 */
	smp_mb();
	tcp_mig_disarm(sk, mig);
	call_rcu(&mig->rcu, tcp_mig_free_rcu);
}

void __tcp_migrate_destroy(struct sock *sk)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	struct tcp_mig_tuple t;

	/* A repaired one goes on elsewhere. */
	if (mig->agreed && !tcp_sk(sk)->repair && !tcp_mig_clean_end(sk, mig)) {
		tcp_mig_sk_tuple(sk, &t);
		tcp_mig_tomb_add(mig, &t);
	}
	tcp_mig_gone(sk, mig);
	tcp_mig_drop(sk);
}

/* ---- Negotiation ---- */

/* TCP-MD5 and TCP-AO bind a connection to its addresses. A key may also come
 * later, and go: meanwhile the connection behaves as plain TCP, since handshake
 * segments would not be signed, and an RST has no room for both options.
 */
bool tcp_mig_has_auth(const struct sock *sk)
{
#ifdef CONFIG_TCP_MD5SIG
	if (rcu_access_pointer(tcp_sk(sk)->md5sig_info))
		return true;
#endif
#ifdef CONFIG_TCP_AO
	if (rcu_access_pointer(tcp_sk(sk)->ao_info))
		return true;
#endif
	return false;
}

/* Signed, multipath and repaired connections, and loopback, are left alone. */
bool tcp_mig_may_permit(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	u8 enabled = READ_ONCE(tcp_mig_net(sock_net(sk))->enabled);
	u8 opt = READ_ONCE(tp->mig_opt);

	if (!enabled || opt == 2 || (!opt && enabled != 2))
		return false;
	if (sk_is_mptcp(sk) || tp->repair || tcp_mig_has_auth(sk))
		return false;
	/* A kernel's socket that does not keep its namespace: it could be gone
	 * when a migration under way ends.
	 */
	if (!sk->sk_net_refcnt && !net_eq(sock_net(sk), &init_net))
		return false;
#if IS_ENABLED(CONFIG_SMC)
	if (tp->syn_smc)
		return false;
#endif
	return true;
}

static bool tcp_mig_is_loopback(const struct in6_addr *a)
{
	return ipv6_addr_loopback(a) || (ipv6_addr_v4mapped(a) &&
		ipv4_is_loopback(a->s6_addr32[3]));
}

/* Does an end see itself elsewhere than we see it? @key: the one it made. */
bool tcp_mig_is_nat(u64 key, __be32 addr, __be16 port,
		    const struct in6_addr *seen, __be16 seen_port)
{
	__be32 expect = ipv6_addr_v4mapped(seen) ? seen->s6_addr32[3] :
			tcp_mig_addr_hash(key, seen);

	return addr != expect || port != seen_port;
}

/* Take the peer's key and the address it sees itself at. */
static void tcp_mig_learn_peer(struct tcp_migrate *mig, u64 key, __be32 addr,
			       __be16 port, const struct in6_addr *seen,
			       __be16 seen_port)
{
	mig->key_peer = key;
	mig->peer_addr = addr;
	mig->peer_port = port;
	mig->peer_nat = tcp_mig_is_nat(key, addr, port, seen, seen_port);
}

/* The state machine may now be used. Return: false if the token is taken. */
static bool tcp_mig_agree(struct sock *sk, struct tcp_migrate *mig)
{
	mig->id.token = tcp_mig_token(mig->key_local);
	if (tcp_mig_token_insert(mig)) {
		MIG_INC(sock_net(sk), TOKENCOLLISION);
		return false;
	}
	mig->agreed = 1;
	MIG_INC(sock_net(sk), AGREED);
	tcp_mig_set_state(sk, mig, TCP_MIGRATE_STATE_IDLE,
			  TCP_MIGRATE_REASON_AGREED);
	return true;
}

/* SYN: PERMIT, unless this destination did not answer it. */
unsigned int __tcp_migrate_syn_options(struct sock *sk, unsigned int remaining,
				       u8 *kind)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	struct net *net = sock_net(sk);

	if (remaining < TCPMIG_LEN_PERMIT || !tcp_mig_may_permit(sk) ||
	    tcp_mig_is_loopback(&sk->sk_v6_daddr))
		return 0;
	if (!mig) {
		if (tcp_mig_fallback_hit(sk)) {
			MIG_INC(net, FALLBACKHIT);
			return 0;
		}
		mig = tcp_mig_alloc(sk, true, sk_gfp_mask(sk, GFP_ATOMIC));
		if (!mig)
			return 0;
		mig->key_local = get_random_u64();
		mig->isn_active = tcp_sk(sk)->snd_una;
		rcu_assign_pointer(tcp_sk(sk)->mig, mig);
	}
	if (inet_csk(sk)->icsk_retransmits >= 2) {
		mig->omitted = 1;
		MIG_INC(net, PERMITOMITTED);
		return 0;
	}
	MIG_INC(net, PERMITSENT);
	*kind = TCPMIG_SUB_PERMIT + 1;
	return TCPMIG_LEN_PERMIT;
}

/* A SYN with PERMIT reached a listener. Not for syncookies: no room there. */
void __tcp_migrate_openreq_init(const struct sock *sk, struct request_sock *req,
				const struct sk_buff *skb)
{
	struct tcp_request_sock *treq = tcp_rsk(req);
	struct tcp_mig_opt opt;

	if (!tcp_mig_parse(tcp_hdr(skb), &opt) ||
	    opt.sub != TCPMIG_SUB_PERMIT || !tcp_mig_may_permit(sk))
		return;
	if (treq->is_mptcp)
		return;
	MIG_INC(sock_net(sk), PERMITRCVD);
	treq->mig_ok = 1;
	treq->mig_key_local = get_random_u64();
	treq->mig_key_peer = opt.key;
	treq->mig_peer_addr = opt.addr;
	treq->mig_peer_port = opt.port;
}

/* SYN,ACK: leave PERMIT out when the ones with it were not answered. */
unsigned int __tcp_migrate_synack_options(struct request_sock *req,
					  unsigned int remaining, u8 *kind)
{
	struct net *net = read_pnet(&inet_rsk(req)->ireq_net);

	/* Counted after each repetition has been sent. */
	if (remaining < TCPMIG_LEN_PERMIT || req->num_retrans >= 1 ||
	    req->num_timeout >= 1) {
		MIG_INC(net, PERMITOMITTED);
		return 0;
	}
	MIG_INC(net, PERMITSENT);
	*kind = TCPMIG_SUB_PERMIT + 1;
	return TCPMIG_LEN_PERMIT;
}

void __tcp_migrate_openreq_child(struct sock *newsk,
				 const struct request_sock *req)
{
	const struct tcp_request_sock *treq = tcp_rsk(req);
	const struct inet_request_sock *ireq = inet_rsk(req);
	struct in6_addr seen = ireq->ir_v6_rmt_addr;
	struct tcp_migrate *mig;

	mig = tcp_mig_alloc(newsk, false, GFP_ATOMIC);
	if (!mig)
		return;
	if (ireq->ireq_family == AF_INET)
		ipv6_addr_set_v4mapped(ireq->ir_rmt_addr, &seen);
	mig->key_local = treq->mig_key_local;
	mig->isn_active = treq->rcv_isn;
	mig->isn_passive = treq->snt_isn;
	tcp_mig_learn_peer(mig, treq->mig_key_peer, treq->mig_peer_addr,
			   treq->mig_peer_port, &seen, ireq->ir_rmt_port);
	rcu_assign_pointer(tcp_sk(newsk)->mig, mig);
}

/* Client: the SYN,ACK. Without PERMIT this is an ordinary connection. */
void __tcp_migrate_rcv_synack(struct sock *sk, const struct sk_buff *skb)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	struct tcp_mig_opt opt;

	if (!tcp_mig_parse(tcp_hdr(skb), &opt) ||
	    opt.sub != TCPMIG_SUB_PERMIT) {
		if (mig->omitted || inet_csk(sk)->icsk_retransmits >= 2)
			tcp_mig_fallback_add(sk);
		tcp_mig_drop(sk);
		return;
	}
	MIG_INC(sock_net(sk), PERMITRCVD);
	tcp_mig_learn_peer(mig, opt.key, opt.addr, opt.port, &sk->sk_v6_daddr,
			   inet_sk(sk)->inet_dport);
	mig->isn_passive = TCP_SKB_CB(skb)->seq;
	mig->echo = 1;
	tcp_mig_update_busy(sk, mig);
}

static u32 tcp_mig_echo_of(const struct tcp_migrate *mig, u8 flags)
{
	return tcp_mig_echo_mac(tcp_mig_key_active(mig),
				tcp_mig_key_passive(mig), flags,
				mig->isn_active, mig->isn_passive);
}

static u8 tcp_mig_echo_flags(const struct tcp_migrate *mig)
{
	return tcp_mig_role_flag(mig) | (mig->agreed ? TCPMIG_F_AGREED : 0);
}

/* ECHO of the peer. The server says it until the client says that it has
 * agreed; the client, until the server says it no more. What does not come
 * means nothing: a box may take it away, on this segment or from now on.
 */
void tcp_mig_rcv_echo(struct sock *sk, struct tcp_migrate *mig,
		      const struct tcp_mig_opt *opt)
{
	if (get_unaligned_be24(opt->raw + 5) !=
	    tcp_mig_echo_of(mig, opt->flags) ||
	    !!(opt->flags & TCPMIG_F_ROLE) == mig->role) {
		MIG_INC(sock_net(sk), ECHOBAD);
		return;
	}
	if (!mig->agreed && !tcp_mig_agree(sk, mig)) {
		mig->echo = 0;
		tcp_mig_update_busy(sk, mig);
		return;
	}
	if (opt->flags & TCPMIG_F_AGREED)
		mig->believes = 1;
	mig->echo_miss = 0;
	mig->echo = mig->role || !mig->believes;
	tcp_mig_update_busy(sk, mig);
	if (mig->echo && !inet_csk_ack_scheduled(sk)) {
		/* Our next segment carries the answer; at the latest this. */
		inet_csk_schedule_ack(sk);
		inet_csk_reset_xmit_timer(sk, ICSK_TIME_DACK, TCP_DELACK_MAX,
					  TCP_RTO_MAX);
	}
}

/* A segment without ECHO while we send it: the server has heard that we have
 * agreed. If we do not know the same of the peer, after some of them: it is
 * plain TCP.
 */
void tcp_mig_no_echo(struct sock *sk, struct tcp_migrate *mig)
{
	if (mig->believes) {
		mig->echo = 0;
		tcp_mig_update_busy(sk, mig);
	} else if (++mig->echo_miss >= MIG_ECHO_MAX &&
		   mig->state <= TCP_MIGRATE_STATE_IDLE) {
		MIG_INC(sock_net(sk), ECHOMISSING);
		tcp_mig_gone(sk, mig);
		tcp_mig_drop(sk);
	}
}

/* ---- Options on segments of the connection ---- */

/* An acknowledgment of what the old path has brought since, whose SND.NXT is
 * beyond what NAPTs let pass until they have seen the peer's window: see
 * tcp_mig_send_confirm(). They would let it pass, and take those of the peer
 * for old ones from then on: not if it acknowledges as much as that itself.
 */
static bool tcp_mig_beyond_napt(const struct tcp_migrate *mig,
				const struct sk_buff *skb)
{
	const struct tcp_mig_try *own = &mig->own;
	u32 edge = own->isn + 1 + MIG_NAPT_WINDOW;

	return own->napt && skb && !skb->len &&
	       TCP_SKB_CB(skb)->seq == TCP_SKB_CB(skb)->end_seq &&
	       after(TCP_SKB_CB(skb)->seq, edge) &&
	       !after(own->peer_rcv, edge);
}

unsigned int __tcp_migrate_established_options(struct sock *sk,
					       const struct sk_buff *skb,
					       unsigned int remaining, u8 *kind)
{
	struct tcp_migrate *mig = tcp_mig(sk);

	if (skb && TCP_SKB_CB(skb)->tcp_flags & TCPHDR_RST) {
		if (!mig->agreed || remaining < TCPMIG_LEN_RST)
			return 0;
		mig->rst_sent = 1;
		MIG_INC(sock_net(sk), RSTSIGNED);
		*kind = TCPMIG_SUB_RST + 1;
		return TCPMIG_LEN_RST;
	}
	if (mig->sign_ack && remaining >= TCPMIG_LEN_CONFIRM) {
		*kind = MIG_KIND_ACK;
		return TCPMIG_LEN_CONFIRM;
	}
	if (mig->state == TCP_MIGRATE_STATE_MIG_CONFIRM && !mig->own.trial &&
	    remaining >= TCPMIG_LEN_CONFIRM) {
		*kind = tcp_mig_beyond_napt(mig, skb) ? MIG_KIND_CONFIRM_EDGE :
							TCPMIG_SUB_CONFIRM + 1;
		return TCPMIG_LEN_CONFIRM;
	}
	if (mig->echo && remaining >= TCPMIG_LEN_ECHO) {
		*kind = TCPMIG_SUB_ECHO + 1;
		return TCPMIG_LEN_ECHO;
	}
	return 0;
}

static void tcp_mig_write_permit(u8 *p, u64 key, const struct in6_addr *addr,
				 __be16 port)
{
	bool v6 = !ipv6_addr_v4mapped(addr);

	tcp_mig_put_permit(p, key, v6,
			   v6 ? tcp_mig_addr_hash(key, addr) :
				addr->s6_addr32[3], port);
}

u8 tcp_mig_role_flag(const struct tcp_migrate *mig)
{
	return mig->role ? TCPMIG_F_ROLE : 0;
}

static void tcp_mig_write_rst(u8 *p, const struct tcp_migrate *mig, u32 seq)
{
	u8 key[TCPMIG_KEY_LEN];

	tcp_mig_key(mig, mig->key_send, key);
	tcp_mig_put_rst(p, mig->key_send | tcp_mig_role_flag(mig),
			tcp_mig_mac_rst(key, mig->role, seq));
	memzero_explicit(key, sizeof(key));
}

static void tcp_mig_write_synack(u8 *p, const struct tcp_request_sock *treq)
{
	const struct inet_request_sock *ireq = &treq->req;
	struct in6_addr a = ireq->ir_v6_loc_addr;

	if (ireq->ireq_family == AF_INET)
		ipv6_addr_set_v4mapped(ireq->ir_loc_addr, &a);
	tcp_mig_write_permit(p, treq->mig_key_local, &a, htons(ireq->ir_num));
}

/* @kind is the form plus one; see the functions that chose it. */
__be32 *__tcp_migrate_options_write(__be32 *ptr, struct tcphdr *th,
				    struct tcp_sock *tp,
				    const struct tcp_request_sock *treq,
				    u8 kind)
{
	struct sock *sk = (struct sock *)tp;
	struct tcp_migrate *mig = tp ? tcp_mig(sk) : NULL;
	u8 *p = (u8 *)ptr;
	u8 flags;

	switch (kind - 1) {
	case TCPMIG_SUB_PERMIT:
		if (mig)
			tcp_mig_write_permit(p, mig->key_local,
					     &sk->sk_v6_rcv_saddr,
					     inet_sk(sk)->inet_sport);
		else
			tcp_mig_write_synack(p, treq);
		return ptr + TCPMIG_LEN_PERMIT / 4;
	case MIG_KIND_CONFIRM_EDGE - 1:
		th->seq = htonl(mig->own.isn + 1 + MIG_NAPT_WINDOW);
		fallthrough;
	case TCPMIG_SUB_CONFIRM:
		tcp_mig_put_confirm(p, mig->own.key_id | tcp_mig_role_flag(mig),
				    mig->own.reqno, mig->own.held,
				    tcp_mig_token(mig->key_peer), mig->confirm);
		return ptr + TCPMIG_LEN_CONFIRM / 4;
	case MIG_KIND_ACK - 1:
		tcp_mig_put_confirm(p, mig->ack_key | tcp_mig_role_flag(mig),
				    mig->ack_reqno, 0,
				    tcp_mig_token(mig->key_peer),
				    mig->confirm_ack);
		return ptr + TCPMIG_LEN_CONFIRM / 4;
	case TCPMIG_SUB_RST:
		tcp_mig_write_rst(p, mig, ntohl(th->seq));
		return ptr + TCPMIG_LEN_RST / 4;
	case TCPMIG_SUB_ECHO:
		flags = tcp_mig_echo_flags(mig);
		tcp_mig_put_echo(p, flags, tcp_mig_echo_of(mig, flags));
		return ptr + TCPMIG_LEN_ECHO / 4;
	}
	return ptr;
}

bool __tcp_migrate_gated(const struct sock *sk)
{
	const struct tcp_migrate *mig = tcp_mig(sk);

	return mig && mig->gate;
}

/* For as long as segments live (RFC 9293: MSL): half of the timestamps is before
 * any other.
 */
bool __tcp_migrate_stale_tsecr(const struct sock *sk)
{
	const struct tcp_migrate *mig = tcp_mig(sk);

	return mig->migrations &&
	       before(tcp_jiffies32, mig->moved + MIG_MSL) &&
	       before(tcp_sk(sk)->rx_opt.rcv_tsecr, mig->path_ts);
}

/* A SACK for such bytes is as bad: a NAPT looks at its right edge. */
bool __tcp_migrate_no_sack(const struct sock *sk)
{
	const struct tcp_migrate *mig = tcp_mig(sk);

	return mig && mig->clamp &&
	       before(mig->path_rcv, tcp_mig_rcv_end(tcp_sk(sk)));
}

/* NAPTs take an acknowledgment of bytes they have not seen for a forgery, and
 * reset: hold ACKs at what has come over this path.
 */
u32 __tcp_migrate_ack(const struct sock *sk, u32 rcv_nxt)
{
	const struct tcp_migrate *mig = tcp_mig(sk);

	if (!mig || !mig->clamp || !before(mig->path_rcv, rcv_nxt))
		return rcv_nxt;
	MIG_INC(sock_net(sk), ACKCLAMPED);
	return mig->path_rcv;
}

/* The right edge of the window stays where it was when the acknowledgment is
 * held: the peer may have filled it, and a NAPT lets nothing pass beyond.
 */
u16 __tcp_migrate_window(const struct sock *sk, u32 rcv_nxt, u16 wnd)
{
	const struct tcp_migrate *mig = tcp_mig(sk);
	u32 held;

	if (!mig || !mig->clamp || !before(mig->path_rcv, rcv_nxt))
		return wnd;
	held = rcv_nxt - mig->path_rcv;
	return min(wnd + DIV_ROUND_UP(held, 1U << tcp_sk(sk)->rx_opt.rcv_wscale),
		   65535U);
}

/* An RST for a connection that is gone (tombstone), or going (its socket). */
unsigned int __tcp_migrate_reset_option(const struct sock *sk,
					const struct sk_buff *skb, u32 seq,
					__be32 *opt)
{
	struct net *net = sk ? sock_net(sk) : dev_net_rcu(skb_dst(skb)->dev);

	if (sk && sk_fullsock(sk) &&
	    !((1 << sk->sk_state) & (TCPF_CLOSE | TCPF_LISTEN)))
		return 0;
	if (sk && sk_fullsock(sk) && rcu_access_pointer(tcp_sk(sk)->mig)) {
		struct tcp_migrate *mig = tcp_mig(sk);

		if (!mig->agreed)
			return 0;
		tcp_mig_write_rst((u8 *)opt, mig, seq);
		mig->rst_sent = 1;
	} else {
		if (!tcp_mig_tomb_sign(net, skb, seq, (u8 *)opt))
			return 0;
	}
	MIG_INC(net, RSTSIGNED);
	return TCPMIG_LEN_RST;
}

void __init tcp_migrate_init(void)
{
	if (tcp_mig_table_init() || tcp_mig_ctrl_init())
		panic("Failed to initialise TCP migration\n");
}
