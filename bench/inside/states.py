# SPDX-License-Identifier: GPL-2.0-or-later
"""What is compared: plain TCP, the extension off and on, MPTCP.

vanilla  sockets of TCP on an unpatched kernel
off      ... on the patched kernel, net.tcp_migrate.enabled never set
on       ... set to 2
mptcp    sockets of IPPROTO_MPTCP on an unpatched kernel; mptcpd: whose path manager that daemon tells

A connection works in each of them alike, and falls back to plain TCP without a
word; so counters have to show what it was.
"""

IPPROTO_MPTCP = 262
# What grows with each connection of a state, and never in another.
_PROOF = {"on": "Agreed", "mptcp": "MPCapableSYNACKRX"}


def enabled(state: str) -> int | None:
    """net.tcp_migrate.enabled, None if it is left alone."""
    return 2 if state == "on" else None


def protocol(state: str) -> int:
    """What socket() is told."""
    return IPPROTO_MPTCP if state in ("mptcp", "mptcpd") else 0


def counters(netstat: str) -> dict[str, int]:
    """The extension's and MPTCP's counters, from the text of /proc/net/netstat."""
    lines = [line.split() for line in netstat.splitlines() if line.startswith(("TcpMigrate:", "MPTcpExt:"))]
    out: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        out |= zip(names[1:], map(int, values[1:]), strict=True)
    return out


def prove(state: str, grown: dict[str, int], least: int = 1) -> None:
    """Raises unless so many connections were of this state, and none of another.

    grown: by how much the counters of the namespace that opens them have.
    """
    if ("Agreed" in grown) != (state in ("off", "on")):
        raise RuntimeError(f"{state} was measured on the wrong kernel")
    for of, name in _PROOF.items():
        count = grown.get(name, 0)
        if count < least if of == state else count:
            raise RuntimeError(f"{state}: {name} has grown by {count}")
    fell_back = {name: n for name, n in grown.items() if "Fallback" in name and n}
    if fell_back:
        raise RuntimeError(f"{state}: connections fell back to TCP: {fell_back}")
