"""Bandwidth of a guest's tap: what it receives and what it sends, each held to an average with bursts (tc-htb(8)).

What a guest receives leaves the host through its tap, and waits in an HTB queue there. What it sends comes in,
where the kernel can drop but not delay: so it is led over an ifb, a link that is nothing but a place for a queue,
and goes on from there as if it had come out of the tap. The queue on the tap goes with the tap; the ifb stays when
QEMU ends, carries the domain's tag, and is named in the domain's record before it is made.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.errors import HostError, NotFound
from qkvm.net.link import link

if TYPE_CHECKING:
    from qkvm.spec.tuning import Bandwidth

_ROOT, _CLASS, _LEAF = 0x10000, 0x10001, 0x20000
"""Handles of the queueing discipline, its one class, and the queue in it: 1:, 1:1 and 2:."""

_INGRESS = 0xFFFF0000
_ETH_P_ALL = 0x0003
_LARGEST_PACKET = 64 << 10
"""Bytes that a guest can hand over as one packet, to be cut later (GSO); a bucket below that would stutter."""

_QUEUE_PACKETS = 128
"""Packets that wait where the kernel has no fair queue: a tap's own thousand would wait for seconds."""


def shaper_name(tap: str) -> str:
    """Name of the ifb for what comes out of a tap: the tap's index makes it unique in its namespace.

    :raises NotFound: there is no such tap.
    """
    import socket

    try:
        return f"qkvm-o{socket.if_nametoindex(tap)}"
    except OSError as error:
        raise NotFound(f"no interface {tap} on this host", kind="interface", name=tap) from error


def limit(
    tap: str, inbound: Bandwidth | None, outbound: Bandwidth | None, *, shaper: str, alias: str, ipr: Any = None
) -> None:
    """Hold a tap to these limits and no others; None is no limit.

    :param inbound: what the guest receives. :param shaper: :func:`shaper_name`; used where outbound is limited.
    :param alias: the tag of the ifb. :raises HostError: the kernel lacks HTB, ifb or mirred.
    """
    with link.connection(ipr) as route, link.words(f"cannot limit the bandwidth of {tap}"):
        port = link.lookup(route, tap)
        if port is None:
            raise NotFound(f"no interface {tap} on this host", kind="interface", name=tap)
        _remove_queues(route, port["index"])
        _remove(route, shaper, alias)
        if inbound is not None:
            _queue(route, port["index"], inbound)
        if outbound is not None:
            index = _make_shaper(route, shaper, alias)
            _queue(route, index, outbound)
            _lead_over(route, port["index"], index)


def apply_to_bridge(
    bridge: str, inbound: Bandwidth | None, outbound: Bandwidth | None, *, shaper: str, alias: str, ipr: Any = None
) -> None:
    """Hold all guests of a network's bridge together to these limits; the same parameters as :func:`limit`.

    The bridge's own link is passed by what goes between guests and the host, or through it; what one guest sends
    to another is not.
    """
    limit(bridge, inbound, outbound, shaper=shaper, alias=alias, ipr=ipr)


def remove(shaper: str, alias: str, *, ipr: Any = None) -> bool:
    """Remove an ifb that carries the tag; False where there is none.

    :raises HostError: a link of that name is not ours.
    """
    with link.connection(ipr) as route, link.words(f"cannot remove {shaper}"):
        return _remove(route, shaper, alias)


def _remove(route: Any, shaper: str, alias: str) -> bool:
    found = link.lookup(route, shaper)
    if found is None:
        return False
    tag = found.get_attr("IFLA_IFALIAS") or ""
    # One that was killed between the making and the tagging has left it without; the name is nobody else's.
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
    """An HTB queue: ``average`` fills a bucket of ``burst``, and ``peak`` is how fast that may run out."""
    average = band.average * 1024
    peak = band.peak * 1024
    burst = max(band.burst * 1024, _LARGEST_PACKET)
    with _needed("sch_htb"):
        route.tc("add", "htb", index, _ROOT, default=_CLASS & 0xFFFF)
    # Without a peak the bucket empties as fast as the link takes it.
    route.tc(
        "add-class", "htb", index, _CLASS, parent=_ROOT, rate=f"{average * 8}bit",
        ceil=f"{(peak or _UNLIMITED) * 8}bit", burst=burst, cburst=_LARGEST_PACKET if peak else burst,
        quantum=_LARGEST_PACKET,
    )  # fmt: skip
    _add_leaf(route, index)


_UNLIMITED = 1 << 36
"""Bytes a second that no link reaches."""


def _add_leaf(route: Any, index: int) -> None:
    """Fair to all flows where the kernel has such a queue, so that one download does not hold up the rest."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        route.tc("add", "fq_codel", index, _LEAF, parent=_CLASS)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise
        route.tc("add", "pfifo", index, _LEAF, parent=_CLASS, limit=_QUEUE_PACKETS)


def _lead_over(route: Any, index: int, shaper: int) -> None:
    """Send all that comes in through a link out of another; the kernel then goes on as if it had just come in."""
    redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": shaper}
    with _needed("sch_ingress"):
        route.tc("add", "ingress", index, _INGRESS)
    with _needed("cls_u32 and act_mirred"):
        route.tc(
            "add-filter", "u32", index, parent=_INGRESS, protocol=_ETH_P_ALL, prio=1, target=_ROOT,
            keys=["0x0/0x0+0"], action=redirect,
        )  # fmt: skip


@contextmanager
def _needed(modules: str) -> Iterator[None]:
    """Say which modules a kernel lacks that knows no such thing."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        raise HostError(f"limits of bandwidth need {modules}, which this kernel lacks") from error


def _remove_queues(route: Any, index: int) -> None:
    """Take away what :func:`limit` has put on a link, told by its handles."""
    for entry in route.get_qdiscs(index):
        if entry["handle"] == _ROOT and entry.get_attr("TCA_KIND") == "htb":
            route.tc("del", "htb", index, _ROOT, parent=0xFFFFFFFF)
        elif entry["handle"] == _INGRESS and entry.get_attr("TCA_KIND") == "ingress":
            route.tc("del", "ingress", index, _INGRESS)
