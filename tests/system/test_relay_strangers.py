# SPDX-License-Identifier: GPL-2.0-or-later
"""No open relay: what others send to a proxy's ports while somebody is relayed.

S has seen everything that went through the proxy, and sends under any name. What it
sends is dropped and counted; what is relayed neither waits nor breaks.
"""

import os
import time

import pytest

from relayed import GLOBAL, RTT
from tcplab import capture, craft
from tcplab.topology import wait_for
from traffic import SIZE, Both
from wire import ACK, FIN, RST, SYN, SYN_OPTIONS, Raw, again, option

COUNT = 50      # of each kind
MANY = 600      # in a flood
GAP = 0.2       # seconds, less than any retransmission time-out


class Stranger:
    """S, and what it has seen at the proxy."""

    def __init__(self, r):
        self.r, self.raw, self.gap = r, Raw(r.lab.s), GAP
        relay, = r.proxy.relays()
        self.at, self.port = relay["at"].rsplit(":", 1)[0], int(relay["at"].rsplit(":", 1)[1])
        self.places = [(end["seen"].rsplit(":", 1)[0], int(end["seen"].rsplit(":", 1)[1])) for end in relay["ends"]]
        time.sleep(0.02)
        self.seen = [s for s in capture.read(r.lab.captures["p"].path) if self.port in (s.sport, s.dport)]

    def numbers(self, place):
        """Sequence and acknowledgment number that somebody there has sent last."""
        last = [s for s in self.seen if (s.src, s.sport) == place and not s.flags & SYN][-1]
        return last.seq, last.ack

    def said(self, form, place=None):
        """A segment with our option, from an end."""
        return next(s for s in self.seen if s.migrate == [form] and s.dport == self.port
                    and place in (None, (s.src, s.sport)))

    def packet(self, flags, src="", sport=666, port=0, **kw):
        """A segment to the proxy, of S unless another is named."""
        return craft.packet(src or self.r.lab.s.v4, self.at, sport, port or self.port, flags, **kw)

    def request(self, sport, token=None, nonce=b"\x66" * 4):
        """The next MSYN of an end, from S, with another nonce: its MAC cannot be right."""
        msyn = self.said("MREQ")
        body = dict(msyn.options)[capture.OPTION]
        newest = max(dict(x.options)[capture.OPTION][3] for x in self.seen if x.migrate == ["MREQ"])
        body = body[:3] + bytes([newest + 1]) + (token or body[4:8]) + nonce + body[12:]
        opts = SYN_OPTIONS + bytes([capture.OPTION, len(body) + 2]) + body
        return self.packet(SYN, sport=sport, seq=msyn.seq, options=opts)

    def send(self, *packets):
        """So slowly that the links can hold it."""
        self.raw.send(list(packets))

    def close(self):
        self.raw.close()


@pytest.fixture
def scene(relayed):
    """A relayed transfer both ways, and a stranger; in the end it has neither waited nor been reset."""
    r = relayed(GLOBAL)
    # What the proxy drops is not what the way there drops.
    r.lab.set_link("g2", rate="1gbit", limit=1000)
    for place in ("g1", "n1", "n2", "n3"):
        r.lab.set_link(place, rate="10mbit")
    traffic = Both(r.lab, size=2 * SIZE)
    r.go_inside(traffic)
    time.sleep(0.3)
    s = Stranger(r)
    began = time.time()
    yield r, traffic, s
    ended = time.time()
    s.close()
    traffic.resumed()
    traffic.finish()
    assert [reset for reset in r.lab.resets(traffic.port) if reset[0] in "ab"] == []
    relay, = r.proxy.relays()
    assert [(end["seen"], end["rst"]) for end in relay["ends"]] == [(f"{a}:{p}", False) for a, p in s.places]
    for host in "ab":
        times = [x.time for x in r.lab.segments(host) if not x.out and x.length and began < x.time < ended]
        assert len(times) > 50
        assert max(b - a for a, b in zip(times, times[1:])) < s.gap, host


def grown(r, *names):
    """A function that says how much these counters of the proxy have grown until then."""
    before = {name: r.proxy.metric(name) for name in names}
    return lambda: {name: r.proxy.metric(name) - n for name, n in before.items()}


def counted(what, expected):
    """Waits until counters have grown so."""
    time.sleep(4 * RTT)
    assert what() == expected


