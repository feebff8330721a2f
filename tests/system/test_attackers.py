# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that lie to a server or want to be somebody's peer; an observer, or a box between, that runs the exchange.

A and C are behind one NAPT: for B both have the same address.
"""

import hmac
import os
import signal
import socket
import threading
import time

import pytest

from exchange import RTT, done
from liar import (ANSWER, NOT_PROVED, NOT_YOURS, OFFER, OTHER_IDENTITY, PEER_REFUSED, POLICY, Channel, FakeHost,
                  Identity, LyingServer, Threads, decode, encode, part, proof)
from tcplab import capture
from tcplab.daemons import PEER_PORT, Client, Server, nobody
from tcplab.topology import wait_for
from traffic import SIZE, Download, Idle, Upload

MOST_TRIED = 10     # places that one server may name in a minute
PLACES = {"a": "h3", "b": "g1", "c": "h3"}


@pytest.fixture
def scene(make_lab):
    """A lab, and a list for its daemons: those say what they have said if the test fails."""
    said = []
    yield make_lab("homes", rtt=RTT, at=PLACES, migrator=nobody), said
    for one in said:
        print(f"== {one.host.name} {one.home.name}\n{one.said()}")


class Observer:
    """Host C, which has seen the handshake of A's connection: ports, and the keys if it has looked."""

    def __init__(self, lab, traffic):
        self.lab = lab
        time.sleep(0.02)
        seen = [seg for seg in capture.read(lab.captures["a"].path)
                if traffic.port in (seg.sport, seg.dport) and seg.migrate == ["PERMIT"]]
        self.ports = (seen[0].sport, seen[0].dport)
        keys = b"".join(seg.options[-1][1][10:18] for seg in seen[:2])
        self.exporter = hmac.digest(hmac.digest(keys + bytes(16), b"TCPM v0", "sha256"), b"TCPM exporter", "sha256")
        self.key = Identity(lab.c, "observer")

    def offer(self, peer, exporter):
        """What B's daemon says to an Offer with a proof made of this."""
        with self.lab.c.inside():
            sock = socket.create_connection((self.lab.b.v4, PEER_PORT))
        self.channel = Channel(self.key, sock)
        name = bytes.fromhex(peer.identity())
        self.channel.say(OFFER, {1: 1, 2: "observer", 3: part(self.key.name, self.lab.a.v4),
                                 5: {1: self.ports[0], 2: self.ports[1],
                                     3: proof(exporter, True, self.channel.exporter(), self.key.name, name)}})
        return self.channel.hear()


def refused(answer, why):
    """It was a refusal, for this reason."""
    assert answer and answer[0] == PEER_REFUSED and answer[1][1] == [why], answer


