// SPDX-License-Identifier: GPL-2.0-only
/*
 * The data path: segments of a flow get other addresses and ports, and go on. flow.h is
 * what user space knows of it.
 *
 * tc does everything. XDP, where there is any, takes from it the plain segments of known
 * flows, and passes on whatever is more than that unchanged, so that tc gets it.
 *
 * Some kernels insist on alignment, and do not know that of a packet beyond 2 bytes: all that is
 * read of one and written to it are bytes and pairs of them.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"

/* Options, see docs/protocol.md. */
#define OPTION_KIND 254
#define OPTION_EXID 0x4D49
#define OPTION_MREQ 1
#define OPTION_CONFIRM 2
#define OPTION_MANS 6

#define AF_INET 2
#define AF_INET6 10
/* Of linux/icmp.h, which drags in the C library. */
#define ICMP_HEADER 8
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PARAMPROB 4

#define IP_FRAGMENT 0x3fff	/* more fragments, or an offset */
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8
#define OFFSETS 0x3ffe		/* all that is looked at is at one of these */
#define IP6_EXTENSIONS 4	/* extension headers that are looked behind */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define SECOND_NS 1000000000ull

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_proxy);
} proxy SEC(".maps");

/* All memory at once: where flows are allocated one by one, that fails when many are set in a
 * moment and interrupts are late.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct flow_way);
} ways SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FLOW_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* What user space is attached to: FLOW_TC, perhaps with FLOW_XDP, by interface number. Only it
 * looks here.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} interfaces SEC(".maps");

/* Where an event is put together. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_event);
} scratch SEC(".maps");

/* Events of the current second. */
static __u64 events_second;
static __u32 events_made;

/* 0, but the verifier does not know: where it knows too much it looks at every way through a loop. */
static volatile __u32 nothing;

enum found {
	NOT_OURS,
	FRAGMENT,	/* the first one of a segment of ours */
	LATER_FRAGMENT,	/* of TCP to the proxy; whether its port is ours is not known */
	BAD,		/* ours by its port, but no TCP segment */
	ICMP_ERROR,	/* about a segment of ours */
	SEGMENT,
};

struct segment {
	struct flow_key key __attribute__((aligned(8)));
	__u32 l3;		/* offsets in the packet */
	__u32 l4;
	__u32 there;		/* bytes from l3 on */
	__u32 length;		/* of the IP packet */
	__u32 tcp_header;	/* its length with options */
	__u32 seq;
	__u32 ack;
	__u32 tos;		/* for the route: of IPv6 with the flow label, as it is there */
	__u16 ip_check;
	__u8 ttl;
	__u8 protocol;
	__u8 flags;
	bool v6;
};

static __always_inline void count(__u32 what, __u64 n)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &what);

	if (counter)
		*counter += n;
}

/* A pointer of the context. The compiler would compute the field's address before, which the
 * verifier does not let pass.
 */
#define context(ctx, type, field) ({							\
	void *value;									\
											\
	asm volatile("%0 = *(u32 *)(%1 + %2)"						\
		     : "=r"(value) : "r"(ctx), "i"(offsetof(type, field)));		\
	value;										\
})

static __always_inline void *start_of(void *ctx, const bool xdp)
{
	return xdp ? context(ctx, struct xdp_md, data) : context(ctx, struct __sk_buff, data);
}

static __always_inline void *end_of(void *ctx, const bool xdp)
{
	return xdp ? context(ctx, struct xdp_md, data_end) : context(ctx, struct __sk_buff, data_end);
}

/* So many bytes of the packet, NULL if it has not got them. Pointers from earlier calls are
 * void: they may have to be pulled out of the skb's pages.
 */
static __always_inline void *at(void *ctx, const bool xdp, __u64 offset, const __u32 bytes)
{
	void *p;

	/* The verifier forgets what it knows of numbers that were on the stack for a while. */
	asm volatile("" : "+r"(offset));
	offset &= OFFSETS;
	p = start_of(ctx, xdp) + offset;
	if (p + bytes <= end_of(ctx, xdp))
		return p;
	if (xdp || bpf_skb_pull_data(ctx, offset + bytes))
		return NULL;
	p = start_of(ctx, xdp) + offset;
	return p + bytes <= end_of(ctx, xdp) ? p : NULL;
}

/* Words of the stack and of maps, which are aligned. */
static __always_inline __u32 word(const void *p, __u32 i)
{
	return ((const __u32 *)p)[i];
}

