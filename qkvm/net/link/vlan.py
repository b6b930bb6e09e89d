"""VLANs of a bridge's ports (802.1Q), which a bridge keeps apart once it filters.

A frame that comes in without a tag belongs to the port's PVID, and frames of that VLAN go out without a tag. A
network's bridge of qkvm's is told to filter when that is first needed; its ports are in its default VLAN, as
before.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from qkvm.errors import HostError, InvalidState
from qkvm.net.link import link

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNTAGGED = ["pvid", "untagged"]


def filters(bridge: Any) -> bool:
    """Whether a bridge, as netlink describes it, keeps VLANs apart."""
    return bool(_told(bridge, "IFLA_BR_VLAN_FILTERING"))


def require_filtering(route: Any, bridge: Any) -> None:
    """Have a bridge filter VLANs.

    :raises InvalidState: it does not, and is not qkvm's. :raises HostError: this kernel's bridges can't.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    if filters(bridge):
        return
    name = str(bridge.get_attr("IFLA_IFNAME"))
    if not (bridge.get_attr("IFLA_IFALIAS") or "").startswith(link.network_tag("")):
        raise InvalidState(
            f"bridge {name} does not filter VLANs, and is not qkvm's to change",
            hint=f"ip link set {name} type bridge vlan_filtering 1",
        )
    try:
        route.link("set", index=bridge["index"], kind="bridge", br_vlan_filtering=1)
    except NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        raise HostError(
            "this kernel's bridges know no VLANs",
            hint="one with CONFIG_BRIDGE_VLAN_FILTERING, or no vlan in the NIC",
        ) from error


def set_port(route: Any, index: int, bridge: Any, tags: Sequence[int], untagged: int) -> None:
    """Put a port into exactly these VLANs; no tags mean the bridge's default.

    :param untagged: the VLAN of frames without a tag; 0 drops them.
    """
    if not tags:
        if not filters(bridge):
            return
        untagged = int(_told(bridge, "IFLA_BR_VLAN_DEFAULT_PVID") or 0)
        tags = (untagged,) if untagged else ()
    for tag in sorted(_present(route, index) - set(tags)):
        route.vlan_filter("del", index=index, vlan_info={"vid": tag})
    for tag in tags:
        # The flags of a VLAN that is there are replaced.
        flags = _UNTAGGED if tag == untagged else []
        route.vlan_filter("add", index=index, vlan_info={"vid": tag, "flags": flags})


def _present(route: Any, index: int) -> set[int]:
    found = set()
    for entry in route.get_vlans(index=index):
        spec = entry.get_attr("IFLA_AF_SPEC")
        found |= {int(one["vid"]) for one in (spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec is not None else ())}
    return found


def _told(bridge: Any, name: str) -> Any:
    data = bridge.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    return data.get_attr(name) if data is not None else None
