#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long after the command the data go on: moves.py MOVES KIND...

A is taken from behind one NAPT to behind another in the middle of a transfer;
the old attachment is gone when the command is given. On virtual time, so that
only the network takes time. Measured is from the command until the receiving
program has a byte that came over the new path: the first time it gets
something once data have come there. Each move is of a new connection, at
another point of its life.

result.json: a list of objects: kind, rtt (s), sends, traffic, resumed (list of s, or
null if nothing came), error (s after the command at which the sender's program
was told, or null). pcap/ has the captures of the moves that took long.
"""

import json
import pathlib
import shutil
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from stream import Mover, Stream, moving_lab, new_path  # noqa: E402
from tcplab import capture  # noqa: E402
from tcplab.topology import Lab, Timeout, wait_for  # noqa: E402

OUT = pathlib.Path("/lab")
# Bytes before the move, and by how much they grow from move to move, by RTT:
# the pipe is full by then, and the moves fall on different moments.
BEFORE = {"bulk": {0.0: (1 << 20, 37_000), 0.05: (3 << 20, 101_000), 0.2: (9 << 20, 211_000)},
          "paced": {0.0: (200_000, 1_700), 0.05: (400_000, 3_700), 0.2: (800_000, 7_300)}}
RTTS = tuple(BEFORE["bulk"])
# Longer than TCP itself tries (tcp_retries2 is 15: 924 s and more).
GIVE_UP = 1000.0


def first_new(stream: Stream, segments: list[capture.Segment]) -> float | None:
    """When the program got something, data having come over the new path."""
    came = [s.time for s in segments if s.length and not s.out]
    if not came:
        return None
    # The capture's clock has microseconds.
    return next((when for when, _ in stream.log if when >= came[0] - 2e-6), None)


def wait_resumed(stream: Stream, mover: Mover, rtt: float, patience: float) -> None:
    """Waits for bytes after what was on its way when the command was given."""
    wait_for("what was under way", lambda: time.time() > mover.when + rtt * 0.75 + 0.03, 10, 0.001)
    before = stream.total

    def done() -> bool:
        # More than one segment: the captures shall show how it goes on.
        return stream.total > before + 20_000 or bool(stream.error)
    try:
        wait_for("new bytes", done, 5, 0.002)
    except Timeout:
        wait_for("new bytes after all", done, patience, 0.5)


def one_move(lab: Lab, mover: Mover, kind: str, sends: str, traffic: str, number: int
             ) -> dict[str, Any]:
    """A connection, a move in its middle, and what came of it."""
    base, step = BEFORE[traffic][lab.rtt]
    where = pathlib.Path("/tmp/capture")
    with Stream(lab, kind, sends, traffic) as stream:
        stream.until(base + number * step)
        with new_path(lab, stream, where) as segments:
            lab.a.move("n2" if lab.a.point.place == "n1" else "n1")
            try:
                wait_resumed(stream, mover, lab.rtt, GIVE_UP)
            except Timeout:
                pass
        when = first_new(stream, segments[stream.receiver.name])
        error = stream.error[0] - mover.when if stream.error else None
        resumed = when - mover.when if when else None
    keep(where, f"{kind}-{traffic}-{lab.rtt * 1000:.0f}-{sends}-{number}",
         slow=resumed is None or resumed > lab.rtt * 2 + 0.003)
    return {"resumed": resumed, "error": error}


def keep(where: pathlib.Path, name: str, slow: bool) -> None:
    """Leaves the captures of slow moves, ten at most."""
    target = OUT / "pcap"
    target.mkdir(exist_ok=True)
    if slow and len(list(target.glob("*-a.pcap"))) < 20:
        for host in ("a", "b"):
            shutil.copy(where / f"{host}.pcap", target / f"{name}-{host}.pcap")


def series(kind: str, traffic: str, rtt: float, sends: str, moves: int) -> dict[str, Any]:
    """So many moves of one case."""
    with moving_lab(kind, rtt, fair=True) as (lab, mover):
        found = [one_move(lab, mover, kind, sends, traffic, n) for n in range(moves)]
    print(f"{kind} {traffic} {rtt} {sends}", flush=True)
    errors = [f["error"] for f in found if f["error"] is not None]
    return {"kind": kind, "rtt": rtt, "sends": sends, "traffic": traffic, "resumed": [f["resumed"] for f in found],
            "error": errors[0] if errors else None}


def main() -> None:
    moves = int(sys.argv[1])
    result = []
    for kind in sys.argv[2:]:
        for traffic in ("paced", "bulk"):
            # One shows the end of plain TCP.
            count = 1 if kind == "plain" else moves
            result += [series(kind, traffic, rtt, sends, count) for rtt in RTTS for sends in ("mover", "peer")]
    (OUT / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
