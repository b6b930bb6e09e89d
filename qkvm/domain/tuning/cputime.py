"""CPU time of a domain and of its vCPUs, from /proc."""

from __future__ import annotations

import os

from qkvm.host.process import stat_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

_UTIME, _STIME, _PROCESSOR = 11, 12, 36  # Of proc(5)'s stat fields, counted from the state.


class VcpuStatus:
    """A plugged vCPU: number, host CPU it last ran on, state, CPU time in ns, host CPUs it may run on."""

    __slots__ = ("affinity", "cpu", "number", "state", "time_ns")

    def __init__(self, number: int, cpu: int, state: str, time_ns: int, affinity: set[int]) -> None:
        self.number = number
        self.cpu = cpu
        self.state = state
        self.time_ns = time_ns
        self.affinity = affinity


def host_cpus() -> int:
    """Return the number of CPUs that this host has configured."""
    return os.sysconf("SC_NPROCESSORS_CONF")


def process_time_ns(pid: int) -> int:
    """Return the CPU time of a process in nanoseconds; 0 if it has ended."""
    fields = stat_fields(f"/proc/{pid}/stat")
    return _time_ns(fields) if fields is not None else 0


def user_and_system_ns(pid: int | None) -> tuple[int, int]:
    """Return the CPU times of a process in user mode and in the kernel in nanoseconds; zeros if it has ended."""
    fields = stat_fields(f"/proc/{pid}/stat")
    if fields is None:
        return 0, 0
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return int(fields[_UTIME]) * tick, int(fields[_STIME]) * tick


def thread_time_ns(pid: int | None, tid: int) -> int:
    """Return the CPU time of a thread in nanoseconds; 0 if it has ended."""
    fields = stat_fields(f"/proc/{pid}/task/{tid}/stat")
    return _time_ns(fields) if fields is not None else 0


def scheduler_times_ns(pid: int | None, tid: int) -> tuple[int, int]:
    """Return how long a thread has waited for a CPU in nanoseconds, by two counters of the scheduler.

    libvirt calls them wait (wait_sum of /proc/PID/sched, counted if sysctl kernel.sched_schedstats is on) and
    delay (run_delay, the second number of schedstat).
    """
    wait = delay = 0
    try:
        with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as stream:
            delay = int(stream.read().split()[1])
        with open(f"/proc/{pid}/task/{tid}/sched", encoding="ascii", errors="replace") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name.strip() in ("se.statistics.wait_sum", "wait_sum"):
                    wait = int(float(value) * 1_000_000)
    except (OSError, ValueError, IndexError):
        # The kernel does not have them, or the thread has ended.
        pass
    return wait, delay


def vcpus(domain: Handle) -> list[VcpuStatus]:
    """Return the plugged vCPUs of a running domain.

    :raises InvalidState: it is not running.
    """
    from qkvm.domain.tuning import threads

    run = domain.live
    state = "running" if run.state()[0] == "running" else "offline"
    found = []
    for number, tid in sorted(threads.of_process(run.pid).vcpus.items()):
        fields = stat_fields(f"/proc/{run.pid}/task/{tid}/stat")
        if fields is not None:
            allowed = threads.affinity(run.pid, tid)
            found.append(VcpuStatus(number, int(fields[_PROCESSOR]), state, _time_ns(fields), allowed))
    return found


def _time_ns(fields: list[str]) -> int:
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def group_times(domain: Handle) -> dict[str, int]:
    """Return a running domain's cpu_time, user_time and system_time in nanoseconds (its group's cpu.stat).

    :raises InvalidState: it is not running, or has no control group.
    """
    from qkvm.domain.tuning.group import any_group_of
    from qkvm.errors import InvalidState
    from qkvm.host.limits import cpu_times

    run = domain.live
    group = any_group_of(run)
    if group is None:
        reason = str(run.record.get("no_cgroup", "")) or "it was started without one"
        raise InvalidState(f"domain '{domain.name}' has no control group", hint=reason)
    return cpu_times(group)
