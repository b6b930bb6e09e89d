"""Pin vCPUs, iothreads and the emulator's other threads to CPUs of the host.

A live pin is the affinity of a thread (sched_setaffinity(2)); QEMU can't undo it, since its sandbox denies that
call. Live pins are also in the record, for vCPUs that are plugged later. In the definition pins are in [cputune].
"""

from __future__ import annotations

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.tuning import cpu, cputime, threads, tuned, vcpucount
from qkvm.domain.tuning.pins import EMULATOR, IOTHREAD, VCPU, numbers, thread_ids, tuning, wanted
from qkvm.errors import InvalidState, InvalidValue
from qkvm.files import Undo
from qkvm.host.node.placement import set_affinity
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.units import format_cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Plain, Run


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
        _refuse_number(toml.to_plain(present), kind, number, "persistent")
        return replace(present, cputune=_with(present.cputune, kind, number, text))

    together(domain, scope, lambda run, undo: _pin_live(run, kind, number, cpus, text, undo), edit)


def _refuse_number(definition: Plain, kind: str, number: int, which: str) -> None:
    maximum = vcpucount.maximum(definition)
    if kind == VCPU and number >= maximum:
        raise InvalidValue(f"invalid argument: vcpu {number} is out of range of {which} cpu count {maximum}")
    if kind == IOTHREAD and number not in numbers(definition, kind):
        raise InvalidValue(f"invalid argument: iothread {number} not found", hint="qkvm iothreadinfo lists them")


def _pin_live(run: Run, kind: str, number: int, cpus: set[int], text: str, undo: Undo) -> None:
    tids = thread_ids(run, kind)
    if number not in tids:
        if kind == VCPU:
            _refuse_number(run.record["definition"], kind, number, "live")
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


def apply(run: Run) -> None:
    """Pin the threads of a QEMU that is just up as its definition says."""
    definition = run.record["definition"]
    if not ("cputune" in definition or "cpuset" in definition.get("vcpus", {})):
        return
    found = threads.of_process(run.pid)
    for number in found.vcpus:
        apply_one(run, VCPU, number, found.vcpus[number])
    for number in found.iothreads:
        apply_one(run, IOTHREAD, number, found.iothreads[number])
    own = wanted(tuning(run), definition, EMULATOR, 0)
    for tid in found.emulator if own else ():
        # QEMU was started with these; before Linux 6.2 it lost them when it moved into another cpuset.
        set_affinity(tid, own)


def apply_one(run: Run, kind: str, number: int, tid: int) -> None:
    """Pin a new thread, which has inherited the emulator's affinity."""
    tune = tuning(run)
    cpus = wanted(tune, run.record["definition"], kind, number)
    if not cpus and tune.get("emulator_pin"):
        cpus = threads.host_cpu_set(cputime.host_cpus())
    if cpus:
        set_affinity(tid, cpus)
