// SPDX-License-Identifier: GPL-2.0
/* TCP migration: the generic netlink family.
 *
 * Specified in Documentation/netlink/specs/tcp_migrate.yaml; policies are
 * generated from it. Commands need CAP_NET_ADMIN in the user namespace of the
 * network namespace. Events and dumps hold no secrets; tokens are shown to
 * administrators only.
 */
#include <crypto/algapi.h>
#include <linux/sock_diag.h>
#include <net/genetlink.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "tcp_migrate.h"
#include "tcp_migrate_nl_gen.h"

/* How long a full queue is waited for: without any progress, for one request */
#define MIG_PACE_ONE	(HZ / 10)
#define MIG_PACE_ALL	HZ

#define A(name)	TCP_MIGRATE_A_CONN_##name

static struct genl_family tcp_mig_family;

/* ---- Filling attributes ---- */

static int tcp_mig_put_addr(struct sk_buff *skb, int type,
			    const struct in6_addr *a)
{
	if (ipv6_addr_v4mapped(a))
		return nla_put(skb, type, 4, &a->s6_addr32[3]);
	return nla_put(skb, type, 16, a);
}

static int tcp_mig_put_new(struct sk_buff *skb, const struct tcp_mig_tuple *t)
{
	return tcp_mig_put_addr(skb, A(NEW_LOCAL_ADDR), &t->laddr) ||
	       nla_put_be16(skb, A(NEW_LOCAL_PORT), t->lport) ||
	       tcp_mig_put_addr(skb, A(NEW_REMOTE_ADDR), &t->raddr) ||
	       nla_put_be16(skb, A(NEW_REMOTE_PORT), t->rport);
}

static int tcp_mig_put_tuple(struct sk_buff *skb, const struct tcp_mig_tuple *t)
{
	bool v4 = ipv6_addr_v4mapped(&t->laddr);

	return nla_put_u16(skb, A(FAMILY), v4 ? AF_INET : AF_INET6) ||
	       tcp_mig_put_addr(skb, A(LOCAL_ADDR), &t->laddr) ||
	       nla_put_be16(skb, A(LOCAL_PORT), t->lport) ||
	       tcp_mig_put_addr(skb, A(REMOTE_ADDR), &t->raddr) ||
	       nla_put_be16(skb, A(REMOTE_PORT), t->rport);
}

static int tcp_mig_put_state(struct sk_buff *skb, const struct sock *sk,
			     const struct tcp_migrate *mig)
{
	u32 now = tcp_jiffies32;

	if (mig->state == TCP_MIGRATE_STATE_MIG_WAIT &&
	    before(now, mig->wait_end) &&
	    nla_put_u32(skb, A(LEFT_MS), jiffies_to_msecs(mig->wait_end - now)))
		return -EMSGSIZE;
	return nla_put_u8(skb, A(STATE), mig->state) ||
	       nla_put_u8(skb, A(TCP_STATE), sk->sk_state) ||
	       nla_put_u8(skb, A(REASON), mig->reason) ||
	       nla_put_u8(skb, A(ROLE), mig->role) ||
	       nla_put_u32(skb, A(REQNO), mig->committed) ||
	       nla_put_u32(skb, A(MIGRATIONS), mig->migrations) ||
	       nla_put_u32(skb, A(AGE_MS), jiffies_to_msecs(now - mig->since));
}

static u8 tcp_mig_keys_accepted(const struct tcp_migrate *mig)
{
	const struct tcp_mig_net *tn = tcp_mig_net(mig->id.net);

	if (mig->key_only)
		return BIT(mig->key_only);
	return mig->key_mask | (READ_ONCE(tn->require_strong) ? 0 : BIT(0));
}

static int tcp_mig_put_peer(struct sk_buff *skb, const struct tcp_migrate *mig)
{
	return nla_put(skb, A(PEER_INNER_ADDR), 4, &mig->peer_addr) ||
	       nla_put_be16(skb, A(PEER_INNER_PORT), mig->peer_port) ||
	       nla_put_u8(skb, A(PEER_NAT), mig->peer_nat) ||
	       nla_put_u8(skb, A(KEY_ID), mig->key_send) ||
	       nla_put_u8(skb, A(KEY_MASK), tcp_mig_keys_accepted(mig));
}

