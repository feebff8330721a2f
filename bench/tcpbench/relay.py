# SPDX-License-Identifier: GPL-2.0-or-later
"""A relay against what else forwards, in real time on this machine's own kernel.

Each arm has three namespaces of its own: A, R in the middle, B. All arms are there at once, idle but
the one whose turn it is. What is compared is neighbouring turns.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import stats
from .machine import ROOT, LabError
from .report import Row, Target, spread

LOAD = pathlib.Path(os.environ.get("RELAY_LOAD", ROOT / "build/cmake/bench/load/relay-load"))
TURNS = ROOT / "build/cmake/bench/load/tcp-load"
ARMS = ("forward", "nftables", "haproxy", "relay")
NAMES = {"forward": "plain forwarding", "nftables": "nftables DNAT+SNAT", "haproxy": "HAProxy in TCP mode"}
PORT = 5201
OFFLOADS = ("tso", "gso", "gro", "tx", "rx", "sg")
NFT = """table ip relay {
 chain in { type nat hook prerouting priority dstnat; ip daddr 10.1.0.1 tcp dport 5201 dnat to 10.2.0.2; }
 chain out { type nat hook postrouting priority srcnat; oifname "rb" masquerade; }
}"""
HAPROXY = """global
 nbthread 1
defaults
 mode tcp
 timeout connect 5s
 timeout client 60s
 timeout server 60s
listen relay
 bind 10.1.0.1:5201
 server b 10.2.0.2:5201
"""


def sh(line: str) -> str:
    """A command that has to succeed, and what it prints."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{line}: {done.stderr.strip()}")
    return done.stdout


