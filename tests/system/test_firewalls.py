# SPDX-License-Identifier: GPL-2.0-or-later
"""Firewalls on hosts, which let out everything and in only what belongs to it: the daemons alone.

Those of routers, without translation, are a column of test_matrix.
"""

import pytest

from exchange import GLOBAL, done, ready
from tcplab.daemons import PEER_PORT
from traffic import SIZE, STREAMS, Both, Download, Idle, Upload

# Nothing is said to who is refused. A program that others shall reach has its port opened.
RULES = """table inet firewall {{
  chain in {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
    {}
  }}
}}
"""
MOVES = {"a": {"a": "core"}, "b": {"b": "core"}, "both": {"a": "core", "b": "g2"}}


def fence(host, *ports):
    """A default-deny firewall on a host, with these ports open."""
    rule = f"tcp dport {{ {', '.join(map(str, ports))} }} accept" if ports else ""
    host.run(["nft", "-f", "-"], input=RULES.format(rule))


def run(daemons, kind, movers, v6=False, **open_ports):
    """Firewalls on these hosts, with these ports open; A opens the connection."""
    d = daemons(GLOBAL)
    for host, ports in open_ports.items():
        fence(d.lab.hosts[host], *ports)
    traffic = kind(d.lab, v6=v6, size=4 * SIZE)
    ready(traffic, d)
    for host, place in MOVES[movers].items():
        d.lab.hosts[host].move(place)
    done(d.lab, traffic)


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("movers", MOVES)
def test_opener_lets_nobody_in(daemons, movers, v6):
    """A's firewall has no port open."""
    run(daemons, STREAMS[(list(MOVES).index(movers) + 2 * v6) % 4], movers, v6, a=())


@pytest.mark.parametrize("movers", MOVES)
def test_accepter_lets_in_what_it_serves(daemons, movers):
    """B's firewall has the program's port and the daemon's open."""
    kind = [Upload, Both, Idle][list(MOVES).index(movers)]
    run(daemons, kind, movers, b=(kind.port, PEER_PORT))


@pytest.mark.parametrize("movers", MOVES)
def test_both_have_firewalls(daemons, movers):
    """Each lets in only what it has to."""
    run(daemons, Download, movers, a=(), b=(Download.port, PEER_PORT))


@pytest.mark.parametrize("mover", ["a", "b"])
def test_daemon_is_not_let_in(daemons, mover):
    """B's firewall has the program's port open and no other: one end at a time moves all the same."""
    d = daemons(GLOBAL, servers=0)
    fence(d.lab.b, Download.port)
    traffic = Download(d.lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    d.lab.hosts[mover].move("core")
    done(d.lab, traffic)
    assert d.a.ask("pairs") == []
