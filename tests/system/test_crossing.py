# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends inside NAPTs leave their relay: each asks the other's NAPT, at one moment.

First the kernels alone, with S as a proxy (splicer.py), then the daemons. A NAPT and the
one at the other end are as far apart as WAY: requests that pass their own NAPTs within that
time cross.
"""

import json
import signal
import socket
import time

import pytest

from conftest import VIRTUAL
from crowd import Ticks
from relayed import RTT, Relayed
from tcplab.genl import TRIAL
from tcplab.topology import Link, wait_for
from test_splice import AT, joining, leave, rest
from traffic import SIZE, Both, Download, Idle
from wire import Losing, Pair, changed

WAY = 0.01
GLOBAL = {"a": "g2", "b": "g1"}
# So exact are the times at which programs hear something.
EXACT = 0.001


def outside(lab, place):
    """The address that a NAPT gives to those inside."""
    told = json.loads(lab.box(place).run(f"ip -4 -j addr show dev to-{place}").stdout)
    return told[0]["addr_info"][0]["local"]


def apart(lab, way=WAY, **manners):
    """N1 and N2 are so far from the core, and behave so; they know each other."""
    for place, other in (("n1", "n2"), ("n2", "n1")):
        address = outside(lab, other)
        lab.box(place).behave(**manners)
        lab.box(place).tc(Link(rate="1gbit", delay=way / 2).netem(f"to-{place}"))
        lab.net.tc(Link(rate="1gbit", delay=way / 2).netem(f"wan-{place}"))
        with lab.box(place).inside(), socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", (address, 9))
    time.sleep(4 * way)


class Slow(Ticks):
    """So slowly that what is under way fits into the window of a new path, however long that is."""

    EVERY = 0.04


class Speech:
    """Both ends of a connection say a little, again and again."""

    def __init__(self, pair):
        for sock in (pair.a, pair.b):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ticks = [Slow(pair.a, pair.b), Slow(pair.b, pair.a)]

    def forget(self):
        """What was does not count."""
        for tick in self.ticks:
            tick.gap = 0.0

    def waited(self):
        """By how much the longest time without any, of what counts, was too long; all has come."""
        return max(tick.stop() for tick in self.ticks) - Slow.EVERY

    def close(self):
        for tick in self.ticks:
            tick.ending.set()


# ---- The kernels ----

@pytest.fixture
def pair(make_lab):
    """A connection that S relays, of two ends that are inside and speak."""
    lab = make_lab(rtt=RTT, at=AT)
    apart(lab)
    with Pair(lab) as p, joining(lab, p.port):
        p.speech = Speech(p)
        time.sleep(1)
        leave(lab, p.port)
        rest(lab, p.port)
        time.sleep(1)
        p.speech.forget()
        yield p
        p.speech.close()


def cross(pair, lag=0.0):
    """Each end tries the other's NAPT, B so much later."""
    lab = pair.lab
    conns = {name: lab.hosts[name].connection(pair.port) for name in "ab"}
    there = {"a": outside(lab, "n2"), "b": outside(lab, "n1")}
    families = {name: lab.hosts[name].family() for name in "ab"}
    for i, (name, other) in enumerate(("ab", "ba") if lag >= 0 else ("ba", "ab")):
        time.sleep(i * abs(lag))
        families[name].migrate(conns[name]["cookie"], new_remote_addr=there[name],
                               new_remote_port=conns[other]["local-port"], flags=TRIAL)
    for family in families.values():
        family.close()
    return time.monotonic()


SYNS = {"request": "tcp flags & (syn | ack) == syn", "answer": "tcp flags & (syn | ack) == (syn | ack)"}


