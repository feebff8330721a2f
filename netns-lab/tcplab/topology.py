# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, NAPTs and links, built from a file of data inside a booted kernel.

Every host and every box is a network namespace. A segment is a bridge in the
namespace of the router it belongs to, which is also its gateway; a host's point
of attachment to it is a veth pair with netem on both ends. All segments
outside NAPTs belong to one router, "net". A NAPT may be inside another.

A Host is attached, detached and moved; each time it gets a fresh address, a
default route, and a rule that sends what carries the address by that way, so
that old and new attachment can live side by side.
"""

import contextlib
import dataclasses
import ctypes
import fcntl
import ipaddress
import json
import os
import pathlib
import socket
import struct
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import genl
from .rules import Behaviour, ruleset

HERE = pathlib.Path(__file__).resolve().parents[1]
CTL = pathlib.Path(os.environ.get("LAB_MIGRATE_CTL", HERE.parent / "build/bin/migrate-ctl"))
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
# ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO of linux/ethtool.h
OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)
ETHTOOL_GLINK = 0x0A
OPENED, ACCEPTED = 1, 0

_libc = ctypes.CDLL(None, use_errno=True)

# A lab's hosts neither wait for duplicate addresses nor listen to routers.
_SYSCTLS = {
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/ping_group_range": "0 2147483647",
}
_ROUTER = {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}


class Timeout(AssertionError):
    """A condition did not come true."""


def wait_for(what: str, condition: Callable[[], Any], timeout: float = 60, every: float = 0.005) -> Any:
    """Waits until condition() is true and returns its value; says what if not."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise Timeout(f"waited {timeout:g} s in vain for: {what}")
        time.sleep(every)
    return value


