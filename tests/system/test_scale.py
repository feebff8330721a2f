# SPDX-License-Identifier: GPL-2.0-or-later
"""Many moves, many connections, both ends at once; and what is lost on the way.

Where nothing need be lost nothing may be late: holes in the data are measured
in captures, on virtual time.
"""

import concurrent.futures
import json
import os
import socket
import time

import pytest

from conftest import VIRTUAL
from crowd import Crowd, Ticks
from tcplab import capture
from tcplab.genl import NO_SYN, TRIAL
from tcplab.topology import wait_for
from test_moves import carry_on, resume
from traffic import STREAMS, Both, Download, Idle, Upload
from wire import ACK, SYN, Losing, Pair, Raw, again, changed

RTT = 0.05
SMALL = 0.006
SIZE = 2 << 20
M32 = 0xFFFFFFFF
# An option of ours that comes first after timestamps; to be followed by the number of its form.
FORM = "tcp flags & syn == 0 @th,160,32 0x0101080a @th,256,8 254 @th,272,16 0x4d49 @th,288,4"
CONFIRM = f"{FORM} 2"


def agree(lab, port):
    """Waits until both ends rest, each where the other takes it to be."""
    def check():
        a, b = lab.a.connection(port), lab.b.connection(port)
        return (a["state"] == b["state"] == "idle"
                and (a["local-addr"], a["remote-addr"]) == (b["remote-addr"], b["local-addr"])
                and (a["local-port"], a["remote-port"]) == (b["remote-port"], b["local-port"]))
    wait_for("both ends to agree on where they are", check, 30)


def grown(segs, port):
    """[time] when the data that came without a gap have grown, for one connection's receiver."""
    out, first, late = [], None, {}
    for seg in segs:
        if seg.out or port not in (seg.sport, seg.dport) or seg.flags & capture.RST:
            continue
        if first is None:
            if seg.flags & SYN:
                first, upto = (seg.seq + 1) & M32, 0
            continue
        if not seg.length or seg.flags & SYN:
            continue
        start = (seg.seq - first) & M32
        late[start] = max(late.get(start, 0), start + seg.length)
        before = upto
        while any(s <= upto < e for s, e in late.items()):
            upto = max(e for s, e in late.items() if s <= upto)
            late = {s: e for s, e in late.items() if e > upto}
        if upto > before:
            out.append(seg.time)
        late = {s: e for s, e in late.items() if e > upto}
    return out


def hole(lab, host, port, since=0.0):
    """The longest time between two data that a host got one after the other, after a moment."""
    times = [t for t in grown(lab.segments(host), port) if t >= since]
    return max(b - a for a, b in zip(times, times[1:]))


def repeated(lab, host, port):
    """Data that a host has sent more than once, in segments."""
    top, count = None, 0
    for seg in lab.segments(host):
        if seg.out and seg.length and port in (seg.sport, seg.dport):
            if top is not None and (seg.seq - top) & M32 > 1 << 31:
                count += 1
            else:
                top = (seg.seq + seg.length) & M32
    return count


# ---- Both ends at once ----

def both_leave(lab, traffic, lead, trial=0):
    """A and B have new addresses at once, and lose the old; A is told lead seconds before B."""
    ends = {}
    old = lab.a.point, lab.b.point
    new = lab.a.attach("g1"), lab.b.attach("g2")
    for host, mine, other in ((lab.a, *new), (lab.b, *new[::-1])):
        attr = "v6" if traffic.v6 else "v4"
        ends[host.name] = (host.family(), host.connection(traffic.port)["cookie"],
                           {"new_local_addr": getattr(mine, attr), "new_remote_addr": getattr(other, attr)})
    lab.a.detach(old[0])
    lab.b.detach(old[1])
    for i, name in enumerate("ab" if lead >= 0 else "ba"):
        if i:
            time.sleep(abs(lead))
        family, cookie, where = ends[name]
        family.migrate(cookie, **where, flags=trial or None)
    for family, _, _ in ends.values():
        family.close()


