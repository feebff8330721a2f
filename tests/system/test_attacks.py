# SPDX-License-Identifier: GPL-2.0-or-later
"""What strangers, replayers and malicious peers send: no connection is harmed.

A and B are at global places of their own, S is the stranger, at a third. Each
test says which counter moves, and that S gets no more than it has sent.
"""

import contextlib
import errno
import os
import socket
import threading
import time

import pytest

from tcplab import capture, craft, genl
from tcplab.topology import wait_for
from wire import (ACK, CONFIRM, FIN, LENGTHS, MANS, PORT, RST, SETTLE, SYN, Losing, Pair, Raw, again, changed,
                  families, inject, option, settled, size)

RTT = 0.05
AT = {"a": "g2", "b": "g1", "s": "core"}


@pytest.fixture
def pair(make_lab, request):
    """A connection between A and B, RTT apart, of which S knows all that was seen."""
    lab = make_lab(rtt=RTT, at=AT)
    with Pair(lab, a=getattr(request, "param", "4")) as p:
        p.learn()
        yield p


def send(pair, *packets):
    """S sends, and everything it causes has happened when this returns."""
    inject(pair.lab.s, *packets)


def strange(pair, sport=0):
    """(sent, got): the segments of S, but for its kernel's own RSTs to answers it did not ask for."""
    time.sleep(0.02)
    segs = [s for s in capture.read(pair.lab.captures["s"].path) if not sport or sport in (s.sport, s.dport)]
    return [s for s in segs if s.out and not s.flags & RST], [s for s in segs if not s.out]


def no_more_than_sent(pair):
    """One reply at most for each segment of S, and no larger; returns the replies."""
    sent, got = strange(pair)
    assert len(got) <= len(sent), got
    assert max(map(size, got), default=0) <= max(map(size, sent), default=0)
    return got


# ---- Requests that are refused ----

REFUSED = {
    "unknown token": ("NoToken", lambda p: {"token": p.token_b ^ 1}),
    "token of the other end": ("NoToken", lambda p: {"token": p.token_a}),
    "wrong mac": ("BadMac", lambda p: {"wrong": True}),
    "reflected role": ("BadRole", lambda p: {"flags": 0}),
    "key id not installed": ("BadKey", lambda p: {"flags": 8 | 1}),
    "seq far behind": ("BadSeq", lambda p: {"seq": p.next_a - (1 << 30)}),
    "seq far ahead": ("BadSeq", lambda p: {"seq": p.next_a + (1 << 30)}),
    "old number": ("BadReqNo", lambda p: {"reqno": 0}),
}


@families("4", "6")
@pytest.mark.parametrize("case", REFUSED)
def test_request_is_refused(pair, case):
    """From S's own address: one RST, one counter, and B stays where it is."""
    counter, how = REFUSED[case]
    before, other = pair.lab.b.counters(), pair.lab.a.counters()
    send(pair, pair.msyn(pair.at(pair.lab.s), 5555, **how(pair)))
    assert changed(pair.lab.b, before) == {counter: 1}
    got = no_more_than_sent(pair)
    assert [s.flags for s in got] == [RST | ACK]
    pair.unharmed()
    assert changed(pair.lab.a, other) == {}


@families("4", "6")
@pytest.mark.parametrize("case", [c for c in REFUSED if "token" not in c])
def test_request_on_the_path_in_use_is_not_answered(pair, case):
    """In A's name: an RST would harm A."""
    counter, how = REFUSED[case]
    before, other = pair.lab.b.counters(), pair.lab.a.counters()
    send(pair, pair.msyn(pair.at(pair.lab.a), **how(pair)))
    assert changed(pair.lab.b, before) == {counter: 1}
    assert changed(pair.lab.a, other) == {}
    assert not any(s.out and s.flags & RST for s in pair.seen(pair.lab.b))
    pair.unharmed()


