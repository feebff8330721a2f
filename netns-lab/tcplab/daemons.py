# SPDX-License-Identifier: GPL-2.0-or-later
"""mobility-client, mobility-server and sym-proxy on a lab's hosts, as they are installed.

Client is a daemon of a host, asked by migrate-ctl; Server is one on host s, Proxy one that it
orders relays from. Nobody but them migrates anything: a lab for them is made with
migrator=nobody.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
from typing import Any

from . import programs
from .topology import CTL, HERE, Host, Point, wait_for

BIN = CTL.parent
SERVER_PORT, PEER_PORT, PROXY_PORT = 7790, 7791, 7792
METRICS = 2000      # so far from a server's port is that of its metrics
CLOCK = HERE / "tcplab/clock.c"
TOKEN = "0123456789abcdef0123456789abcdef"


def nobody(host: Host, old: Point, new: Point, trial: bool) -> None:
    """A migrator for a lab whose daemons do it."""


class _Daemon:
    """A program with a directory, a configuration and a log of its own."""

    name = ""

    def __init__(self, host: Host, where: str = "", clock: int = 0) -> None:
        """clock: by how many seconds its clock is off."""
        self.host, self.clock = host, clock
        self.home = programs.home(host, where or self.name)
        self.config = self.home / "config.toml"
        self.child: subprocess.Popen[Any]

    def start(self) -> None:
        """Starts it, or starts it again."""
        with open(self.home / "log", "ab") as log:
            self.child = self.host.popen([str(BIN / self.name), "-c", str(self.config)], stderr=log, env=self._env())

    def _env(self) -> dict[str, str]:
        """Its environment; hosts have one kernel here, and that one clock: another one is a matter of the process."""
        if not self.clock:
            return dict(os.environ)
        lib = self.home / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(lib), str(CLOCK)], check=True)
        return {**os.environ, "LD_PRELOAD": str(lib), "LAB_CLOCK": str(self.clock)}

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Ends it; it has to do so soon, and without complaint."""
        self.child.send_signal(how)
        assert self.child.wait(60) == (0 if how == signal.SIGTERM else -how), self.said()

    def said(self) -> str:
        """Its log."""
        return (self.home / "log").read_text(errors="replace")

    def forget(self) -> None:
        """What it leaves in the kernel goes."""

    def identity(self) -> str:
        """The name that it has given itself."""
        return self.host.run([str(BIN / self.name), "-c", str(self.config), "--identity"]).stdout.strip()


def _metric(host: Host, port: int, name: str) -> int:
    """A number that a daemon there has for Prometheus."""
    with host.inside(), socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        lines = b"".join(iter(lambda: sock.recv(65536), b"")).decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))


class Server(_Daemon):
    """mobility-server, which takes everybody with the token; several of a host have a port each.

    more: further sections of its configuration.
    """

    name = "mobility-server"

    def __init__(self, host: Host, port: int = SERVER_PORT, more: str = "", clock: int = 0) -> None:
        super().__init__(host, f"{self.name}-{port}", clock)
        self.port = port
        self.tokens = self.home / "tokens"
        self.enrolled = self.home / "enrolled"
        self.tokens.write_text(f"{TOKEN}\n")
        self.tokens.chmod(0o600)
        self.config.write_text(f"""
[server]
listen = ["[::]:{port}"]
identity = "{self.home}/identity.pem"
[admission]
hosts = "{self.home}/hosts"
tokens = "{self.tokens}"
enrolled = "{self.enrolled}"
[metrics]
listen = "127.0.0.1:{port + METRICS}"
[log]
level = "debug"
""" + more)
        self.start()
        programs.listening(host, port + METRICS, self.child)     # is the last

    def metric(self, name: str) -> int:
        """One of the numbers that it has for Prometheus."""
        return _metric(self.host, self.port + METRICS, f"mobility_server_{name}")


