"""CPUs, cells, memory and pages of machines of many shapes."""

from __future__ import annotations

from pathlib import Path

import machines
import pytest
from machines import CPUS, NODES, build

from qkvm.errors import HostError, InvalidValue, NotReached
from qkvm.host.node import cpu, ksm, node, numa, sysfs


def test_two_sockets(tmp_path: Path) -> None:
    root = build(tmp_path, machines.two_sockets())
    info = node.info(root)
    assert (info.cpus, info.cells, info.sockets, info.dies, info.cores, info.threads) == (8, 2, 1, 1, 2, 2)
    assert (info.memory, info.mhz) == (3145728, 2100)
    assert cpu.topology(root)[5] == cpu.Cpu(5, 1, 0, 0, (1, 5))
    assert cpu.caches(root) == [
        cpu.Cache(0, 3, "both", 36608, (0, 2)),
        cpu.Cache(1, 3, "both", 36608, (1, 3)),
    ]
    assert numa.cell(1, root) == numa.Cell(1, 2097152, 524288, (1, 3, 5, 7), ((0, 21), (1, 10)))


def test_offline_cpus(tmp_path: Path) -> None:
    """They count in the shape; where the rest doesn't show it any more, the shape is flat."""
    root = build(tmp_path, {**machines.two_sockets(), f"{CPUS}/online": "0-6"})
    info = node.info(root)
    assert (info.cpus, info.cells, info.sockets, info.cores, info.threads) == (7, 2, 1, 2, 2)
    assert 7 not in numa.cell(1, root).cpus
    build(
        tmp_path,
        {f"{CPUS}/online": "0-3", **{f"{CPUS}/cpu{one}/topology/core_cpus_list": one for one in range(4)}},
    )
    info = node.info(root)
    assert (info.cpus, info.cells, info.sockets, info.cores, info.threads) == (4, 1, 1, 8, 1)


def test_cores_of_two_kinds(tmp_path: Path) -> None:
    """One core with two threads and two without."""
    files: dict[str, object] = {
        f"{CPUS}/present": "0-3",
        f"{CPUS}/online": "0-3",
        "proc/cpuinfo": machines.CPUINFO,
    }
    files |= machines.cpu(0, 0, 0, "0-1") | machines.cpu(1, 0, 0, "0-1")
    files |= machines.cpu(2, 0, 4, "2") | machines.cpu(3, 0, 5, "3")
    files["proc/meminfo"] = "MemTotal: 4096 kB\nMemFree: 1024 kB\nBuffers: 3 kB\nCached: 4 kB"
    root = build(tmp_path, files)
    info = node.info(root)
    assert (info.cpus, info.cells, info.sockets, info.cores, info.threads) == (4, 1, 1, 4, 1)
    # The kernel was built without NUMA: all is one cell.
    assert numa.cells(root) == [numa.Cell(0, 4096, 1024, (0, 1, 2, 3), ())]


def test_dies(tmp_path: Path) -> None:
    files: dict[str, object] = {f"{CPUS}/present": "0-3", f"{CPUS}/online": "0-3", f"{NODES}/online": "0"}
    for number in range(4):
        files |= machines.cpu(number, 0, number % 2, str(number), die=number // 2)
    files |= machines.node(0, "0-3", distance="10")
    info = node.info(build(tmp_path, files))
    assert (info.sockets, info.dies, info.cores, info.threads) == (1, 2, 2, 1)


def test_cells_with_gaps_and_without_cpus(tmp_path: Path) -> None:
    """A cell of memory alone (CXL, persistent memory) has no CPU; numbers need not follow one another."""
    files: dict[str, object] = {f"{CPUS}/present": "0", f"{CPUS}/online": "0", f"{NODES}/online": "0,4"}
    files |= machines.cpu(0, 0, 0, "0") | machines.node(0, "0", distance="10 40") | machines.node(4, "", total=64)
    root = build(tmp_path, files)
    assert numa.numbers(root) == [0, 4]
    assert numa.cell(0, root).distances == ((0, 10), (4, 40))
    assert numa.cell(4, root).cpus == () and numa.cell(4, root).total == 64
    assert node.info(root).cells == 1
    with pytest.raises(InvalidValue, match="cell 1 is not on this host") as caught:
        numa.cell(1, root)
    assert "0, 4" in caught.value.hint


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert not cpu.present(root) and not cpu.topology(root) and not cpu.caches(root)
    assert cpu.model(root).flags == frozenset() and cpu.model(root).mhz == 0
    with pytest.raises(HostError, match="does not tell MemTotal"):
        numa.memory(root)
    with pytest.raises(HostError, match="/proc/stat does not tell"):
        cpu.times(root=root)


def test_a_container_without_the_lists(tmp_path: Path) -> None:
    """Some hide the list of CPUs and leave their folders, and core_cpus_list came with Linux 5.2."""
    files: dict[str, object] = {f"{CPUS}/cpufreq/boost": 1, f"{CPUS}/cpu0/topology/physical_package_id": -1}
    files[f"{CPUS}/cpu0/topology/thread_siblings_list"] = "0"
    root = build(tmp_path, files)
    assert cpu.online(root) == [0]
    assert cpu.topology(root) == [cpu.Cpu(0, 0, 0, 0, (0,))]


def test_cpuinfo() -> None:
    found = cpu.parse_cpuinfo(machines.CPUINFO)
    assert (found.vendor, found.family, found.model, found.stepping) == ("GenuineIntel", 6, 85, 7)
    assert (found.microcode, found.mhz, found.physical_bits) == (0x5003604, 2100, 46)
    assert found.name == "Example(R) CPU @ 2.10GHz" and "vmx" in found.flags and "vnmi" not in found.flags
    arm = cpu.parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n")
    assert arm.flags == {"fp", "asimd"} and arm.vendor == "" and arm.mhz == 0


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-3,8", [0, 1, 2, 3, 8]), ("", []), ("5", [5]), ("(null)", []), ("0-", [])],
)
def test_lists_of_cpus(tmp_path: Path, text: str, numbers: list[int]) -> None:
    path = tmp_path / "list"
    path.write_text(f"{text}\n")
    assert sysfs.cpus(str(path)) == (numbers if text != "0-" else [0])