def test_crossing_requests_are_one_handshake(make_lab):
    """An answer says the number and the nonce of the request that crossed: what is between sees one handshake."""
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"})
    traffic = Both(lab, size=SIZE)
    traffic.until(SIZE // 4)
    both_leave(lab, traffic, 0)
    resume(lab, traffic, RTT)
    agree(lab, traffic.port)
    traffic.finish()
    for host in "ab":
        said = {(seg.migrate[0], seg.seq, seg.options[-1][1][8:12]) for seg in lab.segments(host)
                if seg.out and seg.migrate in (["MREQ"], ["MANS"])}
        assert {what[0] for what in said} == {"MREQ", "MANS"} and len({what[1:] for what in said}) == 1


@pytest.fixture
def crossing(make_lab):
    """Two hosts with an idle connection whose requests are going to cross."""
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"})
    return lab, Idle(lab)


def said(lab):
    """How many segments with our option the two hosts have sent so far."""
    return [len([s for s in capture.read(lab.captures[name].path) if s.out and s.migrate]) for name in "ab"]


@pytest.mark.virtual
@pytest.mark.parametrize("lost", [None, "a", "b"])
def test_crossing_requests_end_in_one_commit(crossing, lost):
    """Each end counts one migration, and when both rest neither has more to say, also if an answer to one was lost."""
    lab, traffic = crossing
    match = "ip saddr 203.0.113.254"
    if lost:
        answers = "tcp flags & (syn | ack) == syn | ack"
        match = f"tcp {'dport' if lost == 'b' else 'sport'} {traffic.port} {answers} limit rate 1/hour burst 1 packets"
    with Losing(lab.net, match):
        both_leave(lab, traffic, 0)
        agree(lab, traffic.port)
        time.sleep(1)
    before = said(lab)
    time.sleep(2)
    assert said(lab) == before
    assert [h.connection(traffic.port)["migrations"] for h in (lab.a, lab.b)] == [1, 1]
    traffic.finish()


LEADS = [-0.9, -0.5, -0.1, 0, 0.1, 0.5, 0.9]
ORDERS = [(kind, lead) for kind in STREAMS for lead in (LEADS if kind in (Download, Upload) else LEADS[::2])]


@pytest.mark.parametrize("kind,lead", ORDERS)
def test_both_move(make_lab, kind, lead):
    """Each is told the other's new address; A so many RTTs before B."""
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"})
    traffic = kind(lab, size=SIZE)
    traffic.until(SIZE // 4)
    both_leave(lab, traffic, lead * RTT)
    resume(lab, traffic, RTT)
    agree(lab, traffic.port)
    traffic.finish()
    assert lab.resets(traffic.port) == []


@pytest.mark.parametrize("kind", [Download, Upload])
def test_both_move_ipv6(make_lab, kind):
    """The same over IPv6, at the same moment."""
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"})
    traffic = kind(lab, v6=True, size=SIZE)
    traffic.until(SIZE // 4)
    both_leave(lab, traffic, 0)
    resume(lab, traffic, RTT)
    agree(lab, traffic.port)
    traffic.finish()
    assert lab.resets(traffic.port) == []


@pytest.mark.parametrize("flags", [0, NO_SYN], ids=["syn", "no syn"])
@pytest.mark.parametrize("kind", [Both, Idle])
def test_crossing_requests_on_the_path_in_use(make_lab, kind, flags):
    """Both ask at once whether the other is where it was."""
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"})
    traffic = kind(lab, size=SIZE)
    traffic.until(SIZE // 4)
    for host in (lab.a, lab.b):
        with host.family() as family:
            family.migrate(host.connection(traffic.port)["cookie"], new_local_addr=host.v4, flags=flags or None)
    traffic.resumed()
    agree(lab, traffic.port)
    traffic.finish()
    assert lab.resets(traffic.port) == []


# ---- Many ----

@pytest.mark.parametrize("kind", [Download, Upload])
def test_a_hundred_moves(make_lab, kind):
    """One after the other, each as soon as the last has carried data, while links lose and reorder."""
    lab = make_lab(rtt=0.02, at={"a": "g2"})
    places = ["g2", "n1", "n2", "g1"]
    for place in places:
        lab.set_link(place, loss=2, reorder=5, delay=0.002)
    traffic = kind(lab, size=4 * SIZE)
    traffic.until(SIZE // 8)
    for i in range(1, 101):
        lab.a.move(places[i % len(places)])
        traffic.resumed()
    traffic.finish()


def drops(lab):
    """What the queues of all hosts and routers have dropped."""
    return sum(q["drops"] for node in [*lab.hosts.values(), *lab.boxes.values()]
               for q in json.loads(node.run("tc -s -j qdisc show").stdout))


@pytest.fixture
def wide(make_lab):
    """A lab whose queues take all that a crowd says at once when it opens; queues() makes them as they are.

    On virtual time a full queue may stay full for ever: TCP, told that a segment was
    dropped, tries again at once if another of the connection is still queued, and while
    it does no time passes.
    """
    lab = make_lab(rtt=0, at={"a": "g2", "b": "g1"})
    queues(lab, 100_000)
    return lab


def queues(lab, limit):
    """All links' queues, in segments."""
    for place in ("g1", "g2", "core"):
        lab.set_link(place, limit=limit)


CROWD = 1000


def test_a_thousand_connections(wide):
    """One command moves them all: not one MSYN is lost, none said twice, and all have moved at once."""
    with Crowd(wide, CROWD) as crowd:
        time.sleep(1)
        queues(wide, 1000)  # as long as those of real devices
        before = [h.counters() for h in (wide.a, wide.b)]
        lost = drops(wide)
        began = time.monotonic()
        wide.a.move("core")
        wait_for("all to have moved", lambda: crowd.settled(wide.a, 1) and crowd.settled(wide.b, 1), 30, 0.01)
        took = time.monotonic() - began
        assert drops(wide) == lost
        there = {"MsynSent": CROWD, "AnswerRcvd": CROWD, "Commit": CROWD}
        here = {"MsynRcvd": CROWD, "AnswerSent": CROWD, "ConfirmRcvd": CROWD, "Commit": CROWD, "CommitPassive": CROWD}
        assert [changed(h, b) for h, b in zip((wide.a, wide.b), before)] == [there, here], f"{took:.3f} s"
        # A thousand MSYNs take 7 ms of the link, and so do the answers and all that follows.
        assert not VIRTUAL or took < 0.05, f"{took:.3f} s"
        queues(wide, 100_000)
        crowd.exchange(5000)


def test_a_short_queue_loses_no_request(wide):
    """The device takes twenty segments, then sends them slowly: the command waits for it, no request is lost."""
    with Crowd(wide, CROWD // 4) as crowd:
        time.sleep(1)
        before = wide.a.counters()
        wide.a.attach("core")
        new, old = wide.a.points[-1], wide.a.points[0]
        wide.a.run(f"tc qdisc replace dev {new.dev} root handle 1: tbf rate 2mbit burst 2000 limit 2000")
        began = time.monotonic()
        wide.migrator(wide.a, old, new, False)
        took = time.monotonic() - began
        wait_for("all to have moved", lambda: crowd.settled(wide.a, 1) and crowd.settled(wide.b, 1), 30, 0.01)
        there = changed(wide.a, before)
        assert there["MsynSent"] == there["Commit"] == CROWD // 4
        assert "MsynRetrans" not in there and "NoRoute" not in there
        # Requests and proofs of about a hundred bytes each, at 2 Mbit/s.
        assert not VIRTUAL or took < 0.25, f"{took:.3f} s"
        wide.a.run(f"tc {wide.link_at('core').netem(new.dev)}")
        wide.a.detach(old)
        crowd.exchange(5000)


def test_a_thousand_busy_connections(wide):
    """All have data under way, both ways, when they move: none is lost, wrong or mixed up."""
    with Crowd(wide, CROWD) as crowd:
        crowd.say(5000)
        crowd.pump(CROWD * 2000)
        wide.a.move("core")
        crowd.pump()
        for host in (wide.a, wide.b):
            wait_for("all to have moved", lambda: crowd.settled(host, 1), 30, 0.05)
        crowd.exchange(500)


# ---- Where nothing need be lost ----

WAYS = {Download: "a", Upload: "b", Both: "ab"}


@pytest.mark.virtual
@pytest.mark.parametrize("kind,place", [(Download, "core"), (Upload, "core"), (Both, "n2")])
def test_make_before_break_at_full_rate(make_lab, kind, place):
    """The new path begins with a small window while the old one's last data arrive: no time-out."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    traffic = kind(lab)
    traffic.until(traffic.size // 4)
    since = time.time()
    lab.a.move(place, make_before_break=True)
    carry_on(lab, traffic, RTT)
    for receiver in WAYS[kind]:
        assert hole(lab, receiver, traffic.port, since) < 4 * RTT


@pytest.fixture
def ticking(make_lab):
    """A connection over which both ends say something every few milliseconds."""
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"})
    with Pair(lab) as pair:
        for sock in (pair.a, pair.b):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair.ticks = [Ticks(pair.a, pair.b), Ticks(pair.b, pair.a)]
        time.sleep(1)
        for tick in pair.ticks:
            tick.gap = 0
        yield pair


def gaps(pair):
    """All that was said has come; the longest times without any."""
    time.sleep(1)
    return [tick.stop() for tick in pair.ticks]


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [
    pytest.param(1.5 * RTT, id="no time-out"),
    pytest.param(5 * Ticks.EVERY, id="no hole")])
def test_make_before_break(ticking, limit):
    """A moves by a trial: how long the programs wait for anything."""
    ticking.lab.a.move("core", make_before_break=True)
    assert max(gaps(ticking)) < limit
    ticking.unharmed(moves=1)


@pytest.mark.virtual
def test_make_before_break_repeats_nothing(ticking):
    """Both paths are alive: not one segment need be sent twice."""
    ticking.lab.a.move("core", make_before_break=True)
    gaps(ticking)
    assert [repeated(ticking.lab, host, ticking.port) for host in "ab"] == [0, 0]


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload])
def test_old_path_has_died_when_a_trial_begins(make_lab, kind):
    """What was in flight there is sent again at once, on the path that was tried."""
    rtt = 0.02
    lab = make_lab(rtt=rtt, at={"a": "g2"})
    traffic = kind(lab, size=SIZE)
    traffic.until(SIZE // 4)
    old, new = lab.a.point, lab.a.attach("core")
    with Losing(lab.net, f"ip saddr {old.v4} counter drop; ip daddr {old.v4} drop"), lab.a.family() as family:
        time.sleep(rtt)
        family.migrate_all(old.v4, new.v4, TRIAL)
        # Two round trips until A commits, one more for B to hear what A has. An RTO takes longer.
        assert traffic.resumed() < 3.2 * rtt
        traffic.finish()


DEAD = {
    "all": "ip saddr {0}",
    "all but SYNs": "ip saddr {0} tcp flags & syn == 0",
    "all answers": "ip daddr {0}",
}


@pytest.mark.virtual
@pytest.mark.parametrize("dead", DEAD)
def test_trial_over_a_dead_path(ticking, dead):
    """It fails, and nobody notices: the old path carries data all the time."""
    lab = ticking.lab
    old, new = lab.a.point, lab.a.attach("core")
    before, other = lab.a.counters(), lab.b.counters()
    with Losing(lab.net, DEAD[dead].format(new.v4)), lab.a.family() as family:
        family.migrate_all(old.v4, new.v4, TRIAL)
        wait_for("the trial to fail", lambda: changed(lab.a, before).get("TrialFailed"), 100)
        agree(lab, ticking.port)
        assert max(gaps(ticking)) < 5 * Ticks.EVERY
    lab.a.detach(new)
    assert "BadSeq" not in changed(lab.b, other)
    ticking.talk()
    assert lab.resets(ticking.port) == []


@pytest.mark.virtual
def test_trial_where_nothing_goes(make_lab):
    """A waits for a path, and is told to try another, which is dead as well: it goes on waiting for the first."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    lab.a.sysctl("net.ipv4.tcp_retries2", 3)
    with Pair(lab) as pair:
        old, new = lab.a.point, lab.a.attach("core")
        with Losing(lab.net):
            pair.a.sendall(b"x" * 5000)
            wait_for("A to wait", lambda: pair.conn(lab.a)["state"] == "mig-wait", 60)
            with lab.a.family() as family:
                family.migrate_all(old.v4, new.v4, TRIAL)
            time.sleep(60)
            assert pair.conn(lab.a)["state"] in ("mig-sent", "mig-wait")
        pair.hear(pair.b, b"x" * 5000)
        agree(lab, pair.port)


@pytest.mark.virtual
def test_command_that_fails_ends_no_attempt(make_lab):
    """B's proof is under way when A is told to try an address from which no route leads: the first move goes on."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    with Pair(lab) as pair:
        new, other = lab.a.attach("core"), lab.a.attach("n1")
        lab.a.ip(f"route replace unreachable default table {other.table} metric 0")
        cookie = pair.conn(lab.a)["cookie"]
        with Losing(lab.net, f"ip daddr {new.v4} tcp flags & syn == 0"), lab.a.family() as family:
            family.migrate(cookie, new_local_addr=new.v4)
            wait_for("A to have moved", lambda: pair.conn(lab.a)["state"] == "mig-confirm", 5, 0.002)
            with pytest.raises(OSError):
                family.migrate(cookie, new_local_addr=other.v4, flags=TRIAL)
            assert pair.conn(lab.a)["state"] == "mig-confirm"
        agree(lab, pair.port)
        conn = pair.conn(lab.a)
        assert (conn["local-addr"], conn["migrations"]) == (new.v4, 1)
        pair.talk()


@pytest.mark.virtual
def test_trial_becomes_a_move_at_once(make_lab):
    """The old path goes while A tries another, and B has sent more meanwhile: the NAPT knows both answers."""
    lab = make_lab(rtt=RTT, at={"a": "n1"})
    traffic = Download(lab, size=SIZE)
    traffic.until(SIZE // 4)
    old, new = lab.a.point, lab.a.attach("n2")
    with lab.a.family() as family:
        family.migrate_all(old.v4, new.v4, TRIAL)
        time.sleep(0.002)
        lab.a.detach(old)
        family.migrate_all(old.v4, new.v4)
    resume(lab, traffic, RTT)
    traffic.finish()
    assert lab.a.connection(traffic.port)["migrations"] == 1 and lab.a.counters()["ConfirmMissing"] == 0


@pytest.mark.virtual
def test_answer_to_the_attempt_before(make_lab):
    """B, whose listener sends cookies by now, makes a move of a trial: what answers the trial is not refused.

    A's answer has an ACK behind it, without option, that opens NAPTs for what it has got. A reset would close them.
    """
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1"})
    traffic = Download(lab)
    traffic.until(traffic.size // 4)
    lab.b.sysctl("net.ipv4.tcp_syncookies", 2)
    old, new = lab.b.point, lab.b.attach("core")
    with lab.b.family() as family:
        family.migrate_all(old.v4, new.v4, TRIAL)
        time.sleep(0.002)
        lab.b.detach(old)
        family.migrate_all(old.v4, new.v4)
    resume(lab, traffic, RTT)
    traffic.finish()
    assert lab.resets(traffic.port) == []
    assert lab.b.counters()["BadAnswer"] == lab.b.counters()["Foreign"] == 1


@pytest.mark.virtual
def test_many_trials_in_vain(make_lab):
    """B hears of none of them, and eight bits of their numbers travel: when one arrives it counts all the same."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    with Pair(lab) as pair:
        old, new = lab.a.point, lab.a.attach("core")
        with Losing(lab.net, f"ip saddr {new.v4} drop"), lab.a.family() as family:
            for trial in range(20):
                before = lab.a.counters()
                family.migrate_all(old.v4, new.v4, TRIAL)
                wait_for(f"trial {trial} to fail", lambda: changed(lab.a, before).get("TrialFailed"), 100, 0.1)
        lab.migrator(lab.a, old, new, False)
        wait_for("A to have moved", lambda: pair.conn(lab.a)["state"] == "idle", 10)
        pair.unharmed(moves=1)


@pytest.mark.virtual
def test_request_that_is_never_proved_is_forgotten(make_lab):
    """B has answered A's trial, and the answer was lost. Two minutes later B's kernel is as fast as before."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})

    def predicted():
        """Acknowledgments that header prediction takes, while B sends a megabyte."""
        def hits():
            lines = [ln.split() for ln in lab.b.run("cat /proc/net/netstat").stdout.splitlines()
                     if ln.startswith("TcpExt:")]
            return int(dict(zip(*lines, strict=True))["TCPHPAcks"])
        before, data = hits(), os.urandom(1 << 20)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(pair.b.sendall, data)
            pair.hear(pair.a, data)
        return hits() - before

    with Pair(lab) as pair:
        lab.a.move("core")
        wait_for("A to have moved", lambda: pair.conn(lab.a)["state"] == "idle", 10)
        assert predicted()
        old, new = lab.a.point, lab.a.attach("g2")
        before = lab.a.counters()
        with Losing(lab.net, f"ip daddr {new.v4} drop"), lab.a.family() as family:
            family.migrate_all(old.v4, new.v4, TRIAL)
            wait_for("the trial to fail", lambda: changed(lab.a, before).get("TrialFailed"), 100, 0.1)
        assert not predicted()
        time.sleep(120)
        assert predicted()


@pytest.mark.virtual
def test_trial_finds_its_way_late(ticking):
    """The new path works only after three seconds: then A moves, and no program has waited."""
    lab = ticking.lab
    old, new = lab.a.point, lab.a.attach("core")
    other = lab.b.counters()
    with Losing(lab.net, f"ip saddr {new.v4}") as losing, lab.a.family() as family:
        family.migrate_all(old.v4, new.v4, TRIAL)
        losing.lost(4, 0.002)
    wait_for("A to have moved", lambda: lab.a.connection(ticking.port)["local-addr"] == new.v4, 20)
    lab.a.detach(old)
    assert "BadSeq" not in changed(lab.b, other)
    assert max(gaps(ticking)) < 1.5 * RTT
    ticking.unharmed(moves=1)


@pytest.mark.virtual
def test_trial_whose_last_step_is_lost(ticking):
    """The peer has committed to a path that does not lead back: it is asked to return on the old one.

    It may have been right to commit, so this takes the repetitions of CONFIRM: 0.2, 0.4 and 0.8 s, however
    much A's RTO has grown meanwhile.
    """
    lab = ticking.lab
    old, new = lab.a.point, lab.a.attach("core")
    before, other = lab.a.counters(), lab.b.counters()
    with Losing(lab.net, f"ip daddr {new.v4} tcp flags & syn == 0"), lab.a.family() as family:
        family.migrate_all(old.v4, new.v4, TRIAL)
        wait_for("B to commit", lambda: changed(lab.b, other).get("CommitPassive"), 10)
        wait_for("the trial to fail", lambda: changed(lab.a, before).get("TrialFailed"), 100)
        agree(lab, ticking.port)
        assert max(gaps(ticking)) < 1.4 + 6 * RTT
    lab.a.detach(new)
    ticking.talk()
    assert lab.resets(ticking.port) == []


# ---- Lost on the way ----

@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload, Idle])
def test_confirm_is_lost(make_lab, kind):
    """The first three: repeated by a timer, though A's program has nothing to say."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    traffic = kind(lab)
    traffic.until(traffic.size // 4)
    count = 3 if kind is not Upload else 12
    with Losing(lab.net, f"ip daddr {lab.b.v4} {CONFIRM}") as losing:
        lab.a.move("core")
        began = time.monotonic()
        losing.lost(count, 0.002)
    if kind is not Idle:
        traffic.resumed()
        # 0.05 + 0.25 + 0.5 + 1: the RTO of the new path doubles twice.
        assert time.monotonic() - began < 2
    carry_on(lab, traffic, RTT)


def moves_on(lab, kind, unheard):
    """A moves, a CONFIRM is not heard, and A, which does not know, moves on; the traffic meanwhile."""
    traffic = kind(lab)
    traffic.until(traffic.size // 4)
    with Losing(lab.net, f"{unheard} {CONFIRM}") as losing:
        lab.a.move("core")
        losing.lost(1, 0.002)
        assert lab.a.connection(traffic.port)["state"] == "mig-confirm"
        lab.a.move("g1")
    return traffic


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload, Both, Idle])
def test_last_ack_is_lost_and_another_move(make_lab, kind):
    """B has committed and A does not know when A moves on."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    carry_on(lab, moves_on(lab, kind, f"ip saddr {lab.b.v4}"), RTT, times=2)


@pytest.mark.virtual
@pytest.mark.parametrize("kind", [Download, Upload, Both, Idle])
def test_confirm_is_lost_and_another_move(make_lab, kind):
    """B has not committed when A moves on: the next request it sees is not the next in number."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    carry_on(lab, moves_on(lab, kind, f"ip daddr {lab.b.v4}"), RTT, times=2, missed=1)


@pytest.mark.virtual
@pytest.mark.parametrize("unheard", ["confirm", "last ack"])
def test_another_move_in_vain(make_lab, unheard):
    """A is told to go to a dead place before it knows that B has followed it, or B has not: there they meet again."""
    lab = make_lab(rtt=RTT, at={"a": "g2"})
    lab.a.sysctl("net.tcp_migrate.syn_retries", 2)
    with Pair(lab) as pair:
        new, dead = lab.a.attach("core"), lab.a.attach("g1")
        cookie = pair.conn(lab.a)["cookie"]
        with lab.a.family() as family, Losing(lab.b, f"ip saddr {dead.v4}", "input"):
            with Losing(lab.net, f"ip {'daddr' if unheard == 'confirm' else 'saddr'} {lab.b.v4} {CONFIRM}") as losing:
                family.migrate(cookie, new_local_addr=new.v4)
                losing.lost(1, 0.002)
                assert pair.conn(lab.a)["state"] == "mig-confirm"
                family.migrate(cookie, new_local_addr=dead.v4)
            pair.a.sendall(b"x" * 5000)
            wait_for("A to wait", lambda: pair.conn(lab.a)["state"] == "mig-wait", 60)
            began = time.monotonic()
            pair.hear(pair.b, b"x" * 5000)
            assert time.monotonic() - began < 16
        agree(lab, pair.port)
        assert pair.conn(lab.a)["local-addr"] == new.v4
        pair.talk()


@pytest.mark.virtual
def test_dead_place_is_left_for_the_one_before(make_lab):
    """A's old place still works when it waits at a dead one, and B has nothing to say: it goes on there."""
    lab = make_lab(rtt=RTT, at={"a": "n1"})
    lab.a.sysctl("net.tcp_migrate.syn_retries", 2)
    with Pair(lab) as pair:
        old, dead = lab.a.point, lab.a.attach("g1")
        with lab.a.family() as family, Losing(lab.b, f"ip saddr {dead.v4}", "input"):
            family.migrate_all(old.v4, dead.v4)
            pair.a.sendall(b"x" * 5000)
            pair.hear(pair.b, b"x" * 5000)
        wait_for("both ends to rest", lambda: {pair.conn(host)["state"] for host in (lab.a, lab.b)} == {"idle"}, 5)
        assert pair.conn(lab.a)["local-addr"] == old.v4
        pair.talk()


# ---- Late segments of another life of a tuple ----

STRAYS = ["data to b", "ack to b", "confirm to b", "data to a", "ack to a"]


def stray(pair, what, first, confirm, seen=""):
    """A segment from the time when A was at its first address (B saw it at another), now on its way again."""
    old = {"seq": (pair.next_a if "to b" in what else pair.next_b) - 3000}
    data = os.urandom(100) if "data" in what else b""
    if what == "confirm to b":
        return again(confirm)
    if "to b" in what:
        return pair.to_b(ACK, src=first, data=data, **old)
    return pair.to_a(ACK, dst=seen, data=data, **old)


@pytest.mark.parametrize("what", STRAYS)
def test_stray_segment_of_an_old_life(make_lab, what):
    """A goes away, comes back to the very address it had, and goes the same way once more.

    What comes late from the first time is neither proof nor data, and is not answered
    by a reset: while A is away, while it returns (just after its MSYN), and when it is back.
    """
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1", "s": "core"})
    with Pair(lab) as pair:
        first = lab.a.point
        pair.talk()
        pair.learn()
        count = len(pair.seen(lab.a))
        second = lab.a.move("core")
        pair.unharmed(moves=1)
        confirm = next(s for s in pair.seen(lab.a)[count:] if s.out and s.migrate == ["CONFIRM"])
        packet = stray(pair, what, first.v4, confirm)
        raw = Raw(lab.s)
        raw.send([packet])
        pair.unharmed(moves=1)
        lab.a.move("g2", v4=first.v4, v6=first.v6)
        raw.send([packet])
        pair.unharmed(moves=2)
        raw.send([packet])
        lab.a.move("core", v4=second.v4, v6=second.v6)
        raw.send([packet])
        pair.unharmed(moves=3)
        raw.close()
        assert not any(s.out and s.flags & capture.RST for h in (lab.a, lab.b) for s in pair.seen(h))


@pytest.mark.virtual
@pytest.mark.parametrize("what", STRAYS)
def test_stray_segment_through_a_napt(make_lab, what):
    """A goes behind a NAPT, leaves it and returns; what is late of its first stay there comes through the NAPT.

    Just after A's request it confuses the NAPT about what is acknowledged; only another request puts that right.
    """
    lab = make_lab(rtt=RTT, at={"a": "g2", "b": "g1", "s": "n1"})
    with Pair(lab) as pair:
        count = len(pair.seen(lab.a))
        inside = lab.a.move("n1")
        rests(pair, 1)
        pair.talk()
        pair.learn()
        outside = pair.conn(lab.b)["remote-addr"]
        confirm = next(s for s in pair.seen(lab.a)[count:] if s.out and s.migrate == ["CONFIRM"])
        packet = stray(pair, what, inside.v4, confirm, outside)
        raw = Raw(lab.s if "to b" in what else lab.b)
        lab.a.move("g2")
        rests(pair, 2)
        raw.send([packet])
        pair.talk()
        began = time.monotonic()
        lab.a.move("n1", v4=inside.v4, v6=inside.v6)
        raw.send([packet])
        rests(pair, 3, 4)
        # CONFIRM in vain, after 0, 0.2, 0.6, 1.4 and 2.4 s; another request after 3.4 s.
        assert time.monotonic() - began < 3.4 + 0.2 + 3 * RTT
        assert lab.a.counters()["ConfirmMissing"] == 1, "the NAPT was not confused"
        raw.send([packet])
        pair.talk()
        raw.close()
        assert not any(s.out and s.flags & capture.RST for h in (lab.a, lab.b) for s in pair.seen(h))


def rests(pair, *moves):
    """Both ends come to rest after one of these numbers of migrations."""
    for host in (pair.lab.a, pair.lab.b):
        def done(host=host):
            conn = pair.conn(host)
            return conn["state"] == "idle" and conn["migrations"] in moves
        wait_for(f"{host.name} to rest", done, 20)
