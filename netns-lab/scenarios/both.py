# SPDX-License-Identifier: GPL-2.0-or-later
"""A downloads from B and both move at once; nobody types a command.

A is behind NAPT N1 and goes behind N2, B is global and gets another address at the
same moment: neither can reach the other where it was. mobility-client runs on both,
mobility-server on S tells A what B's address has become. Leaves both.png, a.pcap,
b.pcap and timeline.txt.
"""

import pathlib

from tcplab.daemons import Client, Server, nobody
from tcplab.story import PORT, Timeline, download
from tcplab.topology import Lab, patched

RTT = 0.02


def run(out: pathlib.Path) -> None:
    assert patched(), "this kernel has no TCP migration: build one with make uml-plain"
    with Lab("fig22", rtt=RTT, migrator=nobody) as lab:
        line = Timeline()
        server = Server(lab.s)
        clients = [Client(host, server) for host in (lab.a, lab.b)]
        line.say(f"mobility-server runs on S, {lab.s.v4}; mobility-client on A and on B")

        def ready() -> None:
            for client in clients:
                client.agreed(PORT)
                client.joined()
            line.say("the daemons have agreed on a key for the connection, and have joined the server")

        def move() -> None:
            line.say("A leaves N1, and B its address")
            lab.a.move("n2")
            lab.b.move("g2" if lab.b.point.place == "g1" else "g1")
            line.say(f"A is behind N2 now, {lab.a.v4}, and B is {lab.b.v4}")
        download(lab, line, out, move, "both.png", f"A and B move at once during a download (RTT {RTT * 1000:.0f} ms)",
                 ready)
