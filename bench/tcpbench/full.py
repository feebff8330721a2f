# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon a moved connection fills its path, beside a new one: inside/full.py."""

import pathlib
from collections.abc import Callable
from typing import Any

from . import stats
from .machine import boot, run_inside
from .report import Row, Target, spread

WORDS = {"mover": "sending", "peer": "receiving"}


def _row(case: dict[str, Any]) -> Row:
    ms = {key: [s * 1000 for s in case[key] if s is not None] for key in ("moved", "new")}
    rtt = case["rtt"] * 1000
    way = WORDS[case["sends"]]
    row = Row(f"full.{way}-{rtt:.0f}", f"full rate after a move, {way}, RTT {rtt:.0f} ms", "ms",
              target=Target("<=", 1.02), judged="ratio", samples=[case["moved"], case["new"]])
    lost = sum(s is None for key in ("moved", "new") for s in case[key])
    if lost or not ms["moved"] or not ms["new"]:
        row.verdict, row.note = "failed", f"{lost} connections never filled the path"
        return row
    row.value, row.spread = stats.median(ms["moved"]), spread(ms["moved"])
    row.ratio, row.interval = stats.ratio_of_medians([list(zip(ms["moved"], ms["new"], strict=True))])
    fresh = ms["new"]
    row.compare = {"new connection (ms)": f"{stats.median(fresh):.1f}, {min(fresh):.1f} .. {max(fresh):.1f}"}
    return row


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows full.*; ratio is to a new connection on the same path."""
    del say
    opts = boot.Options(kernel=str(kernels["uml-plain"]), virtual=True, budget=900, mem="1500M")
    return [_row(case) for case in run_inside("full.py", ["2" if quick else "6"], out / "full", opts)]
