# SPDX-License-Identifier: GPL-2.0-or-later
"""Real, unmodified programs, set up to run on a lab's hosts.

Each function starts a server in a host's namespace, with its files in a
directory of its own under /tmp of the lab's memory file system, and returns
when it accepts connections.
"""

import contextlib
import hashlib
import ipaddress
import os
import pathlib
import signal
import subprocess
from typing import Any

from .topology import Host, Node, Segment, wait_for

HTTP, SSH, IPERF, PGSQL, RSYNC = 80, 22, 5201, 5432, 873


def data(path: pathlib.Path, size: int, seed: int = 1) -> str:
    """A file of size bytes that does not repeat itself; returns its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blob = hashlib.shake_256(b"lab %d" % seed).digest(size)
    path.write_bytes(blob)
    return hashlib.sha256(blob).hexdigest()


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listening(host: Host, port: int, child: subprocess.Popen[Any] | None = None) -> None:
    """Waits until something on host listens on port."""
    def check() -> bool:
        if child is not None and child.poll() is not None:
            raise RuntimeError(f"{host.name}: the server for port {port} ended with {child.returncode}")
        return bool(host.run(["ss", "-Htln", f"sport = :{port}"]).stdout)
    wait_for(f"{host.name} to listen on port {port}", check, every=0.02)


def home(host: Node, name: str) -> pathlib.Path:
    """A directory for a program of a host."""
    path = pathlib.Path("/tmp/lab") / host.name / name
    path.mkdir(parents=True, exist_ok=True)
    for part in (path.parents[1], path.parents[0], path):
        part.chmod(0o755)
    return path


def nginx(host: Host) -> pathlib.Path:
    """nginx on port 80, taking uploads by PUT; returns its document root."""
    top = home(host, "nginx")
    root = top / "www"
    root.mkdir(exist_ok=True)
    (top / "conf").write_text(f"""
user root; daemon off; worker_processes 1; pid {top}/pid; error_log {top}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log {top}/access.log; client_max_body_size 0; keepalive_timeout 3600; send_timeout 3600;
  client_body_timeout 3600; client_body_temp_path {top}/body; client_body_buffer_size 1k; sendfile on;
  server {{ listen 80 backlog=4096; listen [::]:80; root {root}; dav_methods PUT; }}
}}""")
    for name in ("proxy", "fastcgi", "uwsgi", "scgi"):
        pathlib.Path(f"/var/lib/nginx/{name}").mkdir(parents=True, exist_ok=True)
    pathlib.Path("/var/log/nginx").mkdir(parents=True, exist_ok=True)
    child = host.popen(["nginx", "-c", str(top / "conf"), "-e", str(top / "error.log")])
    listening(host, HTTP, child)
    return root


def sshd(host: Host, client: Host) -> list[str]:
    """sshd on port 22; returns the ssh options with which root on client gets in."""
    top, mine = home(host, "sshd"), home(client, "ssh")
    for key in (top / "host_key", mine / "key"):
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (top / "authorized").write_text((mine / "key.pub").read_text())
    (top / "conf").write_text(f"""
