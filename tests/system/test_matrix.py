# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobility matrix: every way in which two hosts can move, by the daemons alone.

A cell says where both are at first, where in the end, and who moves when. Only
the end that is inside a NAPT or firewall can open a connection: in the cells
that begin with B inside it is B's program that does, in the others A's. "Both
inside" in the end needs the symmetric proxy, and is not here. A column says what
the boxes are like; tests/matrix makes the table of the docs of what passed.
"""

import itertools
import time

import pytest

from tcplab.daemons import Client, Server, nobody
from traffic import SIZE, STREAMS

RTT = 0.05
# First and last place of who is inside, and the protocol.
COLUMNS = {
    "linux": ("n1", "n2", False),           # masquerade without filtering
    "home": ("n3", "n4", False),            # silent, random ports; then a carrier's, which resets
    "carrier": ("n4", "n3", False),
    "firewall": ("n3", "n4", True),         # stateful, without translation
}
STARTS = {"global": set(), "a-inside": {"a"}, "b-inside": {"b"}}
MOVERS = {"a": ["a"], "b": ["b"], "both": ["a", "b"], "a-then-b": ["a", "b"], "b-then-a": ["b", "a"]}


def possible(start, end, movers):
    """Who has to change sides must move."""
    return STARTS[start] ^ STARTS[end] <= set(MOVERS[movers])


CELLS = [cell for cell in itertools.product(STARTS, STARTS, MOVERS) if possible(*cell)]
assert len(CELLS) == 37


def place(host, inside, column, last):
    """Where a host is: in its own global network or in another, or behind the column's first or last box."""
    first_box, last_box, _ = COLUMNS[column]
    if inside:
        return last_box if last else first_box
    return {"a": ["g2", "core"], "b": ["g1", "g2"]}[host][last]


@pytest.fixture
def said():
    """What the daemons said, if the test fails."""
    daemons = []
    yield daemons
    for one in daemons:
        print(f"== {one.host.name} {one.name}\n{one.said()}")


def run(make_lab, said, cell, kind, column):
    """One cell: agreed before the move, nobody reset, all data there."""
    start, end, movers = cell
    at = {host: place(host, host in STARTS[start], column, False) for host in "ab"}
    lab = make_lab(rtt=RTT, at=at, migrator=nobody)
    server = Server(lab.s)
    clients = [Client(lab.hosts[host], server) for host in "ab"]
    said += [server, *clients]
    traffic = kind(lab, v6=COLUMNS[column][2], size=4 * SIZE, opener="b" if start == "b-inside" else "a")
    traffic.until(SIZE // 8)
    for client in clients:
        client.agreed(traffic.port)
        client.joined()
    for i, host in enumerate(MOVERS[movers]):
        if i and movers != "both":
            time.sleep(RTT / 2)
        lab.hosts[host].move(place(host, host in STARTS[end], column, True))
    traffic.resumed()
    traffic.finish()
    assert lab.resets(traffic.port) == []


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
