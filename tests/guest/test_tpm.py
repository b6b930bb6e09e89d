"""TPMs for real: the guest's driver talks to swtpm, whose state lasts, and which goes when QEMU goes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.device import sidecar, tpm
from qkvm.host import process
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.host import nslab

Register = Callable[[Domain], Domain]

# TPM 2.0 Library, Part 3: each command is tag, size, code and parameters, all big-endian. An empty password
# authorizes what the owner may (TPM_RS_PW is 40000009).
PASSWORD = "00000009 40000009 0000 00 0000"
NV_INDEX = "01500017"
COMMANDS = {
    "random": "8001 0000000c 0000017b 0008",
    # TPM2_NV_DefineSpace of 8 bytes that owner and holder may read and write, then a write and a read.
    "define": f"8002 0000002d 0000012a 40000001 {PASSWORD} 0000 000e {NV_INDEX} 000b 00060006 0000 0008",
    "write": f"8002 0000002b 00000137 40000001 {NV_INDEX} {PASSWORD} 0008 6c617374696e6721 0000",
    # TPM2_PCR_Extend of the debug PCR 16 with a SHA-256 digest, and TPM2_PCR_Read of it.
    "extend": f"8002 00000041 00000182 00000010 {PASSWORD} 00000001 000b {'5a' * 32}",
    "pcr": "8001 00000014 0000017e 00000001 000b 03 000001",
    "read": f"8002 00000023 0000014e 40000001 {NV_INDEX} {PASSWORD} 0008 0000",
}


def tell(guest: Guest, command: str) -> bytes:
    """Have the guest's TPM do a command, and give its answer behind the header; an error code is no answer."""
    octal = "".join(f"\\{byte:03o}" for byte in bytes.fromhex(command))
    # The answer is read from the fd that the command was written to.
    shown = guest.ask(
        f"exec 3<>/dev/tpm0; printf '{octal}' >&3; dd bs=4096 count=1 <&3 2>/dev/null | xxd -p | tr -d '\\n'"
    )
    answer = bytes.fromhex(shown)
    assert answer[6:10] == bytes(4), answer.hex()
    return answer[10:]


def swtpm_of(domain: Domain) -> int:
    (entry,) = domain.live.record["sidecars"]
    assert entry["name"] == tpm.NAME and process.start_time(entry["pid"]) == entry["started"]
    return int(entry["pid"])


def serving(domain: Domain) -> list[int]:
    """The processes in the folder of a TPM's state."""
    state, found = domain.tree.tpm(domain.name), []
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == state:
                found.append(int(entry))
    return found


def gone(pid: int) -> bool:
    process.reap()
    return process.start_time(pid) is None


