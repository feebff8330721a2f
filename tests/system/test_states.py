# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection is moved in every state TCP can be in, and nothing is lost.

Half closed, a FIN or its acknowledgment under way, a closed window, urgent data,
keepalives without a path, a program inside a system call. Both ends are sockets of
the test (ends.py). What holds: all data come, in order; the ends agree; nobody
is reset, except by an end that is really gone.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import time

import pytest

from conftest import VIRTUAL
from ends import Ends, Held, MOVES, Stream, fill, links
from tcplab import craft
from tcplab.topology import wait_for
from wire import SETTLE, SYN, Losing, Pair, Raw, changed

RTT = 0.05
SMALL = 0.006           # queues, and the rate of the links
RTTS = pytest.mark.parametrize("rtt", [0, RTT], ids=["rtt0", "rtt50"])
MOVERS = pytest.mark.parametrize("mover", ["a", "b"])
FINS = "tcp flags & fin == fin"
NO_FINS = "tcp flags & (fin | syn) == 0"


@pytest.fixture
def connect(make_lab):
    """Builds a lab for a mover and a connection in it; like= another in the same."""
    made = []

    def make(mover, rtt=RTT, like=None, **kw):
        lab = like.lab if like else make_lab(rtt=rtt, at=MOVES[mover][0])
        made.append(Ends(lab, mover, port=7100 + len(made), **kw))
        return made[-1]

    yield make
    for ends in made:
        for sock in (ends.a, ends.b, ends.listener):
            sock.close()


def one_each(connect, mover, rtt=RTT, **kw):
    """Two connections that move together; A plays the part in one, B in the other."""
    first = connect(mover, rtt, **kw)
    return [(first, "a"), (connect(mover, rtt, like=first, **kw), "b")]


def other(name):
    """The host at the other end."""
    return "b" if name == "a" else "a"


def towards(ends, name):
    """Matches what goes to a host."""
    return f"tcp {'dport' if name == 'b' else 'sport'} {ends.listener.getsockname()[1]}"


def shut(sock):
    """Nothing more will be written."""
    sock.shutdown(socket.SHUT_WR)


def took(began, limit):
    """It was not later than it should be, on virtual time."""
    passed = time.monotonic() - began
    assert not VIRTUAL or passed <= limit, f"took {passed:.4f} s, not {limit:.4f} s"


# ---- The end of one direction, or of both ----

@RTTS
@MOVERS
def test_half_closed(connect, mover, rtt):
    """One end has closed, the other is in the middle of what it has to say."""
    cases = one_each(connect, mover, rtt)
    streams = []
    for ends, closer in cases:
        quiet, talker = ends.sides(closer)
        shut(quiet)
        assert talker.recv(1) == b""
        streams.append(Stream(talker, quiet, 600_000))
    for stream in streams:
        stream.until(150_000)
    cases[0][0].move()
    for stream, (ends, closer) in zip(streams, cases, strict=True):
        stream.finish()
        ends.settled()
        assert ends.tcp_state(ends.lab.hosts[closer]) == "fin-wait-2"
        ends.close_second(closer)
    for ends, _ in cases:
        ends.not_reset()


@RTTS
@MOVERS
def test_fin_is_lost(connect, mover, rtt):
    """FIN_WAIT1: the FIN, with the last data, got lost on the old path."""
    cases = one_each(connect, mover, rtt)
    last = os.urandom(3000)
    with Losing(cases[0][0].lab.net, FINS) as losing:
        for ends, closer in cases:
            ends.sides(closer)[0].sendall(last)
            shut(ends.sides(closer)[0])
        losing.lost(2)
        for ends, closer in cases:
            ends.in_state(ends.lab.hosts[closer], "fin-wait-1")
        cases[0][0].move()
    for ends, closer in cases:
        one, two = ends.sides(closer)
        ends.hear(two, last)
        assert two.recv(1) == b""
        ends.settled()
        ends.say(two, one)
        ends.close_second(closer)
    for ends, _ in cases:
        ends.not_reset()


