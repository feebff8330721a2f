# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots a kernel on the machine's own files, runs one command in it, collects.

Three ways: User-Mode Linux (an ordinary process, no virtual hardware needed;
on virtual time if asked for), QEMU (several CPUs), or natively, in fresh
namespaces of the running kernel. init.sh is PID 1 in all of them. What goes in
and comes out passes through a directory: cmd goes in; output, status, dmesg
and kmemleak come out. A run that exceeds its budget of real seconds is killed:
on virtual time no clock inside can notice that.
"""

import dataclasses
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from . import splat

ROOT = pathlib.Path(__file__).resolve().parents[2]
INIT = ROOT / "netns-lab" / "init.sh"
KERNELS = {
    "uml": ROOT / "build/uml/linux",
    "uml-plain": ROOT / "build/uml-plain/linux",
    "uml-vanilla": ROOT / "build/uml-vanilla/linux",
    "qemu": ROOT / "build/qemu-smp/bzImage",
}


class LabError(Exception):
    """Something the user can put right; the text says what."""


@dataclasses.dataclass
class Options:
    """How to boot. kernel: a name of KERNELS, "native", or a path.

    icount (QEMU): one CPU, whose clock is the instructions it has executed.
    on_cpu (UML): the machine's CPU to keep to, though others may do so too; None: one that is free.
    """

    kernel: str = "uml"
    virtual: bool = True
    budget: float = 600
    mem: str = "1G"
    cpus: int = 2
    accel: str = "tcg"
    append: tuple[str, ...] = ()
    consoles: int = 0
    icount: bool = False
    on_cpu: int | None = None


@dataclasses.dataclass
class Result:
    """What came out of a run; status is None if the kernel never finished."""

    out: pathlib.Path
    status: int | None
    seconds: float
    splats: list[str]
    timed_out: bool

    @property
    def ok(self) -> bool:
        return self.status == 0 and not self.splats

    def complaint(self) -> str:
        """Why the run is not ok, in words, or an empty string."""
        out = []
        if self.timed_out:
            out.append(f"killed after {self.seconds:.0f} s (its budget); see {self.out}/console")
        elif self.status is None:
            out.append(f"the kernel ended before the command did; see {self.out}/console")
        elif self.status:
            out.append(f"exit status {self.status}; see {self.out}/output")
        out += [f"kernel splat:\n{s}" for s in self.splats[:3]]
        if len(self.splats) > 3:
            out.append(f"... and {len(self.splats) - 3} more splats, see {self.out}/dmesg")
        return "\n".join(out)


def resolve(kernel: str) -> tuple[str, pathlib.Path | None]:
    """(backend, image) of a kernel's name or path."""
    if kernel == "native":
        return "native", None
    path = pathlib.Path(KERNELS.get(kernel, kernel)).resolve()
    if not path.is_file():
        hint = "run `make kernels vanilla`" if kernel in KERNELS else "name a file, or one of "
        raise LabError(f"no kernel at {path}: {hint}{'' if kernel in KERNELS else ', '.join(KERNELS)}")
    with open(path, "rb") as f:
        return ("uml" if f.read(4) == b"\x7fELF" else "qemu"), path


def _environment(backend: str, out: pathlib.Path, opts: Options) -> dict[str, str]:
    env = {
        "LAB_BACKEND": backend,
        "LAB_OUT": str(out),
        "LAB_INIT": str(INIT),
        "LAB_CWD": str(ROOT),
    }
    # Another migrate-ctl, or with a name that is not there, genl.py instead.
    if "LAB_MIGRATE_CTL" in os.environ:
        env["LAB_MIGRATE_CTL"] = os.environ["LAB_MIGRATE_CTL"]
    if opts.virtual and backend == "uml":
        env["LAB_VIRTUAL"] = "1"
    return env


def _uml(image: pathlib.Path, env: dict[str, str], opts: Options) -> list[str]:
    lines = ["con=null", "con0=null,fd:1", "ssl=null"]
    lines += [f"ssl{i}=pts" for i in range(1, opts.consoles + 1)]
    if opts.virtual:
        lines.append("time-travel=inf-cpu")
    return [str(image), f"mem={opts.mem}", "rootfstype=hostfs", "rw", f"init={INIT}",
            "log_buf_len=4M", "panic=-1", *lines, *opts.append,
            *(f"{k}={v}" for k, v in env.items())]


