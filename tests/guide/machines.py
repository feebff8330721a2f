# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole machines: QEMU, each with a disk of its own, commanded by its guest agent.

A cable joins a network card of one to one of another, and can be pulled out.
"""

import base64
import contextlib
import json
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

ENV = ["HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


class MachineError(Exception):
    """A machine that does not do what it was told; the text says which and what."""


def wait_for(what: str, done: Callable[[], Any], seconds: float = 600, every: float = 1) -> Any:
    """Waits until done() is true, and returns what it is. The time is a bound, not a measure."""
    end = time.monotonic() + seconds
    while True:
        if value := done():
            return value
        if time.monotonic() > end:
            raise MachineError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


class _Talk:
    """A line of JSON out, one back: QEMU's monitor and its guest agent."""

    def __init__(self, path: pathlib.Path, timeout: float) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(timeout)
        self._sock.connect(str(path))
        self._lines = self._sock.makefile("rb")

    def hear(self) -> Any:
        """The next line."""
        return json.loads(self._lines.readline())

    def ask(self, command: str, **arguments: Any) -> Any:
        """What it answers; events are passed over."""
        self._sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            said = self.hear()
            if "error" in said:
                raise MachineError(f"{command}: {said['error']}")
            if "return" in said:
                return said["return"]

    def agree(self, number: int, timeout: float) -> None:
        """Passes over what was said to others before, then waits longer for answers."""
        self._sock.sendall(json.dumps({"execute": "guest-sync", "arguments": {"id": number}}).encode() + b"\n")
        while self.hear().get("return") != number:
            pass
        self._sock.settimeout(timeout)

    def close(self) -> None:
        """Ends it."""
        self._lines.close()
        self._sock.close()


class Machine:
    """One with a copy of a disk. cables: of each card the socket, and whether this end listens there."""

    def __init__(self, name: str, disk: pathlib.Path, out: pathlib.Path,
                 cables: list[tuple[pathlib.Path, bool]], append: str = "") -> None:
        self.name, self._boot, self._out = name, disk.parent, out
        self._cables, self._append = cables, append
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(disk), str(self._path("disk"))], check=True)
        self._agent: _Talk
        self._monitor: _Talk
        self.start()

    def _path(self, what: str) -> pathlib.Path:
        return self._out / f"{self.name}.{what}"

    def _kernel(self) -> list[str]:
        """How QEMU is told of kernel and disk."""
        return ["-kernel", str(self._boot / "vmlinuz"), "-initrd", str(self._boot / "initrd.img"),
                "-append", f"root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 "
                f"systemd.hostname={self.name} {self._append}",
                "-drive", f"file={self._path('disk')},if=virtio,format=raw,cache=unsafe"]

    def start(self) -> None:
        """Switches it on."""
        argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768M",
                "-nographic", "-nodefaults", "-no-reboot", *self._kernel(),
                "-chardev", f"file,id=console,path={self._path('console')},append=on", "-serial", "chardev:console",
                "-device", "virtio-rng-pci", "-qmp", f"unix:{self._path('monitor')},server=on,wait=off",
                "-device", "virtio-serial-pci",
                "-chardev", f"socket,id=agent,path={self._path('agent')},server=on,wait=off",
                "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        for number, (path, listens) in enumerate(self._cables):
            argv += ["-netdev", f"stream,id=cable{number},server={'on' if listens else 'off'},"
                     f"addr.type=unix,addr.path={path}",
                     "-device", f"virtio-net-pci,netdev=cable{number},id=card{number},"
                     f"mac=52:54:00:{sum(map(ord, self.name)) % 256:02x}:00:{number:02x}"]
        self._path("monitor").unlink(missing_ok=True)
        with open(self._path("qemu"), "ab") as log:
            self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(f"{self.name}'s QEMU", lambda: self._alive() and self._path("monitor").exists(), 60, 0.1)
        self._monitor = _Talk(self._path("monitor"), 60)
        self._monitor.hear()
        self._monitor.ask("qmp_capabilities")

    def _alive(self) -> bool:
        if self._child.poll() is not None:
            raise MachineError(f"{self.name} has ended; see {self._path('qemu')}, {self._path('console')}")
        return True

    def _answers(self) -> bool:
        self._alive()
        self._agent = _Talk(self._path("agent"), 10)
        try:
            self._agent.agree(time.monotonic_ns() % 10**9, 120)
            return True
        except (OSError, ValueError):
            self._agent.close()
            return False

    def booted(self) -> None:
        """Waits until systemd has started all that it should."""
        wait_for(f"the agent of {self.name}", self._answers)
        wait_for(f"{self.name} to boot", lambda: self.run("systemctl is-system-running", check=False)
                 in ("running", "degraded"), every=2)

    def run(self, command: str, check: bool = True, seconds: float = 300) -> str:
        """What a command of root's shell says there."""
        pid = self._agent.ask("guest-exec", path="/bin/bash", arg=["-ec", command], env=ENV,
                              **{"capture-output": True})["pid"]

        def ended() -> Any:
            status = self._agent.ask("guest-exec-status", pid=pid)
            return status if status["exited"] else None
        status = wait_for(f"{self.name}: {command}", ended, seconds, 0.2)
        out, err = (base64.b64decode(status.get(k, "")).decode(errors="replace") for k in ("out-data", "err-data"))
        if check and status.get("exitcode") != 0:
            raise MachineError(f"{self.name}: {command}: exit status {status.get('exitcode')}\n{out}{err}")
        return out.strip()

    def plug(self, card: int, into: bool) -> None:
        """Puts the cable of a card in, or pulls it out."""
        self._monitor.ask("set_link", name=f"card{card}", up=into)

    def reboot(self) -> None:
        """As its user would. QEMU ends with it, and is started anew on the same disk."""
        self.run("systemd-run --on-active=1 systemctl reboot")
        self._child.wait(300)
        self.start()
        self.booted()

    def end(self) -> None:
        """Pulls its plug."""
        self._child.kill()
        self._child.wait()
        self._path("disk").unlink(missing_ok=True)


@contextlib.contextmanager
def all_ended() -> Iterator[list[Machine]]:
    """A list of machines, which are ended in any case."""
    machines: list[Machine] = []
    try:
        yield machines
    finally:
        for machine in machines:
            machine.end()
