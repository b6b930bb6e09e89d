"""A bridge made over a NIC of the host, which becomes its port, and the way back.

The bridge takes the NIC's MAC address, MTU, addresses, routes and settings, so that the host stays what it is to
others, and open connections stay open. What is to be put back lies in run/qkvm/uplinks/BRIDGE.json before anything
is changed: whatever ends this process in the middle, the next verb puts the host back or finishes
(:func:`mend`). All of it is of this boot; the distribution's own configuration is not touched.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

from qkvm.errors import HostError, InvalidState, InvalidValue, NotFound, QkvmError
from qkvm.files import entries, locked, make_private_dir, os_error, remove, sweep
from qkvm.host import record
from qkvm.net.link import rtnetlink as nl
from qkvm.net.uplink import fitness, handover
from qkvm.net.uplink.holding import Holding, Place, holding, moved
from qkvm.rights import INSTEAD, need_root
from qkvm.units import check_interface_name, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from qkvm.paths import Tree

DELAY_MAX = 30
"""Seconds; STP takes no longer forward delays, and none under :data:`STP_DELAY_MIN` (IEEE 802.1D)."""
STP_DELAY_MIN = 2

_MAKING, _MADE, _UNDOING = "making", "made", "undoing"

_SETTINGS = "/proc/sys/net/{family}/conf/{link}"
_LAST = ("rp_filter", "accept_dad")
"""Settings that would stop traffic for a moment if the bridge had them before all has moved."""
_NOT_INHERITED = (*_LAST, "mc_forwarding", "mtu")


class Made:
    """A bridge over a NIC; ``warnings`` are sentences for the one who asked."""

    __slots__ = ("bridge", "nic", "warnings")

    def __init__(self, bridge: str, nic: str, warnings: tuple[str, ...]) -> None:
        self.bridge = bridge
        self.nic = nic
        self.warnings = warnings


def uplink_tag(nic: str) -> str:
    """The ifalias of a bridge over a NIC."""
    return f"qkvm:uplink={nic}"


def make(tree: Tree, nic: str, bridge: str, *, stp: bool = False, delay: int = 0, alias: str = "") -> Made:
    """Make a bridge of which a NIC is the first port, and move all that the NIC has to it; or change nothing.

    :param stp: speak the Spanning Tree Protocol. :param delay: seconds in which STP keeps a new port silent; the
        NIC itself is not kept silent. :param alias: the bridge's ifalias; default: :func:`uplink_tag`.
    :raises NotFound: no such NIC. :raises InvalidValue: it can't be bridged, or a value is impossible.
    :raises InvalidState: it is another's. :raises AlreadyExists: the bridge's name is taken.
    :raises HostError: the kernel refused a step; all is as before.
    """
    check_interface_name(bridge)
    _check_delay(stp, delay)
    need_root(f"a bridge over {nic}", instead=INSTEAD)
    with _own(tree) as sock:
        links = sock.dump(nl.GETLINK)
        fitness.check_bridge(links, bridge)
        link = fitness.check_nic(links, nic)
        place = Place(nl.index_of(link), nic)
        held = holding(sock, place, nl.mac_of(link))
        moved(held, place, Place(0, bridge))  # Refuses what the bridge's name makes impossible.
        warnings = fitness.warnings(sock, link, held, bridge)
        up = bool(nl.flags_of(link) & nl.IFF_UP)
        if not up:
            # What still leads through it is dead, and nowhere else possible.
            held.groups.clear()
        now = {
            "bridge": bridge, "nic": nic, "index": place.index, "mac": nl.mac_of(link), "up": up,
            "mtu": link.number(nl.IFLA_MTU), "alias": alias or uplink_tag(nic), "stp": stp, "delay": delay,
            "state": _MAKING, "holding": held.plain(),
        }  # fmt: skip
        record.write(_path(tree, bridge), now)
        try:
            _join(sock, now, held)
            record.write(_path(tree, bridge), {**now, "state": _MADE})
        except BaseException as error:
            _back_out(error, lambda: _part(sock, now, held))
            remove(_path(tree, bridge))
            raise
    return Made(bridge, nic, warnings)


def undo(tree: Tree, bridge: str, *, alias: str = "", force: bool = False) -> str:
    """Give the NIC under a bridge all that the bridge has, and remove the bridge; or change nothing.

    :param alias: the one that it was made with; whoever does not know it may not remove it.
    :param force: remove it though other links are on it too; they end up on no bridge.
    :returns: the NIC's name; '' where it is gone, and only the bridge was there to be removed.
    :raises NotFound: no bridge of that name was made over a NIC here.
    :raises InvalidState: other links are on it, it is another's, or no longer what was made.
    """
    need_root(f"taking bridge {bridge} away", instead="sudo qkvm iface-unbridge")
    with _own(tree) as sock:
        now = _read(tree, bridge)
        links = sock.dump(nl.GETLINK)
        if now is None:
            fitness.check_unknown(links, bridge)
            raise NotFound(f"no bridge {printable(bridge)} was made over a NIC here", kind="bridge", name=bridge)
        if now["alias"] != (alias or uplink_tag(now["nic"])):
            fitness.refuse_owned(bridge, now["alias"])
        made = _bridge(links, now)
        nic = _nic(links, now)
        if made is None and any(link.text(nl.IFLA_IFNAME) == bridge for link in links):
            raise InvalidState(f"{bridge} is no longer the bridge that was made over {now['nic']}")
        if made is not None and nic is not None:
            _undo(sock, tree, now, links, force=force)
        elif made is not None:
            _delete(sock, made)
        elif nic is not None:
            _restore(sock, now, nic)
        remove(_path(tree, bridge))
    return str(now["nic"]) if nic is not None else ""


def _undo(sock: nl.Socket, tree: Tree, now: dict[str, Any], links: list[nl.Message], *, force: bool) -> None:
    bridge, name = now["bridge"], now["nic"]
    made, nic = _bridge(links, now), _nic(links, now)
    assert made is not None and nic is not None
    place, port = Place(nl.index_of(made), bridge), Place(nl.index_of(nic), name)
    ports = {link.text(nl.IFLA_IFNAME) for link in links if link.number(nl.IFLA_MASTER) == place.index}
    if name not in ports:
        raise InvalidState(
            f"{name} is no longer a port of {bridge}", hint=f"ip link set {name} master {bridge}, and try again"
        )
    others = sorted(ports - {name})
    if others and not force:
        raise InvalidState(
            f"Multiple interfaces attached to bridge {bridge}: {printable(', '.join(others))}",
            hint="detach those first: guests' interfaces go with the guests",
        )
    held = moved(holding(sock, place, nl.mac_of(made)), place, port)
    path = _path(tree, bridge)
    going = {**now, "index": port.index, "state": _UNDOING, "holding": held.plain()}
    record.write(path, going)
    try:
        _part(sock, going, held)
    except BaseException as error:
        _back_out(error, lambda: _join(sock, going, held))
        record.write(path, now)
        raise


def _restore(sock: nl.Socket, now: dict[str, Any], nic: nl.Message) -> None:
    """Give a NIC whose bridge somebody has removed what it had before, unless it has something again."""
    port = Place(nl.index_of(nic), now["nic"])
    if not holding(sock, port, nl.mac_of(nic)).addresses:
        _part(
            sock,
            now,
            moved(Holding.from_plain(now["holding"]), Place(now["index"], now["nic"]), port),
            strict=False,
        )


def mend(tree: Tree) -> list[str]:
    """Put right what a killed process has left half done; gives a sentence for each bridge.

    One that was being made is taken back, one that was being removed is removed.
    """
    if not os.path.isdir(tree.uplink_runs):
        return []
    with _locked(tree), nl.Socket() as sock:
        return _mend(tree, sock)


def bridges(tree: Tree) -> dict[str, str]:
    """The bridges that were made over NICs in this boot: bridge and its NIC."""
    found = {name: _read(tree, name) for name in entries(tree.uplink_runs, ".json")}
    return {name: str(now["nic"]) for name, now in found.items() if now is not None}


def _mend(tree: Tree, sock: nl.Socket) -> list[str]:
    told = []
    sweep(tree.uplink_runs)
    for name in entries(tree.uplink_runs, ".json"):
        now = _read(tree, name)
        if now is None:
            # Of an earlier boot: nothing that it tells of is there.
            remove(_path(tree, name))
            continue
        links = sock.dump(nl.GETLINK)
        nic = _nic(links, now)
        if now["state"] == _MADE:
            continue
        if nic is None:
            made = _bridge(links, now)
            if made is not None:
                _delete(sock, made)
        else:
            held = Holding.from_plain(now["holding"])
            here = Place(nl.index_of(nic), now["nic"])
            _part(sock, now, moved(held, Place(now["index"], now["nic"]), here), strict=False)
        remove(_path(tree, name))
        what = "made" if now["state"] == _MAKING else "removed"
        told.append(f"bridge {name} was being {what} when that was cut off: {now['nic']} has its addresses again")
    return told


# The steps. Each can be done again.


def _join(sock: nl.Socket, now: dict[str, Any], held: Holding) -> None:
    """Make the bridge, the NIC its port, and the bridge the owner of all that the NIC holds."""
    place = Place(_ensure_bridge(sock, now), now["bridge"])
    port = Place(int(now["index"]), now["nic"])
    _inherit(port.name, place.name)
    _set("ipv4", place.name, "rp_filter", "0")
    _set("ipv6", place.name, "accept_dad", "0")
    for link in (place, port):
        sock.change(nl.NEWLINK, nl.link_message(link.index, up=True), f"cannot set {link.name} up")
    master = nl.link_message(port.index, [(nl.IFLA_MASTER, nl.u32(place.index))])
    sock.change(nl.NEWLINK, master, f"cannot make {port.name} a port of {place.name}")
    target = moved(held, port, place)
    handover.give(sock, target, place)
    handover.settle(sock, target, place, spare=True)
    handover.clear(sock, held, port)
    handover.settle(sock, target, place, spare=False)
    for family, name in (("ipv4", "rp_filter"), ("ipv6", "accept_dad")):
        value = _setting(family, port.name, name)
        if value is not None:
            _set(family, place.name, name, value)
    if now["stp"]:
        # The port forwards by now, and STP leaves it so; had STP come first, it would be silent for a while.
        _change_bridge(sock, place, [(nl.BR_STP_STATE, nl.u32(1))], "cannot enable STP on")


def _part(sock: nl.Socket, now: dict[str, Any], held: Holding, *, strict: bool = True) -> None:
    """Give the NIC what it is to hold, and remove the bridge."""
    links = sock.dump(nl.GETLINK)
    made, nic = _bridge(links, now), _nic(links, now)
    if nic is None:
        raise HostError(f"{now['nic']} is gone")
    port = Place(nl.index_of(nic), now["nic"])
    if made is not None:
        _set("ipv4", now["bridge"], "rp_filter", "0")
    handover.give(sock, held, port)
    # While it is a port, what the host sends through it goes out all the same, and what comes in is the bridge's.
    handover.settle(sock, held, port, spare=False, strict=strict)
    if made is not None:
        _delete(sock, made)
    if not now["up"]:
        sock.change(nl.NEWLINK, nl.link_message(port.index, up=False), f"cannot set {port.name} down")


def _ensure_bridge(sock: nl.Socket, now: dict[str, Any]) -> int:
    """The index of the bridge, which is made where it is not there."""
    name = now["bridge"]
    found = _bridge(sock.dump(nl.GETLINK), now)
    if found is None:
        data = [
            (nl.BR_FORWARD_DELAY, nl.u32(now["delay"] * os.sysconf("SC_CLK_TCK"))),
            (nl.BR_STP_STATE, nl.u32(0)),
        ]
        info = [(nl.INFO_KIND, nl.cstring("bridge")), nl.nest(nl.INFO_DATA, data)]
        wanted = [
            (nl.IFLA_IFNAME, nl.cstring(name)), (nl.IFLA_ADDRESS, bytes.fromhex(now["mac"].replace(":", ""))),
            nl.nest(nl.IFLA_LINKINFO, info),
        ]  # fmt: skip
        sock.change(nl.NEWLINK, nl.link_message(0, wanted), f"cannot make bridge {name}", nl.CREATE | nl.EXCL)
        found = _bridge(sock.dump(nl.GETLINK), now)
        if found is None:
            raise HostError(f"bridge {name} was taken away as soon as it was made")
    # Only an MTU that was set afterwards stays as it is whatever ports come and go.
    settled = [(nl.IFLA_IFALIAS, now["alias"].encode()), (nl.IFLA_MTU, nl.u32(now["mtu"]))]
    sock.change(nl.NEWLINK, nl.link_message(nl.index_of(found), settled), f"cannot prepare bridge {name}")
    return nl.index_of(found)


def _change_bridge(sock: nl.Socket, place: Place, data: nl.Attributes, what: str) -> None:
    info = [(nl.INFO_KIND, nl.cstring("bridge")), nl.nest(nl.INFO_DATA, data)]
    sock.change(
        nl.NEWLINK, nl.link_message(place.index, [nl.nest(nl.IFLA_LINKINFO, info)]), f"{what} {place.name}"
    )


def _delete(sock: nl.Socket, bridge: nl.Message) -> None:
    what = f"cannot remove bridge {bridge.text(nl.IFLA_IFNAME)}"
    sock.change(nl.DELLINK, nl.link_message(nl.index_of(bridge)), what)


def _bridge(links: list[nl.Message], now: dict[str, Any]) -> nl.Message | None:
    """The bridge that a record tells of: by its tag, or, where a crash came before that, by its MAC address."""
    for link in links:
        if link.text(nl.IFLA_IFNAME) == now["bridge"] and nl.kind_of(link) == "bridge":
            tag = link.text(nl.IFLA_IFALIAS)
            if tag == now["alias"] or (not tag and nl.mac_of(link) == now["mac"]):
                return link
    return None


def _nic(links: list[nl.Message], now: dict[str, Any]) -> nl.Message | None:
    """The NIC that a record tells of, with whatever number it has now."""
    return next((link for link in links if link.text(nl.IFLA_IFNAME) == now["nic"]), None)


# Settings in /proc/sys, which shows the reader's own network namespace.


def _inherit(nic: str, bridge: str) -> None:
    """Have the bridge treat packets as its NIC does; what a kernel has no such setting for is left out."""
    for family in ("ipv4", "ipv6"):
        folder = _SETTINGS.format(family=family, link=nic)
        for name in entries(folder):
            if name not in _NOT_INHERITED:
                value = _setting(family, nic, name)
                if value is not None and value != _setting(family, bridge, name):
                    try:
                        _set(family, bridge, name, value)
                    except HostError:
                        continue


def _setting(family: str, link: str, name: str) -> str | None:
    try:
        with open(f"{_SETTINGS.format(family=family, link=link)}/{name}", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return None


def _set(family: str, link: str, name: str, value: str) -> None:
    path = f"{_SETTINGS.format(family=family, link=link)}/{name}"
    try:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(value)
    except FileNotFoundError:
        pass  # A kernel without IPv6.
    except OSError as error:
        raise os_error(error, f"cannot set {path}") from error


# Records and the lock.


def _check_delay(stp: bool, delay: int) -> None:
    if not 0 <= delay <= DELAY_MAX or (stp and 0 < delay < STP_DELAY_MIN):
        raise InvalidValue(
            f"a forward delay of {delay} s is not possible",
            hint=f"{STP_DELAY_MIN} to {DELAY_MAX} with STP; 0 is the shortest that there is",
        )


def _path(tree: Tree, bridge: str) -> str:
    return os.path.join(tree.uplink_runs, f"{bridge}.json")


def _read(tree: Tree, bridge: str) -> dict[str, Any] | None:
    # A name that no bridge can have has no record, and must not become a path.
    return record.read(_path(tree, bridge)) if "/" not in bridge else None


@contextmanager
def _locked(tree: Tree) -> Iterator[None]:
    make_private_dir(tree.run)
    make_private_dir(tree.uplink_runs)
    with locked(os.path.join(tree.uplink_runs, ".lock"), "the set of bridges over NICs"):
        yield


@contextmanager
def _own(tree: Tree) -> Iterator[nl.Socket]:
    """The lock, a socket, and quiet: the hangup of a terminal whose connection stalls must not end it midway."""
    held_back = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP}
    with _locked(tree), nl.Socket() as sock:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
        try:
            _mend(tree, sock)
            yield sock
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _back_out(error: BaseException, steps: Any) -> None:
    """Take back what was done. Where that fails too, ``error`` is raised and the record stays for :func:`mend`."""
    try:
        steps()
    except QkvmError as failure:
        error.add_note(f"while undoing: {failure}")
        raise error from None