@families("4", "6")
@pytest.mark.parametrize("flags", [ACK, SYN | ACK], ids=["ack", "synack"])
@pytest.mark.parametrize("whose", ["b", "s"])
def test_answer_to_nothing_asked(pair, flags, whose):
    """A good MANS, in B's name or from elsewhere: counted, never answered."""
    before = pair.lab.a.counters()
    count = len(pair.seen(pair.lab.a))
    opt = pair.mreq(pair.token_a, pair.next_b - 1, sub=MANS, flags=0)
    send(pair, pair.to_a(flags, src=pair.at(pair.lab.hosts[whose]), seq=pair.next_b - 1, options=opt))
    assert changed(pair.lab.a, before) == {"BadAnswer": 1}
    assert len(pair.seen(pair.lab.a)) == count + 1
    pair.unharmed()


@families("4", "6")
@pytest.mark.parametrize("end", ["a", "b"])
def test_confirm_of_nothing(pair, end):
    """CONFIRM with a MAC of zeros before any migration: no answer, hence no loop of ACKs."""
    victim = pair.lab.hosts[end]
    before = victim.counters()
    count = len(pair.seen(victim))
    opt = option(CONFIRM, 8 if end == "b" else 0, bytes(19))
    send(pair, *[(pair.to_b if end == "b" else pair.to_a)(ACK, options=opt)] * 10)
    assert changed(victim, before) == {"BadConfirm": 10}
    segs = pair.seen(victim)[count:]
    assert len(segs) == 10 and not any(s.out for s in segs), segs
    pair.unharmed()


# ---- Replay and reflection ----

def moved(pair, place="g1"):
    """A moves; the MSYN it has sent, as everybody on the new path has seen it."""
    lab = pair.lab
    count = len(pair.seen(lab.a))
    lab.a.move(place)
    settled(pair, lab.a, 1)
    settled(pair, lab.b, 1)
    return next(s for s in pair.seen(lab.a)[count:] if s.out and s.migrate == ["MREQ"])


@families("4", "6", "mapped")
def test_replayed_request_after_the_migration(pair):
    """Once more from a third host: its number is not newer."""
    msyn = moved(pair)
    before = pair.lab.b.counters()
    send(pair, again(msyn, src=pair.at(pair.lab.s)))
    assert changed(pair.lab.b, before) == {"BadReqNo": 1}
    assert [s.flags for s in no_more_than_sent(pair)] == [RST | ACK]
    pair.unharmed(moves=1)


@families("4", "6")
def test_reflected_request(pair):
    """A's own MSYN comes back to it: it is for B's token, not for one of A's."""
    msyn = moved(pair)
    before = pair.lab.a.counters()
    send(pair, again(msyn, src=pair.at(pair.lab.s), dst=msyn.src))
    assert changed(pair.lab.a, before) == {"NoToken": 1}
    assert [s.flags for s in no_more_than_sent(pair)] == [RST | ACK]
    pair.unharmed(moves=1)


def said(pair, count, option):
    """The first segment with this option that A has sent, of those behind the first count of its capture."""
    return wait_for(option, lambda: next((s for s in pair.seen(pair.lab.a)[count:]
                                          if s.out and s.migrate == [option]), None), 5)


def both_moved(pair):
    """Both ends have committed to A's move, once, and are none the worse."""
    for host in (pair.lab.a, pair.lab.b):
        settled(pair, host, 1)
    pair.unharmed(moves=1)


@families("4", "6", "mapped")
@pytest.mark.parametrize("bare", [
    pytest.param(False, id="as it was"),
    pytest.param(True, id="without other options")])
def test_replayed_request_before_the_migration(pair, bare):
    """A's MSYNs get lost, S sends one in its own name: an answer, no larger, and no migration.

    A, when its way is free again, moves all the same.
    """
    lab = pair.lab
    count = len(pair.seen(lab.a))
    before = lab.b.counters()
    with Losing(lab.net, "tcp flags & (syn|ack) == syn ip saddr 198.51.100.0/24 drop; "
                         "tcp flags & (syn|ack) == syn ip6 saddr 2001:db8:a1::/64 drop"):
        lab.a.move("g1")
        msyn = said(pair, count, "MREQ")
        if bare:
            msyn.options = [o for o in msyn.options if o[0] == 254]
        send(pair, again(msyn, src=pair.at(lab.s)))
        got = no_more_than_sent(pair)
        assert len(got) == 1 and got[0].migrate == ["MANS"]
        delta = changed(lab.b, before)
        assert (delta["MsynRcvd"], delta["AnswerSent"], delta.get("Commit", 0)) == (1, 1, 0)
    both_moved(pair)


