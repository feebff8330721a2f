// SPDX-License-Identifier: GPL-2.0
/* TCP migration: finding a connection by token, by a tuple it has left or is
 * about to take, and what remains of it when it is gone.
 *
 * - Token table: every migratable connection, by the token that the peer puts
 *   into its Migrate-Requests.
 * - Alias table: tuples beside the one the socket is hashed on. OLD keeps late
 *   segments from meeting a closed port, whose RST would be exact; NEW lets
 *   what answers our request without an option of ours reach the socket. A
 *   tuple that the peer only asks from needs none: what proves something names
 *   the token.
 * - Tombstones: the reset key of a connection that ended otherwise than by two
 *   acknowledged FINs, so that the RST which answers the peer's next segment,
 *   or its Migrate-Request from anywhere, proves its origin. Bounded per
 *   namespace and in time.
 *
 * Locking: see tcp_migrate.h.
 */
#include <linux/rhashtable.h>
#include <linux/workqueue.h>

#include "tcp_migrate.h"

/* How long a tuple is known after the connection has left it, or after the
 * last handshake segment.
 */
#define MIG_ALIAS_TIME	(60 * HZ)
#define MIG_ALIAS_MAX	8	/* per connection; the oldest goes */

#define MIG_TOMB_BUDGET	1024	/* freed in one go */

struct tcp_mig_alias_key {
	struct net		*net;
	struct tcp_mig_tuple	t;
	u32			pad;	/* zero: the key is compared as bytes */
};

struct tcp_mig_alias {
	struct rhash_head	node;
	struct tcp_mig_alias_key key;
	struct hlist_node	list;	/* tcp_migrate.aliases */
	struct tcp_migrate	*mig;
	unsigned long		expires;
	u8			kind;	/* enum tcp_mig_alias_kind */
	struct rcu_head		rcu;
};

struct tcp_mig_token_key {
	struct net	*net;
	u32		token;
};

struct tcp_mig_tomb {
	struct rhash_head	node;
	struct tcp_mig_alias_key key;
	struct tcp_mig_id	id;	/* its net is set while it is hashed */
	struct list_head	list;	/* tcp_mig_net.tomb_list */
	unsigned long		born;
	u8			secret[TCPMIG_KEY_LEN];
	u8			key_id;
	u8			role;
	struct rcu_head		rcu;
};

static DEFINE_SPINLOCK(tcp_mig_table_lock);
static struct rhashtable tcp_mig_tokens;
static struct rhashtable tcp_mig_aliases;
static struct rhashtable tcp_mig_tomb_table;
static struct rhashtable tcp_mig_tomb_tokens;

static u32 tcp_mig_token_hash(const void *data, u32 len, u32 seed)
{
	const struct tcp_mig_token_key *k = data;

	return jhash_2words(k->token, net_hash_mix(k->net), seed);
}

static u32 tcp_mig_id_hash(const void *data, u32 len, u32 seed)
{
	const struct tcp_mig_id *id = data;

	return jhash_2words(id->token, net_hash_mix(id->net), seed);
}

static int tcp_mig_id_cmp(struct rhashtable_compare_arg *arg, const void *obj)
{
	const struct tcp_mig_token_key *k = arg->key;
	const struct tcp_mig_id *id = obj;

	return id->token != k->token || !net_eq(id->net, k->net);
}

static u32 tcp_mig_tomb_hash(const void *data, u32 len, u32 seed)
{
	const struct tcp_mig_tomb *tomb = data;

	return tcp_mig_id_hash(&tomb->id, len, seed);
}

static int tcp_mig_tomb_cmp(struct rhashtable_compare_arg *arg, const void *obj)
{
	const struct tcp_mig_tomb *tomb = obj;

	return tcp_mig_id_cmp(arg, &tomb->id);
}

static const struct rhashtable_params tcp_mig_token_params = {
	.head_offset = offsetof(struct tcp_mig_id, node),
	.key_len = sizeof(struct tcp_mig_token_key),
	.hashfn = tcp_mig_token_hash,
	.obj_hashfn = tcp_mig_id_hash,
	.obj_cmpfn = tcp_mig_id_cmp,
	.automatic_shrinking = true,
};

