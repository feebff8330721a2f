# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobility exchange in the hands of a test: servers, hosts and peers that lie, or know less than they should.

Written from docs/exchange.md and the .proto files; shares nothing with libmobility. A
message is a dictionary by field number: numbers, bytes, text, such dictionaries, or lists of them.
"""

import contextlib
import hashlib
import hmac
import ipaddress
import pathlib
import queue
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

from tcplab import programs
from tcplab.daemons import BIN, TOKEN
from tcplab.topology import Host, Node

Message = dict[int, Any]

# ToServer, ToHost, ToPeer: which message it is.
HELLO, REPORT, OUTCOME, FORGET = 1, 2, 3, 4
WELCOME, REFUSED, ASK, NOTICE, VERDICT = 1, 2, 3, 4, 5
OFFER, ANSWER, CONFIRM, PROVE, PROVED, STAGE, PEER_REFUSED = 1, 2, 3, 4, 5, 6, 7
NEEDS_PROXY = 1
NOT_YOURS, NO_CONNECTION, NOT_PROVED, OTHER_IDENTITY, POLICY, MALFORMED = 6, 2, 3, 4, 5, 7


# ---- Protocol buffers ----

def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def encode(message: Message) -> bytes:
    """Its bytes."""
    out = b""
    for number, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int):
                out += _varint(number << 3) + _varint(value)
            else:
                body = encode(value) if isinstance(value, dict) else value.encode() if isinstance(value, str) else value
                out += _varint(number << 3 | 2) + _varint(len(body)) + body
    return out


def decode(data: bytes) -> dict[int, list[Any]]:
    """Its fields: numbers, or the bytes of whatever it is."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value |= (data[at - 1] & 127) << shift
            shift += 7
            if data[at - 1] < 128:
                return value

    out: dict[int, list[Any]] = {}
    while at < len(data):
        key = varint()
        value: Any = varint()
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        out.setdefault(key >> 3, []).append(value)
    return out


# ---- Channels ----

class Identity:
    """A key and certificate of its own, or a daemon's: that file."""

    def __init__(self, host: Node, name: str, file: pathlib.Path | None = None) -> None:
        home = programs.home(host, name)
        self.file = file or home / "identity.pem"
        if not self.file.exists():
            host.run(f"umask 077; openssl req -x509 -newkey ed25519 -nodes -subj /CN=host -days 1000 "
                     f"-keyout {home}/key -out {home}/certificate; cat {home}/key {home}/certificate >{self.file}")
        config = home / "config.toml"
        config.write_text(f'[server]\nidentity = "{self.file}"\n')
        said = host.run([str(BIN / "mobility-server"), "-c", str(config), "--identity"])
        self.name = bytes.fromhex(said.stdout.strip())

    def context(self, server: bool) -> ssl.SSLContext:
        """TLS with it; who the other end is, is not asked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.file)
        context.keylog_filename = str(self.file.parent / "keys")
        return context


class Channel:
    """Messages on a TLS connection."""

    def __init__(self, identity: Identity, sock: socket.socket, server: bool = False) -> None:
        sock.settimeout(60)
        self.keys = identity.file.parent / "keys"
        before = self.keys.stat().st_size if self.keys.exists() else 0
        self.tls = identity.context(server).wrap_socket(sock, server_side=server)
        self._logged = before

    def say(self, kind: int, message: Message) -> None:
        """One message of this kind."""
        self.raw(encode({kind: message}))

    def raw(self, data: bytes, length: int | None = None) -> None:
        """A frame, with any length."""
        self.tls.sendall(struct.pack("!I", len(data) if length is None else length) + data)

    def hear(self, timeout: float = 60) -> tuple[int, dict[int, list[Any]]] | None:
        """The next message and its kind; nothing if the channel has ended."""
        self.tls.settimeout(timeout)
        try:
            length = struct.unpack("!I", self._read(4))[0]
            [(kind, [body])] = decode(self._read(length)).items()
        except (EOFError, ConnectionError, ssl.SSLEOFError):
            return None
        return kind, decode(body)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.tls.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def exporter(self) -> bytes:
        """tls-exporter (RFC 9266), from the secret that TLS has logged (RFC 8446, 7.5)."""
        # In TLS 1.3 both secrets are there when either end has finished; the last is this channel's.
        lines = [line.split() for line in self.keys.read_text()[self._logged:].splitlines()]
        secret = bytes.fromhex([line[2] for line in lines if line[0] == "EXPORTER_SECRET"][-1])
        kind = "sha384" if len(secret) == 48 else "sha256"
        empty = hashlib.new(kind).digest()

        def expand(key: bytes, label: bytes, length: int) -> bytes:
            label = b"tls13 " + label
            info = struct.pack("!HB", length, len(label)) + label + bytes([len(empty)]) + empty
            return hmac.digest(key, info + b"\1", kind)[:length]
        return expand(expand(secret, b"EXPORTER-Channel-Binding", len(secret)), b"exporter", 32)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.tls.close()


def packed(address: str) -> bytes:
    """An address as messages have it."""
    return ipaddress.ip_address(address).packed


def part(name: bytes, address: str, random: bytes = bytes(16)) -> Message:
    """A PairPart."""
    return {1: name, 2: packed(address), 3: random}


def pair_id(one: dict[int, list[Any]], other: dict[int, list[Any]]) -> bytes:
    """Of two parts as they were read."""
    text = b"tcp-migrate pair 1"
    for each in sorted((one, other), key=lambda p: p[1][0]):
        address = each[2][0]
        text += each[1][0] + (address if len(address) == 16 else bytes(10) + b"\xff\xff" + address) + each[3][0]
    return hashlib.sha256(text).digest()[:16]


# ---- Who lies ----

class Report:
    """What a host has reported, as far as a lie needs it."""

    def __init__(self, fields: dict[int, list[Any]]) -> None:
        self.own, self.peer = fields[1][0], fields[2][0]
        self.pair = pair_id(decode(self.own), decode(self.peer))
        self.ports = [{number: values[0] for number, values in decode(one).items()} for one in fields[6]]

    def resume(self, shift: int = 0) -> list[Message]:
        """Its connections as a Notice has them; shift: with other ports."""
        return [{1: p[1] + shift, 2: p[1] + shift, 3: p[2] + shift, 4: p[2] + shift} for p in self.ports]


class Threads:
    """Accepts connections on a host's port and has each served by a thread."""

    def __init__(self, host: Node, port: int, address: str = "0.0.0.0") -> None:
        with host.inside():
            self.listener = socket.create_server((address, port), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, EOFError):
            self.serve(sock)

    def serve(self, sock: socket.socket) -> None:
        """One connection, to its end."""
        raise NotImplementedError

    def close(self) -> None:
        # Wakes who waits for a connection.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


