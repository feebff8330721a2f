# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that lie, one of two or the only one: the honest one wins, or it is no worse than without."""

import os

import pytest

from exchange import GLOBAL, INSIDE, RTT, Daemons, ready
from liar import ASK, NEEDS_PROXY, NOTICE, VERDICT, LyingServer, packed
from tcplab.daemons import Server, nobody
from traffic import SIZE, Download, Upload

VICTIMS = [f"203.0.113.{70 + i}" for i in range(20)]    # nobody answers there
VICTIM = VICTIMS[7]
MOST_TRIED = 10             # places that one server may name in a minute: docs/exchange.md


def notice(report, place, number=1, trial=0, shift=0, pair=None):
    """Where the peer is not."""
    return {1: pair or report.pair, 2: number, 3: 0, 4: packed(place), 5: trial, 6: report.resume(shift)}


# What a lying server answers to a report.
LIES = {
    "needs-proxy": lambda ch, r: ch.say(VERDICT, {1: r.pair, 2: 1, 3: NEEDS_PROXY}),
    "victim": lambda ch, r: ch.say(NOTICE, notice(r, VICTIM)),
    "trial": lambda ch, r: ch.say(NOTICE, notice(r, VICTIM, trial=1)),
    "hint": lambda ch, r: ch.say(ASK, {1: r.pair, 2: packed(VICTIM), 3: r.resume()}),
    "many": lambda ch, r: [ch.say(NOTICE, notice(r, VICTIMS[i % 20], i + 1)) for i in range(300)],
    "other-ports": lambda ch, r: ch.say(NOTICE, notice(r, VICTIM, shift=1)),
    "other-pair": lambda ch, r: ch.say(NOTICE, notice(r, VICTIM, pair=os.urandom(16))),
    "nonsense": lambda ch, r: ch.raw(os.urandom(100)),
    "too-long": lambda ch, r: ch.raw(b"", 1 << 31),
}


@pytest.fixture
def with_liar(make_lab):
    """Makes Daemons with a lying server, and an honest one before or after it, or none."""
    made = []

    def make(at, lie, honest=None, b=True):
        lab = make_lab(rtt=RTT, at=at, migrator=nobody)
        liar = LyingServer(lab.s, lie)
        servers = [liar] if honest is None else [Server(lab.s), liar] if honest == 0 else [liar, Server(lab.s)]
        made.append((Daemons(lab, servers, b), liar))
        return made[-1]
    yield make
    for d, liar in made:
        liar.close()
        d.say()


def aimed(lab, host):
    """What a host has sent to places that only lies name."""
    return [seg for seg in lab.segments(host) if seg.out and seg.migrate == ["MREQ"] and seg.dst in VICTIMS]


def told_of_few(lab):
    """Whoever is aimed at gets little of it: few requests, each repeated ever later for three seconds at most."""
    for host in "ab":
        segs = aimed(lab, host)
        assert len({seg.dst for seg in segs}) <= MOST_TRIED and len(segs) <= 5 * MOST_TRIED, segs


@pytest.mark.virtual
@pytest.mark.parametrize("honest", [0, 1], ids=["honest-first", "liar-first"])
@pytest.mark.parametrize("lie", LIES)
def test_one_of_two_servers_lies(with_liar, lie, honest):
    """Both ends move: the honest one has them find each other."""
    d, _ = with_liar(INSIDE, LIES[lie], honest)
    traffic = Download(d.lab, size=4 * SIZE)
    ready(traffic, d)
    d.lab.a.move("n2")
    d.lab.b.move("g2")
    traffic.resumed()
    traffic.finish()
    assert d.lab.resets(traffic.port) == []
    told_of_few(d.lab)


@pytest.mark.virtual
@pytest.mark.parametrize("lie", LIES)
def test_only_server_lies(with_liar, lie):
    """It is nearer than the peer, so that its lies come first. One end moves: the other is where it was."""
    d, _ = with_liar(GLOBAL | {"s": "core"}, LIES[lie])
    d.lab.set_link("g1", delay=RTT)
    traffic = Upload(d.lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    for client in d.clients:
        client.agreed(traffic.port)
    d.lab.a.move("core")
    # What the peer answers to a request that has gone elsewhere since is reset; that harms nobody.
    traffic.finish()
    told_of_few(d.lab)
