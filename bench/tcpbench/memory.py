# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel memory of a connection's end, off, on and with MPTCP, beyond the unpatched kernel's."""

import pathlib
from collections.abc import Callable

from .machine import NAMES, STATES, boot, image, run_inside
from .report import Row, Target

TARGETS = {"off": Target("<=", 0), "on": Target("<=", 512)}
COUNTS, QUICK = (1_000, 10_000), (200, 2_000)
# MPTCP's hash of tokens has a slot for each megabyte of memory and takes four of them in
# each; what finds no place becomes plain TCP. Both ends are in the table.
MPTCP_COUNTS = (200, 2_000)

# Bytes of each end: {"pages": {kind: ...}, "caches": {name: ...}}
Held = dict[str, dict[str, float]]


def _difference(mine: Held, base: Held) -> dict[str, float]:
    """Kinds of pages and caches that grow otherwise than the unpatched kernel's."""
    out = {}
    for part in ("pages", "caches"):
        names = {**base[part], **mine[part]}
        change = {name: mine[part].get(name, 0) - base[part].get(name, 0) for name in names}
        out |= {name: round(v, 1) for name, v in change.items() if abs(v) >= 1}
    return out


def _row(state: str, mine: Held, base: Held) -> Row:
    per_end, vanilla = sum(mine["pages"].values()), sum(base["pages"].values())
    value = per_end - vanilla
    # Pages that are half full at both moments: below a byte of each end.
    return Row(f"memory.{state}", f"memory of a connection's end, {NAMES[state]}", "bytes",
               value=round(value, 1) if abs(value) >= 1 else 0.0, ratio=per_end / vanilla,
               target=TARGETS.get(state), samples=[mine, base],
               compare={"vanilla holds": round(vanilla, 1), **_difference(mine, base)},
               note="beyond vanilla; compare: bytes of each end, in whole pages (Slab, VmallocUsed, Percpu), "
                    "and as objects of single caches")


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows memory.*."""
    found: dict[str, Held] = {}
    for state in STATES:
        few, many = MPTCP_COUNTS if state == "mptcp" else QUICK if quick else COUNTS
        say(f"memory: {many:,} connections, {state}")
        opts = boot.Options(kernel=image(kernels, "uml", state), virtual=True, budget=600, mem="4G")
        found[state] = run_inside("memory.py", [state, str(few), str(many)], out / f"memory-{state}", opts)
    return [_row(state, found[state], found["vanilla"]) for state in NAMES]
