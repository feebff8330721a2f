# SPDX-License-Identifier: GPL-2.0-or-later
"""Resets: a forged one costs a round trip, a genuine one is honoured at once; and how waiting ends.

A and B are at global places of their own, S is the stranger, at a third. S knows
what is on the wire, but not how to sign.
"""

import errno
import os
import socket
import struct
import subprocess
import time

import pytest

from conftest import VIRTUAL
from tcplab.topology import wait_for
from wire import RST, SETTLE, SYN, Losing, Pair, Raw, changed, families, settled

RTT = 0.05
SMALL = 0.006           # queues, and the rate of the links
AT = {"a": "g2", "b": "g1", "s": "core"}


@pytest.fixture
def pair(make_lab, request):
    """A connection between A and B, RTT apart."""
    lab = make_lab(rtt=RTT, at=AT)
    with Pair(lab, a=getattr(request, "param", "4")) as p:
        yield p


def forge(pair, victim, **kw):
    """S resets the connection at one end, in the other's name."""
    pair.learn()
    raw = Raw(pair.lab.s)
    raw.send([(pair.to_a if victim is pair.lab.a else pair.to_b)(RST, ack=0, **kw)])
    raw.close()


def after_rst(pair, victim):
    """The victim's segments since the forged RST, and the time of that."""
    segs = pair.seen(victim)
    at = max(i for i, s in enumerate(segs) if not s.out and s.flags & RST)
    return segs[at].time, segs[at + 1:]


def survived(pair, victim, before, busy=False):
    """One RST deferred, one probe, one round trip; nothing else has happened.

    If the peer is busy a segment of its own proves the path before the answer
    to the probe does, which then answers nothing any more.
    """
    wait_for("the RST to be taken for what it is", lambda: changed(victim, before).get("RstDeferred"), 5)
    time.sleep(SETTLE)
    delta = changed(victim, before)
    expected = {"RstDeferred": 1, "Wait": 1, "MsynSent": 1}
    expected |= {"WaitAlive": 1, "BadAnswer": 1} if busy else {"AnswerRcvd": 1, "Commit": 1}
    assert delta == expected
    began, segs = after_rst(pair, victim)
    probes = [s for s in segs if s.out and s.migrate == ["MREQ"]]
    answers = [s for s in segs if not s.out and s.migrate == ["MANS"]]
    assert len(probes) == len(answers) == 1, segs
    assert not any(s.flags & RST for s in segs)
    resumed = next(s for s in segs if s.out and s.migrate != ["MREQ"])
    if VIRTUAL:
        assert probes[0].time - began < 0.001
        assert resumed.time - began <= RTT + SMALL
    if VIRTUAL and not busy:
        # The next round trip proves that the peer knows, too.
        proof = next(s for s in segs if not s.out and s.migrate == ["CONFIRM"])
        assert proof.time - began <= 2 * RTT + SMALL
    assert pair.conn(victim)["state"] == "idle"


@families("4", "6", "mapped")
@pytest.mark.parametrize("end", ["a", "b"])
def test_forged_reset_when_idle(pair, end):
    """Nothing is under way; the program notices nothing."""
    victim = pair.lab.hosts[end]
    before = victim.counters()
    forge(pair, victim)
    survived(pair, victim, before)
    pair.unharmed()


@families("4", "6")
@pytest.mark.parametrize("end", ["a", "b"])
def test_forged_reset_in_a_flight(pair, end):
    """The victim's data are under way, or written while it waits: none is lost."""
    victim = pair.lab.hosts[end]
    mine, other = (pair.a, pair.b) if end == "a" else (pair.b, pair.a)
    before = victim.counters()
    data = os.urandom(40000)
    pair.learn()
    mine.sendall(data[:20000])
    forge(pair, victim)
    wait_for("the RST", lambda: changed(victim, before).get("RstDeferred"), 5, 0.001)
    mine.sendall(data[20000:])
    pair.hear(other, data)
    survived(pair, victim, before, busy=True)
    pair.unharmed()


