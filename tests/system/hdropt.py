# SPDX-License-Identifier: GPL-2.0-or-later
"""A BPF program that adds an option of its own to every TCP header, of a cgroup.

As an operator's would (bpf-helpers(7), bpf_store_hdr_opt): it asks for room when a
header is laid out, and writes when there is some. Hand-assembled, since a compiler for
a dozen instructions would be one more thing to install.
"""

import ctypes
import os
import platform
import struct

KIND = 253      # experimental, RFC 6994; not ours
SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, PROG_ATTACH, PROG_DETACH = 5, 8, 9
TYPE_SOCK_OPS, ATTACH_SOCK_OPS, ALLOW_MULTI = 13, 3, 2
CONNECT, LISTEN, OPTION_LENGTH, WRITE_OPTION = 3, 11, 14, 15
FLAGS_SET, STORE, RESERVE = 59, 143, 144
WRITE_FLAG = 1 << 6
CTX, ARG1, ARG2, ARG3, ARG4, FRAME = 6, 1, 2, 3, 4, 10


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def move(dst: int, src: int) -> bytes:
    return insn(0xBF, dst, src)


def load(dst: int, imm: int) -> bytes:
    return insn(0xB7, dst, imm=imm)


def call(helper: int) -> bytes:
    return insn(0x85, imm=helper)


END = load(0, 1) + insn(0x95)


def on(event: int, body: bytes) -> bytes:
    """body, and the end, if R2 is this event."""
    body += END
    return insn(0x55, ARG2, off=len(body) // 8, imm=event) + body


def program(length: int) -> bytes:
    """Its option has so many bytes, from 4 to 40."""
    option = bytes([KIND, length]) + b"x" * (length - 2)
    option += bytes(-len(option) % 4)
    wish = move(ARG1, CTX) + load(ARG2, WRITE_FLAG) + call(FLAGS_SET)
    room = move(ARG1, CTX) + load(ARG2, length) + load(ARG3, 0) + call(RESERVE)
    write = b"".join(insn(0x62, FRAME, off=i - 40, imm=struct.unpack_from("=i", option, i)[0])
                     for i in range(0, len(option), 4))
    write += move(ARG1, CTX) + move(ARG2, FRAME) + insn(0x07, ARG2, imm=-40)
    write += load(ARG3, length) + load(ARG4, 0) + call(STORE)
    return (move(CTX, ARG1) + insn(0x61, ARG2, CTX) + on(CONNECT, wish) + on(LISTEN, wish)
            + on(OPTION_LENGTH, room) + on(WRITE_OPTION, write) + END)


def bpf(command: int, attr: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(SYS_BPF, command, ctypes.c_char_p(attr), len(attr))
    if got < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return got


class HeaderOption:
    """While it is open, all sockets of this cgroup have the option. length: 4 to 40."""

    def __init__(self, length: int, cgroup: str = "/sys/fs/cgroup") -> None:
        code = ctypes.create_string_buffer(program(length))
        log = ctypes.create_string_buffer(65536)
        gpl = ctypes.create_string_buffer(b"GPL")
        self.group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.prog = bpf(PROG_LOAD, struct.pack(
                "=IIQQIIQ", TYPE_SOCK_OPS, (len(code) - 1) // 8, ctypes.addressof(code), ctypes.addressof(gpl),
                1, len(log), ctypes.addressof(log)))
        except OSError as e:
            raise OSError(e.errno, log.value.decode()) from e
        self._do(PROG_ATTACH, ALLOW_MULTI)

    def _do(self, command: int, flags: int = 0) -> None:
        bpf(command, struct.pack("=IIII", self.group, self.prog, ATTACH_SOCK_OPS, flags))

    def __enter__(self) -> "HeaderOption":
        return self

    def __exit__(self, *_: object) -> None:
        self._do(PROG_DETACH)
        os.close(self.prog)
        os.close(self.group)
