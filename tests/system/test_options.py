# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP's other options and features, with the extension on at both ends.

What leaves no room for ours, or cannot go with it, is as plain TCP is: both
ends say so, and a reset is honoured at once. Where both have agreed, a move
works. What a box does to sequence numbers never becomes wrong data.
"""

import errno
import itertools
import os
import select
import socket
import struct
import time

import pytest

import hdropt
from conftest import VIRTUAL
from shifter import Shifter
from tcplab.topology import wait_for
from wire import ACK, PORT, RST, SYN, Losing, Pair, changed, settled

RTT = 0.05
SMALL = 0.006
AT = {"a": "g2", "b": "g1"}
MPTCP = 262
MD5SIG, FASTOPEN, AO_ADD_KEY, MIGRATE = 14, 23, 38, 60
TCP = socket.IPPROTO_TCP


class Ends(Pair):
    """A connection of A to B whose sockets are set up by a test before they connect.

    client, server: [(option of TCP, value)]; protocols: those of A's and B's
    sockets; early: what A sends with its SYN, if it may (TCP Fast Open).
    """

    def __init__(self, lab, port=PORT, client=(), server=(), protocols=(TCP, TCP), early=b""):
        self.lab, self.opener = lab, lab.a
        self.listener = self._socket(lab.b, protocols[1], server)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("0.0.0.0", port))
        self.listener.listen(8)
        self.a = self._socket(lab.a, protocols[0], client)
        self.a.bind((lab.a.v4, 0))
        if early:
            self.a.sendto(early, socket.MSG_FASTOPEN, (lab.b.v4, port))
        else:
            self.a.connect((lab.b.v4, port))
        self.listener.settimeout(10)
        self.b, _ = self.listener.accept()
        self.a.settimeout(60)
        self.b.settimeout(60)
        self.port = self.a.getsockname()[1]
        if early:
            self.hear(self.b, early)
        for _ in range(3):
            self.talk(1000)
            time.sleep(0.1)

    @staticmethod
    def _socket(host, protocol, options):
        with host.inside():
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        for number, value in options:
            sock.setsockopt(TCP, number, value)
        return sock

    def believe(self):
        """Whether A's kernel, B's kernel and A's program take it for migratable."""
        def lists(host):
            return any(self.port in (c["local-port"], c["remote-port"]) and c["state"] != "none"
                       for c in host.connections())
        try:
            said = self.a.getsockopt(TCP, MIGRATE)
        except OSError as e:
            assert e.errno == errno.EOPNOTSUPP      # as Multipath TCP says of what it does not know
            said = 0
        return lists(self.lab.a), lists(self.lab.b), bool(said)

    def syns(self):
        """The kinds of options of the SYN and of the SYN,ACK, and the data in the SYN."""
        segs = self.seen(self.lab.a)
        syn = next(s for s in segs if s.flags & (SYN | ACK) == SYN)
        synack = next(s for s in segs if s.flags & (SYN | ACK) == SYN | ACK)
        return [k for k, _ in syn.options], [k for k, _ in synack.options], syn.length

    def reset_is_a_reset(self, end="b"):
        """One end resets: the other's program knows after half a round trip, nobody waits."""
        here, there = (self.a, self.b) if end == "a" else (self.b, self.a)
        time.sleep(4 * RTT)
        before = [h.counters() for h in (self.lab.a, self.lab.b)]
        here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        began = time.monotonic()
        here.close()
        with pytest.raises(ConnectionResetError):
            there.recv(1)
        assert not VIRTUAL or time.monotonic() - began < RTT / 2 + SMALL
        for host, count in zip((self.lab.a, self.lab.b), before):
            assert not {"Wait", "RstDeferred", "RstHint", "RstAuth"} & set(changed(host, count))

    def is_plain(self, end="b"):
        """Data flow, nobody believes in migration, and a reset ends it at once."""
        self.talk()
        assert self.believe() == (False, False, False)
        self.reset_is_a_reset(end)


