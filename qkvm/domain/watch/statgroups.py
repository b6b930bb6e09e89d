"""The groups of domstats: each returns a part of a domain's statistics under virsh's names.

A group may have questions for QEMU. Their answers are in :attr:`Sight.answers` under the group's name, in the
order of the questions; they are missing if QEMU was not asked or did not answer. Sizes of the balloon are in KiB,
others in bytes; times are in nanoseconds.
"""

from __future__ import annotations

import os

from qkvm.domain.tuning import cputime, threads
from qkvm.errors import InvalidState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.net.link.table import Counters
    from qkvm.qmp.survey import Question

Values = dict[str, "int | str"]

_STATES = {"running": 1, "paused": 3, "in shutdown": 4, "shut off": 5, "crashed": 6, "pmsuspended": 7}
_REASONS = {
    "running": ("unknown", "booted", "migrated", "restored", "from snapshot", "unpaused", "migration canceled",
                "save canceled", "wakeup", "crashed", "post-copy"),
    "paused": ("unknown", "user", "migrating", "saving", "dumping", "I/O error", "watchdog", "from snapshot",
               "shutting down", "creating snapshot", "crashed", "starting up"),
    "in shutdown": ("unknown", "user"),
    "shut off": ("unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from snapshot",
                 "daemon"),
    "crashed": ("unknown", "panicked"),
    "pmsuspended": ("unknown",),
}  # fmt: skip
"""virsh's reasons in the order of libvirt's numbers (virDomainRunningReason and others)."""

_CALC_STATUS = {"unstarted": 0, "measuring": 1, "measured": 2}
_DEBUG_KVM = "/sys/kernel/debug/kvm"


class Sight:
    """A domain with its latest run, the pid of a live QEMU, and that QEMU's answers."""

    def __init__(self, domain: Handle, run: Run | None, *, backing: bool) -> None:
        self.domain = domain
        self.run = run
        self.pid = run.pid if run is not None else None
        self.backing = backing
        self.answers: dict[str, list[Any]] = {}

    @property
    def live(self) -> Run | None:
        """The run, if its QEMU lives."""
        return self.run if self.pid is not None else None

    def answer(self, group: str, number: int = 0) -> Any:
        """Return an answer of QEMU, None for none."""
        given = self.answers.get(group, [])
        return given[number] if number < len(given) else None


def questions(group: str, sight: Sight) -> Iterable[Question]:
    """Return the questions to QEMU for a group."""
    run = sight.live
    asker = _QUESTIONS.get(group)
    return asker(run) if asker is not None and run is not None else ()


def _balloon_questions(run: Run) -> list[Question]:
    if run.record["definition"].get("balloon") is False:
        return []
    return [("qom-get", {"path": "/machine/peripheral/balloon0", "property": "guest-stats"})]


def _block_questions(run: Run) -> list[Question]:
    if not run.devices("disks"):
        return []
    return [("query-blockstats", {}), ("query-named-block-nodes", {"flat": True})]


def _kvm_questions(target: str) -> Callable[[Run], list[Question]]:
    """Return a function that returns the questions for KVM's counters; none under TCG."""

    def ask(run: Run) -> list[Question]:
        if run.record.get("accel") != "kvm":
            return []
        found: list[Question] = [("query-stats", {"target": target}), ("query-stats-schemas", {})]
        return found + ([("query-cpus-fast", {})] if target == "vcpu" else [])

    return ask


def _iothread_questions(run: Run) -> list[Question]:
    listed = run.record.get("iothreads", run.record["definition"].get("iothreads"))
    return [("query-iothreads", {})] if listed else []


_QUESTIONS: dict[str, Callable[[Run], list[Question]]] = {
    "balloon": _balloon_questions,
    "vcpu": _kvm_questions("vcpu"),
    "block": _block_questions,
    "iothread": _iothread_questions,
    "dirtyrate": lambda run: [("query-dirty-rate", {})],
    "vm": _kvm_questions("vm"),
}


def state(sight: Sight) -> Values:
    """Return state and reason as libvirt's numbers."""
    word, reason = sight.run.state() if sight.run is not None else ("shut off", "unknown")
    known = _REASONS.get(word, ())
    return {
        "state.state": _STATES.get(word, 0),
        "state.reason": known.index(reason) if reason in known else 0,
    }