@pytest.mark.virtual
def test_orphan_is_gone_in_time_though_the_peer_moves(make_lab):
    """FIN_WAIT2, and the program is gone: the time that TCP_LINGER2 gives is not begun anew by a move of the peer."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    with Pair(lab) as pair:
        pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        pair.b.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 100)
        pair.b.close()
        began = time.monotonic()
        time.sleep(20)
        lab.a.move("core")
        wait_for("A to have moved", lambda: pair.conn(lab.a)["migrations"] == 1, 10)
        wait_for("B to forget it", lambda: not lab.b.connections(), 200, 0.1)
        # The last minute is TIME_WAIT's.
        assert time.monotonic() - began < 100 - 60 + 5


@RTTS
@MOVERS
def test_fin_came_and_its_ack_is_lost(connect, mover, rtt):
    """FIN_WAIT1 and CLOSE_WAIT: one end does not know that the other knows."""
    cases = one_each(connect, mover, rtt)
    match = " ; ".join(f"{NO_FINS} {towards(ends, closer)} counter drop" for ends, closer in cases)
    with Losing(cases[0][0].lab.net, match) as losing:
        for ends, closer in cases:
            one, two = ends.sides(closer)
            shut(one)
            assert two.recv(1) == b""
        losing.lost(2)
        for ends, closer in cases:
            ends.in_state(ends.lab.hosts[closer], "fin-wait-1")
            assert ends.tcp_state(ends.lab.hosts[other(closer)]) == "close-wait"
        cases[0][0].move()
    for ends, closer in cases:
        one, two = ends.sides(closer)
        ends.in_state(ends.lab.hosts[closer], "fin-wait-2")
        ends.settled()
        ends.say(two, one)
        ends.close_second(closer)
    for ends, _ in cases:
        ends.not_reset()


@RTTS
@MOVERS
def test_last_fin_is_lost(connect, mover, rtt):
    """LAST_ACK: both programs have closed; the second FIN got lost on the old path."""
    cases = one_each(connect, mover, rtt)
    last = os.urandom(3000)
    for ends, closer in cases:
        one, two = ends.sides(closer)
        shut(one)
        assert two.recv(1) == b""
    with Losing(cases[0][0].lab.net, FINS) as losing:
        for ends, closer in cases:
            two = ends.sides(closer)[1]
            two.sendall(last)
            two.close()
        losing.lost(2)
        for ends, closer in cases:
            ends.in_state(ends.lab.hosts[other(closer)], "last-ack")
        cases[0][0].move()
    for ends, closer in cases:
        one = ends.sides(closer)[0]
        ends.hear(one, last)
        assert one.recv(1) == b""
        one.close()
        ends.gone()
    for ends, _ in cases:
        ends.not_reset()


@RTTS
@MOVERS
def test_closing(connect, mover, rtt):
    """CLOSING at both ends: the FINs have crossed, their acknowledgments are lost."""
    ends = connect(mover, rtt)
    with Losing(ends.lab.net, NO_FINS) as losing:
        shut(ends.a)
        shut(ends.b)
        for host in ends.hosts:
            ends.in_state(host, "closing")
        losing.lost(2)
        ends.move()
    for sock in (ends.a, ends.b):
        assert sock.recv(1) == b""
        sock.close()
    ends.gone()
    ends.not_reset()


@pytest.mark.virtual
@MOVERS
def test_program_is_gone_with_data_queued(connect, mover):
    """An orphan in FIN_WAIT1: the move saves what nobody can write again."""
    cases = one_each(connect, mover)
    data = os.urandom(100_000)
    for ends, closer in cases:
        one = ends.sides(closer)[0]
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        one.sendall(data)
        one.close()
    cases[0][0].move()
    for ends, closer in cases:
        two = ends.sides(closer)[1]
        ends.hear(two, data)
        assert two.recv(1) == b""
        two.close()
        ends.gone()
    for ends, _ in cases:
        ends.not_reset()


# ---- The end of a program ----

def rest_and_move(connect, mover):
    """Connections at rest; when those have been dealt with, some that have moved."""
    cases = one_each(connect, mover)
    yield from cases
    cases = [(connect(mover, like=cases[0][0]), name) for name in "ab"]
    cases[0][0].move()
    for ends, _ in cases:
        ends.settled()
    yield from cases


@MOVERS
def test_close_with_unread_data_is_seen_at_once(connect, mover):
    """Really gone: the other end's program learns it in half a round trip."""
    for ends, closer in rest_and_move(connect, mover):
        one, two = ends.sides(closer)
        two.sendall(b"not read")
        time.sleep(SETTLE)
        began = time.monotonic()
        one.close()
        with pytest.raises(ConnectionResetError):
            two.recv(1)
        took(began, RTT / 2 + SMALL)
        ends.gone()
    ends.not_reset()


