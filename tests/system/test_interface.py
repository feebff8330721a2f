# SPDX-License-Identifier: GPL-2.0-or-later
"""What programs and administrators see of it, and can tell it.

The netlink family, spoken to by genl.py and, where built, migrate-ctl; socket
options, inet_diag, the tracepoint; who takes part, where a program has to ask.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import socket
import struct
import threading
import time

import pytest

from tcplab import genl, programs
from tcplab.topology import CTL, wait_for
from test_moves import settled
from test_options import Ends
from traffic import Idle
from wire import PORT, RST, Losing, Pair, Raw, changed
from wire import settled as pair_settled

TCP = socket.IPPROTO_TCP
TCP_MIGRATE, TCP_MIGRATE_INFO, TCP_MIGRATE_TO = 60, 61, 62
INET_DIAG_INFO, INET_DIAG_MIGRATE = 2, 23       # a bit of a request, a number of an answer
INFO = struct.Struct("=BBBBIIII")
AT = {"a": "g2", "b": "g1", "s": "core"}


def test_both_ends_tell_the_same(make_lab):
    """What one end calls local the other calls remote."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    a, b = lab.a.connection(traffic.port), lab.b.connection(traffic.port)
    assert (a["local-addr"], a["local-port"]) == (b["remote-addr"], b["remote-port"])
    assert (a["remote-addr"], a["remote-port"]) == (b["local-addr"], b["local-port"])
    assert (a["token-local"], a["token-remote"]) == (b["token-remote"], b["token-local"])
    assert (a["role"], b["role"]) == (1, 0)
    assert a["state"] == b["state"] == "idle"
    assert (a["peer-nat"], b["peer-nat"]) == (0, 0)


def test_napt_is_seen(make_lab):
    """B sees that A is behind a NAPT, and A's own address."""
    lab = make_lab(at={"a": "n1"})
    traffic = Idle(lab)
    b = lab.b.connection(traffic.port)
    assert b["peer-nat"] == 1
    assert b["peer-inner-addr"] == lab.a.v4


def test_exporter_is_the_same_at_both_ends(make_lab):
    """And differs between connections."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    values = []
    for host in (lab.a, lab.b):
        with host.family() as family:
            cookie = host.connection(traffic.port)["cookie"]
            values += [family.call("export", cookie=cookie)[0]["exporter"]]
    assert values[0] == values[1] and len(values[0]) == 64


def test_migrate_one(make_lab):
    """One connection, by its cookie."""
    lab = make_lab(at={"a": "g1"})
    traffic = Idle(lab)
    new = lab.a.attach("g2")
    with lab.a.family() as family:
        family.migrate(lab.a.connection(traffic.port)["cookie"], new_local_addr=new.v4)
    settled(lab.a, traffic.port, 1)
    assert lab.a.connection(traffic.port)["local-addr"] == new.v4
    traffic.finish()


@contextlib.contextmanager
def watching(host, quiet=2):
    """The events of a host, complete when the block is left and nothing has happened for a while."""
    seen: list[genl.Attrs] = []

    def collect():
        with contextlib.suppress(OSError):      # if the block is left by an exception
            seen.extend(family.events(timeout=quiet))

    with host.family() as family:
        thread = threading.Thread(target=collect)
        thread.start()
        time.sleep(0.1)
        yield seen
        thread.join()


def test_events(make_lab):
    """A move is told step by step."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    with watching(lab.a) as seen:
        lab.a.move("g2")
        settled(lab.a, traffic.port, 1)
    states = [e["state"] for e in seen]
    assert states[:1] == ["mig-sent"] and states[-1] == "idle"
    assert any(e["reason"] == "committed" for e in seen)


def reasons(seen):
    return [e["reason"] for e in seen]


