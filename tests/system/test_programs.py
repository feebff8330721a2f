# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs people use, across a move from one NAPT to another, and across a time without any address."""

import subprocess
import threading
import time

import pytest

from conftest import VIRTUAL
from tcplab import programs
from tcplab.topology import wait_for
from test_moves import carry_on, resume, settled
from traffic import PROGRAMS, SIZE, Download

# Path, IPv6 (where no NAPT takes part), seconds of round trip.
ROWS = [(("n1", "n2"), False, 0), (("g1", "n3"), False, 0.05), (("g2", "core"), True, 0), (("g2", "core"), True, 0.05)]
GAPS = [(("n1", "n2"), False, 0.05), (("g2", "core"), True, 0)]


def name(row):
    """Of a test for a row."""
    path, v6, rtt = row
    return f"{'-to-'.join(path)}-{'ipv6' if v6 else 'ipv4'}-rtt{rtt * 1000:.0f}"


@pytest.mark.parametrize("row", ROWS, ids=name)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_program(make_lab, kind, row):
    """scp, rsync, psql and iperf3 do not notice."""
    across(make_lab, kind, row)


@pytest.mark.virtual
@pytest.mark.parametrize("row", GAPS, ids=name)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_program_across_a_gap(make_lab, kind, row):
    """Half a minute without any address."""
    across(make_lab, kind, row, gap=30)


def across(make_lab, kind, row, gap=0):
    """A program's transfer goes on in time, and to its right end."""
    path, v6, rtt = row
    lab = make_lab(rtt=rtt, at={"a": path[0]})
    traffic = kind(lab, v6=v6)
    traffic.until(SIZE // 4)
    lab.a.move(path[1], gap=gap)
    resume(lab, traffic, rtt)
    traffic.finish()
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
@pytest.mark.parametrize("v6,rtt,gap", [(False, 0.05, 0), (False, 0, 20), (True, 0.05, 20)],
                         ids=["ipv4-rtt50", "ipv4-rtt0-gap", "ipv6-rtt50-gap"])
def test_ssh_session(make_lab, v6, rtt, gap):
    """Lines typed before, while A is nowhere, and after come back in order; afterwards as fast as before."""
    lab = make_lab(rtt=rtt, at={"a": "n1"})
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
    lab.a.move("n2", gap=gap)
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
    to_b.until(SIZE // 4)
    lab.a.move("n2")
    carry_on(lab, to_b, 0.05)
    assert to_s.communicate(timeout=60)[0] == "done\n"
