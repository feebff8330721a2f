/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * migrate.pml - the migration state machine of one TCP connection: both ends,
 * what makes them move, and a network that loses, reorders and replays.
 *
 * One process takes one step at a time: an end receives a segment, the network
 * loses or replays one, an end moves, a daemon commands, a stranger resets, or
 * (only when nothing is under way) both ends' timers fire.  What an attacker
 * cannot do is forge a MAC: each message was made by an end; its *source
 * address* is not covered, so a replay may carry another one.
 *
 * The rules are those of docs/protocol.md; where the model showed that a rule must
 * be sharper, the wrong form is kept behind a switch and must fail (README).
 *
 * Properties, each an assertion with a name of its own:
 *   address_answered  an end commits to a remote address only if the peer,
 *                     there, received something fresh that this end made for
 *                     this attempt
 *   ends_agree        when nothing more would happen by itself, both ends have
 *                     the same tuple, at addresses where they are
 *   nobody_stranded   once losses, replays and moves end, agreement comes
 *                     within TICKS timer rounds
 *   number_room       the request numbers do not run away (two ends chasing)
 * and SPIN's own: no invalid end state (a state where nothing can happen, but
 * which is not agreement).
 */

/* How much of everything; overridden by the checks with -D. */
#ifndef MOVES
#define MOVES	2		/* of each end */
#endif
#ifndef MOVES_B
#define MOVES_B	MOVES		/* of the passive opener, if different */
#endif
#ifndef LOSSES
#define LOSSES	2
#endif
#ifndef REPLAYS
#define REPLAYS	1
#endif
#ifndef RSTS
#define RSTS	1		/* unsigned resets by a stranger */
#endif
#ifndef SEGS
#define SEGS	1		/* data segments at arbitrary times */
#endif
#ifndef TELLS
#define TELLS	1		/* migrate commands out of the blue */
#endif
#ifndef MBB
#define MBB	1		/* moves after which the old address lives on */
#endif
#ifndef RETRIES
#define RETRIES	1		/* retransmissions before giving up */
#endif
#ifndef LEN
#define LEN	4		/* segments under way per direction */
#endif
#ifndef TICKS
#define TICKS	12
#endif

/* Segments. */
#define MSYN	0	/* request (with SYN or without: the same machine) */
#define MANS	1	/* bound answer; a: the address its nonce was sent to */
#define CONF	2	/* proof over both nonces; a: as in the answer */
#define ACK	3	/* first segment after the passive commit, signed */
#define SEG	4	/* any other segment of the connection */

#define MSG(t, n, s, d, a)	(((t) << 10) | ((n) << 6) | ((s) << 4) | ((d) << 2) | (a))
#define TYPE(m)	((m) >> 10)
#define NUM(m)	(((m) >> 6) & 15)
#define SRC(m)	(((m) >> 4) & 3)
#define DST(m)	(((m) >> 2) & 3)
#define EVID(m)	((m) & 3)

/* Addresses of an end are 0 (first), 1, 2; 3 is a place where nobody is. */
#define VICTIM	3
#define NONE	3
#define BIT(a)	(1 << (a))

/* States: enum tcp_migrate_state. */
#define IDLE	0
#define SENT	1
#define CONFIRM	2
#define WAIT	3

typedef End {
	byte st;
	byte l, r;		/* the socket's tuple: local, remote */
	byte com;		/* last committed, or proved, request number ... */
	bit comown;		/* ... which was this end's own request */
	bit unconf;		/* own commit that the peer has not acknowledged */
	byte last;		/* highest own or valid seen number */
	byte pend;		/* the peer's request that was answered, 0: none */
	byte psrc;		/* where it came from (NONCE_PER_PEND only) */
	bit att;		/* an own attempt is under way: */
	byte an, al, ar;	/*   number, new local, new remote */
	bit trial, proved;	/*   trial; answered, CONFIRM sent */
	byte cnt;		/* retransmissions so far */
	byte loc;		/* where the host is */
	byte alive;		/* addresses at which it receives */
	byte moves;		/* left */
};

End e[2];			/* 0 is the active opener */
chan net[2] = [LEN] of { short };	/* [i]: towards end i; kept sorted */
short rec = -1;			/* what the attacker recorded ... */
bit rectowards;			/* ... and towards whom */
byte losses = LOSSES, replays = REPLAYS, rsts = RSTS, segs = SEGS, tells = TELLS, mbb = MBB;
byte ticks;

