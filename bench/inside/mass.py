#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Thousands of connections moved by one command: mass.py COUNT REPEATS.

Two questions, two networks.

all    an ordinary link (RTT 20 ms, a queue of 1,000 segments, as devices have),
       fast (100 Mbit/s) and slow (10 Mbit/s). After the command each connection
       has to carry a byte and its answer, and no Migrate-Request shall have been
       lost to the mover's own queue: what that refuses is not sent, and goes when
       there is room. Ten thousand that then speak at once overflow a slow link's
       queue all the same: that is for TCP.
cost   the link from the mover takes 600 ms, and holds everything: nothing is
       answered before all requests have been handed to the device. What the
       mover's processor does from the command on is then the command and
       nothing else: no router, no peer, no answer.

result.json: {"fast" and "slow": {"count", "resumed", "committed", "sent",
"repeated", "received" (by the peer), "dropped" (segments of any kind)}, "cost":
[{"count", "command_ns", "call_ns", "cpu_ns"}...]}.
command_ns is the time of the whole migrate-ctl, call_ns that of the netlink
call in it alone, made by genl.py in other moves; cpu_ns user and system time of
migrate-ctl.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from crowd import LIMIT, Crowd  # noqa: E402
from tcplab.topology import CTL, Host, Lab, Point, wait_for  # noqa: E402

SLOW = 0.6


def command(host: Host, old: Point, new: Point) -> dict[str, int]:
    """migrate-ctl; how long it took and what it used."""
    argv = [str(CTL), "migrate", "--from-local", old.v4, "--to-local", new.v4]
    with host.inside():
        began = time.perf_counter_ns()
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        took = time.perf_counter_ns() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"migrate-ctl ended with {child.returncode}")
    return {"command_ns": took, "cpu_ns": round((usage.ru_utime + usage.ru_stime) * 1e9)}


def call(host: Host, old: Point, new: Point) -> dict[str, int]:
    """The netlink call alone."""
    with host.family() as family:
        began = time.perf_counter_ns()
        family.migrate_all(old.v4, new.v4)
        return {"call_ns": time.perf_counter_ns() - began}


def move(lab: Lab, tell: Any, place: str) -> dict[str, int]:
    """Takes A to another place; the extension is told by tell()."""
    found: dict[str, int] = {}
    lab.migrator = lambda host, old, new, trial: found.update(tell(host, old, new))
    lab.a.move(place)
    return found


def at_rest(lab: Lab, count: int) -> None:
    """Waits until every connection has committed and rests."""
    def done() -> bool:
        conns = lab.a.connections()
        return len(conns) == count and all(c["state"] == "idle" and c["local-addr"] == lab.a.v4 for c in conns)
    wait_for("all connections to be at rest", done, 120, 0.5)


def dropped(lab: Lab) -> int:
    """Segments that the queue of A's device has dropped since it is there."""
    text = lab.a.run(f"tc -s -j qdisc show dev {lab.a.point.dev}").stdout
    return sum(q.get("drops", 0) for q in json.loads(text))


def all_resumed(count: int, rate: str) -> dict[str, Any]:
    """Who goes on after one command."""
    with Lab("fig22", rtt=0.02, at={"a": "g1", "b": "g1"}) as lab:
        peers = lab.b.counters()["MsynRcvd"]
        lab.set_link("g1", limit=LIMIT)
        lab.set_link("g2", rate=rate, limit=1000)
        crowd = Crowd(lab)
        crowd.grow(count)
        before = lab.a.counters()
        move(lab, command, "g2")
        back = crowd.talk(crowd.clients, crowd.servers)
        at_rest(lab, count)
        after, drops, peers = lab.a.counters(), dropped(lab), lab.b.counters()["MsynRcvd"] - peers
        crowd.close()
    grown = {k: after[k] - before[k] for k in after}
    return {"count": count, "resumed": back, "committed": grown["Commit"], "sent": grown["MsynSent"],
            "repeated": grown["MsynRetrans"], "received": peers, "dropped": drops}


def cost(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    """What the command takes, for growing numbers of connections."""
    out = []
    with Lab("fig22", at={"a": "g1", "b": "g1"}) as lab:
        for place in ("g1", "g2"):
            lab.set_link(place, delay=SLOW, limit=100_000, rate="1gbit")
        crowd = Crowd(lab)
        for count in counts:
            crowd.grow(count)
            print(f"{count} connections", flush=True)
            for n in range(2 * repeats):
                place = "g2" if lab.a.point.place == "g1" else "g1"
                out.append({"count": count, **move(lab, (command, call)[n % 2], place)})
                at_rest(lab, count)
                print(out[-1], flush=True)
        crowd.close()
    return out


def main() -> None:
    count, repeats = int(sys.argv[1]), int(sys.argv[2])
    result = {"cost": cost([count // 10, count], repeats),
              "fast": all_resumed(count, "100mbit"), "slow": all_resumed(count, "10mbit"),
              "clock": pathlib.Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text()}
    pathlib.Path("/lab/result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