@MOVERS
def test_data_for_a_closed_program_are_refused_at_once(connect, mover):
    """An orphan in FIN_WAIT2 takes no data: the sender learns it in one round trip."""
    for ends, closer in rest_and_move(connect, mover):
        one, two = ends.sides(closer)
        host = ends.lab.hosts[other(closer)]
        one.close()
        assert two.recv(1) == b""
        time.sleep(SETTLE)
        before, began = host.counters(), time.monotonic()
        two.sendall(b"anybody there?")
        poll = select.poll()
        poll.register(two, 0)
        poll.poll(10_000)
        took(began, RTT + SMALL)
        # The program had its end of data already: EPIPE, as in plain TCP.
        assert two.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.EPIPE, errno.ECONNRESET)
        delta = changed(host, before)
        assert delta.get("RstAuth") == 1 and "Wait" not in delta, delta
        ends.gone()
    ends.not_reset()


# ---- Closed window ----

def small_window(sock):
    """So that little closes it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)


@RTTS
@MOVERS
def test_closed_window(connect, mover, rtt):
    """The reader reads only after the move: by then the sender hardly ever asks."""
    cases = one_each(connect, mover, rtt, prepare=small_window)
    data = [fill(ends.sides(sender)[0]) for ends, sender in cases]
    time.sleep(30)
    cases[0][0].move()
    for (ends, sender), expected in zip(cases, data, strict=True):
        ends.settled()
        began = time.monotonic()
        ends.hear(ends.sides(sender)[1], expected)
        took(began, 1 + 2 * rtt)
        ends.talk()
        ends.close_both()


@MOVERS
def test_closed_window_and_lost_update(connect, mover):
    """Only the persist timer can help: it must run after the move."""
    cases = one_each(connect, mover, prepare=small_window)
    data = [fill(ends.sides(sender)[0]) for ends, sender in cases]
    cases[0][0].move()
    for (ends, sender), expected in zip(cases, data, strict=True):
        ends.settled()
        into = ends.sides(sender)[1]
        with Losing(ends.lab.net, towards(ends, sender)) as losing:
            first = into.recv(1 << 20)
            losing.lost()
            time.sleep(0.1)
        assert expected.startswith(first)
        began = time.monotonic()
        ends.hear(into, expected[len(first):])
        took(began, 60)
        ends.talk()
        ends.close_both()


@pytest.mark.virtual
@MOVERS
@pytest.mark.parametrize("end", ["probe", "move"])
def test_closed_window_and_no_path_for_a_minute(connect, end, mover):
    """Nobody answers at the new place: MIG_WAIT, in which TCP's own probes must not
    run to their limit. Then a probe of ours gets through, or a command comes."""
    cases = one_each(connect, mover, prepare=small_window)
    first = cases[0][0]
    for host in first.hosts:
        host.sysctl("net.ipv4.tcp_retries2", 3)
        host.sysctl("net.tcp_migrate.syn_retries", 1)
    data = [fill(ends.sides(sender)[0]) for ends, sender in cases]
    with Losing(first.lab.net):
        first.move()
        for ends, _ in cases:
            ends.sub_state(ends.mover, "mig-wait")
        time.sleep(60)
        assert [ends.conn(ends.mover)["state"] for ends, _ in cases] == ["mig-wait"] * 2
    if end == "move":
        first.mover.move("n1" if first.mover is first.lab.a else "g1")
    for (ends, sender), expected in zip(cases, data, strict=True):
        ends.settled()
        ends.hear(ends.sides(sender)[1], expected)
        ends.talk()
        ends.close_both()


# ---- Urgent data ----

def at_mark(sock):
    """Whether the next byte is the urgent one."""
    return struct.unpack("i", fcntl.ioctl(sock, 0x8905, b"\0\0\0\0"))[0] == 1


def hear_urgent(ends, sock, before, byte, after):
    """The urgent byte is announced, and comes between what was before and after it."""
    poll = select.poll()
    poll.register(sock, select.POLLPRI)
    assert poll.poll(60_000), "no urgent data"
    for i in range(0, len(before), 500):
        assert not at_mark(sock), f"urgent after {i} bytes already"
        ends.hear(sock, before[i:i + 500])
    assert at_mark(sock)
    assert sock.recv(1, socket.MSG_OOB) == byte
    ends.hear(sock, after)


@MOVERS
def test_urgent_byte(connect, mover):
    """It has come, or is under way, or is sent during the move or after it."""
    before, after = os.urandom(4000), os.urandom(4000)
    cases = {"unread": one_each(connect, mover)}
    first = cases["unread"][0][0]
    for when in ("lost", "gated", "after"):
        cases[when] = [(connect(mover, like=first), name) for name in "ab"]

    def say(when):
        for ends, sender in cases[when]:
            out = ends.sides(sender)[0]
            out.sendall(before)
            out.send(b"U", socket.MSG_OOB)
            out.sendall(after)

    say("unread")
    time.sleep(SETTLE)
    with Losing(first.lab.net, "tcp flags & syn == 0") as losing:
        say("lost")
        losing.lost(6)
        first.move()
    say("gated")
    for when in ("unread", "lost", "gated"):
        for ends, _ in cases[when]:
            ends.settled()
    say("after")
    for when, pairs in cases.items():
        for ends, sender in pairs:
            hear_urgent(ends, ends.sides(sender)[1], before, b"U", after)
            ends.settled()
            ends.talk()
            ends.close_both()


# ---- Timers and queues ----

@MOVERS
def test_nothing_is_written_and_the_queue_goes_out(connect, mover):
    """The last flight was lost on the old path; the program writes no more."""
    ends = connect(mover)
    out, into = ends.sides(mover)
    data = os.urandom(6000)
    with Losing(ends.lab.net, "tcp flags & syn == 0") as losing:
        out.sendall(data)
        losing.lost(5)
        ends.move()
        began = time.monotonic()
    ends.hear(into, data)
    # Request, answer, data: no retransmission time-out in between.
    took(began, 1.5 * RTT + SMALL)
    ends.settled()
    new = ends.mover.point
    segs = [s for s in ends.lab.segments(ends.mover.name) if s.out and ends.port in (s.sport, s.dport)]
    first = next(i for i, s in enumerate(segs) if s.src == new.v4)
    assert {s.src for s in segs[first:]} == {new.v4}
    assert next(s.migrate for s in segs[first:]) == ["MREQ"]
    assert sum(s.length for s in segs[first:]) == len(data)


@pytest.mark.virtual
@pytest.mark.parametrize("rtt", [0.002, RTT], ids=["rtt2", "rtt50"])
def test_queue_is_full_when_the_peer_commits(connect, rtt):
    """B's device takes nothing of what B sends first on the new path: no time-out of 1 s."""
    ends = connect("a global", rtt)
    lab = ends.lab
    stream = Stream(ends.b, ends.a, 400_000).until(200_000)
    before = lab.b.counters()
    ends.move()
    wait_for("the answer", lambda: changed(lab.b, before).get("AnswerSent"), 5, 0.0005)
    # The answer has left by then; its CONFIRM comes a round trip after it.
    time.sleep(0.8 * rtt)
    dev = lab.b.point.dev
    lab.b.run(f"tc qdisc replace dev {dev} root bfifo limit 1")
    wait_for("the commit", lambda: changed(lab.b, before).get("Commit"), 5, 0.0005)
    time.sleep(0.03)
    lab.b.run(f"tc {lab.link_at(lab.b.point.place).netem(dev)}")
    began = time.monotonic()
    stream.finish()
    # The next try, then slow start and the link's rate.
    took(began, 0.02 + 5 * rtt + 0.05)
    ends.settled()
    ends.close_both()