class Proxy(_Daemon):
    """sym-proxy on a host, with the ports that it relays at; settings: further ones, by section."""

    name = "sym-proxy"

    def __init__(self, host: Host, first: int = 20000, last: int = 20999, **settings: str) -> None:
        super().__init__(host)
        assert host.point
        self.servers = self.home / "servers"
        self.servers.touch()
        self.pins = pathlib.Path(f"/sys/fs/bpf/{os.getpid()}-{id(self)}")
        self.config.write_text(f"""
[proxy]
identity = "{self.home}/identity.pem"
servers = "{self.servers}"
[relay]
addresses = ["{host.v4}", "{host.v6}"]
interfaces = ["{host.point.dev}"]
first_port = {first}
last_port = {last}
pins = "{self.pins}"
{settings.get("relay", "")}
[metrics]
listen = "127.0.0.1:{PROXY_PORT + METRICS}"
[log]
level = "debug"
[limits]
{settings.get("limits", "")}
""")
        self.start()

    def start(self) -> None:
        super().start()
        try:
            programs.listening(self.host, PROXY_PORT + METRICS, self.child)  # is the last
        except RuntimeError as e:
            raise RuntimeError(f"{e}: {self.said()}") from e

    def section(self) -> str:
        """What a server's configuration says of it."""
        return f"""
[[proxies]]
name = "{self.identity()}"
address = "{self.host.v4}:{PROXY_PORT}"
"""

    def admit(self, *servers: Server) -> None:
        """These may order; waits until they could."""
        with open(self.servers, "a", encoding="utf-8") as f:
            f.writelines(f"{server.identity()}\n" for server in servers)
        self.child.send_signal(signal.SIGHUP)
        wait_for("the servers to join the proxy", lambda: self.metric("servers") == len(servers), 60, 0.05)

    def metric(self, name: str) -> int:
        """One of the numbers that it has for Prometheus."""
        return _metric(self.host, PROXY_PORT + METRICS, f"sym_proxy_{name}")

    def relays(self) -> list[dict[str, Any]]:
        """What it relays."""
        return json.loads(self.host.run([str(BIN / self.name), "-c", str(self.config), "--relays", "--json"]).stdout)

    def forget(self) -> None:
        self.host.run([str(BIN / self.name), "-c", str(self.config), "--unpin"])


class Client(_Daemon):
    """mobility-client on a host, with the lab's servers.

    peers: further settings of that section; more: further sections.
    """

    name = "mobility-client"

    def __init__(self, host: Host, *servers: Server, peers: str = "", more: str = "", clock: int = 0) -> None:
        super().__init__(host, clock=clock)
        self.control = self.home / "control"
        self.listed = self.home / "hosts"
        token = self.home / "token"
        token.write_text(f"{TOKEN}\n")
        # A lab's links are veth pairs.
        self.config.write_text(f"""
[client]
identity = "{self.home}/identity.pem"
[control]
socket = "{self.control}"
[[interface]]
kind = "veth"
[peers]
pins = "{self.home}/pins"
listed = "{self.listed}"
{peers}
[log]
level = "debug"
""" + "".join(f"""
[[server]]
name = "{s.identity()}"
address = "{s.host.v4}"
address6 = "{s.host.v6}"
port = {s.port}
token_file = "{token}"
""" for s in servers))
        self.start()

    def start(self) -> None:
        super().start()
        wait_for(f"mobility-client on {self.host.name} to listen", self._listens, every=0.02)

    def _listens(self) -> bool:
        try:
            return bool(self.ask("status"))
        except OSError:
            assert self.child.poll() is None, self.said()
            return False

    def ask(self, command: str) -> Any:
        """What it says to a command on its control socket; migrate-ctl would take long to start."""
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rw") as lines:
            sock.connect(str(self.control))
            lines.write(json.dumps({"command": command}) + "\n")
            lines.flush()
            answer = json.loads(lines.readline())
        assert command in answer, answer
        return answer[command]

    def fits(self, command: str) -> None:
        """What it says to a command is as docs/json has it."""
        checker = BIN.parents[1] / "tests/unit/validate_json.py"
        schema = BIN.parents[1] / f"docs/json/{command}.schema.json"
        subprocess.run(["/usr/bin/python3", str(checker), str(schema)], check=True, text=True,
                       input=json.dumps({command: self.ask(command)}))

    def ctl(self, *words: str) -> str:
        """What migrate-ctl says to people."""
        return self.host.run([str(CTL), "--control", str(self.control), *words]).stdout

    def count(self, name: str) -> int:
        """One of the daemon's counters."""
        return self.ask("status")["counters"][name]

    def pair(self) -> dict[str, Any]:
        """The only pair there is."""
        pairs = self.ask("pairs")
        assert len(pairs) == 1, f"{pairs}\n{self.said()}"
        return pairs[0]

    def agreed(self, port: int) -> None:
        """Waits until the connections with this port have a pair key that excludes all others."""
        def done() -> bool:
            guards = [c["guard"] for pair in self.ask("pairs") for c in pair["connections"]
                      if str(port) in (c.get("local", "").split(":")[-1], c.get("remote", "").split(":")[-1])]
            return bool(guards) and all(g == "exclusive" for g in guards)
        wait_for(f"{self.host.name} to agree with its peer", done, 60, 0.05)

    def joined(self) -> None:
        """Waits until all channels to servers are there."""
        def done() -> bool:
            servers = self.ask("servers")
            return bool(servers) and all(s["state"] == "joined" for s in servers)
        wait_for(f"{self.host.name} to join its servers", done, 60, 0.05)
