# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection in the hands of a test, and what an observer of it can forge.

Pair holds both ends of one TCP connection as sockets, so that a test sees every
error a program would, and checks all that is said by checksum. Its methods
forge what a stranger can send who has seen everything on the wire: the keys of
the handshake, the tokens, and the sequence numbers at this moment. The MACs are
written from docs/protocol.md and share nothing with the kernel's.
"""

import functools
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from tcplab import capture, craft
from tcplab.topology import Box, Host, wait_for

PORT = 7100
RST, SYN, ACK, FIN = capture.RST, capture.SYN, capture.ACK, capture.FIN
MREQ, CONFIRM, RSTAUTH, MANS = 1, 2, 4, 6
ACTIVE, V6 = 8, 4       # role bit; the address field is a hash
LENGTHS = {0: 20, 1: 28, 2: 24, 4: 16, 5: 8, 6: 28}
# What an MSYN carries before our option: MSS, SACK-Permitted, window scale.
SYN_OPTIONS = b"\2\4\5\xb4\1\1\4\2\1\3\3\7"
MAPPED = "::ffff:"
IDS = {"4": "ipv4", "6": "ipv6", "mapped": "mapped"}
SETTLE = 0.3            # virtual seconds in which everything under way arrives

Prepare = Callable[[socket.socket], None]


def families(*kinds: str) -> pytest.MarkDecorator:
    """The fixture "pair" is of each of these kinds of ends; see Pair."""
    return pytest.mark.parametrize("pair", kinds, indirect=True, ids=[IDS[kind] for kind in kinds])


def option(sub: int, flags: int, body: bytes) -> bytes:
    """One option of ours."""
    return struct.pack("!BBHB", 254, 5 + len(body), capture.EXID, sub << 4 | flags) + body


def size(seg: capture.Segment) -> int:
    """Bytes of a segment without padding of options."""
    return 20 + sum(len(body) + 2 for _, body in seg.options) + seg.length


def changed(host: Host, before: dict[str, int]) -> dict[str, int]:
    """The counters that have moved since, and by how much."""
    return {k: v - before[k] for k, v in host.counters().items() if v != before[k]}


class Raw:
    """A socket through which a host sends packets under any name."""

    def __init__(self, host: Host) -> None:
        with host.inside():
            self.socks = {version: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                          for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6))}

    def send(self, packets: list[bytes], every: int = 2) -> None:
        """Sends them all, so slowly that the lab's links can hold what is under way."""
        for i, packet in enumerate(packets):
            self.socks[packet[0] >> 4].sendto(packet, (craft.destination(packet), 0))
            if i % every == every - 1:
                time.sleep(0.001)

    def close(self) -> None:
        for sock in self.socks.values():
            sock.close()


def inject(host: Host, *packets: bytes) -> None:
    """A host sends these under any name; everything that they cause has happened when this returns."""
    raw = Raw(host)
    raw.send(list(packets))
    raw.close()
    time.sleep(SETTLE)


