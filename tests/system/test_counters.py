# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters of what seldom happens, each with the limit or the refusal that it counts."""

import contextlib
import errno
import socket
import struct
import time

import pytest

from tcplab import capture, craft
from tcplab.topology import wait_for
from test_options import md5_key
from wire import ACK, PORT, RST, SETTLE, SYN, Losing, Pair, changed, inject, settled

RTT = 0.05
AT = {"a": "g2", "b": "g1", "s": "core"}
TCP = socket.IPPROTO_TCP


@pytest.fixture
def lab(make_lab):
    return make_lab(rtt=RTT, at=AT)


@pytest.fixture
def pair(lab):
    """A connection between A and B, RTT apart."""
    with Pair(lab) as p:
        yield p


def forge(pair):
    """S resets A's end, in B's name."""
    pair.learn()
    inject(pair.lab.s, pair.to_a(RST, ack=0))


def answers(pair):
    """What B has said to S."""
    return [s.flags for s in pair.seen(pair.lab.b) if s.out and s.dst == pair.lab.s.v4]


# ---- Requests that are refused ----

def test_bad_state(pair):
    """B's program would sign segments to somebody, so that it is plain TCP: a good request is refused by a reset."""
    pair.learn()
    pair.b.setsockopt(TCP, *md5_key("192.0.2.99"))
    before = pair.lab.b.counters()
    inject(pair.lab.s, pair.msyn(pair.lab.s.v4))
    assert changed(pair.lab.b, before) == {"BadState": 1}
    assert answers(pair) == [RST | ACK]
    pair.unharmed()


def with_ports(packet, sport, dport):
    """An IPv4 packet with other ports."""
    return craft.checked(packet[:20] + struct.pack("!HH", sport, dport) + packet[24:])


@pytest.mark.parametrize("sport,dport", [(5555, PORT + 1), (0, PORT)], ids=["other port of B", "from no port"])
def test_bad_tuple(pair, sport, dport):
    """A good request over a tuple that the connection cannot have is not answered."""
    pair.learn()
    before = pair.lab.b.counters()
    packet = pair.msyn(pair.lab.s.v4, 5555)
    inject(pair.lab.s, with_ports(packet, sport, dport))
    assert changed(pair.lab.b, before) == {"BadTuple": 1}
    assert answers(pair) == []
    inject(pair.lab.s, packet)
    assert changed(pair.lab.b, before) == {"BadTuple": 1, "MsynRcvd": 1, "AnswerSent": 1}
    pair.unharmed()


def test_not_migrate(pair):
    """A box takes the option out of A's requests: B's plain answers are reset, until one passes whole."""
    lab = pair.lab
    before, other = lab.a.counters(), lab.b.counters()
    lab.net.behave(strip=["syn"])
    new = lab.a.attach("g2")
    with lab.a.family() as family:
        family.migrate(pair.conn(lab.a)["cookie"], new_local_addr=new.v4)
    wait_for("two plain answers", lambda: changed(lab.a, before).get("NotMigrate", 0) == 2, 10)
    lab.net.behave(strip=[])
    settled(pair, lab.a, 1)
    delta = changed(lab.a, before)
    assert (delta["NotMigrate"], delta["MsynRetrans"], delta["AnswerRcvd"]) == (2, 2, 1)
    assert changed(lab.b, other)["MsynRcvd"] == 1
    assert [s.flags for s in pair.seen(lab.a) if s.out and s.flags & RST] == [RST] * 2
    pair.listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        pair.listener.accept()
    pair.unharmed(moves=1)


# ---- Paths that drop the option ----

def connection(lab, port):
    """What A and B count for a new connection of A to B."""
    before = [host.counters() for host in (lab.a, lab.b)]
    with Pair(lab, port):
        return [changed(host, counters) for host, counters in zip((lab.a, lab.b), before)]


@pytest.mark.virtual
@pytest.mark.parametrize("remembered", [600, 0], ids=["remembered", "not remembered"])
def test_path_drops_syns(lab, remembered):
    """The third SYN goes without; then that is known, but of B alone and for a time, unless nothing is remembered."""
    lab.a.sysctl("net.tcp_migrate.fallback_time", remembered)
    lab.net.behave(refuse=["syn"])
    assert connection(lab, PORT) == [{"PermitSent": 2, "PermitOmitted": 1}, {}]
    again = connection(lab, PORT + 1)
    assert again == ([{"FallbackHit": 1}, {}] if remembered else [{"PermitSent": 2, "PermitOmitted": 1}, {}])
    lab.net.behave(refuse=[])
    before = lab.a.counters()
    with lab.a.inside(), contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((lab.s.v4, PORT), 10)
    assert changed(lab.a, before) == {"PermitSent": 1}
    for wait, known in ((0.9 * remembered, remembered), (0.1 * remembered, 0)):
        time.sleep(wait)
        got = connection(lab, PORT + 2)[0]
        assert (got.get("FallbackHit", 0), got.get("Agreed", 0)) == ((1, 0) if known else (0, 1))


