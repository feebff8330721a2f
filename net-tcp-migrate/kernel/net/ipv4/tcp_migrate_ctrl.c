// SPDX-License-Identifier: GPL-2.0
/* TCP migration: per-namespace settings and counters, destinations whose path
 * drops our SYNs, socket options, inet_diag.
 */
#include <linux/bpf-cgroup.h>
#include <linux/inet_diag.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/sysctl.h>
#include <net/ip.h>
#include <net/netlink.h>
#include <net/snmp.h>
#include <net/tcp.h>

#include "tcp_migrate.h"

unsigned int tcp_mig_net_id __read_mostly;
struct kmem_cache *tcp_mig_cache __read_mostly;

static const struct snmp_mib tcp_mig_mib_list[] = {
	SNMP_MIB_ITEM("PermitSent", MIG_MIB_PERMITSENT),
	SNMP_MIB_ITEM("PermitRcvd", MIG_MIB_PERMITRCVD),
	SNMP_MIB_ITEM("PermitOmitted", MIG_MIB_PERMITOMITTED),
	SNMP_MIB_ITEM("FallbackHit", MIG_MIB_FALLBACKHIT),
	SNMP_MIB_ITEM("EchoMissing", MIG_MIB_ECHOMISSING),
	SNMP_MIB_ITEM("EchoBad", MIG_MIB_ECHOBAD),
	SNMP_MIB_ITEM("Agreed", MIG_MIB_AGREED),
	SNMP_MIB_ITEM("TokenCollision", MIG_MIB_TOKENCOLLISION),
	SNMP_MIB_ITEM("NoMem", MIG_MIB_NOMEM),
	SNMP_MIB_ITEM("MsynSent", MIG_MIB_MSYNSENT),
	SNMP_MIB_ITEM("MsynRetrans", MIG_MIB_MSYNRETRANS),
	SNMP_MIB_ITEM("MsynRcvd", MIG_MIB_MSYNRCVD),
	SNMP_MIB_ITEM("AnswerSent", MIG_MIB_MANSSENT),
	SNMP_MIB_ITEM("AnswerRcvd", MIG_MIB_MANSRCVD),
	SNMP_MIB_ITEM("ConfirmRcvd", MIG_MIB_CONFIRMRCVD),
	SNMP_MIB_ITEM("ConfirmMissing", MIG_MIB_CONFIRMMISSING),
	SNMP_MIB_ITEM("Commit", MIG_MIB_COMMIT),
	SNMP_MIB_ITEM("CommitPassive", MIG_MIB_COMMITPASSIVE),
	SNMP_MIB_ITEM("TrialFailed", MIG_MIB_TRIALFAILED),
	SNMP_MIB_ITEM("NoToken", MIG_MIB_NOTOKEN),
	SNMP_MIB_ITEM("BadMac", MIG_MIB_BADMAC),
	SNMP_MIB_ITEM("BadReqNo", MIG_MIB_BADREQNO),
	SNMP_MIB_ITEM("BadSeq", MIG_MIB_BADSEQ),
	SNMP_MIB_ITEM("BadRole", MIG_MIB_BADROLE),
	SNMP_MIB_ITEM("BadKey", MIG_MIB_BADKEY),
	SNMP_MIB_ITEM("BadState", MIG_MIB_BADSTATE),
	SNMP_MIB_ITEM("BadConfirm", MIG_MIB_BADCONFIRM),
	SNMP_MIB_ITEM("BadAnswer", MIG_MIB_BADANSWER),
	SNMP_MIB_ITEM("BadTuple", MIG_MIB_BADTUPLE),
	SNMP_MIB_ITEM("NotMigrate", MIG_MIB_NOTMIGRATE),
	SNMP_MIB_ITEM("Foreign", MIG_MIB_FOREIGN),
	SNMP_MIB_ITEM("ReplyLimit", MIG_MIB_REPLYLIMIT),
	SNMP_MIB_ITEM("RstDeferred", MIG_MIB_RSTDEFERRED),
	SNMP_MIB_ITEM("RstHint", MIG_MIB_RSTHINT),
	SNMP_MIB_ITEM("RstAuth", MIG_MIB_RSTAUTH),
	SNMP_MIB_ITEM("RstAuthBad", MIG_MIB_RSTAUTHBAD),
	SNMP_MIB_ITEM("RstSigned", MIG_MIB_RSTSIGNED),
	SNMP_MIB_ITEM("Wait", MIG_MIB_WAIT),
	SNMP_MIB_ITEM("WaitAlive", MIG_MIB_WAITALIVE),
	SNMP_MIB_ITEM("WaitTimeout", MIG_MIB_WAITTIMEOUT),
	SNMP_MIB_ITEM("WaitOverflow", MIG_MIB_WAITOVERFLOW),
	SNMP_MIB_ITEM("AckClamped", MIG_MIB_ACKCLAMPED),
	SNMP_MIB_ITEM("TupleInUse", MIG_MIB_TUPLEINUSE),
	SNMP_MIB_ITEM("NoRoute", MIG_MIB_NOROUTE),
	SNMP_MIB_ITEM("OldPath", MIG_MIB_OLDPATH),
	SNMP_MIB_ITEM("Tombstones", MIG_MIB_TOMBSTONES),
	SNMP_MIB_ITEM("TombstoneOverflow", MIG_MIB_TOMBSTONEOVERFLOW),
	SNMP_MIB_SENTINEL
};

