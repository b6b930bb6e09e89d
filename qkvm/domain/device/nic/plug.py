"""Plug a NIC into a running guest or its definition, and unplug it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import units
from qkvm.domain import definition as definitions
from qkvm.domain import plug
from qkvm.domain.device.nic import guard, opening, passt, remains
from qkvm.domain.device.nic.status import bridge_for, nic_entry
from qkvm.domain.run import write
from qkvm.domain.tuning import place as placing
from qkvm.errors import AlreadyExists, InvalidState, InvalidValue, NotFound, NotReached
from qkvm.files import Undo
from qkvm.host import journal, settings
from qkvm.net.link import link, port, table
from qkvm.qemu import devices, render, slots
from qkvm.scope import Scope
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qemu.devices import NicDevice
    from qkvm.qmp.session import Session


def attach(
    domain: Handle,
    *,
    type: str = "network",
    source: str = "",
    model: str = "virtio",
    mac: str = "",
    target: str = "",
    alias: str = "",
    source_mode: str = "",
    scope: Scope = Scope.CURRENT,
    inbound: spec.Bandwidth | None = None,
    outbound: spec.Bandwidth | None = None,
) -> str:
    """Plug a NIC into the running guest, the definition, or both, and give its MAC address.

    :param type: 'network', 'bridge', 'user' or 'direct'. :param source_mode: of the last: 'vepa', 'bridge' …
    :param alias: its id in QEMU, which begins with ``ua-``; '' is chosen.
    :param inbound: the most that the guest receives. :param outbound: the most that it sends.
    :raises InvalidState: no slot is left, or the machine plugs nothing while it runs.
    """
    nic = replace(
        _nic(type, source, model, mac, target), source_mode=_mode(source_mode), alias=alias, inbound=inbound,
        outbound=outbound,
    )  # fmt: skip
    spec.check_nic(nic)
    attach_nic(domain, nic, scope=scope)
    return nic.mac


def attach_nic(
    domain: Handle,
    nic: spec.Nic,
    *,
    scope: Scope = Scope.CURRENT,
) -> None:
    """As :func:`attach`, of a NIC that is described whole; where one of the two fails both are as before."""
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        if wanted.config:
            definitions.change(domain, lambda present: _with_nic(present, nic), undo)
        if wanted.live:
            _plug(domain, domain.live, nic)
        undo.commit()


def _nic(type_: str, source: str, model: str, mac: str, target: str) -> spec.Nic:
    try:
        kind = spec.NicType(type_)
    except ValueError:
        raise InvalidValue(
            f"No support for {units.printable(type_)} in command 'attach-interface'",
            hint=", ".join(spec.NicType),
        ) from None
    try:
        card = spec.NicModel(model)
    except ValueError:
        raise InvalidValue(
            f"NIC model '{units.printable(model)}' is not known", hint=", ".join(spec.NicModel)
        ) from None
    # A tap name that qkvm gives is the kernel's to choose: libvirt ignores such a target in the same way.
    chosen = "" if target.startswith(("vnet", "macvtap")) else target
    address = units.parse_mac(mac) if mac else units.random_mac()
    return spec.Nic(mac=address, type=kind, source=source, model=card, target=chosen)


def _mode(text: str) -> spec.SourceMode:
    try:
        return spec.SourceMode(text or "vepa")
    except ValueError:
        raise InvalidValue(
            f"source mode '{units.printable(text)}' is not known", hint=", ".join(spec.SourceMode)
        ) from None


def _with_nic(present: spec.Domain, nic: spec.Nic) -> spec.Domain:
    return spec.validate(replace(present, nics=(*present.nics, nic)))


def _plug(domain: Handle, run: Run, nic: spec.Nic) -> None:
    """Tap, bridge, back end, card: in this order, all undone where one fails."""
    machine = spec.Machine(run.record["machine"])
    if not machine.hotplugs_pci:
        raise InvalidState(f"machine {machine} can't plug devices while it runs")
    spec.check_nic(nic)
    run.require_sound()
    nic = passt.decided_nic(nic)
    # A QEMU that runs has given root up.
    passt.check(nic, as_root=False)
    bridge = bridge_for(domain.tree, nic)
    with domain.monitor() as session, Undo() as undo:
        _sweep(run, session)
        if any(entry["mac"] == nic.mac for entry in run.devices("nics")):
            raise InvalidValue(f"mac address {nic.mac} is used twice in one domain")
        place = plug.place(run, nic.address)
        ident = nic.alias or slots.next_id("net", [entry["id"] for entry in run.record["nics"]])
        if ident in plug.peripherals(session):
            raise AlreadyExists(f"there is a device of alias {ident}")
        device = devices.nic_device(machine, nic, ident, place, devices.NicFds(), boot_index=nic.boot_order)
        entry = nic_entry(ident, place.label, nic, "", bridge, since=journal.size(run.journal))
        run.record["nics"].append(entry)
        undo.add(_forget, run, entry)
        write(run)
        _give(domain, run, session, device, entry, undo)
        undo.commit()


def _give(
    domain: Handle, run: Run, session: Session, device: NicDevice, entry: dict[str, Any], undo: Undo
) -> None:
    """Hand the tap to QEMU and plug what the part of the template says: the same as at a start."""
    nic = device.nic
    with ExitStack() as opened:
        tap = opening.open_nic(run, nic, opened)
        user = settings.run_as(settings.load(domain.tree).user, run.id)
        place = placing.present(run, definitions.started_with(run.record))
        opening.serve(run, [device], [tap], user, place)
        passt.await_ready(run, [entry])
        device = device._replace(fds=devices.NicFds.named(f"fd-{device.id}", len(tap.queues), len(tap.vhost)))
        if tap.name:
            entry["target"], entry["bridge"] = tap.name, tap.bridge or entry["bridge"]
            write(run)
        if nic.type.has_port and not tap.bridge:
            _connect(domain, run, entry, nic)
        for name, fd in zip((*device.fds.queues, *device.fds.vhost), tap.fds, strict=True):
            session.send_fd(name, fd)
            undo.add(plug.quietly, session, "closefd", {"fdname": name})
    options = render.render("parts/nic.j2", {"nic": device}, own=domain.tree.templates)
    for command, arguments in render.hotplug_commands(options):
        session.execute(command, arguments)
        if command == "netdev_add":
            undo.add(plug.quietly, session, "netdev_del", {"id": device.backend})
    if not nic.link:
        session.execute("set_link", {"name": device.id, "up": False})
    if device.id not in plug.peripherals(session):
        raise NotReached(f"QEMU took the NIC {nic.mac} but does not show it", asked=nic.mac, reached=None)


def _connect(domain: Handle, run: Run, entry: dict[str, Any], nic: spec.Nic) -> None:
    """Put a NIC's tap on its bridge, held to what the NIC may do there."""
    if nic.filter:
        guard.apply(run, entry, nic, guard.own_addresses(domain.tree, nic))
    port.plug(entry["target"], entry["bridge"], nic.mac, link.domain_tag(domain.name), guard.port_of(nic))
    if nic.inbound or nic.outbound:
        from qkvm.domain.device.nic import tune

        tune.apply(domain, run, entry, {"inbound": nic.inbound, "outbound": nic.outbound})