static __always_inline void set_word(void *p, __u32 i, __u32 value)
{
	((__u32 *)p)[i] = value;
}

/* Those of a packet. */
static __always_inline __u32 packet_word(const void *p, __u32 i)
{
	__u32 value;

	__builtin_memcpy(&value, (const __u16 *)p + 2 * i, sizeof(value));
	return value;
}

static __always_inline void set_packet_word(void *p, __u32 i, __u32 value)
{
	__builtin_memcpy((__u16 *)p + 2 * i, &value, sizeof(value));
}

static __always_inline bool packet_has_address(const void *p, const void *address)
{
	return packet_word(p, 0) == word(address, 0) && packet_word(p, 1) == word(address, 1) &&
	       packet_word(p, 2) == word(address, 2) && packet_word(p, 3) == word(address, 3);
}

static __always_inline void copy_address(void *to, const void *from)
{
	set_word(to, 0, word(from, 0));
	set_word(to, 1, word(from, 1));
	set_word(to, 2, word(from, 2));
	set_word(to, 3, word(from, 3));
}

static __always_inline void read_address(void *to, const void *packet)
{
	set_word(to, 0, packet_word(packet, 0));
	set_word(to, 1, packet_word(packet, 1));
	set_word(to, 2, packet_word(packet, 2));
	set_word(to, 3, packet_word(packet, 3));
}

static __always_inline void write_address(void *packet, const void *from)
{
	set_packet_word(packet, 0, word(from, 0));
	set_packet_word(packet, 1, word(from, 1));
	set_packet_word(packet, 2, word(from, 2));
	set_packet_word(packet, 3, word(from, 3));
}

static __always_inline void map_address(void *to, __be32 address)
{
	set_word(to, 0, 0);
	set_word(to, 1, 0);
	set_word(to, 2, bpf_htonl(0xffff));
	set_word(to, 3, address);
}

