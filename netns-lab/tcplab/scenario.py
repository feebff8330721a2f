#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a scenario inside a booted kernel: scenario.py NAME.

A scenario is scenarios/NAME.py with one function run(out): it builds its lab,
does what it is about, raises if something does not hold, and leaves what it has
to show in the directory out.
"""

import importlib.util
import pathlib
import sys
import traceback

HERE = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    sys.path.insert(0, str(HERE))
    path = HERE / "scenarios" / f"{sys.argv[1]}.py"
    spec = importlib.util.spec_from_file_location("scenario_to_run", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.run(pathlib.Path("/lab"))
    except AssertionError as e:
        traceback.print_exc()
        print(f"scenario {sys.argv[1]} failed: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
