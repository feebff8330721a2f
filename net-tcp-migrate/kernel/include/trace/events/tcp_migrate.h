/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM tcp_migrate

#if !defined(_TRACE_TCP_MIGRATE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_TCP_MIGRATE_H

#include <linux/tracepoint.h>
#include <net/sock.h>

#define tcp_migrate_show_state(s)				\
	__print_symbolic(s,					\
			 { 0, "NONE" },				\
			 { 1, "IDLE" },				\
			 { 2, "MIG_SENT" },			\
			 { 3, "MIG_CONFIRM" },			\
			 { 4, "MIG_WAIT" })

/* A migration state was entered, or something happened in it. No secrets. */
TRACE_EVENT(tcp_migrate_state,
	TP_PROTO(const struct sock *sk, u8 oldstate, u8 newstate, u8 reason,
		 u32 reqno),

	TP_ARGS(sk, oldstate, newstate, reason, reqno),

	TP_STRUCT__entry(
		__field(const void *, skaddr)
		__array(__u8, laddr, 16)
		__array(__u8, raddr, 16)
		__field(__u16, lport)
		__field(__u16, rport)
		__field(__u8, oldstate)
		__field(__u8, newstate)
		__field(__u8, reason)
		__field(__u32, reqno)
	),

	TP_fast_assign(
		__entry->skaddr = sk;
		memcpy(__entry->laddr, &sk->sk_v6_rcv_saddr, 16);
		memcpy(__entry->raddr, &sk->sk_v6_daddr, 16);
		__entry->lport = sk->sk_num;
		__entry->rport = ntohs(sk->sk_dport);
		__entry->oldstate = oldstate;
		__entry->newstate = newstate;
		__entry->reason = reason;
		__entry->reqno = reqno;
	),

	TP_printk("[%pI6c]:%hu [%pI6c]:%hu %s -> %s reason=%u reqno=%u",
		  __entry->laddr, __entry->lport, __entry->raddr,
		  __entry->rport, tcp_migrate_show_state(__entry->oldstate),
		  tcp_migrate_show_state(__entry->newstate), __entry->reason,
		  __entry->reqno)
);

#endif /* _TRACE_TCP_MIGRATE_H */

#include <trace/define_trace.h>
