# SPDX-License-Identifier: GPL-2.0-or-later
"""10,000 connections moved by one command: inside/mass.py, in real time."""

import pathlib
from collections.abc import Callable
from typing import Any

from . import stats
from .machine import boot, run_inside
from .report import Row, Target, spread

MANY = 10_000


def _each(cost: list[dict[str, Any]], key: str, count: int) -> list[float]:
    """Microseconds of each connection, of all moves of so many."""
    return [c[key] / c["count"] / 1000 for c in cost if c["count"] == count and key in c]


def _cost_row(cost: list[dict[str, Any]], count: int, where: str) -> Row:
    command, call = _each(cost, "command_ns", count), _each(cost, "call_ns", count)
    return Row(f"crowd.cost-{where}", f"{count:,} moved, on {where.upper()}: each", "us", value=stats.median(command),
               spread=spread(command), interval=stats.interval_of_median(command), target=Target("<=", 50),
               samples=cost,
               compare={"netlink call alone": stats.median(call),
                        "user and system time": stats.median(_each(cost, "cpu_ns", count))},
               note="from the start of migrate-ctl to its end, when the last request has been handed to the "
                    "device; nothing else ran on that processor")


def _linear_row(cost: list[dict[str, Any]], count: int, where: str) -> Row:
    few, many = _each(cost, "call_ns", count // 10), _each(cost, "call_ns", count)
    row = Row(f"crowd.linear-{where}", f"{count:,} to {count // 10:,} moved, on {where.upper()}: each", "us",
              value=stats.median(many),
              ratio=stats.median(many) / stats.median(few), target=Target("<=", 2), judged="ratio",
              compare={"of a tenth": stats.median(few)})
    row.note = ("the netlink call alone: migrate-ctl itself takes as long for one connection as for many; ten times "
                "as many sockets do not fit into the caches")
    if len(few) == len(many) > 1:
        row.interval = stats.median_ratio([list(zip(many, few, strict=True))])[1]
    return row


def _all_row(found: dict[str, Any], rate: str) -> Row:
    row = Row(f"crowd.resumed-{rate}", f"{found['count']:,} moved, {rate} Mbit/s: go on", "",
              value=found["resumed"], target=Target(">=", found["count"]), samples=[found],
              compare={"committed": found["committed"], "requests": found["sent"],
                       "sent again": found["repeated"], "received by the peer": found["received"],
                       "segments of any kind that the own queue dropped": found["dropped"]},
              note="requests are sent again when the one processor, which plays all hosts, takes too long")
    if found["committed"] != found["count"] or found["received"] < found["sent"]:
        row.verdict = "miss"
        row.note = "requests were lost" if found["received"] < found["sent"] else "some have not committed"
    return row


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows crowd.*"""
    count = MANY // 5 if quick else MANY
    say(f"crowd: {count:,} connections on UML")
    opts = boot.Options(kernel=str(kernels["uml-plain"]), virtual=False, budget=900, mem="2G")
    uml = run_inside("mass.py", [str(count), "2" if quick else "7"], out / "crowd-uml", opts)
    return [_all_row(uml["fast"], "100"), _all_row(uml["slow"], "10"),
            _cost_row(uml["cost"], count, "uml"), _linear_row(uml["cost"], count, "uml")]
