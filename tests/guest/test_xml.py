"""libvirt's words beside running guests: domains moved, created, edited, described, renamed; devices by file."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from qkvm import Host, xml
from qkvm.api.domain import Domain
from qkvm.domain.device.nic import plug as nicplug
from qkvm.domain.life import actions as lifecycle
from qkvm.domain.manage import describe
from qkvm.errors import InvalidState, NotReached
from qkvm.host import journal
from qkvm.net.link import table
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest, wait_ready

Register = Callable[[Domain], Domain]

MAC, OTHER = "52:54:00:00:dd:01", "52:54:00:00:dd:02"


def interface(mac: str = OTHER, source: str = "<source network='default'/>", more: str = "") -> str:
    kind = "bridge" if "bridge" in source else "network"
    return f"<interface type='{kind}'><mac address='{mac}'/>{source}<model type='virtio'/>{more}</interface>"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    numbers = count()

    def write(text: str) -> str:
        path = tmp_path / f"{next(numbers)}.xml"
        path.write_text(text)
        return str(path)

    return write


def test_a_guest_moves_in_xml(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """What one root tells of a domain is defined in another one, and starts there as the same guest."""
    domain = domain_of(lab.define("mover", body=network_nic(MAC), title='"on tour"'))
    told = lab.ok("dumpxml mover")
    other = Host(str(tmp_path / "other"))
    moved = other.define(told, "mover.xml")
    assert moved.uuid == domain.uuid and moved.definition.title == "on tour"
    other.networks["default"].undefine()
    lab.ok("undefine mover")
    # The network runs under the first root: the second one's guests are on its bridge.
    bridge = lab.host.networks["default"].actual.bridge
    text = told.replace("<interface type='network'>", "<interface type='bridge'>")
    moved = other.define(text.replace("<source network='default'/>", f"<source bridge='{bridge}'/>"), "mover.xml")
    moved.start()
    try:
        wait_ready(moved)
        with Guest(moved) as guest:
            assert MAC in guest.ask("cat /sys/class/net/*/address")
        live = moved.xml()
        assert f"<domain type='{moved.live.record['accel'].replace('tcg', 'qemu')}' id='{moved.live.id}'>" in live
        assert f"<target dev='{moved.nics.all()[0].interface}'/>" in live and "<alias name='net0'/>" in live
        assert " id='" not in moved.xml(inactive=True).splitlines()[0]
        assert other.define(live, "live").definition == moved.definition, "a live description defines it as well"
    finally:
        moved.destroy()
        moved.undefine()


def test_a_transient_domain(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    domain = domain_of(lab.define("fleeting", body=network_nic(MAC)))
    path = tmp_path / "fleeting.xml"
    path.write_text(domain.xml())
    assert "already exists with uuid" in lab.fails(f"create {path}")
    domain.undefine()
    assert lab.ok(f"create {path} --paused") == f"Domain 'fleeting' created from {path}\n\n"
    assert domain.state[0] == "paused" and not domain.is_persistent
    assert "Persistent:     no" in lab.ok("dominfo fleeting")
    assert "already exists" in lab.fails(f"create {path}") or "already active" in lab.fails(f"create {path}")
    assert "transient domains do not have any persistent config" in lab.fails("edit fleeting")
    assert "transient domains do not have any persistent config" in lab.fails("desc fleeting x --config")
    assert lab.ok("dumpxml fleeting --inactive").startswith("<domain type=")
    # Defined while it runs it is persistent, and another one's UUID is refused.
    other = tmp_path / "other.xml"
    other.write_text(path.read_text().replace(domain.uuid, "9" * 8 + domain.uuid[8:]))
    assert "already exists with uuid" in lab.fails(f"define {other}")
    lab.ok(f"define {path}")
    assert domain.is_persistent and domain.is_running
    domain.undefine()
    assert lab.ok("destroy fleeting") == "Domain 'fleeting' destroyed\n\n"
    assert "failed to get domain" in lab.fails("dominfo fleeting")
    path.write_text(path.read_text().replace("network='default'", "network='no-such'"))
    assert "Failed to create domain" in lab.fails(f"create {path}")
    assert "failed to get domain" in lab.fails("dominfo fleeting"), "nothing stays of one that could not start"


def test_words_about_a_running_guest(lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = domain_of(lab.define("wordy"))
    domain.start()
    assert lab.ok("desc wordy now") == "Domain description updated successfully\n"
    assert (
        lab.ok("desc wordy") == "now\n" and lab.ok("desc wordy --config") == "No description for domain: wordy\n"
    )
    lab.ok("desc wordy --title both --live --config")
    assert lab.ok("desc wordy --title --live") == lab.ok("desc wordy --title --config") == "both\n"
    lab.ok("metadata wordy urn:x --set '<a/>' --key k --live --config")
    for scope in ("", "--inactive"):
        told = xml.parse(lab.ok(f"dumpxml wordy {scope}"), "")
        assert told.content("title") == "both" and told.find("metadata/k:a") is not None
    lab.ok("metadata wordy urn:x --remove --config")
    assert lab.ok("metadata wordy urn:x --live") == "<a/>\n\n"
    assert "not present" in lab.fails("metadata wordy urn:x --config")
    # Where the second half fails the first is put back.
    definition = domain.definition
    record = domain.live.record["definition"]

    def full(run: object) -> None:
        raise InvalidState("full")

    monkeypatch.setattr(describe, "write", full)
    with pytest.raises(InvalidState, match="full"):
        describe.set_title(domain, "half", scope=Scope.LIVE | Scope.CONFIG)
    with pytest.raises(InvalidState, match="full"):
        describe.set_metadata(domain, "urn:y", "<b/>", "k", scope=Scope.LIVE | Scope.CONFIG)
    assert domain.definition == definition and domain.live.record["definition"] == record
    domain.destroy()
    assert lab.ok("desc wordy --title") == "both\n"


def test_edit_changes_the_next_start(
    lab: Lab, domain_of: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = lab.boot(domain_of(lab.define("edited")))
    editor = tmp_path / "ed"
    editor.write_text("#!/bin/sh\nsed -i 's/>1<\\/vcpu>/>2<\\/vcpu>/' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    assert lab.ok("edit edited") == "Domain 'edited' XML configuration edited.\n\n"
    assert lab.ok("edit edited") == "Domain 'edited' XML configuration not changed.\n\n"
    with Guest(domain) as guest:
        assert guest.number("nproc") == 1
    domain.destroy()
    lab.boot(domain)
    with Guest(domain) as guest:
        assert guest.number("nproc") == 2
    assert domain.definition.accel is spec.Accel.AUTO


def test_rename(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("before")))
    assert "cannot rename active domain" in lab.fails("domrename before after")
    domain.destroy()
    uuid, log = domain.uuid, Path(lab.host.tree.serial_log("before")).read_bytes()
    assert lab.ok("domrename before after") == "Domain successfully renamed\n\n"
    after = domain_of(lab.host.domain("after"))
    assert after.uuid == uuid and after.state == ("shut off", "destroyed")
    assert Path(lab.host.tree.serial_log("after")).read_bytes() == log
    assert "failed to get domain" in lab.fails("dominfo before")
    assert not any("before" in name for name in os.listdir(lab.host.tree.log) + os.listdir(lab.host.tree.run))
    lab.boot(after)


def test_what_a_reboot_leads_to(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("rebooting")))
    lab.ok("set-lifecycle-action rebooting reboot destroy --live --config")
    assert "<on_reboot>destroy</on_reboot>" in lab.ok("dumpxml rebooting --inactive")
    lifecycle.set_action(domain, "poweroff", "preserve", scope=Scope.LIVE)
    told = lab.ok("dumpxml rebooting")
    assert "<on_reboot>destroy</on_reboot>" in told and "<on_poweroff>preserve</on_poweroff>" in told
    run = domain.live
    mark = journal.size(run.journal)
    with Guest(domain) as guest:
        guest.send("poweroff -f")
        journal.wait(
            run.journal,
            mark,
            lambda event: event.get("event") == "STOP",
            timeout=60,
            alive=lambda: run.pid is not None,
            what="the guest's power-off",
        )
    assert domain.state[0] == "paused", "preserved"


def test_nics_by_file(lab: Lab, domain_of: Register, file: Callable[[str], str]) -> None:
    domain = lab.boot(domain_of(lab.define("plugged", body=network_nic(MAC))))
    path = file(interface(more="<alias name='ua-second'/><link state='down'/>"))
    assert lab.ok(f"attach-device plugged {path} --persistent") == "Device attached successfully\n\n"
    assert [nic.mac for nic in domain.definition.nics] == [MAC, OTHER]
    entry = next(entry for entry in domain.live.devices("nics") if entry["mac"] == OTHER)
    assert entry["id"] == "ua-second" and not entry["link"]
    with Guest(domain) as guest:
        guest.until(f"grep -l {OTHER} /sys/class/net/*/address | wc -l", "1")
        name = guest.ask(f"grep -l {OTHER} /sys/class/net/*/address").split("/")[4]
        guest.ask(f"ip link set {name} up")
        guest.until(f"cat /sys/class/net/{name}/carrier", "0")
        assert lab.ok(f"update-device plugged {file(interface())}") == "Device updated successfully\n\n"
        guest.until(f"cat /sys/class/net/{name}/carrier", "1")
    assert "<link state='down'/>" in lab.ok("dumpxml plugged --inactive"), "only the running one was changed"
    lab.ok(f"update-device plugged {path} --live --config")
    assert lab.ok(f"domif-getlink plugged {OTHER}") == f"{OTHER} down\n"
    for text, words in (
        (interface(more="<mtu size='1400'/>"), "cannot modify network device mtu"),
        (interface().replace("virtio", "e1000"), "cannot modify network device model"),
        (interface("52:54:00:00:dd:99"), "no device found matching MAC address '52:54:00:00:dd:99'"),
        (interface(source="<source network='no-such'/>"), "no network with matching name 'no-such'"),
        (interface().replace("<mac address='52:54:00:00:dd:02'/>", ""), "told by its MAC address"),
        ("<hostdev/>", "such a device can't be plugged"),
        ("<interface", "not XML"),
    ):
        assert words in lab.fails(f"update-device plugged {file(text)} --live --config"), words
    before = domain.definition
    assert "used twice" in lab.fails(f"attach-device plugged {file(interface(MAC))} --live --config")
    assert domain.definition == before
    assert "no device found with alias nosuch" in lab.fails("detach-device-alias plugged nosuch")
    assert "no device found matching MAC address" in lab.fails(
        f"detach-device plugged {file(interface('52:54:00:00:dd:99'))}"
    )
    assert lab.ok("detach-device-alias plugged ua-second --live --config") == (
        "Device detach request sent successfully\n\n"
    )
    assert [nic.mac for nic in domain.definition.nics] == [MAC] == [nic.mac for nic in domain.nics.all()]
    assert lab.ok(f"detach-device plugged {file(interface(MAC))} --config") == "Device detached successfully\n\n"
    assert domain.definition.nics == () and len(domain.nics.all()) == 1
    assert lab.ok(f"detach-device plugged {file(interface(MAC))}") == "Device detached successfully\n\n"


def test_a_nic_moves_to_another_bridge(lab: Lab, domain_of: Register, file: Callable[[str], str]) -> None:
    domain = domain_of(lab.define("switched", body=network_nic(MAC)))
    domain.start()
    lab.host.networks.define(
        "<network><name>lab2</name><ip address='10.77.0.1' prefix='24'/></network>", "lab2.xml"
    ).start()
    try:
        tap = domain.nics.all()[0].interface
        text = file(interface(MAC, "<source network='lab2'/>"))
        assert lab.ok(f"update-device switched {text} --live --config") == "Device updated successfully\n\n"
        bridge = lab.host.networks["lab2"].actual.bridge
        shown = subprocess.run(["ip", "-o", "link", "show", tap], capture_output=True, text=True, check=True)
        assert f" master {bridge} " in shown.stdout
        assert domain.nics.all()[0].source == "lab2" == domain.definition.nics[0].source
        assert f"<source network='lab2' bridge='{bridge}'/>" in lab.ok("dumpxml switched")
        assert "connections='1'" in lab.ok("net-dumpxml lab2")
        user = file("<interface type='user'><mac address='52:54:00:00:dd:01'/><model type='virtio'/></interface>")
        assert "cannot modify network device type" in lab.fails(f"update-device switched {user}")
        assert table.present(tap)
    finally:
        domain.destroy()
        lab.host.networks["lab2"].destroy()
        lab.host.networks["lab2"].undefine()


def test_a_release_that_fails_leaves_both_as_before(lab: Lab, domain_of: Register) -> None:
    """The guest's firmware knows nothing of hotplug: the definition is put back."""
    domain = domain_of(lab.define("stubborn", body=network_nic(MAC)))
    domain.start(paused=True)
    before = domain.definition
    with pytest.raises(NotReached):
        nicplug.detach(domain, type="network", scope=Scope.LIVE | Scope.CONFIG, timeout=1)
    assert domain.definition == before and len(domain.nics.all()) == 1


