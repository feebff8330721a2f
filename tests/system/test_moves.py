# SPDX-License-Identifier: GPL-2.0-or-later
"""A host moves in the middle of a transfer by unmodified programs.

Whoever moves, wherever to, whoever sends: the transfer goes on, its data are
right, no connection is reset, and it takes the round trips it should.
"""

import pytest

from conftest import VIRTUAL
from tcplab.topology import wait_for
from traffic import SIZE, STREAMS, Both, Download, Idle, Upload

PATHS = [("n1", "n2"), ("g1", "g2"), ("g2", "n1"), ("n1", "g2"), ("n3", "n4")]
RTT = pytest.mark.parametrize("rtt", [0, 0.05], ids=["rtt0", "rtt50"])


def name(path):
    return "-to-".join(path)


def settled(host, port, times):
    """Waits until a host's connection has changed its tuple so often and rests."""
    def check():
        conn = host.connection(port)
        return conn["migrations"] == times and conn["state"] == "idle"
    wait_for(f"{host.name}'s connection to have migrated {times} times", check, 10)


def resume(lab, traffic, rtt):
    """The transfer goes on as soon as it should, on virtual time."""
    took = traffic.resumed()
    # The first new byte takes 1.5 or 2 RTT. If the peer has more than 64 KiB whose
    # acknowledgments were lost, one exchange more, before which a NAPT would not let
    # it say so. Nothing waits for a time-out.
    sending = isinstance(traffic, (Upload, Both))
    limit = (3.5 if sending else 2) * rtt + 0.05
    assert not VIRTUAL or took <= limit, f"resumed after {took:.4f} s, not {limit:.4f} s"


def carry_on(lab, traffic, rtt, times=1, missed=0):
    """After moves, of which B has missed some: resumes, both ends agree, the data are right, nobody reset."""
    resume(lab, traffic, rtt)
    settled(lab.a, traffic.port, times)
    settled(lab.b, traffic.port, times - missed)
    lab.hurry()
    traffic.finish()
    assert lab.resets(traffic.port) == []


@RTT
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_opener_moves(make_lab, path, kind, rtt):
    """A moves; B, A, both or nobody sending."""
    lab = make_lab(rtt=rtt, at={"a": path[0]})
    lab.segment(path[1])    # or a NAPT would be built in the middle of the transfer, which takes its time
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    lab.a.move(path[1])
    carry_on(lab, traffic, rtt)


@RTT
@pytest.mark.parametrize("kind", STREAMS)
def test_opener_moves_ipv6(make_lab, kind, rtt):
    """The same over IPv6, where no NAPT is needed."""
    lab = make_lab(rtt=rtt, at={"a": "g1"})
    for place in ("g1", "g2"):      # or the link to B, which is as fast as A's, may drop the MSYN
        lab.set_link(place, limit=1000)
    traffic = kind(lab, v6=True)
    traffic.until(SIZE // 4)
    lab.a.move("g2")
    carry_on(lab, traffic, rtt)


@RTT
@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", STREAMS)
def test_accepter_moves(make_lab, kind, rtt, v6):
    """B, which accepted the connection, moves; both global."""
    lab = make_lab(rtt=rtt, at={"a": "g2", "b": "g1"})
    for place in ("g1", "g2"):      # or what is on the way, data or their ACKs, fills the link, and the MSYN is lost
        lab.set_link(place, limit=1000)
    traffic = kind(lab, v6=v6)
    traffic.until(SIZE // 4)
    lab.b.move("g2")
    carry_on(lab, traffic, rtt)


@pytest.mark.virtual
@pytest.mark.parametrize("gap", [1, 30, 120])
@pytest.mark.parametrize("kind", [Download, Upload, Both, Idle])
def test_gap(make_lab, kind, gap):
    """A has no address at all for a while."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    lab.a.move("n2", gap=gap)
    carry_on(lab, traffic, 0.05)


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload])
def test_make_before_break(make_lab, kind):
    """The old attachment goes when the new one is in use: not one byte is late."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    lab.a.move("n2", make_before_break=True)
    carry_on(lab, traffic, 0.05)


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload])
def test_back_to_an_old_address(make_lab, kind):
    """A goes elsewhere and comes back to the very address it had."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    first = lab.a.point
    lab.a.move("n2")
    resume(lab, traffic, 0.05)
    settled(lab.a, traffic.port, 1)
    lab.a.move("n1", v4=first.v4, v6=first.v6)
    carry_on(lab, traffic, 0.05, times=2)


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload, Both])
def test_many_moves(make_lab, kind):
    """Ten moves in one transfer, each as soon as the last has carried data."""
    lab = make_lab(rtt=0.02, at={"a": "n1"})
    traffic = kind(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    for place in ["n2", "n3", "g1", "n4", "g2", "n1", "n2", "g1", "g2", "n3"]:
        lab.a.move(place)
        traffic.resumed()
    traffic.finish()
    assert lab.resets(traffic.port) == []


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload])
def test_moves_over_a_bad_link(make_lab, kind):
    """Moves under loss and reordering."""
    lab = make_lab(rtt=0.02, at={"a": "n1"})
    for place in ("n1", "n2"):
        lab.set_link(place, loss=2, reorder=5, delay=0.002)
    traffic = kind(lab)
    traffic.until(SIZE // 8)
    for place in ("n2", "n1", "n2"):
        lab.a.move(place)
        traffic.resumed()
    traffic.finish()
