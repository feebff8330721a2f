# SPDX-License-Identifier: GPL-2.0-or-later
"""Many relays at once, what they cost, and one that has much to carry."""

import pathlib
import subprocess
import sys
import time

import pytest

from crowd import Crowd
from relayed import GLOBAL
from tcplab.topology import wait_for

LINK = 1000     # segments that a link holds here, as those of real devices
PER_RELAY = 1024    # bytes, kernel and daemon together
SWEEP = 6       # seconds after which the proxy has cleared up
GIB = 1 << 30


def memory(proxy):
    """Bytes that a daemon has of its own (the ring of events is as large as it is), and those of its maps."""
    status = pathlib.Path(f"/proc/{proxy.child.pid}/status").read_text()
    rss = int(status.split("RssAnon:")[1].split()[0]) * 1024
    maps = {}
    for info in pathlib.Path(f"/proc/{proxy.child.pid}/fdinfo").iterdir():
        words = dict(line.split(":\t") for line in info.read_text().splitlines() if ":\t" in line)
        if "map_id" in words:
            maps[words["map_id"]] = int(words["memlock"])
    return rss, maps


def crowd_moves(relayed, count):
    """So many connections go inside; returns the memory before and after."""
    # Sized as it comes, but that a host may have them all.
    limits = f"relays_per_host = {count}\n"
    r = relayed(GLOBAL, last=20000 + 2 * count, limits=limits)
    for place in ("g1", "g2", "n1", "n2"):
        r.lab.set_link(place, limit=LINK)
    with Crowd(r.lab, count) as crowd:
        for client in r.clients.values():
            client.agreed(crowd.port)
            client.joined()
        before = memory(r.proxy)
        crowd.say(2000)
        r.lab.a.move("n1")
        r.lab.b.move("n2")
        began = time.monotonic()
        crowd.pump(timeout=120)
        took = time.monotonic() - began
        r.joined(count)
        crowd.exchange(500)
        time.sleep(SWEEP)
        after = memory(r.proxy)
    return before, after, took


def cost(before, after, count):
    """Bytes that a relay takes: of the daemon's memory, and of maps, which have all of theirs from the start."""
    most = 20_000
    daemon = (after[0] - before[0]) / count
    kernel = sum(size for size in after[1].values() if size > most * 64) / most
    print(f"a relay: daemon {daemon:.0f} B, kernel {kernel:.0f} B; {after[1]}")
    return daemon + kernel


def test_a_hundred_relays(relayed):
    """All go on."""
    before, after, took = crowd_moves(relayed, 100)
    cost(before, after, 100)
    assert took < 3


def test_a_thousand_relays(relayed):
    """All go on, and what a relay costs in the kernel and in the daemon."""
    before, after, took = crowd_moves(relayed, 1000)
    assert cost(before, after, 1000) < PER_RELAY
    assert took < 10


END = """
import hashlib, random, socket, sys
size, role, address = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if role == "send":
    sock = socket.create_connection((address, 7300))
    data = random.Random(1).randbytes(1 << 20)
    total = hashlib.sha256()
    for i in range(size >> 20):
        block = i.to_bytes(8, "big") + data[8:]
        total.update(block)
        sock.sendall(block)
    sock.shutdown(socket.SHUT_WR)
    print(total.hexdigest(), flush=True)
    sock.recv(1)
else:
    listener = socket.create_server(("", 7300))
    print("listening", flush=True)
    sock, _ = listener.accept()
    total = hashlib.sha256()
    got = 0
    while part := sock.recv(1 << 20):
        total.update(part)
        got += len(part)
    print(got, total.hexdigest(), flush=True)
"""


@pytest.mark.virtual
def test_a_gibibyte(relayed):
    """With 2 % loss on the ways of both ends, and moves in between: all of it arrives, as it was."""
    r = relayed(GLOBAL)
    for host, cap in r.lab.captures.items():
        if host != "s":
            cap.stop()
            cap.path.write_bytes(b"")
    listener = r.lab.b.popen([sys.executable, "-c", END, str(GIB), "receive", ""], stdout=subprocess.PIPE, text=True)
    assert listener.stdout.readline() == "listening\n"
    sender = r.lab.a.popen([sys.executable, "-c", END, str(GIB), "send", r.lab.b.v4], stdout=subprocess.PIPE, text=True)
    wait_for("a connection", lambda: r.lab.b.bytes(7300)[1] > 1 << 20)
    for client in r.clients.values():
        client.agreed(7300)
        client.joined()
    for place in ("n1", "n2", "n3"):
        r.lab.set_link(place, loss=2, delay=0, limit=LINK)
    r.lab.rtt = 0.002   # what 2 % of loss leave of a link at 50 ms is not much
    r.lab.a.move("n1")
    r.lab.b.move("n2")
    r.joined()
    wait_for("a third of it", lambda: r.lab.b.bytes(7300)[1] > GIB // 3, 36000, 1)
    r.lab.a.move("n3")
    wait_for("it to end", lambda: sender.poll() is not None or listener.poll() is not None, 36000, 1)
    assert listener.communicate()[0].split() == [str(GIB), sender.communicate()[0].strip()]
    assert r.proxy.relays()[0]["ends"][0]["bytes"] > GIB // 2