def test_ports_that_are_not_ordered(scene):
    """Every kind of segment is counted, and gets a reset."""
    r, _, s = scene
    what = grown(r, "no_relay_total", "strangers_total", "moved_total", "requests_total")
    other = s.port + 1 if s.port < 20999 else 20000
    confirm = s.said("CONFIRM")
    kinds = [s.packet(flags, port=other, data=data) for flags in (SYN, ACK, FIN | ACK, RST, SYN | ACK, 0)
             for data in (b"", b"forged")]
    kinds += [again(s.said("MREQ"), r.lab.s.v4, s.at, 666, other), again(confirm, r.lab.s.v4, s.at, 666, other)]
    s.send(*kinds)
    counted(what, {"no_relay_total": len(kinds), "strangers_total": 0, "moved_total": 0, "requests_total": 0})
    resets = [x for x in capture.read(r.lab.captures["s"].path) if x.sport == other and x.flags & RST]
    assert len(resets) == len(kinds) - 2, "not for resets"


def test_segments_from_elsewhere(scene):
    """The ordered port, with exact numbers of either end, but from S: dropped. S's own ports do not help."""
    r, _, s = scene
    what = grown(r, "no_relay_total", "strangers_total", "moved_total", "requests_total")
    kinds = []
    for place in s.places:
        seq, ack = s.numbers(place)
        for flags in (ACK, FIN | ACK, RST, RST | ACK, SYN, SYN | ACK):
            for sport in (666, place[1]):
                kinds.append(s.packet(flags, sport=sport, seq=seq, ack=ack, data=b"" if flags & RST else b"forged"))
        # From their address, but another port.
        kinds.append(s.packet(RST, place[0], place[1] ^ 1, seq=seq, ack=ack))
    kinds.append(s.request(667, token=os.urandom(4)))
    s.send(*kinds)
    counted(what, {"no_relay_total": 0, "strangers_total": len(kinds), "moved_total": 0, "requests_total": 0})


def test_replays(scene):
    """What the ends have said when they were joined, once more: from S, and under their names."""
    r, _, s = scene
    what = grown(r, "moved_total", "joined_total", "requests_total")
    old = [x for x in s.seen if x.dport == s.port and x.migrate and x.migrate[0] in ("MREQ", "CONFIRM", "MANS")]
    assert {x.migrate[0] for x in old} >= {"MREQ", "CONFIRM"}
    for sport in (666, 0):
        s.send(*(again(x, r.lab.s.v4 if sport else "", "", sport) for x in old * 5))
    time.sleep(4 * RTT)
    assert what() == {"moved_total": 0, "joined_total": 0, "requests_total": 0}
    assert r.proxy.metric("replayed_total") >= 10


def test_guesses(scene):
    """Under the name of an end, at numbers that are no longer, or not yet, or anything: the ends refuse them."""
    r, _, s = scene
    what = grown(r, "strangers_total", "moved_total")
    for place in s.places:
        seq, ack = s.numbers(place)
        for off in (0, 1, -1, 1 << 20, 1 << 31):
            s.send(*(s.packet(flags, *place, seq=(seq + off) & 0xFFFFFFFF, ack=ack, data=data)
                     for flags, data in ((RST, b""), (FIN | ACK, b""), (RST | ACK, b""))))
        s.send(*(s.packet(ACK, *place, seq=int.from_bytes(os.urandom(4), "big"), ack=ack, data=b"forged")
                 for _ in range(COUNT)))
    time.sleep(4 * RTT)
    assert what() == {"strangers_total": 0, "moved_total": 0}


def test_forgers(scene):
    """S knows the tokens, and asks from many ports, with proofs of others. Then A moves, and is found at once."""
    r, _, s = scene
    what = grown(r, "moved_total", "crowded_total")
    proofs = [s.said("CONFIRM", place) for place in s.places]
    for sport in range(1000, 1000 + COUNT):
        s.send(s.request(sport, nonce=os.urandom(4)), *(again(proof, r.lab.s.v4, "", sport) for proof in proofs))
    time.sleep(4 * RTT)
    assert what()["moved_total"] == 0 and what()["crowded_total"] >= COUNT - 4
    s.gap = 6 * RTT
    began = time.monotonic()
    r.lab.a.move("n3")
    wait_for("A to be found", lambda: r.proxy.metric("moved_total") == 1, 10, 0.005)
    assert time.monotonic() - began < 6 * RTT
    relay, = r.proxy.relays()
    s.places = [(end["seen"].rsplit(":", 1)[0], int(end["seen"].rsplit(":", 1)[1])) for end in relay["ends"]]


def test_flood(scene):
    """Nonsense to all ports, more than the proxy answers: it answers what it may."""
    r, _, s = scene
    what = grown(r, "resets_total")
    rubbish = [s.packet(ACK, sport=1000 + i, port=20000 + i, data=os.urandom(20)) for i in range(MANY)]
    rubbish += [s.packet(ACK, sport=1000 + i, options=option(i % 16, i % 16, os.urandom(i % 32))) for i in range(MANY)]
    s.send(*rubbish)    # for 0.6 s
    time.sleep(4 * RTT)
    assert 100 <= what()["resets_total"] <= 250
