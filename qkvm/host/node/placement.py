"""Start a program on certain CPUs, with memory of certain nodes, from its birth on.

A new process inherits the CPU affinity and memory policy of the thread that starts it (sched_setaffinity(2),
set_mempolicy(2)). So this thread takes them for the start. That needs no cgroup, and the program never has memory
or threads elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from qkvm.errors import HostError, InvalidState
from qkvm.files import os_error

_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
"""Numbers of the system call; libc has no wrapper (libnuma has one)."""

_POLICIES = {"preferred": 1, "strict": 2, "interleave": 3}
"""libvirt's modes as MPOL_PREFERRED, MPOL_BIND and MPOL_INTERLEAVE of linux/mempolicy.h."""

_MASK_BITS = 1024


@contextmanager
def placed(cpus: set[int], nodes: set[int], mode: str = "strict") -> Iterator[None]:
    """In this block, start programs on these CPUs, with memory of these NUMA nodes.

    :param cpus: empty: where this process may run. :param nodes: empty: the kernel's choice.
    :param mode: strict, preferred or interleave. :raises InvalidState: this host has none of the CPUs or nodes.
    """
    before = os.sched_getaffinity(0)
    try:
        if cpus:
            set_affinity(0, cpus)
        if nodes:
            _set_policy(_POLICIES[mode], nodes)
        yield
    finally:
        if nodes:
            _set_policy(0, set())
        if cpus:
            os.sched_setaffinity(0, before)


def set_affinity(tid: int, cpus: set[int]) -> bool:
    """Let a thread run only on these CPUs; False where it has ended. :raises InvalidState: none is online."""
    try:
        os.sched_setaffinity(tid, cpus)
    except ProcessLookupError:
        return False
    except OSError as error:
        from qkvm.host.node import cpu

        if not cpus & set(cpu.online()):
            listed = ",".join(map(str, sorted(cpus)))
            raise InvalidState(f"none of the CPUs {listed} is online on this host") from error
        raise os_error(error, "cannot set CPU affinity") from error
    return True


def _set_policy(policy: int, nodes: set[int]) -> None:
    from qkvm.host.node import numa

    missing = nodes - set(numa.numbers())
    if missing:
        listed = ",".join(map(str, sorted(missing)))
        raise InvalidState(f"NUMA node {listed} is not online on this host")
    import ctypes

    number = _SET_MEMPOLICY.get(os.uname().machine)
    if number is None:
        raise HostError(f"qkvm does not know how to set a memory policy on {os.uname().machine}")
    words = (ctypes.c_ulong * (_MASK_BITS // 64))()
    for node in nodes:
        words[node // 64] |= 1 << node % 64
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, policy, words if nodes else None, _MASK_BITS if nodes else 0):
        code = ctypes.get_errno()
        raise os_error(OSError(code, os.strerror(code)), "cannot set the memory policy")