@families("4", "6")
def test_replayed_request_and_proof(pair):
    """A's CONFIRM is lost; S, who has repeated A's request, repeats it too: it proves nothing for S's address."""
    lab = pair.lab
    count = len(pair.seen(lab.a))
    before = lab.b.counters()
    others = f"tcp dport {PORT} tcp flags & syn == 0"
    with Losing(lab.net, f"{others} ip saddr != {lab.s.v4} drop; {others} ip6 saddr != {lab.s.v6} drop"):
        lab.a.move("core")
        confirm = said(pair, count, "CONFIRM")
        msyn = next(s for s in pair.seen(lab.a)[count:] if s.migrate == ["MREQ"])
        for seg in (msyn, confirm):
            send(pair, again(seg, src=pair.at(lab.s)))
        delta = changed(lab.b, before)
        assert (delta["MsynRcvd"], delta["BadConfirm"], delta.get("Commit", 0)) == (2, 1, 0)
    both_moved(pair)


@families("4", "6")
def test_data_on_the_tuple_under_negotiation(pair):
    """S, in B's name, sends A data to where A is going; without proof they are not B's."""
    lab = pair.lab
    before = lab.a.counters()
    with Losing(lab.net, f"tcp sport {PORT} tcp flags & (syn | ack) == (syn | ack)"):
        lab.a.move("core")
        time.sleep(RTT)
        assert pair.conn(lab.a)["state"] == "mig-sent"
        send(pair, pair.to_a(ACK, data=b"forged"))
        assert changed(lab.a, before)["Foreign"] == 1
    both_moved(pair)


def test_many_replays_are_answered_sparingly(pair):
    """A good request a hundred times: twenty-one answers a second, then silence."""
    before = pair.lab.b.counters()
    packet = pair.msyn(pair.lab.s.v4, 5555)
    send(pair, *[packet] * 100)
    delta = changed(pair.lab.b, before)
    assert delta["MsynRcvd"] == 100 and "Commit" not in delta
    assert delta["AnswerSent"] + delta["ReplyLimit"] == 100
    assert delta["AnswerSent"] <= 1 + 2 * 20
    assert len(no_more_than_sent(pair)) == delta["AnswerSent"]
    pair.unharmed()


def test_replays_from_many_places_do_not_hinder_the_owner(pair):
    """S sees A's MSYN and repeats it from other ports, before B has it and after: A moves as if nobody had."""
    lab = pair.lab
    lab.box("n1").tc("qdisc replace dev to-n1 root netem delay 25ms")
    count = len(pair.seen(lab.a))
    began = time.monotonic()
    lab.a.move("n1")
    msyn = wait_for("an MSYN", lambda: next((s for s in list(capture.read(lab.captures["a"].path))[count:]
                                             if s.out and s.migrate == ["MREQ"]), None), 1, 0.001)
    raw = Raw(lab.s)
    for first in (6000, 7000):
        raw.send([again(msyn, src=lab.s.v4, sport=first + i) for i in range(4)])
        time.sleep(RTT)
    raw.close()
    settled(pair, lab.a, 1)
    took = time.monotonic() - began
    assert took < 6 * RTT, f"{took:.3f} s"
    pair.talk()


def test_replays_from_many_places_are_no_amplification(pair):
    """One good request from a hundred ports: one answer each, none longer; then silence, and A moves.

    A limit over all tuples would let the copies use up the owner's answer.
    """
    lab = pair.lab
    before = lab.b.counters()
    copies = [pair.msyn(lab.s.v4, 6000 + i) for i in range(100)]
    send(pair, *copies)
    assert len(no_more_than_sent(pair)) == 100
    assert changed(lab.b, before)["AnswerSent"] == 100
    pair.unharmed()


