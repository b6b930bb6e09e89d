"""Make a bridge over a NIC of the host, which becomes its port, and undo it.

The bridge takes the NIC's MAC address, MTU, addresses, routes and settings, so that open connections stay open.
What is to be put back is written to run/qkvm/uplinks/BRIDGE.json before any change. If this process is killed, the
next verb puts the host back or finishes (:func:`mend`). All ends with this boot; the distribution's own
configuration is not changed.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress

from qkvm.errors import HostError, InvalidState, InvalidValue, NotFound, QkvmError
from qkvm.files import entries, locked, make_private_dir, remove, sweep
from qkvm.host import record
from qkvm.net.link import rtnetlink as nl
from qkvm.net.link import sysctl
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
"""Seconds; the longest forward delay that STP takes. The shortest is :data:`STP_DELAY_MIN` (IEEE 802.1D)."""
STP_DELAY_MIN = 2

_MAKING, _MADE, _UNDOING = "making", "made", "undoing"

_LAST = ("ipv4/rp_filter", "ipv6/accept_dad")
"""Settings of the NIC that would stop traffic for a moment if the bridge had them before all has moved."""
_NOT_INHERITED = ("rp_filter", "accept_dad", "mc_forwarding", "mtu")


class Made:
    """A bridge over a NIC; ``warnings`` are sentences for the user."""

    __slots__ = ("bridge", "nic", "warnings")

    def __init__(self, bridge: str, nic: str, warnings: tuple[str, ...]) -> None:
        self.bridge = bridge
        self.nic = nic
        self.warnings = warnings


def uplink_tag(nic: str) -> str:
    """Return the ifalias of a bridge over a NIC."""
    return f"qkvm:uplink={nic}"


def make(tree: Tree, nic: str, bridge: str, *, stp: bool = False, delay: int = 0, alias: str = "") -> Made:
    """Make a bridge with a NIC as its first port, and move all that the NIC has to it; or change nothing.

    :param stp: speak the Spanning Tree Protocol. :param delay: seconds for which STP silences a new port, but not
        the NIC. :param alias: the bridge's ifalias; default: :func:`uplink_tag`.
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
            # Its routes are dead, and could not exist elsewhere.
            held.groups.clear()
        now: dict[str, Any] = {
            "bridge": bridge,
            "nic": nic,
            "index": place.index,
            "mac": nl.mac_of(link),
            "up": up,
        }
        now |= {"mtu": link.number(nl.IFLA_MTU), "alias": alias or uplink_tag(nic), "stp": stp, "delay": delay}
        now |= {"state": _MAKING, "holding": held.plain()}
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
    """Give the NIC all that the bridge has, and remove the bridge; or change nothing.

    :param alias: the one that it was made with; another owner's bridge is refused.
    :param force: remove it though other links are on it; they end up on no bridge.
    :returns: the NIC's name; '' where the NIC is gone and only the bridge was removed.
    :raises NotFound: no bridge of that name was made over a NIC here.
    :raises InvalidState: other links are on it, it is another's, or it is not the bridge that was made.
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
    """Give a NIC whose bridge was removed by others what it had before, unless it has addresses again."""
    port = Place(nl.index_of(nic), now["nic"])
    if not holding(sock, port, nl.mac_of(nic)).addresses:
        held = moved(Holding.from_plain(now["holding"]), Place(now["index"], now["nic"]), port)
        _part(sock, now, held, strict=False)


def mend(tree: Tree) -> list[str]:
    """Repair what a killed process left half done; return a sentence for each bridge.

    A half-made bridge is removed, and so is one that was being removed.
    """
    if not os.path.isdir(tree.uplink_runs):
        return []
    with _locked(tree), nl.Socket() as sock:
        return _mend(tree, sock)


def bridges(tree: Tree) -> dict[str, str]:
    """Return the bridges that were made over NICs in this boot, each with its NIC."""
    found = {name: _read(tree, name) for name in entries(tree.uplink_runs, ".json")}
    return {name: str(now["nic"]) for name, now in found.items() if now is not None}


def _mend(tree: Tree, sock: nl.Socket) -> list[str]:
    told = []
    sweep(tree.uplink_runs)
    for name in entries(tree.uplink_runs, ".json"):
        now = _read(tree, name)
        if now is None:
            # Of an earlier boot: nothing of it exists.
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


# The steps. Each can be repeated.


def _join(sock: nl.Socket, now: dict[str, Any], held: Holding) -> None:
    """Make the bridge and its port, and move all that the NIC holds to the bridge."""
    place = Place(_ensure_bridge(sock, now), now["bridge"])
    port = Place(int(now["index"]), now["nic"])
    _inherit(port.name, place.name)
    for setting in _LAST:
        sysctl.write(_key(setting, place.name), "0", optional=True)
    for link in (place, port):
        sock.change(nl.NEWLINK, nl.link_message(link.index, up=True), f"cannot set {link.name} up")
    master = nl.link_message(port.index, [(nl.IFLA_MASTER, nl.u32(place.index))])
    sock.change(nl.NEWLINK, master, f"cannot make {port.name} a port of {place.name}")
    target = moved(held, port, place)
    handover.give(sock, target, place)
    handover.settle(sock, target, place, spare=True)
    handover.clear(sock, held, port)
    handover.settle(sock, target, place, spare=False)
    for setting in _LAST:
        if value := sysctl.read(_key(setting, port.name)):
            sysctl.write(_key(setting, place.name), value, optional=True)
    if now["stp"]:
        # The port forwards already, and STP leaves it so; had STP come first, the port would be silent for a
        # while.
        wanted = nl.link_message(place.index, [_bridge_data([(nl.BR_STP_STATE, nl.u32(1))])])
        sock.change(nl.NEWLINK, wanted, f"cannot enable STP on {place.name}")


def _part(sock: nl.Socket, now: dict[str, Any], held: Holding, *, strict: bool = True) -> None:
    """Give the NIC what it is to hold, and remove the bridge."""
    links = sock.dump(nl.GETLINK)
    made, nic = _bridge(links, now), _nic(links, now)
    if nic is None:
        raise HostError(f"{now['nic']} is gone")
    port = Place(nl.index_of(nic), now["nic"])
    if made is not None:
        sysctl.write(_key("ipv4/rp_filter", now["bridge"]), "0", optional=True)
    handover.give(sock, held, port)
    # While it is a port, the host can send through it, but what comes in belongs to the bridge.
    handover.settle(sock, held, port, spare=False, strict=strict)
    if made is not None:
        _delete(sock, made)
    if not now["up"]:
        sock.change(nl.NEWLINK, nl.link_message(port.index, up=False), f"cannot set {port.name} down")


def _ensure_bridge(sock: nl.Socket, now: dict[str, Any]) -> int:
    """Make the bridge where it does not exist; return its index."""
    name = now["bridge"]
    found = _bridge(sock.dump(nl.GETLINK), now)
    if found is None:
        delay = now["delay"] * os.sysconf("SC_CLK_TCK")
        data = [(nl.BR_FORWARD_DELAY, nl.u32(delay)), (nl.BR_STP_STATE, nl.u32(0))]
        address = bytes.fromhex(now["mac"].replace(":", ""))
        wanted = [(nl.IFLA_IFNAME, nl.cstring(name)), (nl.IFLA_ADDRESS, address), _bridge_data(data)]
        sock.change(nl.NEWLINK, nl.link_message(0, wanted), f"cannot make bridge {name}", nl.CREATE | nl.EXCL)
        found = _bridge(sock.dump(nl.GETLINK), now)
        if found is None:
            raise HostError(f"bridge {name} was taken away as soon as it was made")
    # An MTU that is set later stays, whatever ports come and go.
    settled = [(nl.IFLA_IFALIAS, now["alias"].encode()), (nl.IFLA_MTU, nl.u32(now["mtu"]))]
    sock.change(nl.NEWLINK, nl.link_message(nl.index_of(found), settled), f"cannot prepare bridge {name}")
    return nl.index_of(found)


def _bridge_data(data: nl.Attributes) -> tuple[int, bytes]:
    return nl.nest(nl.IFLA_LINKINFO, [(nl.INFO_KIND, nl.cstring("bridge")), nl.nest(nl.INFO_DATA, data)])


def _delete(sock: nl.Socket, bridge: nl.Message) -> None:
    what = f"cannot remove bridge {bridge.text(nl.IFLA_IFNAME)}"
    sock.change(nl.DELLINK, nl.link_message(nl.index_of(bridge)), what)


def _bridge(links: list[nl.Message], now: dict[str, Any]) -> nl.Message | None:
    """Return a record's bridge, found by its tag or, where a crash came before that, by its MAC address."""
    for link in links:
        if link.text(nl.IFLA_IFNAME) == now["bridge"] and nl.kind_of(link) == "bridge":
            tag = link.text(nl.IFLA_IFALIAS)
            if tag == now["alias"] or (not tag and nl.mac_of(link) == now["mac"]):
                return link
    return None