@RTTS
@pytest.mark.parametrize("buffer", [0, 60_000], ids=["unbounded", "window-full"])
def test_napt_does_not_reset_when_much_is_in_flight(connect, buffer, rtt):
    """Both send at full rate; the mover's new NAPT takes every segment for what it is.

    It has seen nothing of what the old path brought: neither a SACK nor a sequence
    number may be beyond what came through it. With a small buffer and a reader that
    pauses, SND.NXT is at the very end of the window.
    """
    def bounded(sock):
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)

    ends = connect("a", rtt, prepare=bounded)
    streams = [Stream(*ends.sides(first)) for first in "ab"]
    for stream in streams:
        stream.until(200_000)
    before = [host.counters() for host in ends.hosts]
    ends.move()
    ends.settled()
    for stream in streams:
        stream.finish()
    for host, old in zip(ends.hosts, before, strict=True):
        assert "Wait" not in changed(host, old)
    assert ends.resets_of_boxes() == []


@pytest.mark.virtual
@MOVERS
def test_data_written_without_any_path(connect, mover):
    """Both write while there is no address at all, more than their buffers hold."""
    ends = connect(mover)
    streams = [Stream(*ends.sides(first), 300_000) for first in "ab"]
    old = ends.mover.point
    ends.mover.detach(old)
    time.sleep(20)
    new = ends.mover.attach(ends.to)
    ends.lab.migrator(ends.mover, old, new, False)
    for stream in streams:
        stream.finish()
    ends.settled()
    ends.close_both()