static const struct rhashtable_params tcp_mig_alias_params = {
	.head_offset = offsetof(struct tcp_mig_alias, node),
	.key_offset = offsetof(struct tcp_mig_alias, key),
	.key_len = sizeof(struct tcp_mig_alias_key),
	.automatic_shrinking = true,
};

static const struct rhashtable_params tcp_mig_tomb_params = {
	.head_offset = offsetof(struct tcp_mig_tomb, node),
	.key_offset = offsetof(struct tcp_mig_tomb, key),
	.key_len = sizeof(struct tcp_mig_alias_key),
	.automatic_shrinking = true,
};

static const struct rhashtable_params tcp_mig_tomb_token_params = {
	.head_offset = offsetof(struct tcp_mig_tomb, id.node),
	.key_len = sizeof(struct tcp_mig_token_key),
	.hashfn = tcp_mig_token_hash,
	.obj_hashfn = tcp_mig_tomb_hash,
	.obj_cmpfn = tcp_mig_tomb_cmp,
	.automatic_shrinking = true,
};

static void tcp_mig_mkkey(struct tcp_mig_alias_key *key, struct net *net,
			  const struct tcp_mig_tuple *t)
{
	memset(key, 0, sizeof(*key));
	key->net = net;
	key->t = *t;
}

/* Reference to the socket of an object found under RCU, or NULL. */
static struct sock *tcp_mig_get_sock(const struct tcp_migrate *mig)
{
	struct sock *sk = mig->sk;

	if (!refcount_inc_not_zero(&sk->sk_refcnt))
		return NULL;
	if (rcu_access_pointer(tcp_sk(sk)->mig) == mig)
		return sk;
	sock_gen_put(sk);
	return NULL;
}

int tcp_mig_token_insert(struct tcp_migrate *mig)
{
	struct tcp_mig_token_key k = {
		.net = mig->id.net, .token = mig->id.token,
	};
	int err;

	err = rhashtable_lookup_insert_key(&tcp_mig_tokens, &k, &mig->id.node,
					   tcp_mig_token_params);
	if (!err)
		mig->hashed = 1;
	return err;
}

void tcp_mig_token_remove(struct tcp_migrate *mig)
{
	if (!mig->hashed)
		return;
	rhashtable_remove_fast(&tcp_mig_tokens, &mig->id.node,
			       tcp_mig_token_params);
	mig->hashed = 0;
}

/* Return: the socket with a reference, or NULL. */
struct sock *tcp_mig_token_lookup(struct net *net, u32 token)
{
	struct tcp_mig_token_key k = { .net = net, .token = token };
	struct tcp_migrate *mig;
	struct sock *sk = NULL;

	rcu_read_lock();
	mig = rhashtable_lookup(&tcp_mig_tokens, &k, tcp_mig_token_params);
	if (mig)
		sk = tcp_mig_get_sock(mig);
	rcu_read_unlock();
	return sk;
}

/* Walk all migratable connections of all namespaces; the caller filters. */
void tcp_mig_walk_enter(struct rhashtable_iter *iter)
{
	rhashtable_walk_enter(&tcp_mig_tokens, iter);
}

/* There may be a million connections, and anybody may ask. */
void tcp_mig_walk_rest(struct rhashtable_iter *iter, int *passed)
{
	if (++*passed % 256)
		return;
	rhashtable_walk_stop(iter);
	cond_resched();
	rhashtable_walk_start(iter);
}

/**
 * tcp_mig_walk_next() - the next connection of a walk
 * @iter: between rhashtable_walk_start() and _stop()
 * @net: namespace
 *
 * A resize of the table may show a connection twice.
 *
 * Return: a socket with a reference, or NULL at the end.
 */
struct sock *tcp_mig_walk_next(struct rhashtable_iter *iter, struct net *net)
{
	struct tcp_migrate *mig;
	struct sock *sk;
	int passed = 0;

	while ((mig = rhashtable_walk_next(iter))) {
		if (IS_ERR(mig))	/* -EAGAIN: resized, goes on */
			continue;
		if (!net_eq(mig->id.net, net)) {
			tcp_mig_walk_rest(iter, &passed);
			continue;
		}
		sk = tcp_mig_get_sock(mig);
		if (sk)
			return sk;
	}
	return NULL;
}

/* tcp_mig_table_lock held */
static void __tcp_mig_alias_free(struct tcp_mig_alias *a)
{
	rhashtable_remove_fast(&tcp_mig_aliases, &a->node,
			       tcp_mig_alias_params);
	hlist_del(&a->list);
	kfree_rcu(a, rcu);
}

