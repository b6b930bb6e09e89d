"""Verbs on the guest's operating system: information, clock, CPUs, users and file systems."""

from __future__ import annotations

import time

from qkvm.cli import common
from qkvm.cli.output import json_text, measured, show_value, table
from qkvm.cli.parse import UsageError
from qkvm.domain.guest import filesystems as guestfs
from qkvm.errors import InvalidValue
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def domhostname(context: Context, args: Args) -> None:
    """Show the guest's host name."""

    source = args.text("source") or "agent"
    if source not in ("agent", "lease"):
        raise InvalidValue(f"Unknown data source '{source}'", hint="agent or lease")
    name = common.domain(context, args).guest.hostname(source=source)
    show_value(context, args, hostname=name)


def domtime(context: Context, args: Args) -> None:
    """Show or set the guest's clock."""

    args.exclusive("time", "now", "sync")
    domain = common.domain(context, args)
    if args.flag("now") or args.flag("sync") or args.has("time"):
        now = int(time.time()) if args.flag("now") else args.signed("time")
        return domain.guest.set_time(None if args.flag("sync") else now)
    seconds, nanoseconds = domain.guest.time()
    if args.json:
        return context.out(json_text({"time_ns": seconds * 10**9 + nanoseconds}))
    return context.out(f"Time: {_calendar(seconds) if args.flag('pretty') else seconds}")