class Pair:
    """A connection of A to a listener on B; both believe in it when this returns.

    Each end is "4", "6" or "mapped" (IPv4 by an IPv6 socket). prepare is called with
    A's socket and with B's listener, before they connect.
    """

    families = {"a": "4", "b": "4"}

    def __init__(self, lab: Any, port: int = PORT, opener: str = "a", source: int | None = 0, a: str = "4",
                 b: str = "", prepare: Prepare | None = None) -> None:
        self.lab, self.opener = lab, lab.hosts[opener]
        self.families = {"a": a, "b": b or a}
        self.prepare = prepare or (lambda sock: None)
        self.listener = self._listen(lab.b, port)
        self.a = self._open(self.opener, port, source)
        self.b, _ = self.listener.accept()
        self.b.settimeout(60)
        self.port = self.a.getsockname()[1]
        for _ in range(3):      # PERMIT, ECHO, ECHO, and a segment without
            self.talk(1000)
            time.sleep(0.1)

    def _listen(self, host: Host, port: int) -> socket.socket:
        kind = self.families["b"]
        sock = self._socket(host, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind != "4":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, kind == "6")
        self.prepare(sock)
        sock.bind(("0.0.0.0" if kind == "4" else "::", port))
        sock.listen(64)
        sock.settimeout(30)
        return sock

    def _open(self, host: Host, port: int, source: int | None) -> socket.socket:
        """source: its port, 0 for any; None: its address is not bound either."""
        sock = self._socket(host, self.families["a"])
        sock.settimeout(60)
        self.prepare(sock)
        mapped = MAPPED if self.families["a"] == "mapped" else ""
        if source is not None:
            sock.bind((mapped + self.at(host), source))
        sock.connect((mapped + self.at(self.lab.b), port))
        return sock

    @staticmethod
    def _socket(host: Host, kind: str) -> socket.socket:
        with host.inside():
            return socket.socket(socket.AF_INET if kind == "4" else socket.AF_INET6)

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.a, self.b, self.listener):
            sock.close()

    def at(self, host: Host) -> str:
        """A host's address, of the family that is on the wire."""
        return host.v6 if self.families["a"] == "6" else host.v4

    # ---- The programs ----

    def say(self, out: socket.socket, into: socket.socket, amount: int = 50000) -> None:
        """Sends random bytes one way, and compares what comes."""
        data = os.urandom(amount)
        out.sendall(data)
        self.hear(into, data)

    @staticmethod
    def hear(into: socket.socket, data: bytes) -> None:
        """What comes next is exactly data."""
        got = hashlib.sha256()
        left = len(data)
        while left:
            part = into.recv(left)
            assert part, f"end of data, {left} bytes too early"
            got.update(part)
            left -= len(part)
        assert got.digest() == hashlib.sha256(data).digest()

    def talk(self, amount: int = 50000) -> None:
        """Both ways."""
        self.say(self.a, self.b, amount)
        self.say(self.b, self.a, amount)

    @functools.cached_property
    def _cookies(self) -> dict[str, int]:
        """By host, of the ends that were asked for."""
        return {}

    def conn(self, host: Host) -> dict[str, Any]:
        """The kernel's view of it at one end; when it is first asked for, its ports are as they began."""
        conns = host.connections()
        if host.name not in self._cookies:
            # By both ports: the kernel may well give one port to connections to several.
            ports = (self.port, self.listener.getsockname()[1])
            found = [c for c in conns
                     if (c["local-port"], c["remote-port"]) == (ports if host is self.opener else ports[::-1])]
            assert len(found) == 1, f"{host.name}: {found}"
            self._cookies[host.name] = found[0]["cookie"]
        found = [c for c in conns if c["cookie"] == self._cookies[host.name]]
        assert len(found) == 1, f"{host.name}: {conns}"
        return found[0]

    def unharmed(self, moves: int = 0) -> None:
        """Both ends rest where they were, and data flow."""
        time.sleep(SETTLE)
        for host in (self.opener, self.lab.b):
            conn = self.conn(host)
            assert (conn["state"], conn["migrations"]) == ("idle", moves), conn
        assert self.conn(self.lab.b)["remote-addr"] == self.at(self.opener)
        self.talk()

    # ---- What an observer knows ----

    def seen(self, host: Host) -> list[capture.Segment]:
        """The segments of this connection's ports so far, in a host's capture."""
        time.sleep(0.02)
        return [s for s in capture.read(self.lab.captures[host.name].path)
                if self.port in (s.sport, s.dport)]

    def learn(self) -> None:
        """Reads keys, tokens and sequence numbers off the wire."""
        ends: dict[bool, int] = {}
        first: dict[bool, int] = {}
        keys: dict[bool, bytes] = {}
        for seg in self.seen(self.opener):
            if seg.flags & RST:
                continue
            plain = seg.migrate not in (["MREQ"], ["MANS"])
            if seg.migrate == ["PERMIT"]:
                keys[seg.out] = seg.options[-1][1][10:18]
                first[seg.out] = ends[seg.out] = (seg.seq + 1) & 0xFFFFFFFF
            elif plain:
                end = seg.seq + seg.length + bool(seg.flags & FIN)
                ends[seg.out] = (first[seg.out] + max((end - first[seg.out]) & 0xFFFFFFFF,
                                                      (ends[seg.out] - first[seg.out]) & 0xFFFFFFFF)) & 0xFFFFFFFF
        self.next_a, self.next_b = ends[True], ends[False]
        self.key = hmac.digest(keys[True] + keys[False] + bytes(16), b"TCPM v0", "sha256")
        self.token_a = self.conn(self.opener)["token-local"]
        self.token_b = self.conn(self.lab.b)["token-local"]

    # ---- Forgeries ----

    def to_a(self, flags: int, src: str = "", dst: str = "", **kw: Any) -> bytes:
        """A segment to A (or to where it was), from B or from elsewhere; at the exact numbers."""
        kw = {"seq": self.next_b, "ack": self.next_a} | kw
        port = self.listener.getsockname()[1]
        return craft.packet(src or self.at(self.lab.b), dst or self.at(self.opener), port, self.port, flags, **kw)

    def to_b(self, flags: int, src: str = "", sport: int = 0, **kw: Any) -> bytes:
        """The same to B."""
        kw = {"seq": self.next_a, "ack": self.next_b} | kw
        port = self.listener.getsockname()[1]
        return craft.packet(src or self.at(self.opener), self.at(self.lab.b), sport or self.port, port, flags, **kw)

    def mac64(self, text: bytes, wrong: bool = False) -> bytes:
        """A MAC by the key of the handshake; wrong: in one bit."""
        mac = hmac.digest(self.key, text, "sha256")[:8]
        return bytes([mac[0] ^ wrong]) + mac[1:]

    def signed(self, role: int, seq: int, wrong: bool = False) -> bytes:
        """An RST option of the end with this role."""
        mac = self.mac64(b"RST" + struct.pack("!BI", role, seq), wrong)
        return option(RSTAUTH, ACTIVE * role, bytes(3) + mac)

    def mreq(self, token: int, seq: int, reqno: int = 1, sub: int = MREQ, flags: int = ACTIVE,
             nonce: int = 0x01020304, asker: int = 0, wrong: bool = False) -> bytes:
        """MREQ or MANS with a good MAC, unless wrong."""
        addr = ipaddress.ip_address(self.opener.v4).packed
        if self.families["a"] == "6":   # a hash; a wrong one looks like a NAPT's work
            flags |= V6
        text = b"MREQ" + struct.pack("!BIIIH4sII", sub << 4 | flags, reqno, token, nonce, self.port, addr,
                                     seq & 0xFFFFFFFF, asker)
        mac = self.mac64(text, wrong)
        return option(sub, flags, struct.pack("!BII8sH4s", reqno & 255, token, nonce, mac, self.port, addr))

    def msyn(self, src: str, sport: int = 0, bare: bool = False, seq: int | None = None, token: int | None = None,
             **kw: Any) -> bytes:
        """An MSYN to B, as A would send it, from any address; bare: with nothing but our option."""
        seq = (self.next_a - 1 if seq is None else seq) & 0xFFFFFFFF
        opt = self.mreq(self.token_b if token is None else token, seq, **kw)
        return self.to_b(SYN, src, sport, seq=seq, ack=0, options=opt if bare else SYN_OPTIONS + opt)