def test_no_route_is_told(make_lab):
    """The request waits for a route, and says so."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    new = lab.a.attach("g2")
    lab.a.ip(f"route replace unreachable default table {new.table} metric 0")
    with watching(lab.a) as seen:
        with lab.a.family() as family:
            family.migrate(lab.a.connection(traffic.port)["cookie"], new_local_addr=new.v4)
        assert lab.a.connection(traffic.port)["reason"] == "no-route"
        lab.a.ip(f"route replace default via {lab.segment('g2').gw4} dev {new.dev} table {new.table} metric 0")
        settled(lab.a, traffic.port, 1)
    assert reasons(seen)[0] == "no-route" and reasons(seen)[-1] == "committed"
    assert "command" not in reasons(seen)


def test_silence_is_told(make_lab):
    """Retransmissions without an answer: from the first time-out on that is 3 s after they began, at each.

    Nothing else happens, and nothing more is told when the path is back.
    """
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair:
        with watching(lab.a, quiet=60) as seen:
            with Losing(lab.net):
                began = time.monotonic()
                pair.a.sendall(b"lost")
                times = []
                for n in (1, 2):
                    wait_for(f"event {n}", lambda count=n: len(seen) >= count, 30, 0.001)
                    times.append(time.monotonic() - began)
            assert pair.b.recv(10) == b"lost"
        rto = 0.25      # about; doubled four times before 3 s are over, as of the first repetition
        assert times[0] == pytest.approx(31 * rto / 2, rel=0.1) and times[1] == pytest.approx(63 * rto / 2, rel=0.1)
        # The third is told just before the repetition that arrives.
        assert [(e["state"], e["reason"]) for e in seen] == [("idle", "stalled")] * 3
        assert pair.conn(lab.a)["reason"] == "agreed"
        pair.unharmed()


@pytest.mark.virtual
def test_silence_during_a_trial_is_told(make_lab):
    """The path that a trial keeps may die while nobody answers the trial either."""
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair:
        new = lab.a.attach("g2")
        with Losing(lab.net), watching(lab.a, quiet=5) as seen:
            with lab.a.family() as family:
                family.migrate(pair.conn(lab.a)["cookie"], new_local_addr=new.v4, flags=genl.TRIAL)
            began = time.monotonic()
            pair.a.sendall(b"lost")
            wait_for("an event", lambda: "stalled" in reasons(seen), 30, 0.001)
            assert time.monotonic() - began < 5
        assert [(e["state"], e["reason"]) for e in seen][:2] == [("mig-sent", "command"), ("mig-sent", "stalled")]
        assert pair.b.recv(10) == b"lost"
        pair.talk()


def test_refused_request_is_told_once(make_lab):
    """A box answers MSYNs by resets for some time."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    new = lab.a.attach("g2")
    lab.net.run(["nft", "-f", "-"], input=f"""table inet refusing {{ chain f {{ type filter hook forward priority 0;
        ip saddr {new.v4} tcp flags syn reject with tcp reset;
    }}\n }}\n""")
    before = lab.a.counters()
    with watching(lab.a) as seen:
        with lab.a.family() as family:
            family.migrate(lab.a.connection(traffic.port)["cookie"], new_local_addr=new.v4)
        wait_for("two refusals", lambda: changed(lab.a, before).get("RstHint", 0) > 1, 10)
        lab.net.run("nft delete table inet refusing")
        settled(lab.a, traffic.port, 1)
    assert reasons(seen)[:2] == ["command", "rst-hint"] and reasons(seen)[-1] == "committed"
    assert reasons(seen).count("rst-hint") == 1


def test_asked_where_it_is_through_the_napt_of_the_peer(make_lab):
    """A's NAPT lets no SYN of B in and resets it; B asks without at once."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    traffic = Idle(lab)
    with watching(lab.b) as seen:
        before = time.monotonic()
        with lab.b.family() as family:
            family.migrate(lab.b.connection(traffic.port)["cookie"])
        wait_for("an answer", lambda: lab.b.connection(traffic.port)["state"] == "idle", 10)
        took = time.monotonic() - before
    assert reasons(seen)[:2] == ["command", "rst-hint"] and reasons(seen)[-1] == "committed"
    assert took == pytest.approx(0.025 + 0.05 + 0.05, abs=0.006)
    assert lab.b.counters()["MsynSent"] == 2
    traffic.finish()


def test_napt_of_the_peer_is_told(make_lab):
    """B hears when A moves behind a NAPT, and when it leaves; not when it stays behind one."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    traffic = Idle(lab)
    for i, (place, told) in enumerate((("n1", 1), ("n2", 0), ("g2", 1))):
        with watching(lab.b) as seen:
            lab.a.move(place)
            settled(lab.b, traffic.port, i + 1)
        assert reasons(seen).count("peer-nat") == told, place
        assert reasons(seen)[-1] == "committed"


def test_abort(make_lab):
    """The program and the peer see a reset at once."""
    lab = make_lab(rtt=0.05, at={"a": "g2"})
    traffic = Idle(lab)
    with lab.a.family() as family:
        family.abort(lab.a.connection(traffic.port)["cookie"])
    wait_for("ssh to end", lambda: traffic.child.poll() is not None, 1)
    wait_for("B's connection to be gone", lambda: lab.b.connections() == [], 1)


