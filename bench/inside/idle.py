#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A mobility server and more hosts than a process outside may have descriptors for: idle.py HOSTS RATE SECONDS.

result.json: what tcpbench/server.py measures.
"""

import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tcpbench import server  # noqa: E402

OUT = pathlib.Path("/lab")


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Keepalives of so many come in bursts, which one slow processor has to hold.
    pathlib.Path("/proc/sys/net/core/netdev_max_backlog").write_text("100000\n")
    found = server.measured(*map(int, sys.argv[1:]), say=print)
    (OUT / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
