"""KVM only where the hardware has it; and who QEMU becomes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.errors import DefinitionError, HostError, InvalidValue
from qkvm.host import settings
from qkvm.host.node import accel
from qkvm.paths import Tree

MachineOf = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MachineOf:
    """Make this machine look like another: its CPU's flags, its modules, its /dev/kvm."""

    def put(
        *,
        flags: str = "fpu sse2",
        modules: tuple[str, ...] = (),
        kvm: str = "open",
        mode: int = 0o660,
        group: int = 1,
    ) -> None:
        device = tmp_path / "kvm"
        if kvm == "open":
            device.touch()
        plain_open = os.open

        def open_device(path: str, mode: int) -> int:
            assert path == "/dev/kvm"
            if kvm == "denied":
                raise PermissionError(13, "x")
            return plain_open(device, mode)

        cpuinfo = f"processor\t: 0\nvendor_id\t: x\nflags\t\t: {flags}\nbugs\t\t: vmxish\n"
        monkeypatch.setattr(os.path, "isdir", lambda path: path.removeprefix("/sys/module/") in modules)
        monkeypatch.setattr(os, "open", open_device)
        monkeypatch.setattr(
            os, "stat", lambda path: os.stat_result((0o020000 | mode, *(1,) * 4, group, *(0,) * 4))
        )
        monkeypatch.setattr(accel, "open", lambda path, **_: io.StringIO(cpuinfo), raising=False)

    return put


@pytest.mark.parametrize(
    ("flags", "modules", "has"),
    [
        ("fpu vmx sse2", (), True),
        ("fpu svm", (), True),
        ("fpu vmxish svm_lock", (), False),
        ("fpu", ("kvm_intel",), True),
        ("fpu", ("kvm_amd",), True),
        # A software KVM brings the plain module only.
        ("fpu", ("kvm", "kvm_pvm"), False),
    ],
)
def test_hardware(machine: MachineOf, flags: str, modules: tuple[str, ...], has: bool) -> None:
    machine(flags=flags, modules=modules)
    assert accel.has_hardware_virtualization() is has


def test_a_cpu_without_flags(machine: MachineOf, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.setattr(accel, "open", lambda path, **_: io.StringIO("Features : fp asimd\n"), raising=False)
    assert not accel.has_hardware_virtualization()


def test_auto(machine: MachineOf) -> None:
    machine(flags="vmx")
    assert accel.choose("auto") == ("kvm", "")
    machine(flags="fpu")
    chosen, warning = accel.choose("auto")
    assert chosen == "tcg"
    assert "no vmx or svm" in warning
    machine(flags="vmx", kvm="denied")
    chosen, warning = accel.choose("auto")
    assert chosen == "tcg"
    assert "/dev/kvm: Permission denied: root lets users in by group daemon: usermod -aG daemon " in warning
    machine(flags="vmx", kvm="denied", mode=0o600, group=0)
    assert "chgrp kvm /dev/kvm; chmod g+rw /dev/kvm" in accel.choose("auto")[1]


def test_kvm_is_taken_at_its_word(machine: MachineOf) -> None:
    machine(flags="fpu")
    assert accel.choose("kvm") == ("kvm", "")
    machine(flags="vmx", kvm="denied")
    with pytest.raises(HostError, match="KVM is not available: /dev/kvm: Permission denied") as caught:
        accel.choose("kvm")
    assert "usermod -aG daemon " in caught.value.hint and "tcg" in caught.value.hint


def test_kvm_that_is_not_there(machine: MachineOf) -> None:
    machine(flags="vmx", kvm="absent")
    with pytest.raises(HostError, match="No such file"):
        accel.choose("kvm")


def test_tcg_needs_nothing(machine: MachineOf) -> None:
    machine(flags="vmx", kvm="denied")
    assert accel.choose("tcg") == ("tcg", "")


# Settings and the user.


def write(tree: Tree, text: str) -> None:
    Path(tree.config).mkdir(parents=True, exist_ok=True)
    Path(tree.settings).write_text(text)


def test_settings_have_defaults(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    assert settings.load(tree) == settings.Settings()
    write(tree, 'user = "root"\nserial_log_kib = 16\n')
    assert settings.load(tree) == settings.Settings(user="root", serial_log_kib=16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('firewall = "pf"', "firewall 'pf' is not known"),
        ("serial_log_kib = 15", "too small"),
        ("serial_log_kib = '16'", "key serial_log_kib"),
        ("nosuch = 1", "nosuch"),
        ("x", "not TOML"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, words: str) -> None:
    tree = Tree(str(tmp_path))
    write(tree, text)
    with pytest.raises(InvalidValue, match=words) as caught:
        settings.load(tree)
    assert tree.settings in str(caught.value)
    assert isinstance(caught.value, DefinitionError) or words.split()[0] in ("firewall", "too")


def test_who_qemu_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped(text: str) -> None:
        monkeypatch.setattr(settings, "open", lambda path, **_: io.StringIO(text), raising=False)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    mapped("         0          0 4294967295\n")
    assert settings.run_as("auto", 1) == "1879048193:1879048193"
    assert settings.run_as("auto", 1) != settings.run_as("auto", 2)
    assert settings.run_as("root", 1) == ""
    assert settings.run_as("kvm", 1) == "kvm"
    mapped("         0       1000          1\n         1     100000      65536\n")
    assert settings.run_as("auto", 1) == "65534:65534"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert settings.run_as("auto", 1) == settings.run_as("kvm", 1) == "", "who is not root stays who they are"
    assert settings.tpm_user("auto", 1) is None
