// SPDX-License-Identifier: GPL-2.0
/* TCP migration: moving a live socket to another four-tuple, starting anew on
 * a path, and sending handshake segments from tuples that are not the socket's.
 */
#include <linux/tcp.h>
#include <net/addrconf.h>
#include <net/inet_hashtables.h>
#include <net/inet6_hashtables.h>
#include <net/inet_timewait_sock.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/ip6_route.h>
#include <net/route.h>
#include <net/rstreason.h>
#include <net/tcp.h>
#include <net/transp_v6.h>

#include "tcp_migrate.h"

/* Current tuple. AF_INET sockets keep the mapped form of their addresses. */
void tcp_mig_sk_tuple(const struct sock *sk, struct tcp_mig_tuple *t)
{
	t->laddr = sk->sk_v6_rcv_saddr;
	t->raddr = sk->sk_v6_daddr;
	t->lport = inet_sk(sk)->inet_sport;
	t->rport = inet_sk(sk)->inet_dport;
}

/* Tuple of a received segment, as the receiver's. */
void tcp_mig_skb_tuple(const struct sk_buff *skb, struct tcp_mig_tuple *t)
{
	const struct tcphdr *th = tcp_hdr(skb);

	if (ip_hdr(skb)->version == 4) {
		ipv6_addr_set_v4mapped(ip_hdr(skb)->daddr, &t->laddr);
		ipv6_addr_set_v4mapped(ip_hdr(skb)->saddr, &t->raddr);
	} else {
		t->laddr = ipv6_hdr(skb)->daddr;
		t->raddr = ipv6_hdr(skb)->saddr;
	}
	t->lport = th->dest;
	t->rport = th->source;
}

static bool tcp_mig_v4(const struct tcp_mig_tuple *t)
{
	return ipv6_addr_v4mapped(&t->laddr);
}

/* The socket that is hashed on @t, with a reference, or NULL. */
static struct sock *tcp_mig_established(const struct sock *sk,
					const struct tcp_mig_tuple *t)
{
	struct inet_hashinfo *hinfo = sock_net(sk)->ipv4.tcp_death_row.hashinfo;
	int dif = sk->sk_bound_dev_if;

	if (tcp_mig_v4(t))
		return __inet_lookup_established(sock_net(sk), hinfo,
						 t->raddr.s6_addr32[3],
						 t->rport,
						 t->laddr.s6_addr32[3],
						 ntohs(t->lport), dif, 0);
	return __inet6_lookup_established(sock_net(sk), hinfo, &t->raddr,
					  t->rport, &t->laddr, ntohs(t->lport),
					  dif, 0);
}

/* Is the address ours? */
bool tcp_mig_is_local(const struct sock *sk, const struct in6_addr *addr)
{
	struct net *net = sock_net(sk);

	if (inet_test_bit(TRANSPARENT, sk))
		return true;
	if (ipv6_addr_v4mapped(addr))
		return inet_addr_type(net, addr->s6_addr32[3]) == RTN_LOCAL;
	return ipv6_chk_addr(net, addr, NULL, 0);
}

/* The genuine owner of a tuple has proved itself: a TIME_WAIT gives way. */
static int tcp_mig_claim(const struct sock *sk, const struct tcp_mig_tuple *t)
{
	struct sock *sk2 = tcp_mig_established(sk, t);

	if (!sk2)
		return 0;
	if (sk2->sk_state == TCP_TIME_WAIT) {
		inet_twsk_deschedule_put(inet_twsk(sk2));
		return 0;
	}
	sock_gen_put(sk2);
	return sk2 == sk ? 0 : -EADDRINUSE;
}

/* Does a tuple that is not ours belong to another live socket? Whoever asks has
 * proved nothing yet.
 */
bool tcp_mig_taken(const struct sock *sk, const struct tcp_mig_tuple *t)
{
	struct sock *sk2 = tcp_mig_established(sk, t);
	bool taken = sk2 && sk2->sk_state != TCP_TIME_WAIT;

	if (sk2)
		sock_gen_put(sk2);
	return taken;
}

