# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges a kernel log: which lines mean that the kernel itself has failed.

One splat fails a run, whatever its tests said.
"""

import re

PATTERNS = (
    r"KASAN:",
    r"UBSAN:",
    r"WARNING:",
    r"BUG:",
    r"possible (circular|recursive) locking",
    r"inconsistent lock state",
    r"suspicious RCU usage",
    r"INFO: task .* blocked for more than",
    r"rcu.*detected (expedited )?stalls",
    r"unregister_netdevice: waiting",
    r"refcount_t:",
    r"ODEBUG:",
    r"ref_tracker:",
    r"Oops",
    r"general protection fault",
    r"[Kk]ernel panic",
    r"Out of memory:",
    r"page allocation failure",
)
_SPLAT = re.compile("|".join(PATTERNS))
# What a healthy kernel prints at boot with one of the words above in it.
_HARMLESS = re.compile(r"lockdep: fixing up alternatives|DEBUG_LOCKS_WARN_ON is")


def find(log: str, context: int = 30) -> list[str]:
    """The splats in a log, each with the lines that follow it."""
    lines = log.splitlines()
    out: list[str] = []
    skip_to = 0
    for i, line in enumerate(lines):
        if i < skip_to or not _SPLAT.search(line) or _HARMLESS.search(line):
            continue
        out.append("\n".join(lines[max(0, i - 1) : i + context]))
        skip_to = i + context
    return out


def leaks(report: str) -> list[str]:
    """The objects of a kmemleak report."""
    return [f"unreferenced object{part}" for part in report.split("unreferenced object")[1:]]
