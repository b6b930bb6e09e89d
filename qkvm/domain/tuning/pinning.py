"""Pin vCPUs, iothreads and the emulator's other threads to CPUs of the host.

A live pin is the affinity of a thread (sched_setaffinity(2)); QEMU can't undo it, since its sandbox denies that
call. Live pins are also in the record, for vCPUs that are plugged later. In the definition pins are in [cputune].
"""

from __future__ import annotations

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.definition import together
from qkvm.domain.tuning import cpu, cputime, threads, tuned
from qkvm.errors import InvalidState, InvalidValue
from qkvm.files import Undo
from qkvm.host.node.placement import set_affinity
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.units import format_cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

VCPU, IOTHREAD, EMULATOR = "vcpu", "iothread", "emulator"


def pins(domain: Handle, kind: str, *, scope: Scope = Scope.CURRENT) -> dict[int, set[int]]:
    """Return the CPUs of each vCPU up to the maximum, each iothread, or (as number 0) the emulator.

    :param scope: LIVE: by the kernel, or CONFIG: of the definition.
    :raises InvalidState: LIVE and it does not run, or CONFIG and there is no definition.
    """
    wanted = domain.resolve(scope)
    everywhere = threads.host_cpu_set(cputime.host_cpus())
    if not wanted.live:
        definition = domain.definition
        return {
            number: _wanted(definition.cputune, definition, kind, number) or everywhere
            for number in _numbers(definition, kind)
        }
    run = domain.live
    started = definitions.started_with(run.record)
    tune, found = cpu.live(run), _tids(run, kind)
    numbers = sorted(found) if kind == IOTHREAD else _numbers(started, kind)
    result = {}
    for number in numbers:
        present = threads.affinity(run.pid, found[number][0]) if number in found else set()
        result[number] = present or _wanted(tune, started, kind, number) or everywhere
    return result


def _numbers(definition: spec.Domain, kind: str) -> list[int]:
    if kind == EMULATOR:
        return [0]
    if kind == VCPU:
        return list(range(definition.vcpus.maximum))
    return sorted(thread.id for thread in definition.iothreads)


def _tids(run: Run, kind: str) -> dict[int, list[int]]:
    """Return thread ids of a kind by number; the emulator's are all number 0, its main thread first."""
    found = threads.of_process(run.pid)
    if kind == EMULATOR:
        return {0: sorted(found.emulator)}
    named = found.vcpus if kind == VCPU else found.iothreads
    return {number: [tid] for number, tid in named.items()}


def _wanted(tune: spec.CpuTune, definition: spec.Domain, kind: str, number: int) -> set[int]:
    """Return the CPUs that a thread is pinned to, empty for none."""
    if kind == EMULATOR:
        text = tune.emulator_pin or definition.vcpus.cpuset
    elif kind == VCPU:
        text = tune.vcpu_pins.get(str(number), "") or definition.vcpus.cpuset
    else:
        text = tune.iothread_pins.get(str(number), "") or definition.vcpus.cpuset
    return threads.parse_cpus(text) if text else set()


def pin(domain: Handle, kind: str, number: int, cpulist: str, *, scope: Scope = Scope.CURRENT) -> None:
    """Pin one vCPU, one iothread, or the emulator, in the running guest, the definition, or both.

    :param cpulist: '0-3,^2', or 'r' for all CPUs again.
    :raises InvalidValue: no CPUs of this host, or no such vCPU. :raises InvalidState: it is not plugged.
    """
    reset = cpulist.startswith("r")
    count = cputime.host_cpus()
    cpus = threads.host_cpu_set(count) if reset else threads.parse_cpus(cpulist)
    threads.refuse_missing(cpus, cpulist, count)
    text = "" if reset else format_cpu_list(cpus)

    def edit(present: spec.Domain) -> spec.Domain:
        _refuse_number(present, kind, number, "persistent")
        return replace(present, cputune=_with(present.cputune, kind, number, text))

    together(domain, scope, lambda run, undo: _pin_live(run, kind, number, cpus, text, undo), edit)


def _refuse_number(definition: spec.Domain, kind: str, number: int, which: str) -> None:
    if kind == VCPU and number >= definition.vcpus.maximum:
        raise InvalidValue(
            f"invalid argument: vcpu {number} is out of range of {which} cpu count {definition.vcpus.maximum}"
        )
    if kind == IOTHREAD and number not in _numbers(definition, kind):
        raise InvalidValue(f"invalid argument: iothread {number} not found", hint="qkvm iothreadinfo lists them")


def _pin_live(run: Run, kind: str, number: int, cpus: set[int], text: str, undo: Undo) -> None:
    tids = _tids(run, kind)
    if number not in tids:
        if kind == VCPU:
            _refuse_number(definitions.started_with(run.record), kind, number, "live")
            raise InvalidState(f"vcpu {number} is not plugged", hint="--config pins it for later")
        raise InvalidValue(f"invalid argument: iothread {number} not found", hint="qkvm iothreadinfo lists them")
    for tid in tids[number]:
        former = threads.affinity(run.pid, tid)
        if set_affinity(tid, cpus) and former:
            undo.add(set_affinity, tid, former)
    tuned.remember(run, "cputune", _with(cpu.live(run), kind, number, text), undo)


def _with(tune: spec.CpuTune, kind: str, number: int, text: str) -> spec.CpuTune:
    if kind == EMULATOR:
        return replace(tune, emulator_pin=text)
    name = "vcpu_pins" if kind == VCPU else "iothread_pins"
    table = {**getattr(tune, name), str(number): text}
    return replace(tune, **{name: {key: cpus for key, cpus in table.items() if cpus}})


def apply(run: Run, definition: spec.Domain) -> None:
    """Pin the threads of a QEMU that is just up as its definition says."""
    tune = definition.cputune
    if not (tune.vcpu_pins or tune.iothread_pins or tune.emulator_pin or definition.vcpus.cpuset):
        return
    found = threads.of_process(run.pid)
    for number in found.vcpus:
        apply_one(run, definition, VCPU, number, found.vcpus[number])
    for number in found.iothreads:
        apply_one(run, definition, IOTHREAD, number, found.iothreads[number])
    own = _wanted(tune, definition, EMULATOR, 0)
    for tid in found.emulator if own else ():
        # QEMU was started with these; before Linux 6.2 it lost them when it moved into another cpuset.
        set_affinity(tid, own)


def apply_one(run: Run, definition: spec.Domain, kind: str, number: int, tid: int) -> None:
    """Pin a new thread, which has inherited the emulator's affinity."""
    tune = cpu.live(run)
    cpus = _wanted(tune, definition, kind, number)
    if not cpus and tune.emulator_pin:
        cpus = threads.host_cpu_set(cputime.host_cpus())
    if cpus:
        set_affinity(tid, cpus)