@pytest.mark.parametrize("end", ["a", "b"])
def test_forged_reset_half_closed(pair, end):
    """A has said all it had to say; B goes on, before and after."""
    victim = pair.lab.hosts[end]
    pair.a.shutdown(socket.SHUT_WR)
    assert pair.b.recv(1) == b""
    pair.say(pair.b, pair.a)
    time.sleep(SETTLE)
    before = victim.counters()
    forge(pair, victim)
    survived(pair, victim, before)
    pair.say(pair.b, pair.a)
    pair.b.close()
    assert pair.a.recv(1) == b""


@families("4", "6")
@pytest.mark.parametrize("what", ["wrong mac", "our own role", "in window", "out of window", "other tuple"])
def test_reset_that_proves_nothing(pair, what):
    """What is not exact, and what is signed wrongly: no harm, no reply that is larger."""
    victim = pair.lab.a
    before = victim.counters()
    pair.learn()
    seq, expected = pair.next_b + 1000, {}
    if what in ("in window", "out of window"):
        packet = pair.to_a(RST, seq=(seq + (1 << 30) * (what == "out of window")) % 2**32, ack=0)
    elif what == "other tuple":
        packet = pair.to_a(RST, src=pair.at(pair.lab.s), ack=0)
    else:
        opt = pair.signed(1, seq) if what == "our own role" else pair.signed(0, seq, wrong=True)
        packet, expected = pair.to_a(RST, seq=seq, ack=0, options=opt), {"RstAuthBad": 1}
    raw = Raw(pair.lab.s)
    raw.send([packet])
    raw.close()
    time.sleep(SETTLE)
    assert changed(victim, before) == expected
    began, segs = after_rst(pair, victim)
    # RFC 5961's challenge ACK, as plain TCP sends it; none out of window, or for another tuple.
    assert sum(s.out for s in segs) == (0 if what in ("out of window", "other tuple") else 1), segs
    pair.unharmed()


@families("4", "6")
@pytest.mark.parametrize("end", ["a", "b"])
def test_signed_reset_counts_at_any_number(pair, end):
    """Far out of window: who signs is the peer, and the program sees the end at once."""
    victim, sock = pair.lab.hosts[end], (pair.a if end == "a" else pair.b)
    before = victim.counters()
    pair.learn()
    seq = ((pair.next_b if end == "a" else pair.next_a) + (1 << 30)) % 2**32
    forge(pair, victim, seq=seq, options=pair.signed(end == "b", seq))
    began = time.monotonic()
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    assert not VIRTUAL or time.monotonic() - began < RTT / 2 + SMALL
    assert changed(victim, before) == {"RstAuth": 1, "Tombstones": 1}


def end_now(pair, how):
    """B's end of the connection is no more."""
    if how == "linger":
        pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        pair.b.close()
    elif how == "ss":
        out = pair.lab.b.run(["ss", "-HtnK", "dst", f"[{pair.at(pair.lab.a)}]:{pair.port}"]).stdout
        assert out.strip(), "ss killed nothing: is CONFIG_INET_DIAG_DESTROY set?"
    else:
        # Somebody else's process, which has not read all that came.
        child = subprocess.Popen(["sleep", "1000"], pass_fds=[pair.b.fileno()])
        pair.b.close()
        child.kill()
        child.wait()


def time_of_death(lab, how, kind):
    """Seconds until A's program sees the reset."""
    with Pair(lab, a=kind) as p:
        if how == "kill":
            p.a.sendall(b"unread")
            time.sleep(SETTLE)
        began = time.monotonic()
        end_now(p, how)
        with pytest.raises(ConnectionResetError):
            p.a.recv(1)
        return time.monotonic() - began


