# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts whose daemons move their connections: what tests of the mobility exchange share."""

from typing import Any

from tcplab.daemons import SERVER_PORT, Client, Server
from tcplab.topology import Lab
from traffic import SIZE, Traffic

RTT = 0.05
# Where A and B are at first: both global, or A inside a NAPT.
GLOBAL, INSIDE = {"a": "g2", "b": "g1"}, {"a": "n1", "b": "g1"}


class Daemons:
    """A lab with so many servers on S, or with these, and clients on A and maybe B.

    vouching: this section is in the servers' configuration, and the clients take only hosts that they vouch for.
    """

    def __init__(self, lab: Lab, servers: int | list[Any], b: bool, vouching: str = "") -> None:
        self.lab = lab
        self.servers = servers if isinstance(servers, list) else [
            Server(lab.s, SERVER_PORT + 100 * i, vouching) for i in range(servers)]
        names = [server.identity() for server in self.servers]
        peers = f'require = "vouched"\nvouching_servers = {names}' if vouching else ""
        self.a = Client(lab.a, *self.servers, peers=peers)
        self.b = Client(lab.b, *self.servers, peers=peers) if b else None
        self.more: list[Client] = []    # of others

    @property
    def clients(self) -> list[Client]:
        return [c for c in (self.a, self.b) if c]

    def say(self) -> None:
        """Prints what all have said."""
        for one in (*(s for s in self.servers if isinstance(s, Server)), *self.clients, *self.more):
            print(f"== {one.host.name} {one.home.name}\n{one.said()}")


def ready(traffic: Traffic, d: Daemons) -> None:
    """Waits until both ends have agreed and joined the server, in the middle of the transfer."""
    traffic.until(SIZE // 8)
    for client in d.clients:
        client.agreed(traffic.port)
        client.joined()


def done(lab: Lab, traffic: Traffic) -> None:
    """The rest arrives, and nobody was reset."""
    traffic.resumed()
    traffic.finish()
    assert lab.resets(traffic.port) == []
