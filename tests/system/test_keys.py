# SPDX-License-Identifier: GPL-2.0-or-later
"""Strong keys: both ends share a secret that was never on the wire.

A and B are at global places, S is a stranger who has seen the handshake, and so
has the in-band key. What a strong key signs is written here from
docs/protocol.md, and shares nothing with the kernel.
"""

import contextlib
import errno
import hmac
import os
import pathlib
import socket
import struct
import time

import pytest

from conftest import VIRTUAL
from tcplab import genl
from tcplab.topology import CTL, wait_for
from test_interface import command, move_self
from wire import ACTIVE, MREQ, RST, RSTAUTH, SETTLE, Losing, Pair, changed, inject, option, settled

RTT = 0.05
SMALL = 0.006
AT = {"a": "g2", "b": "g1", "s": "core"}
SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture
def pair(make_lab):
    """A connection between A and B, RTT apart."""
    lab = make_lab(rtt=RTT, at=AT)
    with Pair(lab) as p:
        yield p


# ---- Installing keys ----

def key(pair, host, op, key_id=1, secret=None, **name):
    """One operation at one end, by netlink; on this connection, unless others are named."""
    with host.family() as family:
        return family.key(op, key_id, secret, **(name or {"cookie": pair.conn(host)["cookie"]}))


def by_peer(pair, host, op, key_id=1, secret=None):
    """On all connections with the address of the peer."""
    return key(pair, host, op, key_id, secret, remote_addr=pair.conn(host)["remote-addr"])


def by_ctl(pair, host, op, key_id=1, secret=None):
    """By migrate-ctl, with the secret in a file."""
    path = pathlib.Path("/tmp/lab/secret")
    path.write_bytes(secret or b"")
    path.chmod(0o600)
    host.run([str(CTL), "key", op, str(pair.conn(host)["cookie"]), "--id", str(key_id)]
             + (["--secret-file", str(path)] if secret else []))


def both(pair, *ops, change=key):
    """These operations at both ends, one after the other."""
    for op in ops:
        for host in (pair.lab.a, pair.lab.b):
            change(pair, host, op, secret=SECRET if op == "add" else None)


def ids(segs):
    """The ids of the keys that requests, answers and proofs were made with."""
    return {body[2] & 3 for s in segs for kind, body in s.options
            if kind == 254 and set(s.migrate) & {"MREQ", "MANS", "CONFIRM"}}


class Moves:
    """Moves of both ends, each of which must succeed, with the key that is expected."""

    def __init__(self, pair):
        self.pair, self.count = pair, 0

    def both(self, with_a, with_b):
        """A moves, then B: all that is said for it is signed with these keys."""
        for host, place, expected in ((self.pair.lab.a, "g2", with_a), (self.pair.lab.b, "g1", with_b)):
            before = len(self.pair.seen(self.pair.lab.a))
            host.move(place)
            self.count += 1
            for end in (self.pair.lab.a, self.pair.lab.b):
                settled(self.pair, end, self.count)
            self.pair.talk(5000)
            assert ids(self.pair.seen(self.pair.lab.a)[before:]) == {expected}


PHASES = [("a", "add", 0, 0), ("b", "add", 0, 0), ("a", "promote", 1, 0), ("b", "promote", 1, 1),
          ("a", "exclusive", 1, 1), ("b", "exclusive", 1, 1)]


@pytest.mark.parametrize("change", [key, by_peer, by_ctl], ids=["connection", "peer", "migrate-ctl"])
def test_phases(pair, change):
    """Added, promoted and demanded at one end after the other: every move between succeeds, nobody is stranded."""
    moves = Moves(pair)
    before = [host.counters() for host in (pair.lab.a, pair.lab.b)]
    moves.both(0, 0)
    for end, op, with_a, with_b in PHASES:
        change(pair, pair.lab.hosts[end], op, secret=SECRET if op == "add" else None)
        moves.both(with_a, with_b)
    both(pair, "remove", change=change)
    moves.both(0, 0)
    for host, counters in zip((pair.lab.a, pair.lab.b), before):
        delta = changed(host, counters)
        assert not [name for name in delta if name.startswith("Bad")], delta
        assert delta["Commit"] == moves.count


