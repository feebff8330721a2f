#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Load for the stress test: many short checked connections, ended in many ways.

    load.py server ADDRESS PORT
    load.py client ADDRESS PORT SECONDS THREADS SEED

The client sends random data in pieces and gets them back; it compares. Each
connection ends in one of WAYS. At the end the client prints one JSON line:
{"done": connections as they should be, "refused": never opened, "young": ended by
an error before they were migratable, "broken": after that, "wrong": false data}.
"""

import collections
import contextlib
import json
import random
import socket
import struct
import sys
import threading
import time

# How a client ends a connection; the server learns it from the first byte.
WAYS = ("close", "half", "linger", "unread", "server closes", "server resets")
RESET = struct.pack("ii", 1, 0)
TCP_MIGRATE = 60
PATIENCE = 40


def serve(conn: socket.socket) -> None:
    """Echoes what comes, until the way that its first byte names is over."""
    with contextlib.suppress(OSError), conn:
        way = WAYS[conn.recv(1)[0]]
        while data := conn.recv(65536):
            conn.sendall(data)
            if way.startswith("server") and random.random() < 0.05:
                break
        if way == "server resets":
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def server(address: str, port: int) -> None:
    """One of several that listen on the same port."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((address, port))
    sock.listen(128)
    while True:
        conn, _ = sock.accept()
        threading.Thread(target=serve, args=(conn,), daemon=True).start()


def exact(sock: socket.socket, amount: int) -> bytes:
    """So many bytes, or fewer if the peer ends."""
    parts = []
    while amount and (part := sock.recv(amount)):
        parts.append(part)
        amount -= len(part)
    return b"".join(parts)


def session(sock: socket.socket, rand: random.Random) -> str:
    """A connection from its first byte to its end; its name in the sum."""
    number = rand.randrange(len(WAYS))
    seen = [False]
    try:
        return talk(sock, rand, number, seen)
    except OSError as e:
        if WAYS[number].startswith("server") and isinstance(e, ConnectionError):
            return "done"
        print(f"{WAYS[number]}: {type(e).__name__}: {e}", file=sys.stderr, flush=True)
        return "broken" if seen[0] else "young"


def talk(sock: socket.socket, rand: random.Random, number: int, seen: list[bool]) -> str:
    """Talks over a connection and ends it; "done" or "wrong". seen: was it migratable?"""
    way = WAYS[number]
    sock.sendall(bytes([number]))
    for _ in range(rand.randrange(1, 12)):
        data = rand.randbytes(rand.randrange(1, 30000))
        sock.sendall(data)
        got = exact(sock, len(data))
        if got != data:
            return "done" if way.startswith("server") and data.startswith(got) else "wrong"
        seen[0] |= bool(sock.getsockopt(socket.IPPROTO_TCP, TCP_MIGRATE))
        time.sleep(rand.random() / 4)
    if way == "half":
        data = rand.randbytes(20000)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return "done" if exact(sock, 1 << 20) == data else "wrong"
    if way == "unread":
        sock.sendall(rand.randbytes(20000))
        time.sleep(0.05)
    if way == "linger":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return "done"


def client(address: str, port: int, seconds: float, seed: int, count: collections.Counter[str]) -> None:
    """Connections one after the other."""
    rand = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            sock = socket.create_connection((address, port), timeout=PATIENCE)
        except OSError:
            count["refused"] += 1
            time.sleep(0.1)
            continue
        with contextlib.suppress(OSError), sock:
            count[session(sock, rand)] += 1


def main() -> None:
    role, address, port, *rest = sys.argv[1:]
    if role == "server":
        server(address, int(port))
        return
    seconds, threads, seed = float(rest[0]), int(rest[1]), int(rest[2])
    count: collections.Counter[str] = collections.Counter(done=0, refused=0, young=0, broken=0, wrong=0)
    workers = [threading.Thread(target=client, args=(address, int(port), seconds, seed * 1000 + i, count))
               for i in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    print(json.dumps(count))


if __name__ == "__main__":
    main()