def watchful(sock):
    """Keepalives every second; three unanswered ones are the end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


@pytest.mark.virtual
@MOVERS
def test_keepalives_in_vain(connect, mover):
    """Both ends give up on the path, neither on the connection, nor do they say RST."""
    ends = connect(mover, prepare=watchful)
    old = ends.mover.point
    ends.mover.detach(old)
    for host in ends.hosts:
        ends.sub_state(host, "mig-wait", 10)
        assert ends.conn(host)["reason"] == "retries"
        assert host.counters()["RstSigned"] == 0
    time.sleep(30)
    new = ends.mover.attach(ends.to)
    ends.lab.migrator(ends.mover, old, new, False)
    ends.settled()
    ends.talk()
    # They are on again: an unreachable peer is noticed once more.
    with Losing(ends.lab.net):
        for host in ends.hosts:
            ends.sub_state(host, "mig-wait", 10)
    ends.settled(timeout=40)
    ends.talk()
    ends.close_both()


# ---- The socket is in use ----

@MOVERS
@pytest.mark.parametrize("what", ["request", *(pytest.param(what, marks=pytest.mark.virtual)
                                               for what in ("answer", "confirm"))])
def test_segment_of_the_handshake_meets_a_busy_socket(connect, what, mover):
    """A program is inside send() when it comes: it is dealt with as soon as send() ends."""
    ends = connect(mover)
    peer = "b" if mover == "a" else "a"
    mine, theirs = ends.sides(mover)
    began = time.monotonic()
    if what == "request":
        held = Held(theirs)
        ends.move()
    elif what == "answer":
        ends.move()
        held = Held(mine)
    else:
        ends.move()
        # The answer is out by then, the proof is not yet there.
        time.sleep(max(0, began + 1.2 * RTT - time.monotonic()))
        held = Held(theirs)
    time.sleep(8 * RTT)
    before = ends.lab.hosts[mover if what == "answer" else peer].counters()
    released = time.monotonic()
    data = held.release()
    ends.hear(*((theirs, data) if what == "answer" else (mine, data)))
    # What the request starts takes three half round trips more, the answer one. What
    # send() has put into the device's queue a moment before the CONFIRM is looked at
    # is repeated by a time-out only (docs/protocol.md, limits): 1 s, then in slow start.
    took(released, {"request": 1.5 * RTT, "answer": 0.5 * RTT, "confirm": 1 + 4 * RTT}[what] + SMALL)
    delta = changed(ends.lab.hosts[mover if what == "answer" else peer], before)
    assert delta["Commit"] == 1, delta
    ends.settled()
    ends.talk()
    ends.close_both()


# ---- The end of a host ----

def vanishes(lab, name, at, limit, every):
    """A host's namespace is deleted; its link at a box goes within a time."""
    lab.captures.pop(name).stop()
    host = lab.hosts.pop(name)
    peer = host.point.peer
    assert peer in links(lab, at)
    began = time.monotonic()
    lab.net.run(["ip", "netns", "delete", name])
    wait_for(f"{name}'s namespace to be gone", lambda: peer not in links(lab, at), 2 * limit, every)
    took(began, limit)
    assert "unregister_netdevice" not in lab.net.run("dmesg").stdout


@pytest.mark.virtual
@pytest.mark.parametrize("state", ["mig-sent", "mig-wait", "reset"])
def test_namespace_goes_while_a_connection_waits(connect, state):
    """Nothing holds on to it for longer than an orphan may wait; no veth stays."""
    ends = connect("a")
    lab = ends.lab
    lab.a.sysctl("net.tcp_migrate.syn_retries", 1 if state == "mig-wait" else 7)
    with Losing(lab.net):
        ends.move()
        ends.sub_state(lab.a, "mig-sent" if state == "mig-sent" else "mig-wait")
        ends.a.sendall(b"never to be sent")
        if state == "reset":
            ends.a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends.a.close()
        # net.tcp_migrate.wait_orphan, after the repetitions; at once, if it was reset.
        if state == "reset":
            vanishes(lab, "a", ends.to, 1, 0.5)
        else:
            vanishes(lab, "a", ends.to, 60 + 40, 5)


