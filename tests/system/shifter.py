# SPDX-License-Identifier: GPL-2.0-or-later
"""A box that randomises sequence numbers, as some firewalls do.

It stands between the hosts of one segment and everybody else: the router's
rules send what comes from or goes to that segment through a TUN device, whose
other end is a thread here. Each direction of a connection whose SYN has been
seen is shifted by a number of its own, in sequence numbers, acknowledgments
and SACK blocks; whatever else comes passes as it is.
"""

import fcntl
import os
import struct
import threading
from typing import Any

from tcplab import capture
from tcplab.craft import checksum

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
M32 = 0xFFFFFFFF
Tuple = tuple[bytes, bytes, bytes]      # addresses and ports as on the wire


class Shifter:
    """Stands in the way of a place's hosts, while it is open."""

    def __init__(self, lab: Any, place: str, by: int = 0x5EC0FFEE) -> None:
        self.by, self.shifts, self.count = by, dict[Tuple, int](), 0
        net4 = lab.segment(place).net4
        with lab.net.inside():
            self.tun = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"shift", IFF_TUN | IFF_NO_PI))
        lab.net.run("ip link set shift txqueuelen 1000 up\n"
                    "ip route add default dev shift table 77\n"
                    "ip rule add pref 10 iif shift lookup main\n"
                    f"ip rule add pref 11 iif {place} lookup 77\n"
                    f"ip rule add pref 12 to {net4} lookup 77\n")
        self.lab = lab
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def __enter__(self) -> "Shifter":
        return self

    def __exit__(self, *_: object) -> None:
        # Reading ends with an error when the device goes.
        self.lab.net.run("ip link del shift; ip rule del pref 10; ip rule del pref 11; ip rule del pref 12")
        self.thread.join()
        os.close(self.tun)

    def _work(self) -> None:
        while True:
            try:
                os.write(self.tun, self._pass(os.read(self.tun, 65536)))
            except OSError:
                return

    def _pass(self, packet: bytes) -> bytes:
        """A packet as it leaves the box."""
        head = (packet[0] & 15) * 4
        if packet[0] >> 4 != 4 or packet[9] != 6:
            return packet
        src, dst, tcp = packet[12:16], packet[16:20], bytearray(packet[head:])
        there: Tuple = (src, dst, bytes(tcp[:4]))
        back: Tuple = (dst, src, bytes(tcp[2:4] + tcp[:2]))
        if tcp[13] & capture.SYN and there not in self.shifts:
            self.shifts[there] = self.by + 4096 * len(self.shifts)
        self._renumber(tcp, self.shifts.get(there, 0), self.shifts.get(back, 0))
        tcp[16:18] = b"\0\0"
        tcp[16:18] = struct.pack("!H", checksum(src + dst + struct.pack("!BBH", 0, 6, len(tcp)) + bytes(tcp)))
        return packet[:head] + bytes(tcp)

    def _renumber(self, tcp: bytearray, forth: int, back: int) -> None:
        if forth or back:
            self.count += 1
        seq, ack = struct.unpack_from("!II", tcp, 4)
        struct.pack_into("!I", tcp, 4, (seq + forth) & M32)
        if tcp[13] & capture.ACK:
            struct.pack_into("!I", tcp, 8, (ack - back) & M32)
        i, end = 20, (tcp[12] >> 4) * 4
        while i < end and tcp[i]:
            size = 1 if tcp[i] == 1 else tcp[i + 1]
            if tcp[i] == 5:
                for at in range(i + 2, i + size, 4):
                    struct.pack_into("!I", tcp, at, (struct.unpack_from("!I", tcp, at)[0] - back) & M32)
            i += max(size, 1)
