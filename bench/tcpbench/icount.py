# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions for a request, counted by QEMU: the unpatched kernel, off, on.

With -icount the emulated processor's clock is the number of instructions it has
executed: no cache, no neighbour, no luck. What is left of chance are timer ticks
and where hash chains lie; hence slices, of several boots.
"""

import pathlib
from collections.abc import Callable

from . import stats
from .machine import boot, run_inside
from .report import Row, Target

WORDS = {"rr": "request", "connect": "connection", "bulk": "kilobyte"}
CASES = (("vanilla", "qemu-vanilla", "-"), ("off", "qemu", "0"), ("on", "qemu", "2"))


def _rows(found: dict[str, dict[str, list[list[float]]]]) -> list[Row]:
    out = []
    for state in ("off", "on"):
        for mode, word in WORDS.items():
            mine, base = found[state][mode], found["vanilla"][mode]
            rounds = [list(zip(a, b, strict=True)) for a, b in zip(mine, base, strict=True)]
            ratio, interval = stats.ratio_of_medians(rounds)
            target = Target("<=", 1.002) if (state, mode) == ("off", "rr") else None
            out.append(Row(f"insn.{state}-{mode}", f"{state}, against vanilla: instructions a {word}", "",
                           value=stats.median([v for boot_ in mine for v in boot_]), ratio=ratio, interval=interval,
                           target=target, judged="ratio", samples=rounds,
                           compare={"vanilla": stats.median([v for boot_ in base for v in boot_])}))
    return out


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows insn.*"""
    boots, slices = (1, 5) if quick else (3, 15)
    found: dict[str, dict[str, list[list[float]]]] = {name: {m: [] for m in WORDS} for name, _, _ in CASES}
    for number in range(boots):
        for name, kernel, enabled in CASES:
            say(f"insn: boot {number + 1} of {boots}, {name}")
            opts = boot.Options(kernel=str(kernels[kernel]), virtual=False, budget=900, mem="1G", icount=True)
            got = run_inside("insn.py", [enabled, str(slices)], out / f"insn-{name}", opts)
            for mode in WORDS:
                scale = 1000 if mode == "bulk" else 1
                found[name][mode].append([ticks / count * scale for count, ticks in got[mode]])
    return _rows(found)