/* The socket is locked, or this is a snapshot under bh_lock_sock(). */
static int tcp_mig_fill(struct sk_buff *skb, const struct sock *sk,
			const struct tcp_migrate *mig, bool admin, int error)
{
	struct tcp_mig_tuple t;

	tcp_mig_sk_tuple(sk, &t);
	if (nla_put_u64_64bit(skb, A(COOKIE),
			      atomic64_read(&sk->sk_cookie), A(PAD)) ||
	    tcp_mig_put_tuple(skb, &t) || tcp_mig_put_state(skb, sk, mig) ||
	    tcp_mig_put_peer(skb, mig) ||
	    nla_put_u32(skb, A(UID), from_kuid_munged(sock_net(sk)->user_ns,
						      sk->sk_uid)))
		return -EMSGSIZE;
	if (mig->own.valid && tcp_mig_put_new(skb, &mig->own.t))
		return -EMSGSIZE;
	if (sk->sk_bound_dev_if &&
	    nla_put_u32(skb, A(IF_INDEX), sk->sk_bound_dev_if))
		return -EMSGSIZE;
	if (error && nla_put_u32(skb, A(ERROR), error))
		return -EMSGSIZE;
	if (admin && (nla_put_u32(skb, A(TOKEN_LOCAL), mig->id.token) ||
		      nla_put_u32(skb, A(TOKEN_REMOTE),
				  tcp_mig_token(mig->key_peer))))
		return -EMSGSIZE;
	return 0;
}

/**
 * tcp_mig_event() - tell listeners that something happened to a connection
 * @sk: its socket, locked
 * @mig: its state, already changed
 * @error: errno of a closed connection, else 0
 *
 * May drop under memory pressure: listeners see ENOBUFS and dump again.
 */
void tcp_mig_event(const struct sock *sk, const struct tcp_migrate *mig,
		   int error)
{
	struct net *net = sock_net(sk);
	struct sk_buff *skb;
	void *hdr;

	if (!genl_has_listeners(&tcp_mig_family, net, TCP_MIGRATE_NLGRP_EVENTS))
		return;
	sock_gen_cookie((struct sock *)sk);
	skb = genlmsg_new(NLMSG_GOODSIZE, GFP_ATOMIC);
	if (!skb)
		return;
	hdr = genlmsg_put(skb, 0, 0, &tcp_mig_family, 0, TCP_MIGRATE_CMD_EVENT);
	if (!hdr || tcp_mig_fill(skb, sk, mig, false, error)) {
		nlmsg_free(skb);
		return;
	}
	genlmsg_end(skb, hdr);
	genlmsg_multicast_netns(&tcp_mig_family, net, skb, 0,
				TCP_MIGRATE_NLGRP_EVENTS, GFP_ATOMIC);
}

/* ---- Naming connections ---- */

struct tcp_mig_filter {
	u64	cookie;
	u32	token;
	struct tcp_mig_tuple t;
	bool	by_cookie, by_token, by_laddr, by_raddr, by_lport, by_rport;
};

static int tcp_mig_get_addr(struct genl_info *info, int type,
			    struct in6_addr *a)
{
	const struct nlattr *nla = info->attrs[type];

	if (nla_len(nla) == 4) {
		ipv6_addr_set_v4mapped(nla_get_be32(nla), a);
		return 0;
	}
	if (nla_len(nla) == 16) {
		*a = nla_get_in6_addr(nla);
		return 0;
	}
	NL_SET_ERR_MSG_ATTR(info->extack, nla, "address must have 4 or 16 bytes");
	return -EINVAL;
}

static int tcp_mig_parse_filter(struct genl_info *info,
				struct tcp_mig_filter *f)
{
	struct nlattr **a = info->attrs;

