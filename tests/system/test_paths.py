# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers and boxes that do not take part: everything behaves as plain TCP would.

Both ends believe that a connection can migrate, or neither does.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import socket
import struct
import sys
import termios
import threading
import time

import pytest

from tcplab import programs
from tcplab.topology import wait_for
from test_moves import carry_on, settled
from traffic import SIZE, Download, Idle, Upload
from wire import Losing, Pair


def believes(host, port):
    """Whether a host takes its connection with this port for migratable."""
    return any(port in (c["local-port"], c["remote-port"]) and c["state"] != "none"
               for c in host.connections())


def plain(lab, traffic):
    """Neither end believes, and the data get through."""
    traffic.until(SIZE // 2)
    assert (believes(lab.a, traffic.port), believes(lab.b, traffic.port)) == (False, False)
    traffic.finish()


@pytest.mark.parametrize("kind", [Download, Upload])
@pytest.mark.parametrize("without", ["a", "b"])
def test_peer_without_extension(make_lab, without, kind):
    """One end has it switched off."""
    lab = make_lab(rtt=0.05)
    lab.hosts[without].sysctl("net.tcp_migrate.enabled", 0)
    plain(lab, kind(lab))


def test_killed_server_is_noticed_at_once_by_a_plain_client(make_lab):
    """Without agreement a reset is a reset, at once."""
    lab = make_lab(rtt=0.05)
    lab.a.sysctl("net.tcp_migrate.enabled", 0)
    assert kill_server(lab) < 0.5


def test_killed_server_is_noticed_at_once_by_a_migratable_client(make_lab):
    """With agreement the reset proves its origin, and is honoured as fast."""
    lab = make_lab(rtt=0.05)
    assert kill_server(lab) < 0.5


def kill_server(lab):
    """Seconds from the death of nginx to curl's error."""
    traffic = Download(lab)
    traffic.until(SIZE // 4)
    began = time.monotonic()
    lab.b.run("pkill -9 nginx")
    wait_for("curl to notice", lambda: traffic.child.poll() is not None, 600)
    assert traffic.child.returncode in (18, 56)
    return time.monotonic() - began


@pytest.mark.parametrize("kind", [Download, Upload])
@pytest.mark.parametrize("where", ["syn", "synack", "nonsyn", "all"])
def test_option_stripped(make_lab, where, kind):
    """A box takes the option away: from the SYN, from the SYN,ACK, from all that follows."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.net.behave(strip=[where])
    plain(lab, kind(lab))
    assert lab.net.hits() > 0


@pytest.mark.parametrize("kind", [Download, Upload, Idle])
def test_option_stripped_on_third_ack(make_lab, kind):
    """The echo is said again until it is answered: both ends come to believe."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.net.behave(strip=["ack3"])
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    assert lab.net.hits() == 1
    assert believes(lab.a, traffic.port) and believes(lab.b, traffic.port)
    # The move's third ACK is its proof; losing that is another test's matter.
    lab.net.behave(strip=[])
    lab.a.move("n2")
    carry_on(lab, traffic, 0.05)


@pytest.mark.parametrize("kind", [Download, Upload])
def test_option_stripped_later(make_lab, kind):
    """The server's answer to the echo never comes: the client does not believe."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.net.behave(strip=["later"])
    traffic = kind(lab)
    traffic.until(SIZE // 2)
    assert not believes(lab.a, traffic.port)
    assert lab.a.counters()["EchoMissing"] == 1
    traffic.finish()


def connect_time(lab):
    """Seconds curl needs until it is connected."""
    out = lab.a.run(["curl", "-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{time_connect}",
                     f"http://{lab.b.v4}/small"]).stdout
    return float(out)


@pytest.mark.virtual
@pytest.mark.parametrize("kind", ["syn", "synack"])
def test_path_drops_option(make_lab, kind):
    """A box drops SYNs, or SYN,ACKs, with the option: 4 s the first time, then at once."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.net.behave(refuse=[kind])
    programs.data(programs.nginx(lab.b) / "small", 1000)
    assert connect_time(lab) < 4
    assert connect_time(lab) < 0.1


@pytest.mark.virtual
def test_path_recovers(make_lab):
    """What was remembered of a path that drops the option is forgotten in time."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.net.behave(refuse=["syn"])
    Download(lab, size=1000).finish()
    lab.net.behave(refuse=[])
    time.sleep(int(lab.a.sysctl("net.tcp_migrate.fallback_time")) + 1)
    traffic = Idle(lab)
    assert believes(lab.a, traffic.port) and believes(lab.b, traffic.port)
    traffic.finish()


@pytest.mark.parametrize("mss,mtu", [(1200, 1500), (1400, 1280)])
def test_new_path_is_narrower(make_lab, mss, mtu):
    """The new path clamps the MSS, or carries only smaller packets."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    lab.box("n2").behave(mss=mss)
    lab.set_link("n2", mtu=mtu)
    traffic = Download(lab)
    traffic.until(SIZE // 4)
    lab.a.move("n2")
    carry_on(lab, traffic, 0.05)
    # B sends no more than A's new MSS allows, less the timestamps, from the first segment on.
    segs = lab.segments("a")
    asked = max(i for i, seg in enumerate(segs) if seg.migrate == ["MREQ"])
    assert max(seg.length for seg in segs[asked:] if not seg.out) == min(mss, mtu - 40) - 12


@pytest.mark.virtual
def test_new_path_is_slower(make_lab):
    """A far lower rate and a far longer round trip: no burst, no stale time-out."""
    lab = make_lab(rtt=0.02, at={"a": "n1"})
    lab.set_link("n2", rate="5mbit", delay=0.1)
    traffic = Download(lab, size=SIZE // 2)
    traffic.until(SIZE // 8)
    lab.a.move("n2")
    carry_on(lab, traffic, 0.22)


def said_by_ss(host, port, what):
    """A number that ss shows of the host's connection with this port."""
    return float(re.search(rf" {what}:([0-9.]+)", host.ss(port))[1])


@contextlib.contextmanager
def fading(lab, port, more=12):
    """A gets so many segments more, acknowledges them in vain, and nothing passes until B's time-out."""
    dev = lab.a.point.dev
    lab.a.run(["nft", "-f", "-"], input=f"""table inet fading {{
        chain i {{ type filter hook input priority 0; iifname {dev} limit rate over 1/hour burst {more} packets drop; }}
        chain o {{ type filter hook output priority 0; oifname {dev} drop; }}
    }}\n""")
    wait_for("B's time-out", lambda: said_by_ss(lab.b, port, "cwnd") == 1, 5)
    yield
    lab.a.run("nft delete table inet fading")


@pytest.mark.virtual
def test_old_window_does_not_come_back(make_lab):
    """B has sent again what A had; that it was in vain says nothing of the new path.

    TCP undoes what a time-out did to its window when as much as was sent again is said to
    have come twice, whatever it was; on the new path everything comes twice.
    """
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    lab.set_link("n2", duplicate=100, limit=10_000)
    traffic = Download(lab, size=2 * SIZE)
    traffic.until(SIZE)
    before = undone(lab.b)
    with fading(lab, traffic.port, 1000):
        lab.a.move("n2")
    settled(lab.b, traffic.port, 1)
    traffic.finish()
    assert undone(lab.b) == before


def undone(host):
    """How often a host's TCP has taken back what a loss did to its window."""
    kinds = ' '.join(f'TcpExtTCP{kind}Undo' for kind in ('Full', 'Partial', 'DSACK', 'Loss'))
    return [line.split()[:2] for line in host.run(f"nstat -asz {kinds}").stdout.splitlines()]


@pytest.mark.virtual
@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_flight_is_sent_again_but_once(make_lab, v6):
    """What was in flight is lost, what the new path carries is not: all of it goes there once."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    for place in ("g1", "g2", "core"):
        lab.set_link(place, limit=10_000)
    traffic = Upload(lab, v6=v6)
    traffic.until(SIZE // 4)
    lab.a.move("g1")
    traffic.finish()
    new = lab.a.v6 if v6 else lab.a.v4
    sent = [seg.seq for seg in lab.segments("a") if seg.out and seg.length and seg.src == new]
    assert len(sent) > 1000 and len(sent) == len(set(sent))


@pytest.mark.virtual
def test_what_the_old_path_brought_is_acknowledged_at_once(make_lab):
    """A's acknowledgments were lost there. B's first words here bring no data, and what B then repeats is lost."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    with Pair(lab) as pair:
        old, new = lab.a.point, lab.a.attach("g1")
        with Losing(lab.net, f"ip saddr {old.v4} drop; ip daddr {new.v4} meta length > 200 drop"):
            pair.say(pair.b, pair.a, 10000)
            assert unacknowledged(pair.b) == 10000
            lab.migrator(lab.a, old, new, False)
            wait_for("B to have moved", lambda: pair.conn(lab.b)["migrations"] == 1, 10)
            time.sleep(0.05 + 0.01)
            assert unacknowledged(pair.b) == 0


@pytest.mark.virtual
@pytest.mark.parametrize("mbb", [False, True], ids=["break", "make before break"])
def test_acknowledgments_of_the_old_path_open_no_window(make_lab, mbb):
    """A has got a hundred segments there; what it says of them here is no leave to send as many at once."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    traffic = Download(lab)
    traffic.until(SIZE // 4)
    with Losing(lab.net, f"ip saddr {lab.a.v4} drop"):
        time.sleep(0.03)
        lab.a.move("g1", make_before_break=mbb)
    traffic.finish()
    sent = [seg for seg in lab.segments("b") if seg.out and seg.length and seg.dst == lab.a.v4]
    soon = [seg for seg in sent if seg.time < sent[0].time + 1.5 * 0.05]
    assert 20 <= len(soon) <= 10 + 20 + 2 < len(sent)


@pytest.mark.virtual
def test_a_socket_used_again_has_its_window(make_lab):
    """B disconnects while the old path is not acknowledged, and connects anew: nothing limits it any more."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    for place in ("g1", "g2"):
        lab.set_link(place, limit=10_000)
    with Pair(lab) as pair:
        old, new = lab.a.point, lab.a.attach("g1")
        with Losing(lab.net, f"ip saddr {old.v4} drop; ip saddr {lab.b.v4} meta length > 200 drop"):
            pair.b.sendall(bytes(10000))
            lab.migrator(lab.a, old, new, False)
            wait_for("B to have moved", lambda: pair.conn(lab.b)["migrations"] == 1, 10)
            time.sleep(0.1)
            disconnect(pair.b)
        with lab.a.inside(), socket.create_server((new.v4, 7400)) as listener:
            pair.b.connect((new.v4, 7400))
            again, _ = listener.accept()
            data = os.urandom(SIZE)
            sending = threading.Thread(target=pair.b.sendall, args=(data,))
            sending.start()
            pair.hear(again, data)
            sending.join()
        assert said_by_ss(lab.b, 7400, "cwnd") > 100


def disconnect(sock):
    """Dissolves the association, as connect(2) says."""
    unspec = struct.pack("H14x", socket.AF_UNSPEC)
    assert ctypes.CDLL(None).connect(sock.fileno(), unspec, len(unspec)) == 0


def unacknowledged(sock):
    """Bytes."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


@pytest.mark.virtual
def test_old_path_time_is_not_measured(make_lab):
    """A acknowledges, at the new place, what came half a minute ago: no such round trip is believed."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    traffic = Download(lab)
    traffic.until(SIZE // 4)
    with fading(lab, traffic.port):
        lab.a.move("n2", gap=30)
    settled(lab.b, traffic.port, 1)
    for _ in range(12):
        time.sleep(0.01)
        assert said_by_ss(lab.b, traffic.port, "rto") <= 1000       # milliseconds
    assert said_by_ss(lab.b, traffic.port, "rtt") < 70
    traffic.finish()


@pytest.mark.virtual
@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_what_was_lost_is_sent_at_once(make_lab, v6):
    """What the old path has lost is the first that the new one carries: nothing has to time out or be asked for."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    traffic = Upload(lab, v6=v6)
    traffic.until(SIZE // 4)
    with Losing(lab.net, f"tcp dport {traffic.port} tcp flags & syn == 0"):
        time.sleep(0.1)
        lab.a.move("core")
    took = traffic.resumed()
    assert took < 0.05 + 0.025 + 0.01, f"{took:.4f} s"
    traffic.finish()
    assert lab.resets(traffic.port) == []


@pytest.mark.virtual
def test_host_gone_for_good(make_lab):
    """B learns of it within the documented time."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.b.sysctl("net.tcp_migrate.wait_silence", 60)
    traffic = Idle(lab)
    lab.a.detach()
    lab.b.run("pkill -USR1 cat", check=False)
    wait_for("B's connections to be gone",
             lambda: not believes(lab.b, traffic.port), 3600, every=1)