static __always_inline bool our_port(const struct flow_proxy *p, __be16 port)
{
	const __u16 number = bpf_ntohs(port);

	return number >= p->first_port && number <= p->last_port;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum after a change (RFC 1624, equation 3). */
static __always_inline __u16 updated(__u16 check, __u64 change)
{
	return ~fold((__u16)~check + change);
}

/* What the next TTL, or hop limit, changes in a checksum: it is the first byte of a 16-bit word in
 * IPv4, the second in IPv6. The other byte cancels itself.
 */
static __always_inline __u64 ttl_change(const struct segment *s)
{
	const __u16 old = s->v6 ? bpf_htons(s->ttl) : bpf_htons(s->ttl << 8);
	const __u16 new = s->v6 ? bpf_htons(s->ttl - 1) : bpf_htons((s->ttl - 1) << 8);

	return (__u64)(__u16)~old + new;
}

static __always_inline enum found look_tcp(void *ctx, const bool xdp, const struct flow_proxy *p,
					   struct segment *s)
{
	const __u8 *tcp = at(ctx, xdp, s->l4, sizeof(struct tcphdr));
	__u32 before = s->l4 - s->l3;

	if (!tcp) {
		const __be16 *ports = at(ctx, xdp, s->l4, 4);

		return ports && our_port(p, ports[1]) ? BAD : NOT_OURS;
	}
	s->key.sport = *(__be16 *)tcp;
	s->key.dport = *(__be16 *)(tcp + 2);
	if (!our_port(p, s->key.dport))
		return NOT_OURS;
	s->seq = bpf_ntohl(packet_word(tcp, 1));
	s->ack = bpf_ntohl(packet_word(tcp, 2));
	s->tcp_header = (tcp[12] >> 4) * 4;
	s->flags = tcp[13];
	if (s->tcp_header < sizeof(struct tcphdr) || before + s->tcp_header > s->length ||
	    s->length > s->there)
		return BAD;
	return SEGMENT;
}

/* Behind s->l4 there is a fragment, perhaps the first one. */
static __always_inline enum found look_fragment(void *ctx, const bool xdp, const struct flow_proxy *p,
						const struct segment *s, bool first)
{
	const __be16 *ports;

	if (s->length > s->there || s->length <= s->l4 - s->l3)
		return NOT_OURS;
	if (!first)
		return LATER_FRAGMENT;
	ports = at(ctx, xdp, s->l4, 4);
	return ports && our_port(p, ports[1]) ? FRAGMENT : NOT_OURS;
}

/* Whether an ICMP error quotes, at `offset`, what has left the proxy. */
static __always_inline bool quotes_ours4(void *ctx, const struct flow_proxy *p, __u32 offset)
{
	const struct iphdr *ip = at(ctx, false, offset, sizeof(*ip));
	const __be16 *port;

	if (!ip || ip->version != 4 || ip->ihl < 5 || ip->protocol != IPPROTO_TCP ||
	    packet_word(&ip->saddr, 0) != word(p->addr4, 3) || ip->frag_off & bpf_htons(0x1fff))
		return false;
	port = at(ctx, false, offset + ip->ihl * 4, 2);
	return port && our_port(p, *port);
}

static __always_inline enum found look_icmp4(void *ctx, const struct flow_proxy *p, const struct segment *s)
{
	const __u8 *type = at(ctx, false, s->l4, ICMP_HEADER);

	if (!type || s->length > s->there ||
	    (*type != ICMP_DEST_UNREACH && *type != ICMP_TIME_EXCEEDED && *type != ICMP_PARAMETERPROB))
		return NOT_OURS;
	return quotes_ours4(ctx, p, s->l4 + ICMP_HEADER) ? ICMP_ERROR : NOT_OURS;
}

static __always_inline enum found look_ip4(void *ctx, const bool xdp, const struct flow_proxy *p,
					   struct segment *s)
{
	const struct iphdr *ip = at(ctx, xdp, s->l3, sizeof(*ip));
	const __be32 address = word(p->addr4, 3);
	__u8 protocol;

	if (!ip || !address || packet_word(&ip->daddr, 0) != address || ip->version != 4 || ip->ihl < 5)
		return NOT_OURS;
	protocol = ip->protocol;
	if (protocol != IPPROTO_TCP && (xdp || protocol != IPPROTO_ICMP))
		return NOT_OURS;
	s->l4 = s->l3 + ip->ihl * 4;
	/* GRO makes packets whose length does not fit. */
	s->length = ip->tot_len ? bpf_ntohs(ip->tot_len) : xdp ? 0 : s->there;
	if (ip->frag_off & bpf_htons(IP_FRAGMENT))
		return protocol == IPPROTO_TCP ?
		       look_fragment(ctx, xdp, p, s, !(ip->frag_off & bpf_htons(IP_OFFSET))) : NOT_OURS;
	s->tos = ip->tos;
	s->ttl = ip->ttl;
	s->protocol = protocol;
	s->ip_check = ip->check;
	map_address(s->key.src, packet_word(&ip->saddr, 0));
	map_address(s->key.dst, address);
	return protocol == IPPROTO_TCP ? look_tcp(ctx, xdp, p, s) : look_icmp4(ctx, p, s);
}

static __always_inline bool quotes_ours6(void *ctx, const struct flow_proxy *p, __u32 offset)
{
	const struct ipv6hdr *ip = at(ctx, false, offset, sizeof(*ip));
	const __be16 *port;

	if (!ip || ip->version != 6 || ip->nexthdr != IPPROTO_TCP || !packet_has_address(&ip->saddr, p->addr6))
		return false;
	port = at(ctx, false, offset + sizeof(*ip), 2);
	return port && our_port(p, *port);
}

static __always_inline enum found look_icmp6(void *ctx, const struct flow_proxy *p, const struct segment *s)
{
	const __u8 *type = at(ctx, false, s->l4, ICMP_HEADER);

	if (!type || s->length > s->there || *type < ICMPV6_DEST_UNREACH || *type > ICMPV6_PARAMPROB)
		return NOT_OURS;
	return quotes_ours6(ctx, p, s->l4 + ICMP_HEADER) ? ICMP_ERROR : NOT_OURS;
}

/* TCP behind extension headers is not relayed: no end that is not up to something sends them. */
static __always_inline enum found look_extensions(void *ctx, const bool xdp, const struct flow_proxy *p,
						  struct segment *s, __u8 next)
{
	enum found found = NOT_OURS;

	for (int i = 0; i < IP6_EXTENSIONS; i++) {
		const __u8 *header;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH)
			break;
		header = at(ctx, xdp, s->l4, 8);
		if (!header)
			return NOT_OURS;
		if (next == IPPROTO_FRAGMENT) {
			const bool first = !(*(__be16 *)(header + 2) & bpf_htons(IP6_OFFSET));

			s->l4 += 8;
			return header[0] == IPPROTO_TCP ? look_fragment(ctx, xdp, p, s, first) : NOT_OURS;
		}
		s->l4 += next == IPPROTO_AH ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		next = header[0];
	}
	if (next == IPPROTO_TCP)
		found = look_tcp(ctx, xdp, p, s);
	return found == SEGMENT ? BAD : found;
}