def moves(lab, *pairs, place="core"):
    """A moves, with all its connections, which go on."""
    lab.a.move(place)
    for pair in pairs:
        settled(pair, lab.a, 1)
        settled(pair, lab.b, 1)
        pair.talk()
        pair.unharmed(moves=1)


@pytest.fixture
def lab(make_lab):
    return make_lab(rtt=RTT, at=AT)


# ---- SYN cookies ----

@pytest.mark.parametrize("end", ["a", "b"])
def test_syn_cookies(lab, end):
    """A server under a flood remembers nothing of a SYN: the connection is a plain one."""
    lab.b.sysctl("net.ipv4.tcp_syncookies", 2)
    pair = Ends(lab)
    syn, synack, _ = pair.syns()
    assert 254 in syn and 254 not in synack
    pair.is_plain(end)


def test_syn_cookies_end(lab):
    """When the flood is over the next connection can migrate."""
    lab.b.sysctl("net.ipv4.tcp_syncookies", 2)
    Ends(lab).is_plain()
    lab.b.sysctl("net.ipv4.tcp_syncookies", 1)
    pair = Ends(lab, PORT + 1)
    assert pair.believe() == (True, True, True)
    moves(lab, pair)


# ---- Room for options ----

def room(ts, sack, ws, cookie):
    """What the other options of a SYN or SYN,ACK leave, padded as Linux pads them."""
    return 40 - 4 - (12 if ts else 4 * sack) - 4 * ws - cookie


@pytest.mark.parametrize("ts,sack,ws", itertools.product([1, 0], repeat=3),
                         ids=lambda on: "on" if on else "off")
def test_option_space(lab, ts, sack, ws):
    """Timestamps, SACK and window scaling on or off, without and with TCP Fast Open.

    PERMIT takes 20 bytes: it is there exactly if they are left, in the SYN and in
    the SYN,ACK. With it in both the connection moves, without it nobody believes.
    """
    for host in (lab.a, lab.b):
        host.sysctl("net.ipv4.tcp_timestamps", ts)
        host.sysctl("net.ipv4.tcp_sack", sack)
        host.sysctl("net.ipv4.tcp_window_scaling", ws)
        host.sysctl("net.ipv4.tcp_fastopen", 3)
    movable = []
    # No Fast Open; a cookie is asked for and given; the SYN has cookie and data.
    for i, (asked, given, data) in enumerate([(0, 0, 0), (4, 12, 0), (12, 0, 1000)]):
        pair = Ends(lab, PORT + i, server=[(FASTOPEN, 8)], early=os.urandom(1000) if asked else b"")
        syn, synack, early = pair.syns()
        assert early == data, "Fast Open did not do what this test is about"
        assert (8 in syn, 4 in syn, 3 in syn) == (bool(ts), bool(sack), bool(ws))
        fits = room(ts, sack, ws, asked) >= 20
        assert (254 in syn) == fits
        fits = fits and room(ts, sack, ws, given) >= 20
        assert (254 in synack) == fits
        assert pair.believe() == (fits, fits, fits)
        if fits:
            movable.append(pair)
        else:
            pair.is_plain()
    assert movable
    moves(lab, *movable)


@pytest.mark.parametrize("length", [4, 5, 12, 20, 28, 40])
@pytest.mark.parametrize("ts", [1, 0], ids=["timestamps", "none"])
def test_options_of_a_bpf_program(lab, ts, length):
    """A program of the operator adds an option to every header. It comes after ours, which need theirs to move.

    Where both do not fit, its own is left out, as the program is told; no header exceeds 60 bytes.
    """
    for host in (lab.a, lab.b):
        host.sysctl("net.ipv4.tcp_timestamps", ts)
    with hdropt.HeaderOption(length):
        pair = Ends(lab)
        assert pair.believe() == (True, True, True)
        moves(lab, pair)
        segs = pair.seen(lab.a)
    takes = length + -length % 4
    for seg in segs:
        kinds = [kind for kind, _ in seg.options]
        assert not (hdropt.KIND in kinds and seg.migrate in (["MREQ"], ["MANS"]))
        # A segment's other options leave so much; SACK takes what it gets before the program is asked.
        left = 40 - 12 * ts - {"ECHO": 8, "CONFIRM": 24}.get("".join(seg.migrate), 0)
        if not seg.flags & (SYN | RST) and 5 not in kinds and not seg.migrate == ["MANS"]:
            assert (hdropt.KIND in kinds) == (takes <= left) or "CONFIRM" in seg.migrate, seg
    last = [seg for seg in segs if seg.length][-1]
    assert (hdropt.KIND in [kind for kind, _ in last.options]) == (takes <= 40 - 12 * ts)