@pytest.mark.parametrize("case", ["no such cookie", "no such address", "not ours"])
def test_refusals(make_lab, case):
    """A command that cannot be carried out says so and changes nothing."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    cookie = lab.a.connection(traffic.port)["cookie"]
    with lab.a.family() as family:
        if case == "no such cookie":
            with pytest.raises(OSError) as error:
                family.migrate(cookie + 12345, new_local_addr=lab.a.v4)
            assert error.value.errno == errno.ENOENT
        elif case == "no such address":
            assert family.migrate_all("198.51.100.99", lab.a.v4).get("count", 0) == 0
        else:
            with pytest.raises(OSError) as error:
                family.migrate(cookie, new_local_addr="198.51.100.99")
            assert error.value.errno == errno.EADDRNOTAVAIL
    assert lab.a.connection(traffic.port)["migrations"] == 0
    traffic.finish()


def test_commands_need_the_right(make_lab):
    """An unprivileged user can move nothing."""
    lab = make_lab(at={"a": "g2"})
    traffic = Idle(lab)
    cookie = lab.a.connection(traffic.port)["cookie"]
    done = lab.a.run(["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", genl.__file__,
                      "migrate", str(cookie), lab.a.v4], check=False)
    assert done.returncode != 0 and "not permitted" in done.stderr
    traffic.finish()


def test_migrate_ctl_lists_the_same(make_lab):
    """libtcpmigrate and genl.py, two implementations, see the same connections."""
    lab = make_lab(at={"a": "n1"})
    traffic = Idle(lab)
    assert CTL.is_file(), "build/bin/migrate-ctl is missing: run make tools"
    listed = json.loads(lab.a.run([str(CTL), "-j", "list"]).stdout)
    mine = lab.a.connection(traffic.port)
    assert str(mine["local-port"]) in json.dumps(listed)
    assert mine["local-addr"] in json.dumps(listed)
    traffic.finish()


def command(function, *args, **kw):
    """errno of a command, 0 if it was accepted."""
    try:
        function(*args, **kw)
    except OSError as e:
        return e.errno
    return 0


def sockaddr(v4, port):
    """struct sockaddr_storage of an IPv4 address."""
    return struct.pack("=HH4s120x", socket.AF_INET, socket.htons(port), socket.inet_aton(v4))


def move_self(sock, v4, port, remote=bytes(128)):
    """TCP_MIGRATE_TO: a program moves its own connection."""
    sock.setsockopt(TCP, TCP_MIGRATE_TO, sockaddr(v4, port) + remote + struct.pack("=II", 0, 0))


@pytest.mark.parametrize("way", ["netlink", "socket option", "migrate-ctl"])
def test_local_port_is_kept(make_lab, way):
    """A command that names another local port is refused, and changes nothing; its own port may be named."""
    lab = make_lab(rtt=0.05, at={"a": "g1"})
    with Pair(lab) as pair:
        before, conn = lab.a.counters(), pair.conn(lab.a)
        new, port = lab.a.attach("g2"), conn["local-port"]
        errors = [errno.EOPNOTSUPP, 0]
        if way == "netlink":
            with lab.a.family() as family:
                got = [command(family.call, "migrate", cookie=conn["cookie"], new_local_addr=new.v4, new_local_port=p)
                       for p in (port + 1, port)]
        elif way == "socket option":
            got = [command(move_self, pair.a, new.v4, p) for p in (port + 1, port)]
        else:
            ctl = [str(CTL), "migrate", str(conn["cookie"]), "--to-local"]
            done = lab.a.run([*ctl, f"{new.v4}:{port + 1}"], check=False)
            assert "keeps its local port" in done.stderr
            again = lab.a.run([*ctl, new.v4], check=False)
            got, errors = [done.returncode != 0, again.returncode], [True, 0]
        assert got == errors
        pair_settled(pair, lab.a, 1)
        assert changed(lab.a, before)["MsynSent"] == 1
        assert (pair.conn(lab.a)["local-addr"], pair.conn(lab.a)["local-port"]) == (new.v4, port)
        pair.talk()


@pytest.mark.parametrize("way", ["netlink", "socket option", "migrate-ctl"])
def test_new_remote_port(make_lab, way):
    """B's port is forwarded from another one now; A is told, and B notices nothing but a request."""
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair:
        cookie = pair.conn(lab.a)["cookie"]
        rules = (f"ip saddr {lab.b.v4} tcp sport {PORT} tcp sport set 8100; tcp dport {PORT} drop; "
                 f"tcp dport 8100 tcp dport set {PORT}")
        with Losing(lab.net, rules):
            if way == "netlink":
                with lab.a.family() as family:
                    family.migrate(cookie, new_remote_port=8100)
            elif way == "socket option":
                move_self(pair.a, lab.a.v4, 0, sockaddr(lab.b.v4, 8100))
            else:
                lab.a.run([str(CTL), "migrate", str(cookie), "--to-remote", f"{lab.b.v4}:8100"])
            pair_settled(pair, lab.a, 1)
            pair_settled(pair, lab.b, 1)
            assert pair.a.getpeername() == (lab.b.v4, 8100)
            assert pair.b.getpeername() == (lab.a.v4, pair.port)
            pair.unharmed(moves=1)


# ---- One connection ----