@pytest.mark.virtual
def test_path_drops_answers(lab):
    """The first SYN,ACK and its first repetition carry the option, later ones do not; B remembers nothing of A."""
    lab.a.sysctl("net.tcp_migrate.fallback_time", 0)    # nor does A, which cannot tell a lost answer from a lost SYN
    lab.net.behave(refuse=["synack"])
    for port in (PORT, PORT + 1):
        at_a, at_b = connection(lab, port)
        assert at_b["PermitRcvd"] == 1 and at_b["PermitOmitted"] >= 1
        assert "PermitRcvd" not in at_a and "Agreed" not in at_a | at_b
        said = [s.migrate for s in capture.read(lab.captures["b"].path)
                if s.out and s.sport == port and s.flags == SYN | ACK]
        assert len(said) == at_b["PermitSent"] + at_b["PermitOmitted"]
        assert said == [["PERMIT"]] * 2 + [[]] * (len(said) - 2)
    lab.net.behave(refuse=[])
    assert connection(lab, PORT + 2)[1] == {"PermitRcvd": 1, "PermitSent": 1, "Agreed": 1}


# ---- Limits ----

def ended(sock):
    """The errno that a program gets."""
    with pytest.raises(OSError) as error:
        sock.recv(1)
    return error.value.errno


def test_no_room_to_wait(lab):
    """One connection may wait; an RST ends the second as in plain TCP, and when the first rests there is room again."""
    lab.a.sysctl("net.tcp_migrate.wait_max", 1)
    with Pair(lab) as one, Pair(lab, PORT + 1) as two, Pair(lab, PORT + 2) as three:
        before = lab.a.counters()
        with Losing(lab.net, f"ip saddr {lab.a.v4}"):
            forge(one)
            forge(two)
            assert one.conn(lab.a)["state"] == "mig-wait"
            assert ended(two.a) == errno.ECONNRESET
            delta = changed(lab.a, before)
            assert (delta["RstDeferred"], delta["Wait"], delta["WaitOverflow"]) == (1, 1, 1)
        one.say(one.b, one.a)
        one.unharmed()
        forge(three)
        delta = changed(lab.a, before)
        assert (delta["RstDeferred"], delta["WaitOverflow"]) == (2, 1)
        three.unharmed()


@pytest.mark.virtual
def test_no_room_to_wait_for_an_answer(pair):
    """Requests in vain end the connection, where they would lead to MIG_WAIT."""
    lab = pair.lab
    lab.a.sysctl("net.tcp_migrate.wait_max", 0)
    lab.a.sysctl("net.tcp_migrate.syn_retries", 1)
    before = lab.a.counters()
    with Losing(lab.net):
        lab.a.move("g2")
        assert ended(pair.a) == errno.ETIMEDOUT
    delta = changed(lab.a, before)
    assert delta["WaitOverflow"] == 1 and "Wait" not in delta


def end_unheard(pair):
    """B's program resets its end, and A does not hear it; whether the RST that then answers A is signed."""
    with Losing(pair.lab.net, "tcp flags & rst == rst"):
        pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        pair.b.close()
        time.sleep(SETTLE)
    before = pair.lab.a.counters()
    pair.a.sendall(b"anybody there?")
    time.sleep(SETTLE)
    delta = changed(pair.lab.a, before)
    assert {"RstAuth", "RstDeferred"} & set(delta)
    return "RstAuth" in delta


@pytest.mark.virtual
def test_no_room_for_tombstones(lab):
    """One is made; the second connection's RST is not signed; when the first has gone there is room again."""
    lab.b.sysctl("net.tcp_migrate.tombstone_max", 1)
    lab.b.sysctl("net.tcp_migrate.tombstone_time", 30)
    with Pair(lab) as one, Pair(lab, PORT + 1) as two, Pair(lab, PORT + 2) as three:
        before = lab.b.counters()
        assert end_unheard(one)
        assert not end_unheard(two)
        delta = changed(lab.b, before)
        assert (delta["Tombstones"], delta["TombstoneOverflow"]) == (1, 1)
        time.sleep(35)
        assert end_unheard(three)
        delta = changed(lab.b, before)
        assert (delta["Tombstones"], delta["TombstoneOverflow"]) == (2, 1)


def test_plain_synack_is_no_answer(pair):
    """A SYN,ACK without the option from where A has not asked is neither counted nor answered."""
    pair.learn()
    before = pair.lab.a.counters()
    inject(pair.lab.s, pair.to_a(SYN | ACK, seq=7, ack=pair.next_a))
    assert "NotMigrate" not in changed(pair.lab.a, before)
    pair.unharmed()
