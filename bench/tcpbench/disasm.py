# SPDX-License-Identifier: GPL-2.0-or-later
"""Off costs nothing, shown in the machine code of the QEMU kernel (x86-64).

Each hooked object file is taken apart. A jump label of tcp_migrate_key is an
entry of __jump_table: where the NOP is, and where it leads once the key is on. From
every function's entry all code is followed that can run while these labels are
NOPs, whatever other keys are; what refers to a symbol of the extension must not be among it. Settings,
statistics and diagnosis, which nobody calls for a segment, are named below and
listed as what they are.

The report, code.txt, says for each function with a label how many instructions can
run while it is off, and how many the unpatched kernel's has.
"""

import dataclasses
import pathlib
import re
import subprocess
from collections.abc import Callable, Iterator

from .machine import ROOT, LabError
from .report import Row, Target

KEY = "tcp_migrate_key"
OURS = re.compile(r"^(__)?tcp_mig(rate)?_")
# Calls that need no label: once at boot, or asked for by a program, never by a segment.
INTERFACE = {
    "tcp_init": "once at boot",
    "do_tcp_setsockopt": "setsockopt() with our options",
    "do_tcp_getsockopt": "getsockopt() with our options",
    "netstat_seq_show": "reading /proc/net/netstat",
    "tcp_diag_get_aux": "ss",
    "tcp_diag_get_aux_size": "ss",
}
_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_INSN = re.compile(r"^\s+([0-9a-f]+):\t(\S+)\s*(.*)$")
_RELOC = re.compile(r"^\s+([0-9a-f]+):\s+(R_X86_64_\w+)\s+(\S+?)(?:([+-])0x([0-9a-f]+))?$")
_ENDS = ("ret", "retq", "ud2", "jmp", "jmpq", "hlt", "int3")

Place = tuple[str, int]  # section, offset


@dataclasses.dataclass
class Reloc:
    """Symbol or section, and what is added to it."""

    symbol: str
    addend: int


@dataclasses.dataclass
class Insn:
    """One instruction."""

    place: Place
    name: str
    operands: str
    function: str
    relocs: list[Reloc] = dataclasses.field(default_factory=list)
    next: Place | None = None

    @property
    def nop(self) -> bool:
        return self.name.startswith("nop") or (self.name == "xchg" and self.operands == "%ax,%ax")


