/* SPDX-License-Identifier: GPL-2.0 */
/* TCP migration: private to net/ipv4/tcp_migrate*.c
 *
 * Locking
 *  - struct tcp_migrate belongs to its socket: every field is read and written
 *    under the socket lock (owned by user, or bh_lock_sock and not owned),
 *    unless the field says otherwise.
 *  - The token and tuple tables are rhashtables, read under RCU. What is found
 *    there leads to a socket only through tcp_mig_get_sock(), which takes a
 *    reference and checks that the socket still owns the object (sockets are
 *    SLAB_TYPESAFE_BY_RCU).
 *  - tcp_mig_table_lock (BH-safe) protects the lists of aliases and of
 *    tombstones. It nests inside the socket lock; no socket lock is ever taken
 *    under it.
 */
#ifndef _TCP_MIGRATE_INTERNAL_H
#define _TCP_MIGRATE_INTERNAL_H

#include <linux/bitops.h>
#include <linux/rhashtable.h>
#include <linux/tcp.h>
#include <net/netns/generic.h>
#include <net/tcp.h>
#include <net/tcp_migrate.h>
#include <uapi/linux/tcp_migrate.h>

#define TCPMIG_EXID		CONFIG_TCP_MIGRATE_EXID	/* RFC 6994 */
#define TCPMIG_VERSION		0	/* of PERMIT; with algorithm 0, HMAC-SHA256 */

/* First nibble of the byte after the ExID */
enum tcp_mig_sub {
	TCPMIG_SUB_PERMIT	= 0,	/* Migrate-Permit */
	TCPMIG_SUB_MREQ		= 1,	/* Migrate-Request */
	TCPMIG_SUB_CONFIRM	= 2,	/* proof that the answer was received */
	TCPMIG_SUB_RST		= 4,	/* proof that an RST is the peer's */
	TCPMIG_SUB_ECHO		= 5,	/* the Permit came through */
	TCPMIG_SUB_MANS		= 6,	/* answer to a Migrate-Request */
};

#define TCPMIG_LEN_PERMIT	20
#define TCPMIG_LEN_MREQ		28
#define TCPMIG_LEN_CONFIRM	24
#define TCPMIG_LEN_CONFIRM_MAC	12
#define TCPMIG_LEN_RST		16
#define TCPMIG_LEN_ECHO		8

/* Second nibble */
#define TCPMIG_F_KEYID		0x3	/* MREQ, MANS, CONFIRM, RST */
#define TCPMIG_F_V6		0x4	/* PERMIT, MREQ, MANS: address is a hash */
#define TCPMIG_F_ALIVE		0x4	/* CONFIRM: so is the path that is left */
#define TCPMIG_F_AGREED		0x4	/* ECHO: its sender has agreed */
#define TCPMIG_F_ROLE		0x8	/* all but PERMIT: sender opened the connection */

#define TCPMIG_KEYS		4	/* 0 is the in-band key */
#define TCPMIG_KEY_LEN		32

/* What one segment carried; at most one of our options is looked at. */
struct tcp_mig_opt {
	u8	sub;
	u8	flags;
	u8	reqno;		/* low 8 bits */
	u8	key_id;
	u16	held;		/* CONFIRM: see tcp_mig_held() */
	u32	token;
	u32	nonce;
	u64	key;		/* PERMIT, host order */
	__be32	addr;		/* IPv4 address, or keyed hash of the IPv6 one */
	__be16	port;
	const u8 *raw;		/* the option, within the skb */
};

/* IPv4 addresses are held in mapped form. */
struct tcp_mig_tuple {
	struct in6_addr	laddr;
	struct in6_addr	raddr;
	__be16		lport;
	__be16		rport;
};