static unsigned long tcp_mig_fold(struct tcp_mig_mib_s __percpu *mib, int i)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu_ptr(mib, cpu)->mibs[i];
	return sum;
}

/* The "TcpMigrate:" lines of /proc/net/netstat. */
void tcp_migrate_seq_show(struct seq_file *seq)
{
	struct tcp_mig_net *tn = tcp_mig_net(seq->private);
	int i;

	seq_puts(seq, "TcpMigrate:");
	for (i = 0; tcp_mig_mib_list[i].name; i++)
		seq_printf(seq, " %s", tcp_mig_mib_list[i].name);
	seq_puts(seq, "\nTcpMigrate:");
	for (i = 0; tcp_mig_mib_list[i].name; i++)
		seq_printf(seq, " %lu",
			   tcp_mig_fold(tn->mib, tcp_mig_mib_list[i].entry));
	seq_putc(seq, '\n');
}

/* ---- Destinations whose path drops SYNs with PERMIT ---- */

static u32 tcp_mig_fallback_hash(const struct sock *sk)
{
	u32 h = jhash2((__force const u32 *)sk->sk_v6_daddr.s6_addr32, 4,
		       net_hash_mix(sock_net(sk)));

	return h ?: 1;
}

bool tcp_mig_fallback_hit(const struct sock *sk)
{
	u32 h = tcp_mig_fallback_hash(sk);
	const struct tcp_mig_fallback *f;

	f = &tcp_mig_net(sock_net(sk))->fallback[h % TCPMIG_FALLBACK_SIZE];
	return READ_ONCE(f->hash) == h &&
	       before(tcp_jiffies32, READ_ONCE(f->until));
}

void tcp_mig_fallback_add(const struct sock *sk)
{
	struct tcp_mig_net *tn = tcp_mig_net(sock_net(sk));
	u32 h = tcp_mig_fallback_hash(sk);
	int secs = READ_ONCE(tn->fallback_time);
	struct tcp_mig_fallback *f;

	if (!secs)
		return;
	f = &tn->fallback[h % TCPMIG_FALLBACK_SIZE];
	WRITE_ONCE(f->until, tcp_jiffies32 + secs * HZ);
	WRITE_ONCE(f->hash, h);
}

/* ---- sysctl net.tcp_migrate.* ---- */

static int tcp_mig_sysctl_enabled(const struct ctl_table *table, int write,
				  void *buffer, size_t *lenp, loff_t *ppos)
{
	int err = proc_dou8vec_minmax(table, write, buffer, lenp, ppos);

	if (!err && write && *(u8 *)table->data)
		static_branch_enable(&tcp_migrate_key);
	return err;
}

static int tcp_mig_secs_max = 86400;
static int tcp_mig_count_max = 1 << 20;

#define MIG_OFF(field)	((void *)offsetof(struct tcp_mig_net, field))