static __always_inline enum found look_ip6(void *ctx, const bool xdp, const struct flow_proxy *p,
					   struct segment *s)
{
	const struct ipv6hdr *ip = at(ctx, xdp, s->l3, sizeof(*ip));
	__u8 next;

	if (!ip || !packet_has_address(&ip->daddr, p->addr6) || ip->version != 6 ||
	    !(word(p->addr6, 0) | word(p->addr6, 1) | word(p->addr6, 2) | word(p->addr6, 3)))
		return NOT_OURS;
	next = ip->nexthdr;
	s->v6 = true;
	s->l4 = s->l3 + sizeof(*ip);
	s->length = ip->payload_len ? bpf_ntohs(ip->payload_len) + sizeof(*ip) : xdp ? 0 : s->there;
	s->tos = packet_word(ip, 0) & bpf_htonl(0x0fffffff);
	s->ttl = ip->hop_limit;
	s->protocol = next;
	read_address(s->key.src, &ip->saddr);
	read_address(s->key.dst, &ip->daddr);
	if (next == IPPROTO_TCP)
		return look_tcp(ctx, xdp, p, s);
	if (next == IPPROTO_ICMPV6)
		return xdp ? NOT_OURS : look_icmp6(ctx, p, s);
	return look_extensions(ctx, xdp, p, s, next);
}

/* Whether there is one of our options that is for user space: all that ask for, or prove,
 * something.
 */
static __always_inline bool for_user(void *ctx, const bool xdp, const struct segment *s)
{
	__u64 length = s->tcp_header - sizeof(struct tcphdr), pos = nothing;
	__u8 options[64] __attribute__((aligned(8))) = {};
	const void *first;

	if (!length)
		return false;
	first = at(ctx, xdp, s->l4 + sizeof(struct tcphdr), 4);
	/* Two NOPs and a timestamp are what nearly all segments have. */
	if (first && length == 12 && packet_word(first, 0) == bpf_htonl(0x0101080a))
		return false;
	/* The compiler knows this, the verifier does not. */
	asm volatile("" : "+r"(length));
	if (length < 4)
		return false;
	asm volatile("" : "+r"(length));
	if (length > 40)
		return false;
	if (xdp ? bpf_xdp_load_bytes(ctx, s->l4 + sizeof(struct tcphdr), options, length) :
		  bpf_skb_load_bytes(ctx, s->l4 + sizeof(struct tcphdr), options, length))
		return false;
	for (int i = 0; i < 40; i++) {
		__u8 kind, size;

		pos &= 63;
		if (pos + 5 > length)
			return false;
		kind = options[pos & 63];
		if (kind == 0)
			return false;
		if (kind == 1) {
			pos++;
			continue;
		}
		size = options[(pos + 1) & 63];
		if (size < 2)
			return false;
		if (kind == OPTION_KIND && size >= 5 && options[(pos + 2) & 63] == OPTION_EXID >> 8 &&
		    options[(pos + 3) & 63] == (OPTION_EXID & 0xff)) {
			const __u8 form = options[(pos + 4) & 63] >> 4;

			if (form == OPTION_MREQ || form == OPTION_CONFIRM || form == OPTION_MANS)
				return true;
		}
		pos += size;
	}
	return false;
}

/* A RST from where the end is no longer: it may be a box that has lost the connection. */
static __always_inline bool only_a_word(const struct flow *f, const struct segment *s)
{
	return f->late && s->flags & TCP_RST;
}

/* Just behind a proof. What is too long to be handed up whole is not worth less where it goes now. */
static __always_inline bool is_held(const struct flow *f, const struct segment *s, __u64 now)
{
	return (__u32)(now >> FLOW_HELD_SHIFT) - f->held < FLOW_HELD && s->length <= FLOW_EVENT_BYTES;
}

/* Where to, by the host's routes: what bpf_fib_lookup() returns. `bytes` of one packet on the
 * wire.
 */