	memset(f, 0, sizeof(*f));
	if (a[A(COOKIE)]) {
		f->by_cookie = true;
		f->cookie = nla_get_u64(a[A(COOKIE)]);
		if (!f->cookie) {
			NL_SET_ERR_MSG_ATTR(info->extack, a[A(COOKIE)],
					    "no socket has cookie 0");
			return -EINVAL;
		}
	}
	if (a[A(LOCAL_ADDR)]) {
		f->by_laddr = true;
		if (tcp_mig_get_addr(info, A(LOCAL_ADDR), &f->t.laddr))
			return -EINVAL;
	}
	if (a[A(REMOTE_ADDR)]) {
		f->by_raddr = true;
		if (tcp_mig_get_addr(info, A(REMOTE_ADDR), &f->t.raddr))
			return -EINVAL;
	}
	return 0;
}

/* What only commands for one connection take. */
static int tcp_mig_parse_name(struct genl_info *info, struct tcp_mig_filter *f)
{
	struct nlattr **a = info->attrs;
	int err = tcp_mig_parse_filter(info, f);

	if (err)
		return err;
	if (a[A(LOCAL_PORT)]) {
		f->by_lport = true;
		f->t.lport = nla_get_be16(a[A(LOCAL_PORT)]);
	}
	if (a[A(REMOTE_PORT)]) {
		f->by_rport = true;
		f->t.rport = nla_get_be16(a[A(REMOTE_PORT)]);
	}
	if (a[A(TOKEN)]) {
		f->by_token = true;
		f->token = nla_get_u32(a[A(TOKEN)]);
	}
	return 0;
}

static bool tcp_mig_names_one(const struct tcp_mig_filter *f)
{
	return f->by_cookie || f->by_token ||
	       (f->by_laddr && f->by_lport && f->by_raddr && f->by_rport);
}

/* Reads without the lock; who acts on the result checks again under it. */
static bool tcp_mig_match(const struct sock *sk, const struct tcp_migrate *mig,
			  const struct tcp_mig_filter *f)
{
	struct tcp_mig_tuple t;

	tcp_mig_sk_tuple(sk, &t);
	if (f->by_cookie && atomic64_read(&sk->sk_cookie) != f->cookie)
		return false;
	if (f->by_token && mig->id.token != f->token)
		return false;
	if (f->by_lport && t.lport != f->t.lport)
		return false;
	if (f->by_rport && t.rport != f->t.rport)
		return false;
	if (f->by_raddr && !ipv6_addr_equal(&t.raddr, &f->t.raddr))
		return false;
	/* A move that is not finished is from there, too. */
	if (f->by_laddr && !ipv6_addr_equal(&t.laddr, &f->t.laddr) &&
	    !(mig->own.valid &&
	      ipv6_addr_equal(&mig->own.t.laddr, &f->t.laddr)))
		return false;
	return true;
}

static bool tcp_mig_match_sk(struct sock *sk, const struct tcp_mig_filter *f)
{
	const struct tcp_migrate *mig;
	bool ok;

	rcu_read_lock();
	mig = rcu_dereference(tcp_sk(sk)->mig);
	ok = mig && tcp_mig_match(sk, mig, f);
	rcu_read_unlock();
	return ok;
}

/* One connection with a reference, or an error with a message. */
static struct sock *tcp_mig_find(struct genl_info *info)
{
	struct net *net = genl_info_net(info);
	struct tcp_mig_filter f;
	struct rhashtable_iter iter;
	int err, passed = 0;
	struct sock *sk;

	err = tcp_mig_parse_name(info, &f);
	if (err)
		return ERR_PTR(err);
	if (!tcp_mig_names_one(&f)) {
		GENL_SET_ERR_MSG(info, "name a cookie, a token, or both addresses and ports");
		return ERR_PTR(-EINVAL);
	}
	if (f.by_token) {
		sk = tcp_mig_token_lookup(net, f.token);
		if (sk && !tcp_mig_match_sk(sk, &f)) {
			sock_gen_put(sk);
			sk = NULL;
		}
		return sk ?: ERR_PTR(-ENOENT);
	}
	tcp_mig_walk_enter(&iter);
	rhashtable_walk_start(&iter);
	while ((sk = tcp_mig_walk_next(&iter, net)) &&
	       !tcp_mig_match_sk(sk, &f)) {
		sock_gen_put(sk);
		tcp_mig_walk_rest(&iter, &passed);
	}
	rhashtable_walk_stop(&iter);
	rhashtable_walk_exit(&iter);
	return sk ?: ERR_PTR(-ENOENT);
}