static const struct ctl_table tcp_mig_sysctls[] = {
	{
		.procname	= "enabled",
		.data		= MIG_OFF(enabled),
		.maxlen		= sizeof(u8),
		.mode		= 0644,
		.proc_handler	= tcp_mig_sysctl_enabled,
		.extra1		= SYSCTL_ZERO,
		.extra2		= SYSCTL_TWO,
	},
	{
		.procname	= "syn_retries",
		.data		= MIG_OFF(syn_retries),
		.maxlen		= sizeof(u8),
		.mode		= 0644,
		.proc_handler	= proc_dou8vec_minmax,
		.extra1		= SYSCTL_ONE,
		.extra2		= SYSCTL_ONE_HUNDRED,
	},
	{
		.procname	= "require_strong",
		.data		= MIG_OFF(require_strong),
		.maxlen		= sizeof(u8),
		.mode		= 0644,
		.proc_handler	= proc_dou8vec_minmax,
		.extra1		= SYSCTL_ZERO,
		.extra2		= SYSCTL_ONE,
	},
#define MIG_SECS(name) {					\
		.procname	= #name,			\
		.data		= MIG_OFF(name),		\
		.maxlen		= sizeof(int),			\
		.mode		= 0644,				\
		.proc_handler	= proc_dointvec_minmax,		\
		.extra1		= SYSCTL_ZERO,			\
		.extra2		= &tcp_mig_secs_max,		\
	}
	MIG_SECS(wait_rst),
	MIG_SECS(wait_silence),
	MIG_SECS(wait_orphan),
	MIG_SECS(tombstone_time),
	MIG_SECS(fallback_time),
#define MIG_COUNT(name) {					\
		.procname	= #name,			\
		.data		= MIG_OFF(name),		\
		.maxlen		= sizeof(int),			\
		.mode		= 0644,				\
		.proc_handler	= proc_dointvec_minmax,		\
		.extra1		= SYSCTL_ZERO,			\
		.extra2		= &tcp_mig_count_max,		\
	}
	MIG_COUNT(wait_max),
	MIG_COUNT(tombstone_max),
};

static int tcp_mig_sysctl_init(struct net *net, struct tcp_mig_net *tn)
{
	int i;

	tn->table = kmemdup(tcp_mig_sysctls, sizeof(tcp_mig_sysctls),
			    GFP_KERNEL);
	if (!tn->table)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(tcp_mig_sysctls); i++)
		tn->table[i].data += (unsigned long)tn;
	tn->sysctl = register_net_sysctl_sz(net, "net/tcp_migrate", tn->table,
					    ARRAY_SIZE(tcp_mig_sysctls));
	if (!tn->sysctl) {
		kfree(tn->table);
		return -ENOMEM;
	}
	return 0;
}

static int __net_init tcp_mig_net_init(struct net *net)
{
	struct tcp_mig_net *tn = tcp_mig_net(net);
	int err;

	tn->mib = alloc_percpu(struct tcp_mig_mib_s);
	if (!tn->mib)
		return -ENOMEM;
	tn->syn_retries = 7;
	tn->wait_rst = 180;
	tn->wait_silence = 900;
	tn->wait_orphan = 60;
	tn->wait_max = 65536;
	tn->tombstone_max = 16384;
	tn->tombstone_time = 60;
	tn->fallback_time = 600;
	tcp_mig_tomb_init(tn);
	err = tcp_mig_sysctl_init(net, tn);
	if (err)
		free_percpu(tn->mib);
	return err;
}

static void __net_exit tcp_mig_net_exit(struct net *net)
{
	struct tcp_mig_net *tn = tcp_mig_net(net);

	tcp_mig_tomb_flush(tn);
	unregister_net_sysctl_table(tn->sysctl);
	kfree(tn->table);
	free_percpu(tn->mib);
}

static struct pernet_operations tcp_mig_net_ops = {
	.init = tcp_mig_net_init,
	.exit = tcp_mig_net_exit,
	.id = &tcp_mig_net_id,
	.size = sizeof(struct tcp_mig_net),
};

int __init tcp_mig_ctrl_init(void)
{
	/* 17 in two pages, hence not aligned to cache lines: 512 bytes for each
	 * connection have to do for its share of the token table, too. Lockdep's
	 * part of the timer is not counted.
	 */
	BUILD_BUG_ON(!IS_ENABLED(CONFIG_LOCKDEP) &&
		     sizeof(struct tcp_migrate) > 480);
	tcp_mig_cache = KMEM_CACHE(tcp_migrate, SLAB_ACCOUNT);
	if (!tcp_mig_cache)
		return -ENOMEM;
	return register_pernet_subsys(&tcp_mig_net_ops);
}