def cpu_total(sight: Sight) -> Values:
    """Return the CPU time of QEMU with all its threads."""
    run = sight.live
    if run is None:
        return {}
    times = _times(run, sight.pid)
    polled = [_halt_poll(sight.pid, name) for name in ("halt_poll_success_ns", "halt_poll_fail_ns")]
    return {
        "cpu.time": times["cpu_time"], "cpu.user": times["user_time"], "cpu.system": times["system_time"],
        "cpu.cache.monitor.count": 0, "cpu.haltpoll.success.time": polled[0], "cpu.haltpoll.fail.time": polled[1],
    }  # fmt: skip


def _times(run: Run, pid: int | None) -> dict[str, int]:
    """Return CPU times from the control group, or without one from /proc, which counts in ticks."""
    from qkvm.domain.tuning.group import any_group_of
    from qkvm.errors import HostError
    from qkvm.host.limits import cpu_times

    group = any_group_of(run)
    try:
        if group is not None:
            return cpu_times(group)
    except (HostError, InvalidState):
        # QEMU has ended meanwhile, and the group with it.
        pass
    user, system = cputime.user_and_system_ns(pid)
    return {"cpu_time": user + system, "user_time": user, "system_time": system}


def _halt_poll(pid: int | None, name: str) -> int:
    """Return the time that KVM polled before it let an idle vCPU sleep, from debugfs; 0 if not known."""
    total = 0
    try:
        folders = [entry for entry in os.listdir(_DEBUG_KVM) if entry.startswith(f"{pid}-")]
        for folder in folders:
            with open(os.path.join(_DEBUG_KVM, folder, name), encoding="ascii") as stream:
                total += int(stream.read())
    except (OSError, ValueError):
        pass
    return total


def balloon(sight: Sight) -> Values:
    """Return the size of the guest's memory, and statistics of its balloon driver."""
    run = sight.live
    if run is None:
        memory = sight.domain.definition.memory
        return {"balloon.current": int(memory.current), "balloon.maximum": int(memory.maximum)}
    from qkvm.domain.tuning.balloonstats import guest_stats, resident_kib

    found: Values = {"balloon.current": run.balloon(), "balloon.maximum": int(run.record["memory"]["maximum"])}
    told = sight.answer("balloon")
    for name, value in (guest_stats(told) if told is not None else {}).items():
        found[f"balloon.{name.replace('last_update', 'last-update')}"] = value
    return found | {"balloon.rss": resident_kib(sight.pid)}


def vcpu(sight: Sight) -> Values:
    """Return the plugged vCPUs: the times that each has run, and has waited for a CPU of the host."""
    run = sight.live
    if run is None:
        vcpus = sight.domain.definition.vcpus
        return {"vcpu.current": vcpus.current, "vcpu.maximum": vcpus.maximum}
    maximum = run.record["definition"].get("vcpus", {}).get("maximum", 1)
    found: Values = {"vcpu.current": run.vcpu_count(), "vcpu.maximum": int(maximum)}
    try:
        tids = threads.of_process(sight.pid).vcpus
    except InvalidState:
        # QEMU has ended meanwhile.
        return found
    counters = _vcpu_counters(sight)
    for number, tid in sorted(tids.items()):
        wait, delay = cputime.scheduler_times_ns(sight.pid, tid)
        found |= {
            f"vcpu.{number}.state": 1,
            f"vcpu.{number}.time": cputime.thread_time_ns(sight.pid, tid),
            f"vcpu.{number}.wait": wait,
            f"vcpu.{number}.delay": delay,
        }
        found |= {f"vcpu.{number}.{name}": value for name, value in counters.get(number, {}).items()}
    return found


def _vcpu_counters(sight: Sight) -> dict[int, Values]:
    """Return KVM's counters of each vCPU; QEMU names the vCPUs by their paths."""
    results, schemas, cpus = (sight.answer("vcpu", number) for number in range(3))
    numbers = {cpu["qom-path"]: int(cpu["cpu-index"]) for cpu in cpus or []}
    found: dict[int, Values] = {}
    for result in results or []:
        if result.get("qom-path") in numbers:
            found.setdefault(numbers[result["qom-path"]], {}).update(_counters([result], schemas, "vcpu"))
    return found