def test_what_is_accepted_is_told(pair):
    """The key of own requests, and those of others that are accepted, after each step."""
    told = []
    for op in ("add", "promote", "exclusive", "remove"):
        key(pair, pair.lab.a, op, 2, SECRET if op == "add" else None)
        conn = pair.conn(pair.lab.a)
        told.append((conn["key-id"], conn["key-mask"]))
    assert told == [(0, 0b101), (2, 0b101), (2, 0b100), (0, 0b001)]
    pair.lab.a.sysctl("net.tcp_migrate.require_strong", 1)
    assert pair.conn(pair.lab.a)["key-mask"] == 0


def test_three_keys_at_once(pair):
    """Each has its own secret; any of them may be promoted."""
    for host in (pair.lab.a, pair.lab.b):
        for key_id in (1, 2, 3):
            key(pair, host, "add", key_id, bytes([key_id]) * 32)
    moves = Moves(pair)
    for key_id in (3, 1, 2):
        key(pair, pair.lab.a, "promote", key_id)
        key(pair, pair.lab.b, "promote", key_id % 3 + 1)
        moves.both(key_id, key_id % 3 + 1)


def test_keys_of_a_peer(make_lab):
    """Those of one address have it then, those of others do not; where it fails, that is told."""
    lab = make_lab(at=AT)
    with Pair(lab) as one, Pair(lab, 7101) as two, Pair(lab, 7102, opener="s") as other:
        def masks():
            return [p.conn(lab.b)["key-mask"] for p in (one, two, other)]
        assert by_peer(one, lab.b, "add", secret=SECRET) == {"count": 2}
        assert masks() == [3, 3, 1]
        key(one, lab.b, "remove")
        assert by_peer(one, lab.b, "promote") == {"count": 1, "failed": 1, "error": errno.ENOKEY}
        assert [p.conn(lab.b)["key-id"] for p in (one, two, other)] == [0, 1, 0]
        assert key(one, lab.b, "add", 2, OTHER, local_addr=lab.b.v4, remote_addr=lab.s.v4) == {"count": 1}
        assert masks() == [1, 3, 5]
        with pytest.raises(OSError) as error:
            key(one, lab.b, "add", 3, OTHER, local_addr=lab.a.v4, remote_addr=lab.s.v4)
        assert error.value.errno == errno.ENOENT


WRONG = {
    "key 0": (errno.EINVAL, {"key_id": 0, "key_op": 0, "key": SECRET}),
    "a fourth key": (errno.ERANGE, {"key_id": 4, "key_op": 0, "key": SECRET}),
    "no id": (errno.EINVAL, {"key_op": 0, "key": SECRET}),
    "no operation": (errno.EINVAL, {"key_id": 2, "key": SECRET}),
    "unknown operation": (errno.ERANGE, {"key_id": 2, "key_op": 4, "key": SECRET}),
    "no secret": (errno.EINVAL, {"key_id": 2, "key_op": 0}),
    "empty secret": (errno.ERANGE, {"key_id": 2, "key_op": 0, "key": b""}),
    "short secret": (errno.ERANGE, {"key_id": 2, "key_op": 0, "key": SECRET[1:]}),
    "long secret": (errno.ERANGE, {"key_id": 2, "key_op": 0, "key": SECRET + b"0"}),
    "promote none": (errno.ENOKEY, {"key_id": 2, "key_op": 1}),
    "demand none": (errno.ENOKEY, {"key_id": 2, "key_op": 2}),
    "remove none": (errno.ENOKEY, {"key_id": 2, "key_op": 3}),
    "no connection named": (errno.EINVAL, {"key_id": 2, "key_op": 0, "key": SECRET, "cookie": None}),
    "local address alone": (errno.EINVAL, {"key_id": 2, "key_op": 0, "key": SECRET, "cookie": None,
                                           "local_addr": "203.0.113.11"}),
    "no such connection": (errno.ENOENT, {"key_id": 2, "key_op": 0, "key": SECRET, "cookie": 1 << 40}),
    "no such peer": (errno.ENOENT, {"key_id": 2, "key_op": 0, "key": SECRET, "cookie": None,
                                    "remote_addr": "198.51.100.99"}),
}


def test_commands_that_are_wrong(pair):
    """Each has its error, and changes nothing."""
    key(pair, pair.lab.a, "add", 1, SECRET)
    cookie = pair.conn(pair.lab.a)["cookie"]
    with pair.lab.a.family() as family:
        got = {case: command(family.call, "key", **{"cookie": cookie} | attrs) for case, (_, attrs) in WRONG.items()}
    assert got == {case: expected for case, (expected, _) in WRONG.items()}
    conn = pair.conn(pair.lab.a)
    assert (conn["key-id"], conn["key-mask"]) == (0, 3)
    pair.unharmed()


