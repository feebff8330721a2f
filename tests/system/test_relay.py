# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends inside NAPTs: the daemons, and a symmetric proxy on a host of its own.

The proxy is on P, the server on S; the extension is off on both. What is relayed is an
unmodified program's connection, with checksummed data.
"""

import signal
import socket
import time

import pytest

from relayed import GLOBAL, RTT
from tcplab.daemons import PROXY_PORT
from tcplab.topology import wait_for
from test_scale import hole
from traffic import SIZE, STREAMS, Both, Download, Idle, Upload

# Where A and B go inside; and then, from there.
BOXES = {"linux-home": ("n1", "n2"), "home-carrier": ("n3", "n4"), "carrier-linux": ("n4", "n1")}
NEXT = {"a": "n3", "b": "n4"}
PORT = 7400


@pytest.mark.parametrize("boxes", BOXES)
@pytest.mark.parametrize("kind", STREAMS)
def test_both_go_inside(relayed, kind, boxes):
    """Both global, both move behind NAPTs at once."""
    r = relayed(GLOBAL)
    traffic = kind(r.lab, size=4 * SIZE)
    r.ready(traffic)
    a, b = BOXES[boxes]
    r.lab.a.move(a)
    r.lab.b.move(b)
    took = traffic.resumed()
    # Who waits for an echo hears it one way later than new data.
    assert took < (7 if kind is Idle else 6) * RTT + 0.02, f"{took:.4f} s"
    r.done(traffic)
    assert r.proxy.metric("joined_total") >= 1


@pytest.mark.parametrize("who", ["a", "b", "ab"])
@pytest.mark.parametrize("kind", STREAMS)
def test_moves_while_relayed(relayed, kind, who):
    """To other NAPTs: the proxy passes the requests on, no server is needed for one that moves alone."""
    r = relayed(GLOBAL)
    traffic = kind(r.lab, size=6 * SIZE)
    r.go_inside(traffic)
    if len(who) == 1:
        r.server.stop()
    for name in who:
        r.lab.hosts[name].move(NEXT[name])
    took = traffic.resumed()
    # The ways to the proxy and on are two round trips here, of A and B.
    limit = (6 if kind is Idle else 5) * RTT + 0.02
    assert took < limit, f"{took:.4f} s"
    if len(who) == 1:
        wait_for("the proxy to have found who moved", lambda: r.proxy.metric("moved_total") >= 1)
    r.done(traffic)


# What new paths are to the one that is left.
BESIDE = {"like": {}, "faster": {"delay": 0.1, "limit": 2000}}


@pytest.mark.virtual
@pytest.mark.parametrize("kind,beside", [(Download, "like"), (Upload, "like"), (Both, "like"), (Upload, "faster")])
def test_moves_while_relayed_without_a_break(relayed, kind, beside):
    """A has another way out before it loses the old one: both paths are one for B, whose peer is the proxy."""
    r = relayed(GLOBAL)
    r.lab.set_link("n1", **BESIDE[beside])
    traffic = kind(r.lab, size=8 * SIZE)
    r.go_inside(traffic)
    time.sleep(0.5)
    since = time.time()
    # A's remote port is the proxy's: its own is what both know.
    port = {"a": r.lab.b.connection(traffic.port)["peer-inner-port"], "b": traffic.port}
    old = r.lab.a.point
    new = r.lab.a.attach(NEXT["a"])
    r.lab.a.wait_moved(old, new)
    r.lab.a.detach(old)
    r.done(traffic)
    for receiver in {Download: "a", Upload: "b", Both: "ab"}[kind]:
        assert hole(r.lab, receiver, port[receiver], since) < 8 * RTT, receiver


def round_trip(one, other):
    """Seconds of a byte and its echo."""
    began = time.monotonic()
    one.sendall(b"?")
    assert other.recv(1) == b"?"
    other.sendall(b"!")
    assert one.recv(1) == b"!"
    return time.monotonic() - began


@pytest.mark.virtual
def test_takes_no_longer_than_the_ways(relayed):
    """What is said over a relay is under way for as long as both ways to the proxy take."""
    r = relayed(GLOBAL)
    with r.lab.b.inside():
        listener = socket.create_server(("", PORT))
    with r.lab.a.inside():
        a = socket.create_connection((r.lab.b.v4, PORT))
    b = listener.accept()[0]
    with listener, a, b:
        for sock in (a, b):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        r.ready_for(PORT)
        r.lab.a.move("n1")
        r.lab.b.move("n2")
        round_trip(a, b)
        r.joined()
        took = [round_trip(a, b) for _ in range(5)]
    ways = 0.0
    for host in (r.lab.a, r.lab.b):
        began = time.monotonic()
        with host.inside(), socket.create_connection((r.lab.p.v4, PROXY_PORT)):
            ways += time.monotonic() - began
    assert ways > RTT
    assert max(took) - ways < 0.0001, f"{took} s; the ways alone: {ways:.6f} s"


def left(r):
    """Waits until neither end has the proxy for its peer any more: nothing else of theirs goes there."""
    at = (r.lab.p.v4, r.lab.p.v6)
    wait_for("both to go on without the proxy",
             lambda: not any(c["remote-addr"] in at for host in (r.lab.a, r.lab.b) for c in host.connections()),
             30, 0.02)


@pytest.mark.parametrize("who", ["a", "b", "ab"])
def test_leaves_the_relay(relayed, who):
    """Who becomes global is reached directly: the relay is left, and nobody notices."""
    r = relayed(GLOBAL)
    traffic = Both(r.lab, size=8 * SIZE)
    r.go_inside(traffic)
    for name in who:
        r.lab.hosts[name].move({"a": "core", "b": "g1"}[name])
    traffic.resumed()
    left(r)
    r.done(traffic)


@pytest.mark.parametrize("kind,boxes", [(Both, "linux-home"), (Idle, "home-carrier"), (Both, "carrier-linux")])
def test_ipv6(relayed, kind, boxes):
    """NAPTs that translate IPv6: both go inside, one moves to another NAPT, then to a global place."""
    r = relayed(GLOBAL, v6=True)
    traffic = kind(r.lab, v6=True, size=8 * SIZE)
    r.go_inside(traffic, *BOXES[boxes])
    r.lab.b.move("n2" if boxes == "home-carrier" else "n3")
    traffic.resumed()
    wait_for("the proxy to have found who moved", lambda: r.proxy.metric("moved_total") >= 1)
    assert {end["seen"][:5] for relay in r.proxy.relays() for end in relay["ends"]} == {"[2001"}
    r.lab.a.move("core")
    traffic.resumed()
    left(r)
    r.done(traffic)


@pytest.mark.parametrize("kind", [Download, Idle])
def test_proxy_is_killed(relayed, kind):
    """What is relayed goes on in the kernel; the next daemon finds it, and who moves."""
    r = relayed(GLOBAL)
    traffic = kind(r.lab, size=6 * SIZE)
    r.go_inside(traffic)
    r.proxy.stop(signal.SIGKILL)
    traffic.resumed()
    r.proxy.start()
    r.lab.a.move(NEXT["a"])
    r.done(traffic)


@pytest.mark.parametrize("kind", [Download, Idle])
def test_proxy_is_gone(relayed, kind):
    """For good, and all it had: it resets when it is back, empty, and another port is ordered."""
    r = relayed(GLOBAL)
    traffic = kind(r.lab, size=6 * SIZE)
    r.go_inside(traffic)
    r.proxy.stop(signal.SIGKILL)
    r.proxy.forget()
    time.sleep(1)
    r.proxy.start()
    traffic.resumed()
    traffic.finish()


def test_server_is_killed(relayed):
    """It is not on the way."""
    r = relayed(GLOBAL)
    traffic = Both(r.lab, size=6 * SIZE)
    r.go_inside(traffic)
    r.server.stop(signal.SIGKILL)
    r.done(traffic)


def test_ends(relayed):
    """A relay goes a minute after both FINs, its port with it."""
    r = relayed(GLOBAL)
    traffic = Download(r.lab, size=4 * SIZE)
    r.go_inside(traffic)
    r.done(traffic)
    wait_for("the relay to end", lambda: not any(c["joined"] for c in r.proxy.relays()), 200, 1)
    assert r.proxy.metric("finished_total") >= 1