static bool tcp_mig_is_unicast(const struct in6_addr *a)
{
	if (ipv6_addr_v4mapped(a)) {
		__be32 a4 = a->s6_addr32[3];

		return a4 && !ipv4_is_multicast(a4) && !ipv4_is_lbcast(a4);
	}
	return !ipv6_addr_any(a) && !ipv6_addr_is_multicast(a);
}

/**
 * tcp_mig_check_tuple() - could the connection live on this tuple?
 * @sk: its socket, locked
 * @t: the tuple
 *
 * Return: 0, -EINVAL, -EAFNOSUPPORT (the socket is of the other family), or
 * -EOPNOTSUPP (the local port is part of what the program is bound to).
 */
int tcp_mig_check_tuple(struct sock *sk, const struct tcp_mig_tuple *t)
{
	if (!t->rport || !tcp_mig_is_unicast(&t->laddr) ||
	    !tcp_mig_is_unicast(&t->raddr))
		return -EINVAL;
	if (tcp_mig_v4(t) != ipv6_addr_v4mapped(&t->raddr) ||
	    tcp_mig_v4(t) != ipv6_addr_v4mapped(&sk->sk_v6_rcv_saddr))
		return -EAFNOSUPPORT;
	if (t->lport != inet_sk(sk)->inet_sport)
		return -EOPNOTSUPP;
	return 0;
}

static int tcp_mig_set_local(struct sock *sk, const struct in6_addr *addr)
{
	struct in6_addr a = *addr;
	int err;

	if (ipv6_addr_v4mapped(addr))
		err = inet_bhash2_update_saddr(sk, &a.s6_addr32[3], AF_INET);
	else
		err = inet_bhash2_update_saddr(sk, &a, AF_INET6);
	if (!err && sk->sk_family == AF_INET6)
		inet6_sk(sk)->saddr = *addr;
	return err;
}

/* Without memory for the bind hash, which then knows the other address: bind()
 * may see a conflict where there is none.
 */
static void tcp_mig_force_local(struct sock *sk, const struct in6_addr *addr)
{
	if (ipv6_addr_v4mapped(addr)) {
		inet_sk(sk)->inet_saddr = addr->s6_addr32[3];
		sk_rcv_saddr_set(sk, addr->s6_addr32[3]);
	}
	sk->sk_v6_rcv_saddr = *addr;
	if (sk->sk_family == AF_INET6)
		inet6_sk(sk)->saddr = *addr;
}

static void tcp_mig_set_remote(struct sock *sk, const struct in6_addr *addr,
			       __be16 port)
{
	if (ipv6_addr_v4mapped(addr))
		sk_daddr_set(sk, addr->s6_addr32[3]);
	sk->sk_v6_daddr = *addr;
	inet_sk(sk)->inet_dport = port;
}

static void tcp_mig_forget_routes(struct sock *sk)
{
	struct dst_entry *dst;

	__sk_dst_reset(sk);
	dst = unrcu_pointer(xchg(&sk->sk_rx_dst, NULL));
	dst_release(dst);
	sk_set_txhash(sk);
	sk_rx_queue_clear(sk);
	sock_rps_reset_rxhash(sk);
}

/* Keys change while the socket is in no hash chain, and are complete before
 * it is in one again; see Documentation/RCU/rculist_nulls.rst. A reader that
 * had checked the old tuple before may still deliver a segment of it.
 */
static int tcp_mig_rehash(struct sock *sk, const struct tcp_mig_tuple *old,
			  const struct tcp_mig_tuple *new)
{
	bool dup = false;
	int err;

	inet_unhash(sk);
	tcp_mig_set_remote(sk, &new->raddr, new->rport);
	err = tcp_mig_set_local(sk, &new->laddr);
	if (!err && !inet_ehash_insert(sk, NULL, &dup))
		err = -EADDRINUSE;
	if (err) {
		tcp_mig_set_remote(sk, &old->raddr, old->rport);
		if (!ipv6_addr_equal(&sk->sk_v6_rcv_saddr, &old->laddr) &&
		    tcp_mig_set_local(sk, &old->laddr))
			tcp_mig_force_local(sk, &old->laddr);
		inet_ehash_insert(sk, NULL, NULL);
	}
	sock_prot_inuse_add(sock_net(sk), sk->sk_prot, 1);
	return err;
}