# ---- Floods ----

def test_flood_does_not_hinder_the_owner(pair):
    """2,000 MSYNs with a known token and a wrong MAC, while A migrates."""
    lab = pair.lab
    before = lab.b.counters()
    packets = [pair.msyn(lab.s.v4, 10000 + i, wrong=True, nonce=i) for i in range(2000)]
    raw = Raw(lab.s)
    flood = threading.Thread(target=raw.send, args=(packets,))
    flood.start()
    time.sleep(0.05)
    lab.a.move("g1")
    settled(pair, lab.a, 1)
    assert flood.is_alive(), "the flood was over before the migration"
    flood.join()
    raw.close()
    settled(pair, lab.b, 1)
    time.sleep(SETTLE)
    delta = changed(lab.b, before)
    assert (delta["BadMac"], delta["CommitPassive"], delta["MsynRcvd"]) == (2000, 1, 1)
    assert len(no_more_than_sent(pair)) == 2000 - delta["ReplyLimit"] <= 3 * 20
    assert lab.a.counters().get("MsynRetrans") == 0
    pair.unharmed(moves=1)


# ---- Options that are none ----

def malformed(well):
    """Options of our kind of every length and form; well: those a form has, or all others."""
    for length in range(41):
        for sub in range(16):
            if (LENGTHS.get(sub) == length) == well:
                # Random, but for the version of PERMIT; nothing after it, which might be another option.
                body = (b"" if sub else b"\0") + os.urandom(40)
                opt = bytes([254, length, 0x4D, 0x49, sub << 4]) + body[:max(0, length - 5)]
                yield opt + bytes(max(8, (length + 3) & ~3) - len(opt))


KINDS = {"syn": SYN, "synack": SYN | ACK, "ack": ACK, "data": ACK, "without flags": 0, "fin without ack": FIN,
         "all but syn, ack, rst": 0x29}


def from_stranger(lab):
    """What has reached B's listener so far."""
    time.sleep(0.02)
    return [s for s in capture.read(lab.captures["b"].path) if not s.out and s.dport == PORT]


@pytest.mark.parametrize("well", [False, True], ids=["malformed", "rubbish"])
@pytest.mark.parametrize("kind", KINDS)
def test_options_that_are_none(pair, kind, well):
    """Nothing changes; what does not have the length of its form is not even counted."""
    lab = pair.lab
    before, other = lab.b.counters(), lab.a.counters()
    if kind == "syn":
        packets = [pair.to_b(SYN, lab.s.v4, 20000 + i, options=o) for i, o in enumerate(malformed(well))]
    else:
        # Data that B has already: others would be as good as A's.
        rest = {"data": bytes(100), "seq": pair.next_a - 100} if kind == "data" else {}
        packets = [pair.to_b(KINDS[kind], options=o, **rest) for o in malformed(well)]
        # Cut off by the end of the header, too.
        if not well:
            packets += [pair.to_b(KINDS[kind], options=o[:8], **rest) for o in malformed(well)]
    count = len(from_stranger(lab))
    send(pair, *packets)
    assert len(from_stranger(lab)) >= count + len(packets), "the lab has lost some"
    if not well:
        assert changed(lab.b, before) == {}
        assert changed(lab.a, other) == {}
    pair.unharmed()