/* ---- Socket options ---- */

static int tcp_mig_set_opt(struct sock *sk, sockptr_t optval,
			   unsigned int optlen)
{
	int val;

	if (optlen < sizeof(int))
		return -EINVAL;
	if (copy_from_sockptr(&val, optval, sizeof(val)))
		return -EFAULT;
	if (val < 0 || val > 1)
		return -EINVAL;
	if (val && !READ_ONCE(tcp_mig_net(sock_net(sk))->enabled))
		return -EOPNOTSUPP;
	WRITE_ONCE(tcp_sk(sk)->mig_opt, val ? 1 : 2);
	return 0;
}

static int tcp_mig_addr_from_user(const struct sockaddr_storage *ss,
				  struct in6_addr *addr, __be16 *port)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

	switch (ss->ss_family) {
	case AF_UNSPEC:
		return 0;
	case AF_INET:
		ipv6_addr_set_v4mapped(in->sin_addr.s_addr, addr);
		if (in->sin_port)
			*port = in->sin_port;
		return 0;
	case AF_INET6:
		*addr = in6->sin6_addr;
		if (in6->sin6_port)
			*port = in6->sin6_port;
		return 0;
	}
	return -EAFNOSUPPORT;
}

/* The remote end of @t as the socket's family writes it. Return: its length. */
static int tcp_mig_remote_sockaddr(const struct sock *sk,
				   const struct tcp_mig_tuple *t,
				   struct sockaddr_in6 *to)
{
	struct sockaddr_in *to4 = (struct sockaddr_in *)to;

	memset(to, 0, sizeof(*to));
	if (sk->sk_family == AF_INET) {
		to4->sin_family = AF_INET;
		to4->sin_addr.s_addr = t->raddr.s6_addr32[3];
		to4->sin_port = t->rport;
		return sizeof(*to4);
	}
	to->sin6_family = AF_INET6;
	to->sin6_addr = t->raddr;
	to->sin6_port = t->rport;
	return sizeof(*to);
}

/* A program that may not connect to an address may not move there either. Only
 * looked at: a BPF program that rewrites the address does not change ours.
 * BPF wants the socket locked; a security module may lock it itself.
 */
static int tcp_mig_may_connect(struct sock *sk, const struct tcp_mig_tuple *t,
			       bool locked)
{
	struct sockaddr_in6 to;
	struct sockaddr *addr = (struct sockaddr *)&to;
	int len = tcp_mig_remote_sockaddr(sk, t, &to);

	if (!locked)
		return sk->sk_socket ?
			security_socket_connect(sk->sk_socket, addr, len) : 0;
	if (sk->sk_family == AF_INET)
		return BPF_CGROUP_RUN_PROG_INET4_CONNECT(sk, addr, &len);
	return BPF_CGROUP_RUN_PROG_INET6_CONNECT(sk, addr, &len);
}

/* Where @to says, and where we are for what it does not say. */
static int tcp_mig_to_tuple(struct sock *sk, const struct tcp_migrate_to *to,
			    struct tcp_mig_tuple *t)
{
	int err;

	tcp_mig_sk_tuple(sk, t);
	err = tcp_mig_addr_from_user(&to->local, &t->laddr, &t->lport);
	if (!err)
		err = tcp_mig_addr_from_user(&to->remote, &t->raddr, &t->rport);
	if (!err && sk->sk_family == AF_INET && !ipv6_addr_v4mapped(&t->raddr))
		err = -EAFNOSUPPORT;
	return err;
}

