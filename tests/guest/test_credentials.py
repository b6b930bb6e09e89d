"""Credentials for a guest's systemd: in its SMBIOS at each boot, and nowhere else that others can see."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from qkvm.api.domain import Domain
from tests.guest.conftest import Lab
from tests.guest.guest import Guest, log_size, wait_ready

SECRET = "$y$hush\nhush"


def told(guest: Guest) -> dict[str, bytes]:
    """What a systemd of 257 or later would find in the guest's SMBIOS: the kernel shows each structure of type 11.

    An older one reads a page of each, and ends where that is not all.
    """
    found: dict[str, bytes] = {}
    lengths = []
    for number in range(guest.number("ls -d /sys/firmware/dmi/entries/11-* | wc -l")):
        raw = base64.b64decode(guest.ask(f"base64 /sys/firmware/dmi/entries/11-{number}/raw"))
        strings = re.findall(rb"io\.systemd\.credential\.binary:([^=]+)=([^\0]*)\0", raw)
        assert raw[0] == 11 and raw.endswith(b"\0\0") and len(strings) == raw[4]
        found |= {name.decode(): base64.b64decode(value, validate=True) for name, value in strings}
        lengths.append(len(raw))
    assert sorted(lengths, key=lambda length: length > 4096) == lengths
    return found


def boot_again(domain: Domain) -> None:
    """Reset the guest, and wait until it is up."""
    mark = log_size(domain)
    domain.reset()
    wait_ready(domain, mark)


def test_a_guest_gets_them_and_nobody_else(
    lab: Lab, domain_of: Callable[[Domain], Domain], tmp_path: Path
) -> None:
    """Values and a large file of any bytes; a saved guest and a clone of it read them at their next boot."""
    path = tmp_path / "key, 1"
    path.write_bytes(first := os.urandom(30000))
    body = (
        f"[[credentials]]\nname = 'passwd.hashed-password.root'\nvalue = {json.dumps(SECRET)}\n"
        f"[[credentials]]\nname = 'my key'\nfile = '{path}'\n"
        f"[[credentials]]\nname = 'page'\nvalue = '{'x' * 2900}'\n"
    )
    values = {"passwd.hashed-password.root": SECRET.encode(), "page": b"x" * 2900}
    domain = domain_of(lab.define("vm", body=body))
    assert "credential 'my key' takes more than 4096 bytes" in lab.run("start vm").stderr
    wait_ready(domain)
    with Guest(domain) as guest:
        assert told(guest) == {**values, "my key": first}

    process = Path(f"/proc/{domain.live.pid}")
    seen = [(process / "cmdline").read_bytes(), (process / "environ").read_bytes()]
    seen += [lab.ok(line).encode() for line in ("dumpxml vm", "dumpxml vm --json", "domargv vm")]
    for text in seen:
        assert b"hush" not in text and base64.b64encode(SECRET.encode()) not in text
    for file in (lab.host.tree.domain_definition("vm"), f"{domain.live.folder}/record.json"):
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600

    with Guest(domain) as guest:
        guest.ask("echo here >/tmp/mark")
    saved = tmp_path / "saved"
    lab.ok(f"save vm {saved}")
    assert "hush" not in lab.ok(f"save-image-dumpxml {saved}") + lab.ok(f"save-image-dumpxml {saved} --json")
    path.unlink()
    assert f"file of credential my key: {path} is not there" in lab.fails(f"restore {saved}")
    path.write_bytes(second := os.urandom(70))
    lab.ok(f"restore {saved}")
    with Guest(domain) as guest:
        assert guest.ask("cat /tmp/mark") == "here"
    boot_again(domain)
    with Guest(domain) as guest:
        assert told(guest)["my key"] == second

    lab.ok("template-create vm gold")
    try:
        path.write_bytes(third := b"\0third\n")
        lab.ok("clone --from-template gold copy")
        copy = domain_of(lab.host.domain("copy"))
        boot_again(copy)
        with Guest(copy) as guest:
            assert told(guest) == {**values, "my key": third}
        copy.destroy()
        lab.ok("delete copy --yes")
    finally:
        lab.ok("template-delete gold")


def test_what_can_not_be_handed_over(lab: Lab, domain_of: Callable[[Domain], Domain], tmp_path: Path) -> None:
    """It is said before anything is made."""
    path = tmp_path / "file"
    domain = domain_of(lab.define("vm", body=f'[[credentials]]\nname = "c"\nfile = "{path}"\n'))
    assert f"file of credential c: {path} is not there or no file" in lab.fails("start vm")
    os.mkfifo(path)
    assert f"file of credential c: {path} is not there or no file" in lab.fails("start vm")
    path.unlink()
    path.write_bytes(bytes(40000))
    assert "the credentials take 53368 bytes of the SMBIOS in base64, 49152 at most" in lab.fails("start vm")
    path.write_bytes(bytes(50000))
    assert f"file of credential c: {path} has more than 49152 bytes" in lab.fails("start vm")
    assert not domain.is_running
    kernel = f"boot.kernel = '{lab.kernel}'"
    micro = tmp_path / "micro.toml"
    micro.write_text(
        f'name = "micro"\nmachine = "microvm"\n{kernel}\nmemory = {{ current = "64MiB", maximum = "64MiB" }}\n'
        '[[credentials]]\nname = "c"\nvalue = "v"\n'
    )
    assert "machine microvm has no place for credentials" in lab.fails(f"define {micro}")