Lie = Callable[[Channel, Report], None]


class LyingServer(Threads):
    """A mobility server that welcomes everybody, and answers each Report with a lie.

    For a Client it is a Server.
    """

    def __init__(self, host: Host, lie: Lie, port: int = 7990) -> None:
        self.host, self.lie = host, lie
        self.key = Identity(host, f"liar-{port}")
        self.heard: "queue.Queue[Report]" = queue.Queue()
        self.channels: list[Channel] = []
        super().__init__(host, port)

    def identity(self) -> str:
        """Its name."""
        return self.key.name.hex()

    def serve(self, sock: socket.socket) -> None:
        there = sock.getpeername()
        channel = Channel(self.key, sock, server=True)
        while heard := channel.hear(timeout=36000):
            kind, fields = heard
            if kind == HELLO:
                channel.say(WELCOME, {1: 1, 2: packed(there[0]), 3: there[1], 4: 64})
                self.channels.append(channel)
            elif kind == REPORT:
                report = Report(fields)
                self.heard.put(report)
                self.lie(channel, report)


class FakeHost:
    """A host that says what it likes to a mobility server; admitted by the token, or as whose key it has."""

    def __init__(self, host: Host, server: Any, identity: Identity | None = None, token: str = TOKEN) -> None:
        self.key = identity or Identity(host, "fake")
        with host.inside():
            sock = socket.create_connection((server.host.v4, server.port))
        self.channel = Channel(self.key, sock)
        self.channel.say(HELLO, {1: 1, 2: "fake", 3: token})
        self.welcome = self.channel.hear()

    def report(self, own: Message | bytes, peer: Message | bytes, before: str, peer_before: str, after: str,
               ports: list[tuple[int, int]]) -> None:
        """Mobility information; ports: (own, peer's)."""
        self.channel.say(REPORT, {1: own, 2: peer, 3: packed(before), 4: packed(peer_before), 5: packed(after),
                                  6: [{1: mine, 2: other} for mine, other in ports]})


def proof(connection: bytes, opener: bool, channel: bytes, prover: bytes, peer: bytes) -> bytes:
    """That a connection is the prover's; connection: its exporter value."""
    text = b"tcp-migrate proof 1" + bytes([not opener]) + channel + prover + peer
    return hmac.digest(connection, text, "sha256")


def resident(pid: int) -> int:
    """KiB of a process that are in memory."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
