"""host-validate on machines of many kinds: what passes, what doesn't, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import machines
import pytest
from machines import build

from qkvm.errors import MissingProgram
from qkvm.host import process, programs, validate
from qkvm.host.validate import Check
from qkvm.paths import Tree

GOOD: dict[str, object] = {
    "proc/cpuinfo": machines.CPUINFO,
    "proc/self/mountinfo": "25 20 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
    "proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t100\t1\nmemory\t0\t100\t1",
    "proc/sys/net/ipv4/ip_forward": 1,
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids",
    "sys/fs/cgroup/cgroup.subtree_control": "",
    "sys/module/kvm_intel/parameters/nested": "Y",
    "sys/module/kvm_intel/parameters/tdx": "Y",
    "sys/firmware/acpi/tables/DMAR": b"",
    "sys/kernel/iommu_groups/0/type": "DMA",
    "dev/kvm": "",
    "dev/vhost-net": "",
    "dev/net/tun": "",
    "dev/vhost-vsock": "",
}


PLAIN: dict[str, object] = {"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse2"}
"""A CPU that says little of itself, and nothing of virtualization."""


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All programs are there, and QEMU is new enough; no test of this file starts one."""
    monkeypatch.setattr(process, "find_program", lambda name, *_: f"/usr/bin/{name}")
    monkeypatch.setattr(programs, "is_installed", lambda name: True)
    monkeypatch.setattr(process, "run", lambda argv: b"QEMU emulator version 7.2.22 (Debian)\n")


def judge(folder: Path, files: dict[str, object], backend: str = "nftables") -> dict[str, Check]:
    root, tree = build(folder / "host", files), Tree(str(folder / "tree"))
    made = list(validate.checks(tree, lambda: backend, lambda: "tcg", root))
    assert len({check.id for check in made}) == len(made), "ids are unique"
    assert all(bool(check.advice) == (check.level != "PASS") for check in made)
    return {check.id: check for check in made}


def not_passed(made: dict[str, Check]) -> dict[str, str]:
    # Where the tests' own folder lies is no matter of theirs.
    return {
        name: check.level
        for name, check in made.items()
        if check.level != "PASS" and "space" not in name and name != "run-tmpfs"
    }


def test_a_good_host(tmp_path: Path) -> None:
    made = judge(tmp_path, GOOD)
    assert not_passed(made) == {"uefi": "NOTE"}
    assert made["packet-filter"].what == "for a packet filter (nftables)"


def test_the_line() -> None:
    check = Check("x", "for hardware virtualization", "PASS")
    assert check.line() == f"  QEMU: Checking for hardware virtualization{' ' * 33}: PASS\n"
    assert check._replace(level="WARN", advice="do this").line().endswith(": WARN (do this)\n")


def without(*names: str, **changed: object) -> dict[str, object]:
    return {name: content for name, content in {**GOOD, **changed}.items() if not name.startswith(names)}


def test_no_virtualization_at_all(tmp_path: Path) -> None:
    made = judge(tmp_path, without("sys/module", "dev/kvm", "sys/firmware", **PLAIN))
    assert not_passed(made) == {
        "hardware": "FAIL",
        "kvm-module": "NOTE",
        "kvm-device": "NOTE",
        "iommu": "NOTE",
        "secure-guest": "NOTE",
        "uefi": "NOTE",
    }
    assert "Unknown if this platform has IOMMU" in made["iommu"].advice

    hidden = machines.CPUINFO.replace(" vmx ", " ")
    made = judge(tmp_path, without("sys/firmware", **{"proc/cpuinfo": hidden}))
    assert made["hardware"].level == "PASS", "the loaded module knows better than flags that are hidden"
    assert "No ACPI DMAR table" in made["iommu"].advice


def test_a_kvm_in_software(tmp_path: Path) -> None:
    made = judge(tmp_path, without("sys/module", **PLAIN))
    assert made["hardware"].level == "FAIL" and made["kvm-device"].level == "PASS"
    assert made["kvm-real"].level == "WARN" and "TCG" in made["kvm-real"].advice


def test_a_module_that_is_not_loaded(tmp_path: Path) -> None:
    made = judge(tmp_path, without("sys/module", "dev/kvm"))
    assert made["hardware"].level == "PASS"
    assert made["kvm-module"].level == made["kvm-device"].level == "FAIL"
    assert made["kvm-module"].advice == "modprobe kvm_intel" and "kvm-access" not in made


def test_no_nesting(tmp_path: Path) -> None:
    made = judge(tmp_path, without(**{"sys/module/kvm_intel/parameters/nested": "N"}))
    assert not_passed(made) == {"nested": "NOTE", "uefi": "NOTE"}