/* A step's choices; zero between steps. */
byte i, k;
short m;

/* Scratch inside a d_step, so it need not be part of the state (breadth-first
 * search cannot hide it: -DSCRATCH= there). */
#ifndef SCRATCH
#define SCRATCH	hidden
#endif
SCRATCH byte x, z, j, msgs;
SCRATCH short y;
SCRATCH byte address_answered, ends_agree, nobody_stranded, number_room;

#define DONE	i = 0; k = 0; m = 0

#define EMPTY	(len(net[0]) == 0 && len(net[1]) == 0)
#define QUIET	(EMPTY && e[0].st == IDLE && e[1].st == IDLE && !e[0].att && !e[1].att)
#define AGREE	(e[0].l == e[1].r && e[0].r == e[1].l && \
		 (e[0].alive & BIT(e[0].l)) && (e[1].alive & BIT(e[1].l)))

/* A number of the peer is newer than what this end committed.  Both ends may
 * have used the same number: then the active opener's request is the newer. */
#ifdef REQNO_EQUAL
#define VALID(i, n)	((n) == e[i].com + 1)
#elif defined(NO_TIE_BREAK)
#define VALID(i, n)	((n) > e[i].com)
#else
#define VALID(i, n)	((n) > e[i].com || ((n) == e[i].com && e[i].comown && (i) == 1))
#endif

inline send(who, type, num, from, to, evid)
{
	/* From an address that is gone nothing leaves; a full queue drops. */
	if
	:: (e[who].alive & BIT(from)) && len(net[1 - who]) < LEN ->
		net[1 - who]!!MSG(type, num, from, to, evid)
	:: else
	fi
}

inline send_request(i)
{
	if
	:: e[i].proved -> send(i, CONF, e[i].an, e[i].al, e[i].ar, e[i].al)
	:: else -> send(i, MSYN, e[i].an, e[i].al, e[i].ar, NONE)
	fi
}

/* Every attempt has a number, and so a nonce, of its own. */
inline start(i, newl, newr, istrial)
{
#ifdef REQNO_EQUAL
	e[i].an = e[i].com + 1;
#else
	e[i].last = e[i].last + 1;
	e[i].an = e[i].last;
#endif
	number_room = (e[i].an < 15);
	assert(number_room);
	e[i].att = 1;
	e[i].al = newl;
	e[i].ar = newr;
	e[i].trial = istrial;
	e[i].proved = 0;
	e[i].cnt = 0;
	send_request(i)
}

inline end_attempt(i)
{
	e[i].att = 0;
	e[i].an = 0;
	e[i].al = 0;
	e[i].ar = 0;
	e[i].trial = 0;
	e[i].proved = 0;
	e[i].cnt = 0
}

inline forget_pend(i)
{
	e[i].pend = 0;
	e[i].psrc = 0
}

/* An answered request stays if it is newer than what this end proved. */
inline drop_older_pend(i)
{
	if
	:: e[i].pend > 0 && !VALID(i, e[i].pend) -> forget_pend(i)
	:: else
	fi
}

/* The only place where a tuple changes.  evid: where the peer was when it
 * received the nonce which this end made for this attempt. */
inline commit(i, newl, newr, n, own, evid)
{
	address_answered = (evid == newr && newr != VICTIM);
	assert(address_answered);
	e[i].l = newl;
	e[i].r = newr;
	e[i].com = n;
	e[i].comown = own;
	e[i].unconf = own;
#ifdef FORGET_PEND
	forget_pend(i)
#else
	drop_older_pend(i)
#endif
}

/* Passive commit; an own attempt for another place goes on towards the peer's
 * new address under a new number, one for the same place has what it wanted. */
inline commit_passive(i, n, s, d, evid)
{
	commit(i, d, s, n, 0, evid);
	send(i, ACK, n, d, s, NONE);
	if
	:: e[i].att && e[i].al != d && (e[i].alive & BIT(e[i].al)) ->
		x = e[i].al;
		e[i].st = SENT;
		start(i, x, s, e[i].trial)
	:: else ->
		end_attempt(i);
		e[i].st = IDLE
	fi
}

/* As evidence an MSYN is worth nothing.  A look at what follows if it is taken
 * for some (then only the victim's address is left to object). */
