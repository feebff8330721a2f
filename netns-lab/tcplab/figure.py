# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the thesis' figure 23: sequence and ACK numbers over time.

From a capture at the host that moved: what it received, and what it
acknowledged, with the segments that carry the migration marked. The upper
panel shows all of the transfer, the lower one the time around the move.
"""

import os
import pathlib
from typing import Any

from . import capture

os.environ.setdefault("MPLCONFIGDIR", "/tmp/matplotlib")
MASK = 0xFFFFFFFF


def _series(segs: list[capture.Segment], port: int, began: float) -> dict[str, list[tuple[float, float]]]:
    """Points in MiB since the beginning, by what they are."""
    base = next(s.seq for s in segs if not s.out and s.flags & capture.SYN) + 1
    out: dict[str, list[tuple[float, float]]] = {"received": [], "acknowledged": [], "migration": []}
    for seg in segs:
        number = seg.seq + seg.length if not seg.out else seg.ack
        value = ((number - base) & MASK) / (1 << 20)
        point = (seg.time - began, value)
        # An MSYN has no ACK number yet; what it shows is when.
        if set(seg.migrate) & {"MREQ", "MANS", "CONFIRM"} and seg.flags & (capture.SYN | capture.ACK):
            if not seg.flags & capture.ACK:
                point = (point[0], out["acknowledged"][-1][1] if out["acknowledged"] else 0)
            out["migration"].append(point)
        elif not seg.out and seg.length:
            out["received"].append(point)
        elif seg.out and seg.flags & capture.ACK:
            out["acknowledged"].append(point)
    return out


def moves(segs: list[capture.Segment]) -> list[float]:
    """When the first Migrate-Request of each move was sent."""
    out: list[float] = []
    for seg in segs:
        if "MREQ" in seg.migrate and seg.out and (not out or seg.time - out[-1] > 1):
            out.append(seg.time)
    return out


def _panel(axes: Any, series: dict[str, list[tuple[float, float]]], when: list[float]) -> None:
    styles = {"received": dict(marker=".", ms=3, ls="", color="tab:blue", label="sequence numbers received"),
              "acknowledged": dict(ls="-", drawstyle="steps-post", lw=1, color="tab:orange",
                                   label="ACK numbers sent"),
              "migration": dict(marker="D", ms=5, ls="", color="tab:red", label="segments of the migration")}
    for name, style in styles.items():
        if series[name]:
            axes.plot(*zip(*series[name], strict=True), **style)
    for t in when:
        axes.axvline(t, color="black", lw=1, ls="--", label="the move" if t == when[0] else None)
    axes.set_xlabel("seconds")
    axes.set_ylabel("MiB")
    axes.grid(alpha=0.3)


def draw(path: pathlib.Path, port: int, picture: pathlib.Path, title: str) -> None:
    """Draws the picture of the transfer from port in a capture."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The peer's port may become a proxy's; the own one stays.
    every = list(capture.read(path))
    own = next(s.dport if s.sport == port else s.sport for s in every if port in (s.sport, s.dport))
    segs = [s for s in every if own == (s.sport if s.out else s.dport)]
    began = segs[0].time
    series = _series(segs, port, began)
    when = [t - began for t in moves(segs)]
    figure, panels = pyplot.subplots(2 if when else 1, 1, figsize=(9, 9), squeeze=False)
    for axes in panels[:, 0]:
        _panel(axes, series, when)
    panels[0, 0].set_title(title)
    panels[0, 0].legend(loc="upper left")
    if when:
        zoom = panels[1, 0]
        left, right = when[0] - 0.1, when[0] + 0.25
        near = [v for name in series for t, v in series[name] if left <= t <= right]
        zoom.set_xlim(left, right)
        if near:
            zoom.set_ylim(min(near) - 0.1, max(near) + 0.1)
        zoom.set_title("around the move")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
