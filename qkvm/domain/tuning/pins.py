"""The CPUs of the host that vCPUs, iothreads and the emulator's other threads may run on."""

from __future__ import annotations

from qkvm.domain.tuning import cputime, threads, vcpucount
from qkvm.scope import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Plain, Run

VCPU, IOTHREAD, EMULATOR = "vcpu", "iothread", "emulator"


def pins(domain: Handle, kind: str, *, scope: Scope = Scope.CURRENT) -> dict[int, set[int]]:
    """Return the CPUs of each vCPU up to the maximum, each iothread, or (as number 0) the emulator.

    :param scope: LIVE: by the kernel, or CONFIG: of the definition.
    :raises InvalidState: LIVE and it does not run, or CONFIG and there is no definition.
    """
    asked = domain.resolve(scope)
    everywhere = threads.host_cpu_set(cputime.host_cpus())
    if not asked.live:
        stored = domain.stored
        tune = stored.get("cputune", {})
        return {number: wanted(tune, stored, kind, number) or everywhere for number in numbers(stored, kind)}
    run = domain.live
    started = run.record["definition"]
    tune, found = tuning(run), thread_ids(run, kind)
    result = {}
    for number in sorted(found) if kind == IOTHREAD else numbers(started, kind):
        present = threads.affinity(run.pid, found[number][0]) if number in found else set()
        result[number] = present or wanted(tune, started, kind, number) or everywhere
    return result


def tuning(run: Run) -> Plain:
    """Return the present [cputune] of a running guest, where its live pins are too."""
    return run.record.get("cputune", run.record["definition"].get("cputune", {}))


def numbers(definition: Plain, kind: str) -> list[int]:
    """Return the numbers of a definition's threads of a kind."""
    if kind == EMULATOR:
        return [0]
    if kind == VCPU:
        return list(range(vcpucount.maximum(definition)))
    return sorted(thread["id"] for thread in definition.get("iothreads", ()))


def thread_ids(run: Run, kind: str) -> dict[int, list[int]]:
    """Return thread ids of a kind by number; the emulator's are all number 0, its main thread first."""
    found = threads.of_process(run.pid)
    if kind == EMULATOR:
        return {0: sorted(found.emulator)}
    named = found.vcpus if kind == VCPU else found.iothreads
    return {number: [tid] for number, tid in named.items()}


def wanted(tune: Plain, definition: Plain, kind: str, number: int) -> set[int]:
    """Return the CPUs that a thread is pinned to, empty for none."""
    own = tune.get("emulator_pin", "") if kind == EMULATOR else tune.get(f"{kind}_pins", {}).get(str(number), "")
    text = own or definition.get("vcpus", {}).get("cpuset", "")
    return threads.parse_cpus(text) if text else set()
