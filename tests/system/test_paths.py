# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers and boxes that do not take part: everything behaves as plain TCP would.

Both ends believe that a connection can migrate, or neither does.
"""

import concurrent.futures
import contextlib
import ctypes
import errno
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

from ends import Ends
from tcplab import capture, craft, programs
from tcplab.topology import wait_for
from test_moves import carry_on, settled
from traffic import SIZE, Download, Idle, Upload
from wire import ACK, PORT, RST, SETTLE, SYN, Losing, Pair, Raw, changed


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
    """The server's answer to the echo never comes: the client does not believe, so the server must not."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.net.behave(strip=["later"])
    traffic = kind(lab)
    plain(lab, traffic)
    assert [host.counters()["EchoMissing"] for host in (lab.a, lab.b)] == [1, 1]


@pytest.mark.parametrize("end", ["a", "b"])
@pytest.mark.parametrize("where", ["syn", "synack", "nonsyn", "all", "later"])
def test_reset_where_the_option_is_stripped(make_lab, where, end):
    """A genuine reset ends both programs at once, as in plain TCP: its origin cannot be proved on this path."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    lab.net.behave(strip=[where])
    with Pair(lab) as pair:
        gone, left = (pair.a, pair.b) if end == "a" else (pair.b, pair.a)
        began = time.monotonic()
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        with pytest.raises(ConnectionResetError):
            left.recv(1)
        assert time.monotonic() - began < 0.05


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


@pytest.mark.parametrize("kind", [Download, Upload])
def test_new_path_is_wider(make_lab, kind):
    """From a link of 1280 bytes to one of 1500: segments become as large as that carries."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    lab.set_link("g2", mtu=1280)
    places = [lab.a.move("g2").v4]
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    places.append(lab.a.move("core").v4)
    carry_on(lab, traffic, 0.05)
    segs = [s for s in lab.segments("b") if s.out == (kind is Download)]
    assert [max(s.length for s in segs if place in (s.src, s.dst)) for place in places] == [1280 - 52, 1500 - 52]


