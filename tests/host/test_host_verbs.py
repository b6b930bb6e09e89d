"""The verbs about the host, on this very host and with its own QEMU, in the shape that virsh 9.0 prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qkvm import Host, xml
from qkvm.emulator import survey as emulators
from qkvm.errors import HostError
from qkvm.host import process
from qkvm.host.node import ksm, numa
from qkvm.paths import Tree

TOP = Path(__file__).resolve().parents[2]


class Lines:
    """Runs qkvm command lines on a root of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qkvm", "--root", str(self.root), *shlex.split(line)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=TOP,
        )

    def ok(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 0, f"qkvm {line}: {done.stderr}"
        return done.stdout

    def plain(self, line: str) -> Any:
        return json.loads(self.ok(f"{line} --json"))

    def fails(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 1 and not done.stdout.strip(), done
        assert done.stderr.count("\n") == 1 and "internal error" not in done.stderr, done.stderr
        return done.stderr

    def file(self, name: str, text: str) -> str:
        (self.root / name).write_text(text)
        return str(self.root / name)


@pytest.fixture(scope="module")
def qkvm(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return Lines(tmp_path_factory.mktemp("root"))


def matches(pattern: str, text: str) -> None:
    assert re.fullmatch(pattern, text), f"{text!r} is not {pattern!r}"


# CPUs and memory.


def test_nodeinfo(qkvm: Lines) -> None:
    matches(
        r"CPU model:           \w+\nCPU\(s\):              \d+\nCPU frequency:       \d+ MHz\n"
        r"CPU socket\(s\):       \d+\nCore\(s\) per socket:  \d+\nThread\(s\) per core:  \d+\n"
        r"NUMA cell\(s\):        \d+\nMemory size:         \d+ KiB\n\n",
        qkvm.ok("nodeinfo"),
    )
    found = qkvm.plain("nodeinfo")
    assert isinstance(found, dict) and found["cpus"] == len(os.sched_getaffinity(0))
    assert found["machine"] == os.uname().machine and found["memory_kib"] == sum(
        cell.total for cell in numa.cells()
    )


def test_nodecpumap(qkvm: Lines) -> None:
    count = os.cpu_count()
    matches(rf"CPUs present:   \d+\nCPUs online:    {count}\nCPU map:        [y-]+\n\n", qkvm.ok("nodecpumap"))
    matches(
        r"CPUs present:   \d+\nCPUs online:    \d+\nCPU map:        [0-9,-]+\n\n", qkvm.ok("nodecpumap --pretty")
    )
    found = qkvm.plain("nodecpumap")
    assert isinstance(found, dict) and len(found["online"]) == count


def test_nodecpustats(qkvm: Lines) -> None:
    names = ("user", "system", "idle", "iowait")
    shape = "".join(rf"{name + ':':<15} [ \d]{{19}}\d\n" for name in names) + "\n"
    matches(shape, qkvm.ok("nodecpustats"))
    matches(shape, qkvm.ok("nodecpustats --cpu 0"))
    out = qkvm.ok("nodecpustats --percent")
    matches("".join(rf"{name + ':':<15} [ \d]{{3}}\.\d%\n" for name in ("usage", *names)) + "\n", out)
    assert 99 < sum(float(line.split()[1][:-1]) for line in out.splitlines()[1:5]) < 101
    found = qkvm.plain("nodecpustats")
    assert isinstance(found, dict) and found["idle_ns"] > 10**9
    assert "CPU 4095 is not online" in qkvm.fails("nodecpustats --cpu 4095")
    assert "malformed or out of range" in qkvm.fails("nodecpustats --cpu -1")


def test_nodememstats(qkvm: Lines) -> None:
    lines = [rf"{name:<7}: [ \d]{{19}}\d KiB\n" for name in ("total", "free", "buffers", "cached")]
    matches("".join(lines) + "\n", qkvm.ok("nodememstats"))
    matches("".join(lines[:2]) + "\n", qkvm.ok("nodememstats --cell 0"))
    found = qkvm.plain("nodememstats")
    assert isinstance(found, dict) and 0 < found["free_kib"] <= found["total_kib"]
    assert "cell 4095 is not on this host (it has: 0" in qkvm.fails("nodememstats --cell 4095")


def test_freecell(qkvm: Lines) -> None:
    matches(r"Total: \d+ KiB\n\n", qkvm.ok("freecell"))
    matches(r"0: \d+ KiB\n\n", qkvm.ok("freecell --cellno 0"))
    matches(r"([ \d]{4}\d: [ \d]{9,}\d KiB\n)+-{20}\nTotal: [ \d]{9,}\d KiB\n\n", qkvm.ok("freecell --all"))
    found = qkvm.plain("freecell --all")
    assert isinstance(found, dict) and found["free_kib"] == sum(cell["free_kib"] for cell in found["cells"])
    assert "mutually exclusive" in qkvm.fails("freecell --all --cellno 0")


def test_freepages(qkvm: Lines) -> None:
    matches(r"(Node \d+:\n(\d+KiB: \d+\n)+\n)+\n", qkvm.ok("freepages --all"))
    matches(r"4KiB: \d+\n\n", qkvm.ok("freepages --cellno 0 --pagesize 4"))
    matches(r"(Node \d+:\n4KiB: \d+\n\n)+\n", qkvm.ok("freepages --all --pagesize 4KiB"))
    found = qkvm.plain("freepages --all")
    assert found[0]["cell"] == 0 and 4 in [pool["size_kib"] for pool in found[0]["pages"]]
    assert "missing cellno argument" in qkvm.fails("freepages")
    assert "missing pagesize argument" in qkvm.fails("freepages --cellno 0")
    assert "page size 7 is not available on node 0" in qkvm.fails("freepages --cellno 0 --pagesize 7")


@pytest.fixture
def pages() -> Iterator[int]:
    """The size of this host's smaller huge pages; the pools are as before when the test is over."""
    size = numa.page_sizes()[1]
    before = numa.pool(0, size).total
    yield size
    numa.allocate(size, before, number=0)


def test_allocpages(qkvm: Lines, pages: int) -> None:
    before = numa.pool(0, pages).total
    assert qkvm.ok(f"allocpages {pages} {before + 2} --cellno 0") == "\n"
    assert numa.pool(0, pages).total == before + 2
    assert qkvm.plain(f"allocpages {pages} 1 --add --all") == [{"cell": 0, "pages": before + 3}]
    assert qkvm.ok(f"allocpages {pages} {before} --cellno 0") == "\n"
    assert numa.pool(0, pages).total == before
    assert "ordinary pages can't be changed" in qkvm.fails(f"allocpages {numa.BASE_PAGE} 1")
    assert "page size 3 is not available" in qkvm.fails("allocpages 3 1")


@pytest.fixture
def merging() -> Iterator[dict[str, int]]:
    """The parameters of samepage merging; they are as before when the test is over."""
    before = ksm.read()
    yield before
    ksm.tune({name: before[name] for name in ksm.TUNABLE if name in before})


def test_node_memory_tune(qkvm: Lines, merging: dict[str, int]) -> None:
    out = qkvm.ok("node-memory-tune")
    assert out.startswith("Shared memory:\n\tshm_pages_to_scan ") and "\tshm_full_scans  " in out
    assert out.count("\n") == len(merging) + 2
    assert qkvm.ok("node-memory-tune --shm-sleep-millisecs 37 --shm-pages-to-scan 111") == "\n"
    assert ksm.read()["shm_sleep_millisecs"] == 37
    found = qkvm.plain("node-memory-tune")
    assert isinstance(found, dict) and found["shm_pages_to_scan"] == 111
    assert "Unable to change memory parameters: " in qkvm.fails("node-memory-tune --shm-merge-across-nodes 7")


def test_nodesuspend_is_refused(qkvm: Lines) -> None:
    """Only what can't put a host to sleep is tried here; tests/unit has the rest."""
    assert "The host was not suspended: Invalid target" in qkvm.fails("nodesuspend ram 60")
    assert "59 s is too short" in qkvm.fails("nodesuspend mem 59")


# The host and its emulator.


def test_names(qkvm: Lines) -> None:
    assert qkvm.ok("hostname") == f"{socket.gethostname()}\n\n"
    assert qkvm.plain("hostname") == {"hostname": socket.gethostname()}
    assert qkvm.ok("uri") == f"qemu:///system?root={qkvm.root}\n\n"
    found = qkvm.plain("uri")
    assert isinstance(found, dict) and found["root"] == str(qkvm.root)
    shape = (
        r"Compiled against library: qkvm [\d.]+\nUsing library: qkvm [\d.]+\nUsing API: QEMU [\d.]+\n"
        r"Running hypervisor: QEMU \d+\.\d+\.\d+\n"
    )
    matches(shape + "\n", qkvm.ok("version"))
    matches(shape + "Running against daemon: none\n\n", qkvm.ok("version --daemon"))


def test_capabilities(qkvm: Lines) -> None:
    out = qkvm.ok("capabilities")
    # A container may have neither what the firmware nor what the system calls this machine by.
    named = any(os.path.exists(path) for path in ("/sys/class/dmi/id/product_uuid", "/etc/machine-id"))
    assert out.startswith("<capabilities>\n\n  <host>\n    " + ("<uuid>" if named else "<cpu>"))
    assert out.endswith("  </guest>\n\n</capabilities>\n\n")
    root = xml.parse(out, "capabilities")
    cpus = root.find("host/topology/cells/cell/cpus")
    assert cpus is not None and cpus.get("num") == str(len(cpus.children)) != "0"
    assert root.content("host/cpu/arch") == root.find("guest/arch").get("name") == "x86_64"  # type: ignore[union-attr]
    machines = root.find("guest/arch")
    assert machines is not None and "q35" in [one.text for one in machines.all("machine")]
    assert [one.get("type") for one in machines.all("domain")][0] == "qemu"
    assert qkvm.ok("capabilities --xpath //guest/arch/@name") == ' name="x86_64"\n\n'
    assert qkvm.ok("capabilities --xpath //no-such --wrap") == "<nodes/>\n\n"
    found = qkvm.plain("capabilities")
    assert isinstance(found, dict) and found["host"]["cpu"]["model"] == root.content("host/cpu/model")


def test_domcapabilities(qkvm: Lines) -> None:
    root = xml.parse(qkvm.ok("domcapabilities --virttype qemu"), "domcapabilities")
    assert [child.tag for child in root] == [
        "path",
        "domain",
        "machine",
        "arch",
        "vcpu",
        "iothreads",
        "os",
        "cpu",
        "memoryBacking",
        "devices",
        "features",
    ]
    assert (root.content("domain"), root.content("arch")) == ("qemu", "x86_64")
    assert (root.content("machine") or "").startswith("pc-q35-")
    modes = {mode.get("name"): mode for mode in root.find("cpu") or ()}
    assert modes["host-passthrough"].get("supported") == "no" and modes["maximum"].get("supported") == "yes"
    usable = {one.text: one.get("usable") for one in modes["custom"].all("model")}
    assert usable["qemu64"] == "yes" and usable["Icelake-Server"] == "no", "TCG has no AVX-512"
    buses = [value.text for value in _values(root, "disk", "bus")]
    assert "virtio" in buses and "ide" not in buses
    whole = qkvm.ok("domcapabilities --virttype qemu --disable-deprecated-features")
    assert whole == qkvm.ok("domcapabilities --virttype qemu"), "QEMU calls no feature of an x86 CPU deprecated"
    assert qkvm.ok("domcapabilities --virttype qemu --xpath /domainCapabilities/arch --wrap") == (
        "<nodes>\n  <arch>x86_64</arch>\n</nodes>\n\n"
    )
    older = xml.parse(qkvm.ok("domcapabilities --machine pc --virttype qemu"), "x")
    assert "ide" in [value.text for value in _values(older, "disk", "bus")]
    small = qkvm.plain("domcapabilities --machine microvm --virttype qemu")
    assert isinstance(small, dict) and small["devices"]["disk"]["bus"] == ["virtio"] and not small["firmware"]


def _values(root: xml.Element, device: str, name: str) -> list[xml.Element]:
    entry = root.find(f"devices/{device}")
    assert entry is not None
    return next(one for one in entry.all("enum") if one.get("name") == name).children


def test_domcapabilities_refusals(qkvm: Lines) -> None:
    head = "failed to get emulator capabilities: "
    for line, words in (
        ("--machine foo", "the machine 'foo' is not supported by emulator '/usr/bin/qemu-system-x86_64'"),
        ("--arch foo", "unknown architecture: foo"),
        ("--virttype foo", "unknown virttype: foo"),
        ("--emulatorbin /bin/foo", "Cannot check QEMU binary /bin/foo: No such file or directory"),
        ("--emulatorbin /etc", "it is no program"),
        ("--emulatorbin /bin/true", "/bin/true is no QEMU that answers QMP"),
        ("--emulatorbin /bin/false", "false failed (exit code 1)"),
        ("--emulatorbin /usr/bin/qemu-system-x86_64 --arch i686", "is for x86_64, not for i686"),
    ):
        error = qkvm.fails(f"domcapabilities {line}")
        assert error.startswith(f"error: {head}") and words in error, error


def test_another_architecture(qkvm: Lines) -> None:
    """Debian's package brings the emulator of 32-bit machines too."""
    root = xml.parse(qkvm.ok("domcapabilities --arch i686 --virttype qemu"), "x")
    assert root.content("arch") == "i686" and root.content("path") == "/usr/bin/qemu-system-i386"
    assert "coreduo" in qkvm.ok("cpu-models i686").split()


def test_maxvcpus(qkvm: Lines) -> None:
    assert int(qkvm.ok("maxvcpus")) > 1
    assert qkvm.plain("maxvcpus --type qemu") == {"max_vcpus": 288}
    assert "unknown type 'foo'" in qkvm.fails("maxvcpus --type foo")


def test_sysinfo(qkvm: Lines) -> None:
    if os.path.isdir("/sys/class/dmi/id"):
        assert xml.parse(qkvm.ok("sysinfo"), "sysinfo").get("type") == "smbios"
        assert qkvm.plain("sysinfo")
    else:
        assert "failed to get sysinfo: unsupported configuration: Host SMBIOS" in qkvm.fails("sysinfo")


def test_nodesevinfo(qkvm: Lines) -> None:
    if os.path.exists("/dev/sev"):
        assert "cbitpos" in qkvm.ok("nodesevinfo") and qkvm.plain("nodesevinfo")
    else:
        assert "Unable to get host SEV information: Operation not supported: " in qkvm.fails("nodesevinfo")


def test_a_qemu_that_starts_no_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers all questions, and refuses the options of a start: host-validate has its words."""
    qkvm, trials = Lines(tmp_path), tmp_path / "trials"
    trials.mkdir()
    monkeypatch.setenv("TMPDIR", str(trials))
    real = process.find_program("qemu-system-x86_64", "this test", "qemu-system-x86")
    fake = qkvm.file(
        "qemu",
        f"""#!/bin/sh
case "$*" in *-pidfile*) echo "qemu: -sandbox: invalid option" >&2; exit 1; esac
exec {real} "$@"
""",
    )
    os.chmod(fake, 0o755)
    os.makedirs(qkvm.root / "etc/qkvm", exist_ok=True)
    for setting, level, words in ((real, "PASS", ""), (fake, "FAIL", "qemu: -sandbox: invalid option")):
        (qkvm.root / "etc/qkvm/qkvm.toml").write_text(f"qemu = '{setting}'\n")
        done = qkvm.run("host-validate --json")
        made = {check["id"]: check for check in json.loads(done.stdout)}
        assert made["qemu"]["level"] == "PASS"
        assert (made["start"]["level"], made["start"]["advice"]) == (level, words)
    assert done.returncode == 1 and not os.listdir(trials)
    # A template that nothing can start from is told as well.
    os.makedirs(qkvm.root / "etc/qkvm/templates", exist_ok=True)
    (qkvm.root / "etc/qkvm/templates/q35.args.j2").write_text("-nonsense\n")
    (qkvm.root / "etc/qkvm/qkvm.toml").unlink()
    done = qkvm.run("host-validate --json")
    (found,) = (check for check in json.loads(done.stdout) if check["id"] == "start")
    assert found["level"] == "FAIL" and "-nonsense has no value" in found["advice"]


def test_host_validate(qkvm: Lines) -> None:
    done = qkvm.run("host-validate")
    lines = done.stdout.rstrip("\n").split("\n")
    for line in lines:
        matches(r"  QEMU: Checking (for|if) .{50,}: (PASS|(NOTE|WARN|FAIL) \(.+\))", line)
    assert done.returncode == int(": FAIL" in done.stdout) and not done.stderr
    made = json.loads(qkvm.run("host-validate --json").stdout)
    assert [check["what"] for check in made] == [line[17:].partition(": ")[0].rstrip() for line in lines]
    assert {"hardware", "qemu", "packet-filter", "cgroup-memory"} <= {check["id"] for check in made}
    quiet = subprocess.run(
        [sys.executable, "-m", "qkvm", "-q", "host-validate", "qemu"],
        capture_output=True,
        text=True,
        cwd=TOP,
        check=False,
    )
    assert ": PASS" not in quiet.stdout
    assert "unknown hypervisor 'lxc'" in qkvm.fails("host-validate lxc")


# CPU models.


def test_cpu_models(qkvm: Lines) -> None:
    names = qkvm.ok("cpu-models x86_64").split()
    assert {"qemu64", "Haswell", "EPYC"} <= set(names) and not {"host", "max", "Haswell-v1"} & set(names)
    found = qkvm.plain("cpu-models x86_64")
    assert isinstance(found, list)
    haswell = next(one for one in found if one["name"] == "Haswell")
    assert haswell["vendor"] == "Intel" and "avx2" in haswell["features"] and "lahf_lm" in haswell["features"]
    assert "failed to get CPU model names: invalid argument: unknown architecture: foo" in qkvm.fails(
        "cpu-models foo"
    )


def test_models_that_a_guest_can_have(qkvm: Lines) -> None:
    usable = qkvm.ok("hypervisor-cpu-models --virttype qemu").split()
    known = qkvm.ok("hypervisor-cpu-models --virttype qemu --all").split()
    assert known == qkvm.ok("cpu-models x86_64").split()
    assert "qemu64" in usable and set(usable) < set(known)
    assert "Icelake-Server" in set(known) - set(usable), "TCG has no AVX-512"
    plain = qkvm.plain("hypervisor-cpu-models --virttype qemu --machine pc --all")
    assert isinstance(plain, list) and [one["name"] for one in plain if one["usable"]] == usable
    assert "unknown virttype: foo" in qkvm.fails("hypervisor-cpu-models --virttype foo")


def test_cpu_compare(qkvm: Lines) -> None:
    own = qkvm.file("caps.xml", qkvm.ok("capabilities"))
    assert qkvm.ok(f"cpu-compare {own}") == f"CPU described in {own} is identical to host CPU\n\n"
    small = qkvm.file("small.xml", "<cpu><model>486</model></cpu>")
    assert qkvm.ok(f"cpu-compare {small}") == f"Host CPU is a superset of CPU described in {small}\n\n"
    more = qkvm.file("more.xml", "<cpu><model>486</model><feature name='3dnow'/><feature name='avx512er'/></cpu>")
    done = qkvm.run(f"cpu-compare {more}")
    assert (done.returncode, done.stdout) == (1, f"CPU described in {more} is incompatible with host CPU\n\n")
    error = qkvm.fails(f"cpu-compare {more} --error --validate")
    assert f"Failed to compare host CPU with {more}: the CPU is incompatible with host CPU: " in error
    assert json.loads(qkvm.run(f"cpu-compare {more} --json").stdout)["result"] == "incompatible"
    assert "Failed to open file '/nosuch'" in qkvm.fails("cpu-compare /nosuch")


def test_cpu_baseline(qkvm: Lines) -> None:
    both = qkvm.file(
        "two.xml",
        "".join(
            f"<cpu><arch>x86_64</arch><model>{name}</model><vendor>Intel</vendor></cpu>\n"
            for name in ("Haswell", "Westmere")
        ),
    )
    assert qkvm.ok(f"cpu-baseline {both}") == (
        "<cpu mode='custom' match='exact'>\n  <model fallback='allow'>Westmere</model>\n  <vendor>Intel</vendor>\n"
        "</cpu>\n\n"
    )
    listed = xml.parse(qkvm.ok(f"cpu-baseline {both} --features --migratable"), "x")
    names = [one.get("name") for one in listed.all("feature")]
    assert names == sorted(names, key=str) and "avx" not in names and "pclmuldq" in names
    found = qkvm.plain(f"cpu-baseline {both}")
    assert found == {"model": "Westmere", "vendor": "Intel", "features": []}


def test_cpu_baseline_and_compare_of_a_hypervisor(qkvm: Lines) -> None:
    out = qkvm.ok("hypervisor-cpu-baseline --model Haswell --virttype qemu --machine q35 --arch x86_64")
    assert "<model fallback='forbid'>Haswell</model>" in out and "<feature policy='disable' name='rtm'/>" in out
    tailored = qkvm.file("tailored.xml", out)
    kind = "--virttype qemu --emulator /usr/bin/qemu-system-x86_64"
    whose = "CPU provided by hypervisor on the host"
    assert qkvm.ok(f"hypervisor-cpu-compare {tailored} {kind}") == (
        f"The {whose} is a superset of CPU described in {tailored}\n\n"
    )
    whole = qkvm.file("whole.xml", "<cpu><model>Haswell</model></cpu>")
    done = qkvm.run(f"hypervisor-cpu-compare {whole} {kind}")
    assert (done.returncode, done.stdout) == (1, f"CPU described in {whole} is incompatible with the {whose}\n\n")
    host = qkvm.file("dom.xml", qkvm.ok("domcapabilities --virttype qemu"))
    assert qkvm.ok(f"hypervisor-cpu-compare {host} {kind}") == (
        f"CPU described in {host} is identical to the {whose}\n\n"
    )
    assert "Either --file or --model must be provided" in qkvm.fails("hypervisor-cpu-baseline")
    assert "mutually exclusive" in qkvm.fails(f"hypervisor-cpu-baseline --file {whole} --model Haswell")
    assert "Unknown CPU model Nosuch" in qkvm.fails("hypervisor-cpu-baseline --model Nosuch --virttype qemu")


# Asking the emulator.


def test_answers_are_kept(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    found = emulators.find(tree)
    (kept,) = (tmp_path / "var/lib/qkvm/emulators").glob("qemu-system-x86_64-*.host.json")
    written = kept.stat().st_mtime_ns
    begin = time.monotonic()
    assert emulators.find(tree) == found
    assert time.monotonic() - begin < 0.1 and kept.stat().st_mtime_ns == written
    # What is damaged, of another version or of another program is asked for anew.
    for text in ("", "{", "[]", kept.read_text().replace('"version":2', '"version":0', 1)):
        kept.write_text(text)
        assert emulators.find(tree) == found and kept.stat().st_size > 10000
    assert found.accels[-1] == "tcg" and found.machine("q35") is not None and found.model("EPYC") is not None
    assert os.stat(kept.parent).st_mode & 0o777 == 0o700


def test_answers_that_others_could_write_are_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/qkvm/emulators"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(HostError, match="can be written by other users"):
        emulators.find(Tree(str(tmp_path)))


def test_the_library(qkvm: Lines) -> None:
    host = Host(str(qkvm.root))
    assert host.node.info().cpus == os.cpu_count()
    assert host.emulators.find().machine("q35") is not None
    assert {check.id: check.level for check in host.validate()}["qemu"] == "PASS"


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path / "nosuch"))
    assert emulators.find(tree).version
    assert not os.path.exists(tree.root)


FAKE = """\
#!/usr/bin/python3
import json, sys
accel = sys.argv[3].partition("accel=")[2]
if accel == "kvm":
    sys.exit("failed to initialize kvm")
answers = {
    "query-version": {"qemu": {"major": 9, "minor": 1, "micro": 0}, "package": ""},
    "query-target": {"arch": "aarch64"}, "query-kvm": {"present": True, "enabled": False}, "query-tpm-types": [],
    "query-machines": [{"name": "virt-9.1", "alias": "virt", "cpu-max": 512, "is-default": True}],
    "qom-list-types": [{"name": "virtio-blk-pci"}], "query-qmp-schema": [
    {"name": "stop", "meta-type": "command", "arg-type": "0"},
    {"name": "0", "meta-type": "object", "members": []}],
    "query-cpu-definitions": [{"name": "cortex-a57", "typename": "x"}, {"name": "max", "typename": "x",
    "migration-safe": False}],
}
print(json.dumps({"QMP": {"version": {}}}))
print("stray words")
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({"event": "RESUME"}))
    if asked["execute"] in answers:
        print(json.dumps({"id": asked["id"], "return": answers[asked["execute"]]}))
    elif asked["execute"] in ("qmp_capabilities", "quit"):
        print(json.dumps({"id": asked["id"], "return": {}}))
    else:
        print(json.dumps({"id": asked["id"], "error": {"class": "GenericError", "desc": "not this"}}))
"""


def test_an_emulator_of_another_kind(qkvm: Lines) -> None:
    """Not x86: models without features, other machines, no SEV, and a KVM that fails to start."""
    fake = qkvm.file("qemu-fake", FAKE)
    os.chmod(fake, 0o755)
    found = emulators.find(Tree(str(qkvm.root)), binary=fake)
    assert (found.arch, found.version, found.accels) == ("aarch64", "9.1.0", ["tcg"])
    assert [model.name for model in found.models] == ["cortex-a57"] and not found.models[0].features
    root = xml.parse(qkvm.ok(f"domcapabilities --emulatorbin {fake} --virttype qemu"), "x")
    assert root.content("machine") == "virt-9.1"
    modes = {mode.get("name"): mode.get("supported") for mode in root.find("cpu") or ()}
    assert modes == {"host-passthrough": "no", "maximum": "yes", "host-model": "no", "custom": "yes"}
    error = qkvm.fails(f"hypervisor-cpu-baseline --model cortex-a57 --emulator {fake}")
    assert "does not tell what its CPU models have" in error


def test_a_qemu_that_is_asked_ends_with_or_without_the_one_who_asked(tmp_path: Path) -> None:
    """Killed at the worst moment: QEMU runs and has its questions."""
    code = f"from qkvm.emulator import survey; from qkvm.paths import Tree; survey.find(Tree({str(tmp_path)!r}))"
    asking = subprocess.Popen([sys.executable, "-c", code], cwd=TOP)
    try:
        pid = _child(asking.pid)
        pidfd = process.open_pidfd(pid)
    finally:
        os.kill(asking.pid, signal.SIGKILL)
        asking.wait()
    if pidfd is not None:
        ended = process.ended(pidfd, 60)
        os.close(pidfd)
        assert ended, f"QEMU {pid} still runs"
    assert not os.listdir(tmp_path), "nothing was kept of half an answer"


def _child(pid: int) -> int:
    """The first child of a process, as soon as it is QEMU."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            try:
                if b"qemu-system" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
            except OSError:
                continue
    raise AssertionError("no QEMU was started")