/* All that match, each with a reference. Return: how many, or -ENOMEM. */
static int tcp_mig_collect(struct net *net, const struct tcp_mig_filter *f,
			   struct sock ***out)
{
	struct rhashtable_iter iter;
	struct sock **v = NULL, **w, *sk;
	int n = 0, room = 0, passed = 0;
	bool oom = false;

	tcp_mig_walk_enter(&iter);
	rhashtable_walk_start(&iter);
	while ((sk = tcp_mig_walk_next(&iter, net))) {
		if (!tcp_mig_match_sk(sk, f)) {
			sock_gen_put(sk);
			tcp_mig_walk_rest(&iter, &passed);
			continue;
		}
		if (n == room) {
			rhashtable_walk_stop(&iter);
			w = kvmalloc_array(room + 1024, sizeof(*v), GFP_KERNEL);
			if (w && v)
				memcpy(w, v, n * sizeof(*v));
			if (w) {
				kvfree(v);
				v = w;
				room += 1024;
			}
			rhashtable_walk_start(&iter);
			if (!w) {
				oom = true;
				sock_gen_put(sk);
				break;
			}
		}
		v[n++] = sk;
	}
	rhashtable_walk_stop(&iter);
	rhashtable_walk_exit(&iter);
	*out = v;
	return n || !oom ? n : -ENOMEM;
}

/* ---- Commands ---- */

int tcp_migrate_nl_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	bool admin = netlink_ns_capable(skb, genl_info_net(info)->user_ns,
					CAP_NET_ADMIN);
	struct tcp_migrate *mig;
	struct sk_buff *msg;
	int err = -ENOENT;
	struct sock *sk;
	void *hdr;

	/* Who must not read tokens must not find them by guessing either. */
	if (info->attrs[A(TOKEN)] && !admin)
		return -EPERM;
	sk = tcp_mig_find(info);
	if (IS_ERR(sk))
		return PTR_ERR(sk);
	msg = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (!msg) {
		sock_gen_put(sk);
		return -ENOMEM;
	}
	hdr = genlmsg_put_reply(msg, info, &tcp_mig_family, 0,
				TCP_MIGRATE_CMD_GET);
	sock_gen_cookie(sk);
	lock_sock(sk);
	mig = tcp_mig(sk);
	if (mig)
		err = tcp_mig_fill(msg, sk, mig, admin, 0);
	release_sock(sk);
	if (!err)
		err = nla_put_u64_64bit(msg, A(INODE), sock_i_ino(sk), A(PAD));
	sock_gen_put(sk);
	if (!hdr || err) {
		nlmsg_free(msg);
		return err ?: -EMSGSIZE;
	}
	genlmsg_end(msg, hdr);
	return genlmsg_reply(msg, info);
}

int tcp_migrate_nl_get_start(struct netlink_callback *cb)
{
	struct rhashtable_iter *iter = kzalloc(sizeof(*iter), GFP_KERNEL);

	if (!iter)
		return -ENOMEM;
	tcp_mig_walk_enter(iter);
	cb->args[0] = (long)iter;
	return 0;
}

int tcp_migrate_nl_get_done(struct netlink_callback *cb)
{
	struct rhashtable_iter *iter = (void *)cb->args[0];

	if (cb->args[1])
		sock_gen_put((struct sock *)cb->args[1]);
	rhashtable_walk_exit(iter);
	kfree(iter);
	return 0;
}

/* A snapshot: a connection that a program is just using is read without
 * waiting for it.
 */
static int tcp_mig_dump_one(struct sk_buff *skb, struct netlink_callback *cb,
			    struct sock *sk, bool admin)
{
	struct tcp_migrate *mig;
	int err = 0;
	void *hdr;

