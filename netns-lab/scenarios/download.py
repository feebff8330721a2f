# SPDX-License-Identifier: GPL-2.0-or-later
"""The thesis' experiment (chapter 4): A downloads from B and moves meanwhile.

A is behind NAPT N1 and fetches a file from nginx on B with curl. In the middle
it goes behind N2. The transfer has to go on, and the file has to be right.
Leaves fig23.png, a.pcap, b.pcap and timeline.txt.
"""

import pathlib

from tcplab.story import Timeline, download
from tcplab.topology import Lab, patched

RTT = 0.02


def run(out: pathlib.Path) -> None:
    assert patched(), "this kernel has no TCP migration: build one with make uml-plain"
    with Lab("fig22", rtt=RTT) as lab:
        line = Timeline()

        def move() -> None:
            line.say("A leaves N1")
            lab.a.move("n2")
            line.say(f"A is behind N2 now, {lab.a.v4}")
        download(lab, line, out, move, "fig23.png",
                 f"A moves from behind N1 to behind N2 during a download (RTT {RTT * 1000:.0f} ms)")
