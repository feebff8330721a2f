# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections of every kind of socket move: what they are and how they are used.

Address families, bound to a device, source routes, one of many listeners, zero
copy, kTLS, splice, sendfile, sockmap; and what the rest of the kernel shows of a socket that
has moved: bind conflicts, tuple collisions, statistics, state events.
"""

import ctypes
import errno
import mmap
import os
import pathlib
import re
import select
import socket
import struct
import threading
import time

import pytest

from ends import MAPPED, MOVES, Ends, Stream
from tcplab.topology import wait_for
from wire import PORT, changed

LIBC = ctypes.CDLL(None, use_errno=True)
RTT = 0.05
RTTS = pytest.mark.parametrize("rtt", [0, RTT], ids=["rtt0", "rtt50"])
MOVERS = pytest.mark.parametrize("mover", ["a", "b"])
GLOBAL = pytest.mark.parametrize("mover", ["a global", "b"], ids=["a", "b"])


@pytest.fixture
def connect(make_lab):
    """Builds a lab for a mover and a connection in it; like= another in the same."""
    made = []

    def make(mover, rtt=RTT, like=None, **kw):
        lab = like.lab if like else make_lab(rtt=rtt, at=MOVES[mover][0])
        made.append(Ends(lab, mover, **{"port": PORT + len(made)} | kw))
        return made[-1]

    yield make
    for ends in made:
        for sock in (ends.a, ends.b, ends.listener):
            sock.close()


# ---- Address families ----

FAMILIES = [("4", "mapped"), ("mapped", "4"), ("mapped", "mapped"), ("6", "6")]


def shows(ends, old):
    """Both programs see the new address, and it is that of every segment."""
    for name, peer in ("ab", "ba"):
        host = ends.lab.hosts[name]
        texts = {"4": host.v4, "mapped": MAPPED + host.v4, "6": host.v6}
        assert ends.sides(name)[0].getsockname()[0] == texts[ends.families[name]]
        assert ends.sides(peer)[0].getpeername()[0] == texts[ends.families[peer]]
    mover = ends.mover
    segs = [s for s in ends.seen(mover) if s.out]
    first = max(i for i, s in enumerate(segs) if s.src in (old.v4, old.v6)) + 1
    new = mover.v6 if ends.families["a"] == "6" else mover.v4
    assert segs[first].migrate == ["MREQ"]
    assert {s.src for s in segs[first:]} == {new}
    assert any(s.length for s in segs[first:])


@RTTS
@GLOBAL
def test_address_families(connect, mover, rtt):
    """IPv4 by IPv6 sockets at either end and at both, and IPv6 itself."""
    cases = []
    for a, b in FAMILIES:
        cases.append(connect(mover, rtt, like=cases[0] if cases else None, a=a, b=b))
    streams = [Stream(*ends.sides(first), 200_000) for ends in cases for first in "ab"]
    for stream in streams:
        stream.until(50_000)
    old = cases[0].mover.point
    cases[0].move()
    for stream in streams:
        stream.finish()
    for ends in cases:
        ends.settled()
        ends.talk()
        shows(ends, old)
    for ends in cases:
        ends.close_both()


def binds(host, family, addr, port):
    """Whether a program could bind to this."""
    with host.inside(), socket.socket(family) as sock:
        try:
            sock.bind((addr, port))
        except OSError as e:
            assert e.errno == errno.EADDRINUSE
            return False
        return True


@pytest.mark.parametrize("kind", ["4", "mapped", "6"])
def test_bind_knows_where_a_connection_is(connect, kind):
    """Its port is free at the address it has left, and taken at the one it has."""
    ends = connect("a global", a=kind, b="4" if kind == "mapped" else kind)
    host = ends.lab.a
    family = socket.AF_INET6 if kind == "6" else socket.AF_INET
    old = host.point
    new = host.attach("core")
    before, now = (old.v6, new.v6) if kind == "6" else (old.v4, new.v4)
    assert (binds(host, family, before, ends.port), binds(host, family, now, ends.port)) == (False, True)
    ends.lab.migrator(host, old, new, False)
    ends.settled()
    assert (binds(host, family, before, ends.port), binds(host, family, now, ends.port)) == (True, False)
    ends.talk()
    ends.close_both()
    host.detach(old)


@pytest.mark.parametrize("bound", [False, True], ids=["any device", "bound to one"])
def test_the_new_tuple_belongs_to_another(connect, bound):
    """A live connection keeps its tuple; the one that wanted it waits, and goes elsewhere."""
    ends = connect("a global")
    lab = ends.lab
    old = lab.a.point
    new = lab.a.attach("core")
    with lab.a.inside():
        sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((new.v4, ends.port))
    for one in (sock, ends.a) if bound else ():
        bind_to(lab.a, one, new.dev)
    sock.connect((lab.b.v4, PORT))
    peer = ends.listener.accept()[0]
    with lab.a.family() as family:
        with pytest.raises(OSError) as refusal:
            family.migrate(ends.conn(lab.a)["cookie"], new_local_addr=new.v4)
        assert refusal.value.errno == errno.EADDRINUSE
        for out, into in ((sock, peer), (peer, sock)):
            ends.say(out, into)
        bind_to(lab.a, ends.a, "")
        elsewhere = lab.a.attach("n1")
        family.migrate(ends.conn(lab.a)["cookie"], new_local_addr=elsewhere.v4)
    ends.settled()
    ends.talk()
    for out, into in ((sock, peer), (peer, sock)):
        ends.say(out, into)
    sock.close()
    assert peer.recv(1) == b""
    peer.close()
    ends.close_both()
    assert old in lab.a.points


# ---- What a socket is bound to ----

def bind_to(host, sock, dev):
    """SO_BINDTODEVICE, to nothing if dev is empty."""
    with host.inside():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode() + b"\0")


def test_bound_to_a_device_that_goes_away(connect):
    """It stays bound: no request can be sent, which is counted; nothing else happens
    until the program binds it to the new one. What it has written meanwhile arrives."""
    ends = connect("a global")
    host = ends.lab.a
    old = host.point
    bind_to(host, ends.a, old.dev)
    ends.talk()
    before = host.counters()
    new = host.attach("core")
    host.detach(old)
    ends.lab.migrator(host, old, new, False)
    data = os.urandom(20_000)
    ends.a.sendall(data)
    time.sleep(5)
    assert changed(host, before)["NoRoute"] >= 3
    assert ends.conn(host)["state"] == "mig-sent"
    bind_to(host, ends.a, new.dev)
    ends.hear(ends.b, data)
    ends.settled()
    ends.talk()
    ends.close_both()


@pytest.mark.virtual
def test_trial_of_an_address_of_another_device(connect):
    """Requests leave by the device the socket is bound to; answers, which come by the
    other, are not its own. The trial fails, and has cost nothing."""
    ends = connect("a global")
    host = ends.lab.a
    old = host.point
    bind_to(host, ends.a, old.dev)
    host.sysctl("net.tcp_migrate.syn_retries", 2)
    before = host.counters()
    new = host.attach("core")
    ends.lab.migrator(host, old, new, True)
    ends.talk()
    assert ends.conn(host)["state"] == "mig-sent"
    ends.sub_state(host, "idle", 20)
    assert ends.conn(host)["reason"] == "trial-failed"
    delta = changed(host, before)
    assert delta["TrialFailed"] == 1 and "Commit" not in delta, delta
    ends.talk()
    bind_to(host, ends.a, "")
    ends.lab.migrator(host, old, new, True)
    host.wait_moved(old, new)
    ends.settled()
    ends.talk()
    ends.a.shutdown(socket.SHUT_WR)
    assert ends.b.recv(1) == b""
    ends.close_second("a")


@MOVERS
def test_the_other_end_is_bound_to_a_device(connect, mover):
    """Which is what the new path comes by as well."""
    ends = connect(mover)
    stays = ends.lab.b if mover == "a" else ends.lab.a
    bind_to(stays, ends.b if mover == "a" else ends.a, stays.point.dev)
    streams = [Stream(*ends.sides(first), 200_000).until(20_000) for first in "ab"]
    ends.move()
    for stream in streams:
        stream.finish()
    ends.settled()
    ends.close_both()


def test_new_address_on_the_same_device(connect):
    """Bound to it, and staying there: nothing is in the way."""
    ends = connect("a global")
    host = ends.lab.a
    old, seg = host.point, ends.lab.segment(host.point.place)
    bind_to(host, ends.a, old.dev)
    v4 = seg.fresh()[0]
    mask = seg.net4.prefixlen
    # With the first address the second goes as well, and with both the routes.
    host.sysctl(f"net.ipv4.conf.{old.dev}.promote_secondaries", 1)
    host.ip(f"addr add {v4}/{mask} dev {old.dev}",
            f"rule add from {v4} lookup {old.table}",
            f"addr del {old.v4}/{mask} dev {old.dev}",
            f"route replace default via {seg.gw4} dev {old.dev} table {old.table}",
            f"route replace default via {seg.gw4} dev {old.dev}")
    with host.family() as family:
        assert family.migrate_all(old.v4, v4)["count"] == 1
    ends.settled()
    ends.talk()
    ends.close_both()


def test_source_route_is_refused(connect):
    """A connection with a loose source route does not move, until that is gone."""
    ends = connect("a global")
    host = ends.lab.a
    hop = socket.inet_aton(ends.lab.b.v4)
    ends.a.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([131, 7, 4]) + hop + b"\1")
    old = host.point
    new = host.attach("core")
    cookie = ends.conn(host)["cookie"]
    with host.family() as family:
        with pytest.raises(OSError) as e:
            family.migrate(cookie, new_local_addr=new.v4)
        assert e.value.errno == errno.EOPNOTSUPP
        ends.a.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
        family.migrate(cookie, new_local_addr=new.v4)
    ends.settled()
    host.detach(old)
    ends.talk()
    ends.close_both()


def ready(sock):
    """Whether something is to be accepted."""
    return bool(select.select([sock], [], [], 0)[0])


def exchange(pairs, amount):
    """Both ways over each pair of sockets."""
    for pair in pairs:
        for out, into in (pair, pair[::-1]):
            data = os.urandom(amount)
            out.sendall(data)
            Ends.hear(into, data)


@MOVERS
def test_one_of_several_listeners(make_lab, mover):
    """SO_REUSEPORT: each connection stays with the program that accepted it."""
    lab = make_lab(rtt=RTT, at=MOVES[mover][0])
    listeners, pairs = [], []
    for _ in range(4):
        with lab.b.inside():
            sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("0.0.0.0", PORT))
        sock.listen(16)
        sock.settimeout(30)
        listeners.append(sock)
    for _ in range(12):
        with lab.a.inside():
            a = socket.create_connection((lab.b.v4, PORT), timeout=30)
        wanted = wait_for("a listener", lambda: [x for x in listeners if ready(x)])[0]
        pairs.append((a, wanted.accept()[0]))
        pairs[-1][1].settimeout(30)
    for _ in range(3):
        exchange(pairs, 100)
    assert len({b.getsockname() for _, b in pairs}) == 1
    # One program is gone: its listener must not take its connections with it.
    listeners.pop().close()
    lab.hosts[mover].move(MOVES[mover][1])
    exchange(pairs, 5000)
    wait_for("all to rest", lambda: all(c["migrations"] == 1 and c["state"] == "idle"
                                        for h in (lab.a, lab.b) for c in h.connections()), 20, 0.02)
    assert len(lab.b.connections()) == 12
    assert not any(ready(x) for x in listeners)
    with lab.a.inside():
        socket.create_connection((lab.b.v4, PORT), timeout=30).close()
    for sock in [s for pair in pairs for s in pair] + listeners:
        sock.close()
    assert lab.resets(PORT) == []


# ---- Ways to write and to read ----

class ZeroCopy:
    """A writer by MSG_ZEROCOPY, which uses its memory again as soon as it may."""

    SIZE = 64 << 10

    def __init__(self, sock, slots=4):
        self.sock = sock
        self.slots = [mmap.mmap(-1, self.SIZE) for _ in range(slots)]
        self.sends, self.done = 0, 0
        self.busy = {}
        sock.setsockopt(socket.SOL_SOCKET, 60, 1)    # SO_ZEROCOPY

    def write(self, data):
        """sendall() of this kind."""
        for i in range(0, len(data), self.SIZE):
            part = data[i:i + self.SIZE]
            slot = self.free()
            self.slots[slot][:len(part)] = part
            view, at = memoryview(self.slots[slot]), 0
            while at < len(part):
                at += self.sock.send(view[at:len(part)], 0x4000000)
                self.busy[self.sends] = slot
                self.sends += 1
        self.completed(self.sends)

    def free(self):
        """A slot that nothing under way refers to."""
        while len(set(self.busy.values())) == len(self.slots):
            self.completed(self.done + 1)
        return next(i for i in range(len(self.slots)) if i not in self.busy.values())

    def completed(self, amount):
        """Waits until so many sends are done with; each must be so once."""
        while self.done < amount:
            poll = select.poll()
            poll.register(self.sock, 0)
            assert poll.poll(60_000), f"{self.done} of {self.sends} sends completed"
            try:
                for _, _, data in self.sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)[1]:
                    code, origin, _, _, _, first, last = struct.unpack_from("=IBBBBII", data)
                    assert (code, origin) == (0, 5), f"errno {code} of origin {origin}"
                    for i in range(first, last + 1):
                        del self.busy[i]
                        self.done += 1
            except BlockingIOError:
                pass


@MOVERS
def test_zero_copy(connect, mover):
    """Every send is completed once, and not before its data are safe."""
    ends = connect(mover)
    back = connect(mover, like=ends)
    writers = [ZeroCopy(ends.a), ZeroCopy(back.b)]
    streams = [Stream(ends.a, ends.b, 2 << 20, write=writers[0].write),
               Stream(back.b, back.a, 2 << 20, write=writers[1].write)]
    for stream in streams:
        stream.until(300_000)
    assert all(w.busy for w in writers)
    ends.move()
    for stream in streams:
        stream.until(1_000_000)
    ends.mover.move("n3" if mover == "a" else "g1")
    for stream, writer in zip(streams, writers, strict=True):
        stream.finish()
        assert writer.done == writer.sends and not writer.busy
    ends.settled(2)
    ends.close_both()


def ktls(sock, version, sending, receiving):
    """Hands a connection to the kernel's TLS: AES-GCM-128 with fixed keys."""
    sock.setsockopt(socket.IPPROTO_TCP, 31, b"tls")     # TCP_ULP
    for direction, key in ((1, sending), (2, receiving)):
        info = struct.pack("=HH8s16s4s8s", version, 51, key[:8], key[:16], key[12:16], bytes(8))
        sock.setsockopt(282, direction, info)