def _nic(links: list[nl.Message], now: dict[str, Any]) -> nl.Message | None:
    """Return a record's NIC, whatever its number is now."""
    return next((link for link in links if link.text(nl.IFLA_IFNAME) == now["nic"]), None)


def _key(setting: str, link: str) -> str:
    family, _, name = setting.partition("/")
    return f"net/{family}/conf/{link}/{name}"


def _inherit(nic: str, bridge: str) -> None:
    """Give the bridge its NIC's settings; those that this kernel lacks or refuses are left out."""
    for family in ("ipv4", "ipv6"):
        for name in entries(f"/proc/sys/net/{family}/conf/{nic}"):
            if name not in _NOT_INHERITED:
                with suppress(HostError):
                    value = sysctl.read(_key(f"{family}/{name}", nic))
                    if value != sysctl.read(_key(f"{family}/{name}", bridge)):
                        sysctl.write(_key(f"{family}/{name}", bridge), value)


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
    # A name that no bridge can have must not become a path.
    return record.read(_path(tree, bridge)) if "/" not in bridge else None


@contextmanager
def _locked(tree: Tree) -> Iterator[None]:
    make_private_dir(tree.run)
    make_private_dir(tree.uplink_runs)
    with locked(os.path.join(tree.uplink_runs, ".lock"), "the set of bridges over NICs"):
        yield


@contextmanager
def _own(tree: Tree) -> Iterator[nl.Socket]:
    """Hold the lock with signals blocked: a terminal whose connection stalls may hang up in the middle."""
    held_back = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP}
    with _locked(tree), nl.Socket() as sock:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
        try:
            _mend(tree, sock)
            yield sock
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _back_out(error: BaseException, steps: Any) -> None:
    """Undo the steps. Where that fails too, raise ``error``; the record stays for :func:`mend`."""
    try:
        steps()
    except QkvmError as failure:
        error.add_note(f"while undoing: {failure}")
        raise error from None
