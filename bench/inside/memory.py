#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel memory of a connection: memory.py ENABLED ('-' on an unpatched kernel).

Connections are opened between two hosts of one kernel, 1,000 and then 10,000;
what the kernel holds is read at both moments. Their difference is that of
9,000 connections with two ends each, and free of what is there once.

result.json: {"per_end": bytes, "caches": {name: bytes per end}}. per_end counts
whole pages of all slabs, of vmalloc and of per-CPU memory (so also hash tables);
caches counts the objects in use.
"""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from crowd import Crowd  # noqa: E402
from tcplab.topology import Lab  # noqa: E402

FEW, MANY = 1000, 10000


def caches() -> dict[str, int]:
    """Bytes of objects in use, by slab cache."""
    out = {}
    for line in pathlib.Path("/proc/slabinfo").read_text().splitlines()[2:]:
        words = line.split()
        out[words[0]] = int(words[1]) * int(words[3])
    return out


def held() -> int:
    """Bytes the kernel holds in pages for its own objects."""
    lines = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return sum(int(lines[key].split()[0]) * 1024 for key in ("Slab", "VmallocUsed", "Percpu"))


def settled() -> tuple[int, dict[str, int]]:
    """Both, when what waits to be freed is."""
    time.sleep(5)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("2\n")
    time.sleep(2)
    return held(), caches()


def main() -> None:
    enabled = None if sys.argv[1] == "-" else int(sys.argv[1])
    with Lab("fig22", at={"a": "g1"}, enabled=enabled) as lab:
        crowd = Crowd(lab)
        crowd.grow(FEW)
        before = settled()
        crowd.grow(MANY)
        after = settled()
        agreed = lab.a.counters().get("Agreed", 0)
        if agreed != (MANY if enabled else 0):
            raise RuntimeError(f"{agreed} connections agreed on migration with enabled={enabled}")
        ends = 2 * (MANY - FEW)
        per = {name: (size - before[1].get(name, 0)) / ends for name, size in after[1].items()}
        result = {"per_end": (after[0] - before[0]) / ends,
                  "caches": {k: round(v, 2) for k, v in sorted(per.items()) if abs(v) >= 0.5}}
        crowd.close()
    pathlib.Path("/lab/result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
