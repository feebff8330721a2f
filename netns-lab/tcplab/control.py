#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves the lab command inside a running lab: control.py TOPOLOGY RTT.

The machine and the booted kernel share a directory, but no socket. Requests
are therefore files, /lab/ctl/ID.req with an object in JSON, answered by ID.ans. What
a command says comes in ID.out meanwhile, and ID.stop ends it. And
shells are on serial lines, each of which the machine sees as a terminal: who
opens one says in its first line on which host, and gets a shell there.
"""

import fcntl
import json
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import traceback
import tty
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tcplab.topology import Lab, Node, patched  # noqa: E402

CTL_DIR = pathlib.Path("/lab/ctl")
CLOSED = b"\x1d[lab: shell closed]\x1d"


def node(lab: Lab, name: str) -> Node:
    """A host or a box by name."""
    if name in lab.hosts:
        return lab.hosts[name]
    if name in lab.places() and name not in lab.data["segment"] or name == "net":
        return lab.box(name)
    raise ValueError(f"no host {name!r}: there are {', '.join([*lab.hosts, 'net', *lab.data.get('napt', {})])}")


def move(lab: Lab, host: str, place: str, gap: float = 0, make_before_break: bool = False) -> str:
    """lab move"""
    if host not in lab.hosts:
        raise ValueError(f"no host {host!r} that can move: there are {', '.join(lab.hosts)}")
    lab.segment(place)
    point = lab.hosts[host].move(place, gap, make_before_break)
    return f"{host} is at {place} now: {point.v4} {point.v6}"


def status(lab: Lab) -> str:
    """lab status"""
    lines = [f"kernel: {os.uname().release}, {'with' if patched() else 'without'} TCP migration"]
    lines += [f"{h.name}: {p.place} {p.v4} {p.v6}" for h in lab.hosts.values() for p in h.points]
    return "\n".join([*lines, f"places: {' '.join(lab.places())}"])


def execute(lab: Lab, host: str, argv: list[str], request: pathlib.Path) -> dict[str, Any]:
    """lab exec: until the command ends, whatever it leaves running, or its user does."""
    with open(request.with_suffix(".out"), "wb") as out:
        child = node(lab, host).popen(argv, stdout=out, stderr=subprocess.STDOUT)
        while child.poll() is None:
            if request.with_suffix(".stop").exists():
                os.killpg(child.pid, signal.SIGTERM)
            time.sleep(0.02)
    return {"text": "", "status": child.returncode}


def behave(lab: Lab, box: str, changes: dict[str, Any]) -> str:
    """lab behave"""
    node(lab, box)
    lab.box(box).behave(**changes)
    return str(lab.box(box).behaviour)


OPERATIONS = {"move": move, "status": status, "behave": behave}
ONE_AT_A_TIME = threading.Lock()


def shell(lab: Lab, line: int) -> None:
    """Serves one serial line for ever."""
    fd = os.open(f"/dev/ttyS{line}", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    while True:
        words = _first_line(fd).split()
        if len(words) != 3:
            continue
        try:
            _interact(fd, node(lab, words[0]).name, int(words[1]), int(words[2]))
        except ValueError as e:
            os.write(fd, f"{e}\r\n".encode())
        os.write(fd, CLOSED)


def _first_line(fd: int) -> str:
    text = b""
    while not text.endswith((b"\n", b"\r")):
        text += os.read(fd, 1)
    return text.decode(errors="replace")


def _interact(fd: int, where: str, rows: int, columns: int) -> None:
    """A shell on a terminal of its own, joined to the line.

    The line itself cannot be the shell's terminal: it would be hung up, and
    never the same again, when the shell ends.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("=HHHH", rows, columns, 0, 0))
    env = {**os.environ, "PS1": f"{where}# ", "TERM": "xterm-256color"}
    child = subprocess.Popen(["ip", "netns", "exec", where, "bash", "--norc", "-i"], stdin=its, stdout=its,
                             stderr=its, env=env, start_new_session=True,
                             preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 1))
    os.close(its)
    while True:
        ready = select.select([fd, ours], [], [], 0.2)[0]
        if ours in ready:
            try:
                os.write(fd, os.read(ours, 4096))
            except OSError:
                break
        if fd in ready:
            os.write(ours, os.read(fd, 4096))
        if not ready and child.poll() is not None:
            break
    os.close(ours)
    child.wait()


def answer(lab: Lab, request: pathlib.Path) -> None:
    """Carries out one request: a command takes as long as it likes, all else goes one after the other."""
    try:
        words = json.loads(request.with_suffix(".now").read_text())
        operation = words.pop("op")
        if operation == "exec":
            result: Any = execute(lab, request=request, **words)
        else:
            with ONE_AT_A_TIME:
                result = OPERATIONS[operation](lab, **words)
        reply = result if isinstance(result, dict) else {"text": result, "status": 0}
    except Exception as e:  # whatever went wrong is told to whoever asked
        traceback.print_exc()
        reply = {"text": f"{e}", "status": 1}
    request.with_suffix(".now").unlink()
    done = request.with_suffix(".tmp")
    done.write_text(json.dumps(reply))
    done.rename(request.with_suffix(".ans"))


def main() -> None:
    CTL_DIR.mkdir(exist_ok=True)
    with Lab(sys.argv[1], rtt=float(sys.argv[2])) as lab:
        for line in range(1, int(sys.argv[3]) + 1):
            threading.Thread(target=shell, args=(lab, line), daemon=True).start()
        (CTL_DIR / "ready").write_text(status(lab))
        while not (CTL_DIR / "down").exists():
            for request in CTL_DIR.glob("*.req"):
                request.rename(request.with_suffix(".now"))
                threading.Thread(target=answer, args=(lab, request), daemon=True).start()
            time.sleep(0.05)


if __name__ == "__main__":
    main()