def test_tpm(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    domain = lab.boot(domain_of(lab.define("trusted", body="[tpm]\n")))
    state = Path(domain.tree.tpm("trusted"))
    with Guest(domain) as guest:
        assert guest.ask("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
        assert len(tell(guest, COMMANDS["random"])) == 10
        tell(guest, COMMANDS["define"])
        tell(guest, COMMANDS["write"])
        assert b"lasting!" in tell(guest, COMMANDS["read"])
    pid, qemu = swtpm_of(domain), domain.live.pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    uid = 0x74000000 + domain.live.id
    assert set(status["Uid"].split()) == {str(uid)} and status["Seccomp"] == "2" and not status["Groups"].strip()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert state.stat().st_uid == uid and state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_uid for path in state.iterdir()} == {uid}
    # QEMU killed: swtpm goes by itself, and nothing of it is in the way of the next start.
    assert qemu is not None
    os.kill(qemu, signal.SIGKILL)
    nslab.until(lambda: gone(pid), "the end of swtpm")
    lab.boot(domain)
    with Guest(domain) as guest:
        assert b"lasting!" in tell(guest, COMMANDS["read"])
    # What is in the TPM's memory alone goes with a saved guest.
    file = tmp_path / "saved"
    with Guest(domain) as guest:
        tell(guest, COMMANDS["extend"])
        value = tell(guest, COMMANDS["pcr"])
    lab.ok(f"save trusted {file}")
    lab.ok(f"restore {file}")
    with Guest(domain) as guest:
        assert tell(guest, COMMANDS["pcr"]) == value
    domain.shutdown(wait=True)
    lab.ok("undefine trusted --keep-tpm")
    assert state.exists()
    domain = domain_of(lab.define("trusted", body="[tpm]\nmodel = 'tpm-tis'\nversion = '1.2'\n"))
    assert "holds no TPM of version 1.2" in lab.fails("start trusted")
    lab.ok("undefine trusted")
    assert not state.exists() and not os.listdir(domain.tree.tpms)


def test_old_tpm(lab: Lab, domain_of: Register) -> None:
    """Version 1.2, on the older machine; a transient domain takes its TPM along."""
    domain = domain_of(lab.define("old", machine="pc", body="[tpm]\nmodel = 'tpm-tis'\nversion = '1.2'\n"))
    lab.boot(domain)
    lab.ok("undefine old")
    with Guest(domain) as guest:
        assert guest.ask("cat /sys/class/tpm/tpm0/tpm_version_major") == "1"
        assert guest.ask("cat /sys/class/tpm/tpm0/pcrs").count("PCR-") == 24
    state, pid = Path(domain.tree.tpm("old")), swtpm_of(domain)
    assert state.exists()
    lab.ok("destroy old")
    assert gone(pid) and not state.exists()


def test_what_a_killed_start_leaves(lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before swtpm is in the record it never begins; behind that who comes by ends it."""
    domain = domain_of(lab.define("half", body="[tpm]\n"))
    started = sidecar.start

    def start_and_die(*arguments: Any, **options: Any) -> None:
        started(*arguments, **options)
        os._exit(9)

    def killed_in(name: str, deadly: Callable[..., None]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sidecar, name, deadly)
            child = os.fork()
            if child == 0:
                try:
                    domain.start()
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    killed_in("write", lambda _: os._exit(9))
    nslab.until(lambda: not serving(domain), "nobody")
    killed_in("start", start_and_die)
    assert len(serving(domain)) == 1
    lab.ok("gc")
    assert not serving(domain)
    killed_in("start", start_and_die)
    domain.start(paused=True)
    assert [swtpm_of(domain)] == serving(domain)


def test_refusals(lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "no model tpm-crb" in lab.fails(f"define {_file(tmp_path, lab, '1.2')}")
    domain = domain_of(lab.define("bad", body="[tpm]\n"))
    monkeypatch.setenv("PATH", "/nonexistent")
    error = lab.fails("start bad")
    monkeypatch.undo()
    assert "qemu-system-x86_64 is not installed" in error or "swtpm is not installed" in error
    # What an earlier user of the state could have planted there is neither given to the next one nor followed.
    domain.start(paused=True)
    domain.destroy()
    state = Path(domain.tree.tpm("bad"))
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    for plant in (os.symlink, os.link):
        plant(secret, state / "planted")
        assert "no file of swtpm's: 'planted'" in lab.fails("start bad")
        assert secret.stat().st_uid == 0
        (state / "planted").unlink()
    # A QEMU that ends at its start takes its swtpm along, and the TPM stays.
    (tmp_path / "taken.img").touch()
    domain = domain_of(lab.define("ends", body="[tpm]\n", cpu="'nosuchcpu'"))
    lab.fails("start ends")
    assert (Path(domain.tree.tpm("ends")) / "tpm2-00.permall").exists()


def _file(folder: Path, lab: Lab, version: str) -> str:
    path = folder / "definition.toml"
    path.write_text(
        f"name = 'x'\nmemory = {{ current = '64MiB', maximum = '64MiB' }}\n[tpm]\nversion = '{version}'\n"
    )
    return str(path)
