# SPDX-License-Identifier: GPL-2.0-or-later
"""What scenarios share: a story that is told while it goes on, and a download to tell of."""

import json
import pathlib
import threading
import time
from collections.abc import Callable

from . import capture, figure, genl, programs
from .topology import Host, Lab, wait_for

SIZE, PORT = 24 << 20, programs.HTTP


class Timeline:
    """What happened when, from several threads."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lines: list[tuple[float, str]] = []

    def say(self, text: str) -> None:
        now = time.monotonic() - self._began
        self.lines.append((now, text))
        print(f"{now:9.4f}  {text}", flush=True)

    def follow(self, host: Host) -> None:
        """Says what the host's kernel reports, from now on."""
        family = host.family()

        def loop() -> None:
            for event in family.events():
                self.say(f"kernel of {host.name.upper()}: {_words(event)}")
        threading.Thread(target=loop, daemon=True).start()

    def write(self, path: pathlib.Path, segs: list[capture.Segment]) -> None:
        """The story, and then the segments that carry the extension's options."""
        told = [f"{t:9.4f}  {text}\n" for t, text in sorted(self.lines)]
        marked = [f"{s}\n" for s in segs if s.migrate or s.flags & (capture.SYN | capture.FIN | capture.RST)]
        path.write_text("".join([*told, "\nSegments at A with the option, SYN, FIN or RST:\n", *marked]))


def _words(event: genl.Attrs) -> str:
    where = (f"{event.get('local-addr')}:{event.get('local-port')} - "
             f"{event.get('remote-addr')}:{event.get('remote-port')}")
    extra = {k: event[k] for k in ("new-local-addr", "migrations") if k in event}
    return f"{event.get('state')} ({event.get('reason')}) {where} {json.dumps(extra) if extra else ''}".rstrip()


def download(lab: Lab, line: Timeline, out: pathlib.Path, move: Callable[[], None], picture: str, title: str,
             ready: Callable[[], None] = lambda: None) -> None:
    """A downloads from nginx on B with curl, and in the middle is the move.

    The transfer has to go on, and the file has to be right. ready waits for what has to be there before
    the move. Leaves the picture with this title, a.pcap, b.pcap and timeline.txt.
    """
    expected = programs.data(programs.nginx(lab.b) / "file", SIZE)
    data = "tcp and not portrange 7790-7792"
    caps = {h.name: capture.Capture(h, out / f"{h.name}.pcap", data) for h in (lab.a, lab.b)}
    line.follow(lab.a)
    line.follow(lab.b)
    got = programs.home(lab.a, "curl") / "file"
    line.say(f"A, {lab.a.v4} behind N1, downloads {SIZE >> 20} MiB from B, {lab.b.v4}")
    curl = lab.a.popen(["curl", "-sS", "--fail", "-o", str(got), f"http://{lab.b.v4}/file"])

    def size() -> int:
        return got.stat().st_size if got.exists() else 0
    ready()
    wait_for("half of the file", lambda: size() > SIZE * 2 // 5, every=0.001)
    line.say(f"A has {size() / (1 << 20):.1f} MiB")
    move()
    before, moved = size(), time.monotonic()
    wait_for("the download to go on", lambda: size() > before, every=0.0005)
    line.say(f"the download goes on, {1000 * (time.monotonic() - moved):.1f} ms after the move")
    wait_for("the download to end", lambda: curl.poll() is not None, 120)
    line.say(f"curl ends with status {curl.returncode}, {size() / (1 << 20):.1f} MiB")
    segs = [list(capture.read(c.stop())) for c in caps.values()][0]
    line.write(out / "timeline.txt", segs)
    assert curl.returncode == 0, "curl failed"
    assert programs.checksum(got) == expected, "the file is not the one that was sent"
    line.say(f"SHA-256 matches: {expected}")
    line.write(out / "timeline.txt", segs)
    figure.draw(out / "a.pcap", PORT, out / picture, title)