@pytest.mark.virtual
def test_namespace_goes_while_a_proof_is_awaited(connect):
    """The same at the end that has answered a request, and hears no more."""
    ends = connect("a")
    lab = ends.lab
    before = lab.b.counters()
    with Losing(lab.net, f"tcp flags & syn == 0 {towards(ends, 'b')}"):
        ends.move()
        wait_for("the answer", lambda: changed(lab.b, before).get("AnswerSent"), 5)
        ends.b.sendall(b"never to be heard")
        ends.b.close()
        ends.listener.close()
        # TCP's own retries of an orphan, and MIG_WAIT of one.
        vanishes(lab, "b", "net", 300, 5)


# ---- Sockets come and go ----

def test_requests_for_connections_that_are_gone(connect):
    """Requests to the tokens of closed connections, whose memory others have by now."""
    ends = connect("a global")
    lab = ends.lab
    ends.learn()
    raw = Raw(lab.s)
    before = lab.b.counters()
    tokens = []
    for _ in range(40):
        with lab.a.inside():
            a = socket.create_connection((lab.b.v4, 7100))
        b = ends.listener.accept()[0]
        for out, into in ((a, b), (b, a), (a, b)):
            out.sendall(b"hello")
            assert into.recv(5) == b"hello"
        tokens += [c["token-local"] for c in lab.b.connections() if c["remote-port"] == a.getsockname()[1]]
        a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        a.close()
        b.close()
        raw.send([ends.msyn(lab.s.v4, 4000 + i, token=token, wrong=bool(i % 2))
                  for i, token in enumerate([*tokens[-4:], ends.token_b])])
    raw.close()
    time.sleep(SETTLE)
    assert len(tokens) == 40
    delta = changed(lab.b, before)
    # The one of the live connection has a good MAC, but its address proves nothing.
    assert delta["MsynRcvd"] + delta.get("BadMac", 0) + delta["NoToken"] == 5 * 40 - 6, delta
    assert "Commit" not in delta
    ends.move()
    ends.settled()
    ends.talk()


def time_waits(host):
    """How many connections rest in TIME_WAIT."""
    return len(host.run("ss -Htan state time-wait").stdout.splitlines())


@pytest.mark.parametrize("closer", ["a", "b"])
def test_time_wait_on_the_new_tuple(connect, closer):
    """Of another connection, at either end: forged requests do not harm it; to the connection that moves there it
    gives way."""
    ends = connect("a global")
    lab, host = ends.lab, ends.lab.hosts[closer]
    ends.learn()
    old, new = lab.a.point, lab.a.attach("core")
    with lab.a.inside():
        mine = socket.create_connection((lab.b.v4, 7100), source_address=(new.v4, ends.port))
    theirs, _ = ends.listener.accept()
    one, two = (mine, theirs) if closer == "a" else (theirs, mine)
    one.close()
    assert two.recv(1) == b""
    two.close()
    time.sleep(SETTLE)
    assert time_waits(host) == 1
    before, raw = host.counters(), Raw(lab.s)
    for token in (0, 1):    # another one; the right one, and a wrong MAC
        if closer == "a":
            opt = ends.mreq(ends.token_a ^ 1 ^ token, ends.next_b - 1, flags=0, wrong=True)
            raw.send([craft.packet(lab.b.v4, new.v4, 7100, ends.port, SYN, ends.next_b - 1, 0, opt)])
        else:
            raw.send([ends.msyn(new.v4, token=ends.token_b ^ 1 ^ token, wrong=True)])
    raw.close()
    time.sleep(SETTLE)
    assert changed(host, before) == {"NoToken": 1, "BadMac": 1}
    assert time_waits(host) == 1
    lab.migrator(lab.a, old, new, False)
    ends.settled()
    assert time_waits(host) == 0
    lab.a.detach(old)
    ends.talk()


@pytest.mark.virtual
def test_the_peer_rests_in_time_wait(connect):
    """A, in LAST_ACK, asks for what B has forgotten: refused, and gone after 32 s of that and 60 s of waiting."""
    ends = connect("a global")
    lab = ends.lab
    shut(ends.b)
    assert ends.a.recv(1) == b""
    with Losing(lab.net, f"{NO_FINS} {towards(ends, 'a')}") as losing:
        ends.a.close()
        losing.lost(1)
        ends.b.close()
        before = lab.b.counters()
        ends.move()
    time.sleep(SETTLE)
    assert changed(lab.b, before)["NoToken"] == 2       # at once and after 0.25 s
    assert ends.conn(lab.a)["state"] == "mig-sent" and time_waits(lab.b) == 1
    time.sleep(32 + 60 + 2)
    assert not lab.a.connections() and not lab.b.connections()