def test_observer_knows_no_key(scene):
    """It comes first, with the ports and no key; then A comes, and has the key."""
    lab, said = scene
    said += [server := Server(lab.s), b := Client(lab.b, server)]
    traffic = Download(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    refused(Observer(lab, traffic).offer(b, os.urandom(32)), NOT_PROVED)
    assert b.ask("pairs") == [] and b.count("proofs_bad") == 1
    said.append(a := Client(lab.a, server))
    a.agreed(traffic.port)
    b.agreed(traffic.port)
    lab.a.move("g2")
    done(lab, traffic)


def test_observer_comes_second(scene):
    """It has read the keys of the handshake; the genuine exchange was first."""
    lab, said = scene
    said += [server := Server(lab.s), a := Client(lab.a, server), b := Client(lab.b, server)]
    traffic = Upload(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    b.agreed(traffic.port)
    observer = Observer(lab, traffic)
    refused(observer.offer(b, observer.exporter), OTHER_IDENTITY)
    assert b.count("proofs_of_another") == 1
    assert b.pair()["host"] == a.identity()
    lab.a.move("g2")
    done(lab, traffic)


def test_observer_comes_first(scene):
    """It has read the keys, and A's daemon is not there yet: B takes it for its peer, and shows whom. A is told why."""
    lab, said = scene
    said += [server := Server(lab.s), b := Client(lab.b, server)]
    traffic = Idle(lab)
    observer = Observer(lab, traffic)
    assert observer.offer(b, observer.exporter)[0] != PEER_REFUSED
    said.append(a := Client(lab.a, server))
    wait_for("A to be refused", lambda: a.ask("status")["alone"], 20, 0.05)
    assert "another host has proved" in a.ask("status")["alone"][0]["why"]
    assert b.pair()["host"] == observer.key.name.hex()
    traffic.finish()


def test_observer_is_not_listed(scene):
    """The same, but B takes only hosts that its administrator has listed."""
    lab, said = scene
    said += [server := Server(lab.s), a := Client(lab.a, server)]
    a.stop()
    said.append(b := Client(lab.b, server, peers='require = "listed"'))
    (b.home / "hosts").write_text(a.identity() + "\n")
    b.child.send_signal(signal.SIGHUP)
    traffic = Download(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    observer = Observer(lab, traffic)
    refused(observer.offer(b, observer.exporter), POLICY)
    a.start()
    a.agreed(traffic.port)
    lab.a.move("g2")
    done(lab, traffic)


# ---- In the middle ----

class Middle(Threads):
    """A's NAPT has A's channels to B's daemon end at itself, and passes on what is said, under a name of its own."""

    def __init__(self, lab):
        self.lab, self.box = lab, lab.boxes["h3"]
        self.key = Identity(self.box, "middle")
        self.passed = []
        super().__init__(self.box, PEER_PORT)
        self.box.run(["nft", "-f", "-"], input=f"table ip middle {{ chain c {{ type nat hook prerouting priority -100; "
                                               f"ip daddr {lab.b.v4} tcp dport {PEER_PORT} redirect; }}; }}\n")

    def serve(self, sock):
        one = Channel(self.key, sock, server=True)
        with self.box.inside():
            out = socket.create_connection((self.lab.b.v4, PEER_PORT))
        other = Channel(self.key, out)
        threading.Thread(target=self._pass_on, args=(other, one), daemon=True).start()
        self._pass_on(one, other)

    def _pass_on(self, source, target):
        """With its own name in the place of theirs, without which the rest is not even looked at."""
        while heard := source.hear():
            kind, fields = heard
            if kind in (OFFER, ANSWER):
                fields[3] = [encode(decode(fields[3][0]) | {1: self.key.name})]
            self.passed.append(kind)
            target.say(kind, fields)
        target.close()

    def close(self):
        self.box.run("nft delete table ip middle")
        super().close()


@pytest.mark.virtual
def test_in_the_middle_of_the_exchange(scene):
    """Proofs that are passed on prove nothing; moves go on by the handshake's key. Later the way is free."""
    lab, said = scene
    middle = Middle(lab)
    said += [server := Server(lab.s), a := Client(lab.a, server), b := Client(lab.b, server)]
    traffic = Idle(lab)
    wait_for("the exchange to fail", lambda: a.ask("status")["alone"], 20, 0.05)
    assert middle.passed == [OFFER, PEER_REFUSED] and b.count("proofs_bad") == 1
    assert [one["agreed"] for client in (a, b) for one in client.ask("pairs")] in ([], [False], [False, False])
    middle.close()
    a.agreed(traffic.port)
    assert [pair["host"] for pair in a.ask("pairs") if pair["agreed"]] == [b.identity()]
    lab.a.move("g2")
    done(lab, traffic)


# ---- Lies to a server ----

def aimed(lab, victim):
    """What hosts A and B have sent to somebody."""
    return [seg for host in "ab" for seg in lab.segments(host) if seg.out and seg.dst == victim]


@pytest.mark.virtual
def test_reports_of_strangers(scene):
    """C is admitted as well. It reports in A's name, and of pairs with A and B that there are not, all the time."""
    lab, said = scene
    said += [server := Server(lab.s), a := Client(lab.a, server), b := Client(lab.b, server)]
    traffic = Download(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    for client in (a, b):
        client.agreed(traffic.port)
        client.joined()
    names = {client: bytes.fromhex(client.identity()) for client in (a, b)}
    c = FakeHost(lab.c, server)
    ports = [(80, 40000)]
    c.report(part(names[a], lab.a.v4), part(names[b], lab.b.v4), lab.a.v4, lab.b.v4, lab.c.v4, ports)
    assert c.channel.hear()[1][1] == [NOT_YOURS]
    for i in range(100):
        for client in (a, b):
            host = client.host
            c.report(part(c.key.name, lab.c.v4, os.urandom(16)), part(names[client], host.v4), lab.c.v4, host.v4,
                     f"203.0.113.{100 + i}", ports)
    lab.a.move("g2")
    lab.b.move("core")
    done(lab, traffic)
    assert 0 < a.count("unknown_pairs") + b.count("unknown_pairs") <= 64
    assert aimed(lab, lab.c.v4) == []


def parts_of(client, liar):
    """Both parts of a pair, which its hosts alone know."""
    client.ask("report")
    return liar.heard.get(timeout=20)


VICTIMS = {"global": "203.0.113.200", "private": "10.0.0.200"}


@pytest.mark.virtual
@pytest.mark.parametrize("victim", VICTIMS)
def test_peer_says_that_it_is_elsewhere(scene, victim):
    """B itself lies, from behind A's NAPT. To a global place nobody is sent; to a private one in trials, and few."""
    lab, said = scene
    liar = LyingServer(lab.s, lambda channel, report: None)
    said += [server := Server(lab.s), a := Client(lab.a, server, liar), b := Client(lab.b, server, liar)]
    traffic = Upload(lab, size=16 * SIZE)
    traffic.until(SIZE // 8)
    for client in (a, b):
        client.agreed(traffic.port)
        client.joined()
    seen = parts_of(b, liar)
    fake = FakeHost(lab.c, server, Identity(lab.c, "as-b", b.home / "identity.pem"))
    for _ in range(30):
        fake.report(seen.own, seen.peer, lab.b.v4, "192.0.2.12", VICTIMS[victim], [(p[1], p[2]) for p in seen.ports])
        time.sleep(0.5)
    traffic.finish()
    assert lab.resets(traffic.port) == []
    sent = aimed(lab, VICTIMS[victim])
    if victim == "global":
        assert sent == []
    else:
        assert 0 < a.count("notices_tried") <= MOST_TRIED < a.count("notices")
        # A request is repeated after a quarter of a second, and ever later, until the next is tried.
        assert MOST_TRIED - 1 <= len(sent) <= 3 * MOST_TRIED
    liar.close()
