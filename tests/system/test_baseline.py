# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab itself: paths, boxes and programs do what their data say.

These tests need no extension, so a failure here on the patched kernel but not
on the vanilla one is a regression of plain TCP.
"""

import socket
import time

import pytest

from conftest import VIRTUAL
from tcplab import capture, craft
from tcplab.topology import Timeout, wait_for
from traffic import PROGRAMS, STREAMS, Download, Idle

pytestmark = pytest.mark.baseline
OPTION = bytes([254, 4, 0x4D, 0x49])


@pytest.mark.parametrize("rtt", [0, 0.05], ids=["rtt0", "rtt50"])
@pytest.mark.parametrize("kind", STREAMS + PROGRAMS)
def test_program(make_lab, kind, rtt):
    """Every program gets its data through where nobody moves."""
    traffic = kind(make_lab(rtt=rtt), size=2 << 20)
    traffic.finish()


@pytest.mark.parametrize("place", ["g1", "g2", "n1", "n2", "n3", "n4"])
def test_place(make_lab, place):
    """B is reached from every place, and sees the NAPT's address where there is one."""
    lab = make_lab(at={"a": place})
    Download(lab, size=1 << 18).finish()
    seen = {s.src for s in lab.segments("b") if not s.out and s.dport == 80}
    expected = lab.a.v4 if place.startswith("g") else lab.segment("core").net4[int(place[1]) + 10]
    assert seen == {str(expected)}


@pytest.mark.parametrize("place", ["g2", "n1", "n3"])
def test_ipv6(make_lab, place):
    """IPv6 is not translated anywhere."""
    lab = make_lab(at={"a": place})
    Download(lab, v6=True, size=1 << 18).finish()
    assert {s.src for s in lab.segments("b") if not s.out and s.dport == 80} == {lab.a.v6}


@pytest.mark.virtual
def test_round_trip_is_exact(make_lab):
    """Virtual time: a handshake takes the RTT and what serialising it takes."""
    assert VIRTUAL
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    Download(lab, size=1 << 16).finish()
    syn, synack = lab.segments("a")[:2]
    assert 0.05 <= synack.time - syn.time < 0.0502


def test_rate(make_lab):
    """A link carries what its rate says and no more."""
    lab = make_lab(at={"a": "g2"})
    lab.set_link("g2", rate="10mbit")
    began = time.monotonic()
    Download(lab, size=1 << 20).finish()
    assert (8 << 20) / 10e6 <= time.monotonic() - began < 2


def probe(lab, flags, port=4000, options=OPTION):
    """A hand-made segment from A to B; what of it B got."""
    probe.seq += 1
    craft.send(lab.a, craft.ipv4(lab.a.v4, lab.b.v4, port, 4001, flags, probe.seq, 1, options=options))

    def arrived():
        return [s for s in capture.read(lab.captures["b"].path)
                if not s.out and s.dport == 4001 and s.seq == probe.seq]
    try:
        return wait_for("the probe at B", arrived, 0.5)[0]
    except Timeout:
        return None


probe.seq = 1000


def test_strip(make_lab):
    """A stripping box takes the option from the segments it is told, and no others."""
    lab = make_lab(at={"a": "g2"})
    lab.net.behave(strip=["syn"])
    assert probe(lab, capture.SYN).options == []
    assert lab.net.hits() == 1
    lab.net.behave(strip=["nonsyn"])
    assert [kind for kind, _ in probe(lab, capture.SYN).options] == [254]
    assert probe(lab, capture.ACK).options == []


def test_refuse(make_lab):
    """A refusing box drops SYNs with the option, and lets those without pass."""
    lab = make_lab(at={"a": "g2"})
    lab.net.behave(refuse=["syn"])
    assert probe(lab, capture.SYN) is None
    assert probe(lab, capture.SYN, options=b"") is not None


def test_mss_clamp(make_lab):
    """N4 clamps the MSS."""
    lab = make_lab(at={"a": "n4"})
    mss = bytes([2, 4, 1460 >> 8, 1460 & 255])
    assert dict(probe(lab, capture.SYN, options=mss).options)[2] == (1360).to_bytes(2, "big")


@pytest.mark.parametrize("place,answers", [("n1", True), ("n3", False), ("n4", True)])
def test_unsolicited(make_lab, place, answers):
    """What comes to a NAPT unasked is answered or not, as its data say."""
    lab = make_lab(at={"a": place})
    outer = str(lab.segment("core").net4[int(place[1]) + 10])
    craft.send(lab.b, craft.ipv4(lab.b.v4, outer, 4000, 4001, capture.SYN))

    def reset():
        return [s for s in capture.read(lab.captures["b"].path) if not s.out and s.flags & capture.RST]
    try:
        wait_for("a reset", reset, 0.5)
        assert answers
    except Timeout:
        assert not answers


@pytest.mark.parametrize("place", ["n1", "n3", "n4"])
def test_ports(make_lab, place):
    """N1 preserves ports, N3 and N4 do not."""
    lab = make_lab(at={"a": place})
    same = [probe(lab, capture.SYN, port=p).sport == p for p in range(4100, 4104)]
    assert all(same) if place == "n1" else not any(same)


def test_firewall_without_translation(make_lab):
    """N3 lets no IPv6 connection in, and lets A's own out."""
    lab = make_lab(at={"a": "n3"})
    Download(lab, v6=True, size=1 << 16).finish()
    with lab.b.inside():
        sock = socket.socket(socket.AF_INET6)
    sock.settimeout(2)
    with sock, pytest.raises(TimeoutError):
        sock.connect((lab.a.v6, 22))


@pytest.mark.virtual
def test_moving_breaks_plain_tcp(make_lab):
    """The control: with the extension off a moved host's connection is dead."""
    lab = make_lab(at={"a": "g1"}, enabled=0, migrator=lambda *_: None)
    traffic = Idle(lab)
    lab.a.move("g2")
    with pytest.raises(Timeout):
        traffic.say("anyone there?")
