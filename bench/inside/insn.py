#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions for a request: insn.py ENABLED SLICES.

For QEMU with -icount shift=0, where the time-stamp counter counts
instructions. result.json: {mode: [[operations, ticks] of each slice]}.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pair  # noqa: E402

# Operations of a slice: some ten million instructions.
AMOUNT = {"rr": 500, "connect": 100, "bulk": 20}


def main() -> None:
    enabled, slices = sys.argv[1], int(sys.argv[2])
    pair.build(enabled)
    result = {}
    for mode, amount in AMOUNT.items():
        print(mode, flush=True)
        result[mode] = pair.load(mode, slices, amount, True)
    agreed = pair.counters("client").get("Agreed", 0)
    if bool(agreed) != (enabled == "2"):
        raise RuntimeError(f"{agreed} connections agreed on migration with enabled={enabled}")
    pathlib.Path("/lab/result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