def again(seg: capture.Segment, src: str = "", dst: str = "", sport: int = 0, dport: int = 0) -> bytes:
    """A captured segment without data once more, from or to another place."""
    opts = b"".join(bytes([kind, len(body) + 2]) + body for kind, body in seg.options)
    return craft.packet(src or seg.src, dst or seg.dst, sport or seg.sport, dport or seg.dport, seg.flags,
                        seg.seq, seg.ack, opts)


class Losing:
    """While entered, a box (or a host, by another hook) loses what matches, or what rules drop; lost() waits for it."""

    def __init__(self, box: Box, match: str = "meta l4proto tcp", hook: str = "forward") -> None:
        self.box, self.match, self.hook = box, match, hook
        self.table = f"inet losing_{hook}"

    def __enter__(self) -> "Losing":
        rules = self.match if "drop" in self.match else f"{self.match} counter drop"
        self.box.run(["nft", "-f", "-"], input=f"table {self.table} {{ chain c {{ type filter hook {self.hook} "
                                               f"priority -200; {rules}; }}; }}\n")
        return self

    def __exit__(self, *_: object) -> None:
        self.box.run(f"nft delete table {self.table}")

    def count(self) -> int:
        """Segments lost so far."""
        rules = json.loads(self.box.run(f"nft -j list table {self.table}").stdout)["nftables"]
        return sum(part["counter"]["packets"] for r in rules if "rule" in r
                   for part in r["rule"]["expr"] if "counter" in part)

    def lost(self, amount: int = 1, every: float = 0.02) -> None:
        """Waits until so much is lost."""
        wait_for(f"{amount} segments to be lost", lambda: self.count() >= amount, 10, every)


def settled(pair: Pair, host: Host, moves: int) -> None:
    """Waits until an end has migrated so often and rests."""
    wait_for(f"{host.name} to have migrated {moves} times",
             lambda: (pair.conn(host)["migrations"], pair.conn(host)["state"]) == (moves, "idle"), 20)