# ---- The two ends do not have the same ----

def theirs(pair, op, key_id=1, secret=None):
    key(pair, pair.lab.b, op, key_id, secret)


def mine(pair):
    key(pair, pair.lab.a, "add", 1, SECRET)
    key(pair, pair.lab.a, "promote")


def required(pair, value):
    pair.lab.b.sysctl("net.tcp_migrate.require_strong", value)


# What B counts; what leads there; what B has to do so that it agrees.
UNEQUAL = {
    "other secret": ("BadMac", lambda p: (mine(p), theirs(p, "add", 1, OTHER)), lambda p: theirs(p, "add", 1, SECRET)),
    "not added": ("BadKey", mine, lambda p: theirs(p, "add", 1, SECRET)),
    "removed": ("BadKey", lambda p: (both(p, "add"), mine(p), theirs(p, "remove")),
                lambda p: theirs(p, "add", 1, SECRET)),
    "other id": ("BadKey", lambda p: (mine(p), theirs(p, "add", 2, SECRET)), lambda p: theirs(p, "add", 1, SECRET)),
    "another demanded": ("BadKey", lambda p: (both(p, "add"), theirs(p, "exclusive")), lambda p: theirs(p, "remove")),
    "any required": ("BadKey", lambda p: required(p, 1), lambda p: required(p, 0)),
}


def ask(pair, flags=None):
    """A has a second place, and asks to go there; the first stays."""
    new = pair.lab.a.attach("g2")
    with pair.lab.a.family() as family:
        family.migrate(pair.conn(pair.lab.a)["cookie"], new_local_addr=new.v4, flags=flags)
    return new


@pytest.mark.parametrize("case", UNEQUAL)
def test_unequal_keys(pair, case):
    """Every request is refused, B stays; as soon as B has the right key the next one succeeds."""
    counter, wrong, right = UNEQUAL[case]
    lab = pair.lab
    wrong(pair)
    asked, refused = lab.a.counters(), lab.b.counters()
    ask(pair)
    wait_for("two requests", lambda: changed(lab.a, asked).get("MsynRetrans"), 10)
    time.sleep(SETTLE)
    assert changed(lab.b, refused) == {counter: 2}
    assert changed(lab.a, asked) == {"MsynSent": 1, "MsynRetrans": 1, "RstHint": 2}
    assert (pair.conn(lab.b)["state"], pair.conn(lab.b)["migrations"]) == ("idle", 0)
    pair.say(pair.b, pair.a, 1000)      # by the path that is still there
    right(pair)
    for host in (lab.a, lab.b):
        settled(pair, host, 1)
    pair.unharmed(moves=1)


@pytest.mark.parametrize("case", UNEQUAL)
def test_unequal_keys_in_a_trial(pair, case):
    """The trial fails, and the connection has noticed nothing."""
    counter, wrong, _ = UNEQUAL[case]
    lab = pair.lab
    wrong(pair)
    lab.a.sysctl("net.tcp_migrate.syn_retries", 1)
    before, refused = lab.a.counters(), lab.b.counters()
    new = ask(pair, genl.TRIAL)
    pair.talk()
    wait_for("the trial to fail", lambda: changed(lab.a, before).get("TrialFailed"), 10)
    lab.a.detach(new)
    assert changed(lab.b, refused) == {counter: 2}
    pair.unharmed()


def test_key_goes_between_answer_and_proof(pair):
    """B has answered with a key that it then forgets: what was begun with it proves nothing any more."""
    lab = pair.lab
    both(pair, "add")
    mine(pair)
    before = lab.b.counters()
    with Losing(lab.net, f"ip daddr {lab.b.v4} tcp flags & syn == 0") as losing:
        ask(pair)
        losing.lost()
        theirs(pair, "remove")
    wait_for("a proof", lambda: changed(lab.b, before).get("BadConfirm"), 10)
    assert "Commit" not in changed(lab.b, before)
    wait_for("a new request", lambda: changed(lab.b, before).get("BadKey"), 60)
    theirs(pair, "add", 1, SECRET)
    settled(pair, lab.b, 1)
    wait_for("A to rest", lambda: pair.conn(lab.a)["state"] == "idle", 10)
    pair.talk()