def test_fast_open_syn_is_lost(lab):
    """A box drops SYNs with data; the repetition has neither data nor cookie, but room for PERMIT.

    The first SYN was not seen by B: both believe.
    """
    for host in (lab.a, lab.b):
        host.sysctl("net.ipv4.tcp_fastopen", 3)
    Ends(lab, PORT, server=[(FASTOPEN, 8)], early=b"x" * 100).is_plain()
    with Losing(lab.net, "tcp flags syn meta length > 100"):
        pair = Ends(lab, PORT + 1, server=[(FASTOPEN, 8)], early=b"x" * 100)
    segs = [s for s in pair.seen(lab.a) if s.flags & (SYN | ACK) == SYN]
    assert [s.length for s in segs] == [100, 0]
    assert [254 in [k for k, _ in s.options] for s in segs] == [False, True]
    assert pair.believe() == (True, True, True)
    moves(lab, pair)


def test_ecn(lab):
    """Explicit congestion notification is agreed upon once, and kept."""
    for host in (lab.a, lab.b):
        host.sysctl("net.ipv4.tcp_ecn", 1)
    pair = Ends(lab)
    assert pair.believe() == (True, True, True)
    moves(lab, pair)


# ---- Signed segments ----

def md5_key(address, key=b"secret"):
    """struct tcp_md5sig"""
    addr = struct.pack("=H2s4s120x", socket.AF_INET, b"\0\0", socket.inet_aton(address))
    return MD5SIG, addr + struct.pack("=BBHi80s", 0, 0, len(key), 0, key)


def ao_key(address, key=b"secret"):
    """struct tcp_ao_add, with the algorithm that RFC 5926 demands first"""
    addr = struct.pack("=H2s4s120x", socket.AF_INET, b"\0\0", socket.inet_aton(address))
    return AO_ADD_KEY, addr + struct.pack("=64siIHBBBBBB80s4x", b"hmac(sha1)", 0, 0, 0, 32, 100, 100, 12, 0,
                                          len(key), key)


SIGNED = {"md5": (md5_key, 19), "ao": (ao_key, 29)}


@pytest.mark.parametrize("end", ["a", "b"])
@pytest.mark.parametrize("kind", SIGNED)
def test_signed(lab, kind, end):
    """TCP-MD5 and TCP-AO connections are left alone."""
    make, number = SIGNED[kind]
    pair = Ends(lab, client=[make(lab.b.v4)], server=[make(lab.a.v4)])
    syn, synack, _ = pair.syns()
    assert (number in syn, number in synack) == (True, True)
    assert (254 in syn, 254 in synack) == (False, False)
    pair.is_plain(end)


@pytest.mark.parametrize("kind", SIGNED)
def test_listener_with_keys_for_others(lab, kind):
    """A listener that has a key for S takes A's connection: a plain one, at both ends."""
    make, _ = SIGNED[kind]
    Ends(lab, server=[make(lab.s.v4)]).is_plain()