static __always_inline long route(void *ctx, const struct segment *s, const struct flow *f, __u32 interface,
				  __u32 bytes, struct bpf_fib_lookup *fib)
{
	fib->family = s->v6 ? AF_INET6 : AF_INET;
	fib->l4_protocol = IPPROTO_TCP;
	fib->sport = f->sport;
	fib->dport = f->dport;
	fib->tot_len = bytes;
	fib->ifindex = interface;
	if (s->v6) {
		fib->flowinfo = s->tos;
		copy_address(fib->ipv6_src, s->key.dst);
		copy_address(fib->ipv6_dst, f->dst);
	} else {
		fib->tos = s->tos;
		fib->ipv4_src = word(s->key.dst, 3);
		fib->ipv4_dst = word(f->dst, 3);
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

/* A3.3. Several CPUs may be at it. */
static __always_inline void track_ack(struct flow *f, __u32 ack)
{
	__u32 last = f->ack;

	if (!(f->seen & FLOW_ACK)) {
		f->ack = ack;
		__sync_fetch_and_or(&f->seen, FLOW_ACK);
		return;
	}
	for (int i = 0; i < 3; i++) {
		__u32 was;

		if ((__s32)(ack - last) <= 0)
			return;
		was = __sync_val_compare_and_swap(&f->ack, last, ack);
		if (was == last)
			return;
		last = was;
	}
}

static __always_inline void track(struct flow *f, const struct segment *s, __u32 packets, __u64 now)
{
	const __u32 headers = s->l4 - s->l3 + s->tcp_header;
	const __u32 end = s->seq + s->length - headers + !!(s->flags & TCP_FIN);

	__sync_fetch_and_add(&f->packets, packets);
	__sync_fetch_and_add(&f->bytes, s->length + (packets - 1) * headers);
	/* Boxes say RST for ever in the name of who has left. */
	if (!(s->flags & TCP_RST))
		f->last_ns = now;
	if (s->flags & TCP_ACK)
		track_ack(f, s->ack);
	/* Who says more has not ended: it was somebody else who said so in its name. */
	if (s->flags & TCP_FIN) {
		f->fin_end = end;
		__sync_fetch_and_or(&f->seen, FLOW_FIN);
	} else if (f->seen & FLOW_FIN && (__s32)(end - f->fin_end) > 0) {
		__sync_fetch_and_and(&f->seen, ~FLOW_FIN);
	}
	if (s->flags & TCP_RST)
		__sync_fetch_and_or(&f->seen, FLOW_RST);
	else if (f->seen & FLOW_RST)
		__sync_fetch_and_and(&f->seen, ~FLOW_RST);
	count(FLOW_COUNT_RELAYED, packets);
}

/* ---- tc ---- */

static __always_inline bool one_more_event(const struct flow_proxy *p)
{
	const __u64 second = bpf_ktime_get_coarse_ns() / SECOND_NS;

	if (events_second != second) {
		events_second = second;
		events_made = 0;
	}
	return __sync_fetch_and_add(&events_made, 1) < p->events_per_second;
}

static __always_inline int to_user(struct __sk_buff *skb, const struct flow_proxy *p, const struct segment *s,
				   __u32 why, __u32 mtu)
{
	const __u32 zero = 0;
	struct flow_event *event = bpf_map_lookup_elem(&scratch, &zero);
	__u64 captured = s->length;

	if (!event || !one_more_event(p))
		goto lost;
	event->why = why;
	event->ifindex = skb->ifindex;
	event->length = s->length;
	event->mtu = mtu;
	if (captured > FLOW_EVENT_BYTES)
		captured = FLOW_EVENT_BYTES;
	event->captured = captured;
	/* The compiler knows this, the verifier does not. */
	asm volatile("" : "+r"(captured));
	if (captured < sizeof(struct iphdr))
		goto lost;
	asm volatile("" : "+r"(captured));
	if (captured > FLOW_EVENT_BYTES)
		goto lost;
	if (bpf_skb_load_bytes(skb, s->l3, event->packet, captured) ||
	    bpf_ringbuf_output(&events, event, offsetof(struct flow_event, packet) + captured, 0))
		goto lost;
	count(FLOW_COUNT_TO_USER, 1);
	return TC_ACT_SHOT;
lost:
	count(FLOW_COUNT_LOST, 1);
	return TC_ACT_SHOT;
}

/* What an skb that GRO or TSO has made of several will be on the wire. */
static __always_inline __u32 packets_of(const struct __sk_buff *skb, const struct segment *s)
{
	__u32 payload = s->length - (s->l4 - s->l3) - s->tcp_header;

	if (skb->gso_segs)
		return skb->gso_segs;
	return skb->gso_size && payload ? (payload + skb->gso_size - 1) / skb->gso_size : 1;
}

/* What changes in a header, as it is there. */
struct new4 {
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 src;
	__be32 dst;
	__be16 sport;		/* here if there are no IP options */
	__be16 dport;
};

struct new6 {
	__u8 not_used[3];
	__u8 hop_limit;
	__u8 src[16];
	__u8 dst[16];
	__be16 sport;
	__be16 dport;
};

static __always_inline long store_ip4(struct __sk_buff *skb, const struct segment *s, const struct flow *f)
{
	const struct new4 new = {
		.ttl = s->ttl - 1,
		.protocol = s->protocol,
		.check = updated(s->ip_check, f->sum_addresses + ttl_change(s)),
		.src = word(s->key.dst, 3),
		.dst = word(f->dst, 3),
		.sport = f->sport,
		.dport = f->dport,
	};
	const __u32 ttl = s->l3 + offsetof(struct iphdr, ttl);

	if (s->l4 - s->l3 == sizeof(struct iphdr))
		return bpf_skb_store_bytes(skb, ttl, &new, sizeof(new), 0);
	return bpf_skb_store_bytes(skb, ttl, &new, offsetof(struct new4, sport), 0) ?:
	       bpf_skb_store_bytes(skb, s->l4, &new.sport, 4, 0);
}

static __always_inline long store_ip6(struct __sk_buff *skb, const struct segment *s, const struct flow *f)
{
	const __u32 skipped = offsetof(struct new6, hop_limit);
	struct new6 new __attribute__((aligned(8))) = {
		.hop_limit = s->ttl - 1,
		.sport = f->sport,
		.dport = f->dport,
	};

	copy_address(new.src, s->key.dst);
	copy_address(new.dst, f->dst);
	return bpf_skb_store_bytes(skb, s->l3 + offsetof(struct ipv6hdr, hop_limit), &new.hop_limit,
				   sizeof(new) - skipped, 0);
}

/* Addresses, ports, TTL and checksums. The helpers know which of these the hardware is to
 * fill in, and keep what it has said of the packet's sum.
 */
static __always_inline long rewrite_skb(struct __sk_buff *skb, const struct segment *s, const struct flow *f)
{
	const __u32 check = s->l4 + offsetof(struct tcphdr, check);
	long failed = bpf_l4_csum_replace(skb, check, 0, f->sum_addresses, BPF_F_PSEUDO_HDR) ?:
		      bpf_l4_csum_replace(skb, check, 0, f->sum_ports, 0);

	if (failed)
		return failed;
	if (!s->v6)
		return store_ip4(skb, s, f);
	/* The first helper takes it that a checksum in the IP header makes up for the addresses in
	 * the packet's sum. Here nothing does, nor for the hop limit.
	 */
	bpf_csum_update(skb, fold(f->sum_addresses + ttl_change(s)));
	return store_ip6(skb, s, f);
}

static __always_inline int no_route(void)
{
	count(FLOW_COUNT_NO_ROUTE, 1);
	return TC_ACT_SHOT;
}

static __always_inline int too_big(struct __sk_buff *skb, const struct flow_proxy *p, const struct segment *s,
				   __u32 mtu)
{
	count(FLOW_COUNT_TOO_BIG, 1);
	return to_user(skb, p, s, FLOW_EVENT_TOO_BIG, mtu);
}

/* `raw`: packets of this interface have no Ethernet header; one that sends wants to take one away. */
static __always_inline int relay_skb(struct __sk_buff *skb, const bool raw, const struct flow_proxy *p,
				     const struct segment *s, struct flow *f, __u64 now)
{
	const __u32 packets = packets_of(skb, s);
	const __u32 headers = s->l4 - s->l3 + s->tcp_header;
	const __u32 bytes = packets > 1 && skb->gso_size ? headers + skb->gso_size : s->length;
	struct bpf_fib_lookup fib = {};
	struct bpf_redir_neigh next = {};
	bool routed = true;
	long found;

	if (s->ttl <= 1) {
		count(FLOW_COUNT_TTL, 1);
		return TC_ACT_SHOT;
	}
	/* What is longer than an IP packet can be is longer than any MTU. */
	found = route(skb, s, f, skb->ifindex, bytes > 0xffff ? 0xffff : bytes, &fib);
	if (found == BPF_FIB_LKUP_RET_FWD_DISABLED && p->only_interface) {
		__u32 mtu = 0;

		fib.ifindex = p->only_interface;
		bpf_check_mtu(skb, fib.ifindex, &mtu, 0, 0);
		if (mtu && bytes > mtu)
			return too_big(skb, p, s, mtu);
		routed = false;
	} else if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		return too_big(skb, p, s, fib.mtu_result);
	} else if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) {
		return no_route();
	}
	if (rewrite_skb(skb, s, f) || (raw && bpf_skb_change_head(skb, ETH_HLEN, 0)))
		return no_route();
	track(f, s, packets, now);
	/* Not with the addresses that are in fib already: a neighbour that nobody asks for is not
	 * looked for again when it moves.
	 */
	if (!routed)
		return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0);
	next.nh_family = fib.family;
	copy_address(next.ipv6_nh, fib.ipv6_dst);
	return bpf_redirect_neigh(fib.ifindex, &next, sizeof(next), 0);
}