@pytest.mark.virtual
@pytest.mark.parametrize("state", ["mig-sent", "mig-wait"])
def test_keys_change_while_a_request_is_under_way(pair, state):
    """Both ends go through the phases while A's request is not heard: one with the new key follows, and succeeds."""
    lab = pair.lab
    lab.a.sysctl("net.tcp_migrate.syn_retries", 5 if state == "mig-sent" else 1)
    with Losing(lab.net):
        ask(pair)
        wait_for(f"A to be in {state}", lambda: pair.conn(lab.a)["state"] == state, 10)
        both(pair, "add", "promote", "exclusive")
    wait_for("A to rest", lambda: pair.conn(lab.a)["state"] == "idle", 60)
    pair.talk()


def test_key_in_use_is_not_removed(pair):
    """While an own request is under way it stays; then it goes."""
    both(pair, "add", "promote")
    with Losing(pair.lab.net) as losing:
        ask(pair)
        losing.lost()
        with pytest.raises(OSError) as error:
            key(pair, pair.lab.a, "remove")
        assert error.value.errno == errno.EBUSY
    settled(pair, pair.lab.a, 1)
    key(pair, pair.lab.a, "remove")
    pair.unharmed(moves=1)


def test_key_in_use_does_not_become_another(pair):
    """What is promoted or demanded stays, the same secret once more is no change; one that is only accepted may go."""
    def others():
        key(pair, pair.lab.a, "add", 1, SECRET)
        with pytest.raises(OSError) as error:
            key(pair, pair.lab.a, "add", 1, OTHER)
        assert error.value.errno == errno.EBUSY

    key(pair, pair.lab.a, "add", 1, OTHER)
    both(pair, "add", "promote")
    others()
    both(pair, "exclusive")
    others()
    moves = Moves(pair)
    moves.both(1, 1)
    key(pair, pair.lab.a, "remove")
    key(pair, pair.lab.a, "add", 1, OTHER)


# ---- Policy ----

def goes(pair, new):
    """The errors of three ways to tell A to move."""
    with pair.lab.a.family() as family:
        cookie = pair.conn(pair.lab.a)["cookie"]
        many = family.migrate_all(pair.conn(pair.lab.a)["local-addr"], new.v4)
        return [command(family.migrate, cookie, new_local_addr=new.v4), many.get("error", 0),
                command(move_self, pair.a, new.v4, 0)]


@pytest.mark.parametrize("policy", ["strong keys required", "another key demanded"])
def test_own_requests_follow_policy(pair, policy):
    """With a key that A itself would refuse it asks nothing: EPERM; with one that it allows it does."""
    lab = pair.lab
    both(pair, "add")
    if policy == "strong keys required":
        for host in (lab.a, lab.b):
            host.sysctl("net.tcp_migrate.require_strong", 1)
    else:
        key(pair, lab.a, "exclusive")
        key(pair, lab.a, "add", 2, OTHER)
        key(pair, lab.a, "promote", 2)
    new, before = lab.a.attach("g2"), lab.a.counters()
    assert goes(pair, new) == [errno.EPERM] * 3
    assert changed(lab.a, before) == {}
    pair.talk()
    key(pair, lab.a, "promote")
    assert goes(pair, new)[0] == 0
    for host in (lab.a, lab.b):
        settled(pair, host, 1)
    pair.unharmed(moves=1)


# ---- Who has seen the handshake ----

def derived(pair, secret):
    """Ks of the protocol: the secret, bound to this connection."""
    keys = {s.out: s.options[-1][1][10:18] for s in pair.seen(pair.lab.a) if s.migrate == ["PERMIT"]}
    return hmac.digest(secret, b"TCPM v1" + keys[True] + keys[False], "sha256")


def strengthen(pair, step):
    """So far the two ends have gone; "required" is policy, without any key."""
    steps = ["add", "promote", "exclusive"]
    if step == "required":
        pair.lab.a.sysctl("net.tcp_migrate.require_strong", 1)
        required(pair, 1)
    else:
        both(pair, *steps[:steps.index(step) + 1])


# How far the ends are, id and key of the stranger, and whether that is enough.
SIGNED = [("promote", 0, "in-band", None), ("exclusive", 0, "in-band", "BadKey"), ("required", 0, "in-band", "BadKey"),
          ("exclusive", 1, "in-band", "BadMac"), ("exclusive", 1, "other", "BadMac"),
          ("exclusive", 2, "strong", "BadKey"), ("exclusive", 1, "strong", None), ("add", 1, "strong", None)]
SIGNATURES = pytest.mark.parametrize("step,key_id,kind,refusal", SIGNED,
                                     ids=[f"{s}-{k}-{i}" for s, i, k, _ in SIGNED])


