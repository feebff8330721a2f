# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that are down, hang, or are out of reach, and a bad way to them: hosts' connections go on all the same."""

import contextlib
import signal
import socket

import pytest

from exchange import GLOBAL, INSIDE, done, ready
from tcplab.topology import wait_for
from traffic import SIZE, Download, Idle, Upload
from wire import Losing


def move_both(d):
    """A and B at once: only a server can help."""
    d.lab.a.move("core" if d.lab.a.point.place == "g2" else "n2")
    d.lab.b.move("g2")


@pytest.mark.parametrize("at", [GLOBAL, INSIDE], ids=["global", "inside"])
@pytest.mark.parametrize("kind", [Download, Upload])
def test_lossy_way_to_the_server(daemons, at, kind):
    """One of ten segments to and from it is lost."""
    d = daemons(at)
    traffic = kind(d.lab, size=4 * SIZE)
    ready(traffic, d)
    # A random number of 32 bits.
    rule = "meta random < 429496730 counter drop"
    with Losing(d.lab.s, rule, "input"), Losing(d.lab.s, rule, "output"):
        move_both(d)
        done(d.lab, traffic)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["hangs", "dies"])
def test_one_of_two_servers(daemons, which, how):
    """It hangs, or is no more: the other one is enough."""
    d = daemons(INSIDE, servers=2)
    traffic = Download(d.lab, size=4 * SIZE)
    ready(traffic, d)
    assert len(d.a.pair()["servers"]) == len(d.b.pair()["servers"]) == 2
    child = d.servers[which].child
    child.send_signal(how)
    move_both(d)
    done(d.lab, traffic)
    child.kill()


@contextlib.contextmanager
def out_of_reach(d, host, port):
    """A host does not reach a server, nor the server that host."""
    with Losing(d.lab.hosts[host], f"tcp dport {port} counter drop", "output"):
        yield


@pytest.mark.virtual
@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("servers", [1, 2])
def test_server_out_of_reach_of_one_end(daemons, who, servers):
    """Another one that both reach is enough; without one, all goes on when it is reached again."""
    d = daemons(INSIDE, servers=servers)
    traffic = Download(d.lab, size=4 * SIZE)
    ready(traffic, d)
    with out_of_reach(d, who, d.servers[0].port):
        move_both(d)
        if servers == 2:
            return done(d.lab, traffic)
        wait_for("a verdict", lambda: "what=peer-silent" in d.a.said() + d.b.said(), 60, 0.1)
    done(d.lab, traffic)


class Talk:
    """A connection of which both ends are here: A's to B."""

    port = 5200

    def __init__(self, lab):
        with lab.b.inside():
            listener = socket.create_server(("0.0.0.0", self.port))
        with lab.a.inside():
            self.a = socket.create_connection((lab.b.v4, self.port))
        self.b = listener.accept()[0]
        listener.close()

    def say(self, sender, receiver, text, timeout=60):
        """One end says it, and the other hears just that."""
        sender.sendall(text)
        receiver.settimeout(timeout)
        heard = b""
        while len(heard) < len(text):
            heard += receiver.recv(len(text) - len(heard))
        assert heard == text

    def close(self):
        for sock in (self.a, self.b):
            sock.close()


@pytest.mark.virtual
@pytest.mark.parametrize("napt, patience", [("n1", 60), ("n4", 60), ("n3", 5)])
def test_napt_forgets_what_is_idle(daemons, napt, patience):
    """The global end writes to a host whose NAPT knows nothing of the connection any more.

    N1 and N4 reset what they do not know. N3 says nothing: TCP has to doubt the
    path first (tcp_retries1: at the first time-out after 3 s).
    """
    d = daemons({"a": napt, "b": "g1"})
    talk = Talk(d.lab)
    talk.say(talk.a, talk.b, b"before")
    for client in d.clients:
        client.agreed(talk.port)
        client.joined()
    # Those of the channels are young: keepalives see to that.
    d.lab.boxes[napt].run(f"conntrack -D -p tcp --dport {talk.port}")
    talk.say(talk.b, talk.a, b"after", patience)
    talk.say(talk.a, talk.b, b"last")
    talk.close()


def test_servers_are_idle(daemons):
    """Where nobody moves servers are asked nothing."""
    d = daemons(INSIDE, servers=2)
    traffic = Idle(d.lab)
    for client in d.clients:
        client.agreed(traffic.port)
        client.joined()
    assert [client.count("reports") for client in d.clients] == [0, 0]
    traffic.finish()