STAT = """\
cpu  100 20 30 4000 50 6 7 8 9 10
cpu0 60 10 20 2000 30 3 4 4 5 5
cpu2 40 10 10 2000 20 3 3 4 4 5
intr 1234 5
"""


def test_times() -> None:
    tick = 10**9 // 100
    assert cpu.parse_stat(STAT, None) == cpu.Times(120 * tick, 43 * tick, 4000 * tick, 50 * tick)
    assert cpu.parse_stat(STAT, 2) == cpu.Times(50 * tick, 16 * tick, 2000 * tick, 20 * tick)
    with pytest.raises(InvalidValue, match="CPU 1 is not online"):
        cpu.parse_stat(STAT, 1)
    # Kernels of old had four columns.
    assert cpu.parse_stat("cpu 1 2 3 4\n", None) == cpu.Times(3 * tick, 3 * tick, 4 * tick, 0)


def test_shares_of_time() -> None:
    before, after = cpu.Times(100, 100, 1000, 50), cpu.Times(130, 110, 1060, 40)
    shares = after.since(before).percent()
    assert shares == {"usage": 40.0, "user": 30.0, "system": 10.0, "idle": 60.0, "iowait": 0.0}
    assert before.since(before).percent()["usage"] == 0.0


# Pages.


def paged(**pools: int) -> dict[str, object]:
    files: dict[str, object] = {f"{CPUS}/online": "0", f"{NODES}/online": "0", **machines.cpu(0, 0, 0, "0")}
    files |= machines.node(0, "0", total=1 << 20, free=1 << 18)
    for folder in (f"{NODES}/node0/hugepages", "sys/kernel/mm/hugepages"):
        files |= machines.pool(folder, 2048, 8, 3) | machines.pool(folder, 1048576, 0, 0)
    return files


def test_pools(tmp_path: Path) -> None:
    root = build(tmp_path, paged())
    ordinary = ((1 << 20) - 8 * 2048) // numa.BASE_PAGE
    assert numa.pools(0, root) == [
        numa.Pool(numa.BASE_PAGE, ordinary, (1 << 18) // numa.BASE_PAGE),
        numa.Pool(2048, 8, 3),
        numa.Pool(1048576, 0, 0),
    ]
    assert numa.page_sizes(root) == [numa.BASE_PAGE, 2048, 1048576]
    assert numa.pool(0, 2048, root).free == 3
    with pytest.raises(InvalidValue, match="page size 64 is not available on node 0"):
        numa.pool(0, 64, root)


def test_allocate(tmp_path: Path) -> None:
    root = build(tmp_path, paged())
    own, host = (
        tmp_path / f"{folder}/hugepages-2048kB/nr_hugepages"
        for folder in (f"{NODES}/node0/hugepages", "sys/kernel/mm/hugepages")
    )
    assert numa.allocate(2048, 12, number=0, root=root) == 12
    assert own.read_text().startswith("12") and host.read_text().startswith("8")
    host.write_text("8\n")
    assert numa.allocate(2048, 2, add=True, root=root) == 10
    for size, words in (
        (numa.BASE_PAGE, "ordinary pages can't be changed"),
        (64, "page size 64 is not available"),
    ):
        with pytest.raises(InvalidValue, match=words):
            numa.allocate(size, 1, root=root)
    with pytest.raises(InvalidValue, match="cell 7"):
        numa.allocate(2048, 1, number=7, root=root)


@pytest.mark.parametrize(("reached", "words"), [(9, "Allocated only 1"), (40, "holds 40 pages still")])
def test_a_kernel_that_does_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: int, words: str
) -> None:
    root = build(tmp_path, paged())
    counts = iter([8, reached])
    monkeypatch.setattr(sysfs, "number", lambda path: next(counts))
    with pytest.raises(NotReached, match=words) as caught:
        numa.allocate(2048, 20, root=root)
    assert (caught.value.asked, caught.value.reached) == (20, reached)


# Samepage merging.


def test_merging(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no samepage merging"):
        ksm.read(str(tmp_path))
    folder = "sys/kernel/mm/ksm"
    root = build(tmp_path, {f"{folder}/{name}": 7 for name in ksm.FILES.values()})
    (tmp_path / folder / "merge_across_nodes").write_text("1\n")
    assert ksm.read(root)["shm_pages_shared"] == 7 and list(ksm.read(root)) == list(ksm.FILES)
    ksm.tune({"shm_pages_to_scan": 200, "shm_merge_across_nodes": 0}, root)
    assert ksm.read(root)["shm_pages_to_scan"] == 200 and ksm.read(root)["shm_merge_across_nodes"] == 0
    with pytest.raises(InvalidValue, match="7 is not 0 or 1"):
        ksm.tune({"shm_merge_across_nodes": 7}, root)


def test_all_parameters_or_none(tmp_path: Path) -> None:
    folder = "sys/kernel/mm/ksm"
    root = build(tmp_path, {f"{folder}/pages_to_scan": 100})
    # The kernel would refuse the second: here its file can't be opened.
    with pytest.raises(HostError, match="failed to set shm_sleep_millisecs"):
        ksm.tune({"shm_pages_to_scan": 200, "shm_sleep_millisecs": 5}, root)
    assert ksm.read(root) == {"shm_pages_to_scan": 100}