@pytest.mark.parametrize("kind", ["4", "6"], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("how", ["kill", "linger", "ss"])
def test_genuine_reset_is_as_fast_as_plain_tcp(make_lab, how, kind):
    """The same end with and without the extension takes the same time."""
    lab = make_lab(rtt=RTT, at=AT)
    lab.a.sysctl("net.tcp_migrate.enabled", 0)
    plain = time_of_death(lab, how, kind)
    lab.a.sysctl("net.tcp_migrate.enabled", 2)
    before, peer = lab.a.counters(), lab.b.counters()
    took = time_of_death(lab, how, kind)
    delta = changed(lab.a, before)
    assert delta["RstAuth"] == 1
    assert not {"Wait", "RstDeferred", "RstHint", "RstAuthBad"} & set(delta)
    assert changed(lab.b, peer)["RstSigned"] == 1
    assert not VIRTUAL or took < plain + 0.01, f"{took:.4f} s, plain TCP {plain:.4f} s"


@families("4", "6", "mapped")
@pytest.mark.parametrize("how", ["kill", "linger", "ss"])
def test_signed_reset_is_lost(pair, how):
    """The next segment to the dead end is answered by a signed RST from its tombstone."""
    lab = pair.lab
    before, peer = lab.a.counters(), lab.b.counters()
    if how == "kill":
        pair.a.sendall(b"unread")
        time.sleep(SETTLE)
    with Losing(lab.net, "tcp flags & rst == rst"):
        end_now(pair, how)
        time.sleep(SETTLE)
    assert changed(lab.b, peer)["Tombstones"] == 1
    began = time.monotonic()
    pair.a.sendall(b"anybody there?")
    with pytest.raises(ConnectionResetError):
        pair.a.recv(1)
    assert not VIRTUAL or time.monotonic() - began < RTT + SMALL
    delta = changed(lab.a, before)
    assert delta.get("RstAuth") == 1 and "Wait" not in delta, delta
    assert changed(lab.b, peer)["RstSigned"] == 2


@families("4", "6")
@pytest.mark.parametrize("how", ["linger", "ss"])
def test_peer_died_while_the_host_was_away(pair, how):
    """Nobody was there to hear the RST; the tombstone knows A's request by its token, from any address."""
    lab = pair.lab
    before, peer = lab.a.counters(), lab.b.counters()
    with Losing(lab.net, "tcp flags & rst == rst"):
        end_now(pair, how)
        time.sleep(SETTLE)
    assert changed(lab.b, peer)["Tombstones"] == 1
    lab.a.move("n1")
    began = time.monotonic()
    with pytest.raises(ConnectionResetError):
        pair.a.recv(1)
    assert not VIRTUAL or time.monotonic() - began < RTT + SMALL
    delta = changed(lab.a, before)
    assert delta.get("RstAuth") == 1 and "Wait" not in delta, delta


@pytest.mark.virtual
@pytest.mark.parametrize("owes", [True, False], ids=["data unacknowledged", "nothing unacknowledged"])
def test_user_timeout_while_nobody_answers(pair, owes):
    """TCP_USER_TIMEOUT (RFC 5482) is kept while only requests are sent; it is about data."""
    lab = pair.lab
    pair.a.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
    with Losing(lab.net, f"ip daddr {lab.b.v4}"):
        lab.a.move("core")
        began = time.monotonic()
        if owes:
            pair.a.sendall(b"anybody there?")
            with pytest.raises(TimeoutError):
                pair.a.recv(1)
            assert abs(time.monotonic() - began - 5) < 1.01
        else:
            time.sleep(20)
    if not owes:
        settled(pair, lab.b, 1)
        pair.unharmed(moves=1)


# ---- Waiting comes to an end ----

LATE = 0.6              # a timer of more than four seconds may be half a second late


def ends_with(sock, code):
    """Seconds until a program that only reads sees this error."""
    sock.settimeout(None)
    began = time.monotonic()
    with pytest.raises(OSError) as error:
        sock.recv(1)
    assert error.value.errno == code, error.value
    return time.monotonic() - began


@pytest.mark.virtual
@families("4", "6")
def test_peer_has_rebooted(pair):
    """Somebody is at B's address who knows nothing, and says so to each probe: A's program waits for 180 s."""
    lab = pair.lab
    old, before = lab.b.point, lab.a.counters()
    lab.b.detach()
    lab.s.attach(old.place, v4=old.v4, v6=old.v6)
    pair.a.sendall(b"anybody there?")
    assert RTT + 180 <= ends_with(pair.a, errno.ECONNRESET) < RTT + 180 + LATE
    delta = changed(lab.a, before)
    # A probe at once, and every 15 s.
    assert (delta["RstDeferred"], delta["Wait"], delta["WaitTimeout"]) == (1, 1, 1)
    assert delta["RstHint"] == delta["MsynSent"] + delta["MsynRetrans"] == 180 // 15


@pytest.mark.virtual
def test_nobody_answers_at_the_new_place(pair):
    """Eight requests, less and less often, then one every 15 s for 900 s; A's program sees ETIMEDOUT."""
    lab = pair.lab
    count = len(pair.seen(lab.a))
    with Losing(lab.net):
        lab.a.move("core")
        took = ends_with(pair.a, errno.ETIMEDOUT)
    msyns = [s.time for s in pair.seen(lab.a)[count:] if s.out and s.migrate == ["MREQ"] and s.flags & SYN]
    gaps = [b - a for a, b in zip(msyns, msyns[1:])]
    first = gaps[0]
    assert 0.2 <= first <= 1
    for gap, least in zip(gaps, [min(first * 2 ** i, 8) for i in range(7)] + [8 + 15]):
        assert 0.95 * least <= gap < 1.1 * least, gaps
    assert all(15 <= gap < 15 + LATE for gap in gaps[8:])
    waited = msyns[7] - msyns[0] + 8 + 900
    assert waited <= took < waited + 2 * LATE


def silent(pair):
    """Nothing of B reaches A while this is entered; what S says in B's name does."""
    return Losing(pair.lab.net, f"iifname {pair.lab.b.point.place}")


def until(pair, state):
    """Waits until A is in this state; a probe takes at most 15 s."""
    wait_for(f"A to be {state}", lambda: pair.conn(pair.lab.a)["state"] == state, 20, 0.1)


@pytest.mark.virtual
def test_only_an_exact_reset_shortens_the_wait(pair):
    """A waits and nobody answers; of S's RSTs only the one that could answer the probe counts."""
    lab = pair.lab
    pair.learn()
    with silent(pair):
        forge(pair, lab.a)
        until(pair, "mig-wait")
        for seq, least, most in ((pair.next_b + 1, 800, 900), (pair.next_b, 100, 180)):
            forge(pair, lab.a, seq=seq)
            time.sleep(SETTLE)
            left = pair.conn(lab.a)["left-ms"] / 1000
            assert least < left < most
    until(pair, "idle")
    pair.unharmed()


@pytest.mark.virtual
def test_nobody_waits_for_an_orphan_for_long(pair):
    """A's program closes while the connection waits: the kernel does so for 60 s in all."""
    lab = pair.lab
    with silent(pair):
        forge(pair, lab.a)
        until(pair, "mig-wait")
        began = time.monotonic() - pair.conn(lab.a)["age-ms"] / 1000
        time.sleep(10)
        pair.a.close()
        wait_for("A's connection to be gone", lambda: not lab.a.connections(), 120, 0.2)
        assert 60 <= time.monotonic() - began < 60 + LATE + 0.2


@pytest.mark.virtual
@pytest.mark.parametrize("why", ["reset", "time-out"])
def test_no_more_wait_than_may(make_lab, why):
    """Above wait_max an unsigned RST, or TCP's time-out, is the end, as in plain TCP; below it again one may wait."""
    lab = make_lab(rtt=RTT, at=AT)
    lab.a.sysctl("net.tcp_migrate.wait_max", 1)
    lab.a.sysctl("net.ipv4.tcp_retries2", 3)
    with Pair(lab) as first, Pair(lab, first.listener.getsockname()[1] + 1) as second:
        first.learn()
        second.learn()
        before = lab.a.counters()
        with silent(first):
            forge(first, lab.a)
            until(first, "mig-wait")
            if why == "reset":
                forge(second, lab.a)
            else:
                second.a.sendall(b"anybody there?")
            took = ends_with(second.a, errno.ECONNRESET if why == "reset" else errno.ETIMEDOUT)
            assert took < (RTT if why == "reset" else 10)
            delta = changed(lab.a, before)
            assert (delta["Wait"], delta["WaitOverflow"]) == (1, 1)
        until(first, "idle")
        first.talk()
        before = lab.a.counters()
        forge(first, lab.a)
        survived(first, lab.a, before)
        first.unharmed()
