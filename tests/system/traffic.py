# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic by unmodified programs, with data whose checksum is known.

Each class starts its programs when it is made. received() is how much the
receiving program has, until() waits for so much of it, finish() waits for the
end and compares checksums. A is the opener in all of them, unless another is
named: then A and B have changed places in what is said here.
"""

import subprocess
import time
from typing import Any

from tcplab import programs
from tcplab.topology import Host, Lab, wait_for

SIZE = 3 << 20
# Seconds a finished move may leave the rest of a transfer: far above what the
# link needs, far below TCP's own time-outs.
PATIENCE = 60.0


class Traffic:
    """What all kinds have in common."""

    port = programs.HTTP
    every = 0.0005      # seconds between two looks at what has come

    def __init__(self, lab: Lab, v6: bool = False, size: int = SIZE, opener: str = "a") -> None:
        self.a: Host = lab.hosts[opener]
        self.b: Host = lab.hosts["a" if opener == "b" else "b"]
        self.v6, self.size = v6, size
        self.where = f"[{self.b.v6}]" if v6 else self.b.v4
        self.child: subprocess.Popen[Any]
        self.start()

    def start(self) -> None:
        """Starts the programs."""
        raise NotImplementedError

    def received(self) -> int:
        """Bytes the receiving program has."""
        raise NotImplementedError

    def verify(self) -> None:
        """Compares checksums, after the end."""
        raise NotImplementedError

    def until(self, amount: int) -> None:
        """Waits for so many bytes, which must come before the end."""
        def check() -> bool:
            if self.child.poll() is not None:
                raise AssertionError(f"{type(self).__name__} ended early: {self.said()}")
            return self.received() >= amount
        wait_for(f"{amount} bytes of {type(self).__name__}", check, PATIENCE, max(self.every, 0.001))

    def carried(self) -> int:
        """Bytes the connection has carried; some programs write large blocks only."""
        return self.received()

    def resumed(self, timeout: float = PATIENCE) -> float:
        """Waits for a new byte; seconds from now until it is there."""
        began, before = time.monotonic(), self.carried()
        wait_for(f"{type(self).__name__} to go on after {before} bytes",
                 lambda: self.carried() > before, timeout, self.every)
        return time.monotonic() - began

    def said(self) -> str:
        """What the program complained of, once it has ended."""
        return f"exit {self.child.returncode}: {self.child.communicate()[1] or ''}"

    def finish(self, timeout: float = PATIENCE) -> None:
        """Waits for the end, and that all data are there."""
        wait_for(f"{type(self).__name__} to end", lambda: self.child.poll() is not None, timeout)
        assert self.child.returncode == 0, self.said()
        self.verify()


class Download(Traffic):
    """curl on A from nginx on B."""

    def start(self) -> None:
        root = programs.nginx(self.b)
        self.sum = programs.data(root / "file", self.size)
        self.file = programs.home(self.a, "curl") / "file"
        self.child = self.a.popen(["curl", "-gsS", "--fail", "-o", str(self.file),
                                   f"http://{self.where}/file"], stderr=subprocess.PIPE, text=True)

    def received(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def verify(self) -> None:
        assert programs.checksum(self.file) == self.sum


class Upload(Traffic):
    """curl on A puts a file onto nginx on B."""

    def start(self) -> None:
        self.root = programs.nginx(self.b)
        self.file = programs.home(self.a, "curl") / "file"
        self.sum = programs.data(self.file, self.size)
        self.child = self.a.popen(["curl", "-gsS", "--fail", "-H", "Expect:", "-T", str(self.file),
                                   f"http://{self.where}/up"], stderr=subprocess.PIPE, text=True)

    def received(self) -> int:
        body = self.root.parent / "body"
        return sum(f.stat().st_size for f in body.rglob("*") if f.is_file())

    def verify(self) -> None:
        assert programs.checksum(self.root / "up") == self.sum


class Both(Traffic):
    """socat on each end: a file goes either way over one connection."""

    port = 7000

    def start(self) -> None:
        kind = "TCP6" if self.v6 else "TCP4"
        self.files = {}
        for seed, host in ((1, self.a), (2, self.b)):
            path = programs.home(host, "socat")
            self.files[host.name] = (path, programs.data(path / "out", self.size, seed))
        self.server = self.b.popen(self._socat(self.b, f"{kind}-LISTEN:{self.port}"),
                                   stderr=subprocess.PIPE, text=True)
        programs.listening(self.b, self.port, self.server)
        self.child = self.a.popen(self._socat(self.a, f"{kind}:{self.where}:{self.port}"),
                                  stderr=subprocess.PIPE, text=True)

    def _socat(self, host: Host, address: str) -> list[str]:
        path = self.files[host.name][0]
        return ["socat", "-t", "3600", address, f"OPEN:{path}/out,rdonly!!CREATE:{path}/in"]

    def received(self) -> int:
        """The lesser of both directions."""
        ins = [path / "in" for path, _ in self.files.values()]
        return min(p.stat().st_size if p.exists() else 0 for p in ins)

    def verify(self) -> None:
        wait_for("the other end to end", lambda: self.server.poll() is not None, PATIENCE)
        for mine, other in ((self.a, self.b), (self.b, self.a)):
            path, expected = self.files[mine.name][0], self.files[other.name][1]
            assert programs.checksum(path / "in") == expected


class Idle(Traffic):
    """ssh to cat on B; nothing is said during a move, then something is."""

    port = programs.SSH

    def start(self) -> None:
        options = programs.sshd(self.b, self.a)
        self.echoed = programs.home(self.a, "ssh") / "echoed"
        self.sent = b""
        with open(self.echoed, "wb") as out:
            self.child = self.a.popen(["ssh", *options, f"root@{self.where.strip('[]')}", "cat"],
                                      stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE)
        self.say("before")

    def say(self, text: str) -> None:
        """Sends a line and waits for its echo."""
        line = f"{text}\n".encode()
        assert self.child.stdin
        self.child.stdin.write(line)
        self.child.stdin.flush()
        self.sent += line
        wait_for(f"the echo of {text!r}", lambda: self.received() >= len(self.sent), PATIENCE, 0.001)

    def received(self) -> int:
        return self.echoed.stat().st_size

    def until(self, amount: int) -> None:
        assert self.received() == len(self.sent)

    def resumed(self, timeout: float = PATIENCE) -> float:
        began = time.monotonic()
        self.say("after")
        return time.monotonic() - began

    def finish(self, timeout: float = PATIENCE) -> None:
        self.say("last")
        assert self.child.stdin
        self.child.stdin.close()
        wait_for("ssh to end", lambda: self.child.poll() is not None, timeout)
        assert self.child.returncode == 0
        assert self.echoed.read_bytes() == self.sent


class Scp(Download):
    """scp on A from sshd on B."""

    port = programs.SSH
    every = 0.005       # it takes a run of ss

    def start(self) -> None:
        options = programs.sshd(self.b, self.a)
        remote = programs.home(self.b, "scp") / "file"
        self.sum = programs.data(remote, self.size)
        self.file = programs.home(self.a, "scp") / "file"
        self.child = self.a.popen(["scp", *options, f"root@{self.where}:{remote}", str(self.file)],
                                  stderr=subprocess.PIPE, text=True)

    def carried(self) -> int:
        return self.a.bytes(self.port)[1]


class Rsync(Upload):
    """rsync on A to a daemon on B."""

    port = programs.RSYNC
    every = 0.005       # it takes a run of ss

    def start(self) -> None:
        self.root = programs.home(self.b, "files")
        programs.rsyncd(self.b, self.root)
        self.file = programs.home(self.a, "rsync") / "up"
        self.sum = programs.data(self.file, self.size)
        self.child = self.a.popen(["rsync", "--whole-file", str(self.file), f"rsync://{self.where}/files/up"],
                                  stderr=subprocess.PIPE, text=True)

    def received(self) -> int:
        return sum(f.stat().st_size for f in self.root.iterdir())

    def carried(self) -> int:
        return self.b.bytes(self.port)[1]


class Psql(Download):
    """psql on A copies a big result out of PostgreSQL on B."""

    port = programs.PGSQL

    def start(self) -> None:
        programs.postgres(self.b)
        self.rows = self.size // 40
        self.file = programs.home(self.a, "psql") / "rows"
        query = f"COPY (SELECT g, md5(g::text) FROM generate_series(1, {self.rows}) g) TO STDOUT"
        self.child = self.a.popen(["psql", "-h", self.where.strip("[]"), "-U", "postgres", "-c", query,
                                   "-o", str(self.file)], stderr=subprocess.PIPE, text=True)

    def verify(self) -> None:
        import hashlib
        lines = [f"{g}\t{hashlib.md5(str(g).encode()).hexdigest()}\n" for g in range(1, self.rows + 1)]
        assert self.file.read_text() == "".join(lines)


class Iperf(Download):
    """iperf3 on A from its server on B, a file to a file.

    So little and so slowly that all that it may have to wait for fits into the
    sender's buffer: of a block of which TCP takes only a part iperf3 sends something
    else later. And from the server: a receiver that is told of the end by its control
    connection does not wait for all data.
    """

    port = programs.IPERF
    SIZE, BUFFER, BLOCK = 256 << 10, "200K", "4K"
    RATE, PACING = "5M", 10_000     # bits a second; microseconds between two looks at it

    def start(self) -> None:
        self.size = min(self.size, self.SIZE)
        source = programs.home(self.b, "iperf3") / "file"
        self.sum = programs.data(source, self.size)
        programs.iperf3(self.b, source)
        self.file = programs.home(self.a, "iperf3") / "file"
        self.child = self.a.popen(["iperf3", "-c", self.where.strip("[]"), "-R", "-F", str(self.file),
                                   "-n", str(self.size), "-w", self.BUFFER, "-l", self.BLOCK, "-b", self.RATE,
                                   "--pacing-timer", str(self.PACING)],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class SlowIperf(Iperf):
    """So slowly that it has something to say for most of a minute: iperf3 spins when it has said all."""

    RATE, PACING = "40K", 100_000


STREAMS = [Download, Upload, Both, Idle]
PROGRAMS = [Download, Scp, Rsync, Psql, Iperf]