/**
 * tcp_mig_readdress() - move a live socket to another tuple
 * @sk: the socket, locked; BH disabled
 * @t: checked by tcp_mig_check_tuple()
 *
 * The old tuple stays known as an alias. Nothing changes on failure.
 *
 * Return: 0, -EADDRINUSE, -ENOMEM.
 */
int tcp_mig_readdress(struct sock *sk, const struct tcp_mig_tuple *t)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	struct tcp_mig_tuple old;
	int err;

	tcp_mig_sk_tuple(sk, &old);
	err = tcp_mig_claim(sk, t);
	if (err)
		return err;
	err = tcp_mig_alias_add(mig, &old, MIG_ALIAS_OLD);
	if (err == -ENOMEM)
		return err;
	err = tcp_mig_rehash(sk, &old, t);
	if (err) {
		tcp_mig_alias_del(mig, &old);
		return err;
	}
	tcp_mig_alias_del(mig, t);
	tcp_mig_forget_routes(sk);
	/* Routes and, for IPv4, fills cork.fl, from which headers are made. */
	inet_csk(sk)->icsk_af_ops->rebuild_header(sk);
	return 0;
}

/* Everything in flight is taken for lost: it was sent into another network.
 * Not by tcp_enter_loss(), which keeps what was SACKed and what was sent
 * recently, and remembers how to undo.
 */
static void tcp_mig_mark_all_lost(struct sock *sk)
{
	struct tcp_sock *tp = tcp_sk(sk);
	struct sk_buff *skb;

	tp->sacked_out = 0;
	tp->lost_out = 0;
	tp->retrans_out = 0;
	tcp_clear_all_retrans_hints(tp);
	tcp_highest_sack_reset(sk);
	skb_rbtree_walk(skb, &sk->tcp_rtx_queue) {
		TCP_SKB_CB(skb)->sacked &= ~TCPCB_TAGBITS;
		TCP_SKB_CB(skb)->sacked |= TCPCB_EVER_RETRANS;
		tcp_mark_skb_lost(sk, skb);
	}
}

/**
 * tcp_mig_acked() - the peer has these bytes, as it says under its MAC
 * @sk: the socket, locked
 * @ack: its RCV.NXT, not checked
 *
 * Its acknowledgments went where we no longer are, and the first on the new
 * path may not say more than a NAPT has seen there. A FIN is left to those:
 * they change the state. So is what a program wants timestamps of. What is left
 * has to be marked lost: no counter of the scoreboard is true any more.
 */
void tcp_mig_acked(struct sock *sk, u32 ack)
{
	struct tcp_sock *tp = tcp_sk(sk);
	u32 una = tp->snd_una;
	struct sk_buff *skb;

	if (!between(ack, una, tp->snd_nxt))
		return;
	while ((skb = tcp_rtx_queue_head(sk)) && before(tp->snd_una, ack)) {
		struct tcp_skb_cb *cb = TCP_SKB_CB(skb);

		if (cb->tcp_flags & (TCPHDR_FIN | TCPHDR_SYN) ||
		    cb->txstamp_ack)
			break;
		if (after(cb->end_seq, ack)) {
			u32 len = ack - cb->seq;
			int segs = tcp_skb_pcount(skb);

			if (tcp_trim_head(sk, skb, len))
				break;
			tp->packets_out -= segs - tcp_skb_pcount(skb);
			WRITE_ONCE(tp->snd_una, ack);
			break;
		}
		tp->packets_out -= tcp_skb_pcount(skb);
		WRITE_ONCE(tp->snd_una, cb->end_seq);
		tcp_rtx_queue_unlink_and_free(skb, sk);
	}
	tp->bytes_acked += tp->snd_una - una;
	if (between(tp->snd_up, una, tp->snd_una))
		tp->snd_up = tp->snd_una;
}

