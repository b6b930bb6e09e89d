"""Plug a NIC into a running guest or its definition, and unplug it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from qkvm import units
from qkvm.domain import definition as definitions
from qkvm.domain import plug
from qkvm.domain.device.nic import guard, opening, passt, remains
from qkvm.domain.device.nic.status import NicStatus, bridge_for, nic_entry
from qkvm.domain.plug import Site
from qkvm.domain.run import Run, write
from qkvm.domain.tuning import place as placing
from qkvm.errors import InvalidValue, NotFound, NotReached
from qkvm.host import journal, settings
from qkvm.net.link import link, port, table
from qkvm.qemu import devices, slots
from qkvm.scope import Scope
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.qemu.devices import NicDevice
    from qkvm.qmp.session import Session

E = TypeVar("E", bound=StrEnum)
N = TypeVar("N", spec.Nic, NicStatus)


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
    """Plug a NIC into the running guest, the definition, or both, and return its MAC address.

    :param type: 'network', 'bridge', 'user' or 'direct'. :param source_mode: of the last: 'vepa', 'bridge' …
    :param alias: its id in QEMU, which begins with ``ua-``; '' is chosen.
    :param inbound: the most that the guest receives. :param outbound: the most that it sends.
    :raises InvalidState: no slot is left, or the machine plugs nothing while it runs.
    """
    # The kernel chooses names of this form, so such a target is ignored, as in libvirt.
    chosen = "" if target.startswith(("vnet", "macvtap")) else target
    unsupported = f"No support for {units.printable(type)} in command 'attach-interface'"
    nic = spec.Nic(
        type=_member(spec.NicType, type, unsupported),
        model=_member(spec.NicModel, model, f"NIC model '{units.printable(model)}' is not known"),
        mac=units.parse_mac(mac) if mac else units.random_mac(),
        source=source,
        source_mode=_member(
            spec.SourceMode, source_mode or "vepa", f"source mode '{units.printable(source_mode)}' is not known"
        ),
        target=chosen,
        alias=alias,
        inbound=inbound,
        outbound=outbound,
    )
    plug.attach(domain, NICS, nic, scope=scope)
    return nic.mac


def _member(kind: type[E], text: str, words: str) -> E:
    """Return the member of that value, or raise an error of these words."""
    try:
        return kind(text)
    except ValueError:
        raise InvalidValue(words, hint=", ".join(kind)) from None


class _Nics(plug.Kind[spec.Nic]):
    """NICs: a tap on its bridge, a back end, and the card."""

    part, name, key, described = "nics", "NIC", "mac", spec.Nic

    def check(self, device: spec.Nic) -> list[str]:
        spec.check_nic(device)
        return []

    def plug(self, site: Site, device: spec.Nic) -> dict[str, Any]:
        nic, run = passt.decided_nic(device), site.run
        # A running QEMU is not root any more.
        passt.check(nic, as_root=False)
        bridge = bridge_for(site.domain.tree, nic)
        if any(entry["mac"] == nic.mac for entry in run.devices("nics")):
            raise InvalidValue(f"mac address {nic.mac} is used twice in one domain")
        place = site.place(nic.address)
        ident = nic.alias or slots.next_id("net", [entry["id"] for entry in run.record["nics"]])
        site.refuse_taken(ident)
        machine = spec.Machine(run.record["machine"])
        card = devices.nic_device(machine, nic, ident, place, devices.NicFds(), boot_index=nic.boot_order)
        entry = nic_entry(ident, place.label, nic, "", bridge, since=journal.size(run.journal))
        site.record("nics", entry, self.forget)
        card = card._replace(fds=_open(site, card, entry))
        site.undo.add(plug.quietly, self.close, site.session, entry)
        site.add("nic", nic=card)
        if not nic.link:
            site.session.execute("set_link", {"name": ident, "up": False})
        return entry

    def fd_names(self, entry: dict[str, Any]) -> Iterable[str]:
        return devices.NicFds.named(f"fd-{entry['id']}", 2 * int(entry["spec"].get("queues") or 1), 0).queues

    def close(self, session: Session, entry: dict[str, Any]) -> None:
        session.execute("netdev_del", {"id": f"host-{entry['id']}"})

    def forget(self, run: Run, entry: dict[str, Any]) -> None:
        remains.release(run, entry)
        super().forget(run, entry)

    def await_gone(self, entry: dict[str, Any]) -> None:
        tap = entry["target"]
        if tap and not table.wait_gone(tap, 5.0):
            raise NotReached(f"tap {tap} of NIC {entry['mac']} is still there", asked="gone", reached=tap)


NICS = _Nics()


def _open(site: Site, device: NicDevice, entry: dict[str, Any]) -> devices.NicFds:
    """Give QEMU the tap of a NIC, connected to its bridge, and return the names of the fds."""
    run, nic = site.run, device.nic
    tap = opening.open_nic(run, nic, site.opened)
    user = settings.run_as(settings.load(site.domain.tree).user, run.id)
    place = placing.present(run, definitions.started_with(run.record))
    opening.serve(run, [device], [tap], user, place)
    passt.await_ready(run, [entry])
    if tap.name:
        entry["target"], entry["bridge"] = tap.name, tap.bridge or entry["bridge"]
        write(run)
    if nic.type.has_port and not tap.bridge:
        _connect(site.domain, run, entry, nic)
    fds = devices.NicFds.named(f"fd-{device.id}", len(tap.queues), len(tap.vhost))
    for name, fd in zip((*fds.queues, *fds.vhost), tap.fds, strict=True):
        site.send_fd(name, fd)
    site.opened.close()
    return fds


def _connect(domain: Handle, run: Run, entry: dict[str, Any], nic: spec.Nic) -> None:
    """Connect a NIC's tap to its bridge, with the filter and limits of the NIC."""
    if nic.filter:
        guard.apply(run, entry, nic, guard.own_addresses(domain.tree, nic))
    port.plug(entry["target"], entry["bridge"], nic.mac, link.domain_tag(domain.name), guard.port_of(nic))
    if nic.inbound or nic.outbound:
        from qkvm.domain.device.nic import tune

        tune.apply(domain, run, entry, {"inbound": nic.inbound, "outbound": nic.outbound})


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

    :param mac: which one, if there are several of that type.
    :raises NotReached: the guest did not release it within ``timeout`` seconds; its tap stays.
    """
    wanted = units.parse_mac(mac) if mac else ""
    plug.detach(domain, NICS, lambda listed: pick(listed, type, wanted), scope=scope, timeout=timeout, wait=wait)


def pick(listed: Sequence[N], type_: str, mac: str) -> N:
    """Return the NIC of that type and MAC address; none, or several, are an error in virsh's words."""
    fitting = [nic for nic in listed if nic.type == type_]
    if mac:
        for nic in fitting:
            if nic.mac == mac:
                return nic
        raise NotFound(f"No interface with MAC address {mac} was found", kind="interface", name=mac)
    if not fitting:
        raise NotFound(f"No interface found whose type is {type_}", kind="interface", name=type_)
    if len(fitting) > 1:
        raise InvalidValue(f"Domain has {len(fitting)} interfaces. Please specify which one to detach using --mac")
    return fitting[0]
