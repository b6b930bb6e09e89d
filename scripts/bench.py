"""Compare how long qkvm and libvirt take: the same guest, the same verbs, in turn, on the same machine.

Run by scripts/bench, which does the set-up. The two sides and what keeps them apart from the host are sides.py's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from scripts.sides import NAME, PACKAGES, Remote, SideError, both, guest_files, has_libvirt, versions

READS_PER_ROUND = 3
CALLS = 10
"""A call of the API that takes microseconds is made this often at a time."""


# What is measured.


@dataclass(frozen=True)
class Row:
    """One thing to measure on each side. A step is a verb's words for the command line, or an API call's name."""

    label: str
    libvirt: tuple[str, ...]
    qkvm: tuple[str, ...]
    target: float | None = None
    times: int = 1
    settle: bool = False


def _verb(*words: str, target: float | None = None) -> Row:
    """A verb that both have under the same words."""
    return Row(" ".join(word for word in words if word != NAME), words, words, target)


COMMAND_LINE, LIBRARY = "Command line (virsh, qkvm)", "Library (libvirt, qkvm)"
SETMEM = ("setmem", NAME, "{kib}", "--live")
SETVCPUS = ("setvcpus", NAME, "2", "--live")
READS = (
    _verb("list", target=1.5),
    _verb("list", "--all", target=1.5),
    _verb("dominfo", NAME, target=1.5),
    _verb("domstate", NAME),
    _verb("domiflist", NAME),
    _verb("domstats", NAME),
)
SETS = (
    Row("setmem, asked (--no-wait)", SETMEM, (*SETMEM, "--no-wait"), settle=True),
    Row("setmem, reached by the guest", (), SETMEM),
)
CALLS_MADE = (
    Row("info", ("info",), ("info",), times=CALLS),
    Row("QMP query-status", ("query-status",), ("query-status",), times=CALLS),
    Row("setMemory, asked", ("set-memory",), ("set-memory",), settle=True),
    Row("setMemory, reached by the guest", (), ("set-memory-wait",)),
)
START, HOTADD, DESTROY = (
    _verb("start", NAME, target=0.8),
    Row("setvcpus 2 --live, asked", SETVCPUS, (*SETVCPUS, "--no-wait")),
    _verb("destroy", NAME, target=0.2),
)
API_START, API_HOTADD, API_DESTROY = (
    Row("start", ("start",), ("start",), target=0.25),
    Row("hot-add of a vCPU", ("hot-add",), ("hot-add",)),
    Row("destroy", ("destroy",), ("destroy",), target=0.2),
)
GROUPS: dict[str, tuple[Row, ...]] = {
    COMMAND_LINE: (*READS, *SETS, START, HOTADD, DESTROY),
    LIBRARY: (*CALLS_MADE, API_START, API_HOTADD, API_DESTROY),
}


# The driver.


@dataclass
class Results:
    """Seconds by row and side."""

    rounds: int
    samples: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    bare: list[float] = field(default_factory=list)
    resident: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    left: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def add(self, group: str, row: Row, side: str, seconds: float) -> None:
        """One more sample."""
        self.samples.setdefault(group, {}).setdefault(row.label, {}).setdefault(side, []).append(seconds)

    def median(self, group: str, row: Row, side: str) -> float | None:
        """The median of a row on a side, None where it has none."""
        samples = self.samples.get(group, {}).get(row.label, {}).get(side)
        return median(samples) if samples else None

    def ratio(self, group: str, row: Row) -> float | None:
        """qkvm's median over libvirt's, None where one of them is missing."""
        ours, theirs = (self.median(group, row, side) for side in ("qkvm", "libvirt"))
        return ours / theirs if ours is not None and theirs else None

    def met(self, group: str, row: Row) -> bool | None:
        """Whether a row's target is met, None where it has none or nothing to compare with."""
        ratio = self.ratio(group, row)
        return ratio <= row.target if ratio is not None and row.target is not None else None