static __always_inline int tc(struct __sk_buff *skb, const bool raw)
{
	const __u32 zero = 0;
	const __u64 now = bpf_ktime_get_coarse_ns();
	const struct flow_proxy *p = bpf_map_lookup_elem(&proxy, &zero);
	struct segment s = { .l3 = raw ? 0 : ETH_HLEN };
	enum found found = NOT_OURS;
	struct flow *f;

	/* What is in a VLAN comes again, on its own interface. */
	if (!p || skb->vlan_present || skb->pkt_type != PACKET_HOST || skb->len <= s.l3)
		return TC_ACT_UNSPEC;
	s.there = skb->len - s.l3;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		found = look_ip4(skb, false, p, &s);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		found = look_ip6(skb, false, p, &s);
	switch (found) {
	case NOT_OURS:
		return TC_ACT_UNSPEC;
	case FRAGMENT:
		count(FLOW_COUNT_FRAGMENTS, 1);
		return to_user(skb, p, &s, FLOW_EVENT_FRAGMENT, 0);
	case LATER_FRAGMENT:
		/* The host's stack, too, may be the one that waits for it. It is not, where it has not
		 * got the first one.
		 */
		count(FLOW_COUNT_FRAGMENTS, 1);
		to_user(skb, p, &s, FLOW_EVENT_FRAGMENT, 0);
		return TC_ACT_UNSPEC;
	case BAD:
		count(FLOW_COUNT_MALFORMED, 1);
		return TC_ACT_SHOT;
	case ICMP_ERROR:
		return to_user(skb, p, &s, FLOW_EVENT_ICMP, 0);
	case SEGMENT:
		break;
	}
	f = bpf_map_lookup_elem(&flows, &s.key);
	if (!f || s.flags & TCP_SYN || only_a_word(f, &s) || is_held(f, &s, now))
		return to_user(skb, p, &s, FLOW_EVENT_SEGMENT, 0);
	if (for_user(skb, false, &s)) {
		f->held = now >> FLOW_HELD_SHIFT;
		return to_user(skb, p, &s, FLOW_EVENT_SEGMENT, 0);
	}
	return relay_skb(skb, raw, p, &s, f, now);
}