/* TCP_MIGRATE_TO: a program moves its own connection; no privilege needed. */
static int tcp_mig_set_to(struct sock *sk, const struct tcp_migrate_to *to)
{
	bool remote = to->remote.ss_family != AF_UNSPEC;
	struct tcp_mig_tuple asked, t;
	int err;

	sockopt_lock_sock(sk);
	err = tcp_mig_to_tuple(sk, to, &asked);
	sockopt_release_sock(sk);
	if (!err && remote)
		err = tcp_mig_may_connect(sk, &asked, false);
	if (err)
		return err;
	sockopt_lock_sock(sk);
	err = tcp_mig_to_tuple(sk, to, &t);
	/* What it does not say may have changed. */
	t.raddr = asked.raddr;
	t.rport = asked.rport;
	if (!err && remote)
		err = tcp_mig_may_connect(sk, &t, true);
	if (!err) {
		local_bh_disable();
		err = tcp_mig_start(sk, &t, to->ifindex, to->flags);
		local_bh_enable();
	}
	sockopt_release_sock(sk);
	return err;
}

static int tcp_mig_get_to(struct sock *sk, sockptr_t optval,
			  unsigned int optlen)
{
	struct tcp_migrate_to to;

	if (optlen < sizeof(to))
		return -EINVAL;
	if (copy_from_sockptr(&to, optval, sizeof(to)))
		return -EFAULT;
	if (to.flags & ~(TCP_MIGRATE_MIGRATE_FLAGS_TRIAL |
			 TCP_MIGRATE_MIGRATE_FLAGS_NO_SYN))
		return -EINVAL;
	return tcp_mig_set_to(sk, &to);
}

/* Called without the socket's lock. */
int tcp_migrate_setsockopt(struct sock *sk, int optname, sockptr_t optval,
			   unsigned int optlen)
{
	switch (optname) {
	case TCP_MIGRATE:
		return tcp_mig_set_opt(sk, optval, optlen);
	case TCP_MIGRATE_TO:
		return tcp_mig_get_to(sk, optval, optlen);
	}
	return -ENOPROTOOPT;
}

static u32 tcp_mig_left(const struct sock *sk, const struct tcp_migrate *mig)
{
	if (mig->state != TCP_MIGRATE_STATE_MIG_WAIT ||
	    !before(tcp_jiffies32, mig->wait_end))
		return 0;
	return jiffies_to_msecs(mig->wait_end - tcp_jiffies32);
}

static void tcp_mig_fill_info(const struct sock *sk,
			      struct tcp_migrate_info *info)
{
	const struct tcp_migrate *mig;

	memset(info, 0, sizeof(*info));
	rcu_read_lock();
	mig = rcu_dereference(tcp_sk(sk)->mig);
	if (mig && mig->agreed) {
		info->state = READ_ONCE(mig->state);
		info->reason = READ_ONCE(mig->reason);
		info->role = mig->role;
		info->peer_nat = mig->peer_nat;
		info->reqno = READ_ONCE(mig->committed);
		info->migrations = READ_ONCE(mig->migrations);
		info->age_ms = jiffies_to_msecs(tcp_jiffies32 -
						READ_ONCE(mig->since));
		info->left_ms = tcp_mig_left(sk, mig);
	}
	rcu_read_unlock();
}

int tcp_migrate_getsockopt(struct sock *sk, int optname, sockptr_t optval,
			   sockptr_t optlen)
{
	struct tcp_migrate_info info;
	void *data = &info;
	int len, size, val;

	if (copy_from_sockptr(&len, optlen, sizeof(len)))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	tcp_mig_fill_info(sk, &info);
	size = sizeof(info);
	if (optname == TCP_MIGRATE) {
		val = info.state != TCP_MIGRATE_STATE_NONE;
		data = &val;
		size = sizeof(val);
	}
	len = min(len, size);
	if (copy_to_sockptr(optlen, &len, sizeof(len)) ||
	    copy_to_sockptr(optval, data, len))
		return -EFAULT;
	return 0;
}

/* INET_DIAG_MIGRATE: no secrets, so for everyone. */
int tcp_migrate_diag(struct sock *sk, struct sk_buff *skb)
{
	struct tcp_migrate_info info;

	if (!sk_fullsock(sk) || !rcu_access_pointer(tcp_sk(sk)->mig))
		return 0;
	tcp_mig_fill_info(sk, &info);
	return nla_put(skb, INET_DIAG_MIGRATE, sizeof(info), &info);
}
EXPORT_SYMBOL_GPL(tcp_migrate_diag);

size_t tcp_migrate_diag_size(void)
{
	return nla_total_size(sizeof(struct tcp_migrate_info));
}
EXPORT_SYMBOL_GPL(tcp_migrate_diag_size);