/* Make room for one more; tcp_mig_table_lock held. The list has the newest
 * first, so the last one seen is the oldest.
 */
static void tcp_mig_alias_trim(struct tcp_migrate *mig)
{
	struct tcp_mig_alias *a, *oldest = NULL;
	struct hlist_node *tmp;
	int n = 0;

	hlist_for_each_entry_safe(a, tmp, &mig->aliases, list) {
		if (time_after(jiffies, a->expires)) {
			__tcp_mig_alias_free(a);
			continue;
		}
		oldest = a;
		n++;
	}
	if (n >= MIG_ALIAS_MAX)
		__tcp_mig_alias_free(oldest);
}

/**
 * tcp_mig_alias_add() - let segments of one more tuple reach the connection
 * @mig: the connection
 * @t: the tuple
 * @kind: why
 *
 * An OLD alias of another connection gives way. The caller holds the socket
 * lock and runs with BH disabled or in process context.
 *
 * Return: 0, -ENOMEM, or -EADDRINUSE if another connection waits on @t.
 */
int tcp_mig_alias_add(struct tcp_migrate *mig, const struct tcp_mig_tuple *t,
		      enum tcp_mig_alias_kind kind)
{
	struct tcp_mig_alias_key key;
	struct tcp_mig_alias *a, *new;
	int err = 0;

	new = kzalloc(sizeof(*new), GFP_ATOMIC | __GFP_NOWARN);
	if (!new)
		return -ENOMEM;
	tcp_mig_mkkey(&key, mig->id.net, t);

	spin_lock_bh(&tcp_mig_table_lock);
	a = rhashtable_lookup_fast(&tcp_mig_aliases, &key,
				   tcp_mig_alias_params);
	if (a && a->mig == mig) {
		WRITE_ONCE(a->kind, kind);
		WRITE_ONCE(a->expires, jiffies + MIG_ALIAS_TIME);
		goto out;
	}
	if (a && a->kind != MIG_ALIAS_OLD && time_before(jiffies, a->expires)) {
		err = -EADDRINUSE;
		goto out;
	}
	if (a)
		__tcp_mig_alias_free(a);
	tcp_mig_alias_trim(mig);
	new->key = key;
	new->mig = mig;
	new->kind = kind;
	new->expires = jiffies + MIG_ALIAS_TIME;
	err = rhashtable_insert_fast(&tcp_mig_aliases, &new->node,
				     tcp_mig_alias_params);
	if (!err) {
		hlist_add_head(&new->list, &mig->aliases);
		new = NULL;
	}
out:
	spin_unlock_bh(&tcp_mig_table_lock);
	kfree(new);
	return err;
}

/* A tuple that was asked for in vain: the peer may have taken it, or it was
 * ours before, so that what still comes there is no stranger's.
 */
void tcp_mig_alias_retire(struct tcp_migrate *mig,
			  const struct tcp_mig_tuple *t)
{
	struct tcp_mig_alias_key key;
	struct tcp_mig_alias *a;

	tcp_mig_mkkey(&key, mig->id.net, t);
	spin_lock_bh(&tcp_mig_table_lock);
	a = rhashtable_lookup_fast(&tcp_mig_aliases, &key,
				   tcp_mig_alias_params);
	if (a && a->mig == mig)
		WRITE_ONCE(a->kind, MIG_ALIAS_OLD);
	spin_unlock_bh(&tcp_mig_table_lock);
}

void tcp_mig_alias_del(struct tcp_migrate *mig, const struct tcp_mig_tuple *t)
{
	struct tcp_mig_alias_key key;
	struct tcp_mig_alias *a;

	tcp_mig_mkkey(&key, mig->id.net, t);
	spin_lock_bh(&tcp_mig_table_lock);
	a = rhashtable_lookup_fast(&tcp_mig_aliases, &key,
				   tcp_mig_alias_params);
	if (a && a->mig == mig)
		__tcp_mig_alias_free(a);
	spin_unlock_bh(&tcp_mig_table_lock);
}

