"""Command lines of probes: the guest's hardware, and nothing of the host's or the guest's own behind it."""

from __future__ import annotations

import json
import re

import golden_cases
import pytest
from golden_cases import FEATURES, MACHINES

from qkvm.qemu import needs
from qkvm.qemu.harmless import harmless
from qkvm.qemu.render import Option
from qkvm.spec.domain import Machine

CASES = [(machine, feature) for machine in MACHINES for feature in FEATURES]


@pytest.mark.parametrize(("machine", "feature"), CASES, ids=[f"{one}-{two}" for one, two in CASES])
def test_nothing_of_the_guests_own_is_named(machine: Machine, feature: str) -> None:
    options = golden_cases.options(FEATURES[feature](machine))
    kept, left = harmless(options)
    text = json.dumps([option.argv() for option in kept])
    assert not re.search(r"/(run|var|dev/fdset|dev/shm|proc)/|\bfd=|\\\"fd\\\"|logfile|\.sock|server=", text)
    assert {option.name for option in kept}.isdisjoint(
        {
            "-pidfile",
            "-add-fd",
            "-mon",
            "-vnc",
            "-incoming",
            "-tpmdev",
            "-overcommit",
            "-kernel",
            "-initrd",
        }
    )
    assert "-S" in {option.name for option in kept}
    types = [
        option.value["type"] for option in kept if option.name == "-netdev" and isinstance(option.value, dict)
    ]
    assert set(types) <= {"hubport"}
    before, after = needs.of(options), needs.of(kept)
    assert set(before.devices) - set(after.devices) == set(left), "all of the hardware, but what is told of"
    assert all(before.devices[name] == after.devices[name] for name in after.devices)
    shares, sockets = ("vhost-user-fs-pci", "vhost-user-fs-device"), ("vhost-vsock-pci", "vhost-vsock-device")
    assert set(left) <= {*shares, *sockets, "tpm-crb", "tpm-tis"}


def test_each_nic_has_a_hub_of_its_own() -> None:
    kept, _ = harmless([Option("-netdev", {"type": "tap", "id": f"n{number}", "fd": "7"}) for number in range(3)])
    assert [option.value for option in kept[:3]] == [
        {"type": "hubport", "id": f"n{number}", "hubid": number} for number in range(3)
    ]


def test_images_are_empty() -> None:
    kept, _ = harmless(
        [
            Option(
                "-blockdev",
                {
                    "driver": "file",
                    "node-name": "f",
                    "filename": "/srv/x",
                    "read-only": True,
                    "aio": "native",
                    "cache": {"direct": True},
                },
            ),
            Option("-blockdev", {"driver": "qcow2", "node-name": "q", "file": "f", "backing": None}),
        ]
    )
    file, image = kept[0].value, kept[1].value
    assert isinstance(file, dict) and file["driver"] == "null-co" and file["size"] % 4096 == 0
    assert file["node-name"] == "f" and file["read-only"] and file["cache"] == {"direct": True}
    assert set(file) <= {"driver", "node-name", "size", "read-zeroes", "read-only", "cache"}
    assert image == {"driver": "raw", "file": "f", "node-name": "q"}


def test_what_is_not_known_is_left_out_and_told() -> None:
    """An administrator's own template may have any option, and files behind it."""
    kept, left = harmless(
        [
            Option("-drive", "file=/srv/disk.img,if=virtio"),
            Option("-device", "vfio-pci,host=01:00.0"),
            Option("-device", {"driver": "vhost-vsock-pci", "guest-cid": 3}),
            Option("-usb", None),
            Option("-device", {"driver": "usb-host", "vendorid": 1}),
            Option("-drive", "file=/srv/b"),
            Option("-object", {"qom-type": "secret", "id": "s", "file": "/srv/s"}),
            Option(
                "-object",
                {
                    "qom-type": "memory-backend-file",
                    "id": "m",
                    "size": 1,
                    "mem-path": "/srv/m",
                    "prealloc": True,
                    "share": True,
                },
            ),
            Option("-fsdev", "local,id=f,path=/srv,,1,security_model=none"),
            Option("-smbios", "type=1,serial=a"),
            Option("-smbios", "file=/proc/self/fd/107"),
            Option("-S", None),
        ]
    )
    assert kept == [
        Option(
            "-object",
            {
                "qom-type": "memory-backend-ram",
                "id": "m",
                "size": 1,
                "share": True,
                "prealloc": False,
            },
        ),
        Option("-fsdev", "local,id=f,path=/,security_model=none"),
        Option("-smbios", "type=1,serial=a"),
        Option("-smbios", "type=11,value="),
        Option("-S", None),
    ]
    assert left == ["-drive", "-device", "vhost-vsock-pci", "-usb", "usb-host"]


def test_needs_of_a_command_line() -> None:
    found = needs.of(golden_cases.options(golden_cases.hardware(Machine.Q35)))
    assert found.devices["virtio-balloon-pci"] == {"addr", "free-page-reporting", "deflate-on-oom"}
    assert found.objects["iothread"] == {"poll-max-ns"}
    assert found.objects["pc-q35-7.2-machine"] >= {"hpet", "sata", "memory-backend"}
    assert found.options["sandbox"] >= {"obsolete", "spawn"}
    assert found.options["smbios"] == {"type", "manufacturer", "serial"}, "a comma in a value is doubled"
    old, new = golden_cases.abilities("7.2"), golden_cases.abilities("10.0")
    assert needs.missing_options(found, old, old) == []
    assert needs.missing_types(found, old) == []
    run_with = needs.Needs({}, {}, {"run-with": {"user"}, "no-such": {"x"}, "m": {"size", "slots"}})
    assert needs.missing_options(run_with, new, old) == ["-run-with"]
    assert needs.missing_types(needs.Needs({"no-such": set()}, {"secret": set()}, {}), new) == ["no-such"]