/* Own Migrate-Request (MIG_SENT, MIG_CONFIRM, and repeated in MIG_WAIT) */
struct tcp_mig_try {
	struct tcp_mig_tuple t;
	int	ifindex;	/* to send from, 0: any */
	u32	reqno;
	u32	isn;		/* SND.UNA - 1 when the attempt began */
	u32	nonce;
	u32	peer_nonce;
	u32	peer_isn;
	u32	peer_reqno;
	u32	peer_rcv;	/* RCV.NXT of the peer when it answered */
	u32	sent_us;	/* tcp_clock_us() of the first transmission */
	u32	rtt_us;		/* of the handshake, 0: not known */
	u16	peer_mss;
	u16	held;		/* in our CONFIRM */
	u8	tries;		/* since spliced: repeated CONFIRMs answered */
	u8	key_id;
	u8	peer_key_id;	/* of an unbound answer */
	u8	valid:1,
		trial:1,	/* the old path stays in use until committed */
		nosyn:1,	/* on the current tuple, without SYN */
		answered:1,	/* the peer's answer passed */
		unbound:1,	/* ... but was made without our nonce (spliced) */
		spliced:1,	/* committed on such an answer and the peer's CONFIRM,
				 * or crossed: the peer may lack ours
				 */
		rexmit:1,	/* sent more than once: no RTT sample */
		napt:1;		/* there is one on the new path, or may be */
	u8	unsent:1,	/* the device's queue was full */
		refused:1,	/* nosyn since an RST answered the MSYN */
		crossed:1,	/* the peer's request was answered as one with it */
		heard:1,	/* the old path has brought something since */
		turns:1;	/* in MIG_WAIT, with and without SYN in turn */
};

/* A Migrate-Request of the peer that was answered: the thesis' SYN_RECV */
struct tcp_mig_pend {
	struct tcp_mig_tuple t;
	u32	reqno;
	u32	isn;		/* our sequence number in the answer */
	u32	nonce;		/* ours, fresh for this tuple */
	u32	peer_nonce;
	u32	peer_isn;
	__be32	peer_addr;	/* as the asker sees itself */
	u32	sent_us;	/* tcp_clock_us() of the first answer */
	__be16	peer_port;
	u16	peer_mss;
	u8	key_id;
	u8	valid:1,
		nosyn:1,
		rexmit:1,	/* answered more than once: no RTT sample */
		bare:1,		/* came without other options: so does the answer */
		nat:1,		/* the asker's own address is another */
		relayed:1;	/* an MSYN whose SYN a proxy has taken */
};

#define TCPMIG_PENDS	2

/* What may be sent into a NAPT that has seen no window but that of a SYN,ACK;
 * the answering end opens it further if it has got more
 */
#define MIG_NAPT_WINDOW		65535
#define MIG_HELD_SHIFT		4	/* unit of what CONFIRM says is held */

#define MIG_CONFIRM_TRIES	4	/* then the MSYN is sent again */
#define MIG_REQNO_SPAN		64	/* attempts in vain, of 127 that fit */
#define MIG_PEND_LIFE		(60 * HZ)
#define MIG_PROBE_INTERVAL	(15 * HZ)
#define MIG_MSL			(120 * HZ)

/* In which data or a FIN may still flow */
#define MIG_TCP_STATES	(TCPF_ESTABLISHED | TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2 | \
			 TCPF_CLOSE_WAIT | TCPF_CLOSING | TCPF_LAST_ACK)

/* Entry of the token table; first member of what has a token. */
struct tcp_mig_id {
	struct rhash_head	node;
	struct net		*net;
	u32			token;	/* ours: the peer sends it */
};

