# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of `make bench`, on the machine's side.

stats (medians and intervals), report (rows, table, JSON), machine (kernels
that run one beside the other and are asked in turn), and one file per group of
rows: disasm, icount, rates, memory, moves, full, crowd. What runs in the booted
kernels is in ../inside.
"""
