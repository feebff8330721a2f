#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the vectors of tcp_migrate_test.c, computed by Python's hmac and a SipHash.

An implementation of docs/protocol.md's formulas that shares nothing with the
kernel's. Without arguments: the vectors; with a file: checks that each is in it.
"""
import hashlib
import hmac
import ipaddress
import struct
import sys

KEY_A = 0x0102030405060708
KEY_B = 0x1112131415161718
PAIR = struct.pack(">QQ", KEY_A, KEY_B)
KEY = b"\x5a" * 32
SUB_MREQ, SUB_MANS, ROLE = 1, 6, 8
M64 = (1 << 64) - 1


def mac(key, msg):
    """HMAC-SHA256"""
    return hmac.new(key, msg, hashlib.sha256).digest()


def siphash(k0, k1, msg):
    """SipHash-2-4, as its authors' paper has it"""
    v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573]

    def rotated(x, bits):
        return (x << bits | x >> 64 - bits) & M64

    def half(a, b, c, d, s, t):
        v[a], v[c] = v[a] + v[b] & M64, v[c] + v[d] & M64
        v[b], v[d] = rotated(v[b], s) ^ v[a], rotated(v[d], t) ^ v[c]
        v[a] = rotated(v[a], 32)

    def rounds(n):
        for _ in range(n):
            half(0, 1, 2, 3, 13, 16)
            half(2, 1, 0, 3, 17, 21)
    padded = msg + bytes(7 - len(msg) % 8) + bytes([len(msg) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xff
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def token(key):
    """By which the peer finds the connection"""
    return siphash(key, 0x5443504d746f6b6e, bytes(4)) & 0xffffffff


def address_hash(key, address):
    """In the place of an IPv6 address"""
    halves = struct.unpack(">QQ", ipaddress.ip_address(address).packed)
    return siphash(key, key ^ M64, struct.pack("<QQ", *halves)) >> 32


def mreq(sub, asker_nonce):
    """MAC64 of MREQ and MANS"""
    msg = b"MREQ" + struct.pack(">BIIIHIII", sub << 4 | ROLE, 0x12345678,
                                0xa1a2a3a4, 0xb1b2b3b4, 80, 0xc0a80001,
                                0xd1d2d3d4, asker_nonce)
    return mac(KEY, msg)[:8]


def c_bytes(data):
    """As the elements of a C array"""
    return ", ".join(f"0x{b:02x}" for b in data)


def vectors():
    """Name and C text of each vector"""
    confirm = mac(KEY, b"CONF\x01" + struct.pack(">III", 0x12345678,
                                                 0xb1b2b3b4, 0xc1c2c3c4))
    held = mac(KEY, b"CONF\x01" + struct.pack(">IIIH", 0x12345678,
                                              0xb1b2b3b4, 0xc1c2c3c4, 0xe1e2))
    rst = mac(KEY, b"RST\x01" + struct.pack(">I", 0xd1d2d3d4))
    key0 = mac(PAIR + bytes(16), b"TCPM v0")
    return {
        "KEY0": c_bytes(key0),
        "EXPORTER": c_bytes(mac(key0, b"TCPM exporter")),
        "TOKEN_A": f"0x{token(KEY_A):08x}",
        "TOKEN_B": f"0x{token(KEY_B):08x}",
        "HASH": f"0x{address_hash(KEY_A, '2001:db8::1'):08x}",
        "STRONG": c_bytes(mac(KEY, b"TCPM v1" + PAIR)),
        "CONFIRM": c_bytes(confirm[:12]),
        "CONFIRM, held": c_bytes(held[:12]),
        "MREQ": f"0x{mreq(SUB_MREQ, 0).hex()}ULL",
        "MANS": f"0x{mreq(SUB_MANS, 0xc1c2c3c4).hex()}ULL",
        "RST": f"0x{rst[:8].hex()}ULL",
    }


def main():
    """Print, or check a file"""
    if len(sys.argv) == 1:
        for name, text in vectors().items():
            print(f"{name}: {text}")
        return 0
    have = "".join(open(sys.argv[1], encoding="utf-8").read().split())
    missing = [n for n, t in vectors().items() if "".join(t.split()) not in have]
    print("missing: " + ", ".join(missing) if missing else "vectors agree")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