	sock_gen_cookie(sk);
	hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
			  &tcp_mig_family, NLM_F_MULTI, TCP_MIGRATE_CMD_GET);
	if (!hdr)
		return -EMSGSIZE;
	local_bh_disable();
	bh_lock_sock(sk);
	mig = rcu_dereference_bh(tcp_sk(sk)->mig);
	if (mig)
		err = tcp_mig_fill(skb, sk, mig, admin, 0);
	bh_unlock_sock(sk);
	local_bh_enable();
	if (!err && mig)
		err = nla_put_u64_64bit(skb, A(INODE), sock_i_ino(sk), A(PAD));
	if (err || !mig)
		genlmsg_cancel(skb, hdr);
	else
		genlmsg_end(skb, hdr);
	return err;
}

int tcp_migrate_nl_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct rhashtable_iter *iter = (void *)cb->args[0];
	struct net *net = sock_net(skb->sk);
	bool admin = netlink_ns_capable(cb->skb, net->user_ns, CAP_NET_ADMIN);
	struct sock *sk = (struct sock *)cb->args[1];

	cb->args[1] = 0;
	rhashtable_walk_start(iter);
	for (; sk || (sk = tcp_mig_walk_next(iter, net)); sk = NULL) {
		if (tcp_mig_dump_one(skb, cb, sk, admin)) {
			cb->args[1] = (long)sk;	/* first of the next message */
			break;
		}
		sock_gen_put(sk);
	}
	rhashtable_walk_stop(iter);
	return skb->len;
}

struct tcp_mig_target {
	struct tcp_mig_tuple t;
	bool	laddr, raddr, lport, rport;
	int	ifindex;
	u32	flags;
};

static int tcp_mig_parse_addrs(struct genl_info *info, struct tcp_mig_target *to)
{
	struct nlattr **a = info->attrs;

	memset(to, 0, sizeof(*to));
	if (a[A(NEW_LOCAL_ADDR)]) {
		to->laddr = true;
		if (tcp_mig_get_addr(info, A(NEW_LOCAL_ADDR), &to->t.laddr))
			return -EINVAL;
	}
	if (a[A(NEW_REMOTE_ADDR)]) {
		to->raddr = true;
		if (tcp_mig_get_addr(info, A(NEW_REMOTE_ADDR), &to->t.raddr))
			return -EINVAL;
	}
	if (a[A(IF_INDEX)])
		to->ifindex = nla_get_u32(a[A(IF_INDEX)]);
	if (a[A(FLAGS)])
		to->flags = nla_get_u32(a[A(FLAGS)]);
	return 0;
}

static int tcp_mig_parse_ports(struct genl_info *info,
			       struct tcp_mig_target *to)
{
	struct nlattr **a = info->attrs;

	if (a[A(NEW_LOCAL_PORT)]) {
		to->lport = true;
		to->t.lport = nla_get_be16(a[A(NEW_LOCAL_PORT)]);
	}
	if (a[A(NEW_REMOTE_PORT)]) {
		to->rport = true;
		to->t.rport = nla_get_be16(a[A(NEW_REMOTE_PORT)]);
	}
	return 0;
}

/* @f: what the connection was found by, NULL: it alone was named
 * @unsent: the device's queue did not take the request
 *
 * Return: 0, -ENOENT (@f is not true any more), or as tcp_mig_start().
 */
static int tcp_mig_move(struct sock *sk, const struct tcp_mig_filter *f,
			const struct tcp_mig_target *to, bool *unsent)
{
	struct tcp_mig_tuple t;
	int err = -ENOENT;

	*unsent = false;
	lock_sock(sk);
	local_bh_disable();
	if (f && !(tcp_mig(sk) && tcp_mig_match(sk, tcp_mig(sk), f)))
		goto out;
	tcp_mig_sk_tuple(sk, &t);
	if (to->laddr)
		t.laddr = to->t.laddr;
	if (to->raddr)
		t.raddr = to->t.raddr;
	if (to->lport)
		t.lport = to->t.lport;
	if (to->rport)
		t.rport = to->t.rport;
	err = tcp_mig_start(sk, &t, to->ifindex, to->flags);
	*unsent = !err && tcp_mig(sk)->own.unsent;
out:
	local_bh_enable();
	release_sock(sk);
	return err;
}

/* Sends the request again that the device's queue did not take.
 * Return: true if it did not this time either.
 */