void tcp_mig_alias_flush(struct tcp_migrate *mig)
{
	struct tcp_mig_alias *a;
	struct hlist_node *tmp;

	if (hlist_empty(&mig->aliases))
		return;
	spin_lock_bh(&tcp_mig_table_lock);
	hlist_for_each_entry_safe(a, tmp, &mig->aliases, list)
		__tcp_mig_alias_free(a);
	spin_unlock_bh(&tcp_mig_table_lock);
}

/* @kind: set if not NULL. Return: the socket with a reference, or NULL. */
struct sock *tcp_mig_alias_lookup(struct net *net,
				  const struct tcp_mig_tuple *t, u8 *kind)
{
	struct tcp_mig_alias_key key;
	struct tcp_mig_alias *a;
	struct sock *sk = NULL;

	tcp_mig_mkkey(&key, net, t);
	rcu_read_lock();
	a = rhashtable_lookup(&tcp_mig_aliases, &key, tcp_mig_alias_params);
	if (a && time_before(jiffies, READ_ONCE(a->expires))) {
		if (kind)
			*kind = READ_ONCE(a->kind);
		sk = tcp_mig_get_sock(a->mig);
	}
	rcu_read_unlock();
	return sk;
}

static void tcp_mig_tomb_rcu(struct rcu_head *rcu)
{
	kfree_sensitive(container_of(rcu, struct tcp_mig_tomb, rcu));
}

/* tcp_mig_table_lock held */
static void __tcp_mig_tomb_free(struct tcp_mig_tomb *tomb)
{
	rhashtable_remove_fast(&tcp_mig_tomb_table, &tomb->node,
			       tcp_mig_tomb_params);
	if (tomb->id.net)
		rhashtable_remove_fast(&tcp_mig_tomb_tokens, &tomb->id.node,
				       tcp_mig_tomb_token_params);
	list_del(&tomb->list);
	atomic_dec(&tcp_mig_net(tomb->key.net)->tombs);
	call_rcu(&tomb->rcu, tcp_mig_tomb_rcu);
}

static bool tcp_mig_tomb_expired(const struct tcp_mig_net *tn,
				 const struct tcp_mig_tomb *tomb)
{
	unsigned long age = jiffies - tomb->born;

	return age >= (unsigned long)READ_ONCE(tn->tombstone_time) * HZ;
}

/* Free those that have expired, or all; at most so many that the lock is not
 * held for long. Return: how many there are still.
 */
static int tcp_mig_tomb_trim(struct tcp_mig_net *tn, bool all)
{
	struct tcp_mig_tomb *tomb, *tmp;
	int budget = MIG_TOMB_BUDGET;

	spin_lock_bh(&tcp_mig_table_lock);
	list_for_each_entry_safe(tomb, tmp, &tn->tomb_list, list) {
		if (!budget-- || !(all || tcp_mig_tomb_expired(tn, tomb)))
			break;
		__tcp_mig_tomb_free(tomb);
	}
	spin_unlock_bh(&tcp_mig_table_lock);
	return atomic_read(&tn->tombs);
}

static void tcp_mig_tomb_gc(struct work_struct *work)
{
	struct tcp_mig_net *tn = container_of(to_delayed_work(work),
					      struct tcp_mig_net, tomb_work);

	if (tcp_mig_tomb_trim(tn, false))
		schedule_delayed_work(&tn->tomb_work, HZ / 4);
}

void tcp_mig_tomb_init(struct tcp_mig_net *tn)
{
	INIT_LIST_HEAD(&tn->tomb_list);
	INIT_DELAYED_WORK(&tn->tomb_work, tcp_mig_tomb_gc);
}

/* The namespace ends, and has no sockets any more. */
void tcp_mig_tomb_flush(struct tcp_mig_net *tn)
{
	cancel_delayed_work_sync(&tn->tomb_work);
	while (tcp_mig_tomb_trim(tn, true))
		cond_resched();
}

