"""Firmware descriptors: which builds fit, whose word counts, and what damaged ones do."""

from __future__ import annotations

import json
from pathlib import Path

from machines import build

from qkvm.host import firmware

PACKAGED, OWN = "usr/share/qemu/firmware", "etc/qemu/firmware"


def descriptor(code: str, *, machines: str = "pc-q35-*", interface: str = "uefi", device: str = "flash") -> str:
    return json.dumps({
        "interface-types": [interface],
        "mapping": {
            "device": device,
            "executable": {"filename": code, "format": "raw"},
            "nvram-template": {"filename": "/fw/vars.fd", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": [machines]}],
        "features": ["secure-boot"],
    })  # fmt: skip


def codes(root: str, machine: str = "pc-q35-7.2") -> list[str]:
    return [image.code for image in firmware.images("x86_64", machine, root)]


def test_order_and_fit(tmp_path: Path) -> None:
    assert codes(str(tmp_path)) == []
    root = build(tmp_path, {
        "fw/a.fd": "", "fw/b.fd": "", "fw/vars.fd": "",
        f"{PACKAGED}/60-b.json": descriptor("/fw/b.fd"),
        f"{PACKAGED}/50-a.json": descriptor("/fw/a.fd", machines="pc-i440fx-*"),
        f"{PACKAGED}/40-bios.json": descriptor("/fw/a.fd", interface="bios"),
        f"{PACKAGED}/30-memory.json": descriptor("/fw/a.fd", device="memory"),
        f"{PACKAGED}/20-gone.json": descriptor("/fw/gone.fd"),
    })  # fmt: skip
    assert codes(root) == ["/fw/b.fd"] and codes(root, "pc-i440fx-7.2") == ["/fw/a.fd"]
    assert codes(root, "microvm") == [] and firmware.images("aarch64", "pc-q35-7.2", root) == []
    image = firmware.images("x86_64", "pc-q35-7.2", root)[0]
    assert image.variables == "/fw/vars.fd" and image.features == {"secure-boot"}
    assert image.code_format == image.variables_format == "raw"


def test_the_administrator_has_the_last_word(tmp_path: Path) -> None:
    root = build(tmp_path, {
        "fw/a.fd": "", "fw/b.fd": "", "fw/vars.fd": "",
        f"{PACKAGED}/50-x.json": descriptor("/fw/a.fd"), f"{PACKAGED}/60-y.json": descriptor("/fw/b.fd"),
        f"{OWN}/50-x.json": b"", f"{OWN}/10-z.json": descriptor("/fw/a.fd"),
    })  # fmt: skip
    assert codes(root) == ["/fw/a.fd", "/fw/b.fd"]
    (tmp_path / OWN / "10-z.json").write_bytes(b"")
    assert codes(root) == ["/fw/b.fd"]


def test_damaged_descriptors_are_passed_over(tmp_path: Path) -> None:
    damaged: list[object] = [
        "", "{", "[]", "null", b"\xff", "[" * 5000, "{}", '{"interface-types": "uefi"}',
        '{"interface-types": ["uefi"], "targets": [{"architecture": "x86_64", "machines": [7]}]}',
        '{"interface-types": ["uefi"], "targets": [{"architecture": "x86_64", "machines": ["*"]}], "mapping": 1}',
        '{"interface-types": ["uefi"], "targets": [{"architecture": "x86_64", "machines": ["*"]}], '
        '"mapping": {"device": "flash", "executable": 7}}',
    ]  # fmt: skip
    files = {f"{PACKAGED}/{number:02}.json": content for number, content in enumerate(damaged)}
    root = build(
        tmp_path, {**files, "fw/a.fd": "", "fw/vars.fd": "", f"{PACKAGED}/99.json": descriptor("/fw/a.fd")}
    )
    assert codes(root) == ["/fw/a.fd"]
