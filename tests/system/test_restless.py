# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that move again before anybody has answered; servers without the extension, and clocks that differ."""

import time

import pytest

from exchange import GLOBAL, INSIDE, done, ready
from tcplab.daemons import Client, Server, nobody
from tcplab.topology import wait_for
from traffic import SIZE, STREAMS, Both, Download, Upload

RTT, DAY = 0.05, 86400
# Where they are at first, and then.
WAYS = {
    "a-inside": (INSIDE, {"a": ["n2", "n3", "n4"]}),
    "a": (GLOBAL, {"a": ["core", "n1", "g2"]}),
    "b": (INSIDE, {"b": ["g2", "core", "g1"]}),
    "both": (GLOBAL, {"a": ["core", "g2", "core"], "b": ["g2", "g1", "g2"]}),
    "both-a-inside": (INSIDE, {"a": ["n2", "n3", "n1"], "b": ["g2", "core", "g1"]}),
}


@pytest.mark.virtual
@pytest.mark.parametrize("every", [0.02, 0.06, 0.13])
@pytest.mark.parametrize("who", WAYS)
def test_moves_again(daemons, who, every):
    """Three moves in a row: before a segment can be there, before its answer is, before the server's word is."""
    at, ways = WAYS[who]
    d = daemons(at)
    traffic = STREAMS[(list(WAYS).index(who) + int(every * 100)) % 4](d.lab, size=4 * SIZE)
    ready(traffic, d)
    for i in range(3):
        for host, places in ways.items():
            d.lab.hosts[host].move(places[i])
        time.sleep(every)
    done(d.lab, traffic)


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload])
@pytest.mark.parametrize("at", [GLOBAL, INSIDE], ids=["global", "inside"])
def test_server_without_the_extension(daemons, at, kind):
    """Channels to it do not move along: hosts connect anew, and report."""
    d = daemons(at)
    d.lab.s.sysctl("net.tcp_migrate.enabled", 0)
    for client in d.clients:
        client.stop()
        client.start()
    traffic = kind(d.lab, size=4 * SIZE)
    ready(traffic, d)
    for places in (["n2", "g2"], ["n1", "core"]):
        for client, place in zip(d.clients, places):
            client.host.move(place)
        traffic.resumed()
    traffic.finish()
    assert d.lab.resets(traffic.port) == []
    assert all(client.count("server_joined") >= 2 for client in d.clients)


@pytest.fixture
def clocks(make_lab):
    """Makes a lab with a server, A that is admitted, and B that is A's guest, whose clocks may be off."""
    said = []

    def make(**off):
        lab = make_lab(rtt=RTT, at=INSIDE, migrator=nobody)
        said.append(Server(lab.s, clock=off.get("s", 0)))
        said.append(Client(lab.a, said[0], clock=off.get("a", 0)))
        said.append(Client(lab.b, clock=off.get("b", 0)))
        return lab, said[0], said[1], said[2]
    yield make
    for one in said:
        print(f"== {one.host.name} {one.home.name}\n{one.said()}")


@pytest.mark.virtual
@pytest.mark.parametrize("off", [{"a": DAY}, {"s": DAY}, {"s": -DAY}, {"a": -DAY, "b": DAY}],
                         ids=["a-ahead", "server-ahead", "server-behind", "a-behind"])
def test_clocks_differ_by_a_day(clocks, off):
    """Tickets are good for a week, and nothing else looks at the clock."""
    lab, _, a, b = clocks(**off)
    traffic = Both(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    for client in (a, b):
        client.agreed(traffic.port)
        client.joined()
    lab.a.move("n2")
    lab.b.move("g2")
    done(lab, traffic)


@pytest.mark.virtual
def test_clocks_differ_too_much(clocks):
    """For the server A's tickets expired yesterday: B is told so, and one end at a time moves."""
    lab, _, _, b = clocks(s=8 * DAY)
    traffic = Download(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    b.agreed(traffic.port)
    wait_for("B to be refused", lambda: any("expired" in s.get("why", "") for s in b.ask("servers")), 30, 0.05)
    lab.a.move("n2")
    done(lab, traffic)