def _calendar(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        # A guest can report a time that the calendar cannot represent.
        return str(seconds)


def guestinfo(context: Context, args: Args) -> None:
    """Show what the agent reports about the guest, all groups or the selected ones."""

    from qkvm.domain.guest import filesystems as guestfs
    from qkvm.domain.guest import info as guestinfo

    domain = common.domain(context, args)
    found = domain.guest.info([group for group in guestinfo.COMMANDS if args.flag(group)])
    disks = [disk for filesystem in found.get("filesystem", ()) for disk in filesystem.disk]
    disks += [disk.address for disk in found.get("disk", ()) if disk.address is not None]
    targets = guestfs.targets(domain, disks)
    if args.json:
        return context.out(json_text(_plain(found, targets)))
    lines = (f"{name:<20}: {_shown(value)}\n" for name, value in _parameters(found, targets))
    return context.out("".join(lines))


def _plain(found: dict[str, Any], targets: dict[Any, str]) -> dict[str, Any]:
    """Return what the agent has told, under the names that JSON has here."""
    import msgspec

    plain: dict[str, Any] = _snake(msgspec.to_builtins(found))
    for one in ("user", "filesystem", "disk", "interface"):
        if one in plain:
            plain[f"{one}s"] = plain.pop(one)
    plain["users"] = [measured(user, at="login_time") for user in plain.get("users", ())]
    devices = [{"device": one.dev, "target": target} for one, target in targets.items() if one.dev]
    return {**plain, "targets": devices}


def _snake(value: Any) -> Any:
    """Return a reply of the agent with its keys' hyphens as underscores."""
    if isinstance(value, dict):
        return {name.replace("-", "_"): _snake(one) for name, one in value.items()}
    return [_snake(one) for one in value] if isinstance(value, list | tuple) else value


def _shown(value: object) -> str:
    """Return a value as virsh shows typed parameters."""
    return ("no", "yes")[value] if isinstance(value, bool) else printable(str(value))


def _parameters(found: dict[str, Any], targets: dict[Any, str]) -> Iterable[tuple[str, object]]:
    """Yield names and values in virsh's order; values that the guest did not report are omitted."""
    from msgspec import UNSET
    from msgspec.structs import asdict

    if "user" in found:
        yield "user.count", len(found["user"])
        for number, user in enumerate(found["user"]):
            yield f"user.{number}.name", user.user
            if user.domain is not UNSET:
                yield f"user.{number}.domain", user.domain
            # Milliseconds; limit absurd values from a guest.
            yield f"user.{number}.login-time", int(min(max(user.login_time, 0), 1e15) * 1000)
    if "os" in found:
        for name, value in asdict(found["os"]).items():
            if value is not UNSET:
                yield f"os.{name.replace('_', '-')}", value
    if "timezone" in found:
        if found["timezone"].zone is not UNSET:
            yield "timezone.name", found["timezone"].zone
        yield "timezone.offset", found["timezone"].offset
    if "hostname" in found:
        yield "hostname", found["hostname"]
    yield from _filesystems(found, targets)
    yield from _disks(found, targets)
    if "interface" in found:
        yield "if.count", len(found["interface"])
        for number, interface in enumerate(found["interface"]):
            yield f"if.{number}.name", interface.name
            if interface.hardware_address:
                yield f"if.{number}.hwaddr", interface.hardware_address
            yield f"if.{number}.addr.count", len(interface.ip_addresses)
            for place, address in enumerate(interface.ip_addresses):
                yield f"if.{number}.addr.{place}.type", address.ip_address_type
                yield f"if.{number}.addr.{place}.addr", address.ip_address
                yield f"if.{number}.addr.{place}.prefix", address.prefix
    if "load" in found:
        for minutes in ("1m", "5m", "15m"):
            yield f"load.{minutes}", f"{getattr(found['load'], f'load{minutes}'):f}"


def _filesystems(found: dict[str, Any], targets: dict[Any, str]) -> Iterable[tuple[str, object]]:
    from msgspec import UNSET

    if "filesystem" not in found:
        return
    yield "fs.count", len(found["filesystem"])
    for number, filesystem in enumerate(found["filesystem"]):
        yield f"fs.{number}.name", filesystem.name
        yield f"fs.{number}.mountpoint", filesystem.mountpoint
        yield f"fs.{number}.fstype", filesystem.type
        if filesystem.total_bytes is not UNSET:
            yield f"fs.{number}.total-bytes", filesystem.total_bytes
        if filesystem.used_bytes is not UNSET:
            yield f"fs.{number}.used-bytes", filesystem.used_bytes
        yield f"fs.{number}.disk.count", len(filesystem.disk)
        for place, disk in enumerate(filesystem.disk):
            if disk in targets:
                yield f"fs.{number}.disk.{place}.alias", targets[disk]
            if disk.serial:
                yield f"fs.{number}.disk.{place}.serial", disk.serial
            if disk.dev:
                yield f"fs.{number}.disk.{place}.device", disk.dev


def _disks(found: dict[str, Any], targets: dict[Any, str]) -> Iterable[tuple[str, object]]:
    from msgspec import UNSET

    if "disk" not in found:
        return
    yield "disk.count", len(found["disk"])
    for number, disk in enumerate(found["disk"]):
        yield f"disk.{number}.name", disk.name
        yield f"disk.{number}.partition", disk.partition
        if disk.dependencies:
            yield f"disk.{number}.dependency.count", len(disk.dependencies)
            for place, name in enumerate(disk.dependencies):
                yield f"disk.{number}.dependency.{place}.name", name
        if disk.address is not None:
            if disk.address.serial:
                yield f"disk.{number}.serial", disk.address.serial
            if disk.address in targets:
                yield f"disk.{number}.alias", targets[disk.address]
        if disk.alias is not UNSET:
            yield f"disk.{number}.guest_alias", disk.alias


def guestvcpus(context: Context, args: Args) -> None:
    """Show which vCPUs are online in the guest, or set some online or offline."""
    from qkvm.domain.tuning.threads import parse_cpus
    from qkvm.units import format_cpu_list

    args.exclusive("enable", "disable")
    args.needs("enable", "cpulist")
    args.needs("disable", "cpulist")
    cpulist = args.text("cpulist")
    domain = common.domain(context, args)
    if cpulist is not None:
        if not args.flag("enable") and not args.flag("disable"):
            raise UsageError("One of options --enable or --disable is required by option --cpulist")
        return domain.guest.set_vcpus_online(parse_cpus(cpulist), args.flag("enable"))
    found = domain.guest.vcpus()
    if args.json:
        return context.out(
            json_text(
                [{"vcpu": one.logical_id, "online": one.online, "offlinable": one.can_offline} for one in found]
            )
        )
    sets = {
        "vcpus": {one.logical_id for one in found},
        "online": {one.logical_id for one in found if one.online},
        "offlinable": {one.logical_id for one in found if one.can_offline},
    }
    return context.out("".join(f"{name:<15}: {format_cpu_list(numbers)}\n" for name, numbers in sets.items()))


def set_user_password(context: Context, args: Args) -> None:
    """Set the password of a user in the guest."""

    domain, user = common.domain(context, args), args.required("user")
    domain.guest.set_password(user, args.required("password"), encrypted=args.flag("encrypted"))
    context.say(f"Password set successfully for {printable(user)} in {domain.name}")


def get_user_sshkeys(context: Context, args: Args) -> None:
    """Show the SSH keys that are authorized for a user in the guest."""

    keys = common.domain(context, args).guest.ssh_keys(args.required("user"))
    context.out(json_text(keys) if args.json else "".join(f"{printable(key)}\n" for key in keys))


def set_user_sshkeys(context: Context, args: Args) -> None:
    """Authorize SSH keys for a user in the guest, or remove them."""

    args.needs("remove", "file")
    args.exclusive("reset", "remove")
    path = args.text("file")
    if path is None and not args.flag("reset"):
        raise UsageError("Option --file is required")
    domain, user = common.domain(context, args), args.required("user")
    keys = common.read_text(path)[0].splitlines() if path is not None else []
    if path is not None and not any(key.strip() for key in keys):
        raise InvalidValue(f"File {printable(path)} contains no keys")
    if args.flag("remove"):
        domain.guest.remove_ssh_keys(user, keys)
    else:
        domain.guest.add_ssh_keys(user, keys, reset=args.flag("reset"))


def domfsinfo(context: Context, args: Args) -> None:
    """List the file systems that are mounted in the guest."""
    from msgspec import to_builtins

    domain = common.domain(context, args)
    found = domain.guest.filesystems()
    targets = guestfs.targets(domain, [disk for one in found for disk in one.disk])
    below = [[targets[disk] for disk in one.disk if disk in targets] for one in found]
    if args.json:
        rows = [{**_snake(to_builtins(one)), "targets": names} for one, names in zip(found, below, strict=True)]
        return context.out(json_text(rows))
    if not found:
        return context.say("No filesystems are mounted in the domain")
    lines = [
        (one.mountpoint, one.name, one.type, ",".join(names)) for one, names in zip(found, below, strict=True)
    ]
    return context.out(table(("Mountpoint", "Name", "Type", "Target"), lines, header=not context.quiet))


def domfsfreeze(context: Context, args: Args) -> None:
    """Freeze file systems in the guest."""
    count = common.domain(context, args).guest.freeze(args.texts("mountpoint"))
    context.say(f"Froze {count} filesystem(s)\n")


def domfsthaw(context: Context, args: Args) -> None:
    """Thaw the file systems in the guest."""
    count = common.domain(context, args).guest.thaw(args.texts("mountpoint"))
    context.say(f"Thawed {count} filesystem(s)\n")


def domfstrim(context: Context, args: Args) -> None:
    """Discard unused blocks of the guest's mounted file systems."""
    from msgspec import UNSET, to_builtins

    if args.has("mountpoint"):
        raise InvalidValue(
            "argument unsupported: Specifying mount point is not supported for now", hint="the agent trims all"
        )
    minimum = args.signed("minimum") or 0
    if minimum < 0:
        raise UsageError(f"Numeric value '{minimum}' for <minimum> option is malformed or out of range")
    done = common.domain(context, args).guest.trim(minimum=minimum)
    for one in done:
        if one.error is not UNSET:
            context.warn(f"{one.path} can't be trimmed: {one.error}")
    if args.json:
        context.out(json_text([measured(to_builtins(one), bytes="trimmed minimum") for one in done]))