class Bench:
    """The order of events: what rests first, then what starts and ends. The sides take turns at each step."""

    def __init__(self, sides: list[Remote], results: Results) -> None:
        self._sides = sides
        self._results = results

    def measure(self, group: str, row: Row, *, keep: bool = True) -> None:
        """One sample of a row on each side."""
        for side in self._sides:
            step = row.libvirt if side.name == "libvirt" else row.qkvm
            if not step:
                continue
            if group is COMMAND_LINE:
                seconds = side.ask("command", words=step)
            else:
                seconds = side.ask("call", name=step[0], times=row.times)
            if keep:
                self._results.add(group, row, side.name, seconds)
            if row.settle:
                side.ask("settle")

    def rest(self, rounds: int, *, keep: bool = True) -> None:
        """What is asked of running guests that idle."""
        for _ in range(rounds):
            for _ in range(READS_PER_ROUND):
                for row in READS:
                    self.measure(COMMAND_LINE, row, keep=keep)
            for row in SETS:
                self.measure(COMMAND_LINE, row, keep=keep)
            for row in CALLS_MADE:
                self.measure(LIBRARY, row, keep=keep)

    def live(self, group: str, rows: tuple[Row, Row, Row], *, keep: bool = True) -> None:
        """A guest's life on each side, one after the other: a booting guest would disturb the other's."""
        start, hotadd, destroy = rows
        for side in self._sides:
            alone = Bench([side], self._results)
            alone.measure(group, start, keep=keep)
            side.ask("await_guest")
            alone.measure(group, hotadd, keep=keep)
            alone.measure(group, destroy, keep=keep)
            side.ask("forget")

    def run(self, rounds: int, tell: Callable[[str], None]) -> None:
        """All of it; the first turn of each thing only warms up and is not kept."""
        lives = ((COMMAND_LINE, (START, HOTADD, DESTROY)), (LIBRARY, (API_START, API_HOTADD, API_DESTROY)))
        tell("warming up")
        for group, rows in lives:
            self.live(group, rows, keep=False)
        self.measure(COMMAND_LINE, START, keep=False)
        for side in self._sides:
            side.ask("await_guest")
        self.rest(1, keep=False)
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}: looking and setting")
            self.rest(1)
        self.measure(COMMAND_LINE, DESTROY, keep=False)
        for side in self._sides:
            side.ask("forget")
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}: starting and ending")
            self._results.bare.append(self._sides[-1].ask("bare"))
            for group, rows in lives:
                self.live(group, rows)
        for side in self._sides:
            self._results.resident[side.name] = side.ask("resident")
            side.ask("close")
            self._results.left[side.name] = side.ask("resident")


# What is printed.


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.{2 if seconds < 0.01 else 1 if seconds < 0.1 else 0}f}"


def report(results: Results) -> str:
    """The table: medians in milliseconds, ratios, targets."""
    lines = [f"{'median, ms':<34}{'libvirt':>9}{'qkvm':>9}{'ratio':>8}   target"]
    for group, rows in GROUPS.items():
        lines += ["", group]
        for row in rows:
            theirs, ours = (results.median(group, row, side) for side in ("libvirt", "qkvm"))
            ratio, met = results.ratio(group, row), results.met(group, row)
            target = f"   {row.target:.2f} " if row.target is not None else ""
            if met is not None:
                target += "met" if met else "NOT MET"
            lines.append(
                f"  {row.label:<32}{_milliseconds(theirs):>9}{_milliseconds(ours):>9}"
                f"{f'{ratio:.2f}' if ratio is not None else '-':>8}{target}".rstrip()
            )
    lines += ["", f"QEMU alone, start to first reply: {_milliseconds(median(results.bare))} ms"]
    for side, processes in results.resident.items():
        lines.append(f"Resident with no domain running, {side}: {_describe(processes)}")
        lines.append(f"  its network destroyed too: {_describe(results.left[side])}")
    return "\n".join(lines)


def _describe(processes: list[tuple[str, int]]) -> str:
    if not processes:
        return "nothing"
    total = sum(kib for _, kib in processes) / 1024
    return ", ".join(f"{name} {kib / 1024:.0f} MiB" for name, kib in processes) + f"; {total:.0f} MiB in all"


