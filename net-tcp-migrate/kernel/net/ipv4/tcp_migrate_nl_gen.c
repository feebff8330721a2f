// SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause)
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/tcp_migrate.yaml */
/* YNL-GEN kernel source */

#include <net/netlink.h>
#include <net/genetlink.h>

#include "tcp_migrate_nl_gen.h"

#include <uapi/linux/tcp_migrate.h>

/* TCP_MIGRATE_CMD_GET - do */
static const struct nla_policy tcp_migrate_get_nl_policy[TCP_MIGRATE_A_CONN_TOKEN + 1] = {
	[TCP_MIGRATE_A_CONN_COOKIE] = { .type = NLA_U64, },
	[TCP_MIGRATE_A_CONN_TOKEN] = { .type = NLA_U32, },
	[TCP_MIGRATE_A_CONN_FAMILY] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_LOCAL_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_REMOTE_PORT] = { .type = NLA_U16, },
};

/* TCP_MIGRATE_CMD_MIGRATE - do */
static const struct nla_policy tcp_migrate_migrate_nl_policy[TCP_MIGRATE_A_CONN_TOKEN + 1] = {
	[TCP_MIGRATE_A_CONN_COOKIE] = { .type = NLA_U64, },
	[TCP_MIGRATE_A_CONN_TOKEN] = { .type = NLA_U32, },
	[TCP_MIGRATE_A_CONN_FAMILY] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_LOCAL_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_REMOTE_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_NEW_LOCAL_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_NEW_REMOTE_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_IF_INDEX] = { .type = NLA_U32, },
	[TCP_MIGRATE_A_CONN_FLAGS] = NLA_POLICY_MASK(NLA_U32, 0x3),
};

/* TCP_MIGRATE_CMD_MIGRATE_ALL - do */
static const struct nla_policy tcp_migrate_migrate_all_nl_policy[TCP_MIGRATE_A_CONN_IF_INDEX + 1] = {
	[TCP_MIGRATE_A_CONN_FAMILY] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_IF_INDEX] = { .type = NLA_U32, },
	[TCP_MIGRATE_A_CONN_FLAGS] = NLA_POLICY_MASK(NLA_U32, 0x3),
};

/* TCP_MIGRATE_CMD_ABORT - do */
static const struct nla_policy tcp_migrate_abort_nl_policy[TCP_MIGRATE_A_CONN_TOKEN + 1] = {
	[TCP_MIGRATE_A_CONN_COOKIE] = { .type = NLA_U64, },
	[TCP_MIGRATE_A_CONN_TOKEN] = { .type = NLA_U32, },
	[TCP_MIGRATE_A_CONN_FAMILY] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_LOCAL_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_REMOTE_PORT] = { .type = NLA_U16, },
};

/* TCP_MIGRATE_CMD_KEY - do */
static const struct nla_policy tcp_migrate_key_nl_policy[TCP_MIGRATE_A_CONN_TOKEN + 1] = {
	[TCP_MIGRATE_A_CONN_COOKIE] = { .type = NLA_U64, },
	[TCP_MIGRATE_A_CONN_TOKEN] = { .type = NLA_U32, },
	[TCP_MIGRATE_A_CONN_FAMILY] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_LOCAL_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_REMOTE_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_KEY_ID] = NLA_POLICY_MAX(NLA_U8, 3),
	[TCP_MIGRATE_A_CONN_KEY_OP] = NLA_POLICY_MAX(NLA_U8, 3),
	[TCP_MIGRATE_A_CONN_KEY] = NLA_POLICY_EXACT_LEN(32),
};

/* TCP_MIGRATE_CMD_EXPORT - do */
static const struct nla_policy tcp_migrate_export_nl_policy[TCP_MIGRATE_A_CONN_TOKEN + 1] = {
	[TCP_MIGRATE_A_CONN_COOKIE] = { .type = NLA_U64, },
	[TCP_MIGRATE_A_CONN_TOKEN] = { .type = NLA_U32, },
	[TCP_MIGRATE_A_CONN_FAMILY] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_LOCAL_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_LOCAL_PORT] = { .type = NLA_U16, },
	[TCP_MIGRATE_A_CONN_REMOTE_ADDR] = { .type = NLA_BINARY, },
	[TCP_MIGRATE_A_CONN_REMOTE_PORT] = { .type = NLA_U16, },
};

/* Ops table for tcp_migrate */
const struct genl_split_ops tcp_migrate_nl_ops[7] = {
	{
		.cmd		= TCP_MIGRATE_CMD_GET,
		.doit		= tcp_migrate_nl_get_doit,
		.policy		= tcp_migrate_get_nl_policy,
		.maxattr	= TCP_MIGRATE_A_CONN_TOKEN,
		.flags		= GENL_CMD_CAP_DO,
	},
	{
		.cmd	= TCP_MIGRATE_CMD_GET,
		.start	= tcp_migrate_nl_get_start,
		.dumpit	= tcp_migrate_nl_get_dumpit,
		.done	= tcp_migrate_nl_get_done,
		.flags	= GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= TCP_MIGRATE_CMD_MIGRATE,
		.doit		= tcp_migrate_nl_migrate_doit,
		.policy		= tcp_migrate_migrate_nl_policy,
		.maxattr	= TCP_MIGRATE_A_CONN_TOKEN,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= TCP_MIGRATE_CMD_MIGRATE_ALL,
		.doit		= tcp_migrate_nl_migrate_all_doit,
		.policy		= tcp_migrate_migrate_all_nl_policy,
		.maxattr	= TCP_MIGRATE_A_CONN_IF_INDEX,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= TCP_MIGRATE_CMD_ABORT,
		.doit		= tcp_migrate_nl_abort_doit,
		.policy		= tcp_migrate_abort_nl_policy,
		.maxattr	= TCP_MIGRATE_A_CONN_TOKEN,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= TCP_MIGRATE_CMD_KEY,
		.doit		= tcp_migrate_nl_key_doit,
		.policy		= tcp_migrate_key_nl_policy,
		.maxattr	= TCP_MIGRATE_A_CONN_TOKEN,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= TCP_MIGRATE_CMD_EXPORT,
		.doit		= tcp_migrate_nl_export_doit,
		.policy		= tcp_migrate_export_nl_policy,
		.maxattr	= TCP_MIGRATE_A_CONN_TOKEN,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
};

