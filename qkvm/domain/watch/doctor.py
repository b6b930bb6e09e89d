"""Look for what keeps a domain's guest from working (qkvm doctor), each finding with its remedy.

A guest shows life if its agent answers, an address of this run does, its console has written lately, or it has
read much from its disks. Only of a guest that shows none it is a finding that something was never seen.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.device.disk import throttle
from qkvm.domain.device.nic import status as nics
from qkvm.domain.guest import agent as agents
from qkvm.domain.tuning import vcpu
from qkvm.domain.watch import address, wait
from qkvm.errors import InvalidState, MonitorError, QkvmError
from qkvm.qmp import commands
from qkvm.spec import domain as spec
from qkvm.storage.image import partitions
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

QUIET = 30.0
"""Seconds without a sign of life after which a guest is looked into; firmware and a kernel take less."""

_MANY_READS = 500
"""Requests that only a booting system makes: firmware that looks for something to boot makes fewer."""

_SPACE = 64 << 20
"""Bytes: with less free, the next writes of a guest may fail."""


class Finding(NamedTuple):
    """Something that is wrong or missing: its kind, for programs; words for it; and what helps."""

    kind: str
    words: str
    hint: str


def examine(domain: Handle) -> list[Finding]:
    """Return what is wrong with a domain, causes first; an empty list where nothing is.

    :raises NotFound: there is no such domain. :raises DefinitionError: its definition is damaged.
    """
    run = domain.live_run
    if run is None:
        return [*_ending(domain), *_files(domain.definition), *_firmware(domain.definition)]
    from qkvm.domain import definition as definitions

    started = definitions.started_with(run.record)
    found = [*_state(domain, run), *_space(started), *_links(domain)]
    if any(one.kind in ("no-answer", "paused") for one in found):
        return found
    since = float(run.record["started"])
    is_old = time.time() - since >= QUIET
    if agents.is_there(domain) or address.addresses(domain, since=since):
        return [*found, *(_vcpus(domain, run) if is_old else ())]
    return [*found, *_firmware(started), *(_lifeless(domain, run) if is_old else ())]


def _ending(domain: Handle) -> Iterator[Finding]:
    state, reason = domain.state
    if reason in ("crashed", "failed"):
        words = f"the last run ended badly: {state} ({reason})"
        yield Finding("crashed", words, f"QEMU's words are in {domain.tree.qemu_log(domain.name)}")


def _files(definition: spec.Domain) -> Iterator[Finding]:
    for disk in definition.disks:
        for path in [disk.path, *(layer.path for layer in disk.backing)]:
            if path and not os.path.exists(path):
                yield Finding("disk-missing", f"{printable(path)} of disk {disk.target} is not there",
                              "bring it back, or qkvm detach-disk … --config")  # fmt: skip


def _state(domain: Handle, run: Run) -> Iterator[Finding]:
    try:
        failed = throttle.errors(domain)
    except MonitorError as error:
        yield Finding("no-answer", f"QEMU does not answer: {error}", f"qkvm destroy {domain.name} ends it")
        return
    state, reason = run.state()
    for target, words in failed.items():
        hint = (
            "make room" if words == "no space" else f"see the storage of the disk, then qkvm resume {domain.name}"
        )
        yield Finding("io-error", f"disk {target} has had an I/O error: {words}", hint)
    if state != "running" and not failed:
        verb = "dompmwakeup" if state == "pmsuspended" else "reset" if reason == "crashed" else "resume"
        yield Finding("paused", f"the guest does not run: {state} ({reason})", f"qkvm {verb} {domain.name}")


def _space(started: spec.Domain) -> Iterator[Finding]:
    folders = {os.path.dirname(disk.path): disk for disk in started.disks if disk.path and not disk.is_readonly}
    for folder, disk in folders.items():
        if folder.startswith("/dev") or not os.path.isdir(folder):
            continue
        free = os.statvfs(folder)
        if free.f_bavail * free.f_frsize < _SPACE:
            left = free.f_bavail * free.f_frsize >> 20
            words = f"{printable(folder)}, where disk {disk.target} lies, has {left} MiB left"
            yield Finding("storage-full", words, "make room there: a disk that grows fails")


def _firmware(started: spec.Domain) -> Iterator[Finding]:
    """Yield a first disk that the firmware can't boot."""
    disk = next((one for one in started.disks if one.path and one.device is spec.DiskKind.DISK), None)
    boot = started.boot
    if disk is None or boot.kernel or boot.loader or (boot.order and spec.BootDevice.DISK not in boot.order):
        return
    try:
        images = [(disk.path, disk.format), *((layer.path, layer.format) for layer in disk.backing)]
        found = partitions.look(images)
    except QkvmError:
        return
    uefi = boot.firmware is spec.Firmware.UEFI
    if not uefi and found.only_efi:
        words = (
            f"disk {disk.target} has an EFI system partition and nothing for a BIOS, and the firmware is a BIOS"
        )
        yield Finding("firmware", words, f'boot.firmware = "uefi" in qkvm edit {started.name}, then a new start')
    elif uefi and found.bios and not found.efi:
        words = f"disk {disk.target} has boot code for a BIOS and no EFI system partition; the firmware is UEFI"
        yield Finding("firmware", words, f'boot.firmware = "bios" in qkvm edit {started.name}, then a new start')


