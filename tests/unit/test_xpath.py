"""Nodes picked out of a description by their paths."""

from __future__ import annotations

import pytest

from qkvm import xml, xpath
from qkvm.errors import InvalidValue

ROOT = xml.parse(
    """<domain type='kvm'>
  <name>a&amp;b</name>
  <devices>
    <disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='block' device='disk'><target dev='vdb' bus='virtio'/></disk>
    <x:own xmlns:x='urn:x'>it's</x:own>
  </devices>
</domain>""",
    "",
)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/domain/name", ["<name>a&amp;b</name>"]),
        ("/domain/name/text()", ["a&amp;b"]),
        ("/domain/@type", [' type="kvm"']),
        ("//disk/@type", [' type="file"', ' type="file"', ' type="block"']),
        ("//disk[2]/target/@dev", [' dev="sda"']),
        ("//disk[last()]/target/@dev", [' dev="vdb"']),
        ("//disk[@device='cdrom']/target/@dev", [' dev="sda"']),
        ('//disk[ @device = "disk" ][2]/target/@dev', [' dev="vdb"']),
        ("//disk[target/@dev='vda']/@device", [' device="disk"']),
        ("//disk[readonly]/target/@*", [' dev="sda"', ' bus="sata"']),
        ("//disk[not(readonly) and @type='block' or @device='none']/target/@dev", [' dev="vdb"']),
        ("//disk[@type!='file']/target/@dev", [' dev="vdb"']),
        ("//target[@dev='sda']/../@device", [' device="cdrom"']),
        ("/domain/devices/*[4]", ['<x:own xmlns:x="urn:x">it&apos;s</x:own>']),
        ("//x:own", ['<x:own xmlns:x="urn:x">it&apos;s</x:own>']),
        ("domain/name | //name", ["<name>a&amp;b</name>"]),
        ("//disk[1]", ['<disk type="file" device="disk">\n  <target dev="vda" bus="virtio"/>\n</disk>']),
        (".//readonly", ["<readonly/>"]),
        ("//nosuch", []),
        ("/nosuch/..", []),
        ("//disk[9]", []),
        ("//name[.='a&b']/text()", ["a&amp;b"]),
    ],
)
def test_paths(path: str, shown: list[str]) -> None:
    assert [xpath.show(item) for item in xpath.find(ROOT, path)] == shown


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//[",
        "count(//disk)",
        "//disk[",
        "//disk]",
        "//disk[@type='x]",
        "/domain/",
        "@",
        "//disk[position()<2]",
        "1 + 1",
        "//disk[string-length(@type)]",
        "$x",
        "//disk[]",
        "ancestor::disk",
        "a" + "[b" * 5000,
        "//disk |",
    ],
)
def test_what_is_no_path_or_more_than_one(path: str) -> None:
    with pytest.raises(InvalidValue, match="Incorrect xpath"):
        xpath.find(ROOT, path)
