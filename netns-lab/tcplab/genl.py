#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Speaks to the kernel's tcp_migrate family, in nothing but Python.

A second implementation of the interface beside libtcpmigrate, so that a
mistake in one shows against the other. The numbers are those of the generated
<linux/tcp_migrate.h>, which this file reads rather than repeats.

As a command, inside a host's namespace:
    genl.py dump | get COOKIE | get token:TOKEN | migrate COOKIE LOCAL [REMOTE] [trial] [nosyn]
    genl.py migrate-all OLD NEW [trial] | abort COOKIE | events [N]
Output is JSON, one object a line.
"""

import ipaddress
import json
import os
import pathlib
import re
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

HEADER = (pathlib.Path(__file__).resolve().parents[2]
          / "net-tcp-migrate/kernel/include/uapi/linux/tcp_migrate.h")

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_MCAST_GROUPS = 1, 2, 7
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
TRIAL, NO_SYN = 1, 2

Attrs = dict[str, Any]


def _enum(prefix: str) -> dict[int, str]:
    """The values of the header's enum whose names begin with prefix."""
    out, value = {}, -1
    for body in re.findall(r"enum[^{;]*\{(.*?)\}", HEADER.read_text(), re.S):
        if not re.search(rf"\b{prefix}", body):
            continue
        for name, number in re.findall(r"^\s*(\w+)\s*(?:=\s*(\d+))?,?$", body, re.M):
            value = int(number) if number else value + 1
            if name.startswith(prefix) and not name.endswith("_MAX"):
                out[value] = name.removeprefix(prefix).lower().replace("_", "-")
    return out


ATTR = _enum("TCP_MIGRATE_A_CONN_")
CMD = _enum("TCP_MIGRATE_CMD_")
STATE = _enum("TCP_MIGRATE_STATE_")
REASON = _enum("TCP_MIGRATE_REASON_")
KEY_OP = _enum("TCP_MIGRATE_KEY_OP_")
_NUMBER = {name: number for number, name in ATTR.items()}
_CMD_NUMBER = {name: number for number, name in CMD.items()}
_KEY_OP_NUMBER = {name: number for number, name in KEY_OP.items()}

_SIZES = {"u8": "=B", "u16": "=H", "u32": "=I", "u64": "=Q", "port": "!H"}
_TYPES = {
    "cookie": "u64", "inode": "u64", "family": "u16",
    "state": "u8", "tcp-state": "u8", "reason": "u8", "role": "u8", "peer-nat": "u8",
    "key-id": "u8", "key-op": "u8", "key-mask": "u8",
}


def _type(name: str) -> str:
    if name.endswith("-addr"):
        return "addr"
    if name.endswith("-port"):
        return "port"
    if name in ("key", "exporter"):
        return "bytes"
    return _TYPES.get(name, "u32")


def _pack(name: str, value: Any) -> bytes:
    kind = _type(name)
    if kind == "addr":
        body = ipaddress.ip_address(value).packed
    elif kind == "bytes":
        body = bytes(value)
    else:
        body = struct.pack(_SIZES[kind], value)
    return attribute(_NUMBER[name], body)


