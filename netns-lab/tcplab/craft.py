# SPDX-License-Identifier: GPL-2.0-or-later
"""Hand-made TCP segments, for boxes and kernels to react to."""

import ipaddress
import socket
import struct
from typing import Any

from .topology import Host


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def layout(packet: bytes) -> tuple[int, int]:
    """Where the addresses and where the TCP header of a packet begin, of either family."""
    return (12, (packet[0] & 15) * 4) if packet[0] >> 4 == 4 else (8, 40)


def checked(packet: bytes) -> bytes:
    """A packet that was changed, with the checksum of its TCP segment made right."""
    at, head = layout(packet)
    addresses = packet[at:at + (8 if packet[0] >> 4 == 4 else 32)]
    tcp = packet[head:head + 16] + b"\0\0" + packet[head + 18:]
    # The sum is the same for both families' pseudo headers.
    total = checksum(addresses + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp)) + tcp)
    return packet[:head + 16] + struct.pack("!H", total) + packet[head + 18:]


def segment(src: str, dst: str, sport: int, dport: int, flags: int, seq: int = 0, ack: int = 0,
            options: bytes = b"", data: bytes = b"") -> bytes:
    """A TCP segment, whose checksum needs the addresses; options are padded with NOPs."""
    options += b"\1" * (-len(options) % 4)
    tcp = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) << 2, flags, 65535, 0, 0)
    tcp += options + data
    a, b = ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed
    # The sum is the same for both families' pseudo headers.
    total = checksum(a + b + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp)) + tcp)
    return tcp[:16] + struct.pack("!H", total) + tcp[18:]


def ipv4(src: str, dst: str, *args: Any, **kw: Any) -> bytes:
    """An IPv4 packet with one TCP segment."""
    tcp = segment(src, dst, *args, **kw)
    a, b = ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed
    # The kernel fills in the header's checksum of a raw socket's packet.
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, socket.IPPROTO_TCP, 0)
    return head + a + b + tcp


def ipv6(src: str, dst: str, *args: Any, **kw: Any) -> bytes:
    """An IPv6 packet with one TCP segment."""
    tcp = segment(src, dst, *args, **kw)
    a, b = ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed
    return struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + a + b + tcp


def packet(src: str, *args: Any, **kw: Any) -> bytes:
    """A packet of the family that its addresses have."""
    return (ipv6 if ":" in src else ipv4)(src, *args, **kw)


def too_big(router: str, dst: str, mtu: int, dropped: bytes) -> bytes:
    """ICMP's "fragmentation needed" about an IPv4 packet that dst has sent."""
    body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + dropped[:28]
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, socket.IPPROTO_ICMP, 0)
    return head + ipaddress.ip_address(router).packed + ipaddress.ip_address(dst).packed + body


def destination(data: bytes) -> str:
    """Where a packet goes."""
    return str(ipaddress.ip_address(data[16:20] if data[0] >> 4 == 4 else data[24:40]))


def send(host: Host, data: bytes) -> None:
    """Sends an IPv4 packet from a host, whatever its source address says."""
    with host.inside():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(data, (destination(data), 0))
