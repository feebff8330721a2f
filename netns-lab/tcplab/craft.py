# SPDX-License-Identifier: GPL-2.0-or-later
"""Hand-made TCP segments, for boxes and kernels to react to."""

import ipaddress
import socket
import struct

from .topology import Host


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def checked(packet: bytes) -> bytes:
    """An IPv4 packet that was changed, with the checksum of its TCP segment made right."""
    head = (packet[0] & 15) * 4
    tcp = packet[head:head + 16] + b"\0\0" + packet[head + 18:]
    total = checksum(packet[12:20] + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp)) + tcp)
    return packet[:head + 16] + struct.pack("!H", total) + packet[head + 18:]


def ipv4(src: str, dst: str, sport: int, dport: int, flags: int, seq: int = 0, ack: int = 0,
         options: bytes = b"", data: bytes = b"") -> bytes:
    """An IPv4 packet with one TCP segment; options are padded with NOPs."""
    options += b"\1" * (-len(options) % 4)
    tcp = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) << 2, flags, 65535, 0, 0)
    tcp += options + data
    a, b = ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed
    total = checksum(a + b + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    # The kernel fills in the header's checksum of a raw socket's packet.
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, socket.IPPROTO_TCP, 0)
    return head + a + b + tcp


def send(host: Host, packet: bytes) -> None:
    """Sends an IPv4 packet from a host, whatever its source address says."""
    with host.inside():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(packet, (str(ipaddress.ip_address(packet[16:20])), 0))