@pytest.mark.parametrize("well", [False, True], ids=["malformed", "rubbish"])
def test_answer_with_options_that_are_none(pair, well):
    """The SYN,ACKs of a server: plain connections, all of them."""
    lab = pair.lab
    lab.s.run(["nft", "-f", "-"], input="table inet deaf { chain c { type filter hook input priority 0; "
                                        "tcp dport 7300 drop; }; }\n")
    with contextlib.ExitStack() as open_ones:
        options, socks = list(malformed(well)), []
        for _ in options:
            with lab.a.inside():
                socks.append(open_ones.enter_context(socket.socket()))
            socks[-1].setblocking(False)
            assert socks[-1].connect_ex((lab.s.v4, 7300)) == errno.EINPROGRESS
            time.sleep(0.0005)      # no more than the lab's links can hold
        time.sleep(0.1)
        syns = [s for s in capture.read(lab.captures["s"].path) if s.dport == 7300]
        assert len(syns) == len(options)
        before = lab.a.counters()
        send(pair, *[craft.ipv4(lab.s.v4, lab.a.v4, 7300, syn.sport, SYN | ACK, seq=1000,
                                ack=(syn.seq + 1) & 0xFFFFFFFF, options=o)
                     for syn, o in zip(syns, options, strict=True)])
        # TCP itself drops a header that is no list of options, where it looks for signatures.
        for sock, opt in zip(socks, options, strict=True):
            assert opt[1] < 4 or sock.getpeername()[1] == 7300
        assert [c["remote-port"] for c in lab.a.connections() if c["state"] != "none"] == [PORT]
        # The only form that a SYN,ACK may have; its random key is one. Unanswered SYNs are repeated.
        delta = changed(lab.a, before)
        delta.pop("PermitSent", None)
        assert delta == ({"PermitRcvd": 1} if well else {})
    pair.unharmed()


# ---- Third parties ----

def test_request_in_a_strangers_name_does_not_lock_it_out(pair):
    """A valid request says it comes from S: S can open a connection from there all the same."""
    lab = pair.lab
    raw = Raw(lab.a)
    raw.send([pair.msyn(lab.s.v4, 5555)])
    time.sleep(SETTLE)
    assert lab.b.counters()["AnswerSent"] == 1
    with lab.s.inside():
        sock = socket.socket()
    with sock:
        sock.settimeout(20)
        sock.bind((lab.s.v4, 5555))
        began = time.monotonic()
        sock.connect((lab.b.v4, PORT))
        assert time.monotonic() - began < 4 * RTT
        there, _ = pair.listener.accept()
        with there:
            there.settimeout(20)
            pair.say(sock, there)
            # And again while it is there.
            raw.send([pair.msyn(lab.s.v4, 5555, reqno=2)])
            time.sleep(SETTLE)
            pair.say(there, sock)
            pair.say(sock, there)
    raw.close()
    pair.unharmed()


# ---- Who may command ----

AS_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tcplab import genl
cookie, new = int(sys.argv[2]), sys.argv[3]
commands = {
    "migrate": lambda f: f.migrate(cookie, new_local_addr=new),
    "migrate-all": lambda f: f.migrate_all(new, new),
    "abort": lambda f: f.abort(cookie),
    "key": lambda f: f.call("key", cookie=cookie, key_id=1, key_op=0, key=bytes(32)),
    "export": lambda f: f.call("export", cookie=cookie),
}
with genl.Family() as family:
    try:
        commands[sys.argv[4]](family)
        print(0)
    except OSError as e:
        print(e.errno)
"""


@pytest.mark.parametrize("command", ["migrate", "migrate-all", "abort", "key", "export"])
def test_commands_of_nobody(pair, command):
    """Without privilege every command is refused with EPERM, and changes nothing."""
    lab = pair.lab
    new = lab.a.attach("g1")
    lab.a.points.insert(0, lab.a.points.pop())
    before, conn = lab.a.counters(), pair.conn(lab.a)
    folder = os.path.dirname(os.path.dirname(genl.__file__))
    out = lab.a.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-B", "-c",
                     AS_NOBODY, folder, str(conn["cookie"]), new.v4, command]).stdout
    assert int(out) == errno.EPERM
    assert changed(lab.a, before) == {}
    after = pair.conn(lab.a)
    assert {k: v for k, v in after.items() if "ms" not in k and "age" not in k} == \
           {k: v for k, v in conn.items() if "ms" not in k and "age" not in k}
    pair.unharmed()
