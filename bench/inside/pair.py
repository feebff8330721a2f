# SPDX-License-Identifier: GPL-2.0-or-later
"""Two namespaces, "client" and "server", joined by one Ethernet, for load.

No delay and no rate: the kernel's own speed is what is measured. No offloads
either: every segment of 1500 bytes passes every hook, as it would not if the
device cut and joined them.
"""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOAD = ROOT / "build/cmake/bench/load/tcp-load"
SERVER, CLIENT = "10.9.0.1", "10.9.0.2"


def sh(script: str) -> None:
    """Runs it, up to its first command that fails."""
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)


def build(enabled: str) -> None:
    """Makes them; enabled is net.tcp_migrate.enabled, or "-" to leave it alone."""
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
    if enabled != "-":
        for ns in ("server", "client"):
            sh(f"ip netns exec {ns} sh -c 'echo {enabled} >/proc/sys/net/tcp_migrate/enabled'\n")


def load(mode: str, slices: int, amount: int, instructions: bool = False) -> list[list[int]]:
    """Runs tcp-load; [operations, ticks] of each slice."""
    argv = [str(LOAD), mode, "server", "client", SERVER, "5000", str(slices), str(amount)]
    done = subprocess.run(argv + (["insn"] if instructions else []), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"tcp-load ended with {done.returncode}")
    return [[int(w) for w in line.split()] for line in done.stdout.splitlines()]


def counters(namespace: str) -> dict[str, int]:
    """TcpMigrate: of a namespace."""
    text = subprocess.run(["ip", "netns", "exec", namespace, "cat", "/proc/net/netstat"],
                          capture_output=True, text=True, check=True).stdout
    lines = [ln.split() for ln in text.splitlines() if ln.startswith("TcpMigrate:")]
    return dict(zip(lines[0][1:], map(int, lines[1][1:]), strict=True)) if lines else {}


def boot_facts() -> dict[str, str]:
    """What a result depends on and cannot be seen from outside."""
    clock = pathlib.Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return {"release": os.uname().release, "clock": clock.read_text().strip() if clock.exists() else "?"}
