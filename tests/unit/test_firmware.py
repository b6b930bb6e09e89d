"""Firmware descriptors: which builds fit, whose word counts, and what damaged ones do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from machines import build
from msgspec.structs import replace

from qkvm.domain.image import firmware as domain_firmware
from qkvm.errors import HostError, InvalidState, InvalidValue
from qkvm.files import Undo
from qkvm.host.node import firmware
from qkvm.paths import Tree
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

PACKAGED, OWN = "usr/share/qemu/firmware", "etc/qemu/firmware"


def descriptor(code: str, *, machines: str = "pc-q35-*", interface: str = "uefi", device: str = "flash") -> str:
    return json.dumps(
        {
            "interface-types": [interface],
            "mapping": {
                "device": device,
                "executable": {"filename": code, "format": "raw"},
                "nvram-template": {"filename": "/fw/vars.fd", "format": "raw"},
            },
            "targets": [{"architecture": "x86_64", "machines": [machines]}],
            "features": ["secure-boot"],
        }
    )


def codes(root: str, machine: str = "pc-q35-7.2") -> list[str]:
    return [image.code for image in firmware.images("x86_64", machine, root)]


def test_order_and_fit(tmp_path: Path) -> None:
    assert codes(str(tmp_path)) == []
    root = build(
        tmp_path,
        {
            "fw/a.fd": "",
            "fw/b.fd": "",
            "fw/vars.fd": "",
            f"{PACKAGED}/60-b.json": descriptor("/fw/b.fd"),
            f"{PACKAGED}/50-a.json": descriptor("/fw/a.fd", machines="pc-i440fx-*"),
            f"{PACKAGED}/40-bios.json": descriptor("/fw/a.fd", interface="bios"),
            f"{PACKAGED}/30-memory.json": descriptor("/fw/a.fd", device="memory"),
            f"{PACKAGED}/20-gone.json": descriptor("/fw/gone.fd"),
        },
    )
    assert codes(root) == ["/fw/b.fd"] and codes(root, "pc-i440fx-7.2") == ["/fw/a.fd"]
    assert codes(root, "microvm") == [] and firmware.images("aarch64", "pc-q35-7.2", root) == []
    image = firmware.images("x86_64", "pc-q35-7.2", root)[0]
    assert image.variables == "/fw/vars.fd" and image.features == {"secure-boot"}
    assert image.code_format == image.variables_format == "raw"


def test_the_administrator_has_the_last_word(tmp_path: Path) -> None:
    root = build(
        tmp_path,
        {
            "fw/a.fd": "",
            "fw/b.fd": "",
            "fw/vars.fd": "",
            f"{PACKAGED}/50-x.json": descriptor("/fw/a.fd"),
            f"{PACKAGED}/60-y.json": descriptor("/fw/b.fd"),
            f"{OWN}/50-x.json": b"",
            f"{OWN}/10-z.json": descriptor("/fw/a.fd"),
        },
    )
    assert codes(root) == ["/fw/a.fd", "/fw/b.fd"]
    (tmp_path / OWN / "10-z.json").write_bytes(b"")
    assert codes(root) == ["/fw/b.fd"]


def test_damaged_descriptors_are_passed_over(tmp_path: Path) -> None:
    damaged: list[object] = [
        "",
        "{",
        "[]",
        "null",
        b"\xff",
        "[" * 5000,
        "{}",
        '{"interface-types": "uefi"}',
        '{"interface-types": ["uefi"], "targets": [{"architecture": "x86_64", "machines": [7]}]}',
        '{"interface-types": ["uefi"], "targets": [{"architecture": "x86_64", "machines": ["*"]}], "mapping": 1}',
        '{"interface-types": ["uefi"], "targets": [{"architecture": "x86_64", "machines": ["*"]}], '
        '"mapping": {"device": "flash", "executable": 7}}',
    ]
    files = {f"{PACKAGED}/{number:02}.json": content for number, content in enumerate(damaged)}
    root = build(
        tmp_path, {**files, "fw/a.fd": "", "fw/vars.fd": "", f"{PACKAGED}/99.json": descriptor("/fw/a.fd")}
    )
    assert codes(root) == ["/fw/a.fd"]


def debian(root: Path) -> str:
    """The three descriptors of Debian's ovmf."""
    files: dict[str, object] = {f"fw/{name}.fd": "" for name in ("ms", "secboot", "plain", "vars")}
    secure = ["secure-boot", "requires-smm"]
    for name, code, machines, features in (
        ("40-enrolled", "ms", ["pc-q35-*"], [*secure, "enrolled-keys"]),
        ("50-secure", "secboot", ["pc-q35-*"], secure),
        ("60-plain", "plain", ["pc-i440fx-*", "pc-q35-*"], []),
    ):
        plain = json.loads(descriptor(f"/fw/{code}.fd"))
        plain["targets"][0]["machines"] = machines
        files[f"{PACKAGED}/{name}.json"] = json.dumps({**plain, "features": features})
    return build(root, files)


def chosen(root: str, machine: str = "pc-q35-7.2", *, secure: bool = False, smm: bool | None = None) -> str:
    found = firmware.survey("x86_64", machine, root)
    return firmware.choose(found, secure=secure, smm=smm, what=f"machine {machine}").code


def test_choice(tmp_path: Path) -> None:
    root = debian(tmp_path)
    assert chosen(root, secure=True) == "/fw/ms.fd"
    assert chosen(root) == chosen(root, "pc-i440fx-9.1") == "/fw/plain.fd"
    assert chosen(root, smm=True) == "/fw/secboot.fd"
    found = firmware.of_code("/fw/secboot.fd", root)
    assert found is not None and found.variables == "/fw/vars.fd"
    assert firmware.of_code("/fw/other.fd", root) is None
    assert firmware.files(root) == {f"/fw/{name}.fd" for name in ("ms", "secboot", "plain", "vars")}


