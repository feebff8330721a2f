# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures at the hosts, and reading them back.

Capture runs tcpdump in a host's namespace on all its interfaces, those that
come later too. read() takes such a file apart, without any library: the
Linux cooked header (version 2), IPv4 or IPv6, TCP with its options.
"""

import dataclasses
import ipaddress
import pathlib
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from .topology import Host, wait_for

SLL2, ETHERNET = 276, 1
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
OPTION, EXID = 254, 0x4D49
SUBTYPES = ("PERMIT", "MREQ", "CONFIRM", "3", "RST-AUTH", "ECHO", "MANS")


@dataclasses.dataclass
class Segment:
    """One captured TCP segment."""

    time: float
    out: bool
    src: str
    sport: int
    dst: str
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    length: int
    options: list[tuple[int, bytes]]

    @property
    def migrate(self) -> list[str]:
        """The names of our options it carries."""
        subs = [body[2] >> 4 for kind, body in self.options
                if kind == OPTION and len(body) > 2 and struct.unpack_from("!H", body)[0] == EXID]
        return [SUBTYPES[s] if s < len(SUBTYPES) else str(s) for s in subs]

    def __str__(self) -> str:
        names = "".join(c for c, bit in zip("SFRPA", (SYN, FIN, RST, PSH, ACK)) if self.flags & bit)
        return (f"{self.time:.6f} {'>' if self.out else '<'} {self.src}.{self.sport} "
                f"{self.dst}.{self.dport} {names} seq {self.seq} ack {self.ack} "
                f"len {self.length} {' '.join(self.migrate)}").rstrip()


class Capture:
    """tcpdump on a host, from construction to stop()."""

    def __init__(self, host: Host, path: pathlib.Path, expression: str = "tcp") -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.with_suffix(".log")
        with open(log, "wb") as err:
            self.child: subprocess.Popen[Any] = host.popen(
                ["tcpdump", "-i", "any", "-nn", "-U", "--immediate-mode", "-s", "160", "-B", "8192", "-Z", "root",
                 "-w", str(path), expression], stderr=err)
        wait_for("tcpdump to listen", lambda: b"listening on" in log.read_bytes())

    def stop(self) -> pathlib.Path:
        """Ends the capture; everything seen is in the file."""
        if self.child.poll() is None:
            # Let it read what the kernel has for it already.
            time.sleep(0.01)
            self.child.terminate()
            self.child.wait()
        return self.path


def _options(data: bytes) -> list[tuple[int, bytes]]:
    out, i = [], 0
    while i < len(data) and data[i] != 0:
        if data[i] == 1:
            i += 1
            continue
        if i + 1 >= len(data) or data[i + 1] < 2:
            break
        out.append((data[i], data[i + 2 : i + data[i + 1]]))
        i += data[i + 1]
    return out


def _network(data: bytes) -> tuple[str, str, bytes, int] | None:
    """(source, destination, TCP header on, length of the TCP segment)."""
    if len(data) >= 20 and data[0] >> 4 == 4 and data[9] == 6:
        head = (data[0] & 15) * 4
        total = struct.unpack_from("!H", data, 2)[0]
        src, dst = data[12:16], data[16:20]
    elif len(data) >= 40 and data[0] >> 4 == 6 and data[6] == 6:
        head, total = 40, struct.unpack_from("!H", data, 4)[0] + 40
        src, dst = data[8:24], data[24:40]
    else:
        return None
    return str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst)), data[head:], total - head


def segment(data: bytes, when: float = 0, out: bool = False) -> Segment | None:
    """What a packet is, from its IP header on; None if it is not TCP."""
    net = _network(data)
    if net is None or len(net[2]) < 20:
        return None
    src, dst, tcp, size = net
    sport, dport, seq, ack, off, flags, window = struct.unpack_from("!HHIIBBH", tcp)
    head = (off >> 4) * 4
    return Segment(when, out, src, sport, dst, dport, seq, ack, flags, window, size - head,
                   _options(tcp[20:head]))


def read(path: pathlib.Path) -> Iterator[Segment]:
    """The TCP segments of a capture, in order."""
    data = path.read_bytes()
    if len(data) < 24:
        return
    magic, linktype = struct.unpack_from("<I", data)[0], struct.unpack_from("<I", data, 20)[0]
    if magic not in (0xA1B2C3D4, 0xA1B23C4D) or linktype & 0xFFFF not in (SLL2, ETHERNET):
        raise ValueError(f"{path}: not a capture of cooked or Ethernet frames in this byte order")
    unit = 1e-9 if magic == 0xA1B23C4D else 1e-6
    pos = 24
    while pos + 16 <= len(data):
        sec, frac, kept, _ = struct.unpack_from("<IIII", data, pos)
        frame = data[pos + 16 : pos + 16 + kept]
        pos += 16 + kept
        cooked = linktype & 0xFFFF == SLL2
        out = cooked and len(frame) > 10 and frame[10] == 4
        seg = segment(frame[20:] if cooked else frame[14:], sec + frac * unit, out)
        if seg:
            yield seg