def as_json(results: Results, used: dict[str, str]) -> str:
    """All samples, in seconds, and what is made of them."""
    rows = [
        {
            "group": group, "row": row.label, "samples": results.samples.get(group, {}).get(row.label, {}),
            "libvirt": results.median(group, row, "libvirt"), "qkvm": results.median(group, row, "qkvm"),
            "ratio": results.ratio(group, row), "target": row.target, "met": results.met(group, row),
        }
        for group, members in GROUPS.items()
        for row in members
    ]  # fmt: skip
    return json.dumps({
        "versions": used, "rounds": results.rounds, "rows": rows, "bare_qemu": results.bare,
        "resident_kib": results.resident, "resident_without_network_kib": results.left,
    }, indent=2) + "\n"  # fmt: skip


# The way in.


def _tell(text: str) -> None:
    """Say on stderr what goes on, on one line that changes."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _stop(*_: object) -> None:
    """SIGTERM does what ^C does."""
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Compare qkvm with libvirt on this machine.")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="samples of each start (default 7)")
    parser.add_argument("--json", metavar="FILE", help="write all samples there too")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    parser.add_argument("--network", action="store_true", help="measure throughput by iperf3 instead of verbs")
    parser.add_argument("--seconds", type=int, default=5, metavar="N", help="of a throughput sample (default 5)")
    parser.add_argument("--clones", action="store_true", help="measure instant clones beside a bare QEMU instead")
    parser.add_argument("--no-libvirt", action="store_true", help="measure qkvm alone")
    found = parser.parse_args()
    if found.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if found.check and found.no_libvirt and not found.clones:
        parser.error("--check compares, and needs libvirt")
    return found


def bench(arguments: argparse.Namespace) -> int:
    """Measure, print, and give the exit code."""
    if os.geteuid() != 0:
        raise SideError("run it as root: it makes namespaces, bridges and taps")
    if arguments.clones:
        check = ["--check"] if arguments.check else []
        # A namespace of its own, so that its network is in nobody's way.
        argv = ["unshare", "-n", sys.executable, "-m", "scripts.bench_clones", str(arguments.rounds), *check]
        return subprocess.run(argv, check=False, cwd=Path(__file__).parent.parent).returncode
    with_libvirt = not arguments.no_libvirt
    if with_libvirt and not has_libvirt():
        raise SideError(
            "libvirt is not installed\n"
            f"  apt install --no-install-recommends {PACKAGES}\n"
            "brings it; --no-libvirt measures qkvm alone"
        )
    if arguments.network:
        return _network(arguments, with_libvirt)
    results = Results(arguments.rounds)
    with both(["libvirt", "qkvm"] if with_libvirt else ["qkvm"], guest_files()) as sides:
        Bench(sides, results).run(arguments.rounds, _tell)
    _tell("")
    load = os.getloadavg()[0]
    used = versions(libvirt=with_libvirt)
    print(", ".join(f"{name} {version}" for name, version in used.items()) + f"; {arguments.rounds} rounds\n")
    print(report(results))
    if load > 1.5 * (os.cpu_count() or 1):
        print(f"Load average {load:.1f}: this machine does other things too, and the ratios are unsure.")
    if arguments.json:
        Path(arguments.json).write_text(as_json(results, used))
    if results.left["qkvm"]:
        raise SideError(f"these processes of qkvm were left behind: {_describe(results.left['qkvm'])}")
    missed = [row.label for group, rows in GROUPS.items() for row in rows if results.met(group, row) is False]
    return 1 if arguments.check and missed else 0


def _network(arguments: argparse.Namespace, with_libvirt: bool) -> int:
    """Throughput instead of verbs."""
    from scripts import bench_network

    bench_network.require()
    names = ["libvirt", "qkvm"] if with_libvirt else ["qkvm"]
    found = bench_network.network_bench(names, arguments.rounds, arguments.seconds)
    used = versions(libvirt=with_libvirt)
    print(", ".join(f"{name} {version}" for name, version in used.items()) + f"; {arguments.rounds} rounds\n")
    table, met = bench_network.report(found)
    print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"versions": used, "mbit_per_s": found}, indent=2) + "\n")
    return 0 if met or not arguments.check else 1


def main() -> int:
    """Measure as the arguments tell."""
    arguments = _arguments()
    try:
        signal.signal(signal.SIGTERM, _stop)
        return bench(arguments)
    except KeyboardInterrupt:
        return 130
    except SideError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
