# SPDX-License-Identifier: GPL-2.0-or-later
"""A box that joins two ends which have asked it for each other: the symmetric proxy's part, for one connection.

It knows the two tokens of the connection, and nothing secret. Each end sends its
MSYN to the box. When both have come, each is answered with the other's, turned
into a SYN,ACK; sequence numbers and options stay as they are, since the MACs cover
them. From then on the box translates addresses and ports, and nothing else.
docs/protocol.md has it under "Spliced (unbound) answers".
"""

import dataclasses
import ipaddress
import socket
import struct
import threading
from collections.abc import Callable

from tcplab import capture, craft
from tcplab.topology import Host
from wire import ACK, SYN, Raw

OTHER = {"a": "b", "b": "a"}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an end is seen, and the address and port of the box that it speaks to."""

    src: str
    sport: int
    dst: str
    dport: int


@dataclasses.dataclass
class Heard:
    """What has come: the packet, and what it is."""

    packet: bytes
    seg: capture.Segment

    @property
    def place(self) -> Place:
        return Place(self.seg.src, self.seg.sport, self.seg.dst, self.seg.dport)

    @property
    def asks(self) -> int | None:
        """The token that an MSYN names."""
        if self.seg.migrate != ["MREQ"] or self.seg.flags & (SYN | ACK) != SYN:
            return None
        return int.from_bytes(self.seg.options[-1][1][4:8], "big")

    def towards(self, place: Place) -> bytes:
        """As the box sends it to an end."""
        at, head = craft.layout(self.packet)
        addresses = ipaddress.ip_address(place.dst).packed + ipaddress.ip_address(place.src).packed
        return craft.checked(self.packet[:at] + addresses + self.packet[at + len(addresses):head]
                             + struct.pack("!HH", place.dport, place.sport) + self.packet[head + 4:])

    def answering(self, request: "Heard") -> bytes:
        """One end's MSYN, turned into the answer to the other's."""
        head = craft.layout(self.packet)[1]
        tcp = bytearray(self.packet[head:])
        struct.pack_into("!I", tcp, 8, (request.seg.seq + 1) & 0xFFFFFFFF)
        tcp[13] = SYN | ACK
        return Heard(self.packet[:head] + bytes(tcp), self.seg).towards(request.place)


class Splicer:
    """The box, on a host, while it is open. senders: whose requests name which token.

    loses(what, who) is asked of every "answer" to an end and every "confirm" of one,
    whether it gets lost here; copies says how many times they are sent. splices: or else
    a request is passed on, as each of `passes` makes it.
    """

    def __init__(self, host: Host, senders: dict[int, str], v6: bool = False) -> None:
        self.senders, self.splices, self.answers = senders, True, 0
        self.copies = {"answer": 1, "confirm": 1}
        self.passes: list[Callable[[Heard], Heard]] = [lambda heard: heard]
        self.loses = lambda what, who: False
        self.asked: dict[str, Heard] = {}
        self.acked: dict[int, int] = {}     # last of each end, by its port
        self.host, self.raw, self.over = host, Raw(host), threading.Event()
        with host.inside():     # of one protocol, which is heard only when it comes in
            self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD if v6 else 0x0800))
        self.tap.settimeout(0.2)
        # The host itself knows of no connection, and would reset.
        host.run(["nft", "-f", "-"], input="table inet splicer { chain c { type filter hook input priority 0; "
                                           "meta l4proto tcp drop; }; }\n")
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def __enter__(self) -> "Splicer":
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.tap.close()
        self.raw.close()
        self.host.run("nft delete table inet splicer")

    def answer(self, who: str) -> None:
        """An end is answered with what the other has asked."""
        if not self.loses("answer", who):
            self.answers += 1
            self._send(self.asked[OTHER[who]].answering(self.asked[who]), self.copies["answer"])

    def _send(self, packet: bytes, copies: int = 1) -> None:
        for _ in range(copies):
            self.raw.send([packet])

    def _work(self) -> None:
        while not self.over.is_set():
            try:
                packet = self.tap.recv(65536)
            except TimeoutError:
                continue
            if seg := capture.segment(packet):
                self._hear(Heard(packet, seg))

    def _hear(self, heard: Heard) -> None:
        """Requests are matched by token, all else by where it comes from."""
        if heard.asks in self.senders:
            self._request(self.senders[heard.asks], heard)
            return
        for who, request in self.asked.items():
            if heard.place == request.place and OTHER[who] in self.asked:
                self._relay(who, heard)

    def _request(self, who: str, heard: Heard) -> None:
        """A new one is news for the other end as well; a repetition is answered again."""
        before = self.asked.get(who)
        self.asked[who] = heard
        if not self.splices:
            for made in self.passes:
                self._relay(who, made(heard))
        elif OTHER[who] in self.asked:
            self.answer(who)
            if before is None or before.seg.options != heard.seg.options:
                self.answer(OTHER[who])

    def _relay(self, who: str, heard: Heard) -> None:
        """What one end says goes to the other."""
        proves = heard.seg.migrate == ["CONFIRM"]
        if heard.seg.flags & ACK:
            self.acked[heard.seg.sport] = heard.seg.ack
        if not (proves and self.loses("confirm", who)):
            self._send(heard.towards(self.asked[OTHER[who]].place), self.copies["confirm"] if proves else 1)