@pytest.mark.parametrize("mtus", [(1280, 1500), (1500, 1280)], ids=["grows", "shrinks"])
@pytest.mark.parametrize("kind", ["4", "6"], ids=["ipv4", "ipv6"])
def test_request_says_what_its_path_carries(make_lab, kind, mtus):
    """The MSS of an MSYN is that of the link it leaves by, as in any SYN."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    for place, mtu in zip(("g2", "core"), mtus, strict=True):
        lab.set_link(place, mtu=mtu)
    lab.a.move("g2")
    with Pair(lab, a=kind) as pair:
        lab.a.move("core")
        settled(lab.b, pair.port, 1)
        syns = [s for s in pair.seen(lab.a) if s.out and s.migrate in (["PERMIT"], ["MREQ"])]
        said = [int.from_bytes(next(body for number, body in s.options if number == 2), "big") for s in syns]
        assert said == [mtu - (40 if kind == "4" else 60) for mtu in mtus]


@pytest.mark.parametrize("end", ["a", "b"])
def test_error_about_the_old_path(make_lab, end):
    """ "Too big" about a segment of the tuple that was left says nothing of the new one; about that, it counts."""
    lab = make_lab(rtt=0.05, at={"a": "g2", "s": "core"})
    with Pair(lab) as pair, contextlib.closing(Raw(lab.s)) as raw:
        old, new = lab.a.point, lab.a.attach("core")
        lab.migrator(lab.a, old, new, False)
        settled(lab.b, pair.port, 1)
        pair.talk()
        pair.learn()
        for about, mss in ((old.v4, 1448), (new.v4, 600 - 52)):
            if end == "a":
                dropped = craft.packet(about, lab.b.v4, pair.port, PORT, ACK, pair.next_a, pair.next_b)
            else:
                dropped = craft.packet(lab.b.v4, about, PORT, pair.port, ACK, pair.next_b, pair.next_a)
            raw.send([craft.too_big(lab.s.v4, about if end == "a" else lab.b.v4, 600, dropped)])
            time.sleep(SETTLE)
            assert said_by_ss(lab.hosts[end], pair.port, "mss") == mss
        pair.talk()


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload])
def test_new_path_is_slower(make_lab, kind):
    """A far lower rate and a far longer round trip: slow start from the initial window, nothing is sent there twice."""
    rtt = 0.02 + 2 * 0.1
    lab = make_lab(rtt=0.02, at={"a": "n1"})
    lab.set_link("n2", rate="5mbit", delay=0.1, limit=1000)
    traffic = kind(lab, size=SIZE // 2)
    traffic.until(SIZE // 8)
    sender, receiver = ("b", "a") if kind is Download else ("a", "b")
    lab.a.move("n2")
    carry_on(lab, traffic, rtt)
    sent, came = ([s for s in lab.segments(host) if s.length and s.out == out]
                  for host, out in ((sender, True), (receiver, False)))
    sent, came = ([s for s in segs if (s.src, s.dst) == (segs[-1].src, segs[-1].dst)] for segs in (sent, came))
    counts = [sum(n * rtt <= s.time - sent[0].time < (n + 1) * rtt for s in sent) for n in range(4)]
    assert len(sent) == len(came) == len({s.seq for s in came}), counts
    assert all(count <= 10 * 2 ** n + 2 for n, count in enumerate(counts)), counts


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
@pytest.mark.parametrize("unknown", [0, 60_000], ids=["nothing", "much"])
def test_old_path_brings_data_while_the_new_one_is_not_proved(make_lab, unknown):
    """A, who has lost much, acknowledges them on the new path: a NAPT there would lose its count.

    B has got something of what A does not know, and as many bad requests as it answers in a second: it cannot
    open the NAPT itself.
    """
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    with Pair(lab) as pair:
        pair.a.setblocking(False)
        sent = got = 0
        while sent < 2_000_000:
            with contextlib.suppress(BlockingIOError):
                sent += pair.a.send(bytes(65536))
            if got < sent:
                got += len(pair.b.recv(1 << 20))
        port = pair.conn(lab.a)["local-port"]
        old, new = lab.a.point, lab.a.attach("n1")
        pair.learn()
        raw = Raw(lab.s)
        pair.b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if unknown:
            while got < sent:
                got += len(pair.b.recv(1 << 20))
            time.sleep(0.06)
            with Losing(lab.net, f"ip saddr {lab.b.v4} drop"):
                sent += pair.a.send(bytes(unknown))
                time.sleep(0.06)
        with Losing(lab.net, f"ip saddr {old.v4} meta length > 200 drop"):
            for n in range(60):
                time.sleep(0.002)
                with contextlib.suppress(BlockingIOError):
                    sent += pair.a.send(bytes(65536))
                if n == 10:
                    raw.send([pair.msyn(lab.s.v4, 10000 + i, wrong=True, nonce=i) for i in range(30)], every=31)
                if n == 40:
                    lab.migrator(lab.a, old, new, False)
            pair.b.sendall(bytes(10 * 1448))
            time.sleep(0.1)
        raw.close()
        pair.a.settimeout(60)
        pair.hear(pair.b, bytes(sent - got))
        pair.hear(pair.a, bytes(10 * 1448))
        pair.talk()
    here = [seg for seg in lab.segments("a") if new.v4 in (seg.src, seg.dst) and port in (seg.sport, seg.dport)]
    msyn = next(seg for seg in here if seg.flags & SYN and seg.out)
    proved = next(seg.time for seg in here if not seg.out and "CONFIRM" in seg.migrate)
    reach = [(seg.seq - msyn.seq - 1) & 0xFFFFFFFF for seg in here
             if seg.out and seg is not msyn and seg.time < proved and not seg.length]
    assert reach.count(0xFFFF) > 2 and max(reach) == 0xFFFF
    assert lab.resets(port) == []


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
    traffic.resumed()
    # As B sees it on the wire: nginx may keep some kilobytes before it writes.
    segs = [s for s in capture.read(lab.captures["b"].path) if traffic.port in (s.sport, s.dport)]
    asked = max(s.time for s in segs if not s.out and s.migrate == ["MREQ"])
    lacks = next(s.ack for s in reversed(segs) if s.out and s.time < asked)
    first = next(s for s in segs if not s.out and s.length and s.time > asked)
    assert first.seq == lacks and first.time - asked < 0.05 + 0.005, (lacks, first)
    traffic.finish()
    assert lab.resets(traffic.port) == []


@pytest.mark.virtual
def test_more_was_delivered_than_a_napt_lets_pass(make_lab):
    """What B has is far beyond what A knows of, and beyond the window that A's new NAPT sees in B's MSYN,ACK."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    for place in ("n1", "n2", "g1"):     # no queue overflows: B has all without a hole
        lab.set_link(place, limit=10_000)
    traffic = Upload(lab)
    traffic.until(SIZE // 4)
    outer = lab.b.connection(traffic.port)["remote-addr"]
    with Losing(lab.net, f"ip daddr {outer} drop"):
        time.sleep(0.1)
        lab.a.move("n2")
    traffic.resumed()
    segs = [s for s in capture.read(lab.captures["b"].path) if traffic.port in (s.sport, s.dport)]
    asked = next(s for s in reversed(segs) if not s.out and s.migrate == ["MREQ"])
    lacks = next(s.ack for s in reversed(segs) if s.out and s.time < asked.time)
    assert lacks - asked.seq > 2 * 65535
    # A NAPT may forward what it does not translate.
    first = next(s for s in segs if s.src == asked.src and s.length and s.time > asked.time and s.seq >= lacks)
    assert first.time - asked.time < 0.05 + 0.005, (lacks, first)
    traffic.finish()
    assert lab.resets(traffic.port) == []


@pytest.mark.virtual
def test_all_was_delivered_and_nothing_follows(make_lab):
    """B acknowledges no more than what A's new NAPT has seen, which would take more for somebody else's, and reset."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    with Pair(lab) as pair:
        data = os.urandom(4 << 20)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(pair.a.sendall, data)
            pair.hear(pair.b, data)
        time.sleep(0.1)     # the last acknowledgment is under way
        data = data[:85_000]    # within the congestion window, beyond the window of an MSYN,ACK
        outer = pair.conn(lab.b)["remote-addr"]
        with Losing(lab.net, f"ip daddr {outer}"):
            pair.a.sendall(data)
            pair.hear(pair.b, data)
            assert unacknowledged(pair.a) == len(data)
            last = [seg for seg in pair.seen(lab.a) if seg.out][-1]
            # What would tell the NAPT how much has been sent.
            with Losing(lab.a, f"tcp sequence {(last.seq + last.length) & 0xFFFFFFFF}", "output") as loss:
                lab.a.move("n2")
                began = time.monotonic()
                settled(lab.a, pair.port, 1)
                assert time.monotonic() - began < 2 * 0.05 + 0.02
                loss.lost()
        pair.talk()
        assert unacknowledged(pair.a) == 0
        assert lab.resets(pair.port) == []


GONE = {"silence": ("", errno.ETIMEDOUT), "unreachable": ("reject with icmp host-unreachable;", errno.EHOSTUNREACH)}


@pytest.mark.virtual
@pytest.mark.parametrize("how", GONE)
def test_host_gone_for_good(make_lab, how):
    """TCP gives up when it would, then 15 minutes of waiting: B's program sees the error that plain TCP would show."""
    reject, code = GONE[how]
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    if how == "unreachable":    # or TCP would ask each 0.2 s, for 15 minutes
        lab.b.sysctl("net.ipv4.tcp_retries2", 5)
    # As RFC 1122 counts: what so many time-outs of 0.2 s would take, each twice the one before, at most 120 s.
    gives_up = sum(min(0.2 * 2 ** i, 120) for i in range(int(lab.b.sysctl("net.ipv4.tcp_retries2")) + 1))
    with Pair(lab) as pair, Losing(lab.net, f"{reject} drop"):
        lab.a.detach()
        pair.b.settimeout(None)
        pair.b.sendall(b"anybody there?")
        began = time.monotonic()
        wait_for("B to wait", lambda: pair.conn(lab.b)["state"] == "mig-wait", 1200, every=1)
        since = time.monotonic() - pair.conn(lab.b)["age-ms"] / 1000
        assert gives_up <= since - began < gives_up + 120 + 5
        with pytest.raises(OSError) as error:
            pair.b.recv(1)
        assert error.value.errno == code
        assert 900 <= time.monotonic() - since < 900.6


# ---- NAPTs that forget ----

RTT, SMALL = 0.05, 0.006
RTO = RTT + 0.2


@pytest.fixture
def forgotten(make_lab):
    """Builds a connection of A behind a NAPT, which forgets it while nobody speaks."""
    made = []

    def make(**manners):
        lab = make_lab(rtt=RTT, at={"a": "n1"})
        lab.box("n1").behave(**manners, timeouts={"established": 30})
        made.append(Ends(lab))
        time.sleep(60)
        return made[0]

    yield make
    for ends in made:
        for sock in (ends.a, ends.b, ends.listener):
            sock.close()


@pytest.mark.virtual
@pytest.mark.parametrize("ports", ["preserve", "fully-random"])
@pytest.mark.parametrize("unsolicited", ["open", "drop", "reset"])
def test_napt_forgets_and_the_inside_speaks(forgotten, unsolicited, ports):
    """The NAPT makes the same mapping anew, or another one: that costs an RST, and a probe, which shows B the way."""
    ends = forgotten(ports=ports, unsolicited=unsolicited)
    lab, before = ends.lab, ends.lab.a.counters()
    lab.box("n1").run("nft insert rule inet box through meta l4proto tcp ct state new counter")
    began = time.monotonic()
    ends.say(ends.a, ends.b, 1000)
    took = time.monotonic() - began
    assert lab.box("n1").hits() > 0, "the NAPT has not forgotten"
    if ports == "preserve":
        assert took < 0.5 * RTT + SMALL and changed(lab.a, before) == {}
    else:
        # What the RST has answered is repeated by a time-out.
        assert took < 3 * RTT + RTO and changed(lab.a, before)["RstDeferred"] == 1
    ends.talk()
    assert [ends.conn(host)["state"] for host in ends.hosts] == ["idle", "idle"]


@pytest.mark.virtual
@pytest.mark.parametrize("ports", ["preserve", "fully-random"])
@pytest.mark.parametrize("unsolicited", ["open", "drop", "reset"])
def test_napt_forgets_and_the_outside_speaks(forgotten, unsolicited, ports):
    """Nothing of B's gets in, nor do its probes; it waits until A says something, and then goes on at once."""
    ends = forgotten(ports=ports, unsolicited=unsolicited)
    data = os.urandom(20000)
    ends.b.sendall(data)
    time.sleep(40)
    conn = ends.conn(ends.lab.b)
    # Silence leads nowhere as yet: TCP repeats for a quarter of an hour.
    assert (conn["state"], conn["reason"]) == (("idle", "agreed") if unsolicited == "drop" else ("mig-wait", "rst"))
    began = time.monotonic()
    ends.a.sendall(b"hello")
    ends.hear(ends.a, data)
    took = time.monotonic() - began
    # A new mapping is learned by an RST and a probe, and makes B begin anew. Else B's flight is repeated by a
    # time-out and one by one; if B has not waited the next one is due within 26 s.
    if ports == "preserve":
        assert took < (26 if unsolicited == "drop" else RTO) + 6 * RTT
    else:
        assert took < 4 * RTT + SMALL
    ends.hear(ends.b, b"hello")
    ends.talk()
    assert [ends.conn(host)["state"] for host in ends.hosts] == ["idle", "idle"]


@pytest.mark.virtual
@pytest.mark.parametrize("unsolicited", ["open", "reset"])
def test_napt_forgets_and_the_inside_is_silent(forgotten, unsolicited):
    """The NAPT answers B and each of its probes by RSTs: the end after 180 s, of which A learns when it speaks."""
    ends = forgotten(unsolicited=unsolicited)
    ends.b.settimeout(None)
    began = time.monotonic()
    ends.b.sendall(b"anybody there?")
    with pytest.raises(ConnectionResetError):
        ends.b.recv(1)
    assert 180 <= time.monotonic() - began < 180.6 + RTT
    time.sleep(10)
    ends.a.sendall(b"hello")
    with pytest.raises(ConnectionResetError):
        ends.a.recv(1)
    assert ends.lab.a.counters()["RstAuth"] == 1


# ---- Hosts that let nothing in ----

def deny(host, port=0):
    """What is not known does not get in, but to this port."""
    service = f"tcp dport {port} ct state new accept;" if port else ""
    host.run(["nft", "-f", "-"], input=f"""table inet deny {{ chain i {{
        type filter hook input priority 0; policy drop; ct state established,related accept; {service} }}; }}\n""")


@pytest.mark.parametrize("path", [("g2", "core"), ("n1", "n2")], ids="-to-".join)
@pytest.mark.parametrize("kind", [Download, Upload, Idle])
def test_hosts_let_nothing_in(make_lab, kind, path):
    """Each host's own firewall takes every segment of A's move for what it is."""
    lab = make_lab(rtt=RTT, at={"a": path[0], "b": "g1"})
    deny(lab.a)
    deny(lab.b, kind.port)
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    lab.a.move(path[1])
    carry_on(lab, traffic, RTT)


@pytest.mark.virtual
@pytest.mark.parametrize("end", ["a", "b"])
def test_forged_reset_at_hosts_that_let_nothing_in(make_lab, end):
    """The probe and its answer pass the firewalls, from either end."""
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1", "s": "core"})
    deny(lab.a)
    deny(lab.b, PORT)
    with Pair(lab) as pair, contextlib.closing(Raw(lab.s)) as raw:
        pair.learn()
        before = lab.hosts[end].counters()
        raw.send([(pair.to_a if end == "a" else pair.to_b)(RST, ack=0)])
        time.sleep(SETTLE)
        delta = changed(lab.hosts[end], before)
        assert (delta["RstDeferred"], delta["AnswerRcvd"]) == (1, 1)
        pair.unharmed()


@pytest.mark.virtual
@pytest.mark.parametrize("place,denies", [("g2", True), ("n3", False), ("n1", False)],
                         ids=["firewall", "silent napt", "napt"])
def test_server_goes_and_returns_and_the_client_lets_nothing_in(make_lab, place, denies):
    """B cannot ask where only A may begin. Back where it was it can, without SYN: after an RST, or by a probe."""
    lab = make_lab(rtt=RTT, at={"a": place, "b": "g1"})
    if denies:
        deny(lab.a)
    ends = Ends(lab)
    old, before = lab.b.point, lab.a.counters()
    lab.b.move("core")
    time.sleep(10)
    assert lab.b.counters()["MsynRetrans"] >= 4 and changed(lab.a, before) == {}
    lab.b.move("g1", v4=old.v4, v6=old.v6)
    # Eight requests with SYN take 32 s, and the first probe comes 15 s later.
    wait_for("both to rest", lambda: [ends.conn(h)["state"] for h in ends.hosts] == ["idle", "idle"],
             3 * RTT if place == "n1" else 50, RTT / 10 if place == "n1" else 0.5)
    ends.talk()
