# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobility matrix: every way in which two hosts can move, by the daemons alone.

A cell says where both are at first, where in the end, and who moves when. Only
the end that is inside a NAPT or firewall can open a connection: in the cells
that begin with B inside it is B's program that does, in the others A's. Where
both are inside a symmetric proxy relays: those that begin so have both moved
there. A column says what the boxes are like; tests/matrix makes the table of the
docs of what passed.
"""

import itertools
import time

import pytest

from relayed import Relayed
from tcplab.daemons import Client, Server, nobody
from tcplab.topology import wait_for
from traffic import SIZE, STREAMS

RTT = 0.05
# First and last place of who is inside, those of B if both are, and the protocol.
COLUMNS = {
    "linux": (("n1", "n2"), ("n3", "n4"), False),       # masquerade without filtering
    "home": (("n3", "n4"), ("n1", "n2"), False),        # silent, random ports; then a carrier's, which resets
    "carrier": (("n4", "n3"), ("n2", "n1"), False),
    "firewall": (("n3", "n4"), ("n4", "n3"), True),     # stateful, without translation
}
STARTS = {"global": set(), "a-inside": {"a"}, "b-inside": {"b"}, "inside": {"a", "b"}}
MOVERS = {"a": ["a"], "b": ["b"], "both": ["a", "b"], "a-then-b": ["a", "b"], "b-then-a": ["b", "a"]}


def possible(start, end, movers):
    """Who has to change sides must move."""
    return STARTS[start] ^ STARTS[end] <= set(MOVERS[movers])


CELLS = [cell for cell in itertools.product(STARTS, STARTS, MOVERS) if possible(*cell)]
assert len(CELLS) == 64


def place(host, inside, column, last):
    """Where a host is, if these are inside: in its own global network or in another, or behind the column's first or
    last box."""
    if host not in inside:
        return {"a": ["g2", "core"], "b": ["g1", "g2"]}[host][last]
    own, other, _ = COLUMNS[column]
    return (other if host == "b" and len(inside) == 2 else own)[last]


@pytest.fixture
def said():
    """What the daemons said, if the test fails."""
    daemons = []
    yield daemons
    for one in daemons:
        print(f"== {one.host.name} {one.name}\n{one.said()}")
        one.forget()


def daemons_of(make_lab, said, at, relay):
    """The lab and its clients; and with a proxy, if it needs one."""
    if relay:
        r = Relayed(make_lab, at)
        said += r.said
        return r.lab, list(r.clients.values())
    lab = make_lab(rtt=RTT, at=at, migrator=nobody)
    server = Server(lab.s)
    clients = [Client(lab.hosts[host], server) for host in "ab"]
    said += [server, *clients]
    return lab, clients


def go_inside(lab, traffic, column):
    """Both do, at once; until they rest there."""
    cookies = {host: lab.hosts[host].connection(traffic.port)["cookie"] for host in "ab"}
    for host in "ab":
        lab.hosts[host].move(place(host, {"a", "b"}, column, False))
    traffic.resumed()
    wait_for("both to rest", lambda: all(
        c["state"] == "idle" for host, cookie in cookies.items() for c in lab.hosts[host].connections()
        if c["cookie"] == cookie))


def run(make_lab, said, cell, kind, column):
    """One cell: agreed before the move, nobody reset, all data there."""
    start, end, movers = cell
    relay = "inside" in (start, end)
    begin = "global" if start == "inside" else start
    at = {host: place(host, STARTS[begin], column, False) for host in "ab"}
    lab, clients = daemons_of(make_lab, said, at, relay)
    traffic = kind(lab, v6=COLUMNS[column][2], size=4 * SIZE, opener="b" if start == "b-inside" else "a")
    traffic.until(SIZE // 8)
    for client in clients:
        client.agreed(traffic.port)
        client.joined()
    if start == "inside":
        go_inside(lab, traffic, column)
    for i, host in enumerate(MOVERS[movers]):
        if i and movers != "both":
            time.sleep(RTT / 2)
        lab.hosts[host].move(place(host, STARTS[end], column, True))
    traffic.resumed()
    traffic.finish()
    # Who has answered a newer request refuses an older one so, and is asked anew at once: nothing is reset by it.
    assert [reset for reset in lab.resets(traffic.port) if " RA seq 0 " not in reset] == []


@pytest.mark.parametrize("cell", CELLS, ids="/".join)
def test_cell(make_lab, said, cell):
    """Every cell, with one kind of traffic and one of boxes: which is by its number."""
    n = CELLS.index(cell)
    run(make_lab, said, cell, STREAMS[n % 4], list(COLUMNS)[n // 4 % 4])


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("cell", CELLS, ids="/".join)
def test_every(make_lab, said, cell, kind, column):
    """Every cell, with all kinds of both."""
    run(make_lab, said, cell, kind, column)
