# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mobility server bears, in real time on this machine's own kernel, and on UML: load/server-load.cpp."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import stats
from .machine import ROOT, LabError, boot, run_inside
from .report import Row, Target, spread

SERVER = ROOT / "build/bin/mobility-server"
LOAD = ROOT / "build/cmake/bench/load/server-load"
PORT, TOKEN = 17790, "0123456789abcdef0123456789abcdef"


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LabError(f"process {pid} has ended")


@contextlib.contextmanager
def server(where: pathlib.Path, hosts: int) -> Iterator[tuple[int, str]]:
    """A server for so many hosts with its files there: its process and its name."""
    tokens, config = where / "tokens", where / "config.toml"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    config.write_text(f'[server]\nlisten = ["127.0.0.1:{PORT}"]\nidentity = "{where}/identity.pem"\n'
                      f'[admission]\nhosts = "{where}/hosts"\ntokens = "{tokens}"\nenrolled = "{where}/enrolled"\n'
                      f'[limits]\nchannels = {hosts + 1000}\n[log]\nlevel = "warn"\n')
    words = ["prlimit", f"--nofile={hosts + 3000}", str(SERVER), "-c", str(config)]
    with open(where / "log", "wb") as log, subprocess.Popen(words, stderr=log) as child:
        try:
            # Until it listens nothing can be measured.
            for _ in range(200):
                if subprocess.run(["ss", "-Htln", f"sport = :{PORT}"], capture_output=True, check=True).stdout:
                    break
                time.sleep(0.05)
            name = subprocess.run([*words, "--identity"], capture_output=True, text=True, check=True).stdout.strip()
            yield child.pid, name
        finally:
            child.terminate()


@contextlib.contextmanager
def mappings(wanted: int) -> Iterator[None]:
    """A process may have so many mappings meanwhile: User-Mode Linux has one for each page."""
    limit = pathlib.Path("/proc/sys/vm/max_map_count")
    before = limit.read_text()
    limit.write_text(f"{max(wanted, int(before))}\n")
    try:
        yield
    finally:
        limit.write_text(before)


def measured(hosts: int, rate: int, seconds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """So many hosts join, and report: what is said of both, and the server's memory (bytes) after each."""
    with tempfile.TemporaryDirectory() as top, server(pathlib.Path(top), hosts) as (pid, name):
        before = resident(pid)
        with subprocess.Popen(["prlimit", f"--nofile={hosts + 1000}", str(LOAD), name, str(PORT), TOKEN, str(hosts),
                               str(rate), str(seconds)],
                              text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            assert load.stdin and load.stdout
            joined = json.loads(load.stdout.readline())
            say(f"server: {joined['joined']} of {hosts} hosts joined in {joined['seconds']:.1f} s")
            time.sleep(2)
            idle = resident(pid) - before
            load.stdin.write("go\n")
            load.stdin.flush()
            told = json.loads(load.stdout.readline())
        return {"hosts": hosts, "rate": rate, "joined": joined, "told": told, "idle": idle,
                "peak": resident(pid) - before}


def _rows(found: dict[str, Any], suffix: str) -> list[Row]:
    joined, told, hosts, rate = (found[key] for key in ("joined", "told", "hosts", "rate"))
    times = sorted(told["ms"])
    lost = joined["failed"] + told["ended"] + told["late"]
    note = f"{joined['failed']} hosts not joined ({joined['why']}), {told['ended']} channels ended, " \
           f"{told['late']} reports without an answer" if lost else ""
    memory = Row(f"server.memory{suffix}", f"server, memory of an idle host, {hosts:,} connected", "KiB",
                 value=found["idle"] / max(1, joined["joined"]) / 1024, target=Target("<=", 64), note=note,
                 compare={"after the reports (KiB)": round(found["peak"] / max(1, joined["joined"]) / 1024, 1)})
    joins = Row(f"server.joins{suffix}", f"server, hosts that join a second, up to {hosts:,}", "1/s",
                value=joined["joined"] / joined["seconds"])
    answers = [Row(f"server.{word}{suffix}", f"server, {hosts:,} connected, answers at {rate} reports a second, {word}",
                   "ms", spread=spread(times),
                   value=times[min(len(times) - 1, int(len(times) * part))] if times else None,
                   target=Target("<=", 20) if word == "p99" else None,
                   compare={"answers": len(times), "median": round(stats.median(times), 3) if times else None})
               for word, part in (("p50", 0.5), ("p99", 0.99))]
    if lost:
        for row in (memory, answers[1]):
            row.verdict = "miss"
    return [memory, joins, *answers]


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows server.*: memory of an idle host, and answers at so many reports a second; memory of ten times as many
    hosts, in a kernel of their own, where a process may have so many descriptors."""
    few = measured(*((500, 200, 3) if quick else (10_000, 1000, 30)), say=say)
    many = (5000, 20, 3) if quick else (100_000, 20, 30)
    say(f"server: {many[0]:,} hosts on UML")
    opts = boot.Options(kernel=str(kernels["uml-plain"]), virtual=False, budget=3600, mem="16G")
    with mappings(16_000_000):
        crowd = run_inside("idle.py", list(map(str, many)), out / "server-uml", opts)
    (out / "server.json").write_text(json.dumps([few, crowd]))
    return _rows(few, "") + _rows(crowd, "-many")[:2]