def names(conn):
    """The ways to name a connection."""
    ends = {k.replace("-", "_"): conn[k] for k in ("local-addr", "local-port", "remote-addr", "remote-port")}
    mapped = {k: f"::ffff:{v}" if "addr" in k else v for k, v in ends.items()}
    return [{"cookie": conn["cookie"]}, {"token": conn["token-local"]}, ends, mapped,
            {"cookie": conn["cookie"], "token": conn["token-local"], **ends}]


def steady(conn):
    """What does not change while nothing happens."""
    return {k: v for k, v in conn.items() if not k.endswith("-ms")}


def test_get_one(make_lab):
    """By cookie, token, addresses and ports, or all of them: that of the dump, and no other."""
    lab = make_lab(at=AT)
    with Pair(lab) as pair, Pair(lab, 7101), lab.a.family() as family:
        conn = pair.conn(lab.a)
        for name in names(conn):
            assert [steady(c) for c in family.call("get", **name)] == [steady(conn)], name
        assert conn["inode"] == os.fstat(pair.a.fileno()).st_ino
        assert conn["uid"] == 0 and "left-ms" not in conn and "new-local-addr" not in conn


@pytest.mark.virtual
def test_get_while_it_waits(make_lab):
    """Where it wants to go, and how long it waits, is told only then."""
    lab = make_lab(at=AT)
    lab.a.sysctl("net.tcp_migrate.syn_retries", 1)
    with Pair(lab) as pair, Losing(lab.net), lab.a.family() as family:
        old, new = lab.a.v4, lab.a.attach("g2")
        family.migrate(pair.conn(lab.a)["cookie"], new_local_addr=new.v4)
        conn = pair.conn(lab.a)
        assert (conn["state"], conn["local-addr"], conn["new-local-addr"]) == ("mig-sent", old, new.v4)
        assert "left-ms" not in conn
        wait_for("A to wait", lambda: pair.conn(lab.a)["state"] == "mig-wait", 10)
        time.sleep(100)
        conn = family.call("get", local_addr=new.v4, local_port=pair.port, remote_addr=lab.b.v4, remote_port=PORT)[0]
        assert conn["left-ms"] + conn["age-ms"] == 900_000
        assert conn["age-ms"] == pytest.approx(100_000, abs=50)


def bad_names(conn):
    """Names of nothing, each with its error."""
    _, _, ends, _, _ = names(conn)
    cookie, token = conn["cookie"], conn["token-local"]
    yield errno.EINVAL, {}
    yield errno.EINVAL, {"cookie": 0}
    yield errno.EINVAL, {k: v for k, v in ends.items() if k != "remote_port"}
    yield errno.EINVAL, {"local_addr": conn["local-addr"]}
    yield errno.EINVAL, {"cookie": cookie, "state": 1}      # told, never asked for
    yield errno.ENOENT, {"cookie": cookie + 12345}
    yield errno.ENOENT, {"token": token ^ 1}
    yield errno.ENOENT, {"token": conn["token-remote"]}
    yield errno.ENOENT, ends | {"local_port": conn["local-port"] ^ 1}
    yield errno.ENOENT, {"cookie": cookie, "token": token ^ 1}
    yield errno.ENOENT, {"cookie": cookie + 12345, "token": token}
    yield errno.ENOENT, {"cookie": cookie, "remote_addr": conn["local-addr"]}


def test_get_errors(make_lab):
    """What names none, or contradicts itself, has its error."""
    lab = make_lab(at=AT)
    with Pair(lab) as pair, lab.a.family() as family:
        conn = pair.conn(lab.a)
        for expected, name in bad_names(conn):
            assert command(family.call, "get", **name) == expected, name
        # An address of five bytes, and a cookie of four.
        numbers = {name: number for number, name in genl.ATTR.items()}
        wrong = [genl.attribute(numbers["cookie"], bytes(4)),
                 *(genl.attribute(numbers["local-addr"], bytes(n)) for n in (3, 5, 17))]
        assert [command(lambda a=a: list(family.request(1, a))) for a in wrong] == [errno.EINVAL] * 4


def test_get_by_anybody(make_lab):
    """Without privilege all is told but the tokens, which cannot be guessed either."""
    lab = make_lab(at=AT)
    with Pair(lab) as pair:
        conn = pair.conn(lab.a)

        def get(name):
            return lab.a.run(["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", genl.__file__,
                              "get", name], check=False)
        got = json.loads(get(str(conn["cookie"])).stdout)
        assert steady(got) == {k: v for k, v in steady(conn).items() if not k.startswith("token-")}
        right, wrong = (get(f"token:{conn['token-local'] ^ change}") for change in (0, 1))
        assert "not permitted" in right.stderr and right.stderr == wrong.stderr


# ---- TCP_MIGRATE_INFO, inet_diag, the tracepoint ----

def info(sock, size=INFO.size):
    """struct tcp_migrate_info"""
    return sock.getsockopt(TCP, TCP_MIGRATE_INFO, size)


