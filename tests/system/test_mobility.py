# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemons alone: programs' connections survive moves, and nobody types a command."""

import signal

import pytest

from exchange import GLOBAL, INSIDE, done, ready
from tcplab.topology import CTL, wait_for
from traffic import SIZE, STREAMS, Both, Download, Idle, Upload


# ---- One end moves ----

@pytest.mark.parametrize("kind", STREAMS)
def test_one_sided(daemons, kind):
    """A moves between NAPTs; B has no daemon."""
    d = daemons(INSIDE, servers=0, b=False)
    traffic = kind(d.lab)
    traffic.until(SIZE // 4)
    assert [one["address"] for one in d.a.ask("status")["alone"]] == [d.lab.b.v4]
    assert d.a.ask("pairs") == []
    d.lab.a.move("n2")
    done(d.lab, traffic)
    assert d.a.count("moves_done") == 1


@pytest.mark.parametrize("mover", ["a", "b"])
def test_one_sided_ipv6(daemons, mover):
    """The same over IPv6, either end."""
    d = daemons(GLOBAL, servers=0)
    traffic = Download(d.lab, v6=True)
    traffic.until(SIZE // 4)
    d.lab.hosts[mover].move("core")
    done(d.lab, traffic)


@pytest.mark.virtual
def test_gap(daemons):
    """No address at all for half a minute, then one elsewhere."""
    d = daemons(INSIDE, servers=0, b=False)
    traffic = Download(d.lab)
    traffic.until(SIZE // 4)
    d.lab.a.move("n2", gap=30)
    done(d.lab, traffic)
    assert d.a.ask("status")["stuck"] == []


@pytest.mark.virtual
def test_many_moves(daemons):
    """Each as soon as the last has carried data."""
    d = daemons(INSIDE)
    traffic = Upload(d.lab, size=8 * SIZE)
    ready(traffic, d)
    for place in ["n2", "n3", "g2", "n1"]:
        d.lab.a.move(place)
        traffic.resumed()
    traffic.finish()
    assert d.lab.resets(traffic.port) == []
    # The channel to the server is a connection that moves along.
    assert [client.count("server_joined") for client in d.clients] == [1, 1]


@pytest.mark.parametrize("mover", ["a", "b"])
def test_connections_after_a_move(daemons, mover):
    """What is opened from or to the new place is agreed on as well, on the channel that has moved along."""
    d = daemons(GLOBAL)
    first = Idle(d.lab)
    for client in d.clients:
        client.agreed(first.port)
    d.lab.hosts[mover].move("core")
    first.resumed()
    second = Download(d.lab)
    for client in d.clients:
        wait_for("both connections to be agreed on",
                 lambda c=client: [one["guard"] for one in c.pair()["connections"]] == ["exclusive"] * 2, 20)
    assert [client.count("peer_agreed") for client in d.clients] == [1, 1]
    for traffic in (first, second):
        traffic.finish()


# ---- Before a move ----

def test_pair_key(daemons):
    """Both ends agree: a key that excludes the handshake's, and who is inside."""
    d = daemons(INSIDE, servers=0)
    traffic = Idle(d.lab)
    for client in d.clients:
        client.agreed(traffic.port)
    at_a, at_b = d.a.pair(), d.b.pair()
    assert at_a["id"] == at_b["id"]
    assert (at_a["inside"], at_b["inside"]) == (True, False)
    assert (at_a["host"], at_b["host"]) == (d.b.identity(), d.a.identity())
    assert at_a["trust"] == "pinned"
    for host in (d.lab.a, d.lab.b):
        assert host.connection(traffic.port)["key-mask"] == 2
    d.lab.a.move("n2")
    done(d.lab, traffic)


@pytest.mark.parametrize("who", ["a", "b", "both"])
def test_restarted_clients_keep_the_key(daemons, who):
    """A client that is started anew makes the pair anew; moves are still proved by the key."""
    d = daemons(GLOBAL, servers=0)
    traffic = Idle(d.lab)
    for client in d.clients:
        client.agreed(traffic.port)
    for client in d.clients:
        if who in (client.host.name, "both"):
            client.stop(signal.SIGKILL)
            client.start()
    for client in d.clients:
        client.agreed(traffic.port)
    assert d.lab.a.connection(traffic.port)["key-mask"] == 2
    d.lab.a.move("core")
    done(d.lab, traffic)


def test_what_people_and_programs_are_told(daemons):
    """migrate-ctl on a daemon that has something to say, and its JSON."""
    d = daemons(INSIDE)
    traffic = Idle(d.lab)
    ready(traffic, d)
    for command in ("status", "pairs", "servers", "report", "log"):
        d.a.fits(command)
    assert "not inside" not in d.a.ctl("pairs") and "not inside a NAPT" in d.b.ctl("pairs")
    assert d.b.identity() in d.a.ctl("pairs")
    assert d.lab.s.v4 in d.a.ctl("servers")
    assert "1 pairs reported" in d.a.ctl("report")
    assert "event=agreed" in d.a.ctl("log", "-n", "1000")
    traffic.finish()


def test_log_is_followed(daemons):
    """What comes is told until the daemon ends, which has as many descriptors as it may."""
    d = daemons(GLOBAL, servers=0, b=False)
    with open(f"/proc/{d.a.child.pid}/limits", encoding="ascii") as limits:
        files = next(line.split() for line in limits if line.startswith("Max open files"))
    assert files[3] == files[4]
    told = d.a.home / "told"
    with open(told, "wb") as out:
        follower = d.lab.a.popen([CTL, "--control", d.a.control, "log", "-n", "1", "-f"], stdout=out, stderr=out)
    wait_for("the last line", lambda: "event=" in told.read_text(), every=0.02)
    d.a.child.send_signal(signal.SIGHUP)
    wait_for("the reload to be told", lambda: "event=reloaded" in told.read_text(), every=0.02)
    d.a.stop()
    assert follower.wait(10) == 7
    d.a.start()


def test_reload_loses_nothing(daemons):
    """SIGHUP, also with a mistake in the file, in the middle of everything."""
    d = daemons(GLOBAL)
    traffic = Download(d.lab, size=4 * SIZE)
    ready(traffic, d)
    before = d.a.pair()["id"]
    d.a.child.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: "event=reloaded" in d.a.said(), every=0.02)
    with open(d.a.config, "a", encoding="ascii") as f:
        f.write("nonsense\n")
    d.a.child.send_signal(signal.SIGHUP)
    wait_for("the mistake", lambda: "event=reload-failed" in d.a.said(), every=0.02)
    assert d.a.pair()["id"] == before
    d.lab.a.move("core")
    done(d.lab, traffic)


# ---- Both ends have moved, or one is inside ----

@pytest.mark.parametrize("kind", [Download, Upload, Both, Idle])
def test_both_move_at_once(daemons, kind):
    """Both global: neither knows where the other is; the server does."""
    d = daemons(GLOBAL)
    traffic = kind(d.lab, size=4 * SIZE)
    ready(traffic, d)
    d.lab.a.move("core")
    d.lab.b.move("g2")
    done(d.lab, traffic)
    assert d.a.count("notices_resumed") + d.b.count("notices_resumed") >= 1


@pytest.mark.parametrize("kind", [Download, Upload, Both, Idle])
def test_global_end_moves(daemons, kind):
    """A is inside a NAPT, B moves: only A can make a connection to the other's new place."""
    d = daemons(INSIDE)
    traffic = kind(d.lab, size=4 * SIZE)
    ready(traffic, d)
    d.lab.b.move("g2")
    done(d.lab, traffic)
    assert d.a.count("asks") >= 1


@pytest.mark.parametrize("kind", [Download, Upload])
def test_both_move_one_inside(daemons, kind):
    """A goes from NAPT to NAPT and B elsewhere, at once."""
    d = daemons(INSIDE)
    traffic = kind(d.lab, size=4 * SIZE)
    ready(traffic, d)
    d.lab.a.move("n2")
    d.lab.b.move("g2")
    done(d.lab, traffic)


@pytest.mark.virtual
def test_server_restarts(daemons):
    """The server is down when both move; they report again when it is back."""
    d = daemons(GLOBAL)
    traffic = Download(d.lab, size=4 * SIZE)
    ready(traffic, d)
    d.servers[0].stop()
    d.lab.a.move("core")
    d.lab.b.move("g2")
    wait_for("both to be without a server",
             lambda: all(s["state"] != "joined" for c in d.clients for s in c.ask("servers")), every=0.1)
    d.servers[0].start()
    done(d.lab, traffic)


def test_other_family_is_not_native(daemons):
    """A keeps only IPv6: its IPv4 connection waits, and status says why."""
    d = daemons(GLOBAL, servers=0, b=False)
    traffic = Idle(d.lab)
    d.lab.a.ip(f"addr del {d.lab.a.v4}/24 dev {d.lab.a.point.dev}", version="-4")
    wait_for("status to say so", lambda: [s["what"] for s in d.a.ask("status")["stuck"]] == ["not-native"], every=0.05)
    assert d.lab.a.connection(traffic.port)["state"] == "idle"
