# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions for a request, counted by QEMU: the unpatched kernel, off, on, MPTCP.

With -icount the emulated processor's clock is the number of instructions it has
executed: no cache, no neighbour, no luck. What is left of chance are timer ticks
and where hash chains lie; hence slices, of several boots.
"""

import pathlib
from collections.abc import Callable

from . import stats
from .machine import NAMES, STATES, boot, image, run_inside
from .report import Row, Target

WORDS = {"rr": "request", "connect": "connection", "bulk": "kilobyte"}


def _rows(found: dict[str, dict[str, list[list[float]]]]) -> list[Row]:
    out = []
    for state in NAMES:
        for mode, word in WORDS.items():
            mine, base = found[state][mode], found["vanilla"][mode]
            rounds = [list(zip(a, b, strict=True)) for a, b in zip(mine, base, strict=True)]
            ratio, interval = stats.median_ratio(rounds)
            target = Target("<=", 1.002) if (state, mode) == ("off", "rr") else None
            out.append(Row(f"insn.{state}-{mode}", f"{NAMES[state]}, against vanilla: instructions a {word}", "",
                           value=stats.median([v for boot_ in mine for v in boot_]), ratio=ratio, interval=interval,
                           target=target, judged="ratio", samples=rounds,
                           compare={"vanilla": stats.median([v for boot_ in base for v in boot_])}))
    return out


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows insn.*"""
    boots, slices = (1, 5) if quick else (3, 15)
    found: dict[str, dict[str, list[list[float]]]] = {s: {m: [] for m in WORDS} for s in STATES}
    for number in range(boots):
        for state in STATES:
            say(f"insn: boot {number + 1} of {boots}, {state}")
            opts = boot.Options(kernel=image(kernels, "qemu", state), virtual=False, budget=900, mem="1G", icount=True)
            got = run_inside("insn.py", [state, str(slices)], out / f"insn-{state}", opts)
            for mode in WORDS:
                scale = 1000 if mode == "bulk" else 1
                found[state][mode].append([ticks / count * scale for count, ticks in got[mode]])
    return _rows(found)
