# SPDX-License-Identifier: GPL-2.0-or-later
"""What a box on the path does to segments, as an nftables ruleset.

A Behaviour says it in words; ruleset() turns it into one table that replaces
the one before, so that a box can change its manners in the middle of a test.
"""

import dataclasses

OPTION = 254

# Which segments a rule is about, as nft matches. "ack3" is the opener's first
# segment after its SYN, "later" everything after that; both count packets by
# conntrack, whose accounting Box switches on.
SEGMENTS = {
    "all": [""],
    "syn": ["tcp flags & (syn|ack) == syn"],
    "synack": ["tcp flags & (syn|ack) == (syn|ack)"],
    "nonsyn": ["tcp flags & syn == 0"],
    "ack3": ["tcp flags & syn == 0 ct direction original ct original packets 2"],
    "later": ["tcp flags & syn == 0 ct direction reply",
              "tcp flags & syn == 0 ct direction original ct original packets > 2"],
}


@dataclasses.dataclass
class Behaviour:
    """The manners of a box.

    translate    masquerade what leaves by the outer link (IPv4)
    translate6   the same for IPv6 (NAPT66); inner addresses are then not routed
    ports        "preserve" the source port if it is free, "random", or "fully-random"
    unsolicited  what comes from outside and belongs to nothing known:
                 "open" (as a plain router does), "drop" or "reset"
    lenient      take also segments conntrack calls INVALID
    mss          clamp the MSS of SYNs to this
    strip        kinds of segments (SEGMENTS) that lose option 254 (replaced by NOPs)
    refuse       kinds of segments that are dropped if they carry option 254
    timeouts     conntrack TCP time-outs in seconds, such as {"established": 30}
    """

    translate: bool = False
    translate6: bool = False
    ports: str = "preserve"
    unsolicited: str = "open"
    lenient: bool = False
    mss: int = 0
    strip: list[str] = dataclasses.field(default_factory=list)
    refuse: list[str] = dataclasses.field(default_factory=list)
    timeouts: dict[str, int] = dataclasses.field(default_factory=dict)

    def needs_conntrack(self) -> bool:
        kinds = set(self.strip) | set(self.refuse)
        return self.translate or self.translate6 or self.unsolicited != "open" or bool(kinds & {"ack3", "later"})


def _matches(kinds: list[str]) -> list[str]:
    unknown = set(kinds) - set(SEGMENTS)
    if unknown:
        raise ValueError(f"unknown kind of segment {unknown}: use one of {list(SEGMENTS)}")
    return [m for kind in kinds for m in SEGMENTS[kind]]


def _mangle(b: Behaviour) -> list[str]:
    rules = [f"meta l4proto tcp {m} tcp option {OPTION} exists counter drop"
             for m in _matches(b.refuse)]
    rules += [f"meta l4proto tcp {m} tcp option {OPTION} exists counter reset tcp option {OPTION}"
              for m in _matches(b.strip)]
    if b.mss:
        rules.append(f"tcp flags & syn == syn tcp option maxseg size > {b.mss} "
                     f"tcp option maxseg size set {b.mss}")
    return rules


def _filter(b: Behaviour, outer: str) -> list[str]:
    if b.unsolicited == "open":
        return []
    refusal = "counter drop"
    tcp = ([f'iifname "{outer}" ct state new meta l4proto tcp counter reject with tcp reset']
           if b.unsolicited == "reset" else [])
    invalid = [] if b.lenient else [f'iifname "{outer}" ct state invalid counter drop']
    # Neighbour discovery and errors about known connections have to pass.
    icmp = ["icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept"]
    return [*icmp, *invalid, *tcp, f'iifname "{outer}" ct state new {refusal}']


def _chain(name: str, hook: str, priority: int, rules: list[str], kind: str = "filter") -> str:
    body = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n    type {kind} hook {hook} priority {priority};\n{body}  }}\n"


def _masquerade(b: Behaviour, outer: str) -> list[str]:
    flags = {"preserve": "", "random": " random", "fully-random": " fully-random"}[b.ports]
    families = ["ipv4"] * b.translate + ["ipv6"] * b.translate6
    return [f'oifname "{outer}" meta nfproto {family} masquerade{flags}' for family in families]


def ruleset(b: Behaviour, outer: str) -> str:
    """The nft script that makes a box behave so; outer is its outer interface."""
    chains = _chain("mangle", "forward", -150, _mangle(b))
    chains += _chain("through", "forward", 0, _filter(b, outer))
    chains += _chain("to_box", "input", 0, _filter(b, outer))
    if b.translate or b.translate6:
        chains += _chain("out", "postrouting", 100, _masquerade(b, outer), "nat")
    return f"table inet box {{}}\ndelete table inet box\ntable inet box {{\n{chains}}}\n"