@RTTS
@MOVERS
@pytest.mark.parametrize("version", [0x0303, 0x0304], ids=["tls1.2", "tls1.3"])
def test_ktls(connect, version, mover, rtt):
    """Records of kernel TLS, both ways, over two moves."""
    ends = connect(mover, rtt)
    keys = os.urandom(16), os.urandom(16)
    ktls(ends.a, version, keys[0], keys[1])
    ktls(ends.b, version, keys[1], keys[0])
    streams = [Stream(*ends.sides(first), 1 << 20) for first in "ab"]
    for stream in streams:
        stream.until(200_000)
    ends.move()
    for stream in streams:
        stream.until(600_000)
    ends.mover.move("n3" if mover == "a" else "g1")
    for stream in streams:
        stream.finish()
    ends.settled(2)
    ends.close_both()


def splice_out(sock, path):
    """Writes a file by splice(), through a pipe."""
    sock.setblocking(True)
    inward, outward = os.pipe()
    with open(path, "rb") as file:
        while amount := os.splice(file.fileno(), outward, 65536):
            while amount:
                amount -= os.splice(inward, sock.fileno(), amount)
    os.close(inward)
    os.close(outward)


def splice_in(sock, path, size):
    """Reads so much into a file the same way."""
    sock.setblocking(True)
    inward, outward = os.pipe()
    with open(path, "wb") as file:
        while size:
            amount = os.splice(sock.fileno(), outward, min(size, 65536))
            assert amount, f"end of data, {size} bytes too early"
            size -= amount
            while amount:
                amount -= os.splice(inward, file.fileno(), amount)
    os.close(inward)
    os.close(outward)


