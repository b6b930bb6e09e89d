"""Clones of domains that are off, and instant clones of templates."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.manage.ownstorage import Wanted
from qkvm.spec import toml
from qkvm.spec.domain import Domain as Definition
from qkvm.storage.media import seed
from tests.guest import guest as guests
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest
from tests.guest.killing import killed

COUNT = 20
MAC = "52:54:00:00:aa:01"

Register = Callable[[Domain], Domain]


def disk(path: str, more: str = "") -> str:
    return f'[[disks]]\ntarget = "vda"\npath = "{path}"\nformat = "qcow2"\n{more}'


def make_image(path: str) -> str:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    return path


def remove(domain: Domain) -> None:
    if domain.is_running:
        domain.destroy()
    if domain.is_persistent:
        domain.undefine(nvram=True, managed_save=True, storage=Wanted())


def contents(lab: Lab) -> list[str]:
    """All files that last, but for answers of programs and leases."""
    state = Path(lab.host.tree.state)
    kept = [path for path in state.rglob("*") if path.relative_to(state).parts[0] not in ("emulators", "leases")]
    found = [*(path for path in kept if path.is_file()), *Path(lab.host.tree.domain_definitions).iterdir()]
    return sorted(str(path) for path in (*found, *Path(lab.host.tree.domain_runs).iterdir()))


def named_web(lab: Lab) -> list[str]:
    return [name for name in lab.ok("list --all --name").split() if name.startswith(("web", "new"))]


def stored(lab: Lab, name: str) -> Definition:
    return toml.loads(Path(lab.host.tree.domain_definition(name)).read_text(), Definition, name)


@pytest.fixture(scope="module")
def template(lab: Lab) -> Iterator[str]:
    """A template of a guest with a disk, a NIC and a machine id; its source is killed in between, and runs on."""
    path = make_image(f"{lab.host.tree.images}/source.qcow2")
    domain = lab.boot(lab.define("source", body=network_nic() + disk(path)))
    guests.wait_agent(domain)
    before = contents(lab)
    for moment in ("after:device_del", "before:migrate-incoming", "after:migrate"):
        killed(lab, moment, "template-create source gold")
        lab.ok("gc")
        assert contents(lab) == before and not lab.ok("template-list --name").strip()
        with Guest(domain) as guest:
            guest.until(f"nics | grep -c {MAC} || true", "1")
    with Guest(domain) as guest:
        guest.ask("echo 0123456789abcdef0123456789abcdef >/etc/machine-id; echo first >/dev/vda; sync")
    lab.ok("template-create source gold")
    with Guest(domain) as guest:
        # It runs on, with its NIC, and writes to its own disk.
        guest.until(f"nics | grep -c {MAC} || true", "1")
        guest.ask("echo other >/dev/vda; sync")
    domain.destroy()
    yield "gold"
    lab.ok("template-delete gold")
    domain.undefine(storage=Wanted())


def test_twenty_clones_are_twenty_guests(lab: Lab, template: str) -> None:
    names = [f"c{number}" for number in range(COUNT)]
    domains = [Domain(lab.host.tree, name) for name in names]
    try:
        made = json.loads(lab.ok(f"clone --from-template {template} --json {' '.join(names)}"))
        assert [one["name"] for one in made] == names and not any(one["warnings"] for one in made)

        def ask(domain: Domain) -> dict[str, str]:
            with Guest(domain) as guest:
                guest.until("nics | grep -c 192.168 || true", "1")
                text = guest.ask(
                    "hostname; cat /etc/machine-id; dd if=/dev/urandom bs=16 count=1 2>/dev/null | md5sum; "
                    "nics | cut -d' ' -f2,3; head -c 5 /dev/vda"
                )
            host, machine, random, nic, content = text.splitlines()
            assert (host, content) == (domain.name, "first")
            return dict(zip(("machine", "random", "mac", "address"), (machine, random, *nic.split()), strict=True))

        with ThreadPoolExecutor(4) as pool:
            seen = list(pool.map(ask, domains))
        for key in seen[0]:
            assert len({one[key] for one in seen}) == COUNT, key
        assert [one["macs"] for one in made] == [[one["mac"]] for one in seen]
        assert all(one["machine"] != "0123456789abcdef0123456789abcdef" for one in seen)
        # Most of the memory is shared: what is a clone's own is QEMU's and a few pages of the guest's.
        for domain in domains:
            text = Path(f"/proc/{domain.live.pid}/smaps_rollup").read_text()
            private = sum(int(one) for one in re.findall(r"Private_\w+:\s+(\d+) kB", text))
            assert private < 0.35 * 512 * 1024
        assert "template 'gold' is in use by c0, c1, c10 and 17 more" in lab.fails(f"template-delete {template}")
    finally:
        for domain in domains:
            remove(domain)


def test_a_clone_is_a_domain_as_any_other(lab: Lab, template: str, domain_of: Register) -> None:
    before = contents(lab)
    lab.ok(f"clone --from-template {template} one --mac 52:54:00:00:aa:07")
    lab.ok(f"clone --from-template {template} two")
    one, two = Domain(lab.host.tree, "one"), Domain(lab.host.tree, "two")
    try:
        with Guest(one) as guest, Guest(two) as other:
            assert guest.ask("nics | cut -d' ' -f2") == "52:54:00:00:aa:07"
            guest.ask("echo mine! >/dev/vda; sync; echo kept >/run/memory")
            # What one balloon gives back is not taken from the other.
            other.ask("dd if=/dev/zero of=/run/fill bs=1M count=20 2>/dev/null; md5sum /bin/busybox >/run/sum")
            lab.ok("setmem one 120M --live")
            assert other.ask("md5sum -c /run/sum").endswith("OK")
        lab.ok(f"clone --from-template {template} three")
        remove(Domain(lab.host.tree, "three"))
        lab.ok("setmem one 256M --live")
        # Its memory can be saved, and fits plain memory.
        lab.ok("managedsave one")
        lab.ok("start one")
        with Guest(one) as guest:
            assert guest.ask("cat /run/memory; head -c 5 /dev/vda").split() == ["kept", "mine!"]
        one.destroy()
        lab.boot(one)
        with Guest(one) as guest:
            assert guest.ask("head -c 5 /dev/vda") == "mine!"
            guest.until("nics | cut -d' ' -f2", "52:54:00:00:aa:07")
        assert "domain 'one' already exists" in lab.fails(f"clone --from-template {template} one")
    finally:
        remove(one)
        remove(two)
    assert contents(lab) == before


def test_a_killed_clone_leaves_nothing(lab: Lab, template: str) -> None:
    before = contents(lab)
    for moment in (
        "before:migrate-incoming",
        "before:cont",
        "after:cont",
        "before:netdev_add",
        "after:device_add",
    ):
        killed(lab, moment, f"clone --from-template {template} gone")
        lab.ok("gc")
        assert contents(lab) == before, moment
        assert "gone" not in lab.ok("list --all --name")


def test_a_template_that_does_not_fit_is_refused(lab: Lab, template: str) -> None:
    tree = lab.host.tree
    memory = f"{tree.frozen(template)}/memory"
    info = os.stat(memory)
    os.utime(memory)
    try:
        words = lab.fails(f"clone --from-template {template} bad")
        assert "its file memory was changed after it was made" in words
    finally:
        os.utime(memory, ns=(info.st_atime_ns, info.st_mtime_ns))
    told = f"{tree.frozen(template)}/template.json"
    text = Path(told).read_text()
    for key, value, words in (
        ("emulator", ["/bin/true", 1], "was made by another QEMU"), ("host_cpu", 1, "was made on another CPU"),
    ):  # fmt: skip
        Path(told).write_text(json.dumps({**json.loads(text), key: value}))
        assert words in lab.fails(f"clone --from-template {template} bad")
    Path(told).write_text(text)
    assert "failed to get template 'none'" in lab.fails("clone --from-template none bad")
    assert "a name is given twice" in lab.fails(f"clone --from-template {template} bad bad")
    assert "bad" not in lab.ok("list --all --name")


def test_a_guest_that_can_be_no_template(lab: Lab, domain_of: Register) -> None:
    body = '[[serials]]\nkind = "file"\npath = "/dev/null"\n'
    domain = domain_of(lab.define("unfit", body=body))
    assert "domain is not running" in lab.fails("template-create unfit")
    domain.start(paused=True)
    assert "qkvm resume unfit" in lab.fails("template-create unfit")
    domain.resume()
    assert "a serial port that ends on the host" in lab.fails("template-create unfit")
    domain.destroy()
    small = domain_of(lab.define("small", machine="microvm"))
    small.start()
    assert "machine microvm can't plug devices" in lab.fails("template-create small")
    small.destroy()
    assert "../x" in lab.fails("template-info ../x")


def test_clones_of_a_domain_that_is_off(lab: Lab, tmp_path: Path, domain_of: Register) -> None:
    tree, images = lab.host.tree, lab.host.tree.images
    base = make_image(f"{images}/web-base.qcow2")
    path = f"{images}/web.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path], check=True)
    meta = '{"instance-id": "old", "local-hostname": "web", "other": 1}\n'
    seed.write(tree.seed("web"), seed.Seed("#cloud-config\n{}\n", meta, f"version: 2\n# {MAC.upper()}\n"))
    body = network_nic() + disk(path, f'backing = [{{ path = "{base}", format = "qcow2" }}]\n')
    body += (
        f'[[disks]]\ntarget = "sda"\ndevice = "cdrom"\nbus = "sata"\npath = "{tree.seed("web")}"\nformat = "raw"\n'
    )
    source = domain_of(lab.define("web", body="# a comment\n" + body, autostart="true"))
    lab.boot(source)
    with Guest(source) as guest:
        guest.ask("echo first >/dev/vda; sync")
    assert "domain 'web' runs (shut it down" in lab.fails("clone web web2")
    source.destroy()
    made = json.loads(lab.ok("clone web web2 web3 --json"))
    assert [one["disks"][0]["path"] for one in made] == [f"{images}/web2.qcow2", f"{images}/web3.qcow2"]
    lab.ok(f"clone web --auto-clone --mac 52:54:00:00:aa:09 --file {images}/named.qcow2")
    assert named_web(lab) == ["web", "web-clone", "web2", "web3"]
    mine, before = stored(lab, "web2"), stored(lab, "web")
    assert len({one.uuid for one in (mine, before, stored(lab, "web3"))}) == 3
    assert mine.nics[0].mac not in (MAC, stored(lab, "web3").nics[0].mac) and not mine.autostart
    assert not mine.disks[0].backing and "# a comment" in Path(tree.domain_definition("web2")).read_text()
    texts = seed.read(tree.seed("web2"))
    told = json.loads(texts.meta_data)
    assert told["local-hostname"] == "web2" and told["instance-id"] != "old" and told["other"] == 1
    assert mine.nics[0].mac in texts.network_config and MAC.upper() not in texts.network_config
    assert texts.user_data == "#cloud-config\n{}\n" and texts.vendor_data.startswith("#cloud-boothook\n")
    clone = domain_of(Domain(tree, "web2"))
    lab.boot(clone)
    with Guest(clone) as guest:
        assert guest.ask("head -c 5 /dev/vda") == "first"
        guest.until(f"nics | grep -c {mine.nics[0].mac} || true", "1")
    clone.destroy()
    for name in ("web2", "web3", "web-clone"):
        remove(Domain(tree, name))
    # A backup under another name is such a copy too.
    lab.ok(f"backup web {tmp_path}/to")
    lab.ok(f"restore-backup {tmp_path}/to --name web9")
    texts, mac = seed.read(tree.seed("web9")), stored(lab, "web9").nics[0].mac
    told = json.loads(texts.meta_data)
    assert told["local-hostname"] == "web9" and told["instance-id"] != "old" and mac != MAC
    assert mac in texts.network_config and texts.vendor_data.startswith("#cloud-boothook\n")
    remove(Domain(tree, "web9"))
    for line, words in (
        ("clone web web", "a clone needs another name"),
        ("clone web a/b", "a/b"),
        (f"clone web new --file {path}", "exists already"),
        ("clone web new --skip-copy vdz", "no disk vdz"),
        ("clone web new --mac 1 --mac 2", "2 MAC addresses for 1 NICs"),
        (f"clone web new --mac {MAC}", f"has a NIC with the MAC address {MAC}"),
    ):
        assert words in lab.fails(line), line
    assert named_web(lab) == ["web"] and not os.listdir(tree.makings)
    _linked(lab, source)


def _linked(lab: Lab, source: Domain) -> None:
    """An overlay's base must not change."""
    tree = lab.host.tree
    lab.ok("clone web l1 l2 --linked")
    first = Domain(tree, "l1")
    try:
        assert [layer.path for layer in first.definition.disks[0].backing][0] == source.definition.disks[0].path
        lab.boot(first)
        with Guest(first) as guest:
            assert guest.ask("head -c 5 /dev/vda; echo other >/dev/vda; sync") == "first"
        first.destroy()
        words = lab.fails("start web")
        assert "disk vda must stay as it is: that of domains 'l1', 'l2' is based on it" in words
        assert "l1" in lab.fails("vol-delete web.qcow2 --pool default")
    finally:
        for name in ("l1", "l2"):
            remove(Domain(tree, name))
    lab.boot(source)
    with Guest(source) as guest:
        assert guest.ask("head -c 5 /dev/vda") == "first"
    source.destroy()