#ifdef TRUST_MSYN
#define MSYN_EVIDENCE(s)	s
#else
#define MSYN_EVIDENCE(s)	NONE
#endif

inline got_msyn(i, n, s, d)
{
	if
	:: VALID(i, n) && n >= e[i].pend ->
		e[i].pend = n;
#ifdef NONCE_PER_PEND
		e[i].psrc = s;
#endif
		if
		:: n > e[i].last -> e[i].last = n
		:: else
		fi;
#ifdef COMMIT_ON_MSYN
		commit_passive(i, n, s, d, MSYN_EVIDENCE(s));
#endif
		/* The answer's nonce is made for this request *and* this source. */
		send(i, MANS, n, d, s, d)
	:: else
	fi
}

inline got_answer(i, n, s, d, a)
{
	if
	:: e[i].att && n == e[i].an && d == e[i].al && s == e[i].ar && !e[i].proved ->
		if
		:: e[i].trial ->
			e[i].proved = 1;
			e[i].cnt = 0;
#ifndef NO_FLOOR
			/* The peer may believe it from now on: nothing older may. */
			e[i].com = n;
			e[i].comown = 1;
			drop_older_pend(i);
#endif
			send_request(i)
		:: else ->
			commit(i, d, s, n, 1, a);
			end_attempt(i);
			e[i].st = CONFIRM;
			send(i, CONF, n, d, s, d)
		fi
	:: else
	fi
}

/* EVID of a CONFIRM is the address at which its sender received the nonce; the
 * nonce is bound to it, so a proof relayed from elsewhere does not verify. */
inline got_confirm(i, n, s, d, a)
{
	if
#ifdef NONCE_PER_PEND
	:: n == e[i].pend && VALID(i, n) && s == e[i].psrc ->
#else
	:: n == e[i].pend && VALID(i, n) && a == s ->
#endif
		commit_passive(i, n, s, d, a)
	:: else ->
		if
		:: n == e[i].com && !e[i].comown && s == e[i].r && d == e[i].l ->
			send(i, ACK, n, d, s, NONE)	/* ours was lost */
		:: else
		fi
	fi
}

/* The peer has committed.  signed: it said so itself, for this number. */
inline path_works(i, signed, n, s, d)
{
	if
	:: e[i].att && e[i].trial && e[i].proved && s == e[i].ar && d == e[i].al && (!signed || n == e[i].an) ->
		x = e[i].an;
		commit(i, d, s, x, 1, s);
		e[i].unconf = 0;
		end_attempt(i);
		e[i].st = IDLE
	:: else ->
		if
		:: s == e[i].r && d == e[i].l && (!signed || (n == e[i].com && e[i].comown)) ->
			e[i].unconf = 0;
			if
			:: e[i].st == CONFIRM || e[i].st == WAIT ->
				end_attempt(i);
				e[i].st = IDLE
			:: else
			fi
		:: else
		fi
	fi
}

#ifdef WAIT_ANY_SEG
#define MAY_RESUME(i)	1
#else
#define MAY_RESUME(i)	(!e[i].unconf)
#endif

inline got_seg(i, s, d)
{
#ifdef UNSIGNED_ACK
	path_works(i, 0, 0, s, d)
#else
	if
	:: e[i].st == WAIT && s == e[i].r && d == e[i].l && MAY_RESUME(i) ->
		end_attempt(i);
		e[i].st = IDLE
	:: else
	fi
#endif
}

inline receive(i, m)
{
	if
	:: (e[i].alive & BIT(DST(m))) == 0		/* nobody is there */
	:: else ->
		if
		:: TYPE(m) == MSYN -> got_msyn(i, NUM(m), SRC(m), DST(m))
		:: TYPE(m) == MANS -> got_answer(i, NUM(m), SRC(m), DST(m), EVID(m))
		:: TYPE(m) == CONF -> got_confirm(i, NUM(m), SRC(m), DST(m), EVID(m))
#ifdef UNSIGNED_ACK
		:: TYPE(m) == ACK -> path_works(i, 0, 0, SRC(m), DST(m))
#else
		:: TYPE(m) == ACK -> path_works(i, 1, NUM(m), SRC(m), DST(m))
#endif
		:: TYPE(m) == SEG -> got_seg(i, SRC(m), DST(m))
		fi
	fi
}

/* What a trail shows (spin -t); nothing else depends on it. */
#define TRACE(to, m) printf("%d type %d n %d, %d -> %d, evidence %d\n", \
	to, TYPE(m), NUM(m), SRC(m), DST(m), EVID(m))
