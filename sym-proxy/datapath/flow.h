/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the data path (flow.bpf.c) and user space (data_path.cpp) share: the layout of
 * maps and events.
 *
 * A flow is one direction of a relay: segments that come from one end to an address
 * and port of the proxy, and leave for the other end. A relay whose ends are both
 * known has two. Addresses are 16 bytes, IPv4 as IPv4-mapped; addresses and ports are in
 * network byte order, all else is in that of the host.
 */
#ifndef SYM_PROXY_FLOW_H
#define SYM_PROXY_FLOW_H

#include <linux/types.h>

/* Grows with every change of what is in a pinned map. */
#define FLOW_LAYOUT 2

/* As a segment comes in. */
struct flow_key {
	__u8 src[16];		/* where the end is seen */
	__u8 dst[16];		/* the proxy */
	__be16 sport;
	__be16 dport;
};

/* As it goes out, from the address it has come to, and what has passed. User space writes the first part, before the flow
 * is in the map and never after; the data path writes the rest.
 */
struct flow {
	__u8 dst[16];		/* where the other end is seen */
	__be16 sport;		/* the proxy's */
	__be16 dport;
	__u16 relay;		/* user space's number; the data path does not look at it */
	__u16 late;		/* user space's: the end is elsewhere. A RST is only a box's word, and goes to user space */
	__u32 sum_addresses;	/* what they change in a checksum: new less old, in the order of memory */
	__u32 sum_ports;
	__u64 packets;		/* segments on the wire, not what GRO makes of them */
	__u64 bytes;		/* of IP packets */
	__u64 last_ns;		/* CLOCK_BOOTTIME or MONOTONIC coarse, of the last segment but RSTs */
	__u32 ack;		/* highest acknowledgment number (A3.3); valid with FLOW_ACK */
	__u32 fin_end;		/* sequence number behind the FIN; valid with FLOW_FIN */
	__u32 seen;		/* FLOW_* */
	__u32 held;		/* when a proof has gone to user space last, in FLOW_HELD_SHIFT of ns */
};

/* What follows a proof (CONFIRM, MANS) goes the same way for so long, unless the flow is made
 * anew: the proof may mean that the other end is elsewhere from now on.
 */
#define FLOW_HELD_SHIFT 20	/* about a millisecond */
#define FLOW_HELD 8

#define FLOW_ACK 1
#define FLOW_FIN 2
#define FLOW_RST 4

/* What the data path needs to know of the proxy, beside flows; map with one entry. Ports in
 * host byte order. A segment is ours if it is TCP to one of the addresses and a port from
 * first_port to last_port. All others are not touched.
 */
struct flow_proxy {
	__u8 addr4[16];		/* :: if there is none */
	__u8 addr6[16];
	__u16 first_port;
	__u16 last_port;
	__u32 events_per_second;	/* most segments a second that go to user space */
	__u32 only_interface;	/* the way out where the host does not forward; 0 if there are several */
	__u32 layout;		/* FLOW_LAYOUT of who made the map */
};

/* How XDP reaches an interface that routes name: by a link with XDP, perhaps with a VLAN's
 * tag. Map by interface number; what has none there is left to tc.
 */
struct flow_way {
	__u32 link;		/* number of the interface that sends */
	__be16 tag_protocol;	/* 0: no tag */
	__be16 tag;
	__u8 mac[6];		/* of the interface */
	__u16 pad;
};

/* How an interface is attached to. */
#define FLOW_TC 1
#define FLOW_XDP 2

/* Why something went to user space. */
enum flow_event_why {
	FLOW_EVENT_SEGMENT = 1,	/* SYN, one of our options but ECHO, or of no flow */
	FLOW_EVENT_ICMP,	/* an error about a segment of ours: what was quoted is of ours */
	FLOW_EVENT_TOO_BIG,	/* longer than the way out takes: mtu says how much that is */
	FLOW_EVENT_FRAGMENT,	/* the first to a port of ours, or a later one: to which port is not known */
};

#define FLOW_EVENT_BYTES 1600

/* An event in the ring buffer: an IP packet, from its IP header, its first bytes at most. */
struct flow_event {
	__u32 why;
	__u32 ifindex;		/* where it came in */
	__u32 length;		/* of the IP packet */
	__u32 captured;		/* bytes that are here */
	__u32 mtu;
	__u8 packet[FLOW_EVENT_BYTES];
};

/* Counters of the data path, each per CPU. */
enum flow_counter {
	FLOW_COUNT_RELAYED,	/* packets */
	FLOW_COUNT_TO_USER,
	FLOW_COUNT_LOST,	/* to user space: no room in the ring buffer, or too many a second */
	FLOW_COUNT_MALFORMED,	/* headers that are none; dropped */
	FLOW_COUNT_FRAGMENTS,	/* that user space is to put together */
	FLOW_COUNT_NO_ROUTE,	/* no way out, or no neighbour; dropped (tc: left to the stack's own queue) */
	FLOW_COUNT_TTL,		/* TTL or hop limit at its end; dropped */
	FLOW_COUNT_TOO_BIG,
	FLOW_COUNTERS
};

#endif