def send_file(sock, path):
    """Writes a file by sendfile()."""
    with open(path, "rb") as file:
        sock.sendfile(file)


@MOVERS
@pytest.mark.parametrize("way", [splice_out, send_file])
def test_splice_and_sendfile(connect, way, mover):
    """Both ends splice, or one sends by sendfile(), over two moves, both ways."""
    ends = connect(mover)
    size = 1 << 20
    top = pathlib.Path("/tmp/lab")
    jobs = []
    for first, out, into in (("a", ends.a, ends.b), ("b", ends.b, ends.a)):
        (top / f"{first}.out").write_bytes(os.urandom(size))
        into = into.dup()
        jobs += [threading.Thread(target=way, args=(out, top / f"{first}.out"), daemon=True),
                 threading.Thread(target=splice_in, args=(into, top / f"{first}.in", size), daemon=True)]
    for job in jobs:
        job.start()
    got = lambda: min((top / f"{f}.in").stat().st_size if (top / f"{f}.in").exists() else 0 for f in "ab")
    wait_for("the first data", lambda: got() >= 200_000, 20, 0.001)
    ends.move()
    wait_for("more data", lambda: got() >= 600_000, 20, 0.001)
    ends.mover.move("n3" if mover == "a" else "g1")
    for job in jobs:
        job.join(60)
        assert not job.is_alive()
    for first in "ab":
        assert (top / f"{first}.in").read_bytes() == (top / f"{first}.out").read_bytes()
    ends.settled(2)
    ends.close_both()


