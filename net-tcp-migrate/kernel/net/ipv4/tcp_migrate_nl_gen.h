/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/tcp_migrate.yaml */
/* YNL-GEN kernel header */

#ifndef _LINUX_TCP_MIGRATE_GEN_H
#define _LINUX_TCP_MIGRATE_GEN_H

#include <net/netlink.h>
#include <net/genetlink.h>

#include <uapi/linux/tcp_migrate.h>

/* Ops table for tcp_migrate */
extern const struct genl_split_ops tcp_migrate_nl_ops[7];

int tcp_migrate_nl_get_start(struct netlink_callback *cb);
int tcp_migrate_nl_get_done(struct netlink_callback *cb);

int tcp_migrate_nl_get_doit(struct sk_buff *skb, struct genl_info *info);
int tcp_migrate_nl_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int tcp_migrate_nl_migrate_doit(struct sk_buff *skb, struct genl_info *info);
int tcp_migrate_nl_migrate_all_doit(struct sk_buff *skb,
				    struct genl_info *info);
int tcp_migrate_nl_abort_doit(struct sk_buff *skb, struct genl_info *info);
int tcp_migrate_nl_key_doit(struct sk_buff *skb, struct genl_info *info);
int tcp_migrate_nl_export_doit(struct sk_buff *skb, struct genl_info *info);

enum {
	TCP_MIGRATE_NLGRP_EVENTS,
};

#endif /* _LINUX_TCP_MIGRATE_GEN_H */
