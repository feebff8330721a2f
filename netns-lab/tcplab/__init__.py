# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab of tcp-migrate: kernels that boot, hosts that move.

Outside, on the machine: boot (starts a kernel, collects its results) and
splat (judges its log). Inside the booted kernel: topology (hosts, links,
NAPTs), rules (what a NAPT does to segments), genl (speaks to the kernel),
programs (servers and clients), capture (reads what tcpdump wrote), figure
(draws it), control (serves the lab command).
"""