#define SHOW_END(i) printf("\t[%d: st %d (%d,%d) com %d own %d pend %d att %d#%d (%d,%d) trial %d proved %d | at %d alive %d]\n", \
	i, e[i].st, e[i].l, e[i].r, e[i].com, e[i].comown, e[i].pend, e[i].att, e[i].an, \
	e[i].al, e[i].ar, e[i].trial, e[i].proved, e[i].loc, e[i].alive)
#define SHOW	SHOW_END(0); SHOW_END(1)

/* Any segment may be next, not only the first.  The rest keeps its order. */
inline take(i, k)
{
	msgs = len(net[i]);
	j = 0;
	do
	:: j < msgs ->
		net[i]?y;
		if
		:: j == k -> m = y
		:: else -> net[i]!y
		fi;
		j++
	:: else -> break
	od
}

/* Either end for which the condition holds; executable if there is one. */
#define CHOOSE(c0, c1)	if :: c0 -> i = 0 :: c1 -> i = 1 fi

/* Some segment that is under way: i towards whom, k which. */
inline choose_segment()
{
	if
	:: len(net[0]) > 0 -> i = 0; k = 0
	:: len(net[0]) > 1 -> i = 0; k = 1
	:: len(net[0]) > 2 -> i = 0; k = 2
	:: len(net[0]) > 3 -> i = 0; k = 3
	:: len(net[1]) > 0 -> i = 1; k = 0
	:: len(net[1]) > 1 -> i = 1; k = 1
	:: len(net[1]) > 2 -> i = 1; k = 2
	:: len(net[1]) > 3 -> i = 1; k = 3
	fi
}

/* A host is somewhere else; the daemon commands a migrate from there. */
inline move(i, to, keepold, istrial)
{
	ticks = 0;
	e[i].moves--;
	if
	:: keepold && (e[i].alive & BIT(e[i].l)) -> e[i].alive = BIT(e[i].l) | BIT(to)
	:: else -> e[i].alive = BIT(to)
	fi;
	e[i].loc = to;
	x = (istrial && e[i].st == IDLE && (e[i].alive & BIT(e[i].l)));
	e[i].st = SENT;
	z = e[i].r;
	start(i, to, z, x)
}

/* The old address goes; what relied on it is migrated in earnest. */
inline old_dies(i)
{
	ticks = 0;
	e[i].alive = BIT(e[i].loc);
	if
	:: e[i].att && (e[i].al != e[i].loc || e[i].trial) ->
		z = e[i].ar;
		e[i].st = SENT;
		start(i, e[i].loc, z, 0)
	:: !e[i].att && e[i].l != e[i].loc ->
		z = e[i].r;
		e[i].st = SENT;
		start(i, e[i].loc, z, 0)
	:: else
	fi
}

/* The server knows where both are now; that may be stale when it is used. */
inline told(i)
{
	e[i].st = SENT;
	z = e[1 - i].loc;
	start(i, e[i].loc, z, 0)
}

inline give_up(i)
{
	if
	:: e[i].trial && !e[i].proved ->
		end_attempt(i);
		e[i].st = IDLE
#ifdef TRIAL_SILENT_END
	:: e[i].trial && e[i].proved ->
		end_attempt(i);
		e[i].st = IDLE
#else
	:: e[i].trial && e[i].proved ->
		/* The peer may have committed: ask it back on the old tuple. */
		x = e[i].l;
		z = e[i].r;
		start(i, x, z, 0)
#endif
	:: else ->
		end_attempt(i);
		e[i].st = WAIT
	fi
}

inline timer(i, istold)
{
	if
	:: e[i].att && e[i].cnt < RETRIES ->
		e[i].cnt++;
		send_request(i)
	:: e[i].att && e[i].cnt >= RETRIES ->
		give_up(i)
	:: !e[i].att && e[i].st == CONFIRM && e[i].cnt < RETRIES ->
		e[i].cnt++;
		send(i, CONF, e[i].com, e[i].l, e[i].r, e[i].l)
	:: !e[i].att && e[i].st == CONFIRM && e[i].cnt >= RETRIES ->
		e[i].cnt = 0;
		e[i].st = WAIT
	:: !e[i].att && e[i].st == WAIT && istold ->
		told(i)
	:: else
	fi
}

