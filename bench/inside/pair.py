# SPDX-License-Identifier: GPL-2.0-or-later
"""Two namespaces, "client" and "server", joined by one Ethernet, for load.

No delay and no rate: the kernel's own speed is what is measured. No offloads
either: every segment of 1500 bytes passes every hook, as it would not if the
device cut and joined them.
"""

import pathlib
import subprocess

import states

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOAD = ROOT / "build/cmake/bench/load/tcp-load"
SERVER, CLIENT = "10.9.0.1", "10.9.0.2"


def sh(script: str) -> None:
    """Runs it, up to its first command that fails."""
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)


def build(state: str) -> None:
    """Makes them, the extension in this state."""
    sh(f"""
ip netns add server
ip netns add client
ip link add eth0 netns server type veth peer name eth0 netns client
ip -n server addr add {SERVER}/24 dev eth0
ip -n client addr add {CLIENT}/24 dev eth0
for ns in server client; do
    ip -n $ns link set lo up
    ip netns exec $ns ethtool -K eth0 tx off tso off gso off gro off >/dev/null 2>&1
    ip -n $ns link set eth0 up
    ip netns exec $ns sh -c 'echo 1024 65000 >/proc/sys/net/ipv4/ip_local_port_range'
done
ip netns exec client /usr/bin/python3 -c 'import socket; socket.socket(2, 2).sendto(b"", ("{SERVER}", 9))'
""")
    if (enabled := states.enabled(state)) is not None:
        for ns in ("server", "client"):
            sh(f"ip netns exec {ns} sh -c 'echo {enabled} >/proc/sys/net/tcp_migrate/enabled'\n")


def load(state: str, mode: str, slices: int, amount: int, instructions: bool = False) -> list[list[int]]:
    """Runs tcp-load, which has to be of this state; [operations, ticks] of each slice."""
    argv = [str(LOAD), mode, "server", "client", SERVER, "5000", str(slices), str(amount)]
    argv += ["insn"] * instructions + ["mptcp"] * (state == "mptcp")
    before = counters("client")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"tcp-load ended with {done.returncode}")
    states.prove(state, {name: n - before.get(name, 0) for name, n in counters("client").items()})
    return [[int(w) for w in line.split()] for line in done.stdout.splitlines()]


def counters(namespace: str) -> dict[str, int]:
    """What states.prove() looks at."""
    return states.counters(subprocess.run(["ip", "netns", "exec", namespace, "cat", "/proc/net/netstat"],
                                          capture_output=True, text=True, check=True).stdout)