/**
 * tcp_mig_resend() - send again what was not acknowledged
 * @sk: the socket, locked
 * @end: sequence number before which it was sent
 *
 * It fell to a NAPT, which has seen the peer's window now, or to the queue of
 * the old path's device.
 */
void tcp_mig_resend(struct sock *sk, u32 end)
{
	struct sk_buff *skb;

	skb_rbtree_walk(skb, &sk->tcp_rtx_queue) {
		if (!before(TCP_SKB_CB(skb)->seq, end))
			break;
		tcp_mark_skb_lost(sk, skb);
	}
	if (!tcp_sk(sk)->lost_out)
		return;
	tcp_sk(sk)->high_seq = tcp_sk(sk)->snd_nxt;
	tcp_set_ca_state(sk, TCP_CA_Loss);
	tcp_xmit_retransmit_queue(sk);
}

/* What was sent in vain was sent into another path, or before this one lived
 * again.
 */
static void tcp_mig_forget_tries(struct sock *sk)
{
	struct inet_connection_sock *icsk = inet_csk(sk);

	icsk->icsk_backoff = 0;
	icsk->icsk_retransmits = 0;
	icsk->icsk_probes_out = 0;
	icsk->icsk_probes_tstamp = 0;
	tcp_sk(sk)->retrans_stamp = 0;
}

static void tcp_mig_reset_rtt(struct sock *sk, u32 rtt_us)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct tcp_sock *tp = tcp_sk(sk);

	minmax_reset(&tp->rtt_min, tcp_jiffies32, ~0U);
	tp->srtt_us = 0;
	tp->mdev_us = jiffies_to_usecs(TCP_TIMEOUT_INIT);
	tp->mdev_max_us = 0;
	tp->rttvar_us = tp->mdev_us;
	tp->rtt_seq = tp->snd_nxt;
	icsk->icsk_rto = TCP_TIMEOUT_INIT;
	tp->rcv_rtt_est.rtt_us = 0;
	tp->rcv_rtt_est.time = 0;
	if (rtt_us) {
		/* As tcp_rtt_estimator() does with a first sample. */
		minmax_reset(&tp->rtt_min, tcp_jiffies32, rtt_us);
		tp->srtt_us = rtt_us << 3;
		tp->mdev_us = rtt_us << 1;
		tp->rttvar_us = max(tp->mdev_us, tcp_rto_min_us(sk));
		tp->mdev_max_us = tp->rttvar_us;
		icsk->icsk_rto = __tcp_set_rto(tp);
		tcp_bound_rto(sk);
	}
	tcp_mig_forget_tries(sk);
}

/* What could bring back the old path's congestion window: Eifel, D-SACK and
 * F-RTO all fire by themselves after a move.
 */
static void tcp_mig_forget_undo(struct tcp_sock *tp)
{
	tp->undo_marker = 0;
	tp->undo_retrans = -1;
	tp->prior_cwnd = 0;
	tp->prior_ssthresh = 0;
	tp->frto = 0;
	tp->tlp_high_seq = 0;
	memset(&tp->rack, 0, sizeof(tp->rack));
	tp->rack.reo_wnd_steps = 1;
	tp->ecn_flags &= ~(TCP_ECN_QUEUE_CWR | TCP_ECN_DEMAND_CWR);
}