def busy() -> float:
    """CPU seconds that this machine has worked so far."""
    words = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, words[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def softirq_thread(cpu: int) -> float:
    """CPU seconds that the thread has had that goes on where softirqs were cut short."""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        if (entry / "comm").read_text().strip() == f"ksoftirqd/{cpu}":
            return int((entry / "schedstat").read_text().split()[0]) / 1e9
    raise LabError(f"there is no ksoftirqd/{cpu}")


class Arm:
    """One way from A to B by R."""

    def __init__(self, kind: str, xdp: bool, stack: contextlib.ExitStack, where: pathlib.Path):
        self.kind, self.xdp, self.where = kind, xdp, where
        self.stack = stack
        self.spaces = {end: f"relay-{os.getpid()}-{kind}-{'xdp-' if xdp else ''}{end}" for end in "arb"}
        self.target = "10.2.0.2" if kind == "forward" else "10.1.0.1"
        self.path: subprocess.Popen[str] | None = None
        self.sinks: dict[str, subprocess.Popen[str]] = {}

    def inside(self, end: str, line: str) -> str:
        """A command in one of the namespaces."""
        return sh(f"ip netns exec {self.spaces[end]} {line}")

    def start(self, end: str, *words: str) -> "subprocess.Popen[str]":
        """A program there, that ends with the arm."""
        child = subprocess.Popen(["ip", "netns", "exec", self.spaces[end], *words], text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        def stop() -> None:
            child.terminate()
            child.wait()
        self.stack.callback(stop)
        return child

    def load(self, end: str, *words: str) -> "subprocess.Popen[str]":
        """relay-load, once it is ready."""
        child = self.start(end, str(LOAD), *words)
        assert child.stdout
        line = child.stdout.readline().strip()
        if line != "ready":
            raise LabError(f"relay-load {' '.join(words)}: {line}")
        return child

    def build(self) -> None:
        """Namespaces, links, and what forwards."""
        for space in self.spaces.values():
            sh(f"ip netns add {space}")
            self.stack.callback(sh, f"ip netns del {space}")
        a, r, b = (self.spaces[end] for end in "arb")
        sh(f"ip link add a0 netns {a} type veth peer ra netns {r} && "
           f"ip link add rb netns {r} type veth peer b0 netns {b}")
        for end, link, address in (("a", "a0", "10.1.0.2"), ("r", "ra", "10.1.0.1"),
                                   ("r", "rb", "10.2.0.1"), ("b", "b0", "10.2.0.2")):
            self.inside(end, f"ip address add {address}/24 dev {link}")
            self.inside(end, f"ip link set {link} up")
            if self.xdp:
                self.inside(end, f"ethtool -K {link} " + " ".join(f"{o} off" for o in OFFLOADS))
        for end, via in (("a", "10.1.0.1"), ("b", "10.2.0.1")):
            self.inside(end, f"ip route add default via {via}")
            self.inside(end, "ip link set lo up")
        self.inside("r", "sysctl -qw net.ipv4.ip_forward=1")
        # So that packets that nobody has sent by a connection find their way.
        for one, other in (("a0", "ra"), ("ra", "a0"), ("rb", "b0"), ("b0", "rb")):
            to = {"a0": "10.1.0.2", "ra": "10.1.0.1", "rb": "10.2.0.1", "b0": "10.2.0.2"}[other]
            self.inside(self.end_of(one), f"ip neigh replace {to} lladdr {self.mac(other)} dev {one}")
        getattr(self, f"set_up_{self.kind}")()

    @staticmethod
    def end_of(link: str) -> str:
        """Where a link is."""
        return {"a0": "a", "ra": "r", "rb": "r", "b0": "b"}[link]

    def mac(self, link: str) -> str:
        """Its address."""
        return self.inside(self.end_of(link), f"cat /sys/class/net/{link}/address").strip()

    def set_up_forward(self) -> None:
        """Nothing more."""

    def set_up_nftables(self) -> None:
        """Rules, and the connection tracking they bring."""
        (self.where / "nft").write_text(NFT)
        self.inside("r", f"nft -f {self.where}/nft")

    def set_up_haproxy(self) -> None:
        """The program, once it listens."""
        (self.where / "haproxy").write_text(HAPROXY)
        self.start("r", "haproxy", "-db", "-f", f"{self.where}/haproxy")
        for _ in range(100):
            if self.inside("r", f"ss -Htln sport = :{PORT}"):
                return
            time.sleep(0.05)
        raise LabError("haproxy does not listen")

    def set_up_relay(self) -> None:
        """The data path, without the daemon. ip netns exec mounts /sys anew, and so there is a BPF file
        system to be mounted, too."""
        self.path = self.load("r", "path", "/sys/fs/bpf/relay", "10.1.0.1", "5000", "5999", "10.2.0.2",
                              "xdp" if self.xdp else "tc", "ra", "rb")
        if self.xdp:
            # Where XDP sends, veth wants a program at the other end as well.
            self.sinks["a"] = self.load("a", "sink", "a0", "pass")

    def stream(self, seconds: float) -> dict[str, float]:
        """Bulk from A to B: Gbit/s, packets a second that A has sent, and CPU seconds for a GiB, all of the
        machine's."""
        server = self.start("b", "taskset", "-c", "1", "iperf3", "-s", "-1", "-p", str(PORT))
        for _ in range(100):
            if self.inside("b", f"ss -Htln sport = :{PORT}"):
                break
            time.sleep(0.02)
        sent, before = self.sent(), busy()
        told = json.loads(self.inside("a", f"taskset -c 0 iperf3 -J -c {self.target} -p {PORT} -t {seconds} -O 0.2"))
        used, sent = busy() - before, self.sent() - sent
        server.wait(10)
        if "error" in told:
            raise LabError(f"{self.kind}: iperf3: {told['error']}")
        got, all_bytes = told["end"]["sum_received"], told["end"]["sum_sent"]["bytes"]
        return {"gbit": got["bits_per_second"] / 1e9, "cpu": used / (all_bytes / 2**30),
                "packets": sent / (seconds + 0.2)}

    def round_trip(self) -> float:
        """Microseconds of a request and its answer, 64 bytes each; one thread plays both ends."""
        lines = sh(f"taskset -c 0 {TURNS} rr {self.spaces['b']} {self.spaces['a']} {self.target} {PORT} 5 50000")
        slices = [line.split() for line in lines.splitlines()]
        return stats.median([int(took) / int(count) / 1000 for count, took in slices])

    def sent(self) -> int:
        """Packets that have left A."""
        return int(self.inside("a", "cat /sys/class/net/a0/statistics/tx_packets"))

    def count(self) -> int:
        """What has come to B's sink."""
        sink = self.sinks["b"]
        assert sink.stdin and sink.stdout
        sink.stdin.write("\n")
        sink.stdin.flush()
        return int(sink.stdout.readline())

    def ready_to_blast(self) -> None:
        """B drops, where it costs least; the relay has a flow. What comes by XDP is taken by links with a
        program only: in R it lets pass, at A it is that of whatever goes back."""
        self.sinks["b"] = self.load("b", "sink", "b0", "xdp" if self.path else "tc")
        if not self.path:
            self.sinks["r"] = self.load("r", "sink", "ra", "pass")
        if self.path:
            assert self.path.stdin and self.path.stdout
            self.path.stdin.write("10.1.0.2 1234 5201\n")
            self.path.stdin.flush()
            self.path.stdout.readline()

    def blast(self, size: int, seconds: float) -> float:
        """Packets for a second of CPU time, from A's sending of them to B's dropping: all of it is done by one
        CPU, in A's name or its ksoftirqd's. The machine may do other things meanwhile."""
        before, behind = self.count(), softirq_thread(0)
        said = self.inside("a", f"taskset -c 0 {LOAD} blast a0 {self.mac('ra')} {self.mac('a0')} 10.1.0.2 1234 "
                                f"{self.target} {PORT} {size} {seconds}").split()
        return (self.count() - before) / (float(said[1]) + softirq_thread(0) - behind)


@contextlib.contextmanager
def arms(kinds: tuple[str, ...], xdp: bool) -> Iterator[list[Arm]]:
    """All of them, built."""
    with tempfile.TemporaryDirectory() as top, contextlib.ExitStack() as stack:
        made = []
        for kind in kinds:
            where = pathlib.Path(top) / kind
            where.mkdir()
            made.append(Arm(kind, xdp, stack, where))
            made[-1].build()
        yield made


def turns(made: list[Arm], rounds: int, once: Callable[[Arm], Any]) -> dict[str, list[Any]]:
    """Each arm in turn, the order turned about by one each time. The first round is not counted."""
    samples: dict[str, list[Any]] = {arm.kind: [] for arm in made}
    for i in range(rounds + 1):
        shift = i % len(made)
        for arm in made[shift:] + made[:shift]:
            value = once(arm)
            if i:
                samples[arm.kind].append(value)
    return samples


def compared(id_: str, what: str, unit: str, samples: dict[str, list[float]]) -> list[Row]:
    """The relay against each of the others."""
    rows = []
    mine = samples["relay"]
    for other, target in (("forward", 0.95), ("nftables", 1.0), ("haproxy", 1.0)):
        if other not in samples:
            continue
        ratio, interval = stats.median_ratio([list(zip(mine, samples[other], strict=True))])
        rows.append(Row(f"relay.{id_}-{other}", f"relay, {what}, to {NAMES[other]}", unit,
                        value=stats.median(mine), ratio=ratio, interval=interval, judged="ratio",
                        target=Target(">=", target), spread=spread(mine), samples=[mine, samples[other]],
                        compare={NAMES[other]: stats.median(samples[other])}))
    return rows


def cpu_row(id_: str, what: str, samples: dict[str, list[dict[str, float]]]) -> Row:
    """CPU time for a GiB, of ends and middle together."""
    cost = {kind: [s["cpu"] for s in all_] for kind, all_ in samples.items()}
    return Row(f"relay.{id_}-cpu", f"relay, {what}, CPU for a GiB, A, R and B together", "s",
               value=stats.median(cost["relay"]), spread=spread(cost["relay"]),
               compare={NAMES[k]: round(stats.median(v), 3) for k, v in cost.items() if k != "relay"},
               samples=[cost])


def bulk(rounds: int, seconds: float) -> list[Row]:
    """Throughput of one connection, by tc, where links have their offloads."""
    with arms(ARMS, False) as made:
        samples = turns(made, rounds, lambda arm: arm.stream(seconds))
    rate = {kind: [s["gbit"] for s in all_] for kind, all_ in samples.items()}
    what = "tc, offloads on, bulk"
    return [*compared("tc", what, "Gbit/s", rate), cpu_row("tc", what, samples)]


def latency(rounds: int) -> list[Row]:
    """What the middle adds to a round trip, which goes through it twice."""
    with arms(ARMS, False) as made:
        samples = turns(made, rounds, Arm.round_trip)
    mine = samples["relay"]
    added = [one - other for one, other in zip(mine, samples["forward"], strict=True)]
    return [Row("relay.latency", "relay, tc, round trip of 64 bytes and 64 back, A, R and B on one CPU", "us",
                value=stats.median(mine), spread=spread(mine), samples=[samples],
                compare={**{NAMES[k]: round(stats.median(v), 2) for k, v in samples.items() if k != "relay"},
                         "more than plain forwarding": round(stats.median(added), 2)})]


def streams(rounds: int, seconds: float) -> list[Row]:
    """A connection's packets, by XDP, where links have no offloads: what HAProxy is held against, which takes no
    packets but those of a connection. There are none of 64 bytes: a sender joins small writes as soon as it has
    to wait."""
    with arms(("haproxy", "relay"), True) as made:
        made[-1].sinks["b"] = made[-1].load("b", "sink", "b0", "pass")
        samples = turns(made, rounds, lambda arm: arm.stream(seconds)["packets"])
    return compared("stream-1514", "XDP, no offloads, one connection's frames of 1514 bytes", "1/s", samples)


def packets(rounds: int, seconds: float) -> list[Row]:
    """What a second of CPU time does without offloads, by XDP."""
    rows = []
    with arms(("forward", "nftables", "relay"), True) as made:
        for arm in made:
            arm.ready_to_blast()
        for size in (64, 1514):
            def once(arm: Arm, size: int = size) -> float:
                return arm.blast(size, seconds)
            rows += compared(f"packets-{size}", f"XDP, no offloads, frames of {size} bytes", "1/s",
                             turns(made, rounds, once))
    return rows


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows relay.*."""
    rounds, seconds = (2, 1) if quick else (20, 1)
    all_rows: list[Row] = []
    for what, part in (("tc, with offloads", bulk), ("XDP, streams", streams), ("XDP, packets", packets)):
        say(f"relay: {what}")
        all_rows += part(rounds, seconds)
    say("relay: round trips")
    all_rows += latency(rounds)
    return all_rows