def attribute(number: int, body: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", len(body) + 4, number) + body + b"\0" * (-len(body) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message."""
    while len(data) >= 4:
        size, number = struct.unpack_from("=HH", data)
        if size < 4:
            return
        yield number & 0x3FFF, data[4:size]
        data = data[(size + 3) & ~3 :]


def _unpack(data: bytes) -> Attrs:
    out: Attrs = {}
    for number, body in attributes(data):
        name = ATTR.get(number, f"attr-{number}")
        kind = _type(name)
        if name == "pad":
            continue
        if kind == "addr":
            out[name] = str(ipaddress.ip_address(body))
        elif kind == "bytes":
            out[name] = body.hex()
        else:
            out[name] = struct.unpack(_SIZES[kind], body)[0]
    for key, names in (("state", STATE), ("reason", REASON)):
        if key in out:
            out[key] = names.get(out[key], out[key])
    return out


class Family:
    """A socket bound to the family, in the namespace it was opened in."""

    def __init__(self, name: str = "tcp_migrate") -> None:
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.bind((0, 0))
        self._seq = 0
        self.id, self.groups = self._resolve(name)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Family":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self, name: str) -> tuple[int, dict[str, int]]:
        body = attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")
        try:
            reply = dict(attributes(next(self.request(CTRL_CMD_GETFAMILY, body, family=GENL_ID_CTRL))))
        except FileNotFoundError:
            raise FileNotFoundError(
                2, f"this kernel has no {name} family: boot the patched one") from None
        groups = {}
        for _, group in attributes(reply.get(CTRL_ATTR_MCAST_GROUPS, b"")):
            parts = dict(attributes(group))
            groups[parts[1].rstrip(b"\0").decode()] = struct.unpack("=I", parts[2])[0]
        return struct.unpack("=H", reply[CTRL_ATTR_FAMILY_ID])[0], groups

    def request(self, cmd: int, body: bytes, dump: bool = False, family: int = 0) -> Iterator[bytes]:
        """Sends a request; yields the attributes of each reply."""
        self._seq += 1
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else NLM_F_ACK)
        head = struct.pack("=BBH", cmd, 1, 0)
        self.sock.send(struct.pack("=IHHII", 16 + len(head) + len(body), family or self.id,
                                   flags, self._seq, 0) + head + body)
        while True:
            for kind, seq, data in self._receive():
                if seq != self._seq:
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    code = struct.unpack_from("=i", data)[0] if len(data) >= 4 else 0
                    if code < 0:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield data[4:]

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self.sock.recv(1 << 20)
        while len(data) >= 16:
            size, kind, _, seq, _ = struct.unpack_from("=IHHII", data)
            yield kind, seq, data[16:size]
            data = data[(size + 3) & ~3 :]

    def call(self, cmd: str, dump: bool = False, **attrs: Any) -> list[Attrs]:
        """One command by name; attribute names with _ for -."""
        body = b"".join(_pack(k.replace("_", "-"), v) for k, v in attrs.items() if v is not None)
        return [_unpack(r) for r in self.request(_CMD_NUMBER[cmd], body, dump)]

    def dump(self) -> list[Attrs]:
        return self.call("get", dump=True)

    def migrate(self, cookie: int, **attrs: Any) -> None:
        self.call("migrate", cookie=cookie, **attrs)

    def migrate_all(self, old: str, new: str, flags: int = 0) -> Attrs:
        family = socket.AF_INET6 if ":" in old else socket.AF_INET
        reply = self.call("migrate-all", family=family, local_addr=old, new_local_addr=new,
                          flags=flags or None)
        return reply[0] if reply else {}

    def abort(self, cookie: int) -> None:
        self.call("abort", cookie=cookie)

    def key(self, op: str, key_id: int, secret: bytes | None = None, **name: Any) -> Attrs:
        """add (which takes a secret), promote, exclusive or remove; says of how many connections."""
        return self.call("key", key_id=key_id, key_op=_KEY_OP_NUMBER[op], key=secret, **name)[0]

    def events(self, timeout: float | None = None) -> Iterator[Attrs]:
        """Every event from now on; ends when none came for timeout seconds."""
        self.sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, self.groups["events"])
        self.sock.settimeout(timeout)
        try:
            while True:
                for kind, _, data in self._receive():
                    if kind == self.id:
                        yield _unpack(data[4:])
        except TimeoutError:
            return


def _main(argv: list[str]) -> int:
    cmd, args = argv[0], argv[1:]
    flags = TRIAL * ("trial" in args) | NO_SYN * ("nosyn" in args)
    args = [a for a in args if a not in ("trial", "nosyn")]
    with Family() as family:
        out: Iterator[Attrs] | list[Attrs] = []
        if cmd == "dump":
            out = family.dump()
        elif cmd == "get":
            token = args[0].removeprefix("token:")
            out = family.call("get", **{"cookie": int(token)} if token == args[0] else {"token": int(token)})
        elif cmd == "migrate":
            remote = args[2] if len(args) > 2 else None
            family.migrate(int(args[0]), new_local_addr=args[1], new_remote_addr=remote,
                           flags=flags or None)
        elif cmd == "migrate-all":
            out = [family.migrate_all(args[0], args[1], flags)]
        elif cmd == "abort":
            family.abort(int(args[0]))
        elif cmd == "events":
            out = family.events()
        else:
            print(__doc__, file=sys.stderr)
            return 2
        left = int(args[0]) if cmd == "events" and args else -1
        for entry in out:
            print(json.dumps(entry), flush=True)
            left -= 1
            if left == 0:
                break
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_main(sys.argv[1:] or [""]))
    except OSError as e:
        sys.exit(f"genl.py: {e.strerror or e}")
