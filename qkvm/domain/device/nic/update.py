"""Change a NIC that is there, in the running guest or its definition (virsh update-device)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.device.nic import guard, tune
from qkvm.domain.device.nic.status import bridge_for, by_grant, find, interfaces
from qkvm.domain.run import write
from qkvm.errors import InvalidState, NotFound
from qkvm.files import Undo
from qkvm.net.link import link, port
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

_FIXED = {
    "model": "model",
    "source_mode": "source mode",
    "queues": "number of queues",
    "vhost": "driver",
    "mtu": "mtu",
    "target": "target",
    "alias": "alias",
    "address": "address",
    "boot_order": "boot order",
    "backend": "backend",
    "forwards": "port forwards",
}
"""What of a NIC can't change while the guest runs, and its name in errors."""

_ASSIGNED = ("target", "alias", "address")
"""What a description need not name: then it stays as it is."""


def update(
    domain: Handle,
    nic: spec.Nic,
    *,
    scope: Scope = Scope.CURRENT,
) -> None:
    """Make the NIC of that MAC address what is described, live, in the definition, or both.

    Live its cable, its limits, its filter, its isolation, and the network or bridge that it is on can change.

    :raises NotFound: there is none. :raises InvalidState: something else differs from the running one.
    """

    def live(run: Run, _: Undo) -> None:
        entry = next((entry for entry in run.devices("nics") if entry["mac"] == nic.mac), None)
        if entry is None:
            raise _not_found(nic)
        # What it undoes live needs the session, which must still be open then.
        with domain.monitor() as session, Undo() as steps:
            _change(domain, run, session, entry, nic, steps)
            steps.commit()

    together(domain, scope, live, lambda present: _with(present, nic))


def _with(present: spec.Domain, nic: spec.Nic) -> spec.Domain:
    former = next((other for other in present.nics if other.mac == nic.mac), None)
    if former is None:
        raise _not_found(nic)
    changed = _assigned(nic, former)
    return replace(present, nics=tuple(changed if other is former else other for other in present.nics))


def _not_found(nic: spec.Nic) -> NotFound:
    return NotFound(
        f"device not found: no device found matching MAC address '{nic.mac}'", kind="interface", name=nic.mac
    )


def _assigned(nic: spec.Nic, former: spec.Nic) -> spec.Nic:
    """The described NIC with what its description left open."""
    if nic.type is former.type is spec.NicType.USER and nic.backend is spec.UserBackend.AUTO:
        nic = replace(nic, backend=former.backend)
    return replace(nic, **{name: getattr(nic, name) or getattr(former, name) for name in _ASSIGNED})


def _change(domain: Handle, run: Run, session: Session, entry: dict[str, Any], nic: spec.Nic, undo: Undo) -> None:
    former = replace(toml.from_plain(entry["spec"], spec.Nic, "record"), link=entry["link"])
    nic = _assigned(nic, former)
    spec.check_nic(nic)
    for name, shown in _FIXED.items():
        if getattr(nic, name) != getattr(former, name):
            raise InvalidState(
                f"cannot modify network device {shown} from '{getattr(former, name)}' to '{getattr(nic, name)}'",
                hint="--config changes it for the next start",
            )
    if by_grant(former) or by_grant(nic):
        _check_granted(nic, former)
    elif nic.filter or former.filter:
        # Also where nothing of it has changed: somebody may have flushed the rules.
        own = guard.own_addresses(domain.tree, nic) if nic.filter else ()
        undo.add(guard.apply, run, entry, former, tuple(entry.get("own", ())))
        guard.apply(run, entry, nic, own)
    if (nic.type, nic.source) != (former.type, former.source):
        _move(domain, run, entry, nic, former, undo)
    elif guard.port_of(nic) != guard.port_of(former):
        undo.add(port.change, entry["target"], guard.port_of(former))
        port.change(entry["target"], guard.port_of(nic))
    limits = {name: getattr(nic, name) for name in tune.DIRECTIONS}
    before = {name: getattr(former, name) for name in tune.DIRECTIONS}
    if limits != before:
        undo.add(tune.apply, domain, run, entry, before)
        tune.apply(domain, run, entry, limits)
    if nic.link != former.link:
        session.execute("set_link", {"name": entry["id"], "up": nic.link})
        undo.add(session.execute, "set_link", {"name": entry["id"], "up": former.link})
    _remember(run, entry, nic)


def _check_granted(nic: spec.Nic, former: spec.Nic) -> None:
    """Refuse to change what root's helper has decided: of a tap of root's only the cable is the user's."""
    if nic != replace(former, link=nic.link):
        raise InvalidState(
            f"only the link state of NIC {nic.mac} can be modified: its tap is root's",
            hint="--config changes it for the next start",
        )


def _move(domain: Handle, run: Run, entry: dict[str, Any], nic: spec.Nic, former: spec.Nic, undo: Undo) -> None:
    """Put the tap on the bridge of another network; the guest is not told, and asks DHCP when it likes."""
    if nic.type is former.type is spec.NicType.DIRECT:
        raise InvalidState(f"cannot modify network device source from '{former.source}' to '{nic.source}'")
    if not (nic.type.has_port and former.type.has_port):
        raise InvalidState(f"cannot modify network device type from '{former.type}' to '{nic.type}'")
    bridge, old = bridge_for(domain.tree, nic), str(entry["bridge"])
    tag = link.domain_tag(domain.name)
    undo.add(port.plug, entry["target"], old, nic.mac, tag, guard.port_of(former))
    port.plug(entry["target"], bridge, nic.mac, tag, guard.port_of(nic))
    undo.add(_put, run, entry, {"bridge": old})
    _put(run, entry, {"bridge": bridge})


def _remember(run: Run, entry: dict[str, Any], nic: spec.Nic) -> None:
    _put(run, entry, {
        "type": str(nic.type), "source": nic.source, "link": nic.link, "spec": toml.to_plain(nic),
    })  # fmt: skip


def _put(run: Run, entry: dict[str, Any], values: dict[str, Any]) -> None:
    entry |= values
    write(run)


def set_link(domain: Handle, interface: str, up: bool, *, scope: Scope = Scope.CURRENT) -> None:
    """Pull or plug the cable of a NIC (set_link), of the running guest or in the definition."""

    def live(run: Run, _: Undo) -> None:
        mac = find(interfaces(domain), interface).mac
        entry = next(entry for entry in run.devices("nics") if entry["mac"] == mac)
        with domain.monitor() as session:
            session.execute("set_link", {"name": entry["id"], "up": up})
        _put(run, entry, {"link": up})

    def edit(present: spec.Domain) -> spec.Domain:
        return _with_link(present, find(interfaces(domain, inactive=True), interface).mac, up)

    together(domain, scope, live, edit)


def _with_link(present: spec.Domain, mac: str, up: bool) -> spec.Domain:
    return replace(present, nics=tuple(replace(nic, link=up) if nic.mac == mac else nic for nic in present.nics))
