# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs people use, across a move from one NAPT to another."""

import pytest

from test_moves import carry_on
from tcplab import programs
from traffic import PROGRAMS, SIZE, Download

ROWS = [("n1", "n2"), ("g1", "n3")]


@pytest.mark.parametrize("path", ROWS, ids="-to-".join)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_program(make_lab, kind, path):
    """scp, rsync, psql and iperf3 do not notice."""
    lab = make_lab(rtt=0.05, at={"a": path[0]})
    traffic = kind(lab)
    traffic.until(SIZE // 4)
    lab.a.move(path[1])
    traffic.resumed()
    traffic.finish()
    assert lab.resets(traffic.port) == []


@pytest.mark.smp
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
