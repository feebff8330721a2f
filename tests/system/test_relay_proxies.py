# SPDX-License-Identifier: GPL-2.0-or-later
"""Proxies that have no room, and what there is when there are two.

Without one the connection waits, unharmed, until one of its ends is where the other
reaches it; with a second one it goes there.
"""

import contextlib
import signal
import time

import pytest

from relayed import GLOBAL, RTT
from tcplab.topology import wait_for
from traffic import SIZE, Download, Idle

# A proxy with room for one, in all, of a host, or of ports; and why it declines two.
FULL = {
    "full": {"limits": "relays = 1"},
    "quota": {"limits": "relays_per_host = 1"},
    "ports": {"first": 20000, "last": 20000},
}


def declined(proxy):
    """How many orders a proxy has declined, for whatever reason."""
    whys = ("full", "quota")
    return {why: n for why in whys if (n := proxy.metric(f'declined_total{{why="{why}"}}'))}


@pytest.mark.parametrize("what", FULL)
def test_no_room(relayed, what):
    """Two connections, and room for one: the server and people are told; they go on when A is global."""
    r = relayed(GLOBAL, **FULL[what])
    first, second = Idle(r.lab), Download(r.lab, size=2 * SIZE)
    for traffic in (first, second):
        r.ready(traffic)
    r.lab.a.move("n1")
    r.lab.b.move("n2")
    wait_for("the proxy to decline", lambda: declined(r.proxy), 10, 0.05)
    assert set(declined(r.proxy)) == {"quota" if what == "quota" else "full"}
    wait_for("people to be told", lambda: "no-proxy" in r.clients["a"].ctl("pairs"), 10, 0.05)
    assert "no-proxy" in r.clients["b"].ctl("pairs")
    assert r.proxy.metric("joined_total") == 0
    time.sleep(2)
    r.lab.a.move("g2")
    for traffic in (second, first):
        r.done(traffic)


def go_inside(r, traffic):
    """Both, in the middle; seconds until it went on."""
    r.ready(traffic)
    r.lab.a.move("n1")
    r.lab.b.move("n2")
    return traffic.resumed()


@contextlib.contextmanager
def stopped(proxy):
    """It hangs."""
    proxy.child.send_signal(signal.SIGSTOP)
    yield
    proxy.child.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("what", FULL)
def test_the_other_has_room(relayed, what):
    """The first has room for one of two connections, the second for all."""
    r = relayed(GLOBAL, proxies=2, **FULL[what])
    first, second = Idle(r.lab), Download(r.lab, size=2 * SIZE)
    r.ready(first)
    go_inside(r, second)
    r.joined(2, r.proxies[1])
    for traffic in (second, first):
        r.done(traffic)


def test_the_first_hangs(relayed):
    """It does not answer for two seconds; then the second is ordered from."""
    r = relayed(GLOBAL, proxies=2)
    traffic = Download(r.lab, size=2 * SIZE)
    with stopped(r.proxy):
        took = go_inside(r, traffic)
        r.joined(1, r.proxies[1])
    assert 2 < took < 2 + 12 * RTT
    r.done(traffic)


def test_the_first_was_killed(relayed):
    """The server has seen its channel end: no time is lost."""
    r = relayed(GLOBAL, proxies=2)
    traffic = Download(r.lab, size=2 * SIZE)
    r.ready(traffic)
    r.proxy.stop(signal.SIGKILL)
    time.sleep(2 * RTT)
    assert go_inside(r, traffic) < 1
    r.joined(1, r.proxies[1])
    r.done(traffic)


def relaying(r):
    """Which proxy has the relay, and the other."""
    one, other = r.proxies if any(x["joined"] for x in r.proxy.relays()) else r.proxies[::-1]
    return one, other


@pytest.mark.parametrize("how", ["killed", "gone"])
@pytest.mark.parametrize("kind", [Download, Idle])
def test_a_dead_proxy_is_left(relayed, kind, how):
    """killed: its host resets what comes. gone: the host has no network any more. The other one takes over."""
    r = relayed(GLOBAL, proxies=2)
    traffic = kind(r.lab, size=4 * SIZE)
    r.go_inside(traffic)
    one, other = relaying(r)
    if how == "killed":
        one.stop(signal.SIGKILL)
        one.forget()
    else:
        r.lab.segment(one.host.point.place).box.ip(f"link set {one.host.point.peer} down")
    time.sleep(1)
    traffic.resumed()
    r.joined(1, other)
    traffic.finish()