def stranger(pair, step, kind):
    """The ends have gone so far; S has this key."""
    strengthen(pair, step)
    pair.learn()
    pair.key = {"in-band": pair.key, "strong": derived(pair, SECRET), "other": derived(pair, OTHER)}[kind]


@SIGNATURES
def test_request_of_a_stranger(pair, step, key_id, kind, refusal):
    """It is answered if it is made with a key that B accepts, and else refused."""
    stranger(pair, step, kind)
    before = pair.lab.b.counters()
    inject(pair.lab.s, pair.msyn(pair.lab.s.v4, 5555, sub=MREQ, flags=ACTIVE | key_id))
    assert changed(pair.lab.b, before) == ({refusal: 1} if refusal else {"MsynRcvd": 1, "AnswerSent": 1})
    pair.unharmed()


def signed_rst(pair, key_id):
    """An RST to A in B's name, at the exact number, with a MAC by the key that the test has."""
    mac = hmac.digest(pair.key, b"RST" + struct.pack("!BI", 0, pair.next_b), "sha256")[:8]
    return pair.to_a(RST, ack=0, options=option(RSTAUTH, key_id, bytes(3) + mac))


@SIGNATURES
def test_reset_of_a_stranger(pair, step, key_id, kind, refusal):
    """It ends the connection if it is signed with a key that A accepts; else it costs a round trip."""
    stranger(pair, step, kind)
    if step == "required":      # and A has a key with which it can ask
        strengthen(pair, "promote")
    before = pair.lab.a.counters()
    inject(pair.lab.s, signed_rst(pair, key_id))
    delta = changed(pair.lab.a, before)
    if refusal:
        assert (delta.get("RstAuthBad"), delta.get("RstDeferred"), delta.get("Commit")) == (1, 1, 1), delta
        pair.unharmed()
        return
    assert delta.get("RstAuth") == 1, delta
    with pytest.raises(ConnectionResetError):
        pair.a.recv(1)


# ---- Genuine resets ----

def end_now(pair):
    """B's program resets its end."""
    pair.b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.b.close()


def rst_ids(pair):
    """The ids of the keys of signed RSTs that A has got."""
    return [body[2] & 3 for s in pair.seen(pair.lab.a) if not s.out and s.migrate == ["RST-AUTH"]
            for kind, body in s.options if kind == 254]


@pytest.mark.parametrize("lost", [False, True], ids=["at once", "by the tombstone"])
@pytest.mark.parametrize("step", ["promote", "exclusive"])
def test_genuine_reset(pair, step, lost):
    """It is signed with the strong key, and honoured at once; so is one of the tombstone, if the first is lost."""
    strengthen(pair, step)
    before = pair.lab.a.counters()
    with Losing(pair.lab.net, "tcp flags & rst == rst") if lost else contextlib.nullcontext():
        end_now(pair)
        time.sleep(SETTLE if lost else 0)
    began = time.monotonic()
    if lost:
        pair.a.sendall(b"anybody there?")
    with pytest.raises(ConnectionResetError):
        pair.a.recv(1)
    assert not VIRTUAL or time.monotonic() - began < RTT + SMALL
    delta = changed(pair.lab.a, before)
    assert delta.get("RstAuth") == 1 and not {"Wait", "RstAuthBad", "RstDeferred"} & set(delta), delta
    assert rst_ids(pair) == [1]


def test_genuine_reset_where_strong_keys_are_required(pair):
    """A connection that has none cannot migrate: a reset ends it at once, as plain TCP's does."""
    strengthen(pair, "required")
    began = time.monotonic()
    end_now(pair)
    with pytest.raises(ConnectionResetError):
        pair.a.recv(1)
    assert not VIRTUAL or time.monotonic() - began < RTT + SMALL


def test_secret_is_shown_nowhere(pair):
    """Neither netlink nor the wire has it, nor the key made of it."""
    both(pair, "add", "promote", "exclusive")
    secrets = [SECRET, derived(pair, SECRET)]
    pair.lab.a.move("g2")
    settled(pair, pair.lab.b, 1)
    with pair.lab.a.family() as family:
        answer = b"".join(family.request(next(n for n, c in genl.CMD.items() if c == "get"), b"", dump=True))
    wire = b"".join(pathlib.Path(c.path).read_bytes() for c in pair.lab.captures.values())
    assert len(answer) > 100 and os.path.getsize(pair.lab.captures["a"].path) > 1000
    assert not any(s in answer or s in wire for s in secrets)