def _objdump(path: pathlib.Path, *args: str) -> list[str]:
    done = subprocess.run(["objdump", *args, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"objdump: {done.stderr.strip()}")
    return done.stdout.splitlines()


def _reloc(line: str) -> tuple[int, Reloc] | None:
    found = _RELOC.match(line)
    if not found:
        return None
    addend = int(found[5], 16) if found[5] else 0
    return int(found[1], 16), Reloc(found[3], -addend if found[4] == "-" else addend)


class Object:
    """The code of an object file."""

    def __init__(self, path: pathlib.Path) -> None:
        if not path.is_file():
            raise LabError(f"{path} is missing: run make qemu qemu-vanilla")
        self.code: dict[Place, Insn] = {}
        self.entries: dict[str, Place] = {}
        self._sections = [words[1] for line in _objdump(path, "-h")
                          if len(words := line.split()) > 1 and words[0].isdigit()]
        self._disassemble(path)
        labels = list(self._jump_table(path))
        self.labels = {site: target for key, site, target in labels if key == KEY}
        # Other keys may be on or off.
        self.others = {site: target for key, site, target in labels if key != KEY}
        self.tables = self._switch_targets(path)

    def _disassemble(self, path: pathlib.Path) -> None:
        section, function, last = "", "", None
        for line in _objdump(path, "-dr", "--no-show-raw-insn"):
            if line.startswith("Disassembly of section "):
                section, last = line.split()[-1].rstrip(":"), None
            elif found := _FUNCTION.match(line):
                function = found[1]
                self.entries.setdefault(function, (section, int(line.split()[0], 16)))
            elif (reloc := _reloc(line)) and last:
                last.relocs.append(reloc[1])
            elif found := _INSN.match(line):
                insn = Insn((section, int(found[1], 16)), found[2], found[3], function)
                self.code[insn.place] = insn
                if last:
                    last.next = insn.place
                last = insn

    def _place(self, reloc: Reloc, addend: int) -> Place | None:
        """What a relocation points at, if it is in this file."""
        if reloc.symbol.startswith("."):
            return reloc.symbol, addend
        if reloc.symbol in self.entries:
            section, base = self.entries[reloc.symbol]
            return section, base + addend
        return None

    def _relocs(self, path: pathlib.Path, section: str) -> Iterator[tuple[int, Reloc]]:
        for line in _objdump(path, "-r", "-j", section) if section in self._sections else []:
            words = line.split()
            if len(words) == 3 and words[1].startswith("R_X86_64"):
                found = _reloc(f"  {words[0]}: {words[1]} {words[2]}")
                if found:
                    yield found

    def _jump_table(self, path: pathlib.Path) -> Iterator[tuple[str, Place, Place]]:
        """(key, place of the NOP or jump, its target) of every label; entries are of 16 bytes."""
        entries: dict[int, dict[int, Reloc]] = {}
        for offset, reloc in self._relocs(path, "__jump_table"):
            entries.setdefault(offset // 16, {})[offset % 16] = reloc
        for entry in entries.values():
            site, target = (self._place(entry[i], entry[i].addend) for i in (0, 4))
            if site and target:
                yield entry[8].symbol, site, target

    def _switch_targets(self, path: pathlib.Path) -> list[Place]:
        """Code that tables in read-only data point at: targets of switch statements."""
        out: list[Place] = []
        for section in self._sections:
            if section.startswith(".rodata"):
                places = (self._place(r, r.addend) for _, r in self._relocs(path, section))
                out += [p for p in places if p in self.code]
        return out

    def _targets(self, insn: Insn) -> list[Place]:
        """Where a jump leads within this file."""
        if insn.operands.startswith("*"):
            # To any target of a table that lies in this function.
            mine = insn.function.removesuffix(".cold")
            return [t for t in self.tables if self.code[t].function.removesuffix(".cold") == mine]
        for reloc in insn.relocs:
            # Relative to the end of the four bytes it fills in.
            place = self._place(reloc, reloc.addend + 4)
            return [place] if place else []
        found = re.match(r"^([0-9a-f]+)\b", insn.operands)
        return [(insn.place[0], int(found[1], 16))] if found else []

    def reached(self, entry: Place) -> set[Place]:
        """What can run from here while all our labels are NOPs."""
        seen: set[Place] = set()
        work = [entry]
        while work:
            place = work.pop()
            if place in seen or place not in self.code:
                continue
            seen.add(place)
            insn = self.code[place]
            if place in self.others:
                work += [self.others[place], *([insn.next] if insn.next else [])]
            elif insn.name.startswith("j"):
                work += [t for t in self._targets(insn) if self._inside(insn, t)]
            if insn.next and insn.name not in _ENDS:
                work.append(insn.next)
        return seen

    def references(self, function: str) -> int:
        """To symbols of ours in all of a function, run or not."""
        return sum(bool(OURS.match(r.symbol)) for insn in self.code.values()
                   if insn.function.removesuffix(".cold") == function for r in insn.relocs)

    def _inside(self, insn: Insn, target: Place) -> bool:
        """A jump to another function is a call at the end of this one."""
        there = self.code.get(target)
        return there is not None and there.function.removesuffix(".cold") == insn.function.removesuffix(".cold")


@dataclasses.dataclass
class Function:
    """What was found in one function."""

    file: str
    name: str
    labels: int
    off: int                # instructions that can run while it is off
    vanilla: int | None     # ... of the unpatched kernel
    hidden: int             # references to symbols of ours behind labels
    bare: list[str]         # symbols of ours reached without a label


def _functions(file: str, mine: Object, base: Object) -> Iterator[Function]:
    for name, entry in mine.entries.items():
        if ".cold" in name:
            continue
        reached = mine.reached(entry)
        bare = sorted({r.symbol for p in reached for r in mine.code[p].relocs if OURS.match(r.symbol)})
        labels = [site for site in mine.labels if site in reached]
        wrong = [site for site in labels if not mine.code[site].nop]
        bare += [f"label at {site[1]:x} is no NOP" for site in wrong]
        if labels or bare:
            theirs = len(base.reached(base.entries[name])) if name in base.entries else None
            yield Function(file, name, len(labels), len(reached), theirs, mine.references(name) - len(bare), bare)


def hooked() -> list[str]:
    """The object files whose sources the series changes."""
    out = set()
    for patch in (ROOT / "kernel-patches/6.12").glob("*.patch"):
        out |= set(re.findall(r"^\+\+\+ b/(\S+)\.c$", patch.read_text(), re.M))
    return sorted(f"{name}.o" for name in out)


def _listing(found: list[Function]) -> str:
    head = f"{'function':58} {'labels':>6} {'off':>6} {'vanilla':>8}  our symbols without a label\n"
    lines = []
    for f in found:
        why = f" ({INTERFACE[f.name]})" if f.name in INTERFACE else ""
        lines.append(f"{f.file + ' ' + f.name:58} {f.labels:6} {f.off:6} {f.vanilla or '-':>8}  "
                     f"{', '.join(f.bare)}{why if f.bare else ''}\n")
    return head + "".join(lines)


def rows(kernels: dict[str, pathlib.Path], out: pathlib.Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows code.*"""
    del quick
    mine, base = kernels["qemu"].parent, kernels["qemu-vanilla"].parent
    found: list[Function] = []
    for file in hooked():
        found += _functions(file, Object(mine / file), Object(base / file))
    out.mkdir(parents=True, exist_ok=True)
    (out / "code.txt").write_text(_listing(found))
    say(f"code: what was found in each function is in {out}/code.txt")
    bare = [f for f in found if f.bare and f.name not in INTERFACE]
    labels = sum(f.labels for f in found)
    hidden = sum(f.hidden for f in found)
    if not labels or not hidden:
        raise LabError("no jump label of tcp_migrate_key, or nothing behind one: is CONFIG_JUMP_LABEL set?")
    grown = [f.off - f.vanilla for f in found if f.vanilla and not f.bare]
    first = Row("code.bare", "off, x86-64: references without jump label", "", value=len(bare), target=Target("<=", 0),
                compare={"jump labels": labels, "functions with them": sum(f.labels > 0 for f in found),
                         "references behind them": hidden,
                         "calls from settings and statistics": sum(bool(f.bare) for f in found) - len(bare)},
                note="; ".join(f"{f.file} {f.name}: {', '.join(f.bare)}" for f in bare))
    second = Row("code.grown", "off, x86-64: instructions more, all functions", "", value=sum(grown),
                 note="that can run while it is off, the NOPs included; compilers lay out and inline otherwise, too",
                 samples=[[f.file, f.name, f.labels, f.off, f.vanilla] for f in found])
    return [first, second]
