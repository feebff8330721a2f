# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything at once, on several CPUs: for races, with the kernel's checkers on.

Clients on A talk to servers on B and compare what comes back, opening and
closing connections in all ways, while A moves, a stranger replays and bends
what it sees and asks for what is not its own, and an administrator looks,
migrates and kills at random. On the
quiet port nobody kills: what broke there would be ours. Lasts
$STRESS_SECONDS, a minute by default.
"""

import contextlib
import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import threading
import time
import traceback

from tcplab import capture, craft
from tcplab.genl import NO_SYN, Family
from tcplab.topology import told, wait_for
from wire import MREQ, SYN, SYN_OPTIONS, Pair, Raw, changed, option

HERE = pathlib.Path(__file__).parent
SECONDS = float(os.environ.get("STRESS_SECONDS", "60"))
QUIET, ROUGH = 7300, 7301
PLACES = ["g1", "g2", "n1", "n2"]


def load(host, *args):
    """Gives way to those who move and look: CPUs are slow when they are emulated."""
    return host.popen(["nice", "/usr/bin/python3", str(HERE / "load.py"), *map(str, args)],
                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Worker(threading.Thread):
    """Does something again and again until told to stop; keeps its error."""

    def __init__(self, work, pause):
        super().__init__(daemon=True)
        self.work, self.pause = work, pause
        self.over = threading.Event()
        self.rounds, self.error = 0, None

    def run(self):
        try:
            while not self.over.wait(self.pause * random.uniform(0.5, 1.5)):
                self.work()
                self.rounds += 1
        except Exception:  # pylint: disable=broad-except
            self.error = traceback.format_exc()

    def stop(self):
        self.over.set()
        self.join(120)
        assert self.error is None, self.error
        assert not self.is_alive(), f"after {self.rounds} rounds, stuck"


class Replayer:
    """Sees what passes the router, and sends it again, bent.

    Only what plain TCP withstands as well: no data, no other numbers.
    """

    def __init__(self, lab):
        self.raw = Raw(lab.s)
        with lab.net.inside():
            self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.tap.settimeout(0.2)
        self.places = [lab.s.v4, lab.b.v4, "203.0.113.77", "192.0.2.77"]

    def __call__(self):
        with contextlib.suppress(TimeoutError):
            packet = bytearray(self.tap.recv(65536))
            head = (packet[0] & 15) * 4
            doff = (packet[head + 12] >> 4) * 4
            total = struct.unpack("!H", packet[2:4])[0]
            at = packet.find(b"\x4d\x49", head + 20, head + doff)
            if packet[9] != 6 or at < 0 or total != head + doff or packet[head + 13] & capture.RST:
                return
            self.bend(packet, head, doff, at)
            with contextlib.suppress(OSError):
                self.raw.send([craft.checked(bytes(packet[:total]))])

    def bend(self, packet, head, doff, at):
        """One of: nothing, another source, other bytes of our option."""
        what = random.randrange(3)
        if what == 1:
            packet[12:16] = socket.inet_aton(random.choice(self.places))
            packet[head:head + 2] = struct.pack("!H", random.randrange(1024, 65536))
        elif what == 2 and head + doff > at + 2:
            for _ in range(random.randrange(1, 4)):
                packet[random.randrange(at + 2, head + doff)] = random.randrange(256)


class Flooder:
    """A stranger asks for new connections, and for those of others: at the listener, or in the name of who has them.

    New ones from its own address, whose kernel resets what is answered: with a full queue B would send SYN
    cookies, and the connections of the quiet port could not move.
    """

    def __init__(self, lab):
        self.lab, self.raw = lab, Raw(lab.s)

    def __call__(self):
        conns = [c for c in self.lab.b.connections() if "token-local" in c]
        self.raw.send([self.asks(random.choice(conns) if conns else None) for _ in range(6)])

    def asks(self, conn):
        """A SYN with Permit, or an MSYN with a wrong MAC whose token may be right and whose tuple in use."""
        what = random.randrange(3)
        src, sport, port = self.lab.s.v4, random.randrange(1024, 65536), ROUGH
        if what == 0 or conn is None:
            opt = option(0, 0, bytes(1) + random.randbytes(14))
        else:
            token = random.choice([conn["token-local"], random.getrandbits(32)])
            opt = option(MREQ, 8, random.randbytes(1) + struct.pack("!I", token) + random.randbytes(18))
            port = conn["local-port"]
            if what == 1:
                src, sport = conn["remote-addr"], conn["remote-port"]
        return craft.ipv4(src, self.lab.b.v4, sport, port, SYN, random.getrandbits(32), 0, SYN_OPTIONS + opt)


class Administrator:
    """Looks at connections, migrates them where they are, and kills those on the rough port."""

    def __init__(self, lab):
        self.lab = lab

    def __call__(self):
        host = random.choice([self.lab.a, self.lab.b])
        with host.family() as family, contextlib.suppress(OSError):
            conns = family.dump()
            if not conns:
                return
            conn = random.choice(conns)
            rough = ROUGH in (conn["local-port"], conn["remote-port"])
            self.act(family, conn, rough)

    @staticmethod
    def act(family: Family, conn, rough):
        what = random.choice(["get", "probe", "abort" if rough else "get", "again"])
        if what == "get":
            family.call("get", cookie=conn["cookie"])
        elif what == "abort":
            family.abort(conn["cookie"])
        else:
            family.migrate(conn["cookie"], flags=NO_SYN if what == "probe" else None)


def test_flood(make_lab):
    """By itself: all of it is refused, and who is there does not notice."""
    random.seed(1)
    lab = make_lab(rtt=0.004, slow=False, at={"a": "g2", "b": "g1", "s": "core"})
    with Pair(lab, ROUGH) as pair:
        before, other = lab.b.counters(), lab.a.counters()
        flood = Worker(Flooder(lab), 0.05)
        flood.start()
        for _ in range(10):
            pair.talk(2000)
            time.sleep(0.2)
        flood.stop()
        pair.unharmed()
        delta = changed(lab.b, before)
        assert set(delta) - {"ReplyLimit"} == {"NoToken", "BadMac", "PermitRcvd", "PermitSent"}, delta
        assert min(delta[name] for name in ("NoToken", "BadMac", "PermitRcvd")) > 20, delta
        assert changed(lab.a, other) == {}


def test_everything_at_once(make_lab):
    """No wrong byte, no unexplained end, nothing left behind; the run fails on any splat."""
    random.seed(1)
    lab = make_lab(rtt=0.004, slow=False, migrator=told, at={"a": "n1", "b": "g1", "s": "core"})
    for host in (lab.a, lab.b):
        host.sysctl("net.tcp_migrate.wait_orphan", 10)
    servers = [load(lab.b, "server", lab.b.v4, port) for port in (QUIET, ROUGH) for _ in range(2)]
    clients = {port: load(lab.a, "client", lab.b.v4, port, SECONDS, 12, port) for port in (QUIET, ROUGH)}
    workers = [Worker(lambda: lab.a.move(random.choice([p for p in PLACES if p != lab.a.point.place])), 0.7),
               Worker(Replayer(lab), 0.01), Worker(Flooder(lab), 0.05), Worker(Administrator(lab), 0.05)]
    for w in workers:
        w.start()
    time.sleep(SECONDS)
    for w in workers:
        w.stop()
    said = {port: clients[port].communicate(timeout=400) for port in clients}
    count = {port: json.loads(out) for port, (out, _) in said.items()}
    print(count, [w.rounds for w in workers], lab.a.counters(), lab.b.counters())
    assert not count[QUIET]["wrong"] and not count[ROUGH]["wrong"], count
    assert not count[QUIET]["broken"], said[QUIET][1]
    assert count[QUIET]["done"] > 10 and count[ROUGH]["done"] > 10, count
    assert lab.a.counters()["Commit"] > 10
    assert all(w.rounds > 3 for w in workers), [w.rounds for w in workers]
    for s in servers:
        s.kill()
        s.wait()
    left_behind(lab)


def left_behind(lab):
    """What no program holds any more is gone from the tables when its waiting time is over.

    (A server may not have heard that its client is gone: the RST was lost in a move.)
    """
    for host in (lab.a, lab.b):
        wait_for(f"{host.name}'s connections to be gone", lambda h=host: not h.connections(), 200, every=0.5)