def test_devices(tmp_path: Path) -> None:
    made = judge(tmp_path, without("dev/vhost", "dev/net"))
    assert not_passed(made) == {
        "device-vhost-net": "WARN",
        "device-net-tun": "FAIL",
        "device-vhost-vsock": "NOTE",
        "uefi": "NOTE",
    }


def test_cgroups_of_the_old_kind(tmp_path: Path) -> None:
    made = judge(
        tmp_path,
        without(
            "sys/fs",
            **{
                "proc/self/mountinfo": "25 20 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
                "proc/cgroups": "#subsys_name\thierarchy\ncpu\t4\ncpuset\t5\nblkio\t6\nmemory\t0\npids\t7",
            },
        )
        | {
            "sys/fs/cgroup/unified/cgroup.controllers": "",
            "sys/fs/cgroup/unified/cgroup.subtree_control": "",
        },
    )
    assert {made[f"cgroup-{name}"].level for name in validate.CONTROLLERS} == {"WARN"}
    assert "bound to cgroup v1" in made["cgroup-cpu"].advice and "bound to cgroup v1" in made["cgroup-io"].advice
    assert "Kconfig" in made["cgroup-memory"].advice and made["cgroup-delegation"].level == "PASS"


def test_no_cgroups(tmp_path: Path) -> None:
    made = judge(tmp_path, without("sys/fs", **{"proc/self/mountinfo": "", "proc/cgroups": ""}))
    assert made["cgroup-pids"].level == "WARN" and "cgroup-delegation" not in made


def test_hardware_that_is_switched_off(tmp_path: Path) -> None:
    amd = machines.CPUINFO.replace("GenuineIntel", "AuthenticAMD").replace(" vmx ", " svm sev ")
    made = judge(
        tmp_path,
        without(
            "sys/module",
            "sys/kernel",
            "sys/firmware",
            **{
                "proc/cpuinfo": amd,
                "sys/module/kvm_amd/parameters/sev": "N",
            },
        )
        | {"sys/firmware/acpi/tables/IVRS": b"", "sys/module/kvm_amd/parameters/nested": "1"},
    )
    assert made["iommu"].level == "PASS" and "iommu=pt" in made["iommu-kernel"].advice
    virtual = judge(
        tmp_path,
        without("sys/module", "sys/firmware", **{"proc/cpuinfo": amd})
        | {
            "sys/firmware/acpi/tables/DMAR": b"",
            "sys/kernel/iommu_groups/0/type": "DMA",
        },
    )
    assert virtual["iommu"].level == virtual["iommu-kernel"].level == "PASS"
    assert "disabled in kernel" in made["secure-guest"].advice and made["nested"].level == "PASS"


def test_network(tmp_path: Path) -> None:
    made = judge(
        tmp_path,
        without(
            **{
                "proc/sys/net/ipv4/ip_forward": 0,
                "proc/sys/net/bridge/bridge-nf-call-iptables": 1,
            }
        ),
    )
    assert not_passed(made) == {"ip-forward": "NOTE", "bridge-nf": "NOTE", "uefi": "NOTE"}


def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str, purpose: str, package: str) -> str:
        raise MissingProgram(name, purpose, package)

    monkeypatch.setattr(process, "find_program", nothing)
    monkeypatch.setattr(programs, "is_installed", lambda name: False)
    made = judge(tmp_path, GOOD)
    assert made["qemu"].level == made["program-qemu-img"].level == "FAIL"
    assert made["program-dnsmasq"].level == "WARN" and made["program-swtpm"].level == "NOTE"
    assert "apt install qemu-system-x86" in made["qemu"].advice
    assert "apt install dnsmasq-base" in made["program-dnsmasq"].advice


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (b"QEMU emulator version 8.0.2", "PASS"),
        (b"QEMU emulator version 7.1.0", "FAIL"),
        (b"", "FAIL"),
        (b"QEMU emulator version x.y", "FAIL"),
        (b"QEMU emulator version 10.0.0rc1", "PASS"),
    ],
)
def test_qemus_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes, level: str) -> None:
    monkeypatch.setattr(process, "run", lambda argv: words)
    assert judge(tmp_path, GOOD)["qemu"].level == level


def test_a_packet_filter_that_is_not_there(tmp_path: Path) -> None:
    def nothing() -> str:
        raise MissingProgram("nft", "the packet filter of a network", "nftables")

    root = build(tmp_path / "host", GOOD)
    made = {check.id: check for check in validate.checks(Tree(str(tmp_path)), nothing, nothing, root)}
    assert made["start"].level == "FAIL" and "apt install nftables" in made["start"].advice
    assert made["packet-filter"].level == "WARN" and "apt install nftables" in made["packet-filter"].advice


def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "SPACE_MINIMUM", 1 << 62)
    assert "MiB are left" in judge(tmp_path, GOOD)["space-images"].advice
