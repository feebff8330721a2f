# SPDX-License-Identifier: GPL-2.0-or-later
"""Rates in real time: the unpatched kernel, the patched one off, and on; MPTCP.

Four kernels run side by side and take turns of a fifth of a second, in another order
each time; between turns they are frozen. A turn's rate is the median of its
slices, so that somebody else's burst of work on this machine costs a slice
rather than the turn. Several boots of each, because where a kernel's data lie
differs from boot to boot. One thread plays both ends: see load/tcp-load.cpp.
"""

import itertools
import pathlib
from collections.abc import Callable

from . import stats
from .machine import NAMES, STATES, Machine, image
from .report import Row, Target

MODES = {"bulk": "bulk throughput", "rr": "requests per second", "connect": "connections per second"}
UNITS = {"bulk": "MB/s", "rr": "1/s", "connect": "1/s"}
TARGETS = {("off", "bulk"): 0.99, ("on", "bulk"): 0.98, ("on", "rr"): 0.98, ("on", "connect"): 0.97}
SLICES, MICROSECONDS = 4, 50_000

# rates[mode][state][boot][turn]
Rates = dict[str, dict[str, list[list[float]]]]


def _turn(machine: Machine, mode: str) -> float:
    slices = machine.ask(mode=mode, slices=SLICES, us=MICROSECONDS)
    rate = stats.median([count / took * 1e9 for count, took in slices])
    return rate / 1e6 if mode == "bulk" else rate


def _boot(kernels: dict[str, pathlib.Path], out: pathlib.Path, number: int) -> list[Machine]:
    # Boots in another order too: who comes first gets other memory.
    first = number % len(STATES)
    wanted = [*STATES][first:] + [*STATES][:first]
    machines: list[Machine] = []
    try:
        for state in wanted:
            machines.append(Machine(state, image(kernels, "uml", state), out / state))
    except BaseException:
        for machine in machines:
            machine.close()
        raise
    return machines


def measure(kernels: dict[str, pathlib.Path], out: pathlib.Path, boots: int, turns: int,
            say: Callable[[str], None]) -> Rates:
    """All turns of all boots."""
    rates: Rates = {mode: {state: [] for state in STATES} for mode in MODES}
    orders = itertools.cycle(itertools.permutations(range(len(STATES))))
    for number in range(boots):
        say(f"rates: boot {number + 1} of {boots}")
        machines = _boot(kernels, out, number)
        try:
            for mode in MODES:
                for machine in machines:
                    rates[mode][machine.state].append([])
            for _ in range(turns):
                order = next(orders)
                for mode in MODES:
                    for i in order:
                        rates[mode][machines[i].state][-1].append(_turn(machines[i], mode))
        finally:
            for machine in machines:
                machine.close()
    return rates


def _row(rates: Rates, state: str, mode: str) -> Row:
    mine, base = rates[mode][state], rates[mode]["vanilla"]
    rounds = [list(zip(a, b, strict=True)) for a, b in zip(mine, base, strict=True)]
    ratio, interval = stats.median_ratio(rounds)
    every = [v for boot in mine for v in boot]
    target = Target(">=", TARGETS[state, mode], 0.01) if (state, mode) in TARGETS else None
    return Row(f"{state}.{mode}", f"{NAMES[state]}, against vanilla: {MODES[mode]}", UNITS[mode],
               value=stats.median(every), ratio=ratio, interval=interval, target=target, judged="ratio",
               compare={"vanilla": stats.median([v for boot in base for v in boot])},
               spread={"min": min(every), "max": max(every), "n": len(every)}, samples=rounds)


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows off.*, on.* and mptcp.*."""
    rates = measure(kernels, out / "rates", *((2, 4) if quick else (10, 40)), say)
    return [_row(rates, state, mode) for state in NAMES for mode in MODES]