@pytest.mark.virtual
@pytest.mark.parametrize("lag,lost", [(0, ""), (-0.9, ""), (0.9, "request"), (0.9, "answer"), (-0.9, "answer")])
def test_trials_that_cross(pair, lag, lost):
    """Both commit, each once, and nobody waits: also if B does not get the first of these that A has sent."""
    lab = pair.lab
    before = [host.counters() for host in (lab.a, lab.b)]
    match = f'iifname "to-n2" {SYNS.get(lost, "tcp flags & rst == rst")} limit rate 1/hour burst 1 packets'
    with Losing(lab.box("n2"), match):
        began = cross(pair, lag * WAY)
        rest(lab, pair.port, 2)
        took = time.monotonic() - began
    # Half an RTT and the way between the NAPTs there, and as much back, and there again for CONFIRM, and its answer.
    assert took < 4 * (RTT / 2 + WAY) + 0.005, f"{took:.4f} s"
    assert pair.speech.waited() < EXACT
    for host, was in zip((lab.a, lab.b), before):
        count = changed(host, was)
        assert count["Commit"] == 1 and not {"ConfirmMissing", "TrialFailed", "BadMac", "MsynRetrans"} & set(count)
    assert [h.connection(pair.port)["remote-addr"] for h in (lab.a, lab.b)] == [outside(lab, "n2"), outside(lab, "n1")]
    pair.talk()
    assert lab.resets(pair.port) == []


@pytest.mark.virtual
@pytest.mark.parametrize("manner,commits", [("open", 0), ("drop", 1)])
def test_trials_that_do_not_cross(pair, manner, commits):
    """A NAPT that is asked too early resets, which is nothing to a trial; one that is silent forgets it."""
    lab = pair.lab
    for place in ("n1", "n2"):
        lab.box(place).behave(unsolicited=manner)
    before = [host.counters() for host in (lab.a, lab.b)]
    cross(pair, 2 * WAY + RTT)
    # One way and back, and once more.
    time.sleep(5 * (RTT / 2 + WAY))
    for host, was in zip((lab.a, lab.b), before):
        count = changed(host, was)
        assert (count.get("Commit", 0), count.get("RstHint", 0)) == (commits, 1 - commits)
        assert host.connection(pair.port)["state"] == ("idle" if commits else "mig-sent")
    assert pair.speech.waited() < EXACT


# ---- The daemons ----

@pytest.fixture
def relayed(make_lab):
    """Makes a Relayed; a test that fails shows what its daemons have said."""
    made = []

    def make(crossing=True):
        made.append(Relayed(make_lab, GLOBAL, crossing=crossing))
        # A transfer shall last for as long as this takes, and not be much.
        for place in ("g1", "g2", "n1", "n2", "n3", "n4"):
            made[-1].lab.set_link(place, rate="20mbit")
        return made[-1]
    yield make
    for one in made:
        for daemon in one.said:
            print(f"== {daemon.host.name} {daemon.name}\n{daemon.said()}")
        one.proxy.forget()


def is_relayed(r):
    """By what its clients say of each end."""
    return [c["relayed"] for client in r.clients.values() for pair in client.ask("pairs") for c in pair["connections"]]


def left(r):
    """Waits until both ends go on without the proxy."""
    wait_for("both to have left the relay", lambda: not any(is_relayed(r)), 60, 0.02)


def go_inside(r, places="12"):
    """Both, at once; when they are relayed."""
    r.lab.a.move(f"n{places[0]}")
    r.lab.b.move(f"n{places[1]}")
    wait_for("both to be relayed", lambda: all(is_relayed(r)), 20, 0.02)


MANNERS = {"linux": {}, "silent": {"unsolicited": "drop"}, "resetting": {"unsolicited": "reset"}}


@pytest.mark.parametrize("kind,manners", [(Both, "linux"), (Both, "silent"), (Idle, "resetting")])
def test_leave(relayed, kind, manners):
    """All connections leave the relay without a reset; then the proxy may be gone with all that it had."""
    r = relayed()
    apart(r.lab, **MANNERS[manners])
    with Pair(r.lab) as pair:
        traffic = kind(r.lab, size=3 * SIZE)
        r.ready(traffic)
        r.ready_for(pair.port)
        go_inside(r)
        left(r)
        assert r.server.metric("crossings_total") == 1
        wait_for("the server to know", lambda: r.server.metric("crossed_total") == 1)
        time.sleep(2 * RTT)     # what was under way to the proxy has come
        r.proxy.stop(signal.SIGKILL)
        r.proxy.forget()
        traffic.resumed()
        traffic.finish()
        pair.talk()
        assert r.lab.resets(traffic.port) + r.lab.resets(pair.port) == []


