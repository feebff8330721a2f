# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of a connection as sockets, brought into any state and then moved.

Ends is wire.Pair with a mover, and with what a test needs to see of its states.
Stream is a transfer whose data are compared, and Held keeps a socket's lock in a
system call for as long as a test wants.
"""

import ctypes
import hashlib
import mmap
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from tcplab.topology import Host, Lab, wait_for
from wire import MAPPED  # noqa: F401 - for those who import it from here
from wire import PORT, RST, Pair, Prepare

# Where the ends are, and where the mover goes: A, which opened the connection,
# from behind one NAPT to behind another, or B, which accepted it.
# Two hosts never share a segment, so that all they say passes a router.
MOVES = {"a": ({"a": "n1"}, "n2"), "a global": ({"a": "g2", "b": "g1"}, "core"), "b": ({"a": "g2", "b": "g1"}, "core")}
TCP_STATES = {1: "established", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait", 7: "close",
              8: "close-wait", 9: "last-ack", 11: "closing"}


class Ends(Pair):
    """A connection of A to B, whose socket is not bound, and a host that moves."""

    def __init__(self, lab: Any, mover: str = "a", a: str = "4", b: str = "4", port: int = PORT,
                 prepare: Prepare | None = None) -> None:
        super().__init__(lab, port, source=None, a=a, b=b, prepare=prepare)
        # Not by B's view: a NAPT may have changed the port.
        self.token = super().conn(lab.a)["token-remote"]
        self.mover: Host = lab.hosts[mover.split()[0]]
        self.to = MOVES[mover][1]

    # ---- Who ----

    def sides(self, first: str) -> tuple[socket.socket, socket.socket]:
        """The sockets, that of the host with this name first."""
        return (self.a, self.b) if first == "a" else (self.b, self.a)

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.lab.a, self.lab.b

    # ---- What they are doing ----

    def conn(self, host: Host) -> dict[str, Any]:
        """The kernel's view of it at one end, whatever NAPTs make of its port."""
        found = [c for c in host.connections()
                 if c["token-local" if host is self.lab.b else "token-remote"] == self.token]
        assert len(found) == 1, f"{host.name}: {found}"
        return found[0]

    def tcp_state(self, host: Host) -> str:
        """TCP's own state at an end."""
        state = self.conn(host)["tcp-state"]
        return TCP_STATES.get(state, str(state))

    def in_state(self, host: Host, state: str) -> None:
        """Waits until TCP is in this state at an end."""
        wait_for(f"{host.name} to be in {state}", lambda: self.tcp_state(host) == state, 20, 0.001)

    def sub_state(self, host: Host, state: str, timeout: float = 120) -> None:
        """Waits until migration is in this state at an end."""
        wait_for(f"{host.name} to be in {state}", lambda: self.conn(host)["state"] == state, timeout, 0.05)

    # ---- Moving ----

    def move(self, **kw: Any) -> None:
        """The mover goes where it is to go."""
        self.mover.move(self.to, **kw)

    def settled(self, moves: int = 1, timeout: float = 30) -> None:
        """Waits until both ends have migrated so often, and rest."""
        def done(host: Host) -> bool:
            conn = self.conn(host)
            return (conn["migrations"], conn["state"]) == (moves, "idle")
        for host in self.hosts:
            wait_for(f"{host.name} to rest after {moves} migrations", lambda h=host: done(h), timeout, 0.02)

    def gone(self, timeout: float = 30) -> None:
        """Waits until neither end has the connection any more (TIME_WAIT apart)."""
        port = self.listener.getsockname()[1]
        for host in self.hosts:
            wait_for(f"{host.name}'s connection to end",
                     lambda h=host: not any(port in (c["local-port"], c["remote-port"]) for c in h.connections()),
                     timeout)

    def not_reset(self) -> None:
        """Nobody has sent an RST without proof. Ends the captures."""
        assert self.lab.resets(self.listener.getsockname()[1]) == []

    def resets_of_boxes(self) -> list[str]:
        """RSTs that an end has received and neither end has sent. Ends the captures."""
        self.not_reset()
        port = self.listener.getsockname()[1]
        return [f"{host.name}: {seg}" for host in self.hosts for seg in self.lab.segments(host.name)
                if seg.flags & RST and port in (seg.sport, seg.dport) and "RST-AUTH" not in seg.migrate]

    def close_second(self, closer: str) -> None:
        """After one end has closed its direction the other does, and all is over."""
        one, other = self.sides(closer)
        other.close()
        assert one.recv(1) == b""
        one.close()
        self.gone()

    def close_both(self, first: str = "a") -> None:
        """Both programs close; no end is left, and none was reset."""
        one, other = self.sides(first)
        one.shutdown(socket.SHUT_WR)
        assert other.recv(1) == b""
        self.close_second(first)
        self.not_reset()