static void tcp_mig_reset_congestion(struct sock *sk)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct tcp_sock *tp = tcp_sk(sk);

	tcp_mig_forget_undo(tp);
	if (icsk->icsk_ca_initialized && icsk->icsk_ca_ops->release)
		icsk->icsk_ca_ops->release(sk);
	memset(icsk->icsk_ca_priv, 0, sizeof(icsk->icsk_ca_priv));
	icsk->icsk_ca_initialized = 0;

	tp->snd_ssthresh = TCP_INFINITE_SSTHRESH;
	tp->snd_cwnd_cnt = 0;
	/* Or slow start would stand still while only old data are repeated. */
	tp->is_cwnd_limited = 0;
	tp->max_packets_out = tp->packets_out;
	tp->cwnd_usage_seq = tp->snd_nxt;
	tp->reordering = READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_reordering);
	tcp_snd_cwnd_set(tp, tcp_packets_in_flight(tp) +
			     tcp_init_cwnd(tp, __sk_dst_get(sk)));
	tp->snd_cwnd_stamp = tcp_jiffies32;
	tp->high_seq = tp->snd_nxt;
	WRITE_ONCE(sk->sk_pacing_rate, READ_ONCE(sk->sk_max_pacing_rate));
	tp->tcp_wstamp_ns = 0;

	tcp_set_ca_state(sk, TCP_CA_Open);
	tcp_init_congestion_control(sk);
	if (tp->lost_out)
		tcp_set_ca_state(sk, TCP_CA_Loss);
}

static void tcp_mig_reset_mss(struct sock *sk, u16 peer_mss)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct tcp_sock *tp = tcp_sk(sk);
	struct dst_entry *dst = __sk_dst_get(sk);

	if (peer_mss)
		tp->rx_opt.mss_clamp = tp->rx_opt.user_mss ?
			min(tp->rx_opt.user_mss, peer_mss) : peer_mss;
	tcp_mtup_init(sk);
	if (!dst)
		return;
	tcp_sync_mss(sk, dst_mtu(dst));
	tp->advmss = min_t(u32, dst_metric_advmss(dst),
			   tp->rx_opt.user_mss ?: 65535);
	if (tp->rx_opt.tstamp_ok)
		tp->advmss -= TCPOLEN_TSTAMP_ALIGNED;
	icsk->icsk_ack.rcv_mss = min(icsk->icsk_ack.rcv_mss, tp->mss_cache);
}

/* The congestion window's limit is TCP's own again. */
void tcp_mig_end_limit(struct sock *sk, struct tcp_migrate *mig)
{
	if (!mig->limited)
		return;
	mig->limited = 0;
	tcp_sk(sk)->snd_cwnd_clamp = mig->cwnd_clamp;
}

/* What the old path still held will be acknowledged as well: not a reason to
 * send more. tcp_mig_limit() sees to that until it is.
 */
static void tcp_mig_begin_limit(struct sock *sk, bool alive)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	struct tcp_sock *tp = tcp_sk(sk);

	tcp_mig_end_limit(sk, mig);
	mig->cwnd_clamp = tp->snd_cwnd_clamp;
	mig->limited = !!tp->packets_out;
	mig->flight_alive = alive;
	mig->flight_end = tp->snd_nxt;
	mig->segs_before = tp->data_segs_out;
}

/**
 * tcp_mig_reset_path() - forget what was learned about the old path
 * @sk: the socket, locked, already on the new tuple
 * @rtt_us: first sample of the new path, 0 if there is none
 * @peer_mss: MSS option of the peer's handshake segment, 0 if none
 * @alive: the old path still delivers what is in flight; it does not load the
 *         new one
 *
 * Both ends do this, RFC 9040 and RFC 5681 4.1: the path is another one.
 */
void tcp_mig_reset_path(struct sock *sk, u32 rtt_us, u16 peer_mss, bool alive)
{
	struct tcp_sock *tp = tcp_sk(sk);

	tcp_mstamp_refresh(tp);
	tcp_mig_reset_mss(sk, peer_mss);
	tcp_mig_reset_rtt(sk, rtt_us);
	if (!alive || tp->lost_out || tp->retrans_out) {
		tcp_mig_mark_all_lost(sk);
		alive = false;
	}
	tcp_mig_reset_congestion(sk);
	tcp_mig_begin_limit(sk, alive);
	tp->snd_wl1 = tp->rcv_nxt - 1 - tp->max_window;
	tp->rcv_tstamp = tcp_jiffies32;
	inet_csk(sk)->icsk_ack.lrcvtime = tcp_jiffies32;
	WRITE_ONCE(sk->sk_err_soft, 0);
}