static bool tcp_mig_send_again(struct sock *sk)
{
	struct tcp_migrate *mig;
	bool unsent = false;

	lock_sock(sk);
	local_bh_disable();
	mig = tcp_mig(sk);
	if (mig && mig->state == TCP_MIGRATE_STATE_MIG_SENT &&
	    mig->own.valid && mig->own.unsent) {
		mig->own.tries = 0;
		tcp_mig_send_request(sk, mig);
		unsent = mig->own.unsent;
	}
	local_bh_enable();
	release_sock(sk);
	return unsent;
}

/* One command for many connections is faster than a slow device. What its queue
 * does not take goes out when there is room, not after a time-out, and what
 * follows waits. Sleeps, with no lock of ours held, but with generic netlink's;
 * so what is still unsent after a while, or when a signal comes, is left to the
 * timers. @left: jiffies that the command may still wait.
 */
static void tcp_mig_pace(struct sock *sk, int *left)
{
	int most = min(*left, MIG_PACE_ONE);

	while (most--) {
		(*left)--;
		schedule_timeout_interruptible(1);
		if (signal_pending(current) || !tcp_mig_send_again(sk))
			return;
	}
}

int tcp_migrate_nl_migrate_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct tcp_mig_target to;
	struct sock *sk;
	bool unsent;
	int err;

	err = tcp_mig_parse_addrs(info, &to) ?: tcp_mig_parse_ports(info, &to);
	if (err)
		return err;
	sk = tcp_mig_find(info);
	if (IS_ERR(sk))
		return PTR_ERR(sk);
	err = tcp_mig_move(sk, NULL, &to, &unsent);
	sock_gen_put(sk);
	return err;
}

static int tcp_mig_reply_counts(struct genl_info *info, u8 cmd, u32 count,
				u32 failed, int error)
{
	struct sk_buff *msg = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	void *hdr;

	if (!msg)
		return -ENOMEM;
	hdr = genlmsg_put_reply(msg, info, &tcp_mig_family, 0, cmd);
	if (!hdr || nla_put_u32(msg, A(COUNT), count) ||
	    (failed && nla_put_u32(msg, A(FAILED), failed)) ||
	    (error && nla_put_u32(msg, A(ERROR), error))) {
		nlmsg_free(msg);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, hdr);
	return genlmsg_reply(msg, info);
}

int tcp_migrate_nl_migrate_all_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct net *net = genl_info_net(info);
	int i, n, err, first = 0, failed = 0, gone = 0, left = MIG_PACE_ALL;
	struct tcp_mig_filter f;
	struct tcp_mig_target to;
	struct sock **v;
	bool unsent;

	err = tcp_mig_parse_filter(info, &f) ?: tcp_mig_parse_addrs(info, &to);
	if (err)
		return err;
	if (!f.by_laddr && !f.by_raddr) {
		GENL_SET_ERR_MSG(info, "an old local or a remote address is needed");
		return -EINVAL;
	}
	n = tcp_mig_collect(net, &f, &v);
	if (n < 0)
		return n;
	for (i = 0; i < n; i++) {
		err = tcp_mig_move(v[i], &f, &to, &unsent);
		if (err == -ENOENT) {
			gone++;		/* it ended, or somebody else moved it */
		} else if (err) {
			failed++;
			first = first ?: -err;
		} else if (unsent) {
			tcp_mig_pace(v[i], &left);
		}
		sock_gen_put(v[i]);
		cond_resched();
	}
	kvfree(v);
	return tcp_mig_reply_counts(info, TCP_MIGRATE_CMD_MIGRATE_ALL,
				    n - failed - gone, failed, first);
}

int tcp_migrate_nl_abort_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct sock *sk = tcp_mig_find(info);
	int err;

	if (IS_ERR(sk))
		return PTR_ERR(sk);
	lock_sock(sk);
	if (tcp_mig(sk))
		tcp_mig(sk)->reason = TCP_MIGRATE_REASON_ABORTED;
	release_sock(sk);
	err = tcp_abort(sk, ECONNRESET);
	sock_gen_put(sk);
	return err;
}

