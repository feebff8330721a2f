# SPDX-License-Identifier: GPL-2.0-or-later
"""What the thesis' figures 18 to 20 show, as it really happens: sequence diagrams of captures.

In each case an unmodified program's connection goes on after a move of its hosts. What TCP and the proxy
send is taken from captures at A, B and P, where it is sent; what goes through TLS from the daemons' logs.
Leaves sequences.md, which is docs/sequences.md, and the captures of each case.
"""

import dataclasses
import datetime
import pathlib
import re
import time
from collections.abc import Callable

from tcplab import capture, programs
from tcplab.daemons import Client, Proxy, Server, nobody
from tcplab.topology import Lab, patched, wait_for

RTT = 0.05
PORT = programs.HTTP
SIZE = 24 << 20
# What a daemon's log says, who says it to whom, and in which words.
EVENTS = {
    "client": {"report": "{0}->>S: Report", "asked": "S->>{0}: Ask", "told": "S->>{0}: Notice ({place})",
               "outcome": "{0}->>S: Outcome (resumed: {resumed})"},
    "server": {"order": "S->>P: Order", "reserved": "P->>S: Reserved"},
}

HEAD = """# What happens on the wire

Made by `netns-lab/lab run sequences`, which leaves the captures behind it in `build/run/sequences`. Do not edit.

## Figures 16 and 17: who there is

```mermaid
flowchart LR
    subgraph A
        a1[program] --- a2[TCP] --- a3[mobility-client]
    end
    subgraph B
        b1[program] --- b2[TCP] --- b3[mobility-client]
    end
    a2 --- n1[NAPT] --- p[sym-proxy] --- n2[NAPT] --- b2
    a3 -. TLS .- s[mobility-server]
    b3 -. TLS .- s
    s -. TLS .- p
```

`mobility-client` watches addresses and connections, has the kernel's TCP migrate them, and speaks with servers.
Segments go through the proxy, addresses and ports rewritten; the server is not on their way.

## How to read the others

The thesis' figures 18 to 20 as they really happen, at a round trip of {rtt:.0f} ms between any two places. A
downloads from B by curl; time 0 is when the moves begin, in milliseconds, where a message is sent (reports) or
received (what servers say), a segment where it is sent. Segments are those with our option, SYN or RST, and B's first
data to a place. What is said again within half a round trip is told once.
"""


@dataclasses.dataclass
class Case:
    """One figure."""

    title: str
    text: str
    at: dict[str, str]
    moves: dict[str, str]
    before: dict[str, str] = dataclasses.field(default_factory=dict)  # moves that another one shows


CASES = {
    "fig18": Case("Figure 18: both outside, both move", "Who reports last is told where the other is.",
                  {"a": "g2", "b": "g1"}, {"a": "core", "b": "g2"}),
    "fig19": Case("Figure 19: A is behind a NAPT, B moves",
                  "No SYN of B reaches A, so that A has to be told. B's own MSYN is lost at A's NAPT.",
                  {"a": "n1", "b": "g1"}, {"b": "g2"}),
    "fig20": Case("Figure 20: both go behind NAPTs", "The server orders a port of the proxy, and tells both.",
                  {"a": "g2", "b": "g1"}, {"a": "n1", "b": "n3"}),
    "moves-on": Case("3.4.5: A, relayed, goes behind another NAPT",
                     "The proxy passes A's request on to B, without SYN. Nobody needs the server.",
                     {"a": "g2", "b": "g1"}, {"a": "n2"}, {"a": "n1", "b": "n3"}),
    "leaves": Case("3.4.5: A, relayed, goes outside",
                   "The request goes through the proxy first; B, which is told A's new place, then leaves the relay.",
                   {"a": "g2", "b": "g1"}, {"a": "g1"}, {"a": "n1", "b": "n3"}),
}


def fields(line: str) -> dict[str, str]:
    """key=value of a line of a log."""
    return {k: v.strip('"') for k, v in re.findall(r'([\w-]+)=("[^"]*"|\S+)', line)}


def logged(kind: str, who: str, log: str, began: float) -> list[tuple[float, str]]:
    """What a daemon's log says in a diagram, from then on; to the millisecond."""
    out = []
    for line in log.splitlines():
        said = fields(line)
        form = EVENTS[kind].get(said.get("event", ""))
        if not form:
            continue
        when = datetime.datetime.fromisoformat(said["time"]).timestamp()
        if when < began - 0.001:
            continue
        trial = ", trial" if said.get("trial") == "true" else ""
        place = "the proxy" if said.get("relay") == "true" else said.get("place", "") + trial
        out.append((max(when, began), form.format(who, place=place, resumed=said.get("resumed", ""))))
    return out


