#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long until the path is full: full.py KIND TRIES; KIND is one of stream.py.

On virtual time: a moved connection, from the command on, and a new one over
the same path, from connect() on. The path is full at the first moment from
which on the receiver's link carries 95 % of what it can for two round trips;
what is counted is payload as it arrives, repeated or not.

result.json: a list of objects: rtt (s), sends, moved and new (lists of s).
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from stream import Mover, Stream, moving_lab, new_path  # noqa: E402
from tcplab import capture  # noqa: E402
from tcplab.topology import Lab  # noqa: E402

RATE = 20e6
# Behind the NAPTs; B's own link is faster, so that no queue there, full of what was
# meant for the old place, is in the way of the new path. netem counts what is
# under way too: 20 Mbit/s for 100 ms are 165 segments.
NARROW = {"rate": "20mbit", "limit": 400}
WIDE = {"rate": "100mbit", "limit": 2000}
# Payload of what netem counts: 1448 of 1514 bytes.
FULL = 0.95 * RATE / 8 * 1448 / 1514


def full_since(segments: list[capture.Segment], begin: float, rtt: float) -> float | None:
    """Seconds from begin until the path is full."""
    window = max(2 * rtt, 0.04)
    came = [(s.time, s.length) for s in segments if s.length and not s.out]
    total, last = 0, 0
    for first, (when, length) in enumerate(came):
        while last < len(came) and came[last][0] <= when + window:
            total += came[last][1]
            last += 1
        if total >= FULL * window:
            return when - begin
        total -= came[first][1]
    return None


def enough(rtt: float) -> int:
    """Bytes after which the path must long have been full."""
    return int(RATE / 8 * (max(2 * rtt, 0.04) * 2 + 12 * rtt + 0.3))


def moved(lab: Lab, mover: Mover, kind: str, sends: str) -> float | None:
    """A connection that fills the path at N1 and is moved to N2."""
    with Stream(lab, kind, sends) as stream:
        stream.until(enough(lab.rtt))
        with new_path(lab, stream, pathlib.Path("/tmp/capture")) as segments:
            lab.a.move("n2")
            stream.until(stream.total + enough(lab.rtt))
        return full_since(segments[stream.receiver.name], mover.when, lab.rtt)


def new(lab: Lab, kind: str, sends: str) -> float | None:
    """A connection that is opened where A is now."""
    receiver = lab.b if sends == "mover" else lab.a
    cap = capture.Capture(receiver, pathlib.Path("/tmp/capture/new.pcap"))
    with Stream(lab, kind, sends) as stream:
        stream.until(enough(lab.rtt))
        segments = list(capture.read(cap.stop()))
        return full_since(segments, stream.began, lab.rtt)


@contextlib.contextmanager
def network(kind: str, rtt: float) -> Iterator[tuple[Lab, Mover]]:
    """The thesis' network with a bottleneck at A, wherever it is."""
    with moving_lab(kind, rtt, **WIDE) as (lab, mover):
        for place in ("n1", "n2"):
            lab.set_link(place, **NARROW)
        yield lab, mover


def series(kind: str, rtt: float, sends: str, tries: int) -> dict[str, Any]:
    """Both, so often, each in a fresh network: no metrics of an earlier one."""
    found: dict[str, list[float | None]] = {"moved": [], "new": []}
    for _ in range(tries):
        with network(kind, rtt) as (lab, mover):
            found["moved"].append(moved(lab, mover, kind, sends))
        with network(kind, rtt) as (lab, mover):
            lab.a.move("n2")
            found["new"].append(new(lab, kind, sends))
    print(kind, rtt, sends, found, flush=True)
    return {"rtt": rtt, "sends": sends, **found}


def main() -> None:
    kind, tries = sys.argv[1], int(sys.argv[2])
    result = [series(kind, rtt, sends, tries) for rtt in (0.05, 0.2) for sends in ("mover", "peer")]
    pathlib.Path("/lab/result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
