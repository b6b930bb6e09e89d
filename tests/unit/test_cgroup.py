"""What is read from and written to a control group's files, on files of the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from qkvm.domain.tuning import cpu as cputune
from qkvm.domain.tuning import io as blkiotune
from qkvm.domain.tuning import threads
from qkvm.errors import InvalidState, InvalidValue
from qkvm.host import cgroup, limits
from qkvm.host.cgroup import Group
from qkvm.paths import Tree
from qkvm.spec import domain as spec

FILES = {
    "cgroup.controllers": "cpu memory io\n",
    "cgroup.procs": "",
    "cgroup.subtree_control": "cpu io\n",
    "cpu.weight": "100\n",
    "cpu.max": "max 100000\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 0\n",
    "memory.max": "max\n",
    "memory.high": "1073741824\n",
    "memory.swap.max": "max\n",
    "memory.stat": "anon 104857600\nfile 0\n",
    "io.weight": "default 300\n8:16 50\n",
    "io.max": "8:0 rbps=1048576 wbps=max riops=max wiops=120\n",
}


@pytest.fixture
def group(tmp_path: Path) -> Group:
    for name, text in FILES.items():
        tmp_path.joinpath(name).write_text(text)
    return Group(str(tmp_path))


def test_what_the_files_say(group: Group) -> None:
    assert limits.cpu_shares(group) == 100
    assert limits.cpu_max(group) == (100000, -1)
    assert limits.cpu_times(group) == {"cpu_time": 1500000000, "user_time": 1000000000, "system_time": 500000000}
    assert limits.memory_limits(group) == {"hard_limit": None, "soft_limit": 1 << 20, "swap_hard_limit": None}
    assert limits.io_weight(group) == 300 and limits.device_weights(group) == {"8:16": 50}
    assert limits.device_limits(group) == {"8:0": {"read_bytes_sec": 1048576, "write_iops_sec": 120}}


def test_what_is_written(group: Group) -> None:
    def written(name: str) -> str:
        return Path(group.path, name).read_text()

    for name in ("cpu.max", "cpu.weight", "memory.high", "io.weight"):
        Path(group.path, name).write_text("")
    limits.set_cpu_max(group, 0, 20000)
    assert written("cpu.max") == "20000 100000"
    Path(group.path, "cpu.max").write_text("")
    limits.set_cpu_max(group, 50000, -1)
    assert written("cpu.max") == "max 50000"
    limits.set_cpu_shares(group, 0)
    assert written("cpu.weight") == "100"
    limits.set_memory_limit(group, "soft_limit", 2048)
    assert written("memory.high") == "2097152"
    limits.set_io_weight(group, 500)
    assert written("io.weight") == "default 500"
    with pytest.raises(InvalidState, match="below the 102400 KiB of memory that QEMU has in use"):
        limits.set_memory_limit(group, "hard_limit", 102399)


def test_a_controller_that_is_not_there_is_named(group: Group) -> None:
    with pytest.raises(InvalidState, match=r"cgroup v2 controller 'cpuset' is not available") as caught:
        group.write("cpuset.mems", "0")
    assert caught.value.hint


def test_groups_of_different_roots_never_meet(group: Group) -> None:
    tops = {cgroup.top(Tree(root), group.path) for root in ("/", "/srv/a", "/srv/b")}
    assert len(tops) == 3 and f"{group.path}/qkvm" in tops
    # A domain may be called like one of the kernel's files.
    assert cgroup.domain_group(Tree("/"), "cpu.max", group.path).path == f"{group.path}/qkvm/cpu.max.domain"
    with pytest.raises(InvalidState, match="is not a cgroup v2 group"):
        cgroup.top(Tree("/"), "/nowhere")


def test_only_a_domains_group_is_ever_removed(tmp_path: Path) -> None:
    other = tmp_path / "somebody.slice"
    other.mkdir()
    assert not cgroup.remove(str(other)) and other.is_dir()
    assert not cgroup.remove("")
    own = tmp_path / "qkvm" / "vm.domain"
    (own / "vcpu0").mkdir(parents=True)
    assert cgroup.remove(str(own)) and not own.parent.exists() and other.is_dir()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", {0}), ("0-3,^2", {0, 1, 3}), ("1,3-4", {1, 3, 4}), ("0-1,^0", {1})],
)
def test_lists_of_cpus(text: str, wanted: set[int]) -> None:
    assert threads.parse_cpus(text) == wanted


@pytest.mark.parametrize("text", ["", "x", "3-1", "0-", "^0", "0-1,^0,^1", "-1", "0;1", "99999", "٣"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(InvalidValue, match="Invalid cpulist"):
        threads.parse_cpus(text)


@pytest.mark.parametrize("text", ["/dev/sda", "sda,5", "/dev/sda,x", "/dev/sda,-1", "/dev/sda,1,/dev/sdb", ""])
def test_what_is_no_list_of_devices(text: str) -> None:
    with pytest.raises(InvalidValue, match="Unable to parse device 'device_weight' parameters"):
        blkiotune.parse_devices(text, "device_weight")


def test_lists_of_devices() -> None:
    assert blkiotune.parse_devices("/dev/sda,5,/dev/sdb,0", "x") == {"/dev/sda": 5, "/dev/sdb": 0}


def test_a_device_must_be_a_whole_block_device(tmp_path: Path) -> None:
    for path in ("/dev/null", str(tmp_path), "/dev/not-there"):
        with pytest.raises(InvalidValue):
            limits.device_number(path)


def test_which_definitions_ask_for_groups_of_threads() -> None:
    assert not cputune.limits_threads(spec.CpuTune(shares=5, global_quota=5000, vcpu_pins={"0": "0"}))
    for tune in (spec.CpuTune(quota=1000), spec.CpuTune(emulator_period=2000), spec.CpuTune(iothread_quota=1000)):
        assert cputune.limits_threads(tune)
