# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that run one beside the other, and are asked in turn.

A Machine is a booted kernel in which inside/serve.py waits for requests, files
in the directory both share. Between requests it is frozen, so that only the
one that is measured runs at all.
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


def run_inside(name: str, args: list[str], out: pathlib.Path, opts: boot.Options) -> Any:
    """Boots, runs inside/NAME with these arguments, returns what it left in result.json."""
    (out / "result.json").unlink(missing_ok=True)
    done = boot.run(f"/usr/bin/python3 bench/inside/{name} {' '.join(args)}", out, opts)
    if not done.ok:
        raise LabError(f"{name}: {done.complaint()}")
    return json.loads((out / "result.json").read_text())


class Machine:
    """A kernel with a network of two namespaces in it, and a server of requests."""

    def __init__(self, name: str, kernel: str, enabled: int | None, out: pathlib.Path) -> None:
        """enabled: net.tcp_migrate.enabled in both namespaces, None leaves it alone."""
        self.name = name
        self._dir = out
        self._ids = itertools.count()
        subprocess.run(["rm", "-rf", str(out)], check=True)
        (out / "ctl").mkdir(parents=True)
        command = f"/usr/bin/python3 bench/inside/serve.py {'-' if enabled is None else enabled}"
        self._machine = boot.start(command, out, boot.Options(kernel=kernel, virtual=False, mem="600M"))
        self._wait(out / "ctl/ready", 120)
        self.freeze()

    def _wait(self, path: pathlib.Path, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not path.exists():
            if self._machine.poll() is not None or time.monotonic() > end:
                said = (self._dir / "output").read_text(errors="replace") if (self._dir / "output").exists() else ""
                raise LabError(f"{self.name}: no {path.name}; see {self._dir}/console\n{said[-500:]}")
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
            raise LabError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """Ends it, whatever it is doing."""
        os.kill(self._machine.pid, signal.SIGCONT)
        boot.end(self._machine)

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