def batch(argv: list[str], lines: Iterable[str]) -> None:
    """Has one ip or tc do all these lines; raises with what it says if one fails."""
    done = subprocess.run([*argv, "-batch", "-"], input="".join(f"{line}\n" for line in lines), text=True,
                          capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")


@dataclasses.dataclass
class Link:
    """One link, the same both ways. delay in seconds; loss, reorder, duplicate in percent.

    limit: segments that may wait. fair: where there is nothing but a rate, as at a host's own end, by tbf and
    fq_codel. netem is one queue for all, and takes segments out of their socket's account: TCP Small Queues hold
    back nothing then.
    """

    rate: str = "100mbit"
    delay: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    limit: int = 100
    mtu: int = 1500
    fair: bool = False

    def shape(self, dev: str) -> list[str]:
        """tc's lines that give dev this link's manners, of one that had none, or others of the same kind."""
        if not self.fair or self.delay or self.loss or self.duplicate:
            return [self.netem(dev)]
        frame = self.mtu + 14
        return [f"qdisc replace dev {dev} root handle 1: tbf rate {self.rate} burst {2 * frame} "
                f"limit {self.limit * frame}", f"qdisc replace dev {dev} parent 1: fq_codel"]

    def netem(self, dev: str) -> str:
        """The line of a queue by netem."""
        if self.reorder and not self.delay:
            raise ValueError("reorder needs a delay: segments overtake those that are delayed")
        parts = [f"delay {self.delay * 1e6:.0f}us" if self.delay else "",
                 f"reorder {self.reorder:g}%" if self.reorder else "",
                 f"loss {self.loss:g}%" if self.loss else "",
                 f"duplicate {self.duplicate:g}%" if self.duplicate else "",
                 f"rate {self.rate}", f"limit {self.limit}"]
        return f"qdisc replace dev {dev} root netem {' '.join(p for p in parts if p)}"


@dataclasses.dataclass
class Point:
    """A host's point of attachment."""

    place: str
    dev: str
    peer: str
    v4: str
    v6: str
    table: int

    def addresses(self, other: "Point") -> list[tuple[str, str]]:
        """(own, other's) for each family both have."""
        pairs = ((self.v4, other.v4), (self.v6, other.v6))
        return [(a, b) for a, b in pairs if a and b]


class Node:
    """A network namespace, and running things in it."""

    def __init__(self, lab: "Lab", name: str) -> None:
        self.lab = lab
        self.name = name
        self._outer = f"to-{name}"

    def run(self, cmd: str | list[str], check: bool = True, timeout: float = 3600, **kw: Any
            ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; its output is text."""
        with self.inside():
            done = subprocess.run(cmd, shell=isinstance(cmd, str), text=True, capture_output=True,
                                  timeout=timeout, check=False, **kw)
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {cmd}: exit {done.returncode}: "
                               f"{done.stderr.strip() or done.stdout.strip()}")
        return done

    def popen(self, cmd: str | list[str], **kw: Any) -> subprocess.Popen[Any]:
        """Starts a command; it dies with the lab at the latest."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        with self.inside():
            child = subprocess.Popen(cmd, shell=isinstance(cmd, str), start_new_session=True, **kw)
        self.lab.children.append(child)
        return child

    def ip(self, *lines: str, version: str = "") -> None:
        """Has ip do these lines here; version ("-4", "-6") is for those it needs it for."""
        batch(["ip", *version.split(), "-n", self.name], lines)

    def tc(self, *lines: str) -> None:
        """Has tc do these lines here."""
        batch(["tc", "-n", self.name], lines)

    def plain(self, *devs: str) -> None:
        """Segments as on a wire, from now on: real checksums, no super-segments."""
        self._ethtool(devs, OFFLOADS)

    def linked(self, *devs: str) -> None:
        """Carriers that came are known, from now on: until the kernel's link watch gets to it, a
        device has no queue and a bridge's port does not forward, and what is sent is lost."""
        self._ethtool(devs, [ETHTOOL_GLINK])

    def _ethtool(self, devs: Iterable[str], commands: Iterable[int]) -> None:
        """Each command, with the value 0, for each device."""
        with self.inside(), socket.socket() as sock:
            for dev in devs:
                for command in commands:
                    value = ctypes.create_string_buffer(struct.pack("II", command, 0))
                    fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", dev.encode(), ctypes.addressof(value)))

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the host's namespace: sockets opened here are its."""
        with open("/proc/thread-self/ns/net", "rb") as home, \
             open(f"/run/netns/{self.name}", "rb") as there:
            if _libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")
            try:
                yield
            finally:
                _libc.setns(home.fileno(), CLONE_NEWNET)

    def begin(self, sysctls: dict[str, Any], *lines: str) -> None:
        """What a new namespace needs, then ip's lines."""
        with self.inside():
            for name, value in sysctls.items():
                pathlib.Path(f"/proc/sys/{name}").write_text(f"{value}\n")
        self.ip("link set lo up", *lines)

    def family(self) -> genl.Family:
        """A socket to the kernel's tcp_migrate family, of this host."""
        with self.inside():
            return genl.Family()

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Sets a sysctl if value is given; returns what it is (now)."""
        # The files under net/ belong to the namespace of whoever opens them.
        path = f"/proc/sys/{name.replace('.', '/')}"
        with self.inside():
            if value is not None:
                pathlib.Path(path).write_text(f"{value}\n")
            return pathlib.Path(path).read_text().strip()


class Box(Node):
    """A router: the one of the global segments, or a NAPT."""

    def __init__(self, lab: "Lab", name: str, behaviour: Behaviour) -> None:
        super().__init__(lab, name)
        self.behaviour = behaviour

    def behave(self, **changes: Any) -> None:
        """Changes the box's manners, from now on; what it forwards may be known already."""
        self.behaviour = dataclasses.replace(self.behaviour, **changes)
        self.run(["nft", "-f", "-"], input=ruleset(self.behaviour, self._outer))
        if self.behaviour.needs_conntrack():
            self.sysctl("net.netfilter.nf_conntrack_acct", 1)
        for state, seconds in self.behaviour.timeouts.items():
            self.sysctl(f"net.netfilter.nf_conntrack_tcp_timeout_{state}", seconds)

    def hits(self) -> int:
        """How many segments the box has stripped or refused."""
        rules = json.loads(self.run("nft -j list table inet box").stdout)["nftables"]
        return sum(part["counter"]["packets"] for r in rules if "rule" in r
                   for part in r["rule"]["expr"] if "counter" in part)


def _mac(v4: str) -> str:
    """A hardware address made from an IPv4 address."""
    return "02:00:" + ":".join(f"{b:02x}" for b in ipaddress.ip_address(v4).packed)


class Segment:
    """A bridge in a box's namespace, and the addresses on it."""

    def __init__(self, box: Box, name: str, v4: str, v6: str) -> None:
        self.box, self.name = box, name
        self.net4 = ipaddress.ip_network(v4)
        self.net6 = ipaddress.ip_network(v6)
        self.gw4, self.gw6 = str(self.net4[-2]), str(self.net6[0xFFFE])
        self.mac = _mac(self.gw4)
        self._next = 10

    def reserve(self) -> None:
        """Keeps one more address from the start for a NAPT."""
        self._next += 1

    def fresh(self) -> tuple[str, str]:
        """Addresses nobody has had before."""
        self._next += 1
        return str(self.net4[self._next]), str(self.net6[self._next])

    def build(self) -> list[str]:
        """ip's lines that make the bridge."""
        return [f"link add {self.name} address {self.mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"addr add {self.gw4}/{self.net4.prefixlen} dev {self.name}",
                f"addr add {self.gw6}/{self.net6.prefixlen} dev {self.name} nodad",
                f"link set {self.name} up"]


Migrator = Callable[["Host", Point, Point, bool], None]


def told(host: "Host", old: Point, new: Point, trial: bool) -> None:
    """Tells the host's kernel that it has moved, without any program."""
    with host.family() as family:
        for before, now in old.addresses(new):
            family.migrate_all(before, now, genl.TRIAL if trial else 0)


def migrate(host: "Host", old: Point, new: Point, trial: bool) -> None:
    """The same, by migrate-ctl if it is built."""
    if not CTL.is_file():
        told(host, old, new, trial)
        return
    for before, now in old.addresses(new):
        host.run([str(CTL), "migrate", "--from-local", before, "--to-local", now] + (["--trial"] if trial else []))


class Host(Node):
    """A host that can move."""

    def __init__(self, lab: "Lab", name: str) -> None:
        super().__init__(lab, name)
        self.points: list[Point] = []
        self._count = 0

    @property
    def point(self) -> Point:
        """Where the host is (the newest attachment, if there are two)."""
        if not self.points:
            raise RuntimeError(f"host {self.name} is attached nowhere")
        return self.points[-1]

    @property
    def v4(self) -> str:
        return self.point.v4

    @property
    def v6(self) -> str:
        return self.point.v6

    def attach(self, place: str, v4: str = "", v6: str = "") -> Point:
        """A new interface at place, with address, rule and default route."""
        seg = self.lab.segment(place)
        self._count += 1
        fresh = seg.fresh()
        point = Point(place, f"eth{self._count}", f"{self.name}-eth{self._count}",
                      v4 or fresh[0], v6 or fresh[1], 100 + self._count)
        self._plug(seg, point)
        self._address(seg, point)
        self.linked(point.dev)
        seg.box.linked(point.peer, seg.name)
        self.points.append(point)
        return point

    def _plug(self, seg: Segment, p: Point) -> None:
        """The veth pair between host and segment."""
        self._cable(seg, p, _mac(p.v4))
        # Who is whose neighbour is settled beforehand: asking would take a
        # round trip of the link, and times would not be exact.
        seg.box.ip(f"neigh replace {p.v4} lladdr {_mac(p.v4)} dev {seg.name} nud permanent",
                   f"neigh replace {p.v6} lladdr {_mac(p.v4)} dev {seg.name} nud permanent")

    def _cable(self, seg: Segment, p: Point, mac: str) -> None:
        link = self.lab.link_at(p.place)
        seg.box.ip(f"link add {p.dev} netns {self.name} address {mac} mtu {link.mtu} type veth "
                   f"peer name {p.peer} netns {seg.box.name} mtu {link.mtu}",
                   f"link set {p.peer} master {seg.name} up")
        self.plain(p.dev)
        seg.box.plain(p.peer)
        self.shape(seg, p)

    def plug(self, place: str) -> Point:
        """A new interface at place without any address: those are for DHCP and router advertisements to give."""
        seg = self.lab.segment(place)
        self._count += 1
        point = Point(place, f"eth{self._count}", f"{self.name}-eth{self._count}", "", "", 0)
        self._cable(seg, point, _mac(seg.fresh()[0]))
        self.points.append(point)
        self.carrier(point, True)
        return point

    def carrier(self, point: Point, there: bool) -> None:
        """Pulls an interface's cable out, or puts it in."""
        seg = self.lab.segment(point.place)
        seg.box.ip(f"link set {point.peer} {'up' if there else 'down'}")
        self.ip(f"link set {point.dev} up")
        self.linked(point.dev)
        seg.box.linked(point.peer, seg.name)

    def unplug(self, point: Point) -> None:
        """Takes away an interface that plug() made."""
        self.points.remove(point)
        self.ip(f"link del {point.dev}")

    def shape(self, seg: Segment, p: Point) -> None:
        """Makes the link as the lab now says."""
        self.tc(*self.lab.link_at(p.place).shape(p.dev))
        seg.box.tc(*self.lab.link_at(p.place, True).shape(p.peer))

    def _address(self, seg: Segment, p: Point) -> None:
        """Address, rule and default route there."""
        for version, addr, net, gw, how in (("-4", p.v4, seg.net4, seg.gw4, ""),
                                            ("-6", p.v6, seg.net6, seg.gw6, "nodad")):
            self.ip(f"link set {p.dev} up",
                    f"addr add {addr}/{net.prefixlen} dev {p.dev} {how}",
                    f"neigh replace {gw} lladdr {seg.mac} dev {p.dev} nud permanent",
                    f"route add default via {gw} dev {p.dev} table {p.table}",
                    f"rule add from {addr} lookup {p.table}",
                    f"route replace default via {gw} dev {p.dev}", version=version)

    def detach(self, point: Point | None = None) -> None:
        """Takes an attachment away, interface, address and all."""
        p = point or self.point
        self.points.remove(p)
        self.ip(f"link del {p.dev}", f"rule del from {p.v4} lookup {p.table}")
        self.ip(f"rule del from {p.v6} lookup {p.table}", version="-6")

    def move(self, place: str, gap: float = 0, make_before_break: bool = False,
             v4: str = "", v6: str = "") -> Point:
        """Leaves for another place, gap seconds without any address; then migrates.

        make_before_break keeps the old attachment until every connection has
        committed to the new one.
        """
        old = self.point
        if make_before_break:
            new = self.attach(place, v4, v6)
            self.lab.migrator(self, old, new, True)
            self.wait_moved(old, new)
            self.detach(old)
            return new
        if gap:
            self.detach(old)
            time.sleep(gap)
            new = self.attach(place, v4, v6)
        else:
            new = self.attach(place, v4, v6)
            self.detach(old)
        self.lab.migrator(self, old, new, False)
        return new

    def connections(self) -> list[genl.Attrs]:
        """What the kernel says of this host's migratable connections."""
        with self.family() as family:
            return family.dump()

    def connection(self, port: int) -> genl.Attrs:
        """The one live connection with this port at either end."""
        found = [c for c in self.connections() if port in (c["local-port"], c["remote-port"])]
        if len(found) != 1:
            raise AssertionError(f"{self.name}: {len(found)} migratable connections with port {port}: {found}")
        return found[0]

    def wait_moved(self, old: Point, new: Point, timeout: float = 30) -> None:
        """Waits until no connection is left on old, and those on new are at rest."""
        def done() -> bool:
            conns = self.connections()
            return (not any(c["local-addr"] in (old.v4, old.v6) for c in conns)
                    and all(c["state"] == "idle" for c in conns
                            if c["local-addr"] in (new.v4, new.v6)))
        wait_for(f"connections of {self.name} to leave {old.v4} for {new.v4}", done, timeout)

    def ss(self, port: int) -> str:
        """What ss says of the connections with this port, as numbers."""
        return self.run(["ss", "-Htni", f"( sport = :{port} or dport = :{port} )"]).stdout

    def bytes(self, port: int) -> tuple[int, int]:
        """(acknowledged, received) bytes so far of the connections with this port."""
        out = self.ss(port)
        return tuple(sum(int(w.split(":")[1]) for w in out.split() if w.startswith(f"{key}:"))
                     for key in ("bytes_acked", "bytes_received"))  # type: ignore[return-value]

    def counters(self) -> dict[str, int]:
        """The kernel's TcpMigrate: counters of this host."""
        with self.inside():
            lines = [ln.split() for ln in pathlib.Path("/proc/thread-self/net/netstat").read_text().splitlines()
                     if ln.startswith("TcpMigrate:")]
        return dict(zip(lines[0][1:], map(int, lines[1][1:]), strict=True)) if lines else {}


def _read(topology: str | pathlib.Path) -> dict[str, Any]:
    """A topology's file; what it extends has its parts as well."""
    path = pathlib.Path(topology)
    if not path.suffix:
        path = HERE / "topologies" / f"{topology}.toml"
    data = tomllib.loads(path.read_text())
    base = _read(data.pop("extends")) if "extends" in data else {}
    return {key: {**base.get(key, {}), **data.get(key, {})} for key in {**base, **data}}


class Lab:
    """A built topology. Use as a context manager."""

    def __init__(self, topology: str | pathlib.Path = "fig22", rtt: float = 0, enabled: int | None = 2,
                 at: dict[str, str] | None = None, migrator: Migrator = migrate) -> None:
        """rtt: seconds between two hosts, on top of what the file says. at: places
        that differ from the file's. enabled: net.tcp_migrate.enabled on the
        hosts, if the kernel has it."""
        self.data = _read(topology)
        self.rtt, self.migrator, self.enabled = rtt, migrator, enabled
        self.link = Link(**self.data.get("link", {}))
        self.links: dict[str, Link] = {}
        self.children: list[subprocess.Popen[Any]] = []
        self.net = Box(self, "net", Behaviour(**self.data.get("net", {}).get("behaviour", {})))
        self.boxes: dict[str, Box] = {"net": self.net}
        self.hosts: dict[str, Host] = {}
        self._segments: dict[str, Segment] = {}
        self._at = at or {}

    def __enter__(self) -> "Lab":
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        hosts = self.__dict__.get("hosts", {})
        if name in hosts:
            return hosts[name]
        raise AttributeError(name)

    def segment(self, place: str) -> Segment:
        """The segment of a place, by name; a NAPT is built when it is first needed."""
        if place not in self._segments and place in self.data.get("napt", {}):
            self._napt(place, self.data["napt"][place])
        if place not in self._segments:
            raise ValueError(f"no place {place!r}: there are {', '.join(self.places())}")
        return self._segments[place]

    def places(self) -> list[str]:
        """Everywhere a host can be."""
        return [*self.data["segment"], *self.data.get("napt", {})]

    def box(self, name: str) -> Box:
        """A NAPT, or the router "net"."""
        if name != "net":
            self.segment(name)
        return self.boxes[name]

    def link_at(self, place: str, inwards: bool = False) -> Link:
        """A host's link at a place, outwards or towards the host.

        Half the lab's RTT is on the way to every host, none on the way from it:
        a capture at a host then shows what it sends when it sends it.
        """
        link = self.links.get(place, self.link)
        return dataclasses.replace(link, delay=link.delay + (self.rtt / 2 if inwards else 0))

    def set_link(self, place: str, **changes: Any) -> None:
        """Changes what links at a place are like, those in use as well."""
        self.links[place] = dataclasses.replace(self.links.get(place, self.link), **changes)
        for host in self.hosts.values():
            for p in host.points:
                if p.place == place:
                    host.shape(self.segment(place), p)

    def _build(self) -> None:
        for name, seg in self.data["segment"].items():
            self._segments[name] = Segment(self.net, name, seg["v4"], seg["v6"])
            self._reserve(name)
        self.hosts = {name: Host(self, name) for name in self.data["host"]}
        batch(["ip"], [f"netns add {name}" for name in ("net", *self.hosts)])
        self.net.begin(_SYSCTLS | _ROUTER, *(line for s in self._segments.values() for line in s.build()))
        self.net.behave()
        for name, host in self.data["host"].items():
            self.hosts[name].begin(_SYSCTLS)
            self.hosts[name].attach(self._at.get(name, host["at"]))
            if self.enabled is not None and patched():
                self.hosts[name].sysctl("net.tcp_migrate.enabled", self.enabled)

    def _behind(self, place: str) -> list[str]:
        """The NAPTs whose outer link is there, in the file's order."""
        return [name for name, napt in self.data.get("napt", {}).items() if napt["outer"] == place]

    def _reserve(self, place: str) -> None:
        for _ in self._behind(place):
            self._segments[place].reserve()

    def _napt(self, name: str, data: dict[str, Any]) -> None:
        box = self.boxes[name] = Box(self, name, Behaviour(**data.get("behaviour", {})))
        inner = self._segments[name] = Segment(box, name, data["v4"], data["v6"])
        self._reserve(name)
        outer = self.segment(data["outer"])
        # The NAPTs' outer addresses follow from their order in the file.
        index = 11 + self._behind(outer.name).index(name)
        v4, v6 = str(outer.net4[index]), str(outer.net6[index])
        dev, peer = f"to-{name}", f"wan-{name}"
        batch(["ip"], [f"netns add {name}"])
        box.begin(_SYSCTLS | _ROUTER, *inner.build(),
                  f"link add {dev} type veth peer name {peer} netns {outer.box.name}")
        outer.box.plain(peer)
        box.plain(dev)
        link = Link(rate=data.get("rate", "1gbit"))
        outer.box.tc(link.netem(peer))
        box.tc(link.netem(dev))
        outer.box.ip(f"link set {peer} master {outer.name} up")
        if not box.behaviour.translate6:
            outer.box.ip(f"route add {inner.net6} via {v6}")
        box.ip(f"link set {dev} up",
               f"addr add {v4}/{outer.net4.prefixlen} dev {dev}",
               f"addr add {v6}/{outer.net6.prefixlen} dev {dev} nodad",
               f"route add default via {outer.gw4}", f"route add ::/0 via {outer.gw6}")
        box.linked(dev)
        outer.box.linked(peer, outer.name)
        box.behave()

    def close(self) -> None:
        """Ends everything that was started, and the namespaces."""
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, 9)
        for child in self.children:
            child.wait()
        subprocess.run(["ip", "-force", "-batch", "-"], text=True, capture_output=True, check=False,
                       input="".join(f"netns delete {name}\n" for name in (*self.hosts, *self.boxes)))
        self.hosts = {}


def patched() -> bool:
    """Whether the running kernel has the extension."""
    return os.path.isdir("/proc/sys/net/tcp_migrate")
