# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemons as systemd starts them: their units, with all that these deny.

A systemd is PID 1 of a namespace of its own, as in a container. What the units deny is denied by
the lab's kernel; drop-ins say only in which host's network namespace a daemon is.
"""

import contextlib
import pathlib
import subprocess

import pytest

from exchange import INSIDE, RTT
from tcplab.daemons import PROXY_PORT, TOKEN, Client, Server, nobody
from tcplab.topology import CTL, wait_for
from traffic import SIZE, Download

UNITS = pathlib.Path("/run/systemd/system")
SERVER_TOML = pathlib.Path("/etc/mobility-server/mobility-server.toml")
CLIENT_TOML = pathlib.Path("/etc/mobility-client/mobility-client.toml")
PROXY_TOML = pathlib.Path("/etc/sym-proxy/sym-proxy.toml")


def systemctl(*words, check=True):
    """What systemctl says in the namespace of systemd, which takes no orders from outside."""
    pid = subprocess.run(["pgrep", "-o", "-x", "systemd"], capture_output=True, text=True, check=False).stdout.strip()
    done = subprocess.run(["nsenter", "--target", pid or "0", "--pid", "--mount", "--root", "systemctl", *words],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{words}: {done.stderr}\n{log()}"
    return done.stdout.strip()


def log():
    """The end of the journal."""
    return subprocess.run(["journalctl", "-n", "60", "--no-pager"], capture_output=True, text=True, check=False).stdout


def show(unit, what):
    """A property of a unit."""
    return systemctl("show", unit, "-P", what)


def drop_in(unit, text):
    """Says more about a unit than its file does."""
    where = UNITS / f"{unit}.service.d"
    where.mkdir(parents=True, exist_ok=True)
    (where / "lab.conf").write_text(f"[Service]\n{text}\n")


@pytest.fixture(scope="module")
def installed():
    """All that cmake installs, and users; the root of the lab's kernel is not the machine's."""
    subprocess.run(["cmake", "--install", str(CTL.parents[1] / "cmake"), "--prefix", "/usr"], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["systemd-sysusers"], check=True)


@contextlib.contextmanager
def systemd():
    """A systemd that has started nothing but what all units need. It sees the hosts that there are before it."""
    child = subprocess.Popen(["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc",
                              "sh", "-c", "mount -t tmpfs tmpfs /tmp && exec env -i container=lab "
                              "PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("systemd", lambda: systemctl("is-active", "basic.target", check=False) == "active", 60, 0.2)
    try:
        yield
    finally:
        child.kill()
        child.wait()


def set_up(lab):
    """As the guide has it: a token for the server, and its name and the token for the client."""
    for unit, host in (("mobility-server", "s"), ("mobility-client", "a")):
        # Who has changed his root, as the lab has, makes no user namespaces.
        drop_in(unit, f"NetworkNamespacePath=/run/netns/{host}\nWatchdogSec=5\nPrivateUsers=no")
    token = SERVER_TOML.parent / "tokens"
    token.write_text(f"{TOKEN}\n")
    subprocess.run(["chown", "mobility-server:", str(token)], check=True)
    token.chmod(0o600)
    systemctl("daemon-reload")
    systemctl("start", "mobility-server")
    name = subprocess.run(["mobility-server", "--identity"], capture_output=True, text=True, check=True).stdout.strip()
    ours = CLIENT_TOML.parent / "token"
    ours.write_text(f"{TOKEN}\n")
    subprocess.run(["chown", "mobility-client:", str(ours)], check=True)
    ours.chmod(0o600)
    with open(CLIENT_TOML, "a", encoding="ascii") as f:
        f.write(f'\n[[interface]]\nkind = "veth"\n[[server]]\nname = "{name}"\naddress = "{lab.s.v4}"\n'
                f'token_file = "{ours}"\n')
    systemctl("start", "mobility-client")
    return name


def fences(unit):
    """Whether it is root, how its system calls are filtered, whether it can gain privileges, its capabilities."""
    pid = subprocess.run(["pgrep", "-f", f"^/usr/sbin/{unit}$"], capture_output=True, text=True, check=True).stdout
    lines = pathlib.Path(f"/proc/{pid.strip()}/status").read_text(encoding="ascii").splitlines()
    said = dict(line.split(":\t", 1) for line in lines)
    return said["Uid"].split()[0] == "0", said["Seccomp"], said["NoNewPrivs"], int(said["CapEff"], 16)


def hangs(unit):
    """Stops it; systemd notices and starts it anew."""
    systemctl("kill", "--kill-whom=main", "-s", "STOP", unit)
    wait_for(f"{unit} to be started anew", lambda: show(unit, "NRestarts") == "1" and
             show(unit, "ActiveState") == "active", 60, 0.2)


def ends(unit):
    """As it is told to."""
    systemctl("stop", unit)
    assert show(unit, "Result") == "success", log()


class Named:
    """The server that systemd has started, for a Client to be told of."""

    port = 7790

    def __init__(self, host, name):
        self.host, self._name = host, name

    def identity(self):
        """Its name."""
        return self._name


@pytest.mark.virtual
def test_units(make_lab, installed):
    """They start, move a download along, are reloaded, started anew when they hang, and stopped."""
    lab = make_lab(rtt=RTT, at=INSIDE, migrator=nobody)
    with systemd():
        server = Named(lab.s, set_up(lab))
        other = Client(lab.b, server)
        # CAP_NET_ADMIN, and nothing.
        assert fences("mobility-client") == (False, "2", "1", 1 << 12)
        assert fences("mobility-server") == (False, "2", "1", 0)
        traffic = Download(lab, size=4 * SIZE)
        traffic.until(SIZE // 8)
        other.agreed(traffic.port)
        other.joined()
        lab.b.move("g2")
        lab.a.move("n2")
        traffic.resumed()
        systemctl("reload", "mobility-client")
        systemctl("reload", "mobility-server")
        traffic.finish()
        assert "joined" in lab.a.run([str(CTL), "servers"]).stdout
        for unit in ("mobility-client", "mobility-server"):
            hangs(unit)
            ends(unit)
        other.stop()


def set_up_proxy(lab):
    """The server that orders of it."""
    drop_in("sym-proxy", "NetworkNamespacePath=/run/netns/p\nWatchdogSec=5")
    host = lab.hosts["p"]
    PROXY_TOML.write_text(f'[relay]\naddresses = ["{host.v4}"]\ninterfaces = ["{host.point.dev}"]\n')
    systemctl("daemon-reload")
    systemctl("start", "sym-proxy")
    name = subprocess.run(["sym-proxy", "--identity"], capture_output=True, text=True, check=True).stdout.strip()
    server = Server(lab.s, more=f'[[proxies]]\naddress = "{host.v4}:{PROXY_PORT}"\nname = "{name}"\n')
    (PROXY_TOML.parent / "servers").write_text(f"{server.identity()} the server\n")
    systemctl("reload", "sym-proxy")
    wait_for("the server to join the proxy", lambda: server.metric("proxy_ready_total") >= 1, 60, 0.2)
    return server


@pytest.mark.virtual
def test_proxy_unit(make_lab, installed):
    """The proxy starts, relays, is started anew when it hangs, and stopped: what is relayed goes on."""
    lab = make_lab("relay", rtt=RTT, at={"a": "g2", "b": "g1"}, migrator=nobody)
    with systemd():
        server = set_up_proxy(lab)
        # CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF.
        assert fences("sym-proxy") == (True, "2", "1", 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39)
        clients = [Client(lab.hosts[host], server) for host in "ab"]
        traffic = Download(lab, size=8 * SIZE)
        traffic.until(SIZE // 8)
        for client in clients:
            client.agreed(traffic.port)
            client.joined()
        lab.a.move("n1")
        lab.b.move("n3")
        traffic.resumed()
        hangs("sym-proxy")
        lab.a.move("n2")
        traffic.resumed()
        ends("sym-proxy")
        traffic.finish()
        assert lab.resets(traffic.port) == []
        subprocess.run(["sym-proxy", "--unpin"], check=True)
        for daemon in (*clients, server):
            daemon.stop()
