#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves a Machine: serve.py STATE.

STATE is one of states.py. Requests are files /lab/ctl/N.req:
{"mode": "rr", "slices": 8, "us": 50000}.
"""

import json
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pair  # noqa: E402

CTL = pathlib.Path("/lab/ctl")


def work(words: dict[str, Any], state: str) -> Any:
    """One request."""
    return pair.load(state, words["mode"], words["slices"], words["us"])


def answer(request: pathlib.Path, state: str) -> None:
    """Serves a request file."""
    try:
        reply = {"result": work(json.loads(request.read_text()), state)}
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
