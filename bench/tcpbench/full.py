# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon a moved connection fills its path, beside a new one: inside/full.py."""

import pathlib
from collections.abc import Callable
from typing import Any

from . import stats
from .machine import boot, run_inside
from .report import Row, Target, spread

WORDS = {"mover": "sending", "peer": "receiving"}


def _said(times: list[float | None]) -> str:
    """A column of the comparison."""
    got = [s * 1000 for s in times if s is not None]
    lost = f"{len(times) - len(got)} of {len(times)} never"
    if not got:
        return lost
    return f"{stats.median(got):.1f}, {min(got):.1f} .. {max(got):.1f}" + f", {lost}" * (len(got) < len(times))


def _row(case: dict[str, Any], mptcp: dict[str, Any]) -> Row:
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
    row.ratio, row.interval = stats.median_ratio([list(zip(ms["moved"], ms["new"], strict=True))])
    row.compare = {"new connection (ms)": _said(case["new"]), "MPTCP moved (ms)": _said(mptcp["moved"]),
                   "MPTCP new (ms)": _said(mptcp["new"])}
    return row


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows full.*; ratio is to a new connection on the same path."""
    found = {}
    for kind, kernel in (("migrate", "uml-plain"), ("mptcp", "uml-vanilla")):
        say(f"full: {kind}")
        opts = boot.Options(kernel=str(kernels[kernel]), virtual=True, budget=900, mem="1500M")
        found[kind] = run_inside("full.py", [kind, "2" if quick else "6"], out / f"full-{kind}", opts)
    return [_row(case, mptcp) for case, mptcp in zip(found["migrate"], found["mptcp"], strict=True)]
