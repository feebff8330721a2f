# SPDX-License-Identifier: GPL-2.0-or-later
"""Thousands of connections from host A to host B, opened a thousand at a time."""

import contextlib
import pathlib
import resource
import selectors
import socket
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "netns-lab"))

from tcplab.topology import Lab  # noqa: E402

PORT, BATCH = 5200, 1000
# What a link has to hold for a batch's SYNs; those that are lost come again seconds later.
LIMIT = 2 * BATCH


class Crowd:
    """The connections: clients[i] on A and servers[...] on B, not in the same order."""

    def __init__(self, lab: Lab, protocol: int = 0) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
        for host in (lab.a, lab.b):
            host.sysctl("net.ipv4.ip_local_port_range", "1024 65000")
            host.sysctl("net.core.somaxconn", 4096)
        self.lab, self._protocol = lab, protocol
        self.clients: list[socket.socket] = []
        self.servers: list[socket.socket] = []
        with lab.b.inside():
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
            self._listener.bind(("0.0.0.0", PORT))
            self._listener.listen(4096)

    def grow(self, count: int) -> None:
        """Opens connections until there are so many; a byte goes each way on each."""
        while len(self.clients) < count:
            fresh: list[socket.socket] = []
            with self.lab.a.inside():
                for _ in range(min(BATCH, count - len(self.clients))):
                    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, self._protocol)
                    sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        sock.connect((self.lab.b.v4, PORT))
                    fresh.append(sock)
            accepted = [self._listener.accept()[0] for _ in fresh]
            self.clients += fresh
            self.servers += accepted
            if self.talk(fresh, accepted) != len(fresh):
                raise RuntimeError("connections that carry nothing")

    def talk(self, clients: list[socket.socket], servers: list[socket.socket], timeout: float = 60) -> int:
        """A byte from each client, which the server returns; how many came back."""
        with selectors.DefaultSelector() as selector:
            for sock in servers:
                selector.register(sock, selectors.EVENT_READ, True)
            for sock in clients:
                sock.setblocking(True)
                sock.sendall(b"?")
                selector.register(sock, selectors.EVENT_READ, False)
            back, end = 0, time.monotonic() + timeout
            while back < len(clients) and time.monotonic() < end:
                for key, _ in selector.select(1):
                    with contextlib.suppress(OSError):
                        got = key.fileobj.recv(16)  # type: ignore[union-attr]
                        if key.data and got:
                            key.fileobj.sendall(got)  # type: ignore[union-attr]
                        elif got:
                            back += 1
            return back

    def close(self) -> None:
        """Ends them all."""
        for sock in [*self.clients, *self.servers, self._listener]:
            sock.close()
