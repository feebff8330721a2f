# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the system tests. pytest runs inside the booted lab kernel.

make_lab builds a topology for one test, with a capture at every host, and
leaves captures, timeline and the kernel's own view in $LAB_OUT/failed/TEST if the
test fails. A lab that survives a test would spoil the next, so it is always
closed.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "netns-lab"))

from exchange import RTT, Daemons  # noqa: E402
from relayed import Relayed  # noqa: E402
from tcplab import capture  # noqa: E402
from tcplab.daemons import nobody  # noqa: E402
from tcplab.topology import Lab, Link, patched, told  # noqa: E402

OUT = pathlib.Path("/lab")
TIMELINE_MAX = 20_000_000   # bytes of a capture; more takes too long
PROXIES = ("p", "q")
VIRTUAL = bool(os.environ.get("LAB_VIRTUAL"))
# Of all links in real time, until hurry(): on emulated CPUs it takes ten seconds and more until a host has a
# new place, and that shall be in the middle of a transfer.
REAL_RATE = "600kbit"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repeat", type=int, default=1, help="run each test so many times, to find one that fails rarely")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.config.getoption("--repeat") > 1:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(metafunc.config.getoption("--repeat")))


def pytest_configure(config: pytest.Config) -> None:
    if not (OUT / "cmd").exists():
        pytest.exit("these tests run inside a lab kernel: use tests/run, or make test", 2)
    config.addinivalue_line("markers", "baseline: needs no extension; runs on a vanilla kernel too")
    config.addinivalue_line("markers", "stock: about a vanilla kernel, and runs on nothing else")
    config.addinivalue_line("markers", "virtual: about exact or long times, or several moves in one transfer; needs "
                                       "virtual time")
    if not patched() and config.getoption("-m") not in ("baseline", "stock"):
        pytest.exit("this kernel has no net.tcp_migrate: boot the patched one, or use -m baseline or -m stock", 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real time is neither exact nor free."""
    for item in items:
        if not VIRTUAL and item.get_closest_marker("virtual"):
            item.add_marker(pytest.mark.skip(reason="needs virtual time"))


def pytest_runtest_logstart(nodeid: str) -> None:
    """For who has to kill the machine: which tests have begun, and when."""
    with open(OUT / "running", "a", encoding="utf-8") as running:
        print(f"{time.monotonic():.3f} {nodeid}", file=running)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = (yield).get_result()  # type: ignore[misc]
    if report.when == "call":
        item.stash[_FAILED] = report.longreprtext if report.failed else ""


_FAILED = pytest.StashKey[str]()


class Watched(Lab):
    """A lab with a capture at every host; slow: see hurry()."""

    captures: dict[str, capture.Capture]

    def __init__(self, *args: Any, slow: bool = not VIRTUAL, **kw: Any) -> None:
        # migrate-ctl takes long to start.
        super().__init__(*args, **({"migrator": told} if slow else {}) | kw)
        self.slow = slow
        if slow:
            self.link = dataclasses.replace(self.link, rate=REAL_RATE)

    def hurry(self) -> None:
        """From now on the links of a slow lab are what the topology says."""
        if self.slow:
            self.link = Link(**self.data["link"])
            for host in self.hosts.values():
                for point in host.points:
                    host.shape(self.segment(point.place), point)

    def __enter__(self) -> "Watched":
        super().__enter__()
        # One directory per lab: files of an earlier test must not be met again.
        shutil.rmtree("/tmp/lab", ignore_errors=True)
        self.captures = {name: capture.Capture(host, pathlib.Path(f"/tmp/lab/{name}.pcap"))
                         for name, host in self.hosts.items()}
        return self

    def segments(self, host: str) -> list[capture.Segment]:
        """What a host has sent and received; ends its capture."""
        return list(capture.read(self.captures[host].stop()))

    def resets(self, port: int) -> list[str]:
        """The RSTs of connections with this port that any host has sent; in real time, that any has got.

        Not those that prove their origin: a program closed. In real time a host that has lost an
        address may speak from it once more, by its new path, before it is told that it has moved:
        the other end knows nobody there, and says so to nobody. Nor those of proxies: what a box says
        about a place that was left they pass on to where the other end was.
        """
        return [f"{name}: {seg}" for name in self.hosts if name not in PROXIES for seg in self.segments(name)
                if seg.out == VIRTUAL and seg.flags & capture.RST and port in (seg.sport, seg.dport)
                and "RST-AUTH" not in seg.migrate]

    def keep(self, where: pathlib.Path, why: str) -> None:
        """Leaves everything that helps to see what went wrong."""
        where.mkdir(parents=True, exist_ok=True)
        (where / "why").write_text(why + "\n", encoding="utf-8")
        for name, cap in self.captures.items():
            shutil.copy(cap.stop(), where)
            if cap.path.stat().st_size > TIMELINE_MAX:
                continue
            with open(where / f"{name}.timeline", "w", encoding="ascii") as f:
                f.writelines(f"{s}\n" for s in _telling(list(capture.read(cap.path))))
        with open(where / "state", "w", encoding="utf-8") as f:
            for name, host in self.hosts.items():
                f.write(f"== {name}\n{host.run('ss -tnoie; ip addr; ip route', check=False).stdout}\n"
                        f"{host.counters()}\n{host.connections() if patched() else ''}\n")


def _telling(segs: list[capture.Segment]) -> list[capture.Segment]:
    """Segments with our option, SYN, RST or FIN, and the neighbours of a pause."""
    out = []
    for before, seg in zip([None, *segs], segs, strict=False):
        pause = before is None or seg.time - before.time > 0.2
        if pause or seg.migrate or seg.flags & (capture.SYN | capture.RST | capture.FIN):
            out.append(seg)
    return out


@pytest.fixture
def make_lab(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Builds a lab: make_lab(topology, rtt=..., at={...})."""
    labs: list[Watched] = []

    def make(*args: Any, **kw: Any) -> Watched:
        lab = Watched(*args, **kw).__enter__()
        labs.append(lab)
        return lab

    yield make
    name = re.sub(r"[^\w.-]+", "_", request.node.name)
    for lab in labs:
        try:
            if why := request.node.stash.get(_FAILED, "not called"):
                lab.keep(OUT / "failed" / name, why)
        finally:
            lab.close()


@pytest.fixture
def daemons(make_lab: Callable[..., Any]) -> Iterator[Callable[..., Daemons]]:
    """Makes Daemons: daemons(at, servers=1, b=True, vouching="", topology="fig22"). A test that fails shows what
    they have said."""
    made: list[Daemons] = []

    def make(at: dict[str, str], servers: int = 1, b: bool = True, vouching: str = "",
             topology: str = "fig22") -> Daemons:
        made.append(Daemons(make_lab(topology, rtt=RTT, at=at, migrator=nobody), servers, b, vouching))
        return made[-1]

    yield make
    for one in made:
        one.say()


@pytest.fixture
def relayed(make_lab: Callable[..., Any]) -> Iterator[Callable[..., Relayed]]:
    """Makes a Relayed; a test that fails shows what its daemons have said."""
    made: list[Relayed] = []

    def make(*args: Any, **kw: Any) -> Relayed:
        made.append(Relayed(make_lab, *args, **kw))
        return made[-1]
    yield make
    for one in made:
        one.close()