# ---- sockmap ----

def bpf(cmd, attr):
    """One bpf() call."""
    buf = ctypes.create_string_buffer(attr.ljust(128, b"\0"), 128)
    fd = LIBC.syscall(321, cmd, buf, 128)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"bpf({cmd})")
    return fd


def sockmap_splicing(source, target):
    """What comes in at source goes out at target, by a BPF verdict; nobody reads it."""
    sockmap = bpf(0, struct.pack("=IIIII", 15, 4, 4, 2, 0))
    #   r2 = map; r3 = 0; r4 = 0; call bpf_sk_redirect_map; exit
    code = b"".join(struct.pack("=BBhi", *insn) for insn in (
        (0x18, 0x12, 0, sockmap), (0, 0, 0, 0), (0xB7, 3, 0, 0), (0xB7, 4, 0, 0), (0x85, 0, 0, 52), (0x95, 0, 0, 0)))
    insns, gpl = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    program = bpf(5, struct.pack("=IIQQ", 14, len(code) // 8, ctypes.addressof(insns), ctypes.addressof(gpl)))
    bpf(8, struct.pack("=IIII", sockmap, program, 5, 0))
    for index, sock in enumerate((target, source)):
        key, value = (ctypes.c_uint32(n) for n in (index, sock.fileno()))
        bpf(2, struct.pack("=I4xQQQ", sockmap, ctypes.addressof(key), ctypes.addressof(value), 0))
    return sockmap, program


@MOVERS
def test_sockmap(connect, mover):
    """B's kernel passes one connection's data on to another; both move, twice.

    In messages of one segment each: tcp_read_skb(), by which sockmap reads, takes a
    segment that overlaps what came before for new as a whole, moved or not."""
    first = connect(mover)
    second = connect(mover, like=first)
    fds = sockmap_splicing(first.b, second.b)
    for place in (None, first.to, "n3" if mover == "a" else "g1"):
        for i in range(10):
            data = os.urandom(1000)
            first.a.sendall(data)
            if place and not i:
                first.mover.move(place)
            first.hear(second.a, data)
    for ends in (first, second):
        ends.settled(2)
    # The ends of data are for programs again: a verdict would take them for errors.
    for index in range(2):
        key = ctypes.c_uint32(index)
        bpf(3, struct.pack("=I4xQ", fds[0], ctypes.addressof(key)))
    time.sleep(1)
    for fd in fds:
        os.close(fd)
    first.close_both()
    second.close_both()


# ---- What others see of it ----

def statistics(host):
    """Sockets in use, and established connections, as the kernel counts them."""
    with host.inside():
        inuse = re.search(r"(?m)^TCP: inuse (\d+)", pathlib.Path("/proc/thread-self/net/sockstat").read_text())
        inuse6 = re.search(r"(?m)^TCP6: inuse (\d+)", pathlib.Path("/proc/thread-self/net/sockstat6").read_text())
        tcp = [ln.split() for ln in pathlib.Path("/proc/thread-self/net/snmp").read_text().splitlines()
               if ln.startswith("Tcp:")]
    numbers = dict(zip(tcp[0], tcp[1], strict=True))
    return {"inuse": inuse[1], "inuse6": inuse6[1]} | {k: numbers[k] for k in (
        "CurrEstab", "ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets")}


def test_statistics_after_many_moves(connect):
    """32 connections of three kinds move 160 times, which is 10,240 migrations: no count has changed, no state
    event was raised, and when they are closed nothing is left."""
    first = connect("a global", rtt=0)
    lab = first.lab
    empty = [statistics(h) for h in first.hosts]
    kinds = [("4", "4"), ("mapped", "4"), ("6", "6"), ("4", "mapped")]
    all_ends = [connect("a global", like=first, a=kinds[i % 4][0], b=kinds[i % 4][1]) for i in range(31)]
    here, there = lab.a.point, lab.a.attach("core")
    before = [statistics(h) for h in first.hosts]
    events = pathlib.Path("/sys/kernel/tracing/events/sock/inet_sock_set_state/enable")
    trace = events.parents[3] / "trace"
    trace.write_text("")
    events.write_text("1")
    with lab.a.family() as family:
        for i in range(1, 161):
            for old, new in ((here.v4, there.v4), (here.v6, there.v6)):
                family.migrate_all(*((old, new) if i % 2 else (new, old)))
            wait_for(f"move {i}", lambda n=i: all(
                c["migrations"] == n and c["state"] == "idle"
                for h in (lab.a, lab.b) for c in h.connections()), 20, 0.002)
    events.write_text("0")
    seen = [ln for ln in trace.read_text().splitlines() if "inet_sock_set_state" in ln]
    assert [statistics(h) for h in first.hosts] == before
    assert seen == []
    for ends in [first, *all_ends]:
        ends.talk(2000)
    for ends in all_ends:
        ends.a.shutdown(socket.SHUT_WR)
        assert ends.b.recv(1) == b""
        ends.close_second("a")
        ends.listener.close()
    left = [statistics(h) for h in first.hosts]
    for now, then in zip(left, empty, strict=True):
        assert {k: now[k] for k in ("inuse", "inuse6", "CurrEstab")} == \
            {k: then[k] for k in ("inuse", "inuse6", "CurrEstab")}
    first.talk()
