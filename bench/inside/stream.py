# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection on which one end sends for as long as it lasts, and its move.

Host A opens it to B and moves; either sends: "bulk" as much as the path takes,
"paced" 2,000 bytes a millisecond (16 Mbit/s), which leaves all queues empty. The
kind says what makes the move possible: "migrate" (the extension), "mptcp"
(MPTCP, whose kernel path manager is told of the new address at once, and that
the old one is gone), anything else nothing here. The receiver notes when it got
how many bytes.
"""

import contextlib
import dataclasses
import pathlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "netns-lab"))

from states import protocol  # noqa: E402
from tcplab import capture, topology  # noqa: E402
from tcplab.topology import Host, Lab, Point, wait_for  # noqa: E402

PORT = 5100
CHUNK = {"bulk": 65536, "paced": 2000}


class Mover:
    """The migrator of a Lab that notes when the command was given, and gives it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.when = 0.0
        self._endpoints: dict[str, int] = {}

    def __call__(self, host: Host, old: Point, new: Point, trial: bool) -> None:
        self.when = time.time()
        if self.kind == "migrate":
            topology.migrate(host, old, new, trial)
        elif self.kind == "mptcp":
            before = self._endpoints[host.name]
            self.announce(host, new)
            host.run(f"ip mptcp endpoint delete id {before}")

    def prepare(self, lab: Lab) -> None:
        """What has to be there before the first connection."""
        if self.kind == "mptcp":
            for host in lab.hosts.values():
                host.run("ip mptcp limits set subflow 8 add_addr_accepted 8")
            self.announce(lab.a, lab.a.point)

    def announce(self, host: Host, point: Point) -> None:
        """Gives MPTCP's path manager an address: A opens subflows from it, B offers it."""
        self._endpoints[host.name] = self._endpoints.get(host.name, 0) % 250 + 1
        host.run(f"ip mptcp endpoint add {point.v4} dev {point.dev} id {self._endpoints[host.name]} "
                 f"{'signal' if host.name == 'b' else 'subflow'}")


@contextlib.contextmanager
def moving_lab(kind: str, rtt: float, **link: object) -> Iterator[tuple[Lab, Mover]]:
    """The thesis' network with A behind N1, every link as said."""
    mover = Mover(kind)
    lab = Lab("fig22", rtt=rtt, migrator=mover)
    if link:
        lab.link = dataclasses.replace(lab.link, **link)  # type: ignore[arg-type]
    with lab:
        mover.prepare(lab)
        yield lab, mover


class Stream:
    """The connection; a context manager."""

    def __init__(self, lab: Lab, kind: str, sends: str, traffic: str = "bulk", where: str = "") -> None:
        """sends: "mover" (A) or "peer" (B). where: another address of B's than that of the lab."""
        self.lab, self.traffic = lab, traffic
        self.began = time.time()
        self.log: list[tuple[float, int]] = [(self.began, 0)]
        self.error: tuple[float, int] | None = None
        proto = protocol(kind)
        with lab.b.inside():
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto)
        with lab.a.inside():
            a = socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", PORT))
        listener.listen(1)
        a.connect((where or lab.b.v4, PORT))
        # Not after accept(), which takes half a round trip more.
        work = (self._send, self._receive) if sends == "mover" else (self._receive, self._send)
        threading.Thread(target=work[0], args=(a,), daemon=True).start()
        b, self.seen_as = listener.accept()
        threading.Thread(target=work[1], args=(b,), daemon=True).start()
        # MPTCP's further subflows come to the listener.
        self._listener, self._ends = listener, [a, b]
        self.receiver = lab.b if sends == "mover" else lab.a

    def _send(self, sock: socket.socket) -> None:
        chunk = b"x" * CHUNK[self.traffic]
        with contextlib.suppress(ValueError):
            try:
                while True:
                    sock.sendall(chunk)
                    if self.traffic == "paced":
                        time.sleep(0.001)
            except OSError as e:
                self.error = (time.time(), e.errno or 0)

    def _receive(self, sock: socket.socket) -> None:
        buffer, total = bytearray(1 << 20), 0
        with contextlib.suppress(OSError, ValueError):
            while got := sock.recv_into(buffer):
                total += got
                self.log.append((time.time(), total))

    @property
    def total(self) -> int:
        """Bytes the receiver has."""
        return self.log[-1][1]

    def until(self, amount: int, timeout: float = 600) -> None:
        """Waits for so many bytes."""
        wait_for(f"{amount} bytes", lambda: self.total >= amount, timeout, 0.002)

    def close(self) -> None:
        """Ends it at once at both ends."""
        self._listener.close()
        for sock in self._ends:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def new_path(lab: Lab, stream: Stream, where: pathlib.Path, movers: str = "a"
             ) -> Iterator[dict[str, list[capture.Segment]]]:
    """Captures, at A and B, of what does not use the path that is used now; who of them will move.

    What is yielded is filled at the end.
    """
    left = {"a": lab.a.v4 if "a" in movers else lab.b.v4,
            "b": lab.b.v4 if "b" in movers else stream.seen_as[0]}
    # Through a proxy the port is another; those are the daemons'.
    what = "tcp and not portrange 7790-7792 and not host"
    caps = {name: capture.Capture(lab.hosts[name], where / f"{name}.pcap", f"{what} {address}")
            for name, address in left.items()}
    segments: dict[str, list[capture.Segment]] = {}
    try:
        yield segments
    finally:
        for name, cap in caps.items():
            segments[name] = list(capture.read(cap.stop()))
