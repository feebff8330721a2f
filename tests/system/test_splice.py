# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends move to where neither can reach the other, and ask a proxy for each other.

S splices their requests (splicer.py): what each gets for an answer is the other's
request. It is not bound to what was asked, so nobody may move before the other
has proved that it heard. Through S a round trip takes two RTTs.
"""

import collections
import dataclasses
import socket
import struct
import time

import pytest

from conftest import VIRTUAL
from crowd import Ticks
from splicer import Splicer
from tcplab import craft
from tcplab.genl import TRIAL
from tcplab.topology import wait_for
from test_keys import SECRET, key
from traffic import STREAMS, Both, Idle
from wire import ACK, Losing, Pair, again, changed, inject

RTT = 0.05
AT = {"a": "g2", "b": "core", "s": "g1"}     # no two of them, and no NAPT and S, share a segment
NAPTS = {"a": "n1", "b": "n2"}
SIZE = 2 << 20
# Requests, answers, CONFIRMs: half an RTT, another, and one as long as the way through S.
JOINED = 2 * RTT


def joining(lab, port, v6=False):
    """The box on S, told of the connection with this port."""
    token = {name: lab.hosts[name].connection(port)["token-local"] for name in "ab"}
    return Splicer(lab.s, {token["b"]: "a", token["a"]: "b"}, v6)


def ask(lab, name, port, new, flags=0):
    """An end asks S for the other, from a place where it is already."""
    attr = "v6" if ":" in lab.hosts[name].connection(port)["local-addr"] else "v4"
    with lab.hosts[name].family() as family:
        family.migrate(lab.hosts[name].connection(port)["cookie"], new_local_addr=getattr(new, attr),
                       new_remote_addr=getattr(lab.s, attr), flags=flags or None)


def leave(lab, port, places=None, flags=0, lag=0.0):
    """Those who leave go elsewhere, and then ask, B so much later; when the last has. In a trial old paths stay."""
    places = places or NAPTS
    old = {name: lab.hosts[name].point for name in places}
    new = {name: lab.hosts[name].attach(place) for name, place in places.items()}
    if not flags & TRIAL:
        for name, point in old.items():
            lab.hosts[name].detach(point)
    for name, point in new.items():
        if name == "b":
            time.sleep(lag)
        ask(lab, name, port, point, flags)
    return time.monotonic()


def rest(lab, port, moves=1, timeout=20):
    """Waits until both ends have moved so often and rest."""
    for host in (lab.a, lab.b):
        def done(host=host):
            conn = host.connection(port)
            return (conn["migrations"], conn["state"]) == (moves, "idle")
        wait_for(f"{host.name} to rest after {moves} migrations", done, timeout, 0.002)


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", STREAMS)
def test_both_go_behind_napts(make_lab, kind, v6):
    """Each sends one request, gets one answer and one proof; the programs' transfer goes on, by way of S."""
    lab = make_lab(rtt=RTT, at=AT)
    traffic = kind(lab, v6=v6, size=SIZE)
    traffic.until(SIZE // 4)
    with joining(lab, traffic.port, v6) as box:
        before = [host.counters() for host in (lab.a, lab.b)]
        leave(lab, traffic.port)
        took = traffic.resumed()
        # CONFIRM says what the peer has, so that the first data are new. A program that waits for an echo hears it
        # one way later.
        limit = JOINED + (2 if kind is Idle else 1) * RTT
        assert not VIRTUAL or took < limit + 0.02, f"{took:.4f} s, not {limit:.4f} s"
        rest(lab, traffic.port)
        for host, was in zip((lab.a, lab.b), before):
            count = changed(host, was)
            assert {name: count.get(name, 0) for name in ("MsynSent", "AnswerRcvd", "ConfirmRcvd", "Commit")} == {
                "MsynSent": 1, "AnswerRcvd": 1, "ConfirmRcvd": 1, "Commit": 1}
            assert not {"MsynRetrans", "CommitPassive", "BadConfirm", "ConfirmMissing"} & set(count)
            assert host.connection(traffic.port)["remote-addr"] == (lab.s.v6 if v6 else lab.s.v4)
        traffic.finish()
        assert box.answers == 2
        assert lab.resets(traffic.port) == []


# ---- What is lost or comes twice ----

@pytest.fixture
def pair(make_lab):
    """A connection over which both ends say something every few milliseconds, and the box."""
    lab = make_lab(rtt=RTT, at=AT)
    with Pair(lab) as p, joining(lab, p.port) as p.box:
        for sock in (p.a, p.b):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        p.ticks = [Ticks(p.a, p.b), Ticks(p.b, p.a)]
        time.sleep(1)
        for tick in p.ticks:
            tick.gap = 0
        yield p
        for tick in p.ticks:
            tick.ending.set()


def said(pair):
    """How many segments with our option each end has sent so far."""
    return [len([s for s in pair.seen(host) if s.out and s.migrate]) for host in (pair.lab.a, pair.lab.b)]


def finished(pair):
    """All that programs said has come; the longest time without any. The ends have no more to say of the move."""
    time.sleep(1)
    before = said(pair)
    longest = max(tick.stop() for tick in pair.ticks)
    pair.talk()
    assert said(pair) == before
    assert pair.lab.resets(pair.port) == []
    return longest


def losing(*what):
    """Loses these, each as often as it is named."""
    left = collections.Counter(what)

    def loses(kind, who):
        left[kind, who] -= 1
        return left[kind, who] >= 0
    return loses


# What is lost, and until when both ends have moved: MSYN is repeated after an RTO (the RTT and 200 ms), CONFIRM
# after 0.2, 0.6, ... s; what answers it comes the way through S later.
LOST = {
    "nothing": ([], JOINED),
    "confirm of a": ([("confirm", "a")], JOINED + 0.2 + RTT),
    "confirm of b": ([("confirm", "b")], JOINED + 0.2 + RTT),
    "both confirms": ([("confirm", "a"), ("confirm", "b")], JOINED + 0.2 + RTT),
    "first two of a": ([("confirm", "a")] * 2, JOINED + 0.6 + RTT),
    "answer to a": ([("answer", "a")], JOINED + 0.45 + RTT),
    "answer to b": ([("answer", "b")], JOINED + 0.45 + RTT),
    "both answers": ([("answer", "a"), ("answer", "b")], JOINED + 0.25 + RTT),
    "answer to a, confirm of a": ([("answer", "a"), ("confirm", "a")], JOINED + 0.85 + 2 * RTT),
}


@pytest.mark.virtual
@pytest.mark.parametrize("lost", LOST)
def test_lost(pair, lost):
    """What is lost is said again, by whoever misses something, and no attempt is begun anew."""
    lab = pair.lab
    what, limit = LOST[lost]
    pair.box.loses = losing(*what)
    began = leave(lab, pair.port)
    rest(lab, pair.port)
    took = time.monotonic() - began
    assert took < limit + 0.02, f"{took:.4f} s, not {limit:.4f} s"
    # What the first to move says is not heard before the other has moved as well, and said again after an RTO.
    longest = finished(pair)
    assert longest < limit + RTT + 0.4, f"{longest:.4f} s"
    assert [host.counters()["ConfirmMissing"] for host in (lab.a, lab.b)] == [0, 0]


@pytest.mark.virtual
def test_all_confirms_lost(pair):
    """Then neither moves: both ask anew, and are spliced anew."""
    lab = pair.lab
    pair.box.loses = lambda what, who: what == "confirm"
    leave(lab, pair.port)
    wait_for("both to have asked again", lambda: min(h.counters()["ConfirmMissing"] for h in (lab.a, lab.b)), 10)
    assert [h.counters()["Commit"] for h in (lab.a, lab.b)] == [0, 0]
    pair.box.loses = losing()
    began = time.monotonic()
    rest(lab, pair.port)
    # A's new request was answered with B's old one, which is none; after an RTO it asks again.
    assert time.monotonic() - began < 1 + 4 * RTT
    finished(pair)


@pytest.mark.virtual
def test_round_trips_are_not_the_time_until_the_other_asks_anew(pair):
    """B hears nothing and asks anew after a second, which A takes for the answer; A's CONFIRM for it is lost."""
    lab = pair.lab
    pair.box.loses = lambda what, who: (what, who) == ("answer", "b") or what == "confirm"
    leave(lab, pair.port)
    time.sleep(1)
    pair.box.loses = lambda what, who: what == "confirm"
    ask(lab, "b", pair.port, lab.b.point)
    time.sleep(JOINED)
    pair.box.loses = losing()
    began = time.monotonic()
    rest(lab, pair.port)
    assert time.monotonic() - began < 0.6
    finished(pair)


@pytest.mark.parametrize("what", ["answer", "confirm"])
def test_comes_twice(pair, what):
    """The second one may be answered, since the first answer may be lost; but not for ever."""
    lab = pair.lab
    before = said(pair)
    pair.box.copies[what] = 2
    leave(lab, pair.port)
    rest(lab, pair.port)
    time.sleep(1)
    after = said(pair)
    # MSYN, a CONFIRM for each answer, and not more answers than a CONFIRM that nobody hears has repetitions.
    assert max(now - was for now, was in zip(after, before)) <= 1 + 2 + 4
    time.sleep(1)
    assert said(pair) == after
    finished(pair)


def test_answers_that_come_late(pair):
    """When all is done already they are no answers, and are not answered."""
    lab = pair.lab
    leave(lab, pair.port)
    rest(lab, pair.port)
    time.sleep(4 * RTT)
    before, sent = [host.counters() for host in (lab.a, lab.b)], said(pair)
    for who in "ab":
        pair.box.answer(who)
    time.sleep(1)
    assert [changed(host, was) for host, was in zip((lab.a, lab.b), before)] == [{"BadAnswer": 1}] * 2
    assert said(pair) == sent
    rest(lab, pair.port)
    finished(pair)


# ---- What an unbound answer proves ----

def test_nobody_moves_without_proof(pair):
    """A SYN,ACK that anybody can make of the peer's request moves nobody: not until the peer's CONFIRM comes."""
    lab = pair.lab
    pair.box.loses = lambda what, who: what == "confirm"
    old = [host.point for host in (lab.a, lab.b)]
    leave(lab, pair.port)
    time.sleep(2 * JOINED)
    for host, other, was in zip((lab.a, lab.b), reversed(old), old):
        conn = host.connection(pair.port)
        assert (conn["state"], conn["migrations"], conn["remote-addr"]) == ("mig-confirm", 0, other.v4)
        assert conn["local-addr"] == was.v4
    pair.box.loses = losing()
    rest(lab, pair.port)
    finished(pair)


def test_an_old_request_is_no_answer(pair):
    """A moves once more and asks; B's request of before is refused, that of now is taken."""
    lab = pair.lab
    leave(lab, pair.port)
    rest(lab, pair.port)
    before = lab.a.counters()
    leave(lab, pair.port, {"a": "n3"})
    time.sleep(2 * RTT)
    count = changed(lab.a, before)
    assert count["BadReqNo"] >= 1 and not {"AnswerRcvd", "Commit"} & set(count)
    ask(lab, "b", pair.port, lab.b.point)
    rest(lab, pair.port, 2)
    finished(pair)


def test_number_of_a_splice_is_the_higher(pair):
    """A has asked in vain before, B has not: what A asked then is old for B as well."""
    lab = pair.lab
    with Losing(lab.net, f"ip daddr {lab.s.v4} tcp flags & syn == syn"):
        leave(lab, pair.port, {"a": "n1"})
        for _ in range(2):
            ask(lab, "a", pair.port, lab.a.point)
    leave(lab, pair.port, {"a": "n3", "b": "g2"})
    rest(lab, pair.port)
    requests = [s for s in pair.seen(lab.a) if s.out and s.migrate == ["MREQ"]]
    assert [s.options[-1][1][3] for s in requests] == [1, 2, 3, 4]
    before = lab.b.counters()
    inject(lab.s, *(again(s, lab.s.v4, lab.b.v4, sport=5555) for s in requests))
    count = changed(lab.b, before)
    assert (count["BadReqNo"], count.get("MsynRcvd", 0)) == (4, 0)
    rest(lab, pair.port)
    finished(pair)


def test_ends_use_different_keys(pair):
    """A asks with the strong key, B, which has it too, not yet: each proves itself with its own."""
    lab = pair.lab
    for host in (lab.a, lab.b):
        key(pair, host, "add", secret=SECRET)
    key(pair, lab.a, "promote")
    leave(lab, pair.port)
    rest(lab, pair.port)
    ids = {name: {s.options[-1][1][2] & 3 for s in pair.seen(lab.hosts[name])
                  if s.out and s.migrate in (["MREQ"], ["CONFIRM"])} for name in "ab"}
    assert ids == {"a": {1}, "b": {0}}
    finished(pair)


# ---- Before and after ----

@pytest.mark.virtual
def test_one_asks_later(pair):
    """A repeats its request until B asks as well; that is the moment when both are joined."""
    lab = pair.lab
    began = leave(lab, pair.port, lag=1)
    rest(lab, pair.port)
    assert time.monotonic() - began < JOINED + 0.02
    assert finished(pair) < 1 + JOINED + RTT + 0.02


@pytest.mark.virtual
def test_trial(pair):
    """Both keep their paths while S joins them: no program waits longer than the new way is."""
    lab = pair.lab
    leave(lab, pair.port, flags=TRIAL)
    rest(lab, pair.port)
    assert finished(pair) < 1.5 * RTT


def test_move_through_the_box(make_lab):
    """Once they are joined, S passes A's next request to B, and the answer: that move is between the ends."""
    lab = make_lab(rtt=RTT, at=AT)
    traffic = Both(lab, size=SIZE)
    traffic.until(SIZE // 4)
    with joining(lab, traffic.port) as box:
        leave(lab, traffic.port, {"a": "n1", "b": "g2"})
        traffic.resumed()
        rest(lab, traffic.port)
        box.splices = False
        leave(lab, traffic.port, {"a": "n2"})
        traffic.resumed()
        rest(lab, traffic.port, 2)
        assert lab.b.counters()["CommitPassive"] == 1
        traffic.finish()
        assert lab.resets(traffic.port) == []


def test_asked_from_both_places(pair):
    """A's request comes to B by the box, and once more from where A was, without SYN: A has moved all the same."""
    lab = pair.lab
    leave(lab, pair.port)
    rest(lab, pair.port)
    pair.box.splices, pair.box.passes = False, [without_syn(pair.box, mss=False), without_syn(pair.box, mss=True)]
    leave(lab, pair.port, {"a": "g2"})
    rest(lab, pair.port, 2)
    assert lab.b.connection(pair.port)["reason"] == "committed"
    finished(pair)


def without_syn(box, mss):
    """Of a request, what the symmetric proxy makes of it; or what its asker would say on a path that is in use."""
    def changed_so(heard):
        head = craft.layout(heard.packet)[1]
        tcp = bytearray(heard.packet[head:])
        tcp[13] = ACK
        struct.pack_into("!I", tcp, 8, box.acked[heard.seg.sport])
        if not mss:
            at = tcp.index(b"\x02\x04", 20)
            tcp[at:at + 4] = b"\x01" * 4
        return dataclasses.replace(heard, packet=heard.packet[:head] + bytes(tcp))
    return changed_so
