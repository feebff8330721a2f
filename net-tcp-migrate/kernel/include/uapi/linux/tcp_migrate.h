/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/tcp_migrate.yaml */
/* YNL-GEN uapi header */

#ifndef _UAPI_LINUX_TCP_MIGRATE_H
#define _UAPI_LINUX_TCP_MIGRATE_H

#define TCP_MIGRATE_FAMILY_NAME		"tcp_migrate"
#define TCP_MIGRATE_FAMILY_VERSION	1

/**
 * enum tcp_migrate_state - Migration sub-state of a connection, beside
 *   sk_state. The thesis' names where it has one (3.2.2).
 * @TCP_MIGRATE_STATE_NONE: Not migratable (yet); an ordinary TCP connection.
 * @TCP_MIGRATE_STATE_IDLE: Migratable, and at rest on its current path.
 * @TCP_MIGRATE_STATE_MIG_SENT: A Migrate-Request is under way; nothing else is
 *   sent, unless it is a trial.
 * @TCP_MIGRATE_STATE_MIG_CONFIRM: The peer answered; our proof is sent until
 *   the peer has used the new path.
 * @TCP_MIGRATE_STATE_MIG_WAIT: No usable path; waits for a migrate command or
 *   the peer's MSYN.
 */
enum tcp_migrate_state {
	TCP_MIGRATE_STATE_NONE,
	TCP_MIGRATE_STATE_IDLE,
	TCP_MIGRATE_STATE_MIG_SENT,
	TCP_MIGRATE_STATE_MIG_CONFIRM,
	TCP_MIGRATE_STATE_MIG_WAIT,
};

/**
 * enum tcp_migrate_reason - Why a state was entered or a connection event was
 *   raised.
 * @TCP_MIGRATE_REASON_AGREED: Both ends have agreed that the connection can
 *   migrate.
 * @TCP_MIGRATE_REASON_COMMAND: A migrate command.
 * @TCP_MIGRATE_REASON_PEER: The peer's Migrate-Request.
 * @TCP_MIGRATE_REASON_COMMITTED: The new path is in use.
 * @TCP_MIGRATE_REASON_TIMEOUT: No answer in time.
 * @TCP_MIGRATE_REASON_RST: An RST that did not prove its origin.
 * @TCP_MIGRATE_REASON_RST_AUTH: An RST that proved that the peer sent it.
 * @TCP_MIGRATE_REASON_RETRIES: TCP's own retransmission, probe or keepalive
 *   limit was reached.
 * @TCP_MIGRATE_REASON_PATH_ALIVE: The current path carried an acceptable
 *   segment again.
 * @TCP_MIGRATE_REASON_TRIAL_FAILED: A trial found no path; the old one is
 *   kept.
 * @TCP_MIGRATE_REASON_TUPLE_IN_USE: The new four-tuple belongs to another
 *   socket.
 * @TCP_MIGRATE_REASON_NO_ROUTE: There is no route from the new local address
 *   to the peer; it is retried.
 * @TCP_MIGRATE_REASON_CLOSED: The connection is gone.
 * @TCP_MIGRATE_REASON_RST_HINT: An RST answered our Migrate-Request; it is
 *   retried.
 * @TCP_MIGRATE_REASON_PEER_NAT: The peer is behind a NAPT now, or no longer.
 * @TCP_MIGRATE_REASON_ABORTED: An abort command.
 * @TCP_MIGRATE_REASON_STALLED: TCP has retransmitted in vain for as long as
 *   tcp_retries1 says; it goes on.
 */
enum tcp_migrate_reason {
	TCP_MIGRATE_REASON_NONE,
	TCP_MIGRATE_REASON_AGREED,
	TCP_MIGRATE_REASON_COMMAND,
	TCP_MIGRATE_REASON_PEER,
	TCP_MIGRATE_REASON_COMMITTED,
	TCP_MIGRATE_REASON_TIMEOUT,
	TCP_MIGRATE_REASON_RST,
	TCP_MIGRATE_REASON_RST_AUTH,
	TCP_MIGRATE_REASON_RETRIES,
	TCP_MIGRATE_REASON_PATH_ALIVE,
	TCP_MIGRATE_REASON_TRIAL_FAILED,
	TCP_MIGRATE_REASON_TUPLE_IN_USE,
	TCP_MIGRATE_REASON_NO_ROUTE,
	TCP_MIGRATE_REASON_CLOSED,
	TCP_MIGRATE_REASON_RST_HINT,
	TCP_MIGRATE_REASON_PEER_NAT,
	TCP_MIGRATE_REASON_ABORTED,
	TCP_MIGRATE_REASON_STALLED,
};