def _qemu(image: pathlib.Path, env: dict[str, str], opts: Options) -> list[str]:
    accel = "tcg,thread=multi" if opts.accel == "tcg" and not opts.icount else opts.accel
    cpus = 1 if opts.icount else opts.cpus
    count = ["-icount", "shift=0,sleep=off"] if opts.icount else []
    append = ["console=ttyS0", "root=labroot", "rootfstype=9p", "rw", f"init={INIT}",
              "rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose",
              "log_buf_len=4M", "panic=-1", "reboot=t", *opts.append, *(f"{k}={v}" for k, v in env.items())]
    share = "local,security_model=none,multidevs=remap"
    return ["qemu-system-x86_64", "-accel", accel, *count, "-smp", f"{cpus},sockets={cpus}", "-m", opts.mem,
            "-cpu", "host" if opts.accel == "kvm" else "max",
            "-nographic", "-nodefaults", "-no-reboot", "-kernel", str(image),
            "-append", " ".join(append), "-serial", "file:/dev/stdout",
            *(["-serial", "pty"] * min(opts.consoles, 3)),
            "-device", "virtio-rng-pci",
            "-fsdev", f"{share},id=root,path=/",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=labroot",
            "-fsdev", f"{share},id=out,path={env['LAB_OUT']}",
            "-device", "virtio-9p-pci,fsdev=out,mount_tag=labout"]


def _argv(backend: str, image: pathlib.Path | None, env: dict[str, str], opts: Options) -> list[str]:
    if backend == "native":
        return ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork",
                "--kill-child", "--mount-proc", "/bin/sh", str(INIT)]
    assert image is not None
    return (_uml if backend == "uml" else _qemu)(image, env, opts)


def _free_cpu() -> tuple[int, int] | None:
    """A CPU that no User-Mode Linux of this user has for itself, and the lock that says so.

    The lock is an open file that the machine inherits: it ends with the last of its processes.
    """
    for cpu in sorted(os.sched_getaffinity(0), reverse=True):
        lock = os.open(f"/dev/shm/tcplab-{os.getuid()}-cpu{cpu}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cpu, lock
        except BlockingIOError:
            os.close(lock)
    return None


def _popen(argv: list[str], backend: str, on_cpu: int | None, **how: Any) -> subprocess.Popen[bytes]:
    """Starts a machine; a User-Mode Linux on one CPU, if one is to be had.

    Its kernel and its processes are processes that wake each other at every system
    call and never run at once. On two CPUs each wakes a sleeping one, which takes a
    virtual machine like those of CI two to four times as long as all the rest.
    """
    if on_cpu is not None:
        return subprocess.Popen(["taskset", "--cpu-list", str(on_cpu), *argv], **how)
    mine = _free_cpu() if backend == "uml" else None
    if not mine:
        return subprocess.Popen(argv, **how)
    cpu, lock = mine
    try:
        return subprocess.Popen(["taskset", "--cpu-list", str(cpu), *argv], pass_fds=(lock,), **how)
    finally:
        os.close(lock)


def start(command: str, out: pathlib.Path, opts: Options) -> subprocess.Popen[bytes]:
    """Boots, and returns the running machine (its own process group)."""
    backend, image = resolve(opts.kernel)
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("status", "status.tmp", "output", "dmesg", "kmemleak", "console"):
        (out / name).unlink(missing_ok=True)
    (out / "cmd").write_text(command + "\n")
    env = _environment(backend, out, opts)
    # UML keeps its memory in a file in TMPDIR: it has to be memory, not a disk.
    environ = {**os.environ, "TMPDIR": "/dev/shm"}
    if backend == "native":
        environ.update(env)
    with open(out / "console", "wb") as console:
        return _popen(_argv(backend, image, env, opts), backend, opts.on_cpu, stdin=subprocess.DEVNULL,
                      stdout=console, stderr=subprocess.STDOUT, env=environ, start_new_session=True)


def end(machine: subprocess.Popen[bytes]) -> None:
    """Kills a machine and whatever processes it is made of."""
    try:
        os.killpg(machine.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    machine.wait()


def _read(path: pathlib.Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _collect(out: pathlib.Path, seconds: float, timed_out: bool) -> Result:
    status = _read(out / "status").strip()
    log = _read(out / "dmesg") or _read(out / "console")
    splats = splat.find(log) + splat.leaks(_read(out / "kmemleak"))
    return Result(out, int(status) if status else None, seconds, splats, timed_out)


def run(command: str, out: pathlib.Path, opts: Options, echo: bool = False) -> Result:
    """Boots, runs a shell command inside, and waits for the end of it all."""
    began = time.monotonic()
    machine = start(command, out, opts)
    shown, timed_out = 0, False
    try:
        while machine.poll() is None:
            if time.monotonic() - began > opts.budget:
                timed_out = True
                break
            time.sleep(0.1)
            shown = _echo(out / "output", shown) if echo else 0
    finally:
        end(machine)
    if echo:
        _echo(out / "output", shown)
    return _collect(out.resolve(), time.monotonic() - began, timed_out)


def _echo(path: pathlib.Path, shown: int) -> int:
    """Passes on what a file has grown by; returns how far it was read."""
    if not path.is_file():
        return shown
    with open(path, "rb") as f:
        f.seek(shown)
        data = f.read()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    return shown + len(data)