def test_every_rejection_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no UEFI firmware is installed") as nothing:
        chosen(str(tmp_path))
    assert nothing.value.hint == "on Debian: apt install ovmf"
    root = debian(tmp_path)
    for name, content in (
        ("10-bios", descriptor("/fw/ms.fd", interface="bios")),
        ("11-memory", descriptor("/fw/ms.fd", device="memory")),
        ("12-gone", descriptor("/fw/gone.fd", machines="*")),
        ("13-broken", "{"),
        ("14-list", "[]"),
        ("15-hidden", b""),
        ("16-arm", descriptor("/fw/ms.fd").replace("x86_64", "aarch64")),
        ("17-format", descriptor("/fw/ms.fd").replace('"raw"', '"vmdk"', 1)),
        ("18-combined", descriptor("/fw/ms.fd").replace('"flash"', '"flash", "mode": "combined"')),
        ("19-nothing", descriptor("/fw/ms.fd").replace("executable", "absent")),
        ("20-forgetful", descriptor("/fw/ms.fd", machines="*").replace("nvram-template", "absent")),
    ):
        build(tmp_path, {f"{PACKAGED}/{name}.json": content})
    with pytest.raises(HostError) as caught:
        chosen(root, "pc-i440fx-7.2", secure=True)
    words = str(caught.value)
    assert words.startswith("no UEFI firmware fits machine pc-i440fx-7.2: ") and "\n" not in words
    reasons = {part.split(".json ")[0].rpartition("/")[2]: part.split(".json ")[1] for part in words.split("; ")}
    assert reasons == {
        "10-bios": "is no UEFI",
        "11-memory": "is not for flash",
        "12-gone": "names /fw/gone.fd, which is not there",
        "13-broken": "is not JSON",
        "14-list": "is not a JSON object",
        "15-hidden": "is empty, which hides one of its name",
        "16-arm": "is not for x86_64",
        "17-format": "has files of format vmdk and raw",
        "18-combined": "has a mapping of mode 'combined'",
        "19-nothing": "names no executable",
        "20-forgetful": "keeps no variables",
        "40-enrolled": "is for machines pc-q35-*",
        "50-secure": "is for machines pc-q35-*",
        "60-plain": "lacks secure-boot",
    }
    with pytest.raises(HostError) as caught:
        chosen(root, secure=True, smm=False)
    assert "40-enrolled.json requires SMM, which the definition turns off" in str(caught.value)
    (tmp_path / PACKAGED / "60-plain.json").unlink()
    with pytest.raises(HostError) as caught:
        chosen(root)
    assert "40-enrolled.json turns Secure Boot on (enrolled-keys)" in str(caught.value)
    assert "50-secure.json requires SMM, which the definition does not turn on (features.smm)" in str(caught.value)


def domain(**boot: Any) -> spec.Domain:
    memory = spec.Memory(current=Size(1 << 20), maximum=Size(1 << 20))
    plain = spec.Domain(name="u", uuid="5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11", memory=memory)
    return spec.validate(replace(plain, boot=spec.Boot(firmware=spec.Firmware.UEFI, **boot)))


def test_a_definition_names_its_files(tmp_path: Path) -> None:
    """The formats go by the names; none of the firmware's files is ever the store."""
    tree = Tree(str(tmp_path))
    code, template = tmp_path / "code.fd", tmp_path / "vars.qcow2"
    for path in (code, template):
        path.touch()
    flash = domain_firmware.choose(tree, domain(loader=str(code), nvram_template=str(template)))
    assert flash is not None and (flash.code_format, flash.template_format) == ("raw", "qcow2")
    assert (
        flash.variables == str(tmp_path / "var/lib/qkvm/nvram/u_VARS.qcow2") and flash.variables_format == "qcow2"
    )
    link = tmp_path / "link.fd"
    link.symlink_to(code)
    for store in (code, template, link):
        with pytest.raises(HostError, match="is a file of the firmware's own"):
            domain_firmware.choose(tree, domain(loader=str(code), nvram_template=str(template), nvram=str(store)))
    with pytest.raises(HostError, match="loader .*/gone.fd is not there"):
        domain_firmware.choose(tree, domain(loader=str(tmp_path / "gone.fd")))
    bare = domain_firmware.choose(tree, domain(loader=str(code), nvram=str(tmp_path / "own.fd")))
    assert bare is not None and bare.variables_format == "raw" and not bare.template
    with pytest.raises(HostError, match="no template to make nvram"), Undo() as undo:
        domain_firmware.make_store(tree, bare, undo)
    # One that is there is taken as it is: nothing tells what its size should be.
    (tmp_path / "own.fd").touch()
    with Undo() as undo:
        domain_firmware.make_store(tree, bare, undo)
    with pytest.raises(InvalidState, match="has 0 bytes and that of firmware .* has 7"), Undo() as undo:
        template.write_bytes(b"1234567")
        domain_firmware.make_store(tree, bare._replace(template=str(template), template_format="raw"), undo)


def test_secure_boot_is_of_a_q35_with_smm() -> None:
    secure = domain(secure=True)
    for machine, features in ((spec.Machine.PC, spec.Features()), (spec.Machine.Q35, spec.Features(smm=False))):
        with pytest.raises(InvalidValue, match="Secure Boot needs SMM"):
            spec.validate(replace(secure, machine=machine, features=features))
