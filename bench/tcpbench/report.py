# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of results: judged, printed as a table, written as JSON (schema.json)."""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import platform
import textwrap
from typing import Any

HERE = pathlib.Path(__file__).resolve().parents[1]
VERSION = 1


@dataclasses.dataclass
class Target:
    """What is to be reached; half_width limits the interval's, if it is set."""

    op: str
    value: float
    half_width: float = 0

    def met(self, value: float) -> bool:
        # What is printed is what is judged: nothing fails by the sixth digit.
        rounded = round(value, 5)
        return rounded <= self.value if self.op == "<=" else rounded >= self.value

    def __str__(self) -> str:
        return f"{self.op} {self.value:g}" + (f" ±{self.half_width:g}" if self.half_width else "")


@dataclasses.dataclass
class Row:
    """One line. value is in unit; ratio is value to what it is compared with.

    The target is of `judged`: "value", "ratio", or "max" (the largest sample).
    verdict is made by judge():
    pass, miss, wide (good, but the interval is wider than it may be), info (no
    target) or failed (no value).
    """

    id: str
    what: str
    unit: str
    value: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    target: Target | None = None
    judged: str = "value"
    spread: dict[str, float] = dataclasses.field(default_factory=dict)
    compare: dict[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""
    samples: list[Any] = dataclasses.field(default_factory=list)
    verdict: str = ""

    def judge(self) -> "Row":
        """Fills in the verdict."""
        measured = {"ratio": self.ratio, "value": self.value, "max": self.spread.get("max")}[self.judged]
        if self.verdict:
            return self
        if measured is None:
            self.verdict = "failed"
        elif self.target is None:
            self.verdict = "info"
        elif not self.target.met(measured):
            self.verdict = "miss"
        elif self.target.half_width and self._half_width() > self.target.half_width:
            self.verdict = "wide"
        else:
            self.verdict = "pass"
        return self

    def _half_width(self) -> float:
        return (self.interval[1] - self.interval[0]) / 2 if self.interval else float("inf")


def spread(values: list[float]) -> dict[str, float]:
    """Smallest and largest of samples, and how many there were."""
    return {"min": min(values), "max": max(values), "n": len(values)} if values else {}


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.5g}"


def _spread(row: Row) -> str:
    if row.interval:
        digits = 4 if row.judged == "ratio" else 1
        return f"{row.interval[0]:.{digits}f} .. {row.interval[1]:.{digits}f}"
    if row.spread:
        return f"{_number(row.spread['min'])} .. {_number(row.spread['max'])}"
    return ""


def table(rows: list[Row]) -> str:
    """The rows for people; comparisons and notes follow each."""
    width = max(len(r.what) for r in rows)
    lines = [f"{'':{width}} {'value':>12} {'':9} {'ratio':>8}  {'spread or 95 % interval':24} {'target':14} verdict"]
    for r in rows:
        ratio = f"{r.ratio:.4f}" if r.ratio is not None else ""
        lines.append(f"{r.what:{width}} {_number(r.value):>12} {r.unit:9} {ratio:>8}  {_spread(r):24} "
                     f"{str(r.target or ''):14} {r.verdict}")
        said = [f"{k}: {_number(v) if isinstance(v, int | float) else v}" for k, v in r.compare.items()]
        if said:
            lines.append(f"    compare: {'; '.join(said)}")
        lines += textwrap.wrap(r.note, 116, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def machine_facts() -> dict[str, Any]:
    """On what it was measured."""
    cpu = [ln.split(":")[1].strip() for ln in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
           if ln.startswith("model name")]
    return {"cpu": cpu[0] if cpu else platform.machine(), "cpus": os.cpu_count(),
            "kernel": platform.release(), "load": os.getloadavg()[0]}


def sha256(path: pathlib.Path) -> str:
    """Names a kernel beyond doubt."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(rows: list[Row], kernels: dict[str, pathlib.Path], path: pathlib.Path) -> None:
    """Writes the JSON, after holding it against the schema."""
    import jsonschema
    result = {
        "schema": VERSION,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "kernels": {name: {"path": str(p), "sha256": sha256(p)} for name, p in kernels.items()},
        "rows": [_plain(r) for r in rows],
    }
    # Tuples become lists, as the schema and every reader want them.
    result = json.loads(json.dumps(result))
    jsonschema.validate(result, json.loads((HERE / "schema.json").read_text()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def _plain(row: Row) -> dict[str, Any]:
    always = ("id", "what", "unit", "judged", "verdict")
    return {k: v for k, v in dataclasses.asdict(row).items() if k in always or v not in (None, "", [], {})}
