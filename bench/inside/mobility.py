#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long until data go on when nobody types a command: mobility.py MOVES KIND...

Kinds: "daemons" (mobility-client on A and B, mobility-server on S, sym-proxy on P), "mptcp" (the kernel's
path manager is told at once), "mptcpd" (it is told by that daemon, which waits for the route),
"wireguard" (TCP inside tunnels to a hub, S). On virtual time. Measured is from the moment in
which the last of those who move has an address and a route there, the old ones gone, until the
receiving program has a byte that came over the new path. With tunnels, where segments do not
show the path: until the longest silence ends. Each move is of a new connection, 16 Mbit/s.

result.json: a list of objects: kind, case, rtt (s), sends, resumed (list of s, or null
if nothing came within two minutes).
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from moves import first_new  # noqa: E402
from stream import PORT, Mover, Stream, new_path  # noqa: E402
from tcplab import programs  # noqa: E402
from tcplab.daemons import Client, Proxy, Server  # noqa: E402
from tcplab.topology import Host, Lab, Timeout, wait_for  # noqa: E402

OUT = pathlib.Path("/lab")
RTTS = (0.0, 0.05)
# Who moves, and between which places: as in the mobility matrix.
CASES: dict[str, dict[str, list[str]]] = {
    "one": {"a": ["n1", "n2"], "b": ["g1"]},
    "peer-inside": {"a": ["n1"], "b": ["g1", "g2"]},
    "both": {"a": ["g2", "core"], "b": ["g1", "g2"]},
    "both-one-inside": {"a": ["n1", "n2"], "b": ["g1", "g2"]},
    "inside": {"a": ["g2", "n1"], "b": ["g1", "n3"]},
}
GIVE_UP = 120.0


class Daemons:
    """Ours, which have to have agreed before a move."""

    def __init__(self, lab: Lab) -> None:
        proxy = Proxy(lab.hosts["p"])
        server = Server(lab.s, more=proxy.section())
        proxy.admit(server)
        self.clients = [Client(lab.hosts[name], server) for name in "ab"]
        self.where = ""

    def ready(self) -> None:
        for client in self.clients:
            client.agreed(PORT)
            client.joined()
        # Nothing of the last move shall be under way; and of a server ten Notices a minute are tried.
        time.sleep(8)


class Paths:
    """MPTCP's path managers: B announces its addresses, A opens subflows from its own."""

    def __init__(self, lab: Lab, mover: Mover) -> None:
        self.where = ""
        mover.prepare(lab)
        mover.announce(lab.b, lab.b.point)

    def ready(self) -> None:
        time.sleep(1)


class PathDaemons:
    """mptcpd on A and B: a new address is told once it has a default route (check_route).

    One that has not told the kernel of where its host is when a move is to begin is started anew.
    """

    def __init__(self, lab: Lab) -> None:
        self.where = ""
        self.hosts = {lab.a: "subflow", lab.b: "signal"}
        self.children: dict[Host, subprocess.Popen[Any]] = {}
        for host in self.hosts:
            host.run("ip mptcp limits set subflow 8 add_addr_accepted 8")
            self._start(host)
        self.ready()

    def _start(self, host: Host) -> None:
        with open(programs.home(host, "mptcpd") / "log", "ab") as log:
            self.children[host] = host.popen(
                ["/usr/libexec/mptcpd", "--log=stderr", "--path-manager=addr_adv", f"--addr-flags={self.hosts[host]}",
                 "--notify-flags=existing,skip_link_local,skip_loopback,check_route"], stdout=log, stderr=log)

    def ready(self) -> None:
        for host in self.hosts:
            def known(h: Host = host) -> bool:
                return h.v4 in h.run("ip mptcp endpoint").stdout
            for _ in range(5):
                with contextlib.suppress(Timeout):
                    wait_for(f"mptcpd on {host.name}", known, 20, 0.05)
                    break
                self.children[host].kill()
                self.children[host].wait()
                # What it leaves would fill the kernel's eight.
                host.run("ip mptcp endpoint flush")
                self._start(host)
            assert known(), f"mptcpd on {host.name}, started five times"
        time.sleep(1)


