"""Pools of type logical without LVM: definitions, names, libvirt's XML, and LVM's reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qkvm.errors import AlreadyExists, DefinitionError, HostError, InvalidValue
from qkvm.paths import Tree
from qkvm.spec import pool as spec
from qkvm.spec import toml
from qkvm.spec.disk import DiskFormat
from qkvm.spec.libvirt import pool as libvirt
from qkvm.spec.size import Size
from qkvm.storage.pool import content, lvm, vacancy
from qkvm.storage.pool.folder import Folder
from qkvm.storage.pool.logical import Logical
from qkvm.storage.pool.pool import Pool, backend_of, ensure_default

UUID = "8099d254-bf84-4891-b0f0-25e16def9978"
XML = f"""<pool type='logical'>
  <name>vms</name>
  <uuid>{UUID}</uuid>
  <capacity unit='bytes'>0</capacity>
  <allocation unit='bytes'>0</allocation>
  <available unit='bytes'>0</available>
  <source>
    <device path='/dev/sdb'/>
    <device path='/dev/disk/by-id/x'/>
    <name>vg0</name>
    <format type='lvm2'/>
  </source>
  <target>
    <path>/dev/vg0</path>
  </target>
</pool>
"""


def logical(**more: object) -> spec.Pool:
    return spec.Pool(name="vms", uuid=UUID, type=spec.PoolType.LOGICAL, **more)  # type: ignore[arg-type]


def test_a_definition_is_made_whole() -> None:
    whole = spec.validate(logical())
    assert (whole.volume_group, whole.path) == ("vms", "/dev/vms")
    assert spec.validate(whole) == whole
    text = f'name = "vms"\nuuid = "{UUID}"\ntype = "logical"\nvolume_group = "vg0"\ndevices = ["/dev/sdb"]\n'
    read = spec.validate(toml.loads(text, spec.Pool, "x"))
    assert (read.path, read.devices) == ("/dev/vg0", ("/dev/sdb",))
    assert spec.validate(toml.loads(toml.dumps(read), spec.Pool, "x")) == read


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/srv"},
        {"path": "/dev/other"},
        {"mode": "0700"},
        {"owner": 5},
        {"volume_group": "-x"},
        {"volume_group": "a/b"},
        {"volume_group": ".."},
        {"volume_group": "a b"},
        {"volume_group": "x" * 128},
        {"volume_group": "é"},
        {"volume_group": "a\n"},
        {"devices": ("sdb",)},
        {"devices": ("/srv/file",)},
        {"devices": ("/dev/sdb", "/dev/sdb")},
        {"devices": ("/dev/s\ndb",)},
    ],
)
def test_a_definition_that_can_not_be_right_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidValue):
        spec.validate(logical(**change))


def test_a_folder_has_no_volume_group() -> None:
    for change in ({"volume_group": "vg0"}, {"devices": ("/dev/sdb",)}):
        with pytest.raises(InvalidValue, match="has no volume group"):
            spec.validate(spec.Pool(name="p", uuid=UUID, path="/srv", **change))


def test_names_that_lvm_keeps_for_itself() -> None:
    for name in ("snapshot1", "pvmove0", "a_tmeta", "x_vorigin", "lv_rimage_0", "a_mlog", "-x", "a b", ""):
        with pytest.raises(InvalidValue):
            spec.check_lvm_name(name, "volume")
    for name in ("vm01", "a-b", "a.b+c_d", "my-snapshot", "x" * 127):
        assert spec.check_lvm_name(name, "volume") == name
    assert spec.check_lvm_name("snapshots", "volume group"), "a group may be called that"


def test_a_logical_volume_is_raw() -> None:
    def made(**more: object) -> spec.Volume:
        values = {"name": "v", "capacity": Size(1024), **more}
        return spec.validate_volume(spec.Volume(**values), spec.PoolType.LOGICAL)  # type: ignore[arg-type]

    assert made(backing="/dev/vg0/base", backing_format=DiskFormat.RAW).backing_format is None
    for more in (
        {"format": DiskFormat.QCOW2},
        {"capacity": Size(0)},
        {"name": "a/b"},
        {"mode": "9"},
        {"backing": "base"},
        {"backing": "/dev/vg0/base", "backing_format": DiskFormat.QCOW2},
    ):
        with pytest.raises(InvalidValue):
            made(**more)


def test_libvirts_xml_comes_and_goes() -> None:
    read = libvirt.loads(XML, "x.xml")
    assert read == spec.validate(logical(volume_group="vg0", devices=("/dev/sdb", "/dev/disk/by-id/x")))
    assert libvirt.dumps(read) == XML
    short = f"<pool type='logical'><name>vms</name><uuid>{UUID}</uuid></pool>"
    assert libvirt.loads(short, "x.xml").path == "/dev/vms"
    whole = XML.replace("</path>", "</path><permissions><mode>0755</mode></permissions>")
    assert libvirt.loads(whole, "x.xml") == read, "whose a node is says nothing about the group"
    for old, new in (
        ("type='lvm2'", "type='ext4'"),
        ("<name>vg0", "<name>-x"),
        ("/dev/vg0", "/srv"),
        ("<device path", "<device x"),
        ("<format", "<host name='h'/><format"),
        ("/dev/sdb", "/srv/x"),
    ):
        with pytest.raises(DefinitionError):
            libvirt.loads(XML.replace(old, new), "x.xml")


def test_libvirts_xml_of_a_logical_volume() -> None:
    told = libvirt.Told(
        "v",
        "/dev/vg0/v",
        "NGDQ9J-sZYs-x96B-tlIM-h4S2-tLdg-hR6B3N",
        "block",
        "",
        8192,
        4096,
        8192,
        libvirt.Owner(0o100600, 0, 6),
        0,
        0,
        0,
        backing="/dev/vg0/base",
        extents=(("/dev/sdb", 0, 4096), ("/dev/sdb", 8192, 12288), ("/dev/sdc", 0, 4096)),
    )
    text = libvirt.dump_volume(told)
    assert (
        "  <source>\n    <device path='/dev/sdb'>\n      <extent start='0' end='4096'/>\n"
        "      <extent start='8192' end='12288'/>\n    </device>\n    <device path='/dev/sdc'>\n"
        "      <extent start='0' end='4096'/>\n    </device>\n  </source>\n" in text
    )
    assert "<format" not in text and "<backingStore>\n    <path>/dev/vg0/base</path>\n  </backingStore>" in text
    read = libvirt.load_volume(text, "v.xml", spec.PoolType.LOGICAL)
    assert (read.name, read.capacity, read.allocation, read.backing) == ("v", 8, 4, "/dev/vg0/base")
    with pytest.raises(DefinitionError, match="block"):
        libvirt.load_volume(text, "v.xml")
    with pytest.raises(DefinitionError, match="file"):
        libvirt.load_volume(text.replace("'block'", "'file'"), "v.xml", spec.PoolType.LOGICAL)


def test_sources_as_libvirt_has_them() -> None:
    assert libvirt.dump_sources([("vg0", ["/dev/sdb", "/dev/sdc"])]) == (
        "<sources>\n  <source>\n    <device path='/dev/sdb'/>\n    <device path='/dev/sdc'/>\n"
        "    <name>vg0</name>\n    <format type='lvm2'/>\n  </source>\n</sources>\n"
    )
    assert "type='logical' supported='no'" in libvirt.capabilities(lvm=False)


ROW = {
    "lv_name": "a",
    "lv_uuid": "A",
    "lv_attr": "-wi-a-----",
    "lv_size": "8388608",
    "origin": "",
    "origin_size": "",
    "seg_pe_ranges": "/dev/vdb:0-1",
    "vg_extent_size": "4194304",
    "lv_tags": "",
}


def report(*changes: dict[str, str]) -> list[lvm.LogicalVolume]:
    rows = [{**ROW, **change} for change in changes]
    return lvm._volumes(lvm.parse(json.dumps({"report": [{"lv": rows}]}), "lv"))


def test_reports_of_lvm() -> None:
    (one,) = report({}, {"seg_pe_ranges": "/dev/vdb:3-3 /dev/disk/by-path/pci-0:1:0-1"})
    assert (one.size, one.capacity, one.unit, one.active, one.is_snapshot) == (
        8 << 20,
        8 << 20,
        4 << 20,
        True,
        False,
    )
    assert one.extents == (
        lvm.Extent("/dev/vdb", 0, 8 << 20),
        lvm.Extent("/dev/vdb", 12 << 20, 16 << 20),
        lvm.Extent("/dev/disk/by-path/pci-0:1", 0, 8 << 20),
    )
    base, snap, thin, raid, part = report(
        {"origin_size": "8388608", "lv_attr": "owi-a-s---"},
        {
            "lv_name": "s",
            "lv_uuid": "S",
            "lv_attr": "swi-a-s---",
            "lv_size": "4194304",
            "origin": "a",
            "origin_size": "8388608",
        },
        {"lv_name": "t", "lv_uuid": "T", "lv_attr": "twi-aotz--", "seg_pe_ranges": "t_tdata:0-24"},
        {"lv_name": "u", "lv_uuid": "U", "lv_attr": "rwi---r---", "seg_pe_ranges": "u_rimage_0:0-1"},
        {"lv_name": "w", "lv_uuid": "W", "lv_tags": "backup,.qkvm-0-1"},
    )
    assert (snap.origin, snap.size, snap.capacity, base.capacity) == ("a", 4 << 20, 8 << 20, 8 << 20)
    assert thin.is_thin_pool and not thin.extents and not raid.active and not raid.extents
    assert part.tags == ("backup", ".qkvm-0-1")
    for text in ("", "{}", '{"report": [{}]}', '{"report": 1}', "[]"):
        with pytest.raises(HostError, match="can't be read"):
            lvm.parse(text, "lv")


def test_groups_of_reports() -> None:
    row = {"vg_name": "vg0", "vg_uuid": "G", "vg_size": "100", "vg_free": "60", "pv_name": "/dev/sdb"}
    rows = [row, {**row, "pv_name": "/dev/sdc"}, {**row, "vg_uuid": "H", "pv_name": "[unknown]"}]
    assert lvm._groups(rows) == [
        lvm.Group("vg0", "G", 100, 60, ("/dev/sdb", "/dev/sdc")),
        lvm.Group("vg0", "H", 100, 60, ("[unknown]",)),
    ]


def test_a_mapping_is_called_by_both_names() -> None:
    assert lvm.name_of_mapping("vg-0", "a-b.c") == "vg--0-a--b.c"
    assert lvm.mapped_name(Path("/dev/null").stat()) == lvm.mapped_name(Path(__file__).stat()) == ""


def test_a_device_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidValue, match="no block device"):
        vacancy.check([str(tmp_path / "file")])
    with pytest.raises(HostError, match="No such file"):
        vacancy.check(["/dev/there-is-none"])
    assert vacancy.nodes("/dev/there-is-none") == ["/dev/there-is-none"]


def test_one_group_one_pool(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    tree = Tree(str(tmp_path))
    ensure_default(tree)
    pool = Pool.define(tree, XML, "x.xml")
    assert pool.type == "logical" and not pool.active and not pool.info().active
    assert isinstance(backend_of(tree, pool.definition), Logical)
    assert isinstance(Pool(tree, "default").backend, Folder)
    twin = XML.replace("vms", "twin").replace(UUID, UUID.replace("8", "7"))
    with pytest.raises(AlreadyExists, match="Storage source conflict with pool: 'vms'"):
        Pool.define(tree, twin, "x.xml")
    pool.undefine()


def test_a_range_becomes_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000)
    with open(path, "r+b") as stream:
        content.zero(stream.fileno(), 10, 9_990)
        assert content.size_of(stream.fileno()) == 10_000 and not content.is_block(stream.fileno())
    assert path.read_bytes() == b"x" * 10 + bytes(9_980) + b"x" * 10
