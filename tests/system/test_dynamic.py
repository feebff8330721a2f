# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses as they really come and go: by DHCP and router advertisements, of dnsmasq and dhcpcd.

The daemons alone move connections. A leaves its network of the lab, and has
interfaces whose addresses, routes and metrics are for the DHCP client to make.
"""

import ipaddress
import time

import pytest

from tcplab import programs
from tcplab.daemons import Client, Server, nobody
from tcplab.topology import wait_for
from traffic import SIZE, Both, Download, Idle, Psql, Upload

RTT = 0.05

pytestmark = pytest.mark.virtual


class Desktop:
    """A host A whose network is made by DHCP, B at a global place, the daemons on both."""

    def __init__(self, lab):
        self.lab = lab
        lab.a.detach()
        lab.a.run("ip link set lo up; rm -rf /var/lib/dhcpcd/*")
        for name in ("n1", "n2", "n4", "g2"):
            programs.dnsmasq(lab.segment(name))
        self.dhcp = programs.dhcpcd(lab.a)
        server = Server(lab.s)
        self.said = [server, Client(lab.a, server), Client(lab.b, server)]

    @property
    def client(self):
        return self.said[1]

    def addresses(self, family="inet"):
        """Global ones of A, that are not on their way out."""
        words = self.lab.a.run(f"ip -o -f {family} addr show scope global -deprecated -tentative").stdout.split()
        return [word.split("/")[0] for before, word in zip(words, words[1:]) if before == family]

    def at(self, network, family="inet"):
        """Waits until A has an address of this network."""
        net = ipaddress.ip_network(network)
        wait_for(f"A to have an address of {network}",
                 lambda: any(ipaddress.ip_address(a) in net for a in self.addresses(family)), 120, 0.05)

    def plug(self, place):
        """A new interface, with an address."""
        point = self.lab.a.plug(place)
        self.at(self.lab.segment(place).net4)
        return point


@pytest.fixture
def desktop(make_lab):
    """A Desktop; a test that fails shows what its daemons have said."""
    made = []

    def make():
        lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"}, migrator=nobody)
        # Getting an address takes seconds: so shall the transfers.
        lab.set_link("g1", rate="4mbit")
        made.append(Desktop(lab))
        return made[-1]
    yield make
    for d in made:
        for one in d.said:
            print(f"== {one.host.name} {one.name}\n{one.said()}")
        print((programs.home(d.lab.a, "dhcpcd") / "log").read_text())


def there(lab, port, network):
    """Waits until A's connection is at an address of this network."""
    net = ipaddress.ip_network(network)
    wait_for(f"the connection to be in {network}",
             lambda: ipaddress.ip_address(lab.a.connection(port)["local-addr"]) in net
             and lab.a.connection(port)["state"] == "idle", 60, 0.02)


def test_cable_wifi_hotspot_and_back(desktop):
    """One interface after the other; an ssh session, a download and a psql session are open all the time."""
    d = desktop()
    lab = d.lab
    cable = d.plug("n1")
    session, download, psql = Idle(lab), Download(lab, size=6 * SIZE), Psql(lab, size=6 * SIZE)
    everything = (session, download, psql)
    for traffic in (session, download, psql):
        traffic.until(SIZE // 8)
    wifi = d.plug("n2")
    lab.a.unplug(cable)
    for traffic in everything:
        there(lab, traffic.port, lab.segment("n2").net4)
        traffic.resumed()
    lab.a.unplug(wifi)
    time.sleep(20)
    hotspot = d.plug("n4")
    for traffic in everything:
        there(lab, traffic.port, lab.segment("n4").net4)
        traffic.resumed()
    cable = lab.a.plug("n1")
    d.at(lab.segment("n1").net4)
    lab.a.unplug(hotspot)
    for traffic in everything:
        there(lab, traffic.port, lab.segment("n1").net4)
        traffic.resumed()
    for traffic in everything:
        traffic.finish(300)
        assert lab.resets(traffic.port) == []


@pytest.mark.parametrize("kind", [Download, Upload, Idle])
def test_cable_is_pulled(desktop, kind):
    """Two interfaces at once, the cable preferred; then it is pulled, and put in again."""
    d = desktop()
    lab = d.lab
    cable, _ = d.plug("n1"), d.plug("n2")
    traffic = kind(lab, size=6 * SIZE)
    traffic.until(SIZE // 8)
    there(lab, traffic.port, lab.segment("n1").net4)
    lab.a.carrier(cable, False)
    there(lab, traffic.port, lab.segment("n2").net4)
    traffic.resumed()
    lab.a.carrier(cable, True)
    there(lab, traffic.port, lab.segment("n1").net4)
    traffic.resumed()
    traffic.finish()
    assert lab.resets(traffic.port) == []


def test_lease_is_renewed(desktop):
    """The same address again, many times: nobody moves."""
    d = desktop()
    lab = d.lab
    d.plug("n1")
    traffic = Idle(lab)
    time.sleep(1000)
    traffic.finish()
    assert d.client.count("moves_done") == 0


def test_dhcp_renumbers(desktop):
    """The network gets other addresses: the lease is refused when it is to be renewed, and another given."""
    d = desktop()
    lab, seg = d.lab, d.lab.segment("n1")
    other = ipaddress.ip_network("192.168.77.0/24")
    d.plug("n1")
    traffic = Both(lab, size=6 * SIZE)
    traffic.until(SIZE // 8)
    idle = Idle(lab)
    seg.box.ip(f"addr add {other[-2]}/24 dev {seg.name}")
    for child in lab.children:
        if child.args[0] == "dnsmasq" and seg.name in child.args:
            programs.ended(child)
    programs.dnsmasq(seg, v4=other)
    d.at(other)
    there(lab, idle.port, other)
    idle.finish()
    traffic.finish()


@pytest.mark.parametrize("who", ["kernel", "dhcpcd"])
def test_router_advertises_another_prefix(desktop, who):
    """IPv6: a new prefix comes, the old one is deprecated and goes when it is no longer valid."""
    d = desktop()
    lab, seg = d.lab, d.lab.segment("g2")
    first, other = seg.net6, ipaddress.ip_network("2001:db8:a9::/64")
    if who == "kernel":
        programs.ended(d.dhcp)
    point = lab.a.plug("g2")
    if who == "kernel":
        lab.a.sysctl(f"net.ipv6.conf.{point.dev}.accept_ra", 1)
        lab.a.ip(f"link set {point.dev} down", f"link set {point.dev} up")
    d.at(first, "inet6")
    traffic = Idle(lab, v6=True)
    there(lab, traffic.port, first)
    seg.box.ip(f"addr add {other[0xFFFE]}/64 dev {seg.name} nodad")
    for child in lab.children:
        if child.args[0] == "dnsmasq" and seg.name in child.args:
            programs.ended(child)
    programs.dnsmasq(seg, v6=other)
    d.at(other, "inet6")
    wait_for("the old prefix to go", lambda: not any(
        ipaddress.ip_address(a) in first for a in lab.a.run(
            "ip -o -6 addr show scope global").stdout.replace("/", " ").split() if a.startswith("2001:")), 1000, 0.5)
    there(lab, traffic.port, other)
    traffic.finish()
    assert lab.resets(traffic.port) == []
