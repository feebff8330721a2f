/* SPDX-License-Identifier: GPL-2.0 */
/* TCP migration: what the rest of TCP calls.
 *
 * Every hook is behind tcp_migrate_key, which the first network namespace
 * that sets net.tcp_migrate.enabled turns on. Until then a hook is a NOP and
 * no memory is used. See Documentation/networking/tcp_migrate.rst.
 */
#ifndef _NET_TCP_MIGRATE_H
#define _NET_TCP_MIGRATE_H

#include <linux/jump_label.h>
#include <linux/skbuff.h>
#include <linux/sockptr.h>
#include <linux/tcp.h>

struct seq_file;

#ifdef CONFIG_TCP_MIGRATE

DECLARE_STATIC_KEY_FALSE(tcp_migrate_key);

#define tcp_migrate_on() static_branch_unlikely(&tcp_migrate_key)

/* Life cycle */
void tcp_migrate_init(void);
void __tcp_migrate_openreq_init(const struct sock *sk, struct request_sock *req,
				const struct sk_buff *skb);
void __tcp_migrate_openreq_child(struct sock *newsk,
				 const struct request_sock *req);
void __tcp_migrate_rcv_synack(struct sock *sk, const struct sk_buff *skb);
void __tcp_migrate_destroy(struct sock *sk);

/* Receive */
struct sock *__tcp_migrate_demux(struct net *net, struct sk_buff *skb,
				 struct sock *sk, bool *refcounted);
bool __tcp_migrate_rcv(struct sock *sk, struct sk_buff *skb,
		       const struct tcphdr *th);
bool __tcp_migrate_rst(struct sock *sk);
bool __tcp_migrate_stale_tsecr(const struct sock *sk);

/* Transmit */
unsigned int __tcp_migrate_syn_options(struct sock *sk, unsigned int remaining,
				       u8 *kind);
unsigned int __tcp_migrate_synack_options(struct request_sock *req,
					  unsigned int remaining, u8 *kind);
unsigned int __tcp_migrate_established_options(struct sock *sk,
					       const struct sk_buff *skb,
					       unsigned int remaining,
					       u8 *kind);
__be32 *__tcp_migrate_options_write(__be32 *ptr, struct tcphdr *th,
				    struct tcp_sock *tp,
				    const struct tcp_request_sock *treq,
				    u8 kind);
bool __tcp_migrate_gated(const struct sock *sk);
u32 __tcp_migrate_ack(const struct sock *sk, u32 rcv_nxt);
u16 __tcp_migrate_window(const struct sock *sk, u32 rcv_nxt, u16 wnd);
bool __tcp_migrate_no_sack(const struct sock *sk);
unsigned int __tcp_migrate_reset_option(const struct sock *sk,
					const struct sk_buff *skb, u32 seq,
					__be32 *opt);

/* Timers */
void __tcp_migrate_stalled(struct sock *sk);
bool __tcp_migrate_timed_out(struct sock *sk);

/* User interface */
int tcp_migrate_setsockopt(struct sock *sk, int optname, sockptr_t optval,
			   unsigned int optlen);
int tcp_migrate_getsockopt(struct sock *sk, int optname, sockptr_t optval,
			   sockptr_t optlen);
int tcp_migrate_diag(struct sock *sk, struct sk_buff *skb);
size_t tcp_migrate_diag_size(void);
void tcp_migrate_seq_show(struct seq_file *seq);

static inline void tcp_migrate_openreq_init(const struct sock *sk,
					    struct request_sock *req,
					    const struct sk_buff *skb)
{
	tcp_rsk(req)->mig_ok = 0;
	if (tcp_migrate_on() && !req->syncookie)
		__tcp_migrate_openreq_init(sk, req, skb);
}

static inline void tcp_migrate_openreq_child(struct sock *newsk,
					     const struct request_sock *req)
{
	RCU_INIT_POINTER(tcp_sk(newsk)->mig, NULL);
	tcp_sk(newsk)->mig_busy = 0;
	if (tcp_migrate_on() && tcp_rsk(req)->mig_ok)
		__tcp_migrate_openreq_child(newsk, req);
}

static inline void tcp_migrate_rcv_synack(struct sock *sk,
					  const struct sk_buff *skb)
{
	if (tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig))
		__tcp_migrate_rcv_synack(sk, skb);
}

