# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mobility server bears, in real time on this machine's own kernel: load/server-load.cpp."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

from . import stats
from .machine import ROOT, LabError
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
def server(where: pathlib.Path) -> Iterator[tuple[int, str]]:
    """A server with its files there: its process and its name."""
    tokens, config = where / "tokens", where / "config.toml"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    config.write_text(f'[server]\nlisten = ["127.0.0.1:{PORT}"]\nidentity = "{where}/identity.pem"\n'
                      f'[admission]\nhosts = "{where}/hosts"\ntokens = "{tokens}"\nenrolled = "{where}/enrolled"\n'
                      f'[log]\nlevel = "warn"\n')
    words = [str(SERVER), "-c", str(config)]
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


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows server.*: memory of an idle host, and answers at so many reports a second."""
    hosts, rate, seconds = (500, 200, 3) if quick else (10_000, 1000, 30)
    with tempfile.TemporaryDirectory() as top, server(pathlib.Path(top)) as (pid, name):
        before = resident(pid)
        with subprocess.Popen([str(LOAD), name, str(PORT), TOKEN, str(hosts), str(rate), str(seconds)], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            assert load.stdin and load.stdout
            joined = json.loads(load.stdout.readline())
            say(f"server: {joined['joined']} of {hosts} hosts joined in {joined['seconds']:.1f} s")
            time.sleep(2)
            idle = resident(pid) - before
            load.stdin.write("go\n")
            load.stdin.flush()
            told = json.loads(load.stdout.readline())
        peak = resident(pid) - before
    out.mkdir(parents=True, exist_ok=True)
    (out / "server.json").write_text(json.dumps({"joined": joined, "told": told, "idle": idle, "peak": peak}))
    times = sorted(told["ms"])
    lost = joined["failed"] + told["ended"] + told["late"]
    note = f"{joined['failed']} hosts not joined ({joined['why']}), {told['ended']} channels ended, " \
           f"{told['late']} reports without an answer" if lost else ""
    memory = Row("server.memory", f"server, memory of an idle host, {hosts} connected", "KiB",
                 value=idle / max(1, joined["joined"]) / 1024, target=Target("<=", 64), note=note,
                 compare={"after the reports (KiB)": round(peak / max(1, joined["joined"]) / 1024, 1)})
    joins = Row("server.joins", "server, hosts that join a second", "1/s", value=joined["joined"] / joined["seconds"])
    answers = [Row(f"server.{word}", f"server, answers at {rate} reports a second, {word}", "ms", spread=spread(times),
                   value=times[min(len(times) - 1, int(len(times) * part))] if times else None,
                   target=Target("<=", 20) if word == "p99" else None,
                   compare={"answers": len(times), "median": round(stats.median(times), 3) if times else None})
               for word, part in (("p50", 0.5), ("p99", 0.99))]
    if lost:
        for row in (memory, answers[1]):
            row.verdict = "miss"
    return [memory, joins, *answers]