/* Is the flight still in the queue of the old path's device? TCP does not send
 * again what has not been sent: try later.
 */
void tcp_mig_look_again(struct sock *sk, struct tcp_migrate *mig)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	if (!tp->lost_out || tp->retrans_out)
		return;
	mig->held_nxt = tp->snd_nxt;
	mig->held = 1;
	tcp_mig_arm(sk, mig, max(HZ / 100, 1));
}

/**
 * tcp_mig_restart() - set output going after the gate has opened
 * @sk: the socket, locked; BH disabled
 *
 * The timers were held, so that nothing else would.
 */
void tcp_mig_restart(struct sock *sk)
{
	struct tcp_migrate *mig = tcp_mig(sk);
	struct tcp_sock *tp = tcp_sk(sk);
	u32 sent = tp->segs_out;

	tcp_mstamp_refresh(tp);
	inet_csk_clear_xmit_timer(sk, ICSK_TIME_RETRANS);
	/* A path that was given up and lives */
	if (inet_csk(sk)->icsk_retransmits || inet_csk(sk)->icsk_probes_out) {
		tcp_mig_forget_tries(sk);
		tcp_mig_resend(sk, tp->snd_nxt);
	}
	if (tp->packets_out) {
		tcp_rearm_rto(sk);
		tcp_xmit_retransmit_queue(sk);
		if (mig->state == TCP_MIGRATE_STATE_IDLE)
			tcp_mig_look_again(sk, mig);
	}
	tcp_push_pending_frames(sk);
	if (tp->segs_out == sent)
		tcp_send_ack(sk);
	/* In an orphan's FIN_WAIT2 this timer is its end. */
	if (sock_flag(sk, SOCK_KEEPOPEN) &&
	    !((1 << sk->sk_state) & (TCPF_CLOSE | TCPF_LISTEN)) &&
	    !(sk->sk_state == TCP_FIN_WAIT2 && sock_flag(sk, SOCK_DEAD)))
		inet_csk_reset_keepalive_timer(sk, keepalive_time_when(tp));
	sk->sk_write_space(sk);
}

/* What the path of @dst can carry, which is not the one that is left. */
static void tcp_mig_write_mss(const struct sock *sk, struct tcphdr *th,
			      const struct dst_entry *dst)
{
	u8 *opt = (u8 *)(th + 1);

	if (th->syn && opt[0] == TCPOPT_MSS)
		put_unaligned_be16(tcp_mss_clamp(tcp_sk(sk),
						 dst_metric_advmss(dst)),
				   opt + 2);
}

static int tcp_mig_xmit4(struct sock *sk, struct sk_buff *skb,
			 const struct tcp_mig_tuple *t, int ifindex)
{
	__be32 saddr = t->laddr.s6_addr32[3], daddr = t->raddr.s6_addr32[3];
	struct inet_sock *inet = inet_sk(sk);
	struct tcphdr *th = tcp_hdr(skb);
	struct flowi4 fl4 = {};
	struct rtable *rt;
	int err;

	flowi4_init_output(&fl4, ifindex ?: sk->sk_bound_dev_if,
			   READ_ONCE(sk->sk_mark), ip_sock_rt_tos(sk),
			   ip_sock_rt_scope(sk), IPPROTO_TCP,
			   inet_sk_flowi_flags(sk), daddr, saddr, t->rport,
			   t->lport, sk->sk_uid);
	security_sk_classify_flow(sk, flowi4_to_flowi_common(&fl4));
	rt = ip_route_output_flow(sock_net(sk), &fl4, sk);
	if (IS_ERR(rt)) {
		kfree_skb(skb);
		return PTR_ERR(rt);
	}
	skb_dst_set(skb, &rt->dst);
	if (rt->rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST)) {
		kfree_skb(skb);
		return -ENETUNREACH;
	}
	tcp_mig_write_mss(sk, th, &rt->dst);
	th->check = tcp_v4_check(skb->len, saddr, daddr,
				 csum_partial(th, skb->len, 0));
	rcu_read_lock();
	err = ip_build_and_send_pkt(skb, sk, saddr, daddr, NULL,
				    READ_ONCE(inet->tos) & ~INET_ECN_MASK);
	rcu_read_unlock();
	return err;
}

