#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions for a request: insn.py STATE SLICES.

For QEMU with -icount shift=0, where the time-stamp counter counts
instructions. STATE is one of states.py. result.json: {mode: [[operations, ticks] of each slice]}.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pair  # noqa: E402

# Operations of a slice: some ten million instructions.
AMOUNT = {"rr": 500, "connect": 100, "bulk": 20}


def main() -> None:
    state, slices = sys.argv[1], int(sys.argv[2])
    pair.build(state)
    result = {}
    for mode, amount in AMOUNT.items():
        print(mode, flush=True)
        result[mode] = pair.load(state, mode, slices, amount, True)
    pathlib.Path("/lab/result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
