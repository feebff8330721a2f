# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's netlink family, spoken to by genl.py and, where built, migrate-ctl."""

import contextlib
import errno
import json
import socket
import struct
import threading
import time

import pytest

from tcplab import genl
from tcplab.topology import CTL, wait_for
from test_moves import settled
from traffic import Idle
from wire import Pair, changed
from wire import settled as pair_settled

TCP_MIGRATE_TO = 62


def test_both_ends_tell_the_same(make_lab):
    """What one end calls local the other calls remote."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    a, b = lab.a.connection(traffic.port), lab.b.connection(traffic.port)
    assert (a["local-addr"], a["local-port"]) == (b["remote-addr"], b["remote-port"])
    assert (a["remote-addr"], a["remote-port"]) == (b["local-addr"], b["local-port"])
    assert (a["token-local"], a["token-remote"]) == (b["token-remote"], b["token-local"])
    assert (a["role"], b["role"]) == (1, 0)
    assert a["state"] == b["state"] == "idle"
    assert (a["peer-nat"], b["peer-nat"]) == (0, 0)


def test_napt_is_seen(make_lab):
    """B sees that A is behind a NAPT, and A's own address."""
    lab = make_lab(at={"a": "n1"})
    traffic = Idle(lab)
    b = lab.b.connection(traffic.port)
    assert b["peer-nat"] == 1
    assert b["peer-inner-addr"] == lab.a.v4


def test_exporter_is_the_same_at_both_ends(make_lab):
    """And differs between connections."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    values = []
    for host in (lab.a, lab.b):
        with host.family() as family:
            cookie = host.connection(traffic.port)["cookie"]
            values += [family.call("export", cookie=cookie)[0]["exporter"]]
    assert values[0] == values[1] and len(values[0]) == 64


def test_migrate_one(make_lab):
    """One connection, by its cookie."""
    lab = make_lab(at={"a": "g1"})
    traffic = Idle(lab)
    new = lab.a.attach("g2")
    with lab.a.family() as family:
        family.migrate(lab.a.connection(traffic.port)["cookie"], new_local_addr=new.v4)
    settled(lab.a, traffic.port, 1)
    assert lab.a.connection(traffic.port)["local-addr"] == new.v4
    traffic.finish()


@contextlib.contextmanager
def watching(host):
    """The events of a host, complete when the block is left."""
    seen: list[genl.Attrs] = []
    with host.family() as family:
        thread = threading.Thread(target=lambda: seen.extend(family.events(timeout=2)))
        thread.start()
        time.sleep(0.1)
        yield seen
        thread.join()


def test_events(make_lab):
    """A move is told step by step."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    with watching(lab.a) as seen:
        lab.a.move("g2")
        settled(lab.a, traffic.port, 1)
    states = [e["state"] for e in seen]
    assert states[:1] == ["mig-sent"] and states[-1] == "idle"
    assert any(e["reason"] == "committed" for e in seen)


def reasons(seen):
    return [e["reason"] for e in seen]


def test_no_route_is_told(make_lab):
    """The request waits for a route, and says so."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    new = lab.a.attach("g2")
    lab.a.ip(f"route replace unreachable default table {new.table} metric 0")
    with watching(lab.a) as seen:
        with lab.a.family() as family:
            family.migrate(lab.a.connection(traffic.port)["cookie"], new_local_addr=new.v4)
        assert lab.a.connection(traffic.port)["reason"] == "no-route"
        lab.a.ip(f"route replace default via {lab.segment('g2').gw4} dev {new.dev} table {new.table} metric 0")
        settled(lab.a, traffic.port, 1)
    assert reasons(seen)[0] == "no-route" and reasons(seen)[-1] == "committed"
    assert "command" not in reasons(seen)


def test_refused_request_is_told_once(make_lab):
    """A box answers MSYNs by resets for some time."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    new = lab.a.attach("g2")
    lab.net.run(["nft", "-f", "-"], input=f"""table inet refusing {{ chain f {{ type filter hook forward priority 0;
        ip saddr {new.v4} tcp flags syn reject with tcp reset;
    }}\n }}\n""")
    before = lab.a.counters()
    with watching(lab.a) as seen:
        with lab.a.family() as family:
            family.migrate(lab.a.connection(traffic.port)["cookie"], new_local_addr=new.v4)
        wait_for("two refusals", lambda: changed(lab.a, before).get("RstHint", 0) > 1, 10)
        lab.net.run("nft delete table inet refusing")
        settled(lab.a, traffic.port, 1)
    assert reasons(seen)[:2] == ["command", "rst-hint"] and reasons(seen)[-1] == "committed"
    assert reasons(seen).count("rst-hint") == 1