struct tcp_migrate {
	struct tcp_mig_id	id;
	struct sock		*sk;	/* set once; see tcp_mig_get_sock() */
	u64			key_local;	/* in-band keys, PERMIT */
	u64			key_peer;
	u32			isn_active;	/* as we see them; for ECHO */
	u32			isn_passive;
	u8			(*keys)[TCPMIG_KEY_LEN];	/* [1..3] installed */
	u32			committed;	/* ReqNo of the last migration */
	u32			seen;		/* highest valid or own ReqNo */
	u32			migrations;
	u32			path_rcv;	/* end of what came on this path, while clamp */
	u32			path_ts;	/* own timestamp clock when it began */
	u32			moved;		/* jiffies: it began */
	u32			ts_left;	/* newest timestamp of the peer then */
	u32			since;		/* jiffies: state was entered */
	u32			gated;		/* jiffies: gate was closed */
	u32			wait_end;	/* jiffies: MIG_WAIT ends */
	u32			reply_stamp;	/* second of reply_count */
	__be32			peer_addr;	/* PERMIT: as the peer sees itself */
	__be16			peer_port;
	u8			state;		/* enum tcp_migrate_state */
	u8			reason;		/* enum tcp_migrate_reason */
	u8			key_mask;	/* installed keys */
	u8			key_send;
	u8			key_only;	/* exclusive key, 0: none */
	u8			reply_count;	/* in this second */
	u8			refuse_count;
	u8			rounds;		/* attempts without success */
	u8			echo_miss;
	u8			wait_err;	/* errno when MIG_WAIT ends */
	u32			role:1,		/* we opened the connection */
				agreed:1,	/* both ends can migrate */
				believes:1,	/* and the peer has agreed */
				hashed:1,	/* in the token table */
				echo:1,		/* our segments carry ECHO */
				omitted:1,	/* SYN went without PERMIT */
				clamp:1,	/* ACK and SACK end at path_rcv */
				gate:1,		/* only handshakes may leave */
				peer_nat:1,
				rst_sent:1,
				committed_own:1, /* our request, not the peer's */
				unconfirmed:1,	/* CONFIRM sent, not answered */
				sign_ack:1,	/* this segment answers CONFIRM */
				soft:1,		/* not gated: the path may live */
				ack_valid:1,	/* confirm_ack and so on are set */
				waiting:1,	/* counted in tcp_mig_net.waiting */
				limited:1,	/* cwnd, see tcp_mig_limit() */
				flight_alive:1,	/* the old path delivers it */
				held:1;		/* see tcp_mig_look_again() */
	/* MACs of our CONFIRM, of ours as answer to the peer's, and of the
	 * peer's that was committed last
	 */
	u8			confirm[TCPMIG_LEN_CONFIRM_MAC];
	u8			confirm_ack[TCPMIG_LEN_CONFIRM_MAC];
	u8			confirmed_by[TCPMIG_LEN_CONFIRM_MAC];
	u32			held_nxt;	/* SND.NXT then */
	u32			flight_end;	/* SND.NXT when the path was left */
	u32			segs_before;	/* data_segs_out then */
	u32			cwnd_clamp;	/* TCP's own snd_cwnd_clamp */
	u32			ack_reqno;
	u32			ack_stamp;	/* jiffies: last signed ACK */
	u8			ack_key;
	struct tcp_mig_try	own;
	union {		/* under the socket lock, until the socket has us no more */
		struct tcp_mig_pend	pend[TCPMIG_PENDS];
		struct rcu_head		rcu;
	};
	struct hlist_head	aliases;	/* tcp_mig_table_lock */
	struct timer_list	timer;		/* holds a socket reference */
};

static inline struct tcp_migrate *tcp_mig(const struct sock *sk)
{
	return rcu_dereference_protected(tcp_sk(sk)->mig, 1);
}

/* How far SND.UNA of the peer may lag behind our RCV.NXT: by what we have ever
 * let it send, since acknowledgments may be lost.
 */
static inline u32 tcp_mig_lag(const struct tcp_sock *tp)
{
	return max(tp->rcv_wnd, READ_ONCE(tp->window_clamp)) + 65536;
}

/* End of all that was received, also behind holes. */
static inline u32 tcp_mig_rcv_end(const struct tcp_sock *tp)
{
	u32 end = tp->rcv_nxt;

	if (!RB_EMPTY_ROOT(&tp->out_of_order_queue) &&
	    after(TCP_SKB_CB(tp->ooo_last_skb)->end_seq, end))
		end = TCP_SKB_CB(tp->ooo_last_skb)->end_seq;
	return end;
}

