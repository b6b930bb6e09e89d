"""Limits on a tap's bandwidth: an average and bursts for each direction (tc-htb(8)).

What a guest receives leaves the host through its tap and waits in an HTB queue there. What it sends arrives at the
tap, where the kernel can drop but not delay it. So it is redirected through an ifb, a link that only holds a
queue. The tap's queue goes with the tap. The ifb stays when QEMU ends: it carries the domain's tag, and the
domain's record names it before it is made.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.errors import HostError
from qkvm.net.link import link, table

if TYPE_CHECKING:
    from qkvm.spec.tuning import Bandwidth

_ROOT, _CLASS, _LEAF = 0x10000, 0x10001, 0x20000
"""Handles of the queueing discipline, of its one class, and of the queue in it: 1:, 1:1 and 2:."""

_INGRESS = 0xFFFF0000
_ETH_P_ALL = 0x0003
_LARGEST_PACKET = 64 << 10
"""Bytes that a guest can pass on as one packet, to be cut later (GSO); a smaller bucket would stutter."""

_QUEUE_PACKETS = 128
"""Packets that wait where the kernel has no fair queue: the thousand of a tap would wait for seconds."""


def shaper_name(tap: str) -> str:
    """Return the name of a tap's ifb, made of the tap's index. :raises NotFound: there is no such tap."""
    return f"qkvm-o{table.index(tap)}"


def limit(
    tap: str, inbound: Bandwidth | None, outbound: Bandwidth | None, *, shaper: str, alias: str, ipr: Any = None
) -> None:
    """Hold a tap, or the guests on a bridge together, to these limits and no others; None is no limit.

    What one guest sends to another does not pass the bridge's own link, and is not limited there.

    :param inbound: what the guest receives. :param shaper: :func:`shaper_name`; used where outbound is limited.
    :param alias: the tag of the ifb. :raises HostError: the kernel lacks HTB, ifb or mirred.
    """
    with link.connection(ipr) as route, link.words(f"cannot limit the bandwidth of {tap}"):
        port = link.require(route, tap)
        _remove_queues(route, port["index"])
        _remove(route, shaper, alias)
        if inbound is not None:
            _queue(route, port["index"], inbound)
        if outbound is not None:
            index = _make_shaper(route, shaper, alias)
            _queue(route, index, outbound)
            _lead_over(route, port["index"], index)


def remove(shaper: str, alias: str, *, ipr: Any = None) -> bool:
    """Remove the ifb with that tag; False where there is none. :raises HostError: the link is not ours."""
    with link.connection(ipr) as route, link.words(f"cannot remove {shaper}"):
        return _remove(route, shaper, alias)


def _remove(route: Any, shaper: str, alias: str) -> bool:
    found = link.lookup(route, shaper)
    if found is None:
        return False
    tag = found.get_attr("IFLA_IFALIAS") or ""
    # A process killed between making and tagging it left it untagged; nobody else uses that name.
    if link.kind(found) != "ifb" or tag not in ("", alias):
        raise HostError(f"interface {shaper} was not made for this domain: it is left as it is")
    route.link("del", index=found["index"])
    return True


def _make_shaper(route: Any, shaper: str, alias: str) -> int:
    with _needed("ifb"):
        route.link("add", ifname=shaper, kind="ifb")
    index = int(link.lookup(route, shaper)["index"])
    route.link("set", index=index, ifalias=alias, state="up")
    return index


def _queue(route: Any, index: int, band: Bandwidth) -> None:
    """Add an HTB queue: ``average`` fills a bucket of ``burst``; ``peak`` is how fast it may empty."""
    average = band.average * 1024
    peak = band.peak * 1024
    burst = max(band.burst * 1024, _LARGEST_PACKET)
    with _needed("sch_htb"):
        route.tc("add", "htb", index, _ROOT, default=_CLASS & 0xFFFF)
    # Without a peak the bucket empties as fast as the link takes it.
    rates = {"rate": f"{average * 8}bit", "ceil": f"{(peak or _UNLIMITED) * 8}bit"}
    buckets = {"burst": burst, "cburst": _LARGEST_PACKET if peak else burst, "quantum": _LARGEST_PACKET}
    route.tc("add-class", "htb", index, _CLASS, parent=_ROOT, **rates, **buckets)
    _add_leaf(route, index)


_UNLIMITED = 1 << 36
"""Bytes a second that no link reaches."""


def _add_leaf(route: Any, index: int) -> None:
    """Use a fair queue where the kernel has one, so that one download does not hold up the rest."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        route.tc("add", "fq_codel", index, _LEAF, parent=_CLASS)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise
        route.tc("add", "pfifo", index, _LEAF, parent=_CLASS, limit=_QUEUE_PACKETS)


def _lead_over(route: Any, index: int, shaper: int) -> None:
    """Redirect all that comes in through a link to another; then the kernel goes on as if it had just come in."""
    redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": shaper}
    with _needed("sch_ingress"):
        route.tc("add", "ingress", index, _INGRESS)
    with _needed("cls_u32 and act_mirred"):
        match = {"protocol": _ETH_P_ALL, "prio": 1, "target": _ROOT, "keys": ["0x0/0x0+0"]}
        route.tc("add-filter", "u32", index, parent=_INGRESS, action=redirect, **match)


@contextmanager
def _needed(modules: str) -> Iterator[None]:
    """Name the modules that this kernel lacks."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        raise HostError(f"limits of bandwidth need {modules}, which this kernel lacks") from error


def _remove_queues(route: Any, index: int) -> None:
    """Remove the queues that :func:`limit` made, recognised by their handles."""
    for entry in route.get_qdiscs(index):
        if entry["handle"] == _ROOT and entry.get_attr("TCA_KIND") == "htb":
            route.tc("del", "htb", index, _ROOT, parent=0xFFFFFFFF)
        elif entry["handle"] == _INGRESS and entry.get_attr("TCA_KIND") == "ingress":
            route.tc("del", "ingress", index, _INGRESS)
