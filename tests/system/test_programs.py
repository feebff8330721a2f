# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs people use, whoever A moves from and to, and across a time without any address.

curl from nginx, scp, rsync, psql, iperf3 and a session by ssh do not notice: between
NAPTs and global places as A may come and go, over IPv6 where no NAPT takes part, with
and without a delay. What they carry is compared by checksum.
"""

import itertools
import subprocess
import threading
import time

import pytest

from conftest import VIRTUAL
from tcplab import programs
from tcplab.topology import wait_for
from test_moves import carry_on, resume, settled
from traffic import PROGRAMS, Download, Psql, Rsync, Scp, SlowIperf

# From and to, whether over IPv6, seconds of round trip. B is global, and no two hosts share a segment.
PATHS = [("n1", "n2"), ("g2", "core"), ("g2", "n1"), ("n1", "g2")]
RTTS = (0, 0.05)
ROWS = [*itertools.product(PATHS, [False], RTTS), *itertools.product([("g2", "core")], [True], RTTS)]
GAPS = [(("n1", "n2"), False, 0.05), (("g2", "core"), True, 0)]
SIZE = 1 << 20


def name(row):
    """Of a test for a row."""
    path, v6, rtt = row
    return f"{'-to-'.join(path)}-{'ipv6' if v6 else 'ipv4'}-rtt{rtt * 1000:.0f}"


@pytest.mark.parametrize("row", ROWS, ids=name)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_program(make_lab, kind, row):
    """A moves in the middle of a transfer."""
    across(make_lab, kind, row)


@pytest.mark.virtual
@pytest.mark.parametrize("row", GAPS, ids=name)
@pytest.mark.parametrize("kind", [Scp, Rsync, Psql, SlowIperf])     # curl: see test_moves.py
def test_program_across_a_gap(make_lab, kind, row):
    """Half a minute without any address."""
    across(make_lab, kind, row, gap=30)


def across(make_lab, kind, row, gap=0):
    """A program's transfer goes on in time, and to its right end; each of its connections has moved, once."""
    path, v6, rtt = row
    lab = make_lab(rtt=rtt, at={"a": path[0]})
    traffic = kind(lab, v6=v6, size=SIZE)
    traffic.until(traffic.size // 4)
    count = len(lab.a.connections())
    lab.a.move(path[1], gap=gap)
    resume(lab, traffic, rtt)
    traffic.finish()
    assert count == lab.a.counters()["Commit"] == lab.b.counters()["CommitPassive"]
    assert lab.resets(traffic.port) == []


class Session:
    """Somebody at a terminal, by ssh from A to B, where every line is said again."""

    LOOP = 'stty -echo; echo ready; while read -r line && [ "$line" != exit ]; do echo "heard $line"; done'

    def __init__(self, lab, v6):
        options = programs.sshd(lab.b, lab.a)
        self.screen = programs.home(lab.a, "ssh") / "screen"
        self.typed = 0
        with open(self.screen, "wb") as out:
            self.child = lab.a.popen(["ssh", "-tt", *options, f"root@{lab.b.v6 if v6 else lab.b.v4}", self.LOOP],
                                     stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE)
        wait_for("the session to begin", lambda: self.lines() == ["ready"], 30)

    def lines(self):
        """What is on the screen, but for what sshd has said first."""
        lines = self.screen.read_text().splitlines()
        return lines[lines.index("ready"):] if "ready" in lines else []

    def type(self, word=""):
        """Types a line; does not wait."""
        self.typed += not word
        self.child.stdin.write(f"{word or self.typed}\n".encode())
        self.child.stdin.flush()

    def answered(self):
        """Waits until all that was typed has been answered, in order; seconds that it took."""
        began = time.monotonic()
        wait_for("all answers", lambda: len(self.lines()) > self.typed, 30, 0.001)
        assert self.lines() == ["ready"] + [f"heard {i}" for i in range(1, self.typed + 1)]
        return time.monotonic() - began


@pytest.mark.virtual
@pytest.mark.parametrize("row,gap", [*((row, 0) for row in ROWS), *((row, 20) for row in GAPS)],
                         ids=lambda value: name(value) if isinstance(value, tuple) else f"gap{value}")
def test_ssh_session(make_lab, row, gap):
    """Lines typed before, while A is nowhere, and after come back in order; afterwards as fast as before."""
    path, v6, rtt = row
    lab = make_lab(rtt=rtt, at={"a": path[0]})
    session = Session(lab, v6)
    session.type()
    session.answered()
    session.type()
    usual = session.answered()

    def typist():
        for _ in range(20):
            session.type()
            time.sleep(gap / 15 + 0.01)
    hands = threading.Thread(target=typist)
    hands.start()
    time.sleep(0.03)
    lab.a.move(path[1], gap=gap)
    settled(lab.a, programs.SSH, 1)
    settled(lab.b, programs.SSH, 1)
    hands.join()
    session.answered()
    session.type()
    took = session.answered()
    assert not VIRTUAL or took < usual + 0.01, f"{took:.4f} s, before the move {usual:.4f} s"
    session.type("exit")
    assert session.child.wait(30) == 0
    assert lab.resets(programs.SSH) == []


def test_two_servers_at_once(make_lab):
    """One command moves the connections to B and to S alike."""
    lab = make_lab(rtt=0.05, at={"a": "n1"})
    to_b = Download(lab)
    options = programs.sshd(lab.s, lab.a)
    to_s = lab.a.popen(["ssh", *options, f"root@{lab.s.v4}", "sleep 8; echo done"], stdout=-1, text=True)
    to_b.until(to_b.size // 4)
    lab.a.move("n2")
    carry_on(lab, to_b, 0.05)
    assert to_s.communicate(timeout=60)[0] == "done\n"