/* Counters of /proc/net/netstat, "TcpMigrate:" */
enum tcp_mig_mib {
	MIG_MIB_NUM = 0,
	MIG_MIB_PERMITSENT,		/* SYN or SYN,ACK with PERMIT sent */
	MIG_MIB_PERMITRCVD,		/* SYN or SYN,ACK with PERMIT received */
	MIG_MIB_PERMITOMITTED,		/* SYN sent without PERMIT: no answer with it */
	MIG_MIB_FALLBACKHIT,		/* SYN sent without PERMIT: destination remembered */
	MIG_MIB_ECHOMISSING,		/* peer never answered our ECHO: not migratable */
	MIG_MIB_ECHOBAD,		/* ECHO with a wrong MAC */
	MIG_MIB_AGREED,			/* connections both ends can migrate */
	MIG_MIB_TOKENCOLLISION,		/* not migratable: token in use */
	MIG_MIB_NOMEM,			/* not migratable: no memory */
	MIG_MIB_MSYNSENT,		/* Migrate-Requests sent, first transmission */
	MIG_MIB_MSYNRETRANS,		/* ... and repetitions */
	MIG_MIB_MSYNRCVD,		/* valid Migrate-Requests received */
	MIG_MIB_MANSSENT,		/* answers sent */
	MIG_MIB_MANSRCVD,		/* valid answers received */
	MIG_MIB_CONFIRMRCVD,		/* valid CONFIRMs received */
	MIG_MIB_CONFIRMMISSING,		/* answered, but CONFIRM never took effect */
	MIG_MIB_COMMIT,			/* migrations completed at this end */
	MIG_MIB_COMMITPASSIVE,		/* ... of these by the peer's request */
	MIG_MIB_TRIALFAILED,
	MIG_MIB_NOTOKEN,		/* refused: token of no connection */
	MIG_MIB_BADMAC,			/* refused: wrong MAC */
	MIG_MIB_BADREQNO,		/* refused: ReqNo of the past */
	MIG_MIB_BADSEQ,			/* refused: implausible sequence number */
	MIG_MIB_BADROLE,		/* refused: our own segment came back */
	MIG_MIB_BADKEY,			/* refused: key unknown or not allowed */
	MIG_MIB_BADSTATE,		/* refused: connection is not in a state to migrate */
	MIG_MIB_BADCONFIRM,		/* refused: CONFIRM of no answered request */
	MIG_MIB_BADANSWER,		/* refused: answer to nothing we asked */
	MIG_MIB_BADTUPLE,		/* refused: request over a tuple that cannot be used */
	MIG_MIB_NOTMIGRATE,		/* plain SYN,ACK answered our MSYN */
	MIG_MIB_FOREIGN,		/* segment without proof on a pending tuple dropped */
	MIG_MIB_REPLYLIMIT,		/* reply not sent: rate limit */
	MIG_MIB_RSTDEFERRED,		/* unsigned RST: MIG_WAIT instead of abort */
	MIG_MIB_RSTHINT,		/* RST ignored: state, or not the current tuple */
	MIG_MIB_RSTAUTH,		/* RST that proved its origin */
	MIG_MIB_RSTAUTHBAD,		/* ... or failed to */
	MIG_MIB_RSTSIGNED,		/* signed RSTs sent */
	MIG_MIB_WAIT,			/* times MIG_WAIT was entered */
	MIG_MIB_WAITALIVE,		/* ... left because the path lived */
	MIG_MIB_WAITTIMEOUT,		/* ... ended with an error */
	MIG_MIB_WAITOVERFLOW,		/* not entered: wait_max */
	MIG_MIB_ACKCLAMPED,		/* segments whose ACK was clamped */
	MIG_MIB_TUPLEINUSE,		/* not committed: tuple belongs to another socket */
	MIG_MIB_NOROUTE,		/* MSYN not sent: no route or not our address */
	MIG_MIB_OLDPATH,		/* segments that came on an old tuple */
	MIG_MIB_TOMBSTONES,		/* tombstones made */
	MIG_MIB_TOMBSTONEOVERFLOW,	/* ... not made: tombstone_max */
	__MIG_MIB_MAX
};

struct tcp_mig_mib_s {
	unsigned long mibs[__MIG_MIB_MAX];
};

#define TCPMIG_FALLBACK_SIZE	64

/* Destinations whose path drops SYNs with PERMIT. Lossy by design: an entry
 * may be overwritten by another, or be read half-written; the price is one
 * SYN with or without the option.
 */
struct tcp_mig_fallback {
	u32	hash;
	u32	until;		/* jiffies */
};