@pytest.mark.virtual
def test_napts_forget(relayed):
    """The relay is needed again when both NAPTs have forgotten the connection, though not the channels to the server,
    on which something is said every two minutes."""
    r = relayed()
    apart(r.lab, timeouts={"established": 150})
    traffic = Idle(r.lab)
    r.ready(traffic)
    go_inside(r)
    left(r)
    time.sleep(200)
    # The reset of B's NAPT, A's report, B's, the order, and the way through the proxy.
    assert traffic.resumed() < 12 * RTT
    assert all(is_relayed(r))
    left(r)
    traffic.resumed()
    traffic.finish()


# How much farther A is from its NAPT, the NAPTs are from each other, and N2 is from all others.
FAR = {"mobile": (0.04, WAY), "abroad": (0.0, 0.08), "near": (0.0, 0.002)}


@pytest.mark.virtual
@pytest.mark.parametrize("far", FAR)
def test_moment(relayed, far):
    """Wherever they are their requests cross, and nobody waits."""
    last_mile, way = FAR[far]
    r = relayed()
    r.lab.set_link("n1", delay=last_mile)
    apart(r.lab, way)
    with Pair(r.lab) as pair:
        r.ready_for(pair.port)
        speech = Speech(pair)
        go_inside(r)
        time.sleep(0.5)
        speech.forget()
        left(r)
        time.sleep(1)
        assert speech.waited() < EXACT
        assert r.server.metric("crossings_total") == 1


@pytest.mark.virtual
@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("places", ["31", "43"])
def test_in_vain(relayed, places, crossing):
    """NAPTs that give each destination another port: the relay stays, and nobody notices that it was tried."""
    r = relayed(crossing)
    with Pair(r.lab) as pair:
        r.ready_for(pair.port)
        speech = Speech(pair)
        for host in (r.lab.a, r.lab.b):
            pair.conn(host)
        go_inside(r, places)
        time.sleep(0.5)
        speech.forget()
        time.sleep(3)
        assert speech.waited() < EXACT
        state = "mig-sent" if crossing else "idle"      # a trial goes on for half a minute
        assert [pair.conn(host)["state"] for host in (r.lab.a, r.lab.b)] == [state] * 2
        assert all(is_relayed(r)) and r.server.metric("crossings_total") == crossing
        seen = r.clients["a"].pair()["resume"]
        assert (seen["state"], seen.get("verdict")) == ("settled", None)


@pytest.mark.virtual
def test_twice_in_one_place(relayed):
    """What has failed is tried once more, after half a minute and 15 s; then when one of them has moved."""
    r = relayed()
    traffic = Idle(r.lab)
    r.ready(traffic)
    go_inside(r, "34")
    wait_for("a second trial", lambda: r.server.metric("crossings_total") == 2, 90, 0.1)
    time.sleep(120)
    assert all(is_relayed(r)) and r.server.metric("crossings_total") == 2
    r.lab.a.move("n1")
    wait_for("another one, from there", lambda: r.server.metric("crossings_total") == 3, 20, 0.1)
    traffic.resumed()
    traffic.finish()
    assert r.lab.resets(traffic.port) == []


def test_moves_instead(relayed):
    """In the middle of a trial that fails A goes to where it can be reached."""
    r = relayed()
    traffic = Download(r.lab, size=3 * SIZE)
    r.ready(traffic)
    go_inside(r, "34")
    wait_for("the trial", lambda: r.server.metric("crossings_total") == 1, 20, 0.02)
    r.lab.a.move("core")
    took = traffic.resumed()
    assert not VIRTUAL or took < 6 * RTT, f"{took:.3f} s"
    left(r)
    traffic.finish()
    assert r.lab.resets(traffic.port) == []


def test_moves_while_relayed(relayed):
    """A's next NAPT is one that lets them leave; from yet another they are relayed again."""
    r = relayed()
    apart(r.lab)
    traffic = Both(r.lab, size=4 * SIZE)
    r.ready(traffic)
    go_inside(r, "32")
    wait_for("a trial", lambda: r.server.metric("crossings_total") == 1, 20, 0.02)
    r.lab.a.move("n1")
    traffic.resumed()
    left(r)
    r.lab.a.move("n4")
    traffic.resumed()
    wait_for("a relay again", lambda: all(is_relayed(r)), 20, 0.02)
    traffic.finish()
    assert r.lab.resets(traffic.port) == []