def _counters(results: list[dict[str, Any]] | None, schemas: list[dict[str, Any]] | None, target: str) -> Values:
    """Return KVM's counters with libvirt's suffix for their kind; histograms are left out."""
    kinds = {
        (schema["provider"], stat["name"]): _ENDINGS.get(stat["type"], "")
        for schema in schemas or []
        if schema["target"] == target
        for stat in schema["stats"]
    }
    found: Values = {}
    for result in results or []:
        for stat in result["stats"]:
            ending = kinds.get((result["provider"], stat["name"]), "")
            if ending and isinstance(stat["value"], int):
                value = stat["value"]
                found[f"{stat['name']}.{ending}"] = ("no", "yes")[value] if isinstance(value, bool) else value
    return found


_ENDINGS = {"cumulative": "sum", "instant": "cur", "peak": "max"}


def interface(sight: Sight) -> Values:
    """Return the NICs' counters from the guest's view."""
    run = sight.live
    if run is None:
        return {"net.count": len(sight.domain.definition.nics)}
    from qkvm.net.link import table

    listed = run.devices("nics")
    found: Values = {"net.count": len(listed)}
    taps = table.all_counters() if listed else {}
    for number, entry in enumerate(listed):
        tap = taps.get(entry["target"])
        if tap is not None:
            seen = table.seen_by_guest(tap, macvtap=entry["type"] == "direct")
            found |= {f"net.{number}.{name}": value for name, value in _tap(entry["target"], seen).items()}
    return found


def _tap(name: str, seen: Counters) -> Values:
    return {
        "name": name,
        "rx.bytes": seen.rx_bytes, "rx.pkts": seen.rx_packets,
        "rx.errs": seen.rx_errors, "rx.drop": seen.rx_dropped,
        "tx.bytes": seen.tx_bytes, "tx.pkts": seen.tx_packets,
        "tx.errs": seen.tx_errors, "tx.drop": seen.tx_dropped,
    }  # fmt: skip


def block(sight: Sight) -> Values:
    """Return the disks' counters, and sizes of their images."""
    from qkvm.domain.block import stats as blockstats

    run = sight.live
    if run is None:
        return blockstats.of_definition(sight.domain.definition, backing=sight.backing)
    stats, nodes = sight.answer("block"), sight.answer("block", 1)
    return blockstats.of_run(run.devices("disks"), stats or [], nodes or [], backing=sight.backing)


def perf(sight: Sight) -> Values:
    """Return nothing: qkvm can't enable perf events (see the verb perf)."""
    return {}


def iothread(sight: Sight) -> Values:
    """Return the iothreads' settings of polling."""
    listed = sight.answer("iothread")
    if not listed:
        return {}
    found: Values = {"iothread.count": len(listed)}
    for entry in sorted(listed, key=lambda entry: str(entry["id"])):
        number = str(entry["id"]).removeprefix("iothread")
        for name in ("poll-max-ns", "poll-grow", "poll-shrink"):
            found[f"iothread.{number}.{name}"] = int(entry[name])
    return found


def memory(sight: Sight) -> Values:
    """Return nothing: qkvm makes no resctrl groups, which bandwidth monitors need."""
    return {}


def dirtyrate(sight: Sight) -> Values:
    """Return how fast the guest writes to its memory, if that was measured."""
    told = sight.answer("dirtyrate")
    if told is None:
        return {}
    found: Values = {
        "dirtyrate.calc_status": _CALC_STATUS.get(told["status"], 0),
        "dirtyrate.calc_start_time": int(told["start-time"]),
        "dirtyrate.calc_period": int(told["calc-time"]),
        "dirtyrate.calc_mode": str(told.get("mode", "page-sampling")),
    }
    if "dirty-rate" in told:
        found["dirtyrate.megabytes_per_second"] = int(told["dirty-rate"])
    for entry in told.get("vcpu-dirty-rate") or []:
        found[f"dirtyrate.vcpu.{entry['id']}.megabytes_per_second"] = int(entry["dirty-rate"])
    return found


def vm(sight: Sight) -> Values:
    """Return KVM's counters of the whole guest."""
    return {
        f"vm.{name}": value for name, value in _counters(sight.answer("vm"), sight.answer("vm", 1), "vm").items()
    }


GROUPS: dict[str, Callable[[Sight], Values]] = {
    "state": state, "cpu-total": cpu_total, "balloon": balloon, "vcpu": vcpu, "interface": interface,
    "block": block, "perf": perf, "iothread": iothread, "memory": memory, "dirtyrate": dirtyrate, "vm": vm,
}  # fmt: skip
"""Name of the option -> function that returns the group's statistics."""
