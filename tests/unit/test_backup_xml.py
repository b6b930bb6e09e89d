"""libvirt's <domainbackup>: read, refused with the reason, and written."""

from __future__ import annotations

import pytest

from qkvm.errors import DefinitionError
from qkvm.spec.libvirt.backup import BackupDisk, Server, dumps, loads

UNIX = "<server transport='unix' socket='/run/x.sock'/>"


def test_pull_mode_is_read_and_written() -> None:
    text = (
        f"<domainbackup mode='pull'><incremental>cp</incremental>{UNIX}<disks>"
        "<disk name='vda' backup='yes' type='file' exportname='a' exportbitmap='b'>"
        "<driver type='qcow2'/><scratch file='/x'/></disk><disk name='vdb' backup='no'/></disks></domainbackup>"
    )
    told = loads(text, "b.xml")
    assert told.since == "cp" and told.server == Server("/run/x.sock")
    assert told.disks == (
        BackupDisk("vda", True, "/x", "qcow2", since=None, export="a", marks="b"),
        BackupDisk("vdb", False),
    )
    disk = told.disks[0]._replace(since="cp")
    written = dumps([disk, told.disks[1]], told.server)
    assert UNIX in written and "<scratch file='/x'/>" in written
    assert "incremental='cp' exportname='a' exportbitmap='b'" in written
    again = loads(written, "again.xml")
    assert again.disks == (disk, told.disks[1]) and again.server == told.server
    tcp = loads("<domainbackup mode='pull'><server/></domainbackup>", "b.xml").server
    assert tcp == Server("", "localhost", 10809)
    assert "<server transport='tcp' name='localhost' port='10809'/>" in dumps([], tcp)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<domainbackup mode='odd'/>", "mode 'odd' is not known"),
        ("<domainbackup mode='pull'/>", "pull mode needs a <server>"),
        ("<domainbackup><server/></domainbackup>", "server"),
        ("<domainbackup mode='pull'><server tls='yes'/></domainbackup>", "tls is not supported"),
        ("<domainbackup mode='pull'><server transport='rdma'/></domainbackup>", "transport 'rdma' is not supp"),
        ("<domainbackup mode='pull'><server port='70000'/></domainbackup>", "port 70000 is none"),
        ("<domainbackup mode='pull'><server name=''/></domainbackup>", "name '' is no host's"),
        ("<domainbackup mode='pull'><server transport='unix' socket='x'/></domainbackup>", "socket"),
        (
            f"<domainbackup mode='pull'>{UNIX}<disks><disk name='vda'><driver type='raw'/></disk></disks>"
            "</domainbackup>",
            "format 'raw' is not supported",
        ),
        (
            f"<domainbackup mode='pull'>{UNIX}<disks><disk name='vda' exportname='{'x' * 1024}'/></disks>"
            "</domainbackup>",
            "exportname is longer than 1023 bytes",
        ),
        (
            f"<domainbackup mode='pull'>{UNIX}<disks><disk name='vda'><target file='/x'/></disk></disks>"
            "</domainbackup>",
            "target",
        ),
        ("<domainbackup><disks><disk name='vda' exportname='x'/></disks></domainbackup>", "exportname"),
    ],
)
def test_what_can_not_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=r"b\.xml:1") as caught:
        loads(text, "b.xml")
    assert words in str(caught.value)