/* What was begun with a key that goes must not be finished with its zeroes. */
static void tcp_mig_forget_key(struct tcp_migrate *mig, u8 id)
{
	int i;

	for (i = 0; i < TCPMIG_PENDS; i++) {
		if (mig->pend[i].key_id == id)
			mig->pend[i].valid = 0;
	}
	if (mig->ack_key == id)
		mig->ack_valid = 0;
	if (mig->own.peer_key_id == id)
		mig->own.spliced = 0;
}

/* Has a request of ours been made, or answered, with it? */
static bool tcp_mig_key_busy(const struct tcp_mig_try *own, u8 id)
{
	return own->valid && (own->key_id == id ||
			      (own->unbound && own->peer_key_id == id));
}

/* One that is in use cannot become another: the peer would not know when. */
static int tcp_mig_key_add(struct tcp_migrate *mig, u8 id, const u8 *secret)
{
	u8 key[TCPMIG_KEY_LEN];
	int err = 0;

	if (!mig->keys) {
		mig->keys = kzalloc(TCPMIG_KEYS * TCPMIG_KEY_LEN, GFP_KERNEL);
		if (!mig->keys)
			return -ENOMEM;
	}
	tcp_mig_key_strong(key, secret, tcp_mig_key_active(mig),
			   tcp_mig_key_passive(mig));
	if ((mig->key_mask & BIT(id)) &&
	    crypto_memneq(mig->keys[id], key, sizeof(key))) {
		if (mig->key_send == id || mig->key_only == id ||
		    tcp_mig_key_busy(&mig->own, id))
			err = -EBUSY;
		else
			tcp_mig_forget_key(mig, id);
	}
	if (!err) {
		memcpy(mig->keys[id], key, sizeof(key));
		mig->key_mask |= BIT(id);
	}
	memzero_explicit(key, sizeof(key));
	return err;
}

/* Two phases: add at both ends, then promote, then demand. */
static int tcp_mig_key_change(struct tcp_migrate *mig, u8 id, u8 op,
			      const u8 *secret)
{
	if (op == TCP_MIGRATE_KEY_OP_ADD)
		return tcp_mig_key_add(mig, id, secret);
	if (!(mig->key_mask & BIT(id)))
		return -ENOKEY;
	if (op == TCP_MIGRATE_KEY_OP_REMOVE && tcp_mig_key_busy(&mig->own, id))
		return -EBUSY;
	switch (op) {
	case TCP_MIGRATE_KEY_OP_PROMOTE:
		mig->key_send = id;
		break;
	case TCP_MIGRATE_KEY_OP_EXCLUSIVE:
		mig->key_send = id;
		mig->key_only = id;
		break;
	case TCP_MIGRATE_KEY_OP_REMOVE:
		tcp_mig_forget_key(mig, id);
		mig->key_mask &= ~BIT(id);
		memzero_explicit(mig->keys[id], TCPMIG_KEY_LEN);
		if (mig->key_send == id)
			mig->key_send = 0;
		if (mig->key_only == id)
			mig->key_only = 0;
		break;
	}
	return 0;
}

static int tcp_mig_key_sk(struct sock *sk, const struct tcp_mig_filter *f,
			  u8 id, u8 op, const u8 *secret)
{
	int err = -ENOENT;

	lock_sock(sk);
	if (tcp_mig(sk) && tcp_mig(sk)->agreed &&
	    tcp_mig_match(sk, tcp_mig(sk), f))
		err = tcp_mig_key_change(tcp_mig(sk), id, op, secret);
	release_sock(sk);
	return err;
}

static int tcp_mig_key_parse(struct genl_info *info, u8 *id, u8 *op,
			     const u8 **secret)
{
	struct nlattr **a = info->attrs;

	if (GENL_REQ_ATTR_CHECK(info, A(KEY_ID)) ||
	    GENL_REQ_ATTR_CHECK(info, A(KEY_OP)))
		return -EINVAL;
	*id = nla_get_u8(a[A(KEY_ID)]);
	*op = nla_get_u8(a[A(KEY_OP)]);
	*secret = NULL;
	if (!*id) {
		NL_SET_ERR_MSG_ATTR(info->extack, a[A(KEY_ID)],
				    "key 0 is the in-band key");
		return -EINVAL;
	}
	if (*op == TCP_MIGRATE_KEY_OP_ADD) {
		if (GENL_REQ_ATTR_CHECK(info, A(KEY)))
			return -EINVAL;
		*secret = nla_data(a[A(KEY)]);
	}
	return 0;
}