def _forget(run: Run, entry: dict[str, Any]) -> None:
    remains.release(run, entry)
    run.record["nics"] = [other for other in run.record["nics"] if other["id"] != entry["id"]]
    write(run)


def _sweep(run: Run, session: Session) -> None:
    """Take away the back ends of NICs that a guest released after nobody waited any more.

    Those too that who was to plug them, and was killed, has left in the record.
    """
    if not run.record["nics"]:
        return
    present = {entry["id"] for entry in run.devices("nics")} & plug.peripherals(session)
    for entry in list(run.record["nics"]):
        if entry["id"] not in present:
            plug.quietly(session, "netdev_del", {"id": f"host-{entry['id']}"})
            queues = int(entry["spec"].get("queues") or 1)
            for name in devices.NicFds.named(f"fd-{entry['id']}", 2 * queues, 0).queues:
                plug.quietly(session, "closefd", {"fdname": name})
            _forget(run, entry)


def detach(
    domain: Handle,
    *,
    type: str,
    mac: str = "",
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """Unplug a NIC from the running guest, the definition, or both.

    :param mac: which one, where there are several of that type.
    :raises NotReached: the guest did not release it within ``timeout`` seconds; its tap stays.
    """
    wanted_mac = units.parse_mac(mac) if mac else ""
    remove(
        domain, lambda listed: pick(listed, type, wanted_mac),
        scope=scope, timeout=timeout, wait=wait,
    )  # fmt: skip


def remove(
    domain: Handle,
    choose: Callable[[list[dict[str, Any]]], dict[str, Any]],
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """As :func:`detach`, of the NIC that ``choose`` picks; where one of the two fails both are as before.

    :param choose: picks one of entries that have type, mac, alias and address, or raises that there is none.
    """
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        run = domain.live if wanted.live else None
        if run is not None:
            with domain.monitor() as session:
                _sweep(run, session)
        mac = choose([_listed(entry) for entry in run.devices("nics")])["mac"] if run is not None else ""
        if wanted.config:
            listed = [
                {"type": str(nic.type), "mac": nic.mac, "alias": nic.alias, "address": nic.address}
                for nic in domain.definition.nics
            ]
            stored = choose([nic for nic in listed if mac in ("", nic["mac"])])["mac"]
            definitions.change(domain, lambda present: _without_nic(present, stored), undo)
        if run is not None:
            entry = next(entry for entry in run.devices("nics") if entry["mac"] == mac)
            _unplug(domain, run, entry, timeout=timeout, wait=wait)
        undo.commit()


def _listed(entry: dict[str, Any]) -> dict[str, Any]:
    """A record's entry as what :func:`remove` lets choose from."""
    return {
        "type": entry["type"], "mac": entry["mac"], "alias": entry["id"],
        "address": entry["spec"].get("address", ""),
    }  # fmt: skip


def pick(listed: list[dict[str, Any]], type_: str, mac: str) -> dict[str, Any]:
    """The one NIC that is meant, with virsh's words where none or several are; see :func:`remove`."""
    fitting = [entry for entry in listed if entry["type"] == type_]
    if mac:
        for entry in fitting:
            if entry["mac"] == mac:
                return entry
        raise NotFound(f"No interface with MAC address {mac} was found", kind="interface", name=mac)
    if not fitting:
        raise NotFound(f"No interface found whose type is {type_}", kind="interface", name=type_)
    if len(fitting) > 1:
        raise InvalidValue(f"Domain has {len(fitting)} interfaces. Please specify which one to detach using --mac")
    return fitting[0]


def _without_nic(present: spec.Domain, mac: str) -> spec.Domain:
    return replace(present, nics=tuple(nic for nic in present.nics if nic.mac != mac))


def _unplug(domain: Handle, run: Run, entry: dict[str, Any], *, timeout: float, wait: bool) -> None:
    """Card first, and only when the guest has released it (DEVICE_DELETED) the back end and the tap."""
    machine = spec.Machine(run.record["machine"])
    if not machine.hotplugs_pci:
        raise InvalidState(f"machine {machine} can't unplug devices while it runs")
    run.require_sound()
    ident, mac = entry["id"], entry["mac"]
    with domain.monitor() as session:
        if not plug.release(run, session, entry, what="NIC", shown=mac, timeout=timeout, wait=wait):
            return
        session.execute("netdev_del", {"id": f"host-{ident}"})
    _forget(run, entry)
    if entry["target"] and not table.wait_gone(entry["target"], 5.0):
        raise NotReached(
            f"tap {entry['target']} of NIC {mac} is still there", asked="gone", reached=entry["target"]
        )
