"""The parts of a definition that a guest can see; they must not change when its state is restored. No I/O.

libvirt calls this ABI stability. All fields count except those listed here, which concern only the host. So a new
field counts until it is listed. The generation id is the exception: it tells a guest that its state is an older
one (QEMU's device vmgenid), so that a Linux draws new random numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

_HOSTS = (
    "title", "description", "metadata", "emulator", "cputune", "memtune", "blkiotune",
    "on_poweroff", "on_reboot", "on_crash", "vnc", "filesystems", "autostart", "autostart_once",
    "iothreads", "throttle_groups", "credentials",
)  # fmt: skip
"""Fields of a domain that a guest can't see; ``filesystems`` are compared by their tags, and credentials
matter at its next boot."""

_HOSTS_OF: dict[type, tuple[str, ...]] = {
    spec.Disk: (
        "path", "format", "backing", "cache", "io", "discard", "detect_zeroes", "throttle", "throttle_groups",
        "shareable", "iothread",
    ),
    spec.Nic: (
        "type", "source", "source_mode", "target", "link", "inbound", "outbound", "isolated", "filter", "ip",
        "vlan", "vhost",
    ),
    spec.Serial: ("kind", "path", "host", "port"),
    spec.Channel: ("kind", "path"),
    spec.Boot: ("kernel", "initrd", "cmdline", "loader", "nvram", "nvram_template"),
    spec.Rng: ("source", "rate_bytes", "rate_period"),
    spec.Vcpus: ("cpuset",),
    spec.Vsock: ("cid",),
}  # fmt: skip
"""Fields of a domain's parts that a guest can't see."""


def fitted(wanted: spec.Domain, saved: spec.Domain) -> spec.Domain:
    """Return a definition for the state of a saved guest: the wanted one, completed from the saved one.

    :raises InvalidValue: the guest would see another machine; names the first difference.
    """
    password = saved.vnc.password if saved.vnc is not None else ""
    if wanted.vnc is not None and not wanted.vnc.password and password:
        # It is not shown to the user, so an edited copy does not have it.
        wanted = replace(wanted, vnc=replace(wanted.vnc, password=password))
    wanted = replace(
        wanted,
        cpu=saved.cpu if _cpu(wanted.cpu) == _cpu(saved.cpu) else wanted.cpu,
        accel=saved.accel if wanted.accel is spec.Accel.AUTO else wanted.accel,
        machine_version=wanted.machine_version or saved.machine_version,
        memory=replace(wanted.memory, current=saved.memory.current),
        root_ports=saved.root_ports,
    )
    before, after = _visible(saved), _visible(wanted)
    for key, value in before.items():
        if after[key] != value:
            raise InvalidValue(
                f"the saved guest has another {_first_difference(key, value, after[key])}",
                hint="only what the guest can't see may change: paths, networks, tuning",
            )
    return wanted


def same(present: spec.Domain, past: spec.Domain) -> bool:
    """Return whether a machine is unchanged, with the same images and networks, so that an old state fits it.

    The balloon's size is part of the state.
    """

    def bare(domain: spec.Domain) -> spec.Domain:
        # A QEMU that runs on would show the guest the present credentials at its next boot.
        hosts = {name: getattr(present, name) for name in _HOSTS if name != "credentials"}
        if has_genid(domain) and has_genid(present):
            hosts["genid"] = present.genid
        return replace(domain, **hosts, memory=replace(domain.memory, current=present.memory.current))

    return bare(present) == bare(past)


def renewed(domain: spec.Domain) -> spec.Domain:
    """Return the definition for a guest that is taken from an older state: with another generation id, if any."""
    return replace(domain, genid=units.random_uuid()) if has_genid(domain) else domain


def with_genid(domain: spec.Domain, stored: spec.Domain | None) -> spec.Domain:
    """Return a definition with a generation id unless it says that it has none.

    :param stored: the definition that it replaces; it keeps that one's, and gets none where that has none.
    """
    if domain.genid or domain.machine is spec.Machine.MICROVM:
        return domain
    return replace(domain, genid=units.random_uuid() if stored is None else stored.genid)


def has_genid(domain: spec.Domain) -> bool:
    """Return whether the guest has the device for a generation id."""
    return domain.genid not in ("", spec.NO_GENID)


def _cpu(text: str) -> tuple[str, ...]:
    """Return a CPU model with its features in one spelling: '+x' is 'x=on'."""
    signs = {"+": "on", "-": "off"}
    model, *features = text.split(",")
    return model, *(f"{one[1:]}={signs[one[0]]}" if one[:1] in signs else one for one in features)


def _visible(domain: spec.Domain) -> dict[str, Any]:
    plain: dict[str, Any] = {
        field: _part(getattr(domain, field)) for field in domain.__struct_fields__ if field not in _HOSTS
    }
    # Another state gets another id; what counts is whether the guest has the device.
    plain["genid"] = has_genid(domain)
    plain["filesystems"] = [share.target for share in domain.filesystems]
    return plain


def _part(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_part(item) for item in value]
    if isinstance(value, msgspec.Struct):
        hidden = _HOSTS_OF.get(type(value), ())
        return {name: _part(getattr(value, name)) for name in value.__struct_fields__ if name not in hidden}
    return value


def _first_difference(key: str, before: Any, after: Any) -> str:
    """Return the first field that differs, as the user finds it in a definition: 'vcpus', 'nics[1].mac'."""
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            return f"number of {key}: {len(before)}, not {len(after)}"
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            if one != other:
                return _first_difference(f"{key}[{number}]", one, other)
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before:
            if before[name] != after.get(name):
                return _first_difference(f"{key}.{name}", before[name], after.get(name))
    return f"{key}: {_shown(before)}, not {_shown(after)}"


def _shown(value: Any) -> str:
    if isinstance(value, Size):
        return units.format_size(value)
    return f"'{units.printable(value)}'" if isinstance(value, str) else str(value)