def diag(host, port):
    """The same, of inet_diag, for each connection with this local port; None where there is none."""
    with host.inside():
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
    request = struct.pack("=BBBBI48x", socket.AF_INET, TCP, INET_DIAG_INFO, 0, 0xFFFFFFFF)
    found = []
    with sock:
        sock.send(struct.pack("=IHHII", 16 + len(request), 20, 0x301, 1, 0) + request)
        more = True
        while more:
            data = sock.recv(1 << 16)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                more = kind == 20
                if more and struct.unpack_from("!H", data, 20)[0] == port:
                    found.append(dict(genl.attributes(data[16 + 72:size])).get(INET_DIAG_MIGRATE))
                data = data[(size + 3) & ~3:]
    return found


def as_told(conn):
    """What struct tcp_migrate_info has to be, but for the times."""
    state, = (number for number, name in genl.STATE.items() if name == conn["state"])
    reason, = (number for number, name in genl.REASON.items() if name == conn["reason"])
    return state, reason, conn["role"], conn["peer-nat"], conn["reqno"], conn["migrations"]


def test_info(make_lab):
    """The program, inet_diag and netlink tell the same of each end, before and after a move and while it waits."""
    lab = make_lab(rtt=0.05, at={"a": "n1", "b": "g1"})
    with Pair(lab) as pair:
        def same():
            for host, sock in ((lab.a, pair.a), (lab.b, pair.b)):
                told = info(sock)
                port = sock.getsockname()[1]
                assert INFO.unpack(told)[:6] == as_told(pair.conn(host))
                assert told in diag(host, port)
            return INFO.unpack(info(pair.a))[:6], INFO.unpack(info(pair.b))[:6]

        assert same() == ((1, 1, 1, 0, 0, 0), (1, 1, 0, 1, 0, 0))
        lab.a.move("n2")
        pair_settled(pair, lab.a, 1)
        pair_settled(pair, lab.b, 1)
        assert same() == ((1, 4, 1, 0, 1, 1), (1, 4, 0, 1, 1, 1))
        age = INFO.unpack(info(pair.a))[6]
        time.sleep(10)
        assert INFO.unpack(info(pair.a))[6] == pytest.approx(age + 10_000, abs=10)
        assert INFO.unpack(info(pair.a))[7] == 0
        lab.a.sysctl("net.tcp_migrate.syn_retries", 1)
        with Losing(lab.net):
            lab.a.move("n1")
            wait_for("A to wait", lambda: INFO.unpack(info(pair.a))[0] == 4, 10)
            same()
            *_, age, left = INFO.unpack(info(pair.a))
            assert age + left == 900_000


def test_info_of_a_plain_connection(make_lab):
    """All is zero, a short buffer gets what has room, and inet_diag says nothing of it."""
    lab = make_lab(at=AT)
    with Pair(lab) as pair:
        assert [len(info(pair.a, n)) for n in (1, 4, INFO.size, 100)] == [1, 4, INFO.size, INFO.size]
        assert info(pair.a, 4) == info(pair.a)[:4] != bytes(4)
    lab.a.sysctl("net.tcp_migrate.enabled", 0)
    with Pair(lab, 7101) as pair:
        assert info(pair.a) == info(pair.b) == info(pair.listener) == bytes(INFO.size)
        assert diag(lab.a, pair.port) == [None] and set(diag(lab.b, 7101)) == {None}
        assert pair.a.getsockopt(TCP, TCP_MIGRATE) == pair.b.getsockopt(TCP, TCP_MIGRATE) == 0


TRACING = pathlib.Path("/sys/kernel/tracing")
TRACED = re.compile(r"tcp_migrate_state: \[(\S+)\]:(\d+) \[(\S+)\]:(\d+) (\S+) -> (\S+) reason=(\d+) reqno=(\d+)")


@contextlib.contextmanager
def traced():
    """What the tracepoint says: [(tuple, old state, new state, reason, ReqNo)], when the block is left."""
    told = []
    (TRACING / "trace").write_text("")
    switch = TRACING / "events/tcp_migrate/tcp_migrate_state/enable"
    switch.write_text("1")
    try:
        yield told
    finally:
        switch.write_text("0")
    for laddr, lport, raddr, rport, old, new, reason, reqno in TRACED.findall((TRACING / "trace").read_text()):
        told.append(((laddr, int(lport), raddr, int(rport)), old, new, genl.REASON[int(reason)], int(reqno)))