/**
 * enum tcp_migrate_migrate_flags
 * @TCP_MIGRATE_MIGRATE_FLAGS_TRIAL: Keep using the old path until the
 *   handshake over the new one is done.
 * @TCP_MIGRATE_MIGRATE_FLAGS_NO_SYN: Send the request on the current tuple as
 *   a segment without SYN.
 */
enum tcp_migrate_migrate_flags {
	TCP_MIGRATE_MIGRATE_FLAGS_TRIAL = 1,
	TCP_MIGRATE_MIGRATE_FLAGS_NO_SYN = 2,
};

/**
 * enum tcp_migrate_key_op
 * @TCP_MIGRATE_KEY_OP_ADD: Accept requests made with this key.
 * @TCP_MIGRATE_KEY_OP_PROMOTE: Make own requests with this key (it must have
 *   been added).
 * @TCP_MIGRATE_KEY_OP_EXCLUSIVE: Refuse every request that is not made with
 *   this key.
 * @TCP_MIGRATE_KEY_OP_REMOVE: Forget the key; the in-band key is used again.
 */
enum tcp_migrate_key_op {
	TCP_MIGRATE_KEY_OP_ADD,
	TCP_MIGRATE_KEY_OP_PROMOTE,
	TCP_MIGRATE_KEY_OP_EXCLUSIVE,
	TCP_MIGRATE_KEY_OP_REMOVE,
};

enum {
	TCP_MIGRATE_A_CONN_PAD = 1,
	TCP_MIGRATE_A_CONN_COOKIE,
	TCP_MIGRATE_A_CONN_FAMILY,
	TCP_MIGRATE_A_CONN_LOCAL_ADDR,
	TCP_MIGRATE_A_CONN_LOCAL_PORT,
	TCP_MIGRATE_A_CONN_REMOTE_ADDR,
	TCP_MIGRATE_A_CONN_REMOTE_PORT,
	TCP_MIGRATE_A_CONN_STATE,
	TCP_MIGRATE_A_CONN_TCP_STATE,
	TCP_MIGRATE_A_CONN_REASON,
	TCP_MIGRATE_A_CONN_ROLE,
	TCP_MIGRATE_A_CONN_REQNO,
	TCP_MIGRATE_A_CONN_MIGRATIONS,
	TCP_MIGRATE_A_CONN_FLAGS,
	TCP_MIGRATE_A_CONN_PEER_INNER_ADDR,
	TCP_MIGRATE_A_CONN_PEER_INNER_PORT,
	TCP_MIGRATE_A_CONN_PEER_NAT,
	TCP_MIGRATE_A_CONN_TOKEN_LOCAL,
	TCP_MIGRATE_A_CONN_TOKEN_REMOTE,
	TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR,
	TCP_MIGRATE_A_CONN_NEW_LOCAL_PORT,
	TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR,
	TCP_MIGRATE_A_CONN_NEW_REMOTE_PORT,
	TCP_MIGRATE_A_CONN_IF_INDEX,
	TCP_MIGRATE_A_CONN_UID,
	TCP_MIGRATE_A_CONN_INODE,
	TCP_MIGRATE_A_CONN_AGE_MS,
	TCP_MIGRATE_A_CONN_LEFT_MS,
	TCP_MIGRATE_A_CONN_COUNT,
	TCP_MIGRATE_A_CONN_FAILED,
	TCP_MIGRATE_A_CONN_ERROR,
	TCP_MIGRATE_A_CONN_KEY_ID,
	TCP_MIGRATE_A_CONN_KEY_OP,
	TCP_MIGRATE_A_CONN_KEY,
	TCP_MIGRATE_A_CONN_KEY_MASK,
	TCP_MIGRATE_A_CONN_EXPORTER,
	TCP_MIGRATE_A_CONN_TOKEN,

	__TCP_MIGRATE_A_CONN_MAX,
	TCP_MIGRATE_A_CONN_MAX = (__TCP_MIGRATE_A_CONN_MAX - 1)
};

enum {
	TCP_MIGRATE_CMD_GET = 1,
	TCP_MIGRATE_CMD_MIGRATE,
	TCP_MIGRATE_CMD_MIGRATE_ALL,
	TCP_MIGRATE_CMD_ABORT,
	TCP_MIGRATE_CMD_KEY,
	TCP_MIGRATE_CMD_EXPORT,
	TCP_MIGRATE_CMD_EVENT,

	__TCP_MIGRATE_CMD_MAX,
	TCP_MIGRATE_CMD_MAX = (__TCP_MIGRATE_CMD_MAX - 1)
};

#define TCP_MIGRATE_MCGRP_EVENTS	"events"

#endif /* _UAPI_LINUX_TCP_MIGRATE_H */
