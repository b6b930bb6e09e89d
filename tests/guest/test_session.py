"""The recorded session of virsh, command by command, on a real guest: same exit codes, same shape, field by field.

The guest is defined from the XML that virsh itself printed in that session. What differs on purpose is listed with
its reason, and a difference that is listed must be there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from qkvm.api.domain import Domain
from tests.guest import guest as guests
from tests.guest.conftest import TOP, Lab
from tests.guest.session import Step, fields, recorded, shape
from tests.host import nslab

STEPS = recorded()

DIFFERS = {
    "domifaddr vm01": "the guest has its address by now",
    "domifaddr vm01 --source arp": "virsh failed there; qkvm reads the neighbour table",
    "net-dhcp-leases default": "the guest has its lease by now",
    "ttyconsole vm01": "the console is a Unix socket, which many can't open at once",
    "version": "the program is another one",
    "uri": "a root of its own is part of it",
    "hostname": "another machine",
    "snapshot-revert vm01 s1": "virsh lost the guest there, whose vcpus were others by then; qkvm brings it back",
    "cpu-stats vm01": "both refuse, each for its own cgroup controller",
    "nodeinfo": "another machine",
    'qemu-monitor-command vm01 {"execute":"query-status"}': "libvirt's own id is in its answer",
    'qemu-monitor-command vm01 --pretty {"execute":"query-balloon"}': "libvirt's own id is in its answer",
}
"""A command whose output has another shape -> why. That its exit code may differ is in CODES."""

MACHINES = {"hostname", "nodeinfo", "net-dhcp-leases default", "domifaddr vm01"}
"""Commands whose answers depend on the machine and on how fast its guest boots."""

CODES = {"domifaddr vm01 --source arp", "snapshot-revert vm01 s1"}
"""Commands that virsh could not do there and qkvm can."""


BOOTS = ("start vm01", "reset vm01", "reboot vm01")
"""Commands after which the guest boots."""


class Answer(NamedTuple):
    """What qkvm printed and its exit code."""

    output: str
    error: str
    code: int


class Replay:
    """The session's machine: one guest, a folder to work in, and the two disks and files that the XML names."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.mac = ""

    def run(self, words: list[str], stdin: str = "") -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "qkvm", "--root", self.lab.root, *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(TOP)},
        )
        return Answer(done.stdout, done.stderr, done.returncode)

    @property
    def domain(self) -> Domain:
        return self.lab.host.domain("vm01")

    def xml(self) -> str:
        """The XML that virsh printed at the session's end, with this machine's files and the first values."""
        text = next(step.output for step in STEPS if step.line == "dumpxml vm01")
        for old, new in (
            ("/var/lib/libvirt/images/", f"{self.folder}/"),
            ("<memory unit='KiB'>2097152", "<memory unit='KiB'>1048576"),
            ("current='1'>4<", "current='1'>2<"),
            ("  <title>hello</title>\n", ""),
        ):
            assert old in text
            text = text.replace(old, new)
        return text

    def before(self, step: Step) -> None:
        """What was so in the session when this command was given."""
        if step.line.startswith("managedsave"):
            self.domain.destroy()
        if step.line == "destroy vm01" and not self.domain.is_running and "Domain" in step.output:
            self.domain.start()

    def after(self, step: Step, mark: int) -> None:
        """Let the guest come up again before it is asked for more."""
        if step.line in BOOTS and step.code == 0:
            guests.wait_ready(self.domain, mark)
        if step.line == "shutdown vm01":
            # Off for certain: what comes next starts it anew, and is not given to one that is just going off.
            deadline = time.monotonic() + guests.BOOT_TIMEOUT
            while self.domain.is_running:
                assert time.monotonic() < deadline, "the guest does not power off"
                time.sleep(0.02)
        if step.line == "attach-interface vm01 --type network --source default --model virtio --persistent":
            self.mac = self.domain.nics.all()[-1].mac

    def words(self, line: str) -> list[str]:
        """The command as words, with the NICs' addresses of this run."""
        words = line.split(maxsplit=3) if "{" in line else line.split()
        own = self.domain.nics.all()[0].mac if "52:54:00:ce:d1:7e" in line else ""
        adapted = {"52:54:00:ce:d1:7e": own, "52:54:00:6e:fd:1b": self.mac, "vnet24": self._tap(line)}
        return [adapted.get(word, word) for word in words]

    def _tap(self, line: str) -> str:
        return self.domain.nics.all()[0].interface if "vnet24" in line else ""