SEC("tc")
int relay_tc(struct __sk_buff *skb)
{
	return tc(skb, false);
}

/* For interfaces whose packets have no link layer, such as tunnels. */
SEC("tc")
int relay_raw(struct __sk_buff *skb)
{
	return tc(skb, true);
}

/* ---- XDP ---- */

/* A neighbour that nobody but XDP asks for is not looked for again when it moves. So each flow
 * has one segment go by tc now and then, which does ask.
 */
#define REFRESH_SHIFT 34	/* 17 s */

struct tag {
	__be16 tci;
	__be16 protocol;	/* of what follows */
};

/* Where the IP header is, behind two VLAN tags at most; 0 if there is none. */
static __always_inline __u32 behind_tags(struct xdp_md *ctx, __be16 *protocol)
{
	const struct ethhdr *eth = at(ctx, true, 0, sizeof(*eth));
	__u32 l3 = sizeof(*eth);

	if (!eth)
		return 0;
	*protocol = eth->h_proto;
	for (int i = 0; i < 2; i++) {
		const struct tag *tag;

		if (*protocol != bpf_htons(ETH_P_8021Q) && *protocol != bpf_htons(ETH_P_8021AD))
			break;
		tag = at(ctx, true, l3, sizeof(*tag));
		if (!tag)
			return 0;
		*protocol = tag->protocol;
		l3 += sizeof(*tag);
	}
	return l3;
}

