#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves a Machine: serve.py ENABLED.

Requests are files /lab/ctl/N.req: {"mode": "rr", "slices": 8, "us": 50000}.
Before the first is served the hosts' extension is in the state it was asked
to be in: whether it is on is checked by what the counters say.
"""

import json
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pair  # noqa: E402

CTL = pathlib.Path("/lab/ctl")


def work(words: dict[str, Any], enabled: str) -> Any:
    """One request."""
    before = pair.counters("client").get("Agreed", 0)
    out = pair.load(words["mode"], words["slices"], words["us"])
    agreed = pair.counters("client").get("Agreed", 0) - before
    if bool(agreed) != (enabled == "2"):
        raise RuntimeError(f"{agreed} connections agreed on migration, with enabled={enabled}")
    return out


def answer(request: pathlib.Path, enabled: str) -> None:
    """Serves a request file."""
    try:
        reply = {"result": work(json.loads(request.read_text()), enabled)}
    except Exception as e:  # whoever asked is told
        reply = {"error": str(e)}
    request.unlink()
    done = request.with_suffix(".part")
    done.write_text(json.dumps(reply))
    done.rename(request.with_suffix(".ans"))


def main() -> None:
    pair.build(sys.argv[1])
    (CTL / "ready").touch()
    while True:
        for request in CTL.glob("*.req"):
            answer(request, sys.argv[1])
        time.sleep(0.002)


if __name__ == "__main__":
    main()
