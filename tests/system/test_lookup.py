# SPDX-License-Identifier: GPL-2.0-or-later
"""Which connection a segment is for: by token, by a tuple that was left, by a tombstone.

No look-up may give a segment to a socket that cannot take it, or take one from
a connection that has more right to it. A, B and S are at places of their own.
"""

import contextlib
import socket
import struct
import time

import pytest

from tcplab import capture, craft
from tcplab.genl import TRIAL
from tcplab.topology import wait_for
from wire import ACK, PORT, RST, SETTLE, SYN, SYN_OPTIONS, Losing, Pair, Raw, changed, families, inject, settled

RTT = 0.05
AT = {"a": "g2", "b": "g1", "s": "core"}
TCP_REPAIR = 19


@pytest.fixture
def pair(make_lab, request):
    """A connection between A and B, RTT apart, of which S knows all that was seen."""
    lab = make_lab(rtt=RTT, at=AT)
    with Pair(lab, a=getattr(request, "param", "4")) as p:
        p.learn()
        yield p


def heard(host, port):
    """What has come for a port of a host."""
    time.sleep(0.02)
    return [s for s in capture.read(host.lab.captures[host.name].path) if not s.out and s.dport == port]


# ---- By token ----

@families("4", "6", "mapped")
def test_token_in_a_request_of_the_other_family(pair):
    """A socket cannot take a segment of the other family: it is as of a token that nobody has."""
    lab = pair.lab
    v6 = pair.families["a"] == "6"
    source, target = (lab.s.v4, lab.b.v4) if v6 else (lab.s.v6, lab.b.v6)
    seq = pair.next_a - 1
    msyn = craft.packet(source, target, 5555, PORT, SYN, seq, 0, SYN_OPTIONS + pair.mreq(pair.token_b, seq))
    before = lab.b.counters()
    inject(lab.s, *[msyn] * 3)
    assert changed(lab.b, before) == {"NoToken": 3}
    assert [s.flags for s in heard(lab.s, 5555)] == [RST | ACK] * 3
    pair.unharmed()


@families("4", "6")
def test_token_in_an_answer_of_the_other_family(pair):
    """Nor one without SYN, at the moment at which A waits for an answer."""
    lab = pair.lab
    v6 = pair.families["a"] == "6"
    with Losing(lab.net, "tcp flags & (syn | ack) == (syn | ack)"):
        lab.a.move("core")
        before = lab.a.counters()
        source, target = (lab.s.v4, lab.a.v4) if v6 else (lab.s.v6, lab.a.v6)
        seq = pair.next_b - 1
        answer = craft.packet(source, target, PORT, pair.port, SYN | ACK, seq, pair.next_a,
                              SYN_OPTIONS + pair.mreq(pair.token_a, seq, sub=6, flags=0))
        inject(lab.s, answer)
        assert not {"BadAnswer", "BadMac", "AnswerRcvd"} & set(changed(lab.a, before))
    settled(pair, lab.a, 1)
    pair.unharmed(moves=1)


def test_namespace_that_is_off_answers_as_any(pair):
    """With enabled 0 a SYN whose option names no connection opens one, as it does without the extension."""
    lab = pair.lab
    lab.b.sysctl("net.tcp_migrate.enabled", 0)
    seq = pair.next_a - 1
    msyn = craft.packet(lab.s.v4, lab.b.v4, 5555, PORT, SYN, seq, 0, SYN_OPTIONS + pair.mreq(pair.token_b ^ 1, seq))
    inject(lab.s, msyn)
    assert [s.flags for s in heard(lab.s, 5555)][0] == SYN | ACK
    pair.unharmed()


# ---- By a tuple that is asked for ----

class Second(Pair):
    """One more connection to the listener of another pair."""

    def __init__(self, first: Pair, **kw):
        self.first = first
        super().__init__(first.lab, **kw)

    def _listen(self, host, port):
        return self.first.listener


def test_request_for_a_tuple_keeps_nobody_out(pair):
    """S asks, for a connection of its own, from where A is about to be: A moves there all the same."""
    lab = pair.lab
    with Second(pair, opener="s") as other:
        other.learn()
        new = lab.a.attach("core")
        inject(lab.s, other.msyn(new.v4, pair.port))
        before = lab.b.counters()
        lab.migrator(lab.a, lab.a.points[0], new, False)
        lab.a.detach(lab.a.points[0])
        settled(pair, lab.a, 1)
        settled(pair, lab.b, 1)
        assert "TupleInUse" not in changed(lab.b, before)
        pair.unharmed(moves=1)
        other.unharmed()


# ---- By a tuple that was left ----

def taken_over(pair):
    """A moves, and S connects to the same listener from A's old address and port: both ends of that."""
    lab = pair.lab
    old = lab.a.v4
    lab.a.move("core")
    settled(pair, lab.b, 1)
    lab.s.attach("g2", v4=old)
    with lab.s.inside():
        sock = socket.socket()
    sock.settimeout(10)
    sock.bind((old, pair.port))
    sock.connect((lab.b.v4, PORT))
    return sock, pair.listener.accept()[0]


@pytest.mark.parametrize("cookies", [0, 1, 2])
def test_another_host_connects_from_the_old_address(pair, cookies):
    """The tuple that A has left is another host's now: that one is served, with and without SYN cookies."""
    lab = pair.lab
    lab.b.sysctl("net.ipv4.tcp_syncookies", cookies)
    sock, accepted = taken_over(pair)
    with sock, accepted:
        pair.say(sock, accepted)
        pair.say(accepted, sock)
    pair.unharmed(moves=1)