class Stream:
    """A transfer by a thread that writes; the test reads, and compares."""

    def __init__(self, out: socket.socket, into: socket.socket, amount: int = 1 << 20,
                 write: Callable[[bytes], Any] | None = None, read: Callable[[int], bytes] | None = None) -> None:
        self.data = os.urandom(amount)
        self.got, self.hash = 0, hashlib.sha256()
        self.read = read or into.recv
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(write or out.sendall,), daemon=True)
        self.thread.start()

    def _run(self, write: Callable[[bytes], Any]) -> None:
        try:
            write(self.data)
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e

    def until(self, amount: int) -> "Stream":
        """Reads so much."""
        while self.got < amount:
            part = self.read(min(65536, amount - self.got))
            assert part, f"end of data after {self.got} of {len(self.data)} bytes: {self.error}"
            self.hash.update(part)
            self.got += len(part)
        return self

    def finish(self) -> None:
        """Reads the rest; it is what was written."""
        self.until(len(self.data))
        self.thread.join(60)
        assert not self.thread.is_alive() and self.error is None, self.error
        assert self.hash.digest() == hashlib.sha256(self.data).digest()


def info(sock: socket.socket) -> dict[str, int]:
    """What TCP_INFO says of a sender."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return {name: struct.unpack_from("=I", raw, at)[0]
            for name, at in (("unacked", 24), ("notsent", 144), ("snd_wnd", 228))}


def fill(out: socket.socket) -> bytes:
    """Writes until the reader, who does not read, has closed its window; what was written."""
    written = b""
    timeout = out.gettimeout()
    out.setblocking(False)
    for _ in range(200):
        part = os.urandom(4096)
        try:
            written += part[:out.send(part)]
        except BlockingIOError:
            time.sleep(0.05)
            state = info(out)
            if state["unacked"] == 0 and state["notsent"] and not state["snd_wnd"]:
                break
    else:
        raise AssertionError(f"the window does not close: {info(out)}")
    out.settimeout(timeout)
    return written


# ---- userfaultfd ----

_libc = ctypes.CDLL(None, use_errno=True)
_USERFAULTFD = 323
_UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03


def _ioctl(fd: int, request: int, *words: int) -> None:
    arg = (ctypes.c_uint64 * len(words))(*words)
    if _libc.ioctl(fd, ctypes.c_ulong(request), arg):
        raise OSError(ctypes.get_errno(), f"userfaultfd: ioctl {request:#x}")


class Held:
    """A socket in a send() that cannot go on: its memory is not there yet.

    The fault comes while the data are copied, so under the socket's lock: until
    release() whatever arrives has to wait in the backlog.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.data = os.urandom(mmap.PAGESIZE)
        self.memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.where = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.fd = _libc.syscall(_USERFAULTFD, os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        _ioctl(self.fd, _UFFDIO_API, 0xAA, 0, 0)
        _ioctl(self.fd, _UFFDIO_REGISTER, self.where, mmap.PAGESIZE, 1, 0)
        self.sent: list[int] = []
        self.thread = threading.Thread(target=self._send, args=(sock,), daemon=True)
        self.thread.start()
        os.read(self.fd, 32)    # returns when the fault has happened

    def _send(self, sock: socket.socket) -> None:
        # A signal would make the fault begin again and again, instead of sleeping.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.sent.append(sock.send(self.memory))

    def release(self) -> bytes:
        """Lets the system call end; returns what it has sent."""
        source = ctypes.create_string_buffer(self.data, mmap.PAGESIZE)
        _ioctl(self.fd, _UFFDIO_COPY, self.where, ctypes.addressof(source), mmap.PAGESIZE, 0, 0)
        self.thread.join(60)
        os.close(self.fd)
        assert self.sent == [mmap.PAGESIZE], f"send() returned {self.sent}"
        return self.data


def links(lab: Lab, box: str) -> str:
    """The interfaces of a box."""
    return lab.box(box).run("ip -br link").stdout
