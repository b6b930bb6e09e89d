"""Machines that this one is not: a folder with the /proc and /sys that they would have, or a root without QEMU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qkvm import Host

CPUS = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Example(R) CPU @ 2.10GHz
stepping\t: 7
microcode\t: 0x5003604
cpu MHz\t\t: 2100.456
flags\t\t: fpu vme sse2 vmx ibrs ibpb stibp ssbd nonstop_tsc avx512_vnni sse4_1 tsc_deadline_timer
vmx flags\t: vnmi preemption_timer
address sizes\t: 46 bits physical, 48 bits virtual

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: another
"""


def build(root: Path, files: Mapping[str, object]) -> str:
    """Write the files under a root and give it as the functions of qkvm.host want it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(f"{content}\n")
    return str(root)


def cpu(number: int, socket: int, core: int, siblings: str, *, die: int = 0, cache: str = "") -> dict[str, object]:
    """One online CPU; ``cache`` is the list of CPUs that share its third level, of 36608 KiB."""
    place = f"{CPUS}/cpu{number}/topology"
    files: dict[str, object] = {
        f"{place}/physical_package_id": socket,
        f"{place}/die_id": die,
        f"{place}/core_id": core,
        f"{place}/core_cpus_list": siblings,
    }
    if cache:
        folder = f"{CPUS}/cpu{number}/cache/index3"
        files |= {
            f"{folder}/id": socket,
            f"{folder}/level": 3,
            f"{folder}/type": "Unified",
            f"{folder}/size": "36608K",
            f"{folder}/shared_cpu_list": cache,
        }
    return files


def node(
    number: int, cpus: str, *, total: int = 1048576, free: int = 524288, distance: str = ""
) -> dict[str, object]:
    """One NUMA cell."""
    folder = f"{NODES}/node{number}"
    return {
        f"{folder}/cpulist": cpus,
        f"{folder}/distance": distance,
        f"{folder}/meminfo": f"Node {number} MemTotal:  {total} kB\nNode {number} MemFree:  {free} kB",
    }


def pool(folder: str, size: int, total: int, free: int) -> dict[str, object]:
    """A pool of huge pages of ``size`` KiB in a folder."""
    place = f"{folder}/hugepages-{size}kB"
    return {f"{place}/nr_hugepages": total, f"{place}/free_hugepages": free}


def two_sockets() -> dict[str, object]:
    """Two sockets of two cores with two threads each, a cell each; CPUs are numbered as the firmware likes."""
    files: dict[str, object] = {
        f"{CPUS}/present": "0-7",
        f"{CPUS}/online": "0-7",
        f"{NODES}/online": "0-1",
        "proc/cpuinfo": CPUINFO,
    }
    for number in range(8):
        socket, core = number % 2, number // 2 % 2
        files |= cpu(number, socket, core, f"{number % 4},{number % 4 + 4}", cache=f"{socket},{socket + 2}")
    files |= node(0, "0,2,4,6", distance="10 21") | node(1, "1,3,5,7", total=2097152, distance="21 10")
    return files


def without_qemu(root: Path) -> Host:
    """A host whose QEMU is not installed: a definition stays without a version of its machine there."""
    build(root, {"etc/qkvm/qkvm.toml": f'qemu = "{root}/no-qemu"'})
    for folder in ("", "etc", "etc/qkvm"):
        (root / folder).chmod(0o700)
    return Host(str(root))