inline tick(t0, t1)
{
	printf("tick %d\n", ticks);
	ticks++;
	nobody_stranded = (ticks <= TICKS);
	assert(nobody_stranded);
	timer(0, t0);
	timer(1, t1);
	SHOW
}

#define OLD_ALIVE(i)	(e[i].alive != BIT(e[i].loc))
#define SENDS(i)	(e[i].st == IDLE || e[i].st == CONFIRM || e[i].trial)
#define RESETTABLE(i)	((e[i].st == IDLE || e[i].st == CONFIRM) && (e[i].alive & BIT(e[i].l)))
#define APART(i)	(e[i].l != e[i].loc || e[i].r != e[1 - i].loc)
#define BOTH_WAIT (e[0].st == WAIT && e[1].st == WAIT && !e[0].att && !e[1].att)

inline setup(i, n)
{
	e[i].alive = BIT(0);
	e[i].moves = n
}

init {
	d_step { setup(0, MOVES); setup(1, MOVES_B) };
	do
	/* The network delivers, loses, records. */
	:: atomic { !EMPTY -> choose_segment();
		d_step { take(i, k); printf("gets: "); TRACE(i, m); receive(i, m); SHOW; DONE } }
	:: atomic { !EMPTY && losses > 0 -> choose_segment();
		d_step { take(i, k); printf("LOSES: "); TRACE(i, m); losses--; ticks = 0; DONE } }
	:: atomic { !EMPTY && replays > 0 && rec == -1 -> choose_segment();
		d_step { take(i, k); net[i]!!m; rec = m; rectowards = i; DONE } }
	:: atomic { replays > 0 && rec != -1 && nfull(net[rectowards]) ->
		if
		:: m = rec
		:: SRC(rec) != VICTIM -> m = rec | (VICTIM << 4)
		fi;
		d_step { printf("REPLAYED: "); TRACE(rectowards, m);
			net[rectowards]!!m; replays--; ticks = 0;
			rec = -1; rectowards = 0; DONE } }

	/* The hosts move: to a new place, or back. */
	:: atomic { CHOOSE((e[0].moves > 0), (e[1].moves > 0));
		if
		:: e[i].loc != 1 -> k = 1
		:: e[i].loc == 1 -> k = 0
		:: e[i].loc == 1 -> k = 2
		fi;
		if
		:: m = 0
#if MBB
		:: mbb > 0 -> m = 1; mbb--
		:: mbb > 0 && e[i].st == IDLE -> m = 2; mbb--
#endif
		fi;
		d_step { printf("%d MOVES to %d, mode %d (1 old lives, 2 trial)\n", i, k, m);
			move(i, k, m > 0, m > 1); SHOW; DONE } }
#if MBB
	:: atomic { CHOOSE(OLD_ALIVE(0), OLD_ALIVE(1));
		d_step { printf("%d old address dies\n", i); old_dies(i); SHOW; DONE } }
#endif

	/* Data; a stranger's reset; a command out of the blue. */
	:: atomic { segs > 0 && (SENDS(0) || SENDS(1)) ->
		CHOOSE(SENDS(0), SENDS(1));
		d_step { printf("%d DATA\n", i); segs--; send(i, SEG, 0, e[i].l, e[i].r, NONE); DONE } }
	:: atomic { rsts > 0 && (RESETTABLE(0) || RESETTABLE(1)) ->
		CHOOSE(RESETTABLE(0), RESETTABLE(1));
		d_step { printf("%d RESET by a stranger\n", i); rsts--; ticks = 0; e[i].st = WAIT; x = e[i].l; z = e[i].r;
			start(i, x, z, 0); DONE } }
	:: atomic { tells > 0 && (APART(0) || APART(1)) -> CHOOSE(APART(0), APART(1));
		d_step { printf("%d TOLD\n", i); tells--; ticks = 0; told(i); DONE } }

	/* Time passes only when nothing is under way. */
	:: atomic { EMPTY && !QUIET ->
		if
		:: k = 3			/* both WAITing ends are told, or one */
		:: BOTH_WAIT -> k = 1
		:: BOTH_WAIT -> k = 2
		fi;
		d_step { tick((k & 1), (k & 2)); DONE } }

	/* Nothing would happen by itself any more: this must be agreement. */
	:: atomic { QUIET ->
		ends_agree = AGREE;
		assert(ends_agree);
		break }
	od
}