def _links(domain: Handle) -> Iterator[Finding]:
    for nic in nics.interfaces(domain):
        if not nic.link:
            hint = f"qkvm domif-setlink {domain.name} {nic.mac} up"
            yield Finding("link-down", f"the cable of NIC {nic.mac} is pulled", hint)


def _lifeless(domain: Handle, run: Run) -> Iterator[Finding]:
    """Yield what was never seen of a guest that has no agent and no address, if it shows no other sign of life."""
    reads, quiet = _reads(domain), console_silence(domain, run)
    if quiet < QUIET or sum(reads.values()) >= _MANY_READS:
        return
    last = next((line for line in reversed(wait.console_text(domain).splitlines()) if line.strip()), "")
    words = f"the serial console has been silent for {quiet:.0f} s"
    words += f"; its last line: '{printable(last.strip()[-80:])}'" if last else ", since the start"
    yield Finding(
        "console-silent", words, f"qkvm console {domain.name} or qkvm screenshot {domain.name} shows more"
    )
    idle, count = _idle(domain, run)
    if idle == count:
        words = f"all {count} vCPUs are halted, or run no system: none of them is in use"
        yield Finding("vcpus-idle", words, "it has found nothing to boot, or its system has crashed")
    for target, number in reads.items():
        if not number:
            yield Finding(
                "disk-unread", f"disk {target} was never read", "qkvm domblklist and boot.order tell why"
            )
    for nic in nics.interfaces(domain):
        if nic.interface == "-" or nic.type == "direct":
            continue
        sent = nics.counters(domain, nic.interface)["tx_packets"]
        words = f"NIC {nic.mac} has sent {sent} packets, and no lease and no neighbour tells an address"
        yield Finding(
            "no-address", words, f"its driver may be missing; else qkvm net-check, for network {nic.source}"
        )
    words = "no agent has opened its port"
    yield Finding("no-agent", words, "qemu-guest-agent must be installed and running in the guest")


def _reads(domain: Handle) -> dict[str, int]:
    """Return how many requests to read each disk has had."""
    with domain.lock(), domain.monitor() as session:
        stats = {commands.device_id(one): one["stats"] for one in session.execute("query-blockstats")}
    entries = [one for one in domain.live.devices("disks") if one.get("path")]
    return {one["target"]: int(stats.get(one["id"], {}).get("rd_operations", 0)) for one in entries}


def console_silence(domain: Handle, run: Run) -> float:
    """Return for how many seconds the guest has not written to its serial console, at most since the start."""
    since = float(run.record["started"])
    try:
        info = os.stat(domain.tree.serial_log(domain.name))
        if info.st_size > int(run.record.get("serial_from", 0)):
            since = max(since, info.st_mtime)
    except OSError:
        pass
    return max(0.0, time.time() - since)


def _idle(domain: Handle, run: Run) -> tuple[int, int]:
    """Return how many vCPUs no system uses, and how many there are."""
    with domain.lock(), domain.monitor() as session:
        return vcpu.idle(session), run.vcpu_count()


def _vcpus(domain: Handle, run: Run) -> Iterator[Finding]:
    idle, count = _idle(domain, run)
    if idle:
        words = f"guest uses {count - idle} of {count} vCPUs"
        yield Finding("vcpus-idle", words, f"qkvm setvcpus {domain.name} {count} brings them online by the agent")


def of_running(domain: Handle) -> list[Finding]:
    """Return the findings of a guest that may end meanwhile; then there are none."""
    try:
        return examine(domain) if domain.is_running else []
    except (InvalidState, MonitorError):
        return []
