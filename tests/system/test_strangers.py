# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections to the daemons' ports that say nothing, too little, too much or nonsense: others are served meanwhile."""

import contextlib
import os
import resource
import socket
import ssl
import struct
import time

import pytest

from exchange import RTT, Daemons, done, ready
from liar import Channel, Identity, resident
from tcplab.daemons import PEER_PORT, SERVER_PORT, Client, nobody
from tcplab.topology import wait_for
from traffic import SIZE, Download, Idle

PLACES = {"a": "h3", "b": "g1", "c": "h3", "d": "g2"}
MANY = 1000
MIB = 1024      # KiB


def client_hello():
    """The first flight of a TLS client."""
    out = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tls = context.wrap_bio(ssl.MemoryBIO(), out)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


class Flood:
    """So many connections of a host, from each of these of its addresses in turn, that say this and no more."""

    def __init__(self, host, where, count, say, sources=("0.0.0.0",)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (4 * count + 1000,) * 2)
        self.socks = []
        for i in range(count):
            with host.inside():
                sock = socket.socket()
            sock.bind((sources[i % len(sources)], 0))
            sock.setblocking(False)
            sock.connect_ex(where)
            self.socks.append(sock)
            if i % 50 == 49:
                time.sleep(RTT / 2)     # the links hold a hundred
        time.sleep(4 * RTT)
        for i, sock in enumerate(self.socks if say else ()):
            with contextlib.suppress(OSError):      # it has ended already
                sock.send(say)
            if i % 10 == 9:
                time.sleep(RTT / 10)
        time.sleep(2 * RTT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.socks:
            sock.close()


@pytest.fixture
def besieged(make_lab):
    """Daemons, with strangers C, behind the same NAPT as A, and D, which has fifty addresses."""
    made = []
    lab = make_lab("homes", rtt=RTT, at=PLACES, migrator=nobody)
    more = [str(lab.segment("g2").net4[100 + i]) for i in range(50)]
    lab.d.ip(*(f"addr add {address}/24 dev {lab.d.point.dev}" for address in more))
    made.append(Daemons(lab, 1, True))
    yield made[0], more
    made[0].say()


def counted(number, counter, name):
    """Waits until a counter is there: SYNs may be lost, and are repeated."""
    wait_for(f"{name} to be {number}", lambda: counter(name) == number, 5, 0.1)


@pytest.mark.virtual
@pytest.mark.parametrize("say", ["nothing", "half"])
def test_half_open_to_the_server(besieged, say):
    """A thousand, from fifty addresses: hosts join and are told all the while, and little memory is taken."""
    d, sources = besieged
    server = d.servers[0]
    traffic = Download(d.lab, size=4 * SIZE)
    ready(traffic, d)
    before = resident(server.child.pid)
    what = client_hello() if say == "half" else b""
    with Flood(d.lab.d, (d.lab.s.v4, SERVER_PORT), MANY, what, sources):
        counted(MANY, server.metric, "strangers")
        assert resident(server.child.pid) - before < 64 * MIB
        d.a.stop()
        d.a.start()
        d.a.joined()
        d.lab.a.move("g2")
        d.lab.b.move("core")
        traffic.resumed()
        wait_for("the strangers to have gone", lambda: server.metric("strangers") == 0, 20, 0.5)
        assert server.metric("introduction_failed_total") >= MANY
    traffic.finish()
    assert d.lab.resets(traffic.port) == []


@pytest.mark.virtual
def test_half_open_of_one_address(besieged):
    """Of a thousand of one address thirty-two stay. More than a thousand in all push out the oldest."""
    d, sources = besieged
    server = d.servers[0]
    where = (d.lab.s.v4, SERVER_PORT)
    with Flood(d.lab.c, where, MANY, b""):
        counted(MANY - 32, server.metric, "crowded_total")
        assert server.metric("strangers") == 32
        with Flood(d.lab.d, where, MANY + 100, b"", sources):
            counted(132, server.metric, "pushed_out_total")
            assert server.metric("strangers") == MANY


@pytest.mark.virtual
@pytest.mark.parametrize("say", ["nothing", "half"])
def test_half_open_to_a_client(besieged, say):
    """Without a connection they are closed at once; of those of A's address four stay. D agrees with B meanwhile."""
    d, _ = besieged
    lab = d.lab
    traffic = Idle(lab)
    d.a.agreed(traffic.port)
    before = resident(d.b.child.pid)
    where, what = (lab.b.v4, PEER_PORT), client_hello() if say == "half" else b""
    with Flood(lab.s, where, MANY, what), Flood(lab.c, where, MANY, what):
        counted(MANY, d.b.count, "peer_strangers")
        counted(MANY - 4, d.b.count, "peer_crowded")
        assert resident(d.b.child.pid) - before < 16 * MIB
        lab.set_link("g2", rate="8mbit")
        d.more.append(client := Client(lab.d, *d.servers))
        other = Download(lab, opener="d", size=4 * SIZE)
        client.agreed(other.port)
        lab.a.move("g2")
        for one in (traffic, other):
            one.resumed()
            one.finish()


def hello(length, body):
    """A frame with such a head."""
    return struct.pack("!I", length) + body


# What is said on a TLS channel by somebody with a key of his own.
NONSENSE = {
    "no-frame": hello(0, b""),
    "too-long": hello(1 << 31, b""),
    "long-hello": hello(60000, bytes(60000)),
    "random": hello(100, os.urandom(100)),
    "empty-hello": hello(2, b"\x0a\x00"),
    "cut-off": hello(1000, b"\x0a\x05abc"),
}


@pytest.mark.virtual
def test_nonsense(besieged):
    """Both daemons hear it, without TLS and with, and a connection of others once more: none of it counts."""
    d, _ = besieged
    lab = d.lab
    traffic = Idle(lab)
    ready(traffic, d)
    key = Identity(lab.c, "nonsense")
    for host, port in ((lab.s, SERVER_PORT), (lab.b, PEER_PORT)):
        for say in (os.urandom(2000), client_hello() + os.urandom(2000), b"GET / HTTP/1.1\r\n\r\n"):
            with lab.c.inside():
                sock = socket.create_connection((host.v4, port))
            sock.sendall(say)
            sock.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                assert len(b"".join(iter(lambda s=sock: s.recv(4096), b""))) < 2000
        for say in NONSENSE.values():
            with lab.c.inside():
                sock = socket.create_connection((host.v4, port))
            channel = Channel(key, sock)
            channel.tls.sendall(say)
            ended = channel.hear(20)
            assert ended is None or channel.hear(20) is None
            time.sleep(6)   # a few at a time of one address
    lab.a.move("g2")
    lab.b.move("core")
    done(lab, traffic)