class Tunnels:
    """WireGuard: 10.8.0.1 is the hub S, 2 and 3 are A and B, which send a keepalive every 25 s."""

    def __init__(self, lab: Lab) -> None:
        hosts = {"s": 1, "a": 2, "b": 3}
        self.where = "10.8.0.3"
        keys = {name: self._key() for name in hosts}
        for name, number in hosts.items():
            host = lab.hosts[name]
            secret = programs.home(host, "wg") / "key"
            secret.write_text(keys[name][0])
            host.ip("link add wg0 type wireguard", f"addr add 10.8.0.{number}/24 dev wg0", "link set wg0 mtu 1420 up")
            host.run(["wg", "set", "wg0", "private-key", str(secret), "listen-port", "51820"])
        for name in "ab":
            lab.s.run(["wg", "set", "wg0", "peer", keys[name][1], "allowed-ips", f"10.8.0.{hosts[name]}/32"])
            self._join(lab.hosts[name], keys["s"][1], lab.s.v4)
        lab.s.sysctl("net.ipv4.ip_forward", 1)
        wait_for("both tunnels", lambda: self._handshakes(lab.s) == 2, 60, 0.05)

    @staticmethod
    def _key() -> tuple[str, str]:
        private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
        public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout
        return private, public.strip()

    @staticmethod
    def _join(host: Host, hub: str, endpoint: str) -> None:
        host.run(["wg", "set", "wg0", "peer", hub, "allowed-ips", "10.8.0.0/24", "endpoint", f"{endpoint}:51820",
                  "persistent-keepalive", "25"])

    @staticmethod
    def _handshakes(hub: Host) -> int:
        """With how many peers it has made one."""
        lines = hub.run(["wg", "show", "wg0", "latest-handshakes"]).stdout.splitlines()
        return sum(line.split()[-1] != "0" for line in lines)

    def ready(self) -> None:
        time.sleep(1)


@contextlib.contextmanager
def made(kind: str, case: str, rtt: float) -> Iterator[tuple[Lab, Mover, Any]]:
    """The network, and what makes moves possible in it."""
    # Only MPTCP has to be told anything.
    mover = Mover(kind)
    with Lab("relay", rtt=rtt, migrator=mover, at={name: places[0] for name, places in CASES[case].items()}) as lab:
        ways = {"daemons": lambda: Daemons(lab), "mptcp": lambda: Paths(lab, mover), "mptcpd": lambda: PathDaemons(lab),
                "wireguard": lambda: Tunnels(lab)}
        yield lab, mover, ways[kind]()


def silence_ends(stream: Stream, since: float) -> float | None:
    """The end of the longest silence after a moment."""
    times = [since, *(when for when, _ in stream.log if when > since)]
    gaps = [(after - before, after) for before, after in zip(times, times[1:])]
    return max(gaps)[1] if gaps else None


def back(lab: Lab, case: str) -> None:
    """Nobody opens a connection where both are inside: they go back where they began."""
    if case == "inside":
        for name, places in CASES[case].items():
            if lab.hosts[name].point.place != places[0]:
                lab.hosts[name].move(places[0])


def one_move(lab: Lab, mover: Mover, way: Any, kind: str, case: str, sends: str) -> float | None:
    """A connection, the move in its middle, and how long it took."""
    movers = [name for name, places in CASES[case].items() if len(places) > 1]
    back(lab, case)
    with Stream(lab, kind, sends, "paced", way.where) as stream:
        stream.until(100_000)
        way.ready()
        with new_path(lab, stream, pathlib.Path("/tmp/capture"), "".join(movers)) as segments:
            for name in movers:
                first, second = CASES[case][name]
                host = lab.hosts[name]
                host.move(second if host.point.place == first else first)
            began = stream.total
            with contextlib.suppress(Timeout):
                # A second more than what was under way.
                wait_for("new bytes", lambda: stream.total > began + 3_000_000 or stream.error, GIVE_UP, 0.01)
        if kind == "wireguard":
            when = silence_ends(stream, mover.when) if stream.total > began + 3_000_000 else None
        else:
            when = first_new(stream, segments[stream.receiver.name])
    return when - mover.when if when else None


def series(kind: str, case: str, rtt: float, sends: str, moves: int) -> dict[str, Any]:
    """So many moves of one case; where nothing goes on at first, one shows it."""
    found: list[float | None] = []
    with made(kind, case, rtt) as (lab, mover, way):
        while len(found) < moves and found != [None]:
            found.append(one_move(lab, mover, way, kind, case, sends))
    print(f"{kind} {case} {rtt} {sends}", flush=True)
    return {"kind": kind, "case": case, "rtt": rtt, "sends": sends, "resumed": found}


def main() -> None:
    moves = int(sys.argv[1])
    result = [series(kind, case, rtt, sends, moves) for kind in sys.argv[2:] for case in CASES
              for rtt in RTTS for sends in ("mover", "peer")]
    (OUT / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