static int tcp_mig_xmit6(struct sock *sk, struct sk_buff *skb,
			 const struct tcp_mig_tuple *t, int ifindex)
{
	struct ipv6_pinfo *np = inet6_sk(sk);
	struct tcphdr *th = tcp_hdr(skb);
	struct in6_addr *final_p, final;
	struct ipv6_txoptions *opt;
	struct dst_entry *dst;
	struct flowi6 fl6 = {};
	int err;

	fl6.flowi6_proto = IPPROTO_TCP;
	fl6.daddr = t->raddr;
	fl6.saddr = t->laddr;
	fl6.flowi6_oif = ifindex ?: sk->sk_bound_dev_if;
	fl6.flowi6_mark = READ_ONCE(sk->sk_mark);
	fl6.fl6_sport = t->lport;
	fl6.fl6_dport = t->rport;
	fl6.flowi6_uid = sk->sk_uid;
	security_sk_classify_flow(sk, flowi6_to_flowi_common(&fl6));

	/* A source that is not ours (any more) must fail here, as for IPv4. */
	if (!tcp_mig_is_local(sk, &t->laddr)) {
		kfree_skb(skb);
		return -EINVAL;
	}
	rcu_read_lock();
	opt = rcu_dereference(np->opt);
	final_p = fl6_update_dst(&fl6, opt, &final);
	dst = ip6_dst_lookup_flow(sock_net(sk), sk, &fl6, final_p);
	if (IS_ERR(dst)) {
		rcu_read_unlock();
		kfree_skb(skb);
		return PTR_ERR(dst);
	}
	skb_dst_set(skb, dst);
	tcp_mig_write_mss(sk, th, dst);
	th->check = tcp_v6_check(skb->len, &t->laddr, &t->raddr,
				 csum_partial(th, skb->len, 0));
	fl6.daddr = t->raddr;
	err = ip6_xmit(sk, skb, &fl6, READ_ONCE(sk->sk_mark), opt,
		       np->tclass & ~INET_ECN_MASK,
		       READ_ONCE(sk->sk_priority));
	rcu_read_unlock();
	return err;
}

/* Options before ours: what stateful boxes re-learn from a SYN, with the
 * values of the connection, but for MSS: tcp_mig_write_mss(). Timestamps on a
 * segment without SYN.
 */
static unsigned int tcp_mig_base_options(struct sock *sk, u8 flags, __be32 *opt)
{
	struct tcp_sock *tp = tcp_sk(sk);
	__be32 *p = opt;

	if (flags & TCPHDR_SYN) {
		*p++ = htonl((TCPOPT_MSS << 24) | (TCPOLEN_MSS << 16));
		if (tp->rx_opt.sack_ok)
			*p++ = htonl((TCPOPT_NOP << 24) | (TCPOPT_NOP << 16) |
				     (TCPOPT_SACK_PERM << 8) |
				     TCPOLEN_SACK_PERM);
		if (tp->rx_opt.wscale_ok)
			*p++ = htonl((TCPOPT_NOP << 24) |
				     (TCPOPT_WINDOW << 16) |
				     (TCPOLEN_WINDOW << 8) |
				     tp->rx_opt.rcv_wscale);
	} else if (tp->rx_opt.tstamp_ok) {
		*p++ = htonl((TCPOPT_NOP << 24) | (TCPOPT_NOP << 16) |
			     (TCPOPT_TIMESTAMP << 8) | TCPOLEN_TIMESTAMP);
		*p++ = htonl(tcp_time_stamp_ts(tp) + tp->tsoffset);
		*p++ = htonl(tp->rx_opt.ts_recent);
	}
	return (p - opt) * sizeof(*p);
}

