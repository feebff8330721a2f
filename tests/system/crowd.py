# SPDX-License-Identifier: GPL-2.0-or-later
"""Many connections of A to B at once, each with data of its own both ways.

One thread serves all the sockets of a Crowd. What a connection says is a piece
of one long random text, from a place of its own, and is compared byte for byte
as it arrives. Ticks say a little at a time and watch how long the other end
has to wait for it.
"""

import hashlib
import resource
import select
import selectors
import socket
import threading
import time
from typing import Any

from tcplab.topology import Timeout

TEXT = hashlib.shake_256(b"crowd").digest(1 << 20) * 2
AT_ONCE = 200       # connections that are opened at the same time


class Stream:
    """One direction of one connection."""

    def __init__(self, out: socket.socket, into: socket.socket, number: int) -> None:
        self.out, self.into = out, into
        self.begin = number * 4099 % (1 << 20)
        self.sent = self.got = self.due = 0

    def write(self) -> None:
        """Sends what the socket takes."""
        at = (self.begin + self.sent) % (1 << 20)
        try:
            self.sent += self.out.send(TEXT[at:at + min(self.due - self.sent, 65536)])
        except BlockingIOError:
            pass

    def read(self) -> None:
        """Takes what has come, which must be what comes next."""
        data = self.into.recv(65536)
        assert data, "end of data, too early"
        at = (self.begin + self.got) % (1 << 20)
        assert data == TEXT[at:at + len(data)], f"wrong data after {self.got} bytes"
        self.got += len(data)


class Crowd:
    """So many connections, all of which have agreed to migrate; closed when the block is left."""

    def __init__(self, lab: Any, count: int, port: int = 7200) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4 * count + 1000,) * 2)
        self.lab, self.port = lab, port
        with lab.b.inside():
            self.listener = socket.create_server((lab.b.v4, port), backlog=4096)
        self.streams: list[Stream] = []
        self.writing: list[Stream] = []
        self.due = self.got = 0
        self.select = selectors.DefaultSelector()
        while len(self.streams) < 2 * count:
            self._open(min(AT_ONCE, count - len(self.streams) // 2))
        for _ in range(3):      # PERMIT, ECHO, ECHO, and a segment without
            self.exchange(100)

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: Any) -> None:
        for sock in {s for stream in self.streams for s in (stream.out, stream.into)}:
            sock.close()
        self.listener.close()
        self.select.close()

    def _open(self, count: int) -> None:
        socks = []
        for _ in range(count):
            with self.lab.a.inside():
                socks.append(socket.socket())
            socks[-1].setblocking(False)
            socks[-1].connect_ex((self.lab.b.v4, self.port))
        there = {}
        self.listener.settimeout(10)
        for _ in range(count):
            sock, (_, number) = self.listener.accept()
            sock.setblocking(False)
            there[number] = sock
        for sock in socks:
            other = there[sock.getsockname()[1]]
            number = len(self.streams)
            self.streams += [Stream(sock, other, number), Stream(other, sock, number + 1)]
            self.select.register(sock, selectors.EVENT_READ, self.streams[-1])
            self.select.register(other, selectors.EVENT_READ, self.streams[-2])

    def say(self, amount: int) -> None:
        """Every end has so much more to say."""
        for stream in self.streams:
            stream.due += amount
        self.due += amount * len(self.streams)
        self.writing = list(self.streams)

    def pump(self, amount: int | None = None, timeout: float = 60) -> None:
        """Serves all until so much has come in all, or everything."""
        due = self.due if amount is None else self.got + amount
        end = time.monotonic() + timeout
        while self.got < due:
            for stream in self.writing:
                stream.write()
            self.writing = [s for s in self.writing if s.sent < s.due]
            for key, _ in self.select.select(0.01):
                before = key.data.got
                key.data.read()
                self.got += key.data.got - before
            if time.monotonic() > end:
                left = [s for s in self.streams if s.got < s.due]
                raise Timeout(f"{len(left)} of {len(self.streams)} streams have not got all")

    def exchange(self, amount: int) -> None:
        """Every end says so much, and hears what the other says."""
        self.say(amount)
        self.pump()

    def settled(self, host: Any, moves: int) -> bool:
        """Whether all have moved so often and rest."""
        conns = [c for c in host.connections() if self.port in (c["local-port"], c["remote-port"])]
        return (len(conns) == len(self.streams) // 2
                and all((c["migrations"], c["state"]) == (moves, "idle") for c in conns))


class Ticks:
    """A little every few milliseconds, one way, by threads; what comes is compared."""

    EVERY, AMOUNT = 0.005, 1000

    def __init__(self, out: socket.socket, into: socket.socket) -> None:
        self.stream = Stream(out, into, 1)
        self.ending, self.gap = threading.Event(), 0.0
        self.failure: BaseException | None = None
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def _write(self) -> None:
        while not self.ending.wait(self.EVERY):
            self.stream.due += self.AMOUNT
            while self.stream.sent < self.stream.due:
                self.stream.write()

    def _read(self) -> None:
        last = time.monotonic()
        try:
            while self.threads[0].is_alive() or self.stream.got < self.stream.sent:
                if not select.select([self.stream.into], [], [], 0.1)[0]:
                    continue
                self.stream.read()
                now = time.monotonic()
                self.gap, last = max(self.gap, now - last), now
        except (AssertionError, OSError) as e:
            self.failure = e

    def stop(self) -> float:
        """Ends, when all has come; the longest time without any."""
        self.ending.set()
        for thread in self.threads:
            thread.join(60)
        assert not self.failure, self.failure
        assert self.stream.got == self.stream.due == self.stream.sent
        return self.gap