/* The connection ends; its tuple may still get segments of the peer. */
void tcp_mig_tomb_add(struct tcp_migrate *mig, const struct tcp_mig_tuple *t)
{
	struct tcp_mig_net *tn = tcp_mig_net(mig->id.net);
	struct tcp_mig_token_key token = {
		.net = mig->id.net, .token = mig->id.token,
	};
	struct tcp_mig_tomb *tomb, *old;

	if (atomic_read(&tn->tombs) >= READ_ONCE(tn->tombstone_max))
		goto overflow;
	tomb = kzalloc(sizeof(*tomb), GFP_ATOMIC | __GFP_NOWARN |
				      __GFP_ACCOUNT);
	if (!tomb)
		goto overflow;
	tcp_mig_mkkey(&tomb->key, mig->id.net, t);
	tomb->role = mig->role;
	tomb->key_id = mig->key_send;
	tcp_mig_key(mig, mig->key_send, tomb->secret);
	tomb->born = jiffies;

	spin_lock_bh(&tcp_mig_table_lock);
	old = rhashtable_lookup_fast(&tcp_mig_tomb_table, &tomb->key,
				     tcp_mig_tomb_params);
	if (old)
		__tcp_mig_tomb_free(old);
	if (rhashtable_insert_fast(&tcp_mig_tomb_table, &tomb->node,
				   tcp_mig_tomb_params)) {
		spin_unlock_bh(&tcp_mig_table_lock);
		kfree_sensitive(tomb);
		goto overflow;
	}
	list_add_tail(&tomb->list, &tn->tomb_list);
	tomb->id.token = mig->id.token;
	tomb->id.net = mig->id.net;
	if (rhashtable_lookup_insert_key(&tcp_mig_tomb_tokens, &token,
					 &tomb->id.node,
					 tcp_mig_tomb_token_params))
		tomb->id.net = NULL;	/* taken: known by its tuple alone */
	atomic_inc(&tn->tombs);
	spin_unlock_bh(&tcp_mig_table_lock);
	MIG_INC(mig->id.net, TOMBSTONES);
	schedule_delayed_work(&tn->tomb_work, HZ);
	return;
overflow:
	MIG_INC(mig->id.net, TOMBSTONEOVERFLOW);
}

/* Under RCU. A request names the connection, wherever it comes from. */
static struct tcp_mig_tomb *tcp_mig_tomb_lookup(struct net *net,
						const struct sk_buff *skb)
{
	struct tcp_mig_token_key token = { .net = net };
	struct tcp_mig_alias_key key;
	struct tcp_mig_tuple t;
	struct tcp_mig_opt opt;

	if (tcp_mig_parse(tcp_hdr(skb), &opt) &&
	    (opt.sub == TCPMIG_SUB_MREQ || opt.sub == TCPMIG_SUB_CONFIRM)) {
		token.token = opt.token;
		return rhashtable_lookup(&tcp_mig_tomb_tokens, &token,
					 tcp_mig_tomb_token_params);
	}
	tcp_mig_skb_tuple(skb, &t);
	tcp_mig_mkkey(&key, net, &t);
	return rhashtable_lookup(&tcp_mig_tomb_table, &key,
				 tcp_mig_tomb_params);
}

/**
 * tcp_mig_tomb_sign() - prove that an RST comes from where a connection was
 * @net: namespace
 * @skb: the segment that is answered
 * @seq: sequence number of the RST, host order
 * @opt: TCPMIG_LEN_RST bytes for the option
 *
 * Return: true if the segment was one of a connection that is known as dead.
 */
bool tcp_mig_tomb_sign(struct net *net, const struct sk_buff *skb, u32 seq,
		       u8 *opt)
{
	struct tcp_mig_tomb *tomb;

	if (!atomic_read(&tcp_mig_net(net)->tombs))
		return false;
	rcu_read_lock();
	tomb = tcp_mig_tomb_lookup(net, skb);
	if (tomb && tcp_mig_tomb_expired(tcp_mig_net(net), tomb))
		tomb = NULL;
	if (tomb)
		tcp_mig_put_rst(opt, tomb->key_id |
				(tomb->role ? TCPMIG_F_ROLE : 0),
				tcp_mig_mac_rst(tomb->secret, tomb->role, seq));
	rcu_read_unlock();
	return tomb;
}

int __init tcp_mig_table_init(void)
{
	int err;

	BUILD_BUG_ON(offsetof(struct tcp_migrate, id) != 0);
	err = rhashtable_init(&tcp_mig_tokens, &tcp_mig_token_params);
	if (!err)
		err = rhashtable_init(&tcp_mig_aliases, &tcp_mig_alias_params);
	if (!err)
		err = rhashtable_init(&tcp_mig_tomb_table,
				      &tcp_mig_tomb_params);
	if (!err)
		err = rhashtable_init(&tcp_mig_tomb_tokens,
				      &tcp_mig_tomb_token_params);
	return err;
}