/* A window whose right edge is the one that TCP has offered; unscaled in SYNs,
 * with room for all that the peer may have sent else.
 */
static u16 tcp_mig_window(const struct tcp_sock *tp, u32 ack, u8 flags)
{
	u32 wnd = tp->rcv_wnd;

	if (flags & TCPHDR_ACK)
		wnd = max_t(s32, tp->rcv_wup + tp->rcv_wnd - ack, 0);
	if (!(flags & TCPHDR_SYN))
		wnd = DIV_ROUND_UP(wnd, 1U << tp->rx_opt.rcv_wscale);
	return min(wnd, 65535U);
}

/**
 * tcp_mig_xmit() - send a segment without data from any tuple
 * @sk: the socket, locked
 * @t: tuple to send from and to
 * @ifindex: interface to send from, 0 for any
 * @seq: sequence number, host order
 * @ack: acknowledgment number, host order
 * @flags: TCPHDR_*
 * @bare: no other options beside ours
 * @opt: our option
 * @optlen: its length, a multiple of 4; 0: none
 *
 * Not by tcp_transmit_skb(), whose SYN options are those of a new connection.
 *
 * Return: 0, -ENOBUFS if the device's queue was full, or what the route said.
 */
int tcp_mig_xmit(struct sock *sk, const struct tcp_mig_tuple *t, int ifindex,
		 u32 seq, u32 ack, u8 flags, bool bare, const u8 *opt,
		 unsigned int optlen)
{
	struct tcp_sock *tp = tcp_sk(sk);
	__be32 base[MAX_TCP_OPTION_SPACE / 4];
	unsigned int blen = 0, len;
	struct sk_buff *skb;
	struct tcphdr *th;
	int err;

	tcp_mstamp_refresh(tp);
	if (!bare)
		blen = tcp_mig_base_options(sk, flags, base);
	if (WARN_ON_ONCE(blen + optlen > MAX_TCP_OPTION_SPACE))
		return -EMSGSIZE;
	len = sizeof(*th) + blen + optlen;

	skb = alloc_skb(MAX_TCP_HEADER + len, GFP_ATOMIC | __GFP_NOWARN);
	if (!skb)
		return -ENOMEM;
	skb_reserve(skb, MAX_TCP_HEADER);
	th = skb_put_zero(skb, len);
	skb_reset_transport_header(skb);
	memcpy(th + 1, base, blen);
	if (optlen)
		memcpy((u8 *)(th + 1) + blen, opt, optlen);

	th->source = t->lport;
	th->dest = t->rport;
	th->seq = htonl(seq);
	th->ack_seq = flags & TCPHDR_ACK ? htonl(ack) : 0;
	tcp_flag_word(th) |= htonl((len / 4) << 28 | flags << 16);
	th->window = htons(tcp_mig_window(tp, ack, flags));
	/* Filters by socket, user or cgroup are for these segments, too. */
	sock_hold(sk);
	skb->sk = sk;
	skb->destructor = sock_efree;

	TCP_INC_STATS(sock_net(sk), TCP_MIB_OUTSEGS);
	err = tcp_mig_v4(t) ? tcp_mig_xmit4(sk, skb, t, ifindex) :
			      tcp_mig_xmit6(sk, skb, t, ifindex);
	return err > 0 ? net_xmit_errno(err) : err;
}

/* Answer a segment as a closed port does: whoever sent it learns nothing. */
void tcp_mig_send_closed(struct sock *sk, struct sk_buff *skb)
{
	const struct request_sock_ops *ops = &tcp_request_sock_ops;

#if IS_ENABLED(CONFIG_IPV6)
	if (ip_hdr(skb)->version == 6)
		ops = &tcp6_request_sock_ops;
#endif
	ops->send_reset(sk, skb, SK_RST_REASON_NO_SOCKET);
}
