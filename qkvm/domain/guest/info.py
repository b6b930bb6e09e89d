"""What the agent tells of the guest: users, system, time zone, name, interfaces (virsh guestinfo, domhostname).

Every reply has the form below or is refused; what it says is the guest's word and nothing more.
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
    """Somebody who is logged in; ``login_time`` in seconds since 1970."""

    user: str
    login_time: float
    domain: str | UnsetType = UNSET


class System(Struct, rename="kebab", frozen=True):
    """The operating system, as its /etc/os-release and uname(2) say."""

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
    """A network interface under its name in the guest, the loopback among them."""

    name: str
    hardware_address: str = ""
    ip_addresses: tuple[IpAddress, ...] = ()


class PciAddress(Struct, frozen=True):
    """Where a PCI device sits."""

    domain: int
    bus: int
    slot: int
    function: int


class DiskAddress(Struct, rename="kebab", frozen=True):
    """Where a disk sits; ``target`` is not the agent's: it is the disk's in the definition, '' for unknown."""

    bus_type: str
    bus: int
    target: int
    unit: int
    pci_controller: PciAddress
    serial: str = ""
    dev: str = ""


class Filesystem(Struct, rename="kebab", frozen=True):
    """A mounted file system on disks; sizes in bytes, of a file system that has them."""

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
    """How many processes wanted to run, on average over 1, 5 and 15 minutes."""

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
"""Each group of information (virsh guestinfo): the agent's command, and what it returns."""


def collect(domain: Handle, groups: Iterable[str] = ()) -> dict[str, Any]:
    """What the agent tells, by group; all groups that it knows where none is named.

    :raises AgentRefused: it does not tell a group that was named.
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
    """The name that the guest has given itself: by its agent, or by the DHCP lease that it has.

    :param source: 'agent' or 'lease'. :raises NotFound: no lease carries a name.
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
    """The network interfaces of the guest with their addresses; ``within`` as in agent.session."""
    with agents.session(domain, within=within) as agent:
        found: tuple[Interface, ...] = _ask(agent, "interface")
        return found


def addresses(listed: Iterable[Interface]) -> list[Address]:
    """The addresses of interfaces, of those that are ones; where there is none, one entry with an empty IP."""
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