def test_tracepoint(make_lab):
    """Every change of state at both ends is traced, with the tuple of that moment; none while it is off."""
    lab = make_lab(rtt=0.05, at=AT)
    a, b = f"::ffff:{lab.a.v4}", f"::ffff:{lab.b.v4}"
    with traced() as told:
        pair = Pair(lab)
        lab.a.move("g2")
        for host in (lab.a, lab.b):
            pair_settled(pair, host, 1)
    new = f"::ffff:{lab.a.v4}"
    assert [t for t in told if t[0][0] in (a, new)] == [
        ((a, pair.port, b, PORT), "NONE", "IDLE", "agreed", 0),
        ((a, pair.port, b, PORT), "IDLE", "MIG_SENT", "command", 1),
        ((new, pair.port, b, PORT), "MIG_SENT", "MIG_CONFIRM", "committed", 1),
        ((new, pair.port, b, PORT), "MIG_CONFIRM", "IDLE", "committed", 1)]
    assert [t for t in told if t[0][0] == b] == [
        ((b, PORT, a, pair.port), "NONE", "IDLE", "agreed", 0),
        ((b, PORT, new, pair.port), "IDLE", "IDLE", "committed", 1)]
    with pair:
        before = (TRACING / "trace").read_text()
        lab.a.move("g2")
        pair_settled(pair, lab.a, 2)
        assert (TRACING / "trace").read_text() == before


# ---- Why ----

def story(seen):
    """The states and reasons of events."""
    return [(e["state"], e["reason"]) for e in seen]


def test_beginning_and_end_are_told(make_lab):
    """Both ends tell that they agree, and that both programs have closed."""
    lab = make_lab(rtt=0.05, at=AT)
    with watching(lab.a) as at_a, watching(lab.b) as at_b, Pair(lab) as pair:
        pair.a.close()
        assert pair.b.recv(1) == b""
        pair.b.close()
    for seen in (at_a, at_b):
        assert story(seen) == [("idle", "agreed"), ("none", "closed")]
        assert "error" not in seen[-1] and seen[0]["cookie"] == seen[1]["cookie"]


@pytest.mark.parametrize("how", ["reset", "abort"])
def test_reset_is_told(make_lab, how):
    """Who ends it and whom the signed RST reaches tell why, and the error."""
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair, watching(lab.a) as at_a, watching(lab.b) as at_b:
        if how == "reset":
            pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            pair.b.close()
        else:
            with lab.b.family() as family:
                family.abort(pair.conn(lab.b)["cookie"])
        with pytest.raises(ConnectionResetError):
            pair.a.recv(1)
    assert story(at_b) == [("none", "closed" if how == "reset" else "aborted")]
    assert story(at_a) == [("none", "rst-auth")]
    assert at_a[0]["error"] == at_b[0]["error"] == errno.ECONNRESET


def forge(pair):
    """S resets A's end, in B's name."""
    pair.learn()
    raw = Raw(pair.lab.s)
    raw.send([pair.to_a(RST, ack=0)])
    raw.close()


def test_forged_reset_is_told(make_lab):
    """A waits because of an RST, until B's answer; B hears a request on the path that it has."""
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair:
        with watching(lab.a) as at_a, watching(lab.b) as at_b:
            forge(pair)
        assert story(at_a) == [("mig-wait", "rst"), ("mig-confirm", "committed"), ("idle", "committed")]
        assert story(at_b) == [("idle", "path-alive")]
        pair.unharmed()


def test_path_that_lives_is_told(make_lab):
    """A waits because of an RST; what B says meanwhile shows that the path lives."""
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair:
        before = lab.a.counters()
        with watching(lab.a) as seen, Losing(lab.net, f"ip saddr {lab.a.v4}") as losing:
            forge(pair)
            losing.lost()
            pair.say(pair.b, pair.a, 1000)
        assert story(seen) == [("mig-wait", "rst"), ("idle", "path-alive")]
        assert changed(lab.a, before)["WaitAlive"] == 1
        pair.unharmed()


@pytest.mark.virtual
def test_request_in_vain_is_told(make_lab):
    """Nobody answers: A waits, and in the end gives up, with an error for the program; both are told and counted."""
    lab = make_lab(rtt=0.05, at=AT)
    lab.a.sysctl("net.tcp_migrate.syn_retries", 1)
    lab.a.sysctl("net.tcp_migrate.wait_silence", 40)
    with Pair(lab) as pair:
        before = lab.a.counters()
        with watching(lab.a, quiet=100) as seen, Losing(lab.net):
            lab.a.move("g2")
            wait_for("A to wait", lambda: pair.conn(lab.a)["state"] == "mig-wait", 10, 0.001)
            began = time.monotonic()
            with pytest.raises(TimeoutError) as error:
                pair.a.recv(1)
            assert 40 <= time.monotonic() - began < 41
        assert error.value.errno == errno.ETIMEDOUT
        assert story(seen) == [("mig-sent", "command"), ("mig-wait", "timeout"), ("none", "closed")]
        assert seen[-1]["error"] == errno.ETIMEDOUT
        assert changed(lab.a, before)["WaitTimeout"] == 1


