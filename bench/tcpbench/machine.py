# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that run one beside the other, and are asked in turn.

A Machine is a booted kernel in which inside/serve.py waits for requests, files
in the directory both share. Between requests it is frozen, so that only the
one that is measured runs at all. All keep to the same CPU, since they take turns;
what asks them has the others.
"""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "netns-lab"))

from tcplab import boot  # noqa: E402

LabError = boot.LabError
CPU = max(os.sched_getaffinity(0))
# What is compared (inside/states.py), and whether it is on the patched kernel.
STATES = {"vanilla": False, "off": True, "on": True, "mptcp": False}
# How each but the first is called in the rows, which hold it against that.
NAMES = {"off": "off", "on": "on", "mptcp": "MPTCP"}
_IMAGES = {"uml": ("uml-vanilla", "uml-plain"), "qemu": ("qemu-vanilla", "qemu")}


def image(kernels: dict[str, pathlib.Path], backend: str, state: str) -> str:
    """The kernel of a state."""
    return str(kernels[_IMAGES[backend][STATES[state]]])


def run_inside(name: str, args: list[str], out: pathlib.Path, opts: boot.Options) -> Any:
    """Boots, runs inside/NAME with these arguments, returns what it left in result.json."""
    (out / "result.json").unlink(missing_ok=True)
    done = boot.run(f"/usr/bin/python3 bench/inside/{name} {' '.join(args)}", out, opts)
    if not done.ok:
        raise LabError(f"{name}: {done.complaint()}")
    return json.loads((out / "result.json").read_text())


class Machine:
    """A kernel with a network of two namespaces in it, and a server of requests."""

    def __init__(self, state: str, kernel: str, out: pathlib.Path) -> None:
        self.state = state
        self._dir = out
        self._ids = itertools.count()
        subprocess.run(["rm", "-rf", str(out)], check=True)
        (out / "ctl").mkdir(parents=True)
        self._machine = boot.start(f"/usr/bin/python3 bench/inside/serve.py {state}", out,
                                   boot.Options(kernel=kernel, virtual=False, mem="600M", on_cpu=CPU))
        self._wait(out / "ctl/ready", 120)
        self.freeze()

    def _wait(self, path: pathlib.Path, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not path.exists():
            if self._machine.poll() is not None or time.monotonic() > end:
                said = (self._dir / "output").read_text(errors="replace") if (self._dir / "output").exists() else ""
                raise LabError(f"{self.state}: no {path.name}; see {self._dir}/console\n{said[-500:]}")
            time.sleep(0.002)

    def freeze(self) -> None:
        """Only the kernel's own process: its user processes run when it lets them."""
        os.kill(self._machine.pid, signal.SIGSTOP)

    def ask(self, timeout: float = 60, **words: Any) -> Any:
        """Sends a request, and freezes the machine when it has answered."""
        base = self._dir / "ctl" / str(next(self._ids))
        base.with_suffix(".tmp").write_text(json.dumps(words))
        base.with_suffix(".tmp").rename(base.with_suffix(".req"))
        os.kill(self._machine.pid, signal.SIGCONT)
        try:
            self._wait(base.with_suffix(".ans"), timeout)
        finally:
            self.freeze()
        answer = json.loads(base.with_suffix(".ans").read_text())
        if "error" in answer:
            raise LabError(f"{self.state}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """Ends it, whatever it is doing."""
        os.kill(self._machine.pid, signal.SIGCONT)
        boot.end(self._machine)

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
