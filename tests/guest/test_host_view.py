"""What qkvm reads of a machine, read of a machine that is known in full: a guest's /proc, /sys and SMBIOS."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from qkvm.api.domain import Domain
from qkvm.host.node import cpu, node, numa, smbios
from tests.guest.conftest import Lab
from tests.guest.guest import Guest

Register = Callable[[Domain], Domain]

FILES = (
    "/proc/cpuinfo /proc/meminfo /proc/stat /sys/devices/system/cpu/present /sys/devices/system/cpu/online "
    "/sys/devices/system/cpu/cpu*/topology/* /sys/devices/system/cpu/cpu*/cache/index3/* "
    "/sys/devices/system/node/online /sys/devices/system/node/node*/meminfo "
    "/sys/devices/system/node/node*/cpulist /sys/devices/system/node/node*/distance"
)


def copy(guest: Guest, root: Path) -> str:
    """Copy the guest's files to a folder."""
    text = guest.ask(f'for file in {FILES}; do echo "=== $file"; cat $file 2>/dev/null; done; true')
    for part in text.split("=== ")[1:]:
        name, _, content = part.partition("\n")
        if "*" not in name:
            path = root / name.strip().lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for name in ("DMI", "smbios_entry_point"):
        raw = base64.b64decode(guest.ask(f"base64 /sys/firmware/dmi/tables/{name}"))
        path = root / "sys/firmware/dmi/tables" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return str(root)


def test_a_machine_that_is_known(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    domain = lab.boot(
        domain_of(
            lab.define(
                "known",
                vcpus="{ current = 2, maximum = 4 }",
                memory='{ current = "512MiB", maximum = "512MiB" }',
                smbios='{ manufacturer = "ACME", serial = "S-1" }',
            )
        )
    )
    with Guest(domain) as guest:
        root = copy(guest, tmp_path / "two")
        info = node.info(root)
        assert (info.cpus, info.cells, info.sockets, info.cores, info.threads) == (2, 1, 2, 1, 1)
        total = int(guest.ask("grep MemTotal /proc/meminfo").split()[1])
        assert numa.memory(root)["total"] == numa.cell(0, root).total == total == info.memory
        assert 400 * 1024 < total < 512 * 1024
        assert [entry.socket for entry in cpu.topology(root)] == [0, 1]
        assert cpu.times(root=root).idle > 0 and cpu.times(1, root).idle > 0
        assert "hypervisor" in cpu.model(root).flags

        parts = [(part.kind, dict(part.entries)) for part in smbios.parts(root)]
        system = next(entries for kind, entries in parts if kind == "system")
        assert (system["manufacturer"], system["serial"]) == ("ACME", "S-1")
        assert system["uuid"] == smbios.uuid(root) == domain.uuid
        assert "vendor" in next(entries for kind, entries in parts if kind == "bios")
        memory = [entries for kind, entries in parts if kind == "memory_device"]
        assert [entries["size"] for entries in memory] == ["512 MB"] and memory[0]["form_factor"] == "DIMM"
        assert len([kind for kind, _ in parts if kind == "processor"]) == 4

        guest.ask("echo 0 > /sys/devices/system/cpu/cpu1/online")
        root = copy(guest, tmp_path / "one")
        assert cpu.present(root) == [0, 1] and cpu.online(root) == [0]
        assert node.info(root).cpus == 1
