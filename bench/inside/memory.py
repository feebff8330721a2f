#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel memory of a connection: memory.py STATE FEW MANY; STATE is one of states.py.

Connections are opened between two hosts of one kernel, FEW and then MANY; what
the kernel holds is read at both moments. Their difference is that of so many
connections with two ends each, and free of what is there once.

result.json, all in bytes per end: {"pages": {kind: ...}, "caches": {name: ...}}.
pages are whole ones, of all slabs, of vmalloc (large hash tables) and of per-CPU
memory; caches counts the objects in use.
"""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import states  # noqa: E402
from crowd import LIMIT, Crowd  # noqa: E402
from tcplab.topology import Lab  # noqa: E402

KINDS = ("Slab", "VmallocUsed", "Percpu")


def caches() -> dict[str, int]:
    """Bytes of objects in use, by slab cache."""
    out = {}
    for line in pathlib.Path("/proc/slabinfo").read_text().splitlines()[2:]:
        words = line.split()
        out[words[0]] = int(words[1]) * int(words[3])
    return out


def pages() -> dict[str, int]:
    """Bytes the kernel holds in pages for its own objects."""
    lines = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return {kind: int(lines[kind].split()[0]) * 1024 for kind in KINDS}


def settled() -> dict[str, dict[str, int]]:
    """Both, when what waits to be freed is."""
    time.sleep(5)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("2\n")
    time.sleep(2)
    return {"pages": pages(), "caches": caches()}


def main() -> None:
    state, few, many = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with Lab("fig22", at={"a": "g1"}, enabled=states.enabled(state)) as lab:
        lab.set_link("g1", limit=LIMIT)
        crowd = Crowd(lab, states.protocol(state))
        crowd.grow(few)
        before = settled()
        crowd.grow(many)
        after = settled()
        states.prove(state, states.counters(lab.a.run("cat /proc/net/netstat").stdout), many)
        crowd.close()
    ends = 2 * (many - few)
    result = {part: {name: (size - before[part].get(name, 0)) / ends for name, size in sorted(sizes.items())}
              for part, sizes in after.items()}
    pathlib.Path("/lab/result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
