# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that may both be inside NAPTs: daemons, and symmetric proxies on hosts of their own."""

from collections.abc import Callable
from typing import Any

from tcplab.daemons import Client, Proxy, Server, nobody
from tcplab.topology import Host, wait_for
from traffic import SIZE, Traffic

RTT = 0.05
GLOBAL = {"a": "g2", "b": "g1"}
TOPOLOGIES = {(False, 1): "relay", (True, 1): "relay6", (False, 2): "relay2"}


class Relayed:
    """A lab with one or two proxies and all daemons; A and B begin where `at` says.

    v6: NAPTs translate IPv6 too. crossing: the ends may leave a relay that they could do without; what is
    about relays needs one that stays. settings: of the first proxy, by section; the second has none.
    """

    def __init__(self, make_lab: Callable[..., Any], at: dict[str, str], v6: bool = False, proxies: int = 1,
                 crossing: bool = False, **settings: Any) -> None:
        self.lab = make_lab(TOPOLOGIES[v6, proxies], rtt=RTT, at=at, migrator=nobody)
        hosts: list[Host] = [self.lab.hosts[name] for name in "pq"[:proxies]]
        for host in hosts:
            host.sysctl("net.tcp_migrate.enabled", 0)   # as on a kernel without the extension
        self.proxies = [Proxy(host, **(settings if host is hosts[0] else {})) for host in hosts]
        self.proxy = self.proxies[0]
        self.server = Server(self.lab.s, more="".join(proxy.section() for proxy in self.proxies) +
                             f"[relays]\ncrossing = {str(crossing).lower()}\n")
        for proxy in self.proxies:
            proxy.admit(self.server)
        self.clients = {name: Client(self.lab.hosts[name], self.server) for name in "ab"}

    @property
    def said(self) -> list[Any]:
        """All daemons."""
        return [*self.proxies, self.server, *self.clients.values()]

    def close(self) -> None:
        """Says what all daemons have said, and takes away what they leave in the kernel."""
        for daemon in self.said:
            print(f"== {daemon.host.name} {daemon.name}\n{daemon.said()}")
        for proxy in self.proxies:
            proxy.forget()

    def ready(self, traffic: Traffic) -> None:
        """Waits until the ends have agreed, and are known to the server."""
        traffic.until(SIZE // 8)
        self.ready_for(traffic.port)

    def ready_for(self, port: int) -> None:
        """The same of connections with this port."""
        for client in self.clients.values():
            client.agreed(port)
            client.joined()

    def joined(self, count: int = 1, proxy: Proxy | None = None) -> None:
        """Waits until a proxy has joined so many connections."""
        at = proxy or self.proxy
        wait_for(f"{count} joined relays", lambda: sum(r["joined"] for r in at.relays()) == count, 60, 0.02)

    def go_inside(self, traffic: Traffic, a: str = "n1", b: str = "n2") -> None:
        """Both, at once; waits until the connection has gone on, by a relay."""
        self.ready(traffic)
        self.lab.a.move(a)
        self.lab.b.move(b)
        traffic.resumed()
        wait_for("a joined relay", lambda: any(r["joined"] for p in self.proxies for r in p.relays()), 60, 0.02)

    def done(self, traffic: Traffic) -> None:
        """All data there, and no reset of theirs."""
        traffic.resumed()
        traffic.finish()
        assert self.lab.resets(traffic.port) == []