@pytest.fixture(scope="module")
def replay(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    made = Replay(lab, tmp_path_factory.mktemp("session"))
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(made.folder / "vm01.img"), "1G")
    shutil.copy(lab.kernel, made.folder / "vmlinuz")
    shutil.copy(lab.initrd, made.folder / "ird.gz")
    for line in (
        "pool-destroy default",
        "pool-undefine default",
        f"pool-define-as images dir --target {made.folder}",
        "pool-start images",
        "pool-autostart images",
    ):
        lab.ok(line)
    answer = made.run(["define", "/dev/stdin"], stdin=made.xml())
    assert answer == ("Domain 'vm01' defined from /dev/stdin\n\n", "", 0)
    yield made
    for domain in lab.host.domains():
        if domain.is_running:
            domain.destroy()
        domain.undefine()
    for line in ("pool-destroy images", "pool-undefine images"):
        lab.ok(line)


def _errors(step: Step) -> str:
    """virsh's error lines without their mark."""
    return "\n".join(
        line.removeprefix("error: ") for line in step.output.splitlines() if line.startswith("error: ")
    )


def _difference(step: Step, answer: Answer) -> str:
    """How an answer differs from the recorded one; '' where it doesn't."""
    if answer.code != step.code:
        return f"exit code {answer.code}, not {step.code}: {answer.error or answer.output}"
    if step.code:
        # virsh's lines, headline and reason in either order, are one line here, and a hint may follow.
        lines, said = shape(_errors(step)), " ".join(shape(answer.error))
        return "" if lines and all(line in said for line in lines) else f"{said} is not {lines}"
    if step.line.startswith("domstats") or step.line.startswith("dommemstat"):
        missing = [name for name in fields(step.output) if name not in fields(answer.output)]
        return f"fields are missing: {missing}" if missing else ""
    wanted, got = shape(step.output), shape(answer.output)
    if step.line.startswith("dominfo"):
        # virsh has this line since 11.2.
        got = [line for line in got if not line.startswith("Autostart Once: ")]
    if step.line.startswith("dumpxml"):
        # The order of devices is no matter of meaning. A guest that has not said otherwise has a generation id.
        wanted, got = sorted([*wanted, "<genid>UUID</genid>"]), sorted(got)
    return "" if got == wanted else f"{got} is not {wanted}"


def test_the_session(replay: Replay) -> None:
    differences: dict[str, str] = {}
    replay.lab.boot(replay.domain)
    for step in STEPS:
        replay.before(step)
        mark = guests.log_size(replay.domain) if step.line in BOOTS else 0
        answer = replay.run(replay.words(step.line))
        replay.after(step, mark)
        found = _difference(step, answer)
        if found:
            differences[step.line] = found
        if step.line == "undefine vm01":
            break
    unexpected = {line: text for line, text in differences.items() if line not in DIFFERS}
    assert not unexpected, "\n".join(f"{line}: {text}" for line, text in unexpected.items())
    codes = {line for line, text in differences.items() if text.startswith("exit code")}
    assert codes == CODES
    assert set(DIFFERS) - MACHINES <= set(differences), "a difference that is listed is there"


def test_the_end_of_the_session(replay: Replay) -> None:
    """After its domain is undefined: an empty list, and the answers to what can't be."""
    for step in STEPS[-4:]:
        assert _difference(step, replay.run(step.line.split())) == ""


def test_what_virsh_wrote_is_written_back(replay: Replay) -> None:
    """The same elements with the same attributes, and a generation id, which a guest has by default."""
    text = replay.xml()
    assert replay.run(["define", "/dev/stdin"], stdin=text).code == 0
    back = replay.run(["dumpxml", "vm01"]).output
    wanted = sorted(re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip())
    got = sorted(line.strip() for line in back.splitlines() if line.strip())
    assert [line for line in wanted if line not in got] == []
    more = [line for line in got if line not in wanted]
    assert len(more) == 1 and more[0].startswith("<genid>")