static int tcp_mig_nl_key(struct genl_info *info)
{
	struct tcp_mig_filter f;
	int i, n, err, first = 0, failed = 0;
	const u8 *secret;
	struct sock **v;
	u8 id, op;

	err = tcp_mig_key_parse(info, &id, &op, &secret) ?:
	      tcp_mig_parse_name(info, &f);
	if (err)
		return err;
	if (!tcp_mig_names_one(&f) && !f.by_raddr) {
		GENL_SET_ERR_MSG(info, "name a connection or a remote address");
		return -EINVAL;
	}
	n = tcp_mig_collect(genl_info_net(info), &f, &v);
	if (n < 0)
		return n;
	for (i = 0; i < n; i++) {
		err = tcp_mig_key_sk(v[i], &f, id, op, secret);
		if (err) {
			failed++;
			first = first ?: -err;
		}
		sock_gen_put(v[i]);
	}
	kvfree(v);
	if (!n || failed == n)
		return first ? -first : -ENOENT;
	return tcp_mig_reply_counts(info, TCP_MIGRATE_CMD_KEY, n - failed,
				    failed, first);
}

int tcp_migrate_nl_key_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *secret = info->attrs[A(KEY)];
	int err = tcp_mig_nl_key(info);

	if (secret)
		memzero_explicit(nla_data(secret), nla_len(secret));
	return err;
}

int tcp_migrate_nl_export_doit(struct sk_buff *skb, struct genl_info *info)
{
	u8 key[TCPMIG_KEY_LEN], out[TCPMIG_KEY_LEN];
	struct sock *sk = tcp_mig_find(info);
	struct sk_buff *msg;
	int err = -ENOENT;
	void *hdr;

	if (IS_ERR(sk))
		return PTR_ERR(sk);
	lock_sock(sk);
	if (tcp_mig(sk) && tcp_mig(sk)->agreed) {
		tcp_mig_key(tcp_mig(sk), 0, key);
		tcp_mig_exporter(out, key);
		memzero_explicit(key, sizeof(key));
		err = 0;
	}
	release_sock(sk);
	msg = err ? NULL : genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	if (!err && !msg)
		err = -ENOMEM;
	if (!err) {
		hdr = genlmsg_put_reply(msg, info, &tcp_mig_family, 0,
					TCP_MIGRATE_CMD_EXPORT);
		err = nla_put_u64_64bit(msg, A(COOKIE), sock_gen_cookie(sk),
					A(PAD)) ?:
		      nla_put(msg, A(EXPORTER), sizeof(out), out);
		genlmsg_end(msg, hdr);
		if (err)
			nlmsg_free(msg);
		else
			err = genlmsg_reply(msg, info);
	}
	memzero_explicit(out, sizeof(out));
	sock_gen_put(sk);
	return err;
}

static const struct genl_multicast_group tcp_mig_mcgrps[] = {
	[TCP_MIGRATE_NLGRP_EVENTS] = { .name = TCP_MIGRATE_MCGRP_EVENTS },
};

static struct genl_family tcp_mig_family __ro_after_init = {
	.name		= TCP_MIGRATE_FAMILY_NAME,
	.version	= TCP_MIGRATE_FAMILY_VERSION,
	.netnsok	= true,
	.parallel_ops	= true,
	.module		= THIS_MODULE,
	.split_ops	= tcp_migrate_nl_ops,
	.n_split_ops	= ARRAY_SIZE(tcp_migrate_nl_ops),
	.mcgrps		= tcp_mig_mcgrps,
	.n_mcgrps	= ARRAY_SIZE(tcp_mig_mcgrps),
	.resv_start_op	= TCP_MIGRATE_CMD_GET,
};

/* Generic netlink comes up after TCP (subsys_initcall). */
static int __init tcp_mig_nl_register(void)
{
	return genl_register_family(&tcp_mig_family);
}
late_initcall(tcp_mig_nl_register);