@pytest.mark.parametrize("end", ["a", "b"])
def test_keys_that_come_later(lab, end):
    """Two programs begin to sign on a connection that has agreed: from then on it is a plain one."""
    pair = Ends(lab)
    assert pair.believe() == (True, True, True)
    pair.a.setsockopt(TCP, *md5_key(lab.b.v4))
    pair.b.setsockopt(TCP, *md5_key(lab.a.v4))
    pair.talk()
    conn = pair.conn(lab.a)
    new = lab.a.attach("core")
    with lab.a.family() as family, pytest.raises(OSError) as error:
        family.migrate(conn["cookie"], new_local_addr=new.v4)
    assert error.value.errno == errno.EOPNOTSUPP
    pair.talk()
    pair.reset_is_a_reset(end)


# ---- Multipath TCP ----

@pytest.mark.parametrize("end", ["a", "b"])
@pytest.mark.parametrize("protocols", [(MPTCP, MPTCP), (MPTCP, TCP), (TCP, MPTCP)],
                         ids=["both", "server falls back", "client is plain"])
def test_mptcp(lab, protocols, end):
    """Multipath TCP has means of its own; falling back, it is plain TCP."""
    pair = Ends(lab, protocols=protocols)
    syn, synack, _ = pair.syns()
    assert (30 in syn, 30 in synack) == (protocols[0] == MPTCP, protocols == (MPTCP, MPTCP))
    assert 254 not in synack and not (30 in syn and 254 in syn)
    if protocols == (MPTCP, MPTCP):
        # Its resets are of subflows; the connection outlives them for a while.
        pair.talk()
        assert pair.believe() == (False, False, False)
    else:
        pair.is_plain(end)


# ---- Other ways to open ----

def test_simultaneous_open(lab):
    """Two SYNs with PERMIT cross: both ends believe, or neither, and data flow."""
    socks = []
    for host in (lab.a, lab.b):
        with host.inside():
            socks.append(socket.socket())
        socks[-1].bind((host.v4, PORT))
        socks[-1].setblocking(False)
    socks[0].connect_ex((lab.b.v4, PORT))
    socks[1].connect_ex((lab.a.v4, PORT))
    wait_for("both to be connected", lambda: len(select.select([], socks, [], 0)[1]) == 2, 30)
    for sock in socks:
        sock.settimeout(30)
    for _ in range(5):
        for out, into in (socks, socks[::-1]):
            data = os.urandom(20000)
            out.sendall(data)
            Pair.hear(into, data)
        time.sleep(0.1)
    sides = [any(PORT == c["local-port"] and c["state"] != "none" for c in h.connections()) for h in (lab.a, lab.b)]
    assert sides[0] == sides[1]


# ---- Boxes that change sequence numbers ----

def test_new_path_randomises_sequence_numbers(lab):
    """The MSYN is refused and counted; nothing is changed until A is elsewhere."""
    lab.a.move("n1")
    with Ends(lab) as pair, Shifter(lab, "g2") as box:
        before = lab.b.counters()
        count = len(pair.seen(lab.b))
        lab.a.move("g2")
        wait_for("B to refuse", lambda: changed(lab.b, before).get("BadMac", 0) >= 3, 30)
        assert box.count >= 3
        assert set(changed(lab.b, before)) <= {"BadMac"}
        assert not any(s.out and s.length for s in pair.seen(lab.b)[count:])
        assert (pair.conn(lab.a)["migrations"], pair.conn(lab.b)["migrations"]) == (0, 0)
        data = os.urandom(20000)
        pair.a.sendall(data)
        lab.a.move("n2")
        settled(pair, lab.a, 1)
        settled(pair, lab.b, 1)
        pair.hear(pair.b, data)
        pair.talk()


@pytest.mark.parametrize("end", ["a", "b"])
@pytest.mark.parametrize("by", [0x5EC0FFEE, 1000], ids=["far", "near"])
def test_first_path_randomises_sequence_numbers(lab, by, end):
    """The ends count differently, so could not go on without the box: they do not agree."""
    with Shifter(lab, "g2", by) as box, Ends(lab) as pair:
        assert box.count > 6
        assert lab.b.counters()["EchoBad"] > 0
        pair.is_plain(end)
