"""The agent's information about the guest: users, system, time zone, interfaces (virsh guestinfo, domhostname).

Replies of another form are refused; their content can't be trusted more than the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import UNSET, Struct, UnsetType

from qkvm.domain.guest import agent as agents
from qkvm.errors import AgentRefused, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qkvm.domain.handle import Handle
    from qkvm.net.dhcp.address import Address
    from qkvm.qmp.agent import AgentSession

T = TypeVar("T")


class User(Struct, rename="kebab", frozen=True):
    """A user who is logged in; ``login_time`` in seconds since 1970."""

    user: str
    login_time: float
    domain: str | UnsetType = UNSET


class System(Struct, rename="kebab", frozen=True):
    """The operating system by its /etc/os-release and uname(2)."""

    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    pretty_name: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    version_id: str | UnsetType = UNSET
    machine: str | UnsetType = UNSET
    variant: str | UnsetType = UNSET
    variant_id: str | UnsetType = UNSET
    kernel_release: str | UnsetType = UNSET
    kernel_version: str | UnsetType = UNSET


class Timezone(Struct, rename="kebab", frozen=True):
    """The time zone; ``offset`` in seconds east of UTC."""

    offset: int
    zone: str | UnsetType = UNSET


class IpAddress(Struct, rename="kebab", frozen=True):
    """An address of an interface."""

    ip_address_type: str
    ip_address: str
    prefix: int


class Interface(Struct, rename="kebab", frozen=True):
    """A network interface with its name in the guest; the loopback is one too."""

    name: str
    hardware_address: str = ""
    ip_addresses: tuple[IpAddress, ...] = ()


class PciAddress(Struct, frozen=True):
    """The address of a PCI device."""

    domain: int
    bus: int
    slot: int
    function: int


class DiskAddress(Struct, rename="kebab", frozen=True):
    """The address of a disk on its bus."""

    bus_type: str
    bus: int
    target: int
    unit: int
    pci_controller: PciAddress
    serial: str = ""
    dev: str = ""


class Filesystem(Struct, rename="kebab", frozen=True):
    """A mounted file system on disks; sizes are in bytes."""

    name: str
    mountpoint: str
    type: str
    disk: tuple[DiskAddress, ...] = ()
    used_bytes: int | UnsetType = UNSET
    total_bytes: int | UnsetType = UNSET


class Disk(Struct, rename="kebab", frozen=True):
    """A disk or partition."""

    name: str
    partition: bool
    dependencies: tuple[str, ...] = ()
    address: DiskAddress | None = None
    alias: str | UnsetType = UNSET


class Load(Struct, frozen=True):
    """The average number of runnable processes over 1, 5 and 15 minutes."""

    load1m: float
    load5m: float
    load15m: float


class _HostName(Struct, rename="kebab"):
    host_name: str


COMMANDS: dict[str, tuple[str, Any]] = {
    "user": ("guest-get-users", tuple[User, ...]),
    "os": ("guest-get-osinfo", System),
    "timezone": ("guest-get-timezone", Timezone),
    "hostname": ("guest-get-host-name", _HostName),
    "filesystem": ("guest-get-fsinfo", tuple[Filesystem, ...]),
    "disk": ("guest-get-disks", tuple[Disk, ...]),
    "interface": ("guest-network-get-interfaces", tuple[Interface, ...]),
    "load": ("guest-get-load", Load),
}
"""A group of virsh guestinfo -> the agent's command, and the type of its result."""


def collect(domain: Handle, groups: Iterable[str] = ()) -> dict[str, Any]:
    """Return the agent's information by group; without names all groups that it knows.

    :raises AgentRefused: it does not know a named group.
    """
    named = tuple(groups)
    found: dict[str, Any] = {}
    with agents.session(domain) as agent:
        for group in named or COMMANDS:
            try:
                found[group] = _ask(agent, group)
            except AgentRefused:
                if named:
                    raise
    return found


def hostname(domain: Handle, *, source: str = "agent") -> str:
    """Return the guest's host name by its agent or by its DHCP lease.

    :param source: 'agent' or 'lease'. :raises NotFound: no lease has a name.
    """
    if source == "agent":
        with agents.session(domain) as agent:
            return str(_ask(agent, "hostname"))
    from qkvm.net.dhcp.lease import leases

    for nic in domain.live.devices("nics"):
        if nic["type"] != "network":
            continue
        for lease in leases(domain.tree.leases(nic["source"])):
            if lease.mac == nic["mac"] and lease.hostname:
                return lease.hostname
    raise NotFound(
        f"no hostname found: no hostname found for domain {domain.name}", kind="hostname", name=domain.name
    )


def interfaces(domain: Handle, *, within: float | None = None) -> tuple[Interface, ...]:
    """Return the network interfaces of the guest with their addresses; ``within`` as in agent.session."""
    with agents.session(domain, within=within) as agent:
        found: tuple[Interface, ...] = _ask(agent, "interface")
        return found


def addresses(listed: Iterable[Interface]) -> list[Address]:
    """Return the valid addresses of interfaces; one without any has an entry with an empty IP."""
    from ipaddress import ip_address

    from qkvm.net.dhcp.address import Address

    found = []
    for interface in listed:
        mac, own = interface.hardware_address.lower(), []
        for address in interface.ip_addresses:
            try:
                ip = ip_address(address.ip_address)
            except ValueError:
                continue
            prefix = min(max(address.prefix, 0), ip.max_prefixlen)
            own.append(Address(mac, str(ip), prefix, "agent", interface.name))
        found += own or [Address(mac, "", 0, "agent", interface.name)]
    return found


def _ask(agent: AgentSession, group: str) -> Any:
    command, kind = COMMANDS[group]
    found = agent.execute(command, kind=kind)
    return found.host_name if isinstance(found, _HostName) else found
