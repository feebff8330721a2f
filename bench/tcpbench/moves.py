# SPDX-License-Identifier: GPL-2.0-or-later
"""How long after the command the data go on, on virtual time: inside/moves.py."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from . import stats
from .machine import boot, run_inside
from .report import Row, Target, spread

# Round trips from the command to the first new byte: request, answer, data; one
# way more if the answer has to be confirmed before the peer sends.
ROUND_TRIPS = {"mover": 1.5, "peer": 2.0}
WORDS = {"mover": "sending", "peer": "receiving"}
SLACK_MS = 3.0


def _run(kernel: pathlib.Path, out: pathlib.Path, moves: int, *kinds: str) -> list[dict[str, Any]]:
    opts = boot.Options(kernel=str(kernel), virtual=True, budget=1800, mem="1500M")
    return run_inside("moves.py", [str(moves), *kinds], out, opts)


def _ms(case: dict[str, Any]) -> list[float]:
    return [s * 1000 for s in case["resumed"] if s is not None]


def _others(case: dict[str, Any], cases: list[dict[str, Any]]) -> tuple[dict[str, Any], float | None]:
    """Comparison column, and MPTCP's median."""
    said: dict[str, Any] = {}
    mptcp = None
    for other in cases:
        if any(other[key] != case[key] for key in ("rtt", "sends", "traffic")):
            continue
        got, lost = _ms(other), sum(s is None for s in other["resumed"])
        if other["kind"] == "plain":
            end = f"sender told after {other['error']:.0f} s" if other["error"] else "the sender is told nothing"
            said["vanilla TCP"] = f"never goes on ({end})" if lost else f"{stats.median(got):.1f} ms"
        elif other["kind"] == "mptcp" and got:
            mptcp = stats.median(got)
            said["MPTCP (ms)"] = f"median {mptcp:.1f}, {min(got):.1f} .. {max(got):.1f}" + (
                f", {lost} of {lost + len(got)} never" if lost else "")
    return said, mptcp


def _row(case: dict[str, Any], others: list[dict[str, Any]]) -> Row:
    rtt = case["rtt"] * 1000
    got = _ms(case)
    limit = ROUND_TRIPS[case["sends"]] * rtt + SLACK_MS
    row = Row(f"moves.{case['traffic']}-{WORDS[case['sends']]}-{rtt:.0f}",
              f"move, {case['traffic']} {WORDS[case['sends']]}, RTT {rtt:.0f} ms", "ms",
              target=Target("<=", limit), judged="max", samples=case["resumed"])
    if len(got) < len(case["resumed"]):
        row.verdict = "miss"
        row.note = f"{len(case['resumed']) - len(got)} of {len(case['resumed'])} never went on"
    if not got:
        return row
    row.value, row.spread, row.interval = stats.median(got), spread(got), None
    row.compare, mptcp = _others(case, others)
    row.ratio = row.value / mptcp if mptcp else None
    if rtt:
        row.compare["in RTTs"] = f"{min(got) / rtt:.3f}, median {row.value / rtt:.3f}, {max(got) / rtt:.3f}"
    row.note = row.note or f"{sum(g > limit for g in got)} of {len(got)} above the target" * (max(got) > limit)
    return row


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows moves.*: from the command to the first new byte.

    ratio is to MPTCP's median; the target is of the slowest move."""
    moves = 3 if quick else 30
    cases = _run(kernels["uml-plain"], out / "moves", moves, "migrate")
    say("moves: the same with MPTCP and plain TCP")
    others = _run(kernels["uml-vanilla"], out / "moves-vanilla", moves, "mptcp", "plain")
    (out / "moves.json").write_text(json.dumps(cases + others))
    return [_row(case, others) for case in cases]