def test_a_transient_network(lab: Lab, file: Callable[[str], str]) -> None:
    path = file("<network><name>brief</name><forward/><ip address='10.78.0.1' prefix='24'/></network>")
    assert lab.ok(f"net-create {path}") == f"Network brief created from {path}\n\n"
    assert "brief" in lab.ok("net-list --transient") and "<ip address='10.78.0.1'" in lab.ok("net-dumpxml brief")
    assert "transient networks do not have any persistent config" in lab.fails("net-edit brief")
    assert "already active" in lab.fails(f"net-create {path}")
    lab.ok("net-destroy brief")
    assert "brief" not in lab.ok("net-list --all")


def test_disks_by_file(lab: Lab, domain_of: Register, file: Callable[[str], str], tmp_path: Path) -> None:
    drive = '[[disks]]\nformat = "raw"\ntarget = "sda"\nbus = "scsi"\ndevice = "cdrom"\n'
    domain = lab.boot(domain_of(lab.define("disks", body=drive)))
    image = tmp_path / "more.img"
    image.write_bytes(b"a medium\n".ljust(8 << 20, b"\0"))
    text = f"<disk type='file'><driver name='qemu' type='raw'/><source file='{image}'/><target dev='vdx'/></disk>"
    plugged = file(text.replace("type='raw'", "type='raw' discard='unmap'"))
    assert lab.ok(f"attach-device disks {plugged} --live --config") == "Device attached successfully\n\n"
    with Guest(domain) as guest:
        guest.until("cat /sys/block/vda/size 2>/dev/null || true", str((8 << 20) // 512))
    told = xml.parse(lab.ok("""dumpxml disks --xpath "//disk[target/@dev='vdx']" """), "")
    alias = told.find("alias")
    assert alias is not None
    assert "cannot modify field 'discard'" in lab.fails(f"update-device disks {file(text)}")
    other = file(Path(plugged).read_text().replace("more.img", "other.img"))
    assert "is not removable" in lab.fails(f"update-device disks {other}")
    medium = (
        "<disk type='file' device='cdrom'><driver name='qemu' type='raw' discard='unmap'/>"
        f"<source file='{image}'/><target dev='sda' bus='scsi'/></disk>"
    )
    assert lab.ok(f"detach-device-alias disks {alias.get('name')} --live --config")
    assert [disk.target for disk in domain.definition.disks] == ["sda"] and len(domain.live.devices("disks")) == 1
    assert lab.ok(f"update-device disks {file(medium)} --live --config") == "Device updated successfully\n\n"
    with Guest(domain) as guest:
        guest.until("head -n 1 /dev/sr0 || true", "a medium")
    assert domain.definition.disks[0].path == str(image)
    empty = file(medium.replace(f"<source file='{image}'/>", ""))
    assert lab.ok(f"update-device disks {empty} --persistent --force") == "Device updated successfully\n\n"
    assert domain.definition.disks[0].path == "" and "more.img" not in lab.ok("dumpxml disks")
    assert "disk 'vdx' not found" in lab.fails(f"update-device disks {plugged}")
    assert "a network device has none" in lab.fails(f"update-device disks {file(interface())} --force")


DESCRIPTIONS = Path(__file__).resolve().parents[1] / "unit/libvirt"

SOURCE = re.compile(r"(?<=file=')/[^']*|(?<=dev=')/dev/[^']*")


def stand_in(text: str, folder: Path) -> str:
    """The description with images, a CPU and a network that are here; what the guest sees stays otherwise."""
    for number, path in enumerate(sorted(set(SOURCE.findall(text)))):
        image = folder / f"{number}.img"
        image.write_bytes(b"\0" * (2 << 20))
        text = text.replace(f"file='{path}'", f"file='{image}'").replace(
            f"<source dev='{path}'", f"<source file='{image}'"
        )
    text = re.sub(r"<backingStore .*</backingStore>\n", "", text, flags=re.DOTALL)
    for old, new in (
        ("type='kvm'", "type='qemu'"),
        ("type='qcow2'", "type='raw'"),
        ("type='block'", "type='file'"),
        ("mode='host-passthrough'", "mode='maximum'"),
        ("/srv/run/", f"{folder}/"),
        ("/srv/log/", f"{folder}/"),
    ):
        text = text.replace(old, new)
    return re.sub(r"<(kernel|initrd|cmdline|nvram|loader).*\n", "", text)


@pytest.mark.parametrize("name", ["pc-kernel", "q35-live", "buses", "ports"])
def test_guests_of_libvirts_start_with_every_device_in_its_place(
    lab: Lab, domain_of: Register, tmp_path: Path, name: str
) -> None:
    root = xml.parse(stand_in((DESCRIPTIONS / f"{name}.xml").read_text(), tmp_path), name)
    path = tmp_path / "domain.xml"
    path.write_text(xml.dump(root))
    created = lab.ok(f"create {path} --paused")
    domain = domain_of(lab.host.domain(created.split("'")[1]))
    machine = domain.live.record["machine"]
    checked = 0
    for told in xml.parse(domain.xml(), "").find("devices") or ():
        alias, address = told.find("alias"), told.find("address")
        if alias is None or address is None or address.get("type") != "pci":
            continue
        path_in_qom = f"/machine/peripheral/{alias.get('name')}"
        bus = domain.qemu.command("qom-get", {"path": path_in_qom, "property": "parent_bus"})
        addr = domain.qemu.command("qom-get", {"path": path_in_qom, "property": "addr"})
        number = int(address.attributes["bus"], 16)
        wanted = f"pci.{number}" if number or machine == "pc" else "pcie.0"
        assert bus.rpartition("/")[2] == wanted
        slot, function = (int(address.attributes[key], 16) for key in ("slot", "function"))
        assert addr == slot << 3 | function
        checked += 1
    assert checked == {"pc-kernel": 8, "q35-live": 14, "buses": 5, "ports": 0}[name]
