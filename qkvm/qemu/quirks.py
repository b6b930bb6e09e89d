"""Workarounds for some QEMUs. This is the only module that tells one QEMU from another.

Each workaround has a name that code and templates ask for, a reason, and a condition on the program's abilities;
a version is asked only if no ability shows the difference. A test with a real QEMU fails when condition and
behaviour differ, so it shows when a workaround is no longer needed. The record of a run names the workarounds of
its QEMU, since the program may have been replaced meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from qkvm.qemu.abilities import Abilities


class Quirk(StrEnum):
    """The names of the workarounds."""

    RUNAS = "runas"
    INACTIVE_IMAGES = "inactive-images"
    VCPU_BUFFERS = "vcpu-buffers"
    VCPU_CONTEXTS = "vcpu-contexts"
    DIRTY_RATE = "dirty-rate"
    NBD_IOTHREAD = "nbd-iothread"


class Workaround(NamedTuple):
    """The reason for a workaround, the condition on a QEMU, and the test that shows the behaviour."""

    reason: str
    needed: Callable[[Abilities], bool]
    proof: str


WORKAROUNDS: dict[Quirk, Workaround] = {
    Quirk.RUNAS: Workaround(
        "QEMU leaves root by -runas before 9.1, and by -run-with user= from then on; 10.0 has no -runas",
        lambda qemu: not qemu.takes("run-with", "user"),
        "tests/host/test_quirks.py::test_leaving_root",
    ),
    Quirk.INACTIVE_IMAGES: Workaround(
        "QEMU 10 leaves the images of a guest that was restored and stays paused inactive, and writes to none",
        lambda qemu: "blockdev-set-active" in qemu.commands,
        "tests/host/test_quirks.py::test_images_of_a_restored_guest",
    ),
    Quirk.VCPU_BUFFERS: Workaround(
        "TCG frees the buffers of an unplugged vCPU, and writes to them when a plug or reset changes the memory",
        # Seen in 7.2.22, not in 10.0.13; no ability shows which versions between have it.
        lambda qemu: qemu.release < (10,),
        "tests/guest/test_quirks.py::test_after_the_unplug_of_a_vcpu",
    ),
    Quirk.VCPU_CONTEXTS: Workaround(
        "TCG has a context for each vCPU that there may be, and gets none back at an unplug: a plug more aborts",
        lambda qemu: True,
        "tests/guest/test_quirks.py::test_after_the_unplug_of_a_vcpu",
    ),
    Quirk.DIRTY_RATE: Workaround(
        "QEMU asks KVM for a dirty rate by bitmap under TCG as well, where there is no KVM, and dies of it",
        # Seen in 7.2.22, not in 10.0.13.
        lambda qemu: qemu.release < (10,),
        "tests/host/test_quirks.py::test_dirty_rate_by_bitmap",
    ),
    Quirk.NBD_IOTHREAD: Workaround(
        "QEMU aborts when an NBD client of a disk that is served by an iothread goes",
        # Seen in 7.2.22, not in 10.0.13.
        lambda qemu: qemu.release < (10,),
        "tests/guest/test_quirks.py::test_nbd_of_an_iothread",
    ),
}


def needed(qemu: Abilities) -> frozenset[Quirk]:
    """Return the workarounds that a QEMU needs."""
    return frozenset(quirk for quirk, workaround in WORKAROUNDS.items() if workaround.needed(qemu))
