# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts behind the same NAPT, and strangers that have the address of one that is looked for: the daemons alone."""

import time

import pytest

from exchange import GLOBAL, INSIDE, RTT, done, ready
from tcplab import capture, programs
from tcplab.topology import wait_for
from traffic import SIZE, STREAMS, Download, Upload
from wire import RST, again, inject

# Where A and B are, where those go that move, and who opens the connection.
MEETINGS = {
    "a-joins": ({"a": "g2", "b": "n1"}, {"a": "n1"}, "b"),
    "b-joins": (INSIDE, {"b": "n1"}, "a"),
    "from-outside": (GLOBAL, {"a": "n3", "b": "n3"}, "a"),
    "from-another": (INSIDE, {"a": "n4", "b": "n4"}, "a"),
    "together": ({"a": "n1", "b": "n1"}, {"a": "n3", "b": "n3"}, "a"),
    "opener-leaves": ({"a": "n1", "b": "n1"}, {"a": "g2"}, "a"),
    "accepter-leaves": ({"a": "n1", "b": "n1"}, {"b": "g2"}, "a"),
}


def travel(d, places):
    """All move at once."""
    for host, place in places.items():
        d.lab.hosts[host].move(place)


def verdicts(d):
    """What both ends have been told that they cannot have."""
    return [client.pair()["resume"].get("verdict") for client in d.clients]


@pytest.mark.parametrize("how", MEETINGS)
def test_behind_one_napt(daemons, how):
    """They meet behind one, or leave it: inside they find each other by their inner addresses."""
    at, places, opener = MEETINGS[how]
    d = daemons(at)
    traffic = STREAMS[list(MEETINGS).index(how) % len(STREAMS)](d.lab, size=4 * SIZE, opener=opener)
    ready(traffic, d)
    travel(d, places)
    if d.lab.a.point.place == d.lab.b.point.place:
        wait_for("A to be at B's inner address",
                 lambda: d.lab.a.connection(traffic.port)["remote-addr"] == d.lab.b.v4, 20, 0.005)
    done(d.lab, traffic)


# ---- The same private address in several places ----

@pytest.fixture
def homes(daemons):
    """Daemons in homes of which each has the same private network."""
    return lambda at: daemons(at, topology="homes")


@pytest.mark.parametrize("kind", [Download, Upload])
def test_same_private_address(homes, kind):
    """A at home has the address 10.0.0.11; B comes to another home, and has it as well. A leaves, and is found."""
    d = homes({"a": "h3", "b": "g1"})
    traffic = kind(d.lab, size=4 * SIZE)
    ready(traffic, d)
    d.lab.b.move("h1")
    assert d.lab.a.v4 == d.lab.b.v4
    needs_proxy(d)
    d.lab.a.move("g2")
    done(d.lab, traffic)


def needs_proxy(d):
    """Both are told so."""
    wait_for("both to be told that they need a proxy", lambda: verdicts(d) == ["needs-proxy"] * 2, 60, 0.05)


class Stranger:
    """Host C at the address of one that is looked for, with the same port open, and a capture."""

    def __init__(self, lab, place, address, enabled):
        self.lab = lab
        lab.c.sysctl("net.tcp_migrate.enabled", enabled)
        programs.nginx(lab.c)
        lab.c.move(place, v4=address)

    def heard(self, port):
        """What has come of a connection with this port."""
        return [seg for seg in self.lab.segments("c") if not seg.out and port in (seg.sport, seg.dport)]


@pytest.mark.parametrize("enabled", [0, 2], ids=["plain", "migratable"])
def test_trial_does_not_end_at_a_stranger(homes, enabled):
    """Two homes of one carrier: a server cannot see that they are two. At B's inner address A finds somebody else."""
    d = homes({"a": "h1", "b": "g1"})
    d.lab.segment("h2").reserve()
    traffic = Download(d.lab, size=4 * SIZE)
    ready(traffic, d)
    stranger = Stranger(d.lab, "h1", "10.0.0.12", enabled)
    d.lab.b.move("h2")
    assert (d.lab.a.v4, d.lab.b.v4) == ("10.0.0.11", "10.0.0.12")
    needs_proxy(d)
    d.lab.b.move("g2")
    traffic.resumed()
    traffic.finish()
    heard = stranger.heard(traffic.port)
    # A has tried it, and that was all: a trial, and no data.
    assert heard and all(seg.length == 0 for seg in heard)
    # The stranger's ordinary answer is reset, and nothing else.
    assert all(" 10.0.0." in reset for reset in d.lab.resets(traffic.port))


# ---- An old address that is another's now ----

TAKEN = {"a": {"a": "core"}, "b": {"b": "core"}, "both": {"a": "core", "b": "g2"}}


def usurp(lab, leavers):
    """These leave their places, and strangers have their addresses at once."""
    for host, stranger in zip(leavers, (lab.c, lab.d)):
        old = lab.hosts[host].point
        lab.hosts[host].detach()
        stranger.move(old.place, v4=old.v4)


def heard(lab, port):
    """What has come to strangers of a connection with this port, by stranger."""
    time.sleep(0.02)
    return {stranger: [seg for seg in capture.read(lab.captures[stranger.name].path)
                       if not seg.out and port in (seg.sport, seg.dport)] for stranger in (lab.c, lab.d)}


def replay(lab, port):
    """The strangers say once more what requests they have heard, to both ends' new places, in several names."""
    for stranger, segs in heard(lab, port).items():
        requests = [seg for seg in segs if seg.migrate]
        for host in (lab.a, lab.b):
            inject(stranger, *(again(seg, src, host.v4) for seg in requests for src in (stranger.v4, seg.src)))


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload])
@pytest.mark.parametrize("leavers", TAKEN)
def test_old_address_is_taken_over(daemons, leavers, kind):
    """A stranger resets what was meant for who left, and says what it has heard to both: none of it counts."""
    d = daemons(GLOBAL, topology="homes")
    lab = d.lab
    traffic = kind(lab, size=4 * SIZE)
    ready(traffic, d)
    usurp(lab, TAKEN[leavers])
    time.sleep(1)
    for host, place in TAKEN[leavers].items():
        lab.hosts[host].attach(place)
    traffic.resumed()
    replay(lab, traffic.port)
    traffic.finish()
    for segs in heard(lab, traffic.port).values():
        # The first of them were reset, and that was heard a round trip later.
        data = [seg.time for seg in segs if seg.length]
        assert not data or data[-1] - data[0] <= RTT + 0.01
    for end, other in ((lab.a, lab.b), (lab.b, lab.a)):
        assert [seg for seg in lab.segments(end.name) if seg.flags & RST and seg.out and seg.dst == other.v4] == []