@pytest.mark.virtual
@pytest.mark.parametrize("first", ["probe", "peer"])
def test_retransmissions_in_vain_are_told(make_lab, first):
    """TCP gives up: A waits because of that, and when the path is back its data arrive; its probe or B finds out."""
    lab = make_lab(rtt=0.05, at=AT)
    lab.a.sysctl("net.ipv4.tcp_retries2", 3)
    with Pair(lab) as pair:
        with watching(lab.a, quiet=20) as seen:
            with Losing(lab.net):
                pair.a.sendall(b"anybody there?")
                wait_for("A to wait", lambda: pair.conn(lab.a)["state"] == "mig-wait", 60)
            if first == "peer":
                pair.say(pair.b, pair.a, 1000)
            pair.hear(pair.b, b"anybody there?")
        back = [("mig-confirm", "committed"), ("idle", "committed")] if first == "probe" else [("idle", "path-alive")]
        assert story(seen) == [("idle", "stalled"), ("mig-wait", "retries"), *back]
        pair.unharmed()


@pytest.mark.virtual
@pytest.mark.parametrize("trial", [False, True], ids=["move", "trial"])
def test_tuple_that_is_taken_meanwhile(make_lab, trial):
    """While A's request is under way another program of A connects from there: that is told, and all stays."""
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair:
        cookie, new, before = pair.conn(lab.a)["cookie"], lab.a.attach("g2"), lab.a.counters()
        with lab.a.inside():
            other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((new.v4, pair.port))
        other.setblocking(False)
        with watching(lab.a, quiet=20) as seen:
            with lab.a.family() as family:
                family.migrate(cookie, new_local_addr=new.v4, flags=genl.TRIAL if trial else None)
            time.sleep(0.01)
            with Losing(lab.net, f"ip saddr {new.v4} tcp flags & syn == syn"):
                other.connect_ex((lab.b.v4, PORT))
                counter = "TrialFailed" if trial else "TupleInUse"
                wait_for("A to find it taken", lambda: changed(lab.a, before).get(counter), 10)
                pair.talk()
        other.close()
        assert changed(lab.a, before)[counter] == 1
        assert pair.a.getsockname()[0] != new.v4
        found = [("mig-confirm", "peer"), ("mig-sent", "timeout")] if trial else [("mig-wait", "tuple-in-use")]
        assert story(seen) == [("mig-sent", "command"), *found, ("mig-confirm", "committed"), ("idle", "committed")]


# ---- Who takes part ----

# What A's and B's sysctl say; what the programs say with TCP_MIGRATE, in this order; whether A asks, and gets it.
OPT_IN = {
    "nobody asks": (1, 1, [], [], False, False),
    "the client asks": (1, 1, [1], [], True, False),
    "the server asks": (1, 1, [], [1], False, False),
    "both ask": (1, 1, [1], [1], True, True),
    "the client takes it back": (1, 1, [1, 0], [1], False, False),
    "the server takes it back": (1, 1, [1], [1, 0], True, False),
    "the client asks, the server need not": (1, 2, [1], [], True, True),
    "the server asks, the client need not": (2, 1, [], [1], True, True),
    "nobody need ask": (2, 2, [], [], True, True),
    "the client does not want it": (2, 2, [0], [], False, False),
    "the server does not want it": (2, 2, [], [0], True, False),
    "they do after all": (2, 2, [0, 1], [0, 1], True, True),
    "the client is switched off": (0, 2, [0], [], False, False),
    "the server is switched off": (2, 0, [], [], True, False),
}


def wishes(values):
    """Options of a socket, one after the other."""
    return [(TCP_MIGRATE, v) for v in values]


@pytest.mark.parametrize("case", OPT_IN)
def test_opting_in(make_lab, case):
    """Only if both ends want it is a connection migratable; accepted sockets follow their listener."""
    at_a, at_b, client, server, asks, gets = OPT_IN[case]
    lab = make_lab(rtt=0.05, at=AT)
    lab.a.sysctl("net.tcp_migrate.enabled", at_a)
    lab.b.sysctl("net.tcp_migrate.enabled", at_b)
    with Ends(lab, client=wishes(client), server=wishes(server)) as pair:
        assert lab.a.counters()["PermitSent"] == asks
        assert lab.b.counters()["PermitSent"] == gets
        if not gets:
            assert not pair.b.getsockopt(TCP, TCP_MIGRATE)
            pair.is_plain()
            return
        assert pair.believe() == (True, True, True) and pair.b.getsockopt(TCP, TCP_MIGRATE) == 1
        for host in (lab.a, lab.b):
            host.move(host.point.place)
            pair_settled(pair, host, 1 if host is lab.a else 2)
        pair.talk()


