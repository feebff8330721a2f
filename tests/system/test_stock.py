# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of ours on a kernel without the extension: the server serves, the others say what is missing."""

import os
import subprocess

import pytest

from exchange import RTT
from liar import NOTICE, OUTCOME, WELCOME, FakeHost, Identity, part
from tcplab import programs
from tcplab.daemons import BIN, Server, nobody
from tcplab.topology import CTL, patched

pytestmark = [pytest.mark.stock, pytest.mark.skipif(patched(), reason="this kernel has the extension")]


def test_server(make_lab):
    """Two hosts report that both have moved; the one that reported last is told where the other is."""
    lab = make_lab(rtt=RTT, at={"a": "n1", "b": "g1"}, migrator=nobody)
    server = Server(lab.s)
    hosts = [FakeHost(host, server, Identity(host, "host")) for host in (lab.a, lab.b)]
    assert [host.welcome[0] for host in hosts] == [WELCOME] * 2
    a, b = (part(host.key.name, there.v4, os.urandom(16)) for host, there in zip(hosts, (lab.a, lab.b)))
    hosts[1].report(b, a, "198.51.100.77", "203.0.113.77", lab.b.v4, [(80, 40000)])
    hosts[0].report(a, b, "203.0.113.77", "198.51.100.77", lab.a.v4, [(40000, 80)])
    # A was asked before it had reported.
    kind, told = [hosts[0].channel.hear() for _ in range(2)][-1]
    assert kind == NOTICE and told[4][0] == bytes(map(int, lab.b.v4.split(".")))
    hosts[0].channel.say(OUTCOME, {1: told[1], 2: told[2], 3: told.get(3, 0), 4: 1})
    server.stop()


def test_client(make_lab):
    """It ends with a status of its own, after which systemd does not start it again, and says why."""
    lab = make_lab(migrator=nobody)
    home = programs.home(lab.a, "mobility-client")
    config = home / "config.toml"
    config.write_text(f'[client]\nidentity = "{home}/identity.pem"\n[control]\nsocket = "{home}/control"\n'
                      f'[peers]\npins = "{home}/pins"\n')
    done = lab.a.run([str(BIN / "mobility-client"), "-c", str(config)], check=False, timeout=20)
    assert done.returncode == 3
    assert "boot a kernel with the tcp-migrate patches" in done.stderr and len(done.stderr.splitlines()) == 1
    unit = (BIN.parents[1] / "mobility-client/mobility-client.service").read_text()
    assert "RestartPreventExitStatus=3\n" in unit


@pytest.mark.parametrize("command", ["doctor", "list", "enable"])
def test_ctl(make_lab, command):
    """It says what is missing."""
    lab = make_lab(migrator=nobody)
    done = subprocess.run(["ip", "netns", "exec", lab.a.name, str(CTL), command], capture_output=True, text=True,
                          check=False)
    assert done.returncode in (1, 3)
    assert "kernel" in done.stdout + done.stderr
