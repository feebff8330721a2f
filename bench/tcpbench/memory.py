# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel memory of a connection's end, off and on, beyond the unpatched kernel's."""

import pathlib
from collections.abc import Callable
from typing import Any

from .machine import boot, run_inside
from .report import Row, Target


def _difference(mine: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Caches that grow otherwise than the unpatched kernel's."""
    names = {*mine["caches"], *base["caches"]}
    change = {n: mine["caches"].get(n, 0) - base["caches"].get(n, 0) for n in sorted(names)}
    return {n: round(v, 1) for n, v in change.items() if abs(v) >= 1}


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows memory.*."""
    del quick
    found = {}
    for name, kernel, enabled in (("vanilla", "uml-vanilla", "-"), ("off", "uml-plain", "0"), ("on", "uml-plain", "2")):
        say(f"memory: 10,000 connections, {name}")
        opts = boot.Options(kernel=str(kernels[kernel]), virtual=True, budget=600, mem="2G")
        found[name] = run_inside("memory.py", [enabled], out / f"memory-{name}", opts)
    base = found["vanilla"]
    made = []
    for name, limit in (("off", 0.0), ("on", 512.0)):
        value = found[name]["per_end"] - base["per_end"]
        # Pages that are half full at both moments: below a byte of each end.
        made.append(Row(f"memory.{name}", f"memory of a connection's end, {name}", "bytes",
                        value=round(value, 1) if abs(value) >= 1 else 0.0,
                        ratio=found[name]["per_end"] / base["per_end"],
                        target=Target("<=", limit), samples=[found[name]],
                        compare={"vanilla holds": round(base["per_end"], 1), **_difference(found[name], base)},
                        note="beyond vanilla; compare: objects of single caches, bytes of each end"))
    return made
