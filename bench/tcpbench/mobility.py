# SPDX-License-Identifier: GPL-2.0-or-later
"""How long until data go on by the daemons alone, on virtual time: inside/mobility.py."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from . import stats
from .machine import boot, run_inside
from .report import Row, Target, spread

WORDS = {"mover": "A sends", "peer": "A receives"}
CASES = {"one": "A moves", "peer-inside": "B moves, A inside", "both": "both move",
         "both-one-inside": "both move, A inside", "inside": "both go inside"}
OTHERS = {"mptcp": "MPTCP (ms)", "mptcpd": "MPTCP, mptcpd (ms)", "wireguard": "WireGuard with a hub (ms)"}


def limit_ms(case: dict[str, Any]) -> float:
    """Round trips and what may come on top: the peer can be reached at once, or has to be told."""
    rtt = case["rtt"] * 1000
    if case["case"] == "inside":
        return 6 * rtt + 20
    if case["case"] != "one":
        return 5 * rtt + 20
    return (1.5 if case["sends"] == "mover" else 2) * rtt + 5


def _run(kernel: pathlib.Path, out: pathlib.Path, moves: int, *kinds: str) -> list[dict[str, Any]]:
    opts = boot.Options(kernel=str(kernel), virtual=True, budget=3600, mem="1500M")
    return run_inside("mobility.py", [str(moves), *kinds], out, opts)


def _ms(case: dict[str, Any]) -> list[float]:
    return [s * 1000 for s in case["resumed"] if s is not None]


def _row(case: dict[str, Any], others: list[dict[str, Any]]) -> Row:
    rtt = case["rtt"] * 1000
    got = _ms(case)
    row = Row(f"mobility.{case['case']}-{'sending' if case['sends'] == 'mover' else 'receiving'}-{rtt:.0f}",
              f"daemons, {CASES[case['case']]}, {WORDS[case['sends']]}, RTT {rtt:.0f} ms", "ms",
              target=Target("<=", limit_ms(case)), judged="max", samples=case["resumed"])
    for other in others:
        if all(other[key] == case[key] for key in ("case", "rtt", "sends")):
            ms = _ms(other)
            row.compare[OTHERS[other["kind"]]] = (
                f"median {stats.median(ms):.1f}, {min(ms):.1f} .. {max(ms):.1f}" if ms else "never goes on")
    if len(got) < len(case["resumed"]):
        row.verdict = "miss"
        row.note = f"{len(case['resumed']) - len(got)} of {len(case['resumed'])} never went on"
    if got:
        row.value, row.spread, row.interval = stats.median(got), spread(got), None
        if rtt:
            row.compare["in RTTs"] = f"{min(got) / rtt:.3f}, median {row.value / rtt:.3f}, {max(got) / rtt:.3f}"
    return row


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows mobility.*: from the new address to the first new byte; the target is of the slowest move."""
    moves = 3 if quick else 30
    cases = _run(kernels["uml-plain"], out / "mobility", moves, "daemons")
    say("mobility: the same with MPTCP and WireGuard")
    others = _run(kernels["uml-vanilla"], out / "mobility-vanilla", 3 if quick else 10, *OTHERS)
    (out / "mobility.json").write_text(json.dumps(cases + others))
    return [_row(case, others) for case in cases]
