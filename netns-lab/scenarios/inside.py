# SPDX-License-Identifier: GPL-2.0-or-later
"""A downloads from B and both go behind NAPTs at once, where neither reaches the other.

A is behind NAPT N1 and goes behind N2, B is global and goes behind N3. mobility-client runs on both,
mobility-server on S, sym-proxy on P: the server has the proxy relay the connection, and tells both.
Leaves inside.png, a.pcap, b.pcap and timeline.txt.
"""

import pathlib

from tcplab.daemons import Client, Proxy, Server, nobody
from tcplab.story import PORT, Timeline, download
from tcplab.topology import Lab, patched

RTT = 0.02


def run(out: pathlib.Path) -> None:
    assert patched(), "this kernel has no TCP migration: build one with make uml-plain"
    with Lab("relay", rtt=RTT, migrator=nobody) as lab:
        line = Timeline()
        proxy = Proxy(lab.hosts["p"])
        server = Server(lab.s, more=proxy.section())
        proxy.admit(server)
        clients = [Client(host, server) for host in (lab.a, lab.b)]
        line.say(f"sym-proxy runs on P, {lab.hosts['p'].v4}; mobility-server on S; mobility-client on A and on B")

        def ready() -> None:
            for client in clients:
                client.agreed(PORT)
                client.joined()
            line.say("the daemons have agreed on a key for the connection, and have joined the server")

        def move() -> None:
            line.say("A leaves N1, and B its address")
            lab.a.move("n2")
            lab.b.move("n3")
            line.say(f"A is behind N2 now, {lab.a.v4}, and B behind N3, {lab.b.v4}")
        download(lab, line, out, move, "inside.png",
                 f"A and B both go behind NAPTs during a download (RTT {RTT * 1000:.0f} ms)", ready)
        for relay in proxy.relays():
            line.say(f"P has relayed at {relay['at']}: " +
                     ", ".join(f"{end['bytes']} bytes from {end['seen']}" for end in relay["ends"]))
        proxy.forget()