/* Also for tcp_disconnect(): the socket can be used for another connection. */
static inline void tcp_migrate_destroy(struct sock *sk)
{
	if (tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig))
		__tcp_migrate_destroy(sk);
}

/* A segment that no established socket wants, or a SYN, may belong to a
 * connection that knows it by token or by another tuple.
 */
static inline struct sock *tcp_migrate_demux(struct net *net,
					     struct sk_buff *skb,
					     struct sock *sk, bool *refcounted)
{
	if (tcp_migrate_on() &&
	    (!sk || tcp_hdr(skb)->syn ||
	     ((1 << sk->sk_state) &
	      (TCPF_LISTEN | TCPF_TIME_WAIT | TCPF_NEW_SYN_RECV))))
		return __tcp_migrate_demux(net, skb, sk, refcounted);
	return sk;
}

/* Return: true if the segment was consumed. */
static inline bool tcp_migrate_rcv(struct sock *sk, struct sk_buff *skb,
				   const struct tcphdr *th)
{
	return tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig) &&
	       __tcp_migrate_rcv(sk, skb, th);
}

/* An RST that plain TCP would believe. Return: true if the connection lives. */
static inline bool tcp_migrate_rst(struct sock *sk)
{
	return tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig) &&
	       __tcp_migrate_rst(sk);
}

/* The echoed timestamp was taken on another path: no RTT sample. */
static inline bool tcp_migrate_stale_tsecr(const struct sock *sk)
{
	return tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig) &&
	       __tcp_migrate_stale_tsecr(sk);
}

static inline unsigned int tcp_migrate_syn_options(struct sock *sk,
						   unsigned int remaining,
						   u8 *kind)
{
	return tcp_migrate_on() ?
		__tcp_migrate_syn_options(sk, remaining, kind) : 0;
}

static inline unsigned int
tcp_migrate_synack_options(struct request_sock *req, unsigned int remaining,
			   u8 *kind)
{
	return tcp_migrate_on() && tcp_rsk(req)->mig_ok ?
		__tcp_migrate_synack_options(req, remaining, kind) : 0;
}

static inline unsigned int
tcp_migrate_established_options(struct sock *sk, const struct sk_buff *skb,
				unsigned int remaining, u8 *kind)
{
	if (tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig))
		return __tcp_migrate_established_options(sk, skb, remaining,
							 kind);
	return 0;
}

static inline __be32 *tcp_migrate_options_write(__be32 *ptr,
						struct tcphdr *th,
						struct tcp_sock *tp,
						const struct tcp_request_sock *treq,
						u8 kind)
{
	return tcp_migrate_on() && kind ?
		__tcp_migrate_options_write(ptr, th, tp, treq, kind) : ptr;
}

/* Nothing but handshake segments and resets may leave. */
static inline bool tcp_migrate_gated(const struct sock *sk)
{
	return tcp_migrate_on() && tcp_sk(sk)->mig_busy &&
	       __tcp_migrate_gated(sk);
}

/* The acknowledgment number that the new path may see. */
static inline u32 tcp_migrate_ack(const struct sock *sk, u32 rcv_nxt)
{
	return tcp_migrate_on() && tcp_sk(sk)->mig_busy ?
		__tcp_migrate_ack(sk, rcv_nxt) : rcv_nxt;
}

/* The window that goes with it. */
static inline u16 tcp_migrate_window(const struct sock *sk, u32 rcv_nxt,
				     u16 wnd)
{
	return tcp_migrate_on() && tcp_sk(sk)->mig_busy ?
		__tcp_migrate_window(sk, rcv_nxt, wnd) : wnd;
}

static inline bool tcp_migrate_no_sack(const struct sock *sk)
{
	return tcp_migrate_on() && tcp_sk(sk)->mig_busy &&
	       __tcp_migrate_no_sack(sk);
}

/* Header prediction would hide segments that the state machine must see. */
static inline bool tcp_migrate_slow_path(const struct tcp_sock *tp)
{
	return tcp_migrate_on() && tp->mig_busy;
}

/* TCP has retransmitted in vain for so long (tcp_retries1) that it doubts the
 * path.
 */
static inline void tcp_migrate_stalled(struct sock *sk)
{
	if (tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig))
		__tcp_migrate_stalled(sk);
}