def test_asked_where_it_is_through_the_napt_of_the_peer(make_lab):
    """A's NAPT lets no SYN of B in and resets it; B asks without at once."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    traffic = Idle(lab)
    with watching(lab.b) as seen:
        before = time.monotonic()
        with lab.b.family() as family:
            family.migrate(lab.b.connection(traffic.port)["cookie"])
        wait_for("an answer", lambda: lab.b.connection(traffic.port)["state"] == "idle", 10)
        took = time.monotonic() - before
    assert reasons(seen)[:2] == ["command", "rst-hint"] and reasons(seen)[-1] == "committed"
    assert took == pytest.approx(0.025 + 0.05 + 0.05, abs=0.006)
    assert lab.b.counters()["MsynSent"] == 2
    traffic.finish()


def test_napt_of_the_peer_is_told(make_lab):
    """B hears when A moves behind a NAPT, and when it leaves; not when it stays behind one."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    for i, (place, told) in enumerate((("n1", 1), ("n2", 0), ("g2", 1))):
        with watching(lab.b) as seen:
            lab.a.move(place)
            settled(lab.b, traffic.port, i + 1)
        assert reasons(seen).count("peer-nat") == told, place
        assert reasons(seen)[-1] == "committed"


def test_abort(make_lab):
    """The program and the peer see a reset at once."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    traffic = Idle(lab)
    with lab.a.family() as family:
        family.abort(lab.a.connection(traffic.port)["cookie"])
    wait_for("ssh to end", lambda: traffic.child.poll() is not None, 1)
    wait_for("B's connection to be gone", lambda: lab.b.connections() == [], 1)


@pytest.mark.parametrize("case", ["no such cookie", "no such address", "not ours"])
def test_refusals(make_lab, case):
    """A command that cannot be carried out says so and changes nothing."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    cookie = lab.a.connection(traffic.port)["cookie"]
    with lab.a.family() as family:
        if case == "no such cookie":
            with pytest.raises(OSError) as error:
                family.migrate(cookie + 12345, new_local_addr=lab.a.v4)
            assert error.value.errno == errno.ENOENT
        elif case == "no such address":
            assert family.migrate_all("198.51.100.99", lab.a.v4).get("count", 0) == 0
        else:
            with pytest.raises(OSError) as error:
                family.migrate(cookie, new_local_addr="198.51.100.99")
            assert error.value.errno == errno.EADDRNOTAVAIL
    assert lab.a.connection(traffic.port)["migrations"] == 0
    traffic.finish()


def test_commands_need_the_right(make_lab):
    """An unprivileged user can move nothing."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    cookie = lab.a.connection(traffic.port)["cookie"]
    done = lab.a.run(["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", genl.__file__,
                      "migrate", str(cookie), lab.a.v4], check=False)
    assert done.returncode != 0 and "not permitted" in done.stderr
    traffic.finish()


def test_migrate_ctl_lists_the_same(make_lab):
    """libtcpmigrate and genl.py, two implementations, see the same connections."""
    lab = make_lab(at={"a": "n1"})
    traffic = Idle(lab)
    assert CTL.is_file(), "build/bin/migrate-ctl is missing: run make tools"
    listed = json.loads(lab.a.run([str(CTL), "-j", "list"]).stdout)
    mine = lab.a.connection(traffic.port)
    assert str(mine["local-port"]) in json.dumps(listed)
    assert mine["local-addr"] in json.dumps(listed)
    traffic.finish()


def command(function, *args, **kw):
    """errno of a command, 0 if it was accepted."""
    try:
        function(*args, **kw)
    except OSError as e:
        return e.errno
    return 0


def move_self(sock, v4, port):
    """TCP_MIGRATE_TO: a program moves its own connection."""
    local = struct.pack("=HH4s120x", socket.AF_INET, socket.htons(port), socket.inet_aton(v4))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MIGRATE_TO, local + bytes(128) + struct.pack("=II", 0, 0))


@pytest.mark.parametrize("way", ["netlink", "socket option", "migrate-ctl"])
def test_local_port_is_kept(make_lab, way):
    """A command that names another local port is refused, and changes nothing; its own port may be named."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    with Pair(lab) as pair:
        before, conn = lab.a.counters(), pair.conn(lab.a)
        new, port = lab.a.attach("g2"), conn["local-port"]
        errors = [errno.EOPNOTSUPP, 0]
        if way == "netlink":
            with lab.a.family() as family:
                got = [command(family.call, "migrate", cookie=conn["cookie"], new_local_addr=new.v4, new_local_port=p)
                       for p in (port + 1, port)]
        elif way == "socket option":
            got = [command(move_self, pair.a, new.v4, p) for p in (port + 1, port)]
        else:
            ctl = [str(CTL), "migrate", str(conn["cookie"]), "--to-local"]
            done = lab.a.run([*ctl, f"{new.v4}:{port + 1}"], check=False)
            assert "keeps its local port" in done.stderr
            again = lab.a.run([*ctl, new.v4], check=False)
            got, errors = [done.returncode != 0, again.returncode], [True, 0]
        assert got == errors
        pair_settled(pair, lab.a, 1)
        assert changed(lab.a, before)["MsynSent"] == 1
        assert (pair.conn(lab.a)["local-addr"], pair.conn(lab.a)["local-port"]) == (new.v4, port)
        pair.talk()
