#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the MAC vectors of tcp_migrate_test.c, computed by Python's hmac.

An implementation of docs/protocol.md's formulas that shares nothing with the
kernel's. Without arguments: the vectors; with a file: checks that each is in it.
"""
import hashlib
import hmac
import struct
import sys

KEY_A = 0x0102030405060708
KEY_B = 0x1112131415161718
PAIR = struct.pack(">QQ", KEY_A, KEY_B)
KEY = b"\x5a" * 32
SUB_MREQ, SUB_MANS, ROLE = 1, 6, 8


def mac(key, msg):
    """HMAC-SHA256"""
    return hmac.new(key, msg, hashlib.sha256).digest()


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
    rst = mac(KEY, b"RST\x01" + struct.pack(">I", 0xd1d2d3d4))
    return {
        "KEY0": c_bytes(mac(PAIR + bytes(16), b"TCPM v0")),
        "STRONG": c_bytes(mac(KEY, b"TCPM v1" + PAIR)),
        "CONFIRM": c_bytes(confirm[:12]),
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
