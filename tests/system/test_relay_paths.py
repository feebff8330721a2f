# SPDX-License-Identifier: GPL-2.0-or-later
"""What the way through a proxy does to segments: narrow links, fragments, congestion marks, urgent data."""

import select
import socket
import time

import pytest

from relayed import GLOBAL
from tcplab import capture
from tcplab.topology import wait_for
from traffic import SIZE, Both
from wire import Pair

NARROW = {"a": 1400, "b": 1300}     # what the router's links to A's and to B's NAPT carry
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])


def outer(lab, box, v6):
    """A NAPT's address outside."""
    line = lab.box(box).run(f"ip -o {'-6' if v6 else '-4'} addr show dev to-{box} scope global").stdout
    return line.split()[3].split("/")[0]


def narrow(node, where, mtu, via, v6=False):
    """A node's way to an address carries so much from now on, whatever the link says."""
    node.ip(f"route replace {where} {via} mtu lock {mtu}", version="-6" if v6 else "-4")


def narrow_at_p(r, box, mtu, v6=False):
    """The proxy's own way to a NAPT; the kernel tells BPF of routes only where it forwards."""
    r.lab.p.sysctl("net.ipv6.conf.all.forwarding" if v6 else "net.ipv4.ip_forward", 1)
    r.lab.segment(box)
    seg, point = r.lab.segment(r.lab.p.point.place), r.lab.p.point
    narrow(r.lab.p, outer(r.lab, box, v6), mtu,
           f"via {seg.gw6 if v6 else seg.gw4} dev {point.dev} table {point.table}", v6)


def narrow_outside(lab, v6):
    """The router's ways to both NAPTs are narrow: it says so to the proxy."""
    for name, box in (("a", "n1"), ("b", "n2")):
        lab.segment(box)
        narrow(lab.net, outer(lab, box, v6), NARROW[name], "dev core", v6)


def longest(lab, name, v6, since):
    """The longest packet with data that a host has got since, without its link's header."""
    head = 40 if v6 else 20
    return max(head + 32 + s.length for s in capture.read(lab.captures[name].path) if not s.out and s.time > since)


@FAMILIES
def test_narrow_behind_the_proxy(relayed, v6):
    """"Too big" about what the proxy has sent on goes to who had sent it, in both directions."""
    r = relayed(GLOBAL, v6=v6)
    narrow_outside(r.lab, v6)
    traffic = Both(r.lab, v6=v6, size=2 * SIZE)
    r.go_inside(traffic)
    wait_for("both ends to be told", lambda: r.proxy.metric("icmp_total") >= 2, 10, 0.02)
    time.sleep(0.1)
    since = time.time()
    traffic.resumed()
    r.done(traffic)
    for name, mtu in NARROW.items():
        assert mtu - 12 <= longest(r.lab, name, v6, since) <= mtu
    assert r.proxy.metric("icmp_alien_total") == 0


@FAMILIES
def test_narrow_at_the_proxy(relayed, v6):
    """The proxy's own way to A is narrow: it says so to B."""
    r = relayed(GLOBAL, v6=v6)
    narrow_at_p(r, "n1", NARROW["a"], v6)
    traffic = Both(r.lab, v6=v6, size=2 * SIZE)
    r.go_inside(traffic)
    wait_for("B to be told", lambda: r.proxy.metric("too_big_total") >= 1, 10, 0.02)
    time.sleep(0.1)
    since = time.time()
    traffic.resumed()
    r.done(traffic)
    assert NARROW["a"] - 12 <= longest(r.lab, "a", v6, since) <= NARROW["a"]
    assert longest(r.lab, "b", v6, since) > NARROW["a"]


@pytest.mark.parametrize("at", ["net", "p"])
def test_fragments(relayed, at):
    """Ends that do not look for a path's MTU: their segments come in fragments, and leave so. at: who has to."""
    r = relayed(GLOBAL)
    for host in (r.lab.a, r.lab.b):
        host.sysctl("net.ipv4.ip_no_pmtu_disc", 1)
    # So slowly that daemons are heard beside it, and that it lasts.
    r.lab.set_link("g1", rate="10mbit", limit=1000)
    r.lab.set_link("g2", rate="20mbit", limit=1000)
    traffic = Both(r.lab, size=SIZE)
    for box in ("n1", "n2"):
        r.lab.segment(box)
        narrow(r.lab.box(box), r.lab.p.v4, NARROW["b"], f"via {r.lab.segment('core').gw4} dev to-{box}")
    if at == "net":
        narrow_outside(r.lab, False)
    else:
        for box in ("n1", "n2"):
            narrow_at_p(r, box, NARROW["b"])
    r.go_inside(traffic)
    r.done(traffic)
    assert r.proxy.metric("mended_total") > 1000
    assert not [s for s in capture.read(r.lab.captures["p"].path) if s.out and s.flags & capture.RST]


def test_congestion_marks(relayed):
    """ECN is agreed on before, and marks made before and behind the proxy arrive."""
    r = relayed(GLOBAL)
    for host in (r.lab.a, r.lab.b):
        host.sysctl("net.ipv4.tcp_ecn", 1)
    traffic = Both(r.lab, size=2 * SIZE)
    r.go_inside(traffic)
    rules = {"from-a": "iifname core ip saddr {0}", "to-a": "oifname core ip daddr {0}"}
    r.lab.net.run(["nft", "-f", "-"], input="table ip marks { chain c { type filter hook forward priority 0;" + "".join(
        f"{rule.format(outer(r.lab, 'n1', False))} ip ecn != 0 tcp checksum & 0x7f == 0 counter ip ecn set ce;"
        for rule in rules.values()) + "}; }\n")
    r.done(traffic)
    counts = {name: host.run("nstat -asz TcpExtTCPDeliveredCE IpExtInCEPkts").stdout
              for name, host in (("a", r.lab.a), ("b", r.lab.b))}
    for name, said in counts.items():
        words = said.split()
        assert int(words[words.index("IpExtInCEPkts") + 1]) > 5, f"{name}: {said}"
        assert int(words[words.index("TcpExtTCPDeliveredCE") + 1]) > 5, f"{name}: {said}"


@FAMILIES
def test_urgent_byte(relayed, v6):
    """Announced, and between what was before and after it, both ways."""
    r = relayed(GLOBAL, v6=v6)
    with Pair(r.lab, a="6" if v6 else "4") as pair:
        for client in r.clients.values():
            client.agreed(pair.port)
            client.joined()
        r.lab.a.move("n1")
        r.lab.b.move("n2")
        pair.talk()
        r.joined()
        for out, into in ((pair.a, pair.b), (pair.b, pair.a)):
            out.sendall(b"before" * 100)
            out.send(b"U", socket.MSG_OOB)
            out.sendall(b"after")
            poll = select.poll()
            poll.register(into, select.POLLPRI)
            assert poll.poll(10_000), "no urgent data"
            pair.hear(into, b"before" * 100)
            assert into.recv(1, socket.MSG_OOB) == b"U"
            pair.hear(into, b"after")
        pair.talk()