HostKey {top}/host_key
PidFile {top}/pid
AuthorizedKeysFile {top}/authorized
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM no
UseDNS no
Subsystem sftp internal-sftp
ClientAliveInterval 0
""")
    os.makedirs("/run/sshd", exist_ok=True)
    with open(top / "log", "wb") as log:
        child = host.popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(top / "conf")], stderr=log)
    listening(host, SSH, child)
    return ["-F", "/dev/null", "-i", str(mine / "key"), "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]


def iperf3(host: Host, file: pathlib.Path) -> None:
    """iperf3 -s on port 5201, which sends a file, or what it gets goes there."""
    listening(host, IPERF, host.popen(["iperf3", "-s", "-F", str(file)], stdout=subprocess.DEVNULL))


def _new_database(path: pathlib.Path, db: pathlib.Path) -> None:
    """An empty one: making it takes seconds, so the first of a boot is copied."""
    first = pathlib.Path("/tmp/lab-database")
    if not first.exists():
        # Durability is not what the lab tests.
        subprocess.run(["install", "-d", "-o", "postgres", str(first)], check=True)
        subprocess.run(["runuser", "-u", "postgres", "--", str(path / "initdb"), "-A", "trust", "-N", "--locale=C",
                        "--wal-segsize=1", str(first / "db")], check=True, capture_output=True)
    subprocess.run(["cp", "-a", str(first / "db"), str(db)], check=True)


def postgres(host: Host) -> None:
    """PostgreSQL on port 5432, everyone trusted; as user postgres."""
    top = home(host, "postgres")
    os.system(f"chown postgres: {top}")
    path = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    db = top / "db"
    _new_database(path, db)
    with open(db / "pg_hba.conf", "a", encoding="ascii") as f:
        f.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
    with open(db / "postgresql.conf", "a", encoding="ascii") as f:
        f.write(f"listen_addresses='*'\nfsync=off\nshared_buffers=16MB\nmax_connections=20\n"
                f"unix_socket_directories='{top}'\njit=off\nautovacuum=off\n")
    with open(top / "log", "wb") as log:
        child = host.popen(["runuser", "-u", "postgres", "--", str(path / "postgres"), "-D", str(db)],
                           stdout=log, stderr=log)
    listening(host, PGSQL, child)


def rsyncd(host: Host, root: pathlib.Path) -> None:
    """An rsync daemon on port 873, module "files" at root."""
    top = home(host, "rsyncd")
    (top / "conf").write_text(f"pid file = {top}/pid\nuse chroot = no\nuid = 0\ngid = 0\n"
                              f"[files]\npath = {root}\nread only = no\n")
    child = host.popen(["rsync", "--daemon", "--no-detach", f"--config={top}/conf"])
    listening(host, RSYNC, child)


def dnsmasq(segment: Segment, v4: ipaddress.IPv4Network | None = None, v6: ipaddress.IPv6Network | None = None,
            lease: int = 120) -> subprocess.Popen[Any]:
    """A DHCP server and router advertisements for a segment, from its box; other networks than its own, if given.

    A network's router has to have its last address but one. lease is in seconds, for both families.
    """
    box, net = segment.box, v4 or segment.net4
    top = home(box, f"dnsmasq-{segment.name}")
    child = box.popen(["dnsmasq", "-k", "-C", "/dev/null", "-p", "0", "-i", segment.name, "-z", "-I", "lo", "-K",
                       "--no-ping", "-u", "root", "-x", f"{top}/pid", "-l", f"{top}/leases", "--log-facility",
                       f"{top}/log", "--log-dhcp", f"--dhcp-option=option:router,{net[-2]}", "--enable-ra",
                       f"--dhcp-range={net[100]},{net[150]},{net.netmask},{lease}",
                       f"--dhcp-range={v6.network_address if v6 else segment.net6.network_address},ra-only,64,{lease}",
                       f"--ra-param={segment.name},10,{2 * lease}"])
    wait_for(f"dnsmasq of {segment.name} to be there",
             lambda: child.poll() is not None or pathlib.Path(f"{top}/pid").exists(), every=0.02)
    if child.returncode is not None:
        raise RuntimeError(f"dnsmasq of {segment.name}: {pathlib.Path(f'{top}/log').read_text()}")
    return child


def ended(child: subprocess.Popen[Any], timeout: float = 10) -> None:
    """Ends a program; with all of its session by force, if it is not gone in time: of a few dozen times once
    dhcpcd waits for its own processes for ever."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout)
        return
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def dhcpcd(host: Host) -> subprocess.Popen[Any]:
    """A DHCP client on all interfaces of a host, which leaves names and the clock alone."""
    top = home(host, "dhcpcd")
    (top / "conf").write_text("duid\npersistent\nnohook resolv.conf, hostname, timesyncd, chrony, ntp\n"
                              "option classless_static_routes\nslaac hwaddr\nnoipv4ll\n")
    with open(top / "log", "wb") as log:
        return host.popen(["dhcpcd", "-B", "-d", "-f", str(top / "conf")], stdout=log, stderr=log)
