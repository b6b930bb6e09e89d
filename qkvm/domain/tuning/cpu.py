"""CPU shares and quotas of a domain, of its vCPUs, its iothreads and its emulator (virsh schedinfo).

Shares and the global quota are set on the domain's control group. A quota of vCPUs, iothreads or the emulator
needs groups of threads, which are only made when the first such quota is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.tuning import threads, tuned
from qkvm.domain.tuning.group import any_group_of, group_of
from qkvm.errors import InvalidValue
from qkvm.files import Undo
from qkvm.host import limits
from qkvm.scope import Scope
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.host.cgroup import Group

EMULATOR = "emulator"
"""Name of the group of all threads that are neither vCPUs nor iothreads."""

_ROUNDS = 10
"""How often new threads are looked for; usually the second look finds none."""

UNLIMITED = 18446744073709551
"""libvirt's value for no quota under cgroup v2 (ULLONG_MAX / 1000)."""

PARAMETERS = (
    "cpu_shares", "vcpu_period", "vcpu_quota", "emulator_period", "emulator_quota",
    "global_period", "global_quota", "iothread_period", "iothread_quota",
)  # fmt: skip
"""virsh's names, in its order."""


def _field(parameter: str) -> str:
    """Return the definition's name of a parameter: vcpu_period is [cputune] period."""
    return parameter.removeprefix("cpu_").removeprefix("vcpu_")


def live(run: Run) -> spec.CpuTune:
    """Return the present tuning of a running guest."""
    return tuned.live(run, "cputune", spec.CpuTune) or spec.CpuTune()


def parameters(domain: Handle, *, scope: Scope = Scope.CURRENT) -> dict[str, int]:
    """Return virsh schedinfo's parameters: of the running guest by the kernel, or of the definition.

    :raises InvalidState: the host has no cpu controller for it.
    """
    wanted = domain.resolve(scope)
    if not wanted.live:
        tune = domain.definition.cputune
        return {name: getattr(tune, _field(name)) for name in PARAMETERS}
    group = group_of(domain.live, "cpu")
    found = {"cpu_shares": limits.cpu_shares(group)}
    for kind, part in _groups(group).items():
        period, quota = limits.cpu_max(part) if part is not None else (limits.PERIOD_DEFAULT, -1)
        found[f"{kind}_period"], found[f"{kind}_quota"] = period, quota if quota >= 0 else UNLIMITED
    return {name: found[name] for name in PARAMETERS}


def _groups(group: Group) -> dict[str, Group | None]:
    """Return one group of each kind, since all of a kind have the same quota; None where there is none yet."""
    names = group.thread_groups()
    found: dict[str, Group | None] = {"global": group}
    for kind in ("vcpu", "iothread", EMULATOR):
        fitting = [name for name in names if name.startswith(kind)]
        found[kind] = group.child(fitting[0]) if fitting else None
    return found


def set_parameters(domain: Handle, changes: dict[str, int], *, scope: Scope = Scope.CURRENT) -> None:
    """Change parameters by virsh's names in the running guest, the definition, or both.

    A quota of 0 or less means none, a period of 0 the kernel's default.

    :raises InvalidValue: an unknown name or a value out of range. :raises InvalidState: no cpu controller here.
    """
    fields = {_field(name): _value(name, value) for name, value in changes.items()}
    together(
        domain,
        scope,
        lambda run, undo: _set_live(run, fields, undo),
        lambda present: replace(present, cputune=replace(present.cputune, **fields)),
    )


def _value(name: str, value: int) -> int:
    if name not in PARAMETERS:
        raise InvalidValue(f"invalid scheduler option: {name}", hint=", ".join(PARAMETERS))
    if name.endswith("_quota") and (value < 0 or value >= UNLIMITED):
        return -1
    lowest, highest = _RANGES[name.rpartition("_")[2]]
    if value and not lowest <= value <= highest:
        raise InvalidValue(f"invalid argument: value of '{name}' is out of range [{lowest}, {highest}]")
    return value


_RANGES = {"shares": (1, 10000), "period": (1000, 1000000), "quota": (1000, UNLIMITED)}
"""The ranges that the kernel accepts (cpu.weight, cpu.max); 0 means not set."""


def _set_live(run: Run, fields: dict[str, int], undo: Undo) -> None:
    group = group_of(run, "cpu")
    tune = replace(live(run), **fields)
    if "shares" in fields:
        undo.add(limits.set_cpu_shares, group, limits.cpu_shares(group))
        limits.set_cpu_shares(group, tune.shares)
    if "global_period" in fields or "global_quota" in fields:
        undo.add(limits.set_cpu_max, group, *limits.cpu_max(group))
        limits.set_cpu_max(group, tune.global_period, tune.global_quota)
    if any(name.removeprefix("emulator_").removeprefix("iothread_") in ("period", "quota") for name in fields):
        undo.add(limit_threads, run, group, live(run))
        limit_threads(run, group, tune)
    tuned.remember(run, "cputune", tune, undo)


def limits_threads(tune: spec.CpuTune) -> bool:
    """Return whether vCPUs, iothreads or the emulator have a quota of their own."""
    return any(pair.period or pair.quota > 0 for pair in _pairs(tune).values())


class _Pair(NamedTuple):
    period: int
    quota: int


def _pairs(tune: spec.CpuTune) -> dict[str, _Pair]:
    return {
        "vcpu": _Pair(tune.period, tune.quota),
        "iothread": _Pair(tune.iothread_period, tune.iothread_quota),
        EMULATOR: _Pair(tune.emulator_period, tune.emulator_quota),
    }


def limit_threads(run: Run, group: Group, tune: spec.CpuTune) -> None:
    """Put each vCPU, each iothread and the emulator into a group of its own with its quota.

    A new thread is in the group of the thread that made it, so threads are looked for until all are in a group.

    :raises InvalidState: the cpu controller is not available.
    """
    pairs, emulator = _pairs(tune), group.thread_group(EMULATOR)
    limits.set_cpu_max(emulator, *pairs[EMULATOR])
    for _ in range(_ROUNDS):
        found = threads.of_process(run.pid)
        for kind, tids in (("vcpu", found.vcpus), ("iothread", found.iothreads)):
            for number, tid in tids.items():
                _limit_one(group, f"{kind}{number}", tid, pairs[kind])
        for tid in set(found.emulator) - emulator.threads():
            emulator.add_thread(tid)
        if not group.threads():
            return


def _limit_one(group: Group, name: str, tid: int, pair: _Pair) -> None:
    part = group.thread_group(name)
    limits.set_cpu_max(part, *pair)
    if tid not in part.threads():
        part.add_thread(tid)


def limit_new(run: Run, kind: str, number: int, tid: int) -> None:
    """Put a new vCPU or iothread into a group of its own, if the others have such groups."""
    group = any_group_of(run)
    if group is not None and group.child(EMULATOR).exists():
        _limit_one(group, f"{kind}{number}", tid, _pairs(live(run))[kind])
