"""--json: what verbs print of a running guest, networks, pools and the host has the form that the guide says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests import jsonform
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest, wait_agent
from tests.host import nslab

OF_DOMAIN = (
    *("blkdeviotune vm vda", "blockjob vm vda", "checkpoint-dumpxml vm c2 --size", "checkpoint-info vm c2"),
    *("checkpoint-list vm", "checkpoint-parent vm c2", "cpu-stats vm --total", "desc vm", "domargv vm"),
    *("domblkerror vm", "domblkinfo vm --all", "domblklist vm --details", "domblkstat vm", "domcontrol vm"),
    *("domdisplay vm", "domfsinfo vm", "domfstrim vm", "domhostname vm", "domid vm", "domif-getlink vm NIC"),
    *("domifaddr vm", "domiflist vm", "domifstat vm NIC", "domiftune vm NIC", "dominfo vm", "domjobinfo vm"),
    *("domjobinfo vm --completed", "dommemstat vm", "domname vm", "domstate vm", "domstats", "domtime vm"),
    *("domthrottlegrouplist vm", "domuuid vm", "domxml-to-native qemu-argv --domain vm", "dumpxml vm"),
    *("emulatorpin vm", "guestinfo vm", "guestvcpus vm", "iothreadinfo vm", "list --all", "numatune vm"),
    *("perf vm", "restore-backup BACKUP --list", "snapshot-current vm", "snapshot-dumpxml vm s2"),
    *("snapshot-info vm s2", "snapshot-list vm", "snapshot-parent vm s2", "ttyconsole vm", "upgrade-check"),
    *("vcpucount vm", "vcpuinfo vm", "vcpupin vm", "vncdisplay vm"),
)
OF_NETWORK = (
    *("net-check default", "net-desc default", "net-dhcp-leases default", "net-dumpxml default"),
    *("net-forward default list", "net-grant default", "net-info default", "net-list --all", "net-name default"),
    *("net-port-list default", "net-repair default", "net-uuid default", "iface-list --all", "iface-mac lo"),
    *("iface-dumpxml lo", "iface-name 00:00:00:00:00:00"),
)
OF_STORAGE = (
    *("pool-dumpxml imgs", "pool-info imgs", "pool-list --all", "pool-name imgs", "pool-uuid imgs"),
    *("vol-dumpxml v.qcow2 imgs", "vol-info v.qcow2 imgs", "vol-key v.qcow2 imgs", "vol-list imgs"),
    *("vol-name VOLUME", "vol-path v.qcow2 imgs", "vol-pool VOLUME"),
)
OF_HOST = (
    *("capabilities", "cpu-models x86_64", "domcapabilities", "freecell --all", "freepages --all"),
    *("help --parity", "host-validate", "hostname", "hypervisor-cpu-models", "maxvcpus", "node-memory-tune"),
    *("nodecpumap", "nodecpustats", "nodecpustats --percent", "nodeinfo", "nodememstats", "uri", "version"),
)
FORMS = jsonform.forms()


@pytest.fixture(scope="module")
def names(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What stands for the words in capitals, of a guest that has something of all."""
    folder = tmp_path_factory.mktemp("json")
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(folder / "a.qcow2"), "64M")
    disk = f"[[disks]]\npath = '{folder}/a.qcow2'\nformat = 'qcow2'\ntarget = 'vda'\n[vnc]\n"
    vm = lab.boot(lab.define("vm", body=network_nic() + disk))
    wait_agent(vm)
    with Guest(vm) as guest:
        guest.ask("mke2fs -q /dev/vda 2>&1; mount /dev/vda /mnt")
    for line in (
        *("snapshot-create-as vm s1", "snapshot-create-as vm s2", "net-forward default add 2222 vm 22"),
        *("checkpoint-create-as vm c1", "checkpoint-create-as vm c2", f"backup vm {folder}/backup"),
        *(f"pool-create-as imgs dir --target {folder}", "vol-create-as imgs v.qcow2 1M --format qcow2"),
        "domifaddr vm --wait",
    ):
        lab.ok(line)
    (nic,) = vm.nics.all()
    yield {"NIC": nic.interface, "BACKUP": str(folder / "backup"), "VOLUME": str(folder / "v.qcow2")}
    _clear(lab, vm, folder)


def _clear(lab: Lab, vm: Domain, folder: Path) -> None:
    for line in (
        *("net-forward default delete 2222", "pool-destroy imgs", "destroy vm"),
        "undefine vm --snapshots-metadata --checkpoints-metadata",
    ):
        lab.ok(line)


@pytest.mark.parametrize("lines", [OF_DOMAIN, OF_NETWORK, OF_STORAGE, OF_HOST])
def test_forms(lab: Lab, names: dict[str, str], lines: tuple[str, ...]) -> None:
    wrong = []
    for line in lines:
        verb, *words = line.split()
        done = lab.run(" ".join([verb, *(names.get(word, word) for word in words), "--json"]))
        # host-validate, net-check and upgrade-check tell what they found by their exit codes too.
        assert done.returncode in (0, 1) and done.stdout, (line, done)
        wrong += [f"{line}: {one}" for one in jsonform.problems(json.loads(done.stdout), FORMS[verb])]
    assert not wrong, "\n".join(wrong)