def test_opting_in_errors(make_lab):
    """What cannot be asked for is an error, what need not be is none; a plain socket says 0."""
    lab = make_lab(at=AT)
    errors = {}
    for enabled in (0, 1, 2):
        lab.a.sysctl("net.tcp_migrate.enabled", enabled)
        with lab.a.inside(), socket.socket() as sock:
            errors[enabled] = [command(sock.setsockopt, TCP, TCP_MIGRATE, v) for v in (0, 1, 2, -1, b"\1\0")]
            assert sock.getsockopt(TCP, TCP_MIGRATE) == 0
    wrong = [errno.EINVAL] * 3
    assert errors == {0: [0, errno.EOPNOTSUPP, *wrong], 1: [0, 0, *wrong], 2: [0, 0, *wrong]}


def test_switched_off_later(make_lab):
    """What has agreed keeps it, and moves; what is new is plain."""
    lab = make_lab(rtt=0.05, at=AT)
    with Pair(lab) as pair:
        for host in (lab.a, lab.b):
            host.sysctl("net.tcp_migrate.enabled", 0)
        with Pair(lab, 7101) as plain:
            assert plain.a.getsockopt(TCP, TCP_MIGRATE) == 0
            assert len(lab.a.connections()) == len(lab.b.connections()) == 1
        for i, host in enumerate((lab.a, lab.b)):
            host.move(host.point.place)
            pair_settled(pair, lab.a, i + 1)
            pair_settled(pair, lab.b, i + 1)
        pair.unharmed(moves=2)


class Echo:
    """socat, which knows nothing of migration, on one host, as client or server of a socket on the other."""

    def __init__(self, lab, end, port, prefix=()):
        host = lab.hosts[end]
        if end == "a":
            with lab.b.inside(), socket.create_server(("0.0.0.0", port)) as listener:
                listener.settimeout(10)
                self.child = host.popen([*prefix, "socat", f"TCP4:{lab.b.v4}:{port}", "EXEC:cat"])
                self.sock = listener.accept()[0]
        else:
            self.child = host.popen([*prefix, "socat", f"TCP4-LISTEN:{port},reuseaddr", "EXEC:cat"])
            programs.listening(host, port, self.child)
            with lab.a.inside():
                self.sock = socket.create_connection((lab.b.v4, port), 10)
        self.lab, self.port = lab, port
        self.sock.settimeout(60)
        for _ in range(3):
            self.says()
            time.sleep(0.1)

    def says(self):
        """What it is told comes back."""
        data = os.urandom(1000)
        self.sock.sendall(data)
        Pair.hear(self.sock, data)

    def migratable(self):
        """Whether both kernels say so."""
        both = [any(self.port in (c["local-port"], c["remote-port"]) for c in host.connections())
                for host in (self.lab.a, self.lab.b)]
        assert both[0] == both[1]
        return both[0]

    def end(self):
        """The program ends."""
        self.sock.close()
        self.child.wait(60)


def asking(make_lab, end):
    """A lab in which programs need not ask but at one end, where the extension is switched off."""
    lab = make_lab(rtt=0.05, at=AT)
    lab.hosts[end].sysctl("net.tcp_migrate.enabled", 0)
    return lab


def moved(lab, *echoes):
    """A has moved, with these."""
    lab.a.move("g2")
    for echo in echoes:
        for host in (lab.a, lab.b):
            settled(host, echo.port, 1)
        echo.says()


@pytest.mark.parametrize("end", ["a", "b"], ids=["client", "server"])
def test_run(make_lab, end):
    """migrate-ctl run: an unmodified program's connection is migratable; one beside it is plain."""
    lab = asking(make_lab, end)
    echo = Echo(lab, end, PORT, [str(CTL), "run", "--"])
    assert echo.migratable() and lab.hosts[end].sysctl("net.tcp_migrate.enabled") == "1"
    plain = Echo(lab, end, PORT + 1)
    assert not plain.migratable()
    plain.end()
    moved(lab, echo)
    echo.end()
    assert echo.child.returncode == 0
    assert list(pathlib.Path("/sys/fs/cgroup").glob("migrate-ctl-*")) == []


@pytest.mark.parametrize("end", ["a", "b"], ids=["client", "server"])
def test_cgroup(make_lab, end):
    """migrate-ctl enable --cgroup: for programs in it, not for others, and not for those begun after disable."""
    lab = asking(make_lab, end)
    host = lab.hosts[end]
    group = pathlib.Path("/sys/fs/cgroup") / end
    group.mkdir()
    inside = ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "-"]
    before = Echo(lab, end, PORT, inside)
    host.run([str(CTL), "enable", "--cgroup", str(group)])
    echo, beside = Echo(lab, end, PORT + 1, inside), Echo(lab, end, PORT + 2)
    host.run([str(CTL), "disable", "--cgroup", str(group)])
    after = Echo(lab, end, PORT + 3, inside)
    assert [e.migratable() for e in (before, echo, beside, after)] == [False, True, False, False]
    for plain in (before, beside, after):
        plain.end()
    moved(lab, echo)
    echo.end()
    group.rmdir()