/* TCP gave up on the path. Return: true if the connection waits instead. */
static inline bool tcp_migrate_timed_out(struct sock *sk)
{
	return tcp_migrate_on() && rcu_access_pointer(tcp_sk(sk)->mig) &&
	       __tcp_migrate_timed_out(sk);
}

/* Bytes of an authenticated reset's option written to @opt, or 0. */
static inline unsigned int
tcp_migrate_reset_option(const struct sock *sk, const struct sk_buff *skb,
			 u32 seq, __be32 *opt)
{
	return tcp_migrate_on() ?
		__tcp_migrate_reset_option(sk, skb, seq, opt) : 0;
}

static inline void tcp_migrate_openreq_cookie(struct request_sock *req)
{
	tcp_rsk(req)->mig_ok = 0;
}

#else /* !CONFIG_TCP_MIGRATE */

static inline void tcp_migrate_init(void) { }
static inline void tcp_migrate_openreq_init(const struct sock *sk,
					    struct request_sock *req,
					    const struct sk_buff *skb) { }
static inline void tcp_migrate_openreq_child(struct sock *newsk,
					     const struct request_sock *req) { }
static inline void tcp_migrate_rcv_synack(struct sock *sk,
					  const struct sk_buff *skb) { }
static inline void tcp_migrate_destroy(struct sock *sk) { }
static inline struct sock *tcp_migrate_demux(struct net *net,
					     struct sk_buff *skb,
					     struct sock *sk, bool *refcounted)
{
	return sk;
}

static inline bool tcp_migrate_rcv(struct sock *sk, struct sk_buff *skb,
				   const struct tcphdr *th)
{
	return false;
}

static inline bool tcp_migrate_rst(struct sock *sk)
{
	return false;
}

static inline bool tcp_migrate_stale_tsecr(const struct sock *sk)
{
	return false;
}

static inline unsigned int tcp_migrate_syn_options(struct sock *sk,
						   unsigned int remaining,
						   u8 *kind)
{
	return 0;
}

static inline unsigned int
tcp_migrate_synack_options(struct request_sock *req, unsigned int remaining,
			   u8 *kind)
{
	return 0;
}

static inline unsigned int
tcp_migrate_established_options(struct sock *sk, const struct sk_buff *skb,
				unsigned int remaining, u8 *kind)
{
	return 0;
}

static inline __be32 *tcp_migrate_options_write(__be32 *ptr,
						struct tcphdr *th,
						struct tcp_sock *tp,
						const struct tcp_request_sock *treq,
						u8 kind)
{
	return ptr;
}

static inline bool tcp_migrate_gated(const struct sock *sk)
{
	return false;
}

static inline u32 tcp_migrate_ack(const struct sock *sk, u32 rcv_nxt)
{
	return rcv_nxt;
}

static inline u16 tcp_migrate_window(const struct sock *sk, u32 rcv_nxt,
				     u16 wnd)
{
	return wnd;
}

static inline bool tcp_migrate_no_sack(const struct sock *sk)
{
	return false;
}

static inline bool tcp_migrate_slow_path(const struct tcp_sock *tp)
{
	return false;
}

static inline void tcp_migrate_stalled(struct sock *sk)
{
}

static inline bool tcp_migrate_timed_out(struct sock *sk)
{
	return false;
}

static inline unsigned int
tcp_migrate_reset_option(const struct sock *sk, const struct sk_buff *skb,
			 u32 seq, __be32 *opt)
{
	return 0;
}

static inline int tcp_migrate_setsockopt(struct sock *sk, int optname,
					 sockptr_t optval, unsigned int optlen)
{
	return -ENOPROTOOPT;
}

static inline int tcp_migrate_getsockopt(struct sock *sk, int optname,
					 sockptr_t optval, sockptr_t optlen)
{
	return -ENOPROTOOPT;
}

static inline int tcp_migrate_diag(struct sock *sk, struct sk_buff *skb)
{
	return 0;
}

static inline size_t tcp_migrate_diag_size(void)
{
	return 0;
}

static inline void tcp_migrate_seq_show(struct seq_file *seq) { }

static inline void tcp_migrate_openreq_cookie(struct request_sock *req) { }

#endif /* CONFIG_TCP_MIGRATE */
#endif /* _NET_TCP_MIGRATE_H */