struct tcp_mig_net {
	struct tcp_mig_mib_s __percpu *mib;
	struct ctl_table_header	*sysctl;
	struct ctl_table	*table;
	atomic_t		waiting;
	atomic_t		tombs;
	struct list_head	tomb_list;	/* oldest first; tcp_mig_table_lock */
	struct delayed_work	tomb_work;
	struct tcp_mig_fallback	fallback[TCPMIG_FALLBACK_SIZE];
	u8			enabled;
	u8			syn_retries;
	u8			require_strong;
	int			wait_rst;	/* seconds */
	int			wait_silence;	/* seconds */
	int			wait_orphan;	/* seconds */
	int			wait_max;
	int			tombstone_max;
	int			tombstone_time;	/* seconds */
	int			fallback_time;	/* seconds */
};

extern unsigned int tcp_mig_net_id;
extern struct kmem_cache *tcp_mig_cache;

static inline struct tcp_mig_net *tcp_mig_net(const struct net *net)
{
	return net_generic(net, tcp_mig_net_id);
}

#define MIG_INC(net, field) \
	this_cpu_inc(tcp_mig_net(net)->mib->mibs[MIG_MIB_##field])

static inline bool tcp_mig_tuple_eq(const struct tcp_mig_tuple *a,
				    const struct tcp_mig_tuple *b)
{
	return ipv6_addr_equal(&a->raddr, &b->raddr) &&
	       ipv6_addr_equal(&a->laddr, &b->laddr) &&
	       a->lport == b->lport && a->rport == b->rport;
}

/* tcp_migrate_opt.c: bytes and MACs, no state */
struct tcp_mig_mreq {	/* what MREQ and MANS say */
	u8	sub;
	u8	flags;
	u32	reqno;
	u32	token;		/* of the receiver */
	u32	nonce;		/* of the sender */
	u32	asker_nonce;	/* MANS: of the receiver */
	__be32	addr;		/* MANS: RCV.NXT */
	__be16	port;
	u32	seq;		/* SEG.SEQ */
};

bool tcp_mig_parse(const struct tcphdr *th, struct tcp_mig_opt *opt);
u32 tcp_mig_token(u64 key);
u32 tcp_mig_echo_mac(u64 key_active, u64 key_passive, u8 flags,
		     u32 isn_active, u32 isn_passive);
__be32 tcp_mig_addr_hash(u64 key, const struct in6_addr *addr);
void tcp_mig_key0(u8 out[TCPMIG_KEY_LEN], u64 key_active, u64 key_passive);
void tcp_mig_key_strong(u8 out[TCPMIG_KEY_LEN], const u8 secret[TCPMIG_KEY_LEN],
			u64 key_active, u64 key_passive);
void tcp_mig_exporter(u8 out[TCPMIG_KEY_LEN], const u8 key0[TCPMIG_KEY_LEN]);
u64 tcp_mig_mac_mreq(const u8 key[TCPMIG_KEY_LEN], const struct tcp_mig_mreq *m);
void tcp_mig_mac_confirm(u8 out[TCPMIG_LEN_CONFIRM_MAC],
			 const u8 key[TCPMIG_KEY_LEN], bool role, u32 reqno,
			 u32 nonce_own, u32 nonce_peer, u16 held);
u64 tcp_mig_mac_rst(const u8 key[TCPMIG_KEY_LEN], bool role, u32 seq);
void tcp_mig_put_permit(u8 *p, u64 key, bool v6, __be32 addr, __be16 port);
void tcp_mig_put_mreq(u8 *p, const struct tcp_mig_mreq *m, u64 mac);
void tcp_mig_put_confirm(u8 *p, u8 flags, u32 reqno, u16 held, u32 token,
			 const u8 mac[TCPMIG_LEN_CONFIRM_MAC]);
void tcp_mig_put_rst(u8 *p, u8 flags, u64 mac);
void tcp_mig_put_echo(u8 *p, u8 flags, u32 mac24);

/* The 32-bit ReqNo nearest to @near whose low 8 bits are @low. */
static inline u32 tcp_mig_reqno(u32 near, u8 low)
{
	return near + sign_extend32(low - near, 7);
}

/* tcp_migrate_table.c */
enum tcp_mig_alias_kind {
	MIG_ALIAS_OLD,		/* a tuple the connection has left */
	MIG_ALIAS_NEW,		/* target of our own Migrate-Request */
};

int tcp_mig_table_init(void);
int tcp_mig_token_insert(struct tcp_migrate *mig);
void tcp_mig_token_remove(struct tcp_migrate *mig);
struct sock *tcp_mig_token_lookup(struct net *net, u32 token);
void tcp_mig_walk_enter(struct rhashtable_iter *iter);
void tcp_mig_walk_rest(struct rhashtable_iter *iter, int *passed);
struct sock *tcp_mig_walk_next(struct rhashtable_iter *iter, struct net *net);
int tcp_mig_alias_add(struct tcp_migrate *mig, const struct tcp_mig_tuple *t,
		      enum tcp_mig_alias_kind kind);
void tcp_mig_alias_retire(struct tcp_migrate *mig,
			  const struct tcp_mig_tuple *t);
void tcp_mig_alias_del(struct tcp_migrate *mig, const struct tcp_mig_tuple *t);
void tcp_mig_alias_flush(struct tcp_migrate *mig);
struct sock *tcp_mig_alias_lookup(struct net *net,
				  const struct tcp_mig_tuple *t, u8 *kind);
void tcp_mig_tomb_add(struct tcp_migrate *mig, const struct tcp_mig_tuple *t);
bool tcp_mig_tomb_sign(struct net *net, const struct sk_buff *skb, u32 seq,
		       u8 *opt);
void tcp_mig_tomb_init(struct tcp_mig_net *tn);
void tcp_mig_tomb_flush(struct tcp_mig_net *tn);

/* tcp_migrate_addr.c */
void tcp_mig_sk_tuple(const struct sock *sk, struct tcp_mig_tuple *t);
void tcp_mig_skb_tuple(const struct sk_buff *skb, struct tcp_mig_tuple *t);
bool tcp_mig_taken(const struct sock *sk, const struct tcp_mig_tuple *t);
bool tcp_mig_is_local(const struct sock *sk, const struct in6_addr *addr);
int tcp_mig_check_tuple(struct sock *sk, const struct tcp_mig_tuple *t);
int tcp_mig_readdress(struct sock *sk, const struct tcp_mig_tuple *t);
void tcp_mig_end_limit(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_reset_path(struct sock *sk, u32 rtt_us, u16 peer_mss, bool alive);
void tcp_mig_acked(struct sock *sk, u32 ack);
void tcp_mig_resend(struct sock *sk, u32 end);
void tcp_mig_look_again(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_restart(struct sock *sk);
int tcp_mig_xmit(struct sock *sk, const struct tcp_mig_tuple *t, int ifindex,
		 u32 seq, u32 ack, u8 flags, bool bare, const u8 *opt,
		 unsigned int optlen);
void tcp_mig_send_closed(struct sock *sk, struct sk_buff *skb);

/* tcp_migrate.c */
u64 tcp_mig_key_active(const struct tcp_migrate *mig);
u64 tcp_mig_key_passive(const struct tcp_migrate *mig);
void tcp_mig_key(const struct tcp_migrate *mig, u8 id, u8 out[TCPMIG_KEY_LEN]);
bool tcp_mig_has_auth(const struct sock *sk);
bool tcp_mig_may_permit(const struct sock *sk);
bool tcp_mig_key_ok(const struct sock *sk, const struct tcp_migrate *mig,
		    u8 id);
void tcp_mig_update_busy(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_set_state(struct sock *sk, struct tcp_migrate *mig, u8 state,
		       u8 reason);
void tcp_mig_arm(struct sock *sk, struct tcp_migrate *mig, unsigned long delay);
bool tcp_mig_user_timed_out(const struct sock *sk,
			    const struct tcp_migrate *mig);
void tcp_mig_disarm(struct sock *sk, struct tcp_migrate *mig);
unsigned long tcp_mig_rto(const struct sock *sk, u8 tries);
unsigned long tcp_mig_confirm_rto(const struct sock *sk,
				  const struct tcp_migrate *mig);
bool tcp_mig_reply_allowed(struct sock *sk, struct tcp_migrate *mig);
bool tcp_mig_refuse_allowed(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_rcv_echo(struct sock *sk, struct tcp_migrate *mig,
		      const struct tcp_mig_opt *opt);
void tcp_mig_no_echo(struct sock *sk, struct tcp_migrate *mig);
u8 tcp_mig_role_flag(const struct tcp_migrate *mig);
bool tcp_mig_is_nat(u64 key, __be32 addr, __be16 port,
		    const struct in6_addr *seen, __be16 seen_port);

/* tcp_migrate_handshake.c: what both ends need */
bool tcp_mig_newer(const struct tcp_migrate *mig, u32 reqno);
void tcp_mig_set_committed(struct tcp_migrate *mig, u32 reqno, bool own);
void tcp_mig_begin_path(struct sock *sk, struct tcp_migrate *mig,
			u32 peer_isn);
void tcp_mig_put_signed_mreq(const struct tcp_migrate *mig, u8 key_id,
			     const struct tcp_mig_mreq *m, u8 *opt);
u32 tcp_mig_since(u32 sent_us);
bool tcp_mig_verify(struct sock *sk, struct tcp_migrate *mig,
		    const struct sk_buff *skb, const struct tcp_mig_opt *opt,
		    struct tcp_mig_mreq *m);
u16 tcp_mig_mss_option(const struct tcphdr *th);
bool tcp_mig_confirm_ok(const struct tcp_migrate *mig, u8 key_id,
			u32 reqno, u32 nonce_peer, u32 nonce_own,
			const u8 *raw);
bool tcp_mig_rcv_confirm(struct sock *sk, struct tcp_migrate *mig,
			 const struct sk_buff *skb,
			 const struct tcp_mig_tuple *t,
			 const struct tcp_mig_opt *opt);

/* tcp_migrate_ask.c */
int tcp_mig_start(struct sock *sk, const struct tcp_mig_tuple *t, int ifindex,
		  u32 flags);
int tcp_mig_send_request(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_new_try(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_refused(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_cancel_try(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_probe(struct sock *sk, struct tcp_migrate *mig);
bool tcp_mig_enter_wait(struct sock *sk, struct tcp_migrate *mig, u8 reason,
			int err);
void tcp_mig_to_idle(struct sock *sk, struct tcp_migrate *mig, u8 reason);
void tcp_mig_send_confirm(struct sock *sk, struct tcp_migrate *mig);
void tcp_mig_confirmed(struct sock *sk, struct tcp_migrate *mig);
bool tcp_mig_is_answer(const struct tcphdr *th, const struct tcp_mig_opt *opt);
void tcp_mig_rcv_answer(struct sock *sk, struct tcp_migrate *mig,
			struct sk_buff *skb, const struct tcp_mig_tuple *t,
			const struct tcp_mig_opt *opt);
void tcp_mig_rcv_plain_synack(struct sock *sk, struct tcp_migrate *mig,
			      struct sk_buff *skb);

/* tcp_migrate_answer.c */
struct tcp_mig_pend *tcp_mig_find_pend(struct tcp_migrate *mig,
				       const struct tcp_mig_tuple *t);
void tcp_mig_clear_pends(struct tcp_migrate *mig);
void tcp_mig_age_pends(struct sock *sk, struct tcp_migrate *mig);
bool tcp_mig_recall_pend(const struct tcp_migrate *mig, u8 reqno,
			 const struct tcp_mig_tuple *t,
			 struct tcp_mig_pend *p);
void tcp_mig_rcv_request(struct sock *sk, struct tcp_migrate *mig,
			 struct sk_buff *skb, const struct tcp_mig_tuple *t,
			 bool on_path, const struct tcp_mig_mreq *m, u8 key_id);
void tcp_mig_commit_pend(struct sock *sk, struct tcp_migrate *mig,
			 const struct sk_buff *skb,
			 const struct tcp_mig_pend *pend, bool alive);
bool tcp_mig_rcv_old_confirm(struct sock *sk, struct tcp_migrate *mig,
			     const struct sk_buff *skb,
			     const struct tcp_mig_tuple *t,
			     const struct tcp_mig_opt *opt);

/* tcp_migrate_rcv.c */
void tcp_mig_track_path(struct sock *sk, struct tcp_migrate *mig,
			const struct sk_buff *skb);
void tcp_mig_timer(struct timer_list *t);

/* tcp_migrate_nl.c */
void tcp_mig_event(const struct sock *sk, const struct tcp_migrate *mig, int error);

/* tcp_migrate_ctrl.c */
int tcp_mig_ctrl_init(void);
bool tcp_mig_fallback_hit(const struct sock *sk);
void tcp_mig_fallback_add(const struct sock *sk);

#endif