def test_time_wait_on_the_old_tuple_answers_its_own(pair):
    """A connection that began on the tuple A has left, and ended: its last FIN, sent again, is acknowledged."""
    lab = pair.lab
    old = lab.a.v4
    sock, accepted = taken_over(pair)
    accepted.close()        # B's end is the one that waits
    assert sock.recv(1) == b""
    with Losing(lab.net, f"ip daddr {old} tcp flags & fin == 0") as losing:
        sock.close()
        losing.lost()
        acknowledged = len(heard(lab.s, pair.port))
    wait_for("the FIN to be acknowledged", lambda: len(heard(lab.s, pair.port)) > acknowledged, 10)
    pair.unharmed(moves=1)


# ---- What an end knows of the other ----

def test_inner_address_of_the_peer_is_the_one_of_now(make_lab):
    """A moves from one NAPT behind another: B is told where A sees itself."""
    lab = make_lab(rtt=RTT, at={"a": "n1", "b": "g1"})
    with Pair(lab) as pair:
        inner = []
        for moves, place in enumerate(("n1", "n2", "g2")):
            if moves:
                lab.a.move(place)
                settled(pair, lab.b, moves)
            conn = pair.conn(lab.b)
            inner.append((conn["peer-inner-addr"], conn["peer-inner-port"]))
            assert inner[-1] == (lab.a.v4, pair.port)
        assert len(set(inner)) == 3


# ---- What was sent and not acknowledged ----

def test_trial_commits_while_a_segment_is_sacked(make_lab):
    """A peer says it has all, then that it has only some: A counts nothing twice."""
    lab = make_lab(rtt=RTT, at=AT)
    for name in ("tcp_early_retrans", "tcp_recovery"):
        lab.a.sysctl(f"net.ipv4.{name}", 0)
    with Pair(lab) as pair:
        pair.learn()
        pair.a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = [bytes([n]) * 1000 for n in range(1, 4)]
        last = b"x" * 1000
        second = (pair.next_a + 1000) & 0xFFFFFFFF
        sack = struct.pack("!BBBBII", 1, 1, 5, 10, second, (second + 1000) & 0xFFFFFFFF)
        some = pair.to_a(ACK, options=stamps(pair) + sack)
        old, new = lab.a.point, lab.a.attach("core")
        with Losing(lab.net, f"ip daddr {old.v4} ip length 52"):    # B's own acknowledgments
            for part in data:
                pair.a.sendall(part)
            time.sleep(RTT / 10)    # MANS says that B has them
            with lab.a.family() as family:
                family.migrate_all(old.v4, new.v4, TRIAL)
            time.sleep(RTT / 8)
            raw = Raw(lab.s)
            raw.send([some])        # comes between MANS and the answer to CONFIRM
            raw.close()
            time.sleep(RTT / 4)
            pair.a.sendall(last)    # which MANS does not speak of
            time.sleep(SETTLE)
        settled(pair, lab.a, 1)
        pair.hear(pair.b, b"".join(data) + last)
        pair.unharmed(moves=1)


def test_old_path_brings_data_between_commit_and_first_acknowledgment(make_lab):
    """A trial leaves a slower path: B takes what that one still brings, once, and knows that it came there."""
    lab = make_lab(rtt=RTT, at=AT)
    with Pair(lab) as pair:
        pair.learn()
        old, new = lab.a.point, lab.a.attach("core")
        lab.a.run(f"tc qdisc replace dev {old.dev} root netem delay {RTT * 1.2 * 1e6:.0f}us")
        before = lab.b.counters()
        with lab.a.family() as family:
            family.migrate_all(old.v4, new.v4, TRIAL)
        time.sleep(RTT * 0.6)
        pair.a.sendall(b"x" * 1000)
        pair.hear(pair.b, b"x" * 1000)
        settled(pair, lab.a, 1)
        time.sleep(2)
        count = changed(lab.b, before)
        assert (count["CommitPassive"], count["OldPath"]) == (1, 1)
        # Once from A, and acknowledged so that A need not send it again.
        assert len([s for s in pair.seen(lab.b) if not s.out and s.length and s.seq == pair.next_a]) == 1
        pair.unharmed(moves=1)


def stamps(pair):
    """The last timestamps of B once more."""
    seen = [body for s in pair.seen(pair.lab.a) if not s.out for kind, body in s.options if kind == 8]
    return bytes([1, 1, 8, 10]) + seen[-1]


# ---- By a tombstone ----

def reset_now(sock):
    """Ends a connection with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def answers(pair, sport):
    """The options of what B answers to a request of S that names the connection: none, or RST's."""
    inject(pair.lab.s, pair.msyn(pair.at(pair.lab.s), sport))
    return [s.migrate for s in heard(pair.lab.s, sport) if s.flags & RST]


def test_tombstones_of_one_namespace_outlast_no_others(pair):
    """S keeps its tombstones for a day, B for a minute: B's signs for a minute."""
    lab = pair.lab
    lab.s.sysctl("net.tcp_migrate.tombstone_time", 86400)
    with Pair(lab, PORT + 1, opener="s") as other, contextlib.suppress(OSError):
        reset_now(other.a)
        time.sleep(SETTLE)
    with Losing(lab.net, "tcp flags & rst == rst"):
        reset_now(pair.b)
        time.sleep(SETTLE)
    assert answers(pair, 5555) == [["RST-AUTH"]]
    time.sleep(61)
    assert answers(pair, 5556) == [[]]
    lab.b.sysctl("net.tcp_migrate.tombstone_time", 86400)
    assert answers(pair, 5557) == [[]]


def test_repaired_socket_leaves_no_tombstone(pair):
    """A connection that was taken away to go on elsewhere (TCP_REPAIR) is not dead: no signed RST says so."""
    pair.b.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    pair.b.close()
    assert answers(pair, 5555) == [[]]