static __always_inline bool same_mac(const __u16 *a, const __u16 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static __always_inline void copy_mac(__u16 *to, const __u16 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
}

/* For one of the interface's addresses: a switch may send what is not. */
static __always_inline bool for_interface(struct xdp_md *ctx)
{
	const __u32 interface = ctx->ingress_ifindex;
	const struct flow_way *in = bpf_map_lookup_elem(&ways, &interface);
	const struct ethhdr *eth = at(ctx, true, 0, sizeof(*eth));

	return in && eth && same_mac((const __u16 *)in->mac, (const __u16 *)eth->h_dest);
}

/* As rewrite_skb(): but here all checksums are what they are on the wire. */
static __always_inline bool rewrite_xdp(struct xdp_md *ctx, const struct segment *s, const struct flow *f)
{
	struct tcphdr *tcp;

	if (s->v6) {
		struct ipv6hdr *ip = at(ctx, true, s->l3, sizeof(*ip));

		if (!ip)
			return false;
		ip->hop_limit = s->ttl - 1;
		write_address(&ip->saddr, s->key.dst);
		write_address(&ip->daddr, f->dst);
	} else {
		struct iphdr *ip = at(ctx, true, s->l3, sizeof(*ip));

		if (!ip)
			return false;
		ip->ttl = s->ttl - 1;
		ip->check = updated(s->ip_check, f->sum_addresses + ttl_change(s));
		set_packet_word(&ip->saddr, 0, word(s->key.dst, 3));
		set_packet_word(&ip->daddr, 0, word(f->dst, 3));
	}
	tcp = at(ctx, true, s->l4, sizeof(*tcp));
	if (!tcp)
		return false;
	tcp->source = f->sport;
	tcp->dest = f->dport;
	tcp->check = updated(tcp->check, (__u64)f->sum_addresses + f->sum_ports);
	return true;
}

/* The Ethernet header, with the VLAN's tag if the way out has one. */
static __always_inline bool set_link_layer(struct xdp_md *ctx, const struct segment *s, const struct flow_way *way,
					   const struct bpf_fib_lookup *fib)
{
	const __u32 length = sizeof(struct ethhdr) + (way->tag_protocol ? sizeof(struct tag) : 0);
	struct ethhdr *eth;

	if (length != s->l3 && bpf_xdp_adjust_head(ctx, (int)s->l3 - (int)length))
		return false;
	eth = at(ctx, true, 0, sizeof(*eth) + sizeof(struct tag));
	if (!eth)
		return false;
	copy_mac((__u16 *)eth->h_dest, (const __u16 *)fib->dmac);
	copy_mac((__u16 *)eth->h_source, (const __u16 *)fib->smac);
	eth->h_proto = s->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (way->tag_protocol) {
		struct tag *tag = (struct tag *)(eth + 1);

		tag->tci = way->tag;
		tag->protocol = eth->h_proto;
		eth->h_proto = way->tag_protocol;
	}
	return true;
}

SEC("xdp")
int relay_xdp(struct xdp_md *ctx)
{
	const __u32 zero = 0;
	const __u64 now = bpf_ktime_get_coarse_ns();
	const struct flow_proxy *p = bpf_map_lookup_elem(&proxy, &zero);
	const struct flow_way *way;
	struct bpf_fib_lookup fib = {};
	struct segment s = {};
	enum found found = NOT_OURS;
	__be16 protocol = 0;
	struct flow *f;
	__u64 there;

	s.l3 = behind_tags(ctx, &protocol);
	if (!p || !s.l3)
		return XDP_PASS;
	there = end_of(ctx, true) - start_of(ctx, true);
	/* Pointers are subtracted as what they are, not as 32-bit numbers. */
	asm volatile("" : "+r"(there));
	s.there = there - s.l3;
	if (protocol == bpf_htons(ETH_P_IP))
		found = look_ip4(ctx, true, p, &s);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		found = look_ip6(ctx, true, p, &s);
	if (found != SEGMENT || s.flags & TCP_SYN || s.ttl <= 1 || !for_interface(ctx))
		return XDP_PASS;
	f = bpf_map_lookup_elem(&flows, &s.key);
	if (!f || only_a_word(f, &s) || is_held(f, &s, now) ||
	    f->last_ns >> REFRESH_SHIFT != now >> REFRESH_SHIFT)
		return XDP_PASS;
	if (for_user(ctx, true, &s)) {
		f->held = now >> FLOW_HELD_SHIFT;
		return XDP_PASS;
	}
	if (route(ctx, &s, f, ctx->ingress_ifindex, s.length, &fib) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
	way = bpf_map_lookup_elem(&ways, &fib.ifindex);
	if (!way)
		return XDP_PASS;
	if (!rewrite_xdp(ctx, &s, f) || !set_link_layer(ctx, &s, way, &fib)) {
		count(FLOW_COUNT_NO_ROUTE, 1);
		return XDP_DROP;
	}
	track(f, &s, 1, now);
	return way->link == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(way->link, 0);
}