def words(seg: capture.Segment) -> str:
    """A segment in a diagram."""
    bits = (("SYN", capture.SYN), ("RST", capture.RST), ("ACK", capture.ACK))
    names = [name for name, bit in bits if seg.flags & bit]
    if "MREQ" in seg.migrate and names == ["SYN"]:
        names = ["MSYN"]
    return ", ".join(names + seg.migrate)


class Hosts:
    """Whose an address is."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.names: dict[str, str] = {}
        self.note()

    def note(self) -> None:
        """Where hosts are now."""
        for name, host in self.lab.hosts.items():
            if host.point:
                self.names[host.v4] = name.upper()
        # NAPTs have theirs in their order.
        for i, name in enumerate("AABB"):
            self.names[str(self.lab.segment("core").net4[11 + i])] = name


def segments(files: dict[str, pathlib.Path], began: float, hosts: Hosts) -> list[tuple[float, str]]:
    """What was sent since then, and B's first data to each place where it has proved itself or got a proof."""
    out: list[tuple[float, str]] = []
    proved: dict[str, bool] = {}  # places, and whether data went there
    for name, file in files.items():
        for seg in capture.read(file):
            if seg.time < began or not seg.out:
                continue
            to = hosts.names.get(seg.dst, seg.dst)
            if name == "b" and "CONFIRM" in seg.migrate:
                proved.setdefault(to, False)
            first = name == "b" and seg.length > 0 and proved.get(to) is False
            if first:
                proved[to] = True
            if first or seg.migrate or seg.flags & (capture.SYN | capture.RST):
                out.append((seg.time, f"{name.upper()}->>{to}: {words(seg)}{', the first data' if first else ''}"))
    return out


def together(told: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """In the order of time; what was said several times in a row is told once."""
    out: list[tuple[float, str]] = []
    for when, line in sorted(told):
        if not any(line == old and when - then < RTT / 2 for then, old in out):
            out.append((when, line))
    return out


def diagram(case: Case, told: list[tuple[float, str]], began: float) -> str:
    told = together(told)
    used = {name for _, line in told for name in (line[0], line.split(":")[0][-1])}
    who = [f"    participant {name}" for name in "ASPB" if name in used]
    lines = [f"    {line} @ {1000 * (when - began):.1f}" for when, line in told]
    return (f"\n## {case.title}\n\n{case.text}\n\n```mermaid\nsequenceDiagram\n" +
            "\n".join([*who, *lines]) + "\n```\n")


def settled(lab: Lab, cookies: dict[str, int], size: Callable[[], int]) -> None:
    """Waits until data come again and both ends rest, and a moment more."""
    before = size()
    wait_for("the download to go on", lambda: size() > before and all(
        c["state"] == "idle" for host, cookie in cookies.items() for c in lab.hosts[host].connections()
        if c["cookie"] == cookie), 60, 0.001)
    time.sleep(6 * RTT)


def show(name: str, case: Case, out: pathlib.Path) -> str:
    """One case: its lab, and its diagram."""
    with Lab("relay", rtt=RTT, at=case.at, migrator=nobody) as lab:
        proxy = Proxy(lab.hosts["p"])
        server = Server(lab.s, more=proxy.section())
        proxy.admit(server)
        clients = {host: Client(lab.hosts[host], server) for host in "ab"}
        programs.data(programs.nginx(lab.b) / "file", SIZE)
        got = programs.home(lab.a, "curl") / "file"
        curl = lab.a.popen(["curl", "-sS", "--limit-rate", "2M", "-o", str(got), f"http://{lab.b.v4}/file"])
        wait_for("data", lambda: got.exists() and got.stat().st_size > 1 << 20, 60)
        for client in clients.values():
            client.agreed(PORT)
            client.joined()
        cookies = {host: lab.hosts[host].connection(PORT)["cookie"] for host in "ab"}
        for host, place in case.before.items():
            lab.hosts[host].move(place)
        if case.before:
            settled(lab, cookies, lambda: got.stat().st_size)
            time.sleep(2)
        hosts = Hosts(lab)
        caps = {h: capture.Capture(lab.hosts[h], out / f"{name}-{h}.pcap", "tcp and not portrange 7790-7792")
                for h in "abp"}
        began = time.time()
        for host, place in case.moves.items():
            lab.hosts[host].move(place)
        hosts.note()
        settled(lab, cookies, lambda: got.stat().st_size)
        told = segments({h: c.stop() for h, c in caps.items()}, began, hosts)
        told += logged("server", "S", server.said(), began)
        for host, client in clients.items():
            told += logged("client", host.upper(), client.said(), began)
        curl.terminate()
        curl.wait()
        proxy.forget()
        return diagram(case, told, began)


def run(out: pathlib.Path) -> None:
    assert patched(), "this kernel has no TCP migration: build one with make uml-plain"
    text = HEAD.format(rtt=1000 * RTT)
    for name, case in CASES.items():
        print(case.title, flush=True)
        text += show(name, case, out)
    (out / "sequences.md").write_text(text)
