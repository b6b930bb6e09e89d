"""<tpm>, <filesystem>, <watchdog>, <memballoon>, <rng> and <panic>."""

from __future__ import annotations

from qkvm.spec.devices import (
    AccessMode,
    Balloon,
    Filesystem,
    FilesystemDriver,
    Rng,
    Tpm,
    TpmModel,
    Vsock,
    Watchdog,
    WatchdogAction,
    WatchdogModel,
)
from qkvm.spec.libvirt.node import Node
from qkvm.spec.libvirt.place import Places, read_address, read_alias
from qkvm.units import printable
from qkvm.xml import Element


def read_tpm(node: Node) -> Tpm:
    """Read <tpm>."""
    with node:
        model = node.choice("model", TpmModel, TpmModel.TIS)
        backend = node.child("backend")
        if backend is None:
            raise node.malformed("<backend> is missing")
        with backend:
            kind = backend.required("type")
            if kind != "emulator":
                raise node.refusal(f"a backend of type '{printable(kind)}' is not supported", hint="emulator")
            # qkvm always keeps swtpm's state until the domain is undefined.
            backend.only("persistent_state", "yes")
            version = backend.take("version", "2.0")
        read_alias(node)
        return Tpm(model=model, version=version)


def write_tpm(parent: Element, tpm: Tpm) -> None:
    """Write <tpm>."""
    parent.add("tpm", model=tpm.model).add("backend", type="emulator", version=tpm.version)


def read_filesystem(node: Node) -> Filesystem:
    """Read <filesystem>."""
    with node:
        if node.take("type", "mount") != "mount":
            raise node.refusal("only folders of the host can be shared", hint="type='mount'")
        access = node.choice("accessmode", AccessMode, AccessMode.PASSTHROUGH)
        node.only("multidevs", "remap", "default")
        modes = [node.take(name) for name in ("fmode", "dmode")]
        driver = node.child("driver")
        word = "path"
        if driver is not None:
            with driver:
                word = driver.take("type", word)
                if word not in ("path", "virtiofs"):
                    raise driver.refusal(f"'{printable(word)}' is not supported", hint="path, virtiofs")
                driver.only("wrpolicy", "writeback")
                driver.only("queue", "1024")
        source, target = node.child("source"), node.child("target")
        if source is None or target is None:
            raise node.malformed("<source> and <target> are needed")
        with source, target:
            folder, tag = source.required("dir"), target.required("dir")
        kind = FilesystemDriver.VIRTIOFS if word == "virtiofs" else FilesystemDriver.NINEP
        return Filesystem(
            source=folder, target=tag, driver=kind, access=access, readonly=node.present("readonly"),
            file_mode=modes[0], folder_mode=modes[1], alias=read_alias(node), address=read_address(node, "pci"),
        )  # fmt: skip


def write_filesystem(parent: Element, share: Filesystem, places: Places) -> None:
    """Write <filesystem>; driver auto is written as virtiofs if possible."""
    ninep = share.driver is FilesystemDriver.NINEP or share.needs_9p
    element = parent.add(
        "filesystem", type="mount", accessmode=share.access if ninep else "passthrough",
        fmode=share.file_mode or None, dmode=share.folder_mode or None,
    )  # fmt: skip
    if not ninep:
        element.add("driver", type="virtiofs")
    element.add("source", dir=share.source)
    element.add("target", dir=share.target)
    if share.readonly:
        element.add("readonly")
    places.write(element, share.alias, share.address, key=f"filesystem {share.target}")


def read_watchdog(node: Node) -> Watchdog:
    """Read <watchdog>."""
    with node:
        model = node.choice("model", WatchdogModel, WatchdogModel.I6300ESB)
        action = node.choice("action", WatchdogAction, WatchdogAction.RESET)
        read_alias(node)
        return Watchdog(model=model, action=action, address=read_address(node, "pci"))


def write_watchdog(parent: Element, watchdog: Watchdog, places: Places) -> None:
    """Write <watchdog>."""
    element = parent.add("watchdog", model=watchdog.model, action=watchdog.action)
    places.write(element, "", watchdog.address, key="watchdog")


def read_balloon(node: Node) -> Balloon | None:
    """Read <memballoon>; None for model none."""
    with node:
        model = node.required("model")
        if model == "none":
            return None
        if model != "virtio":
            raise node.refusal(f"model '{printable(model)}' is not supported", hint="virtio, none")
        stats = node.child("stats")
        period = 0
        if stats is not None:
            with stats:
                period = stats.number("period")
        read_alias(node)
        return Balloon(
            free_page_reporting=node.switch("freePageReporting"),
            deflate_on_oom=node.switch("autodeflate"),
            stats_period=period,
            address=read_address(node, "pci"),
        )


def write_balloon(parent: Element, balloon: Balloon | None, places: Places) -> None:
    """Write <memballoon>."""
    if balloon is None:
        parent.add("memballoon", model="none")
        return
    element = parent.add(
        "memballoon",
        model="virtio",
        autodeflate="on" if balloon.deflate_on_oom else None,
        freePageReporting="on" if balloon.free_page_reporting else None,
    )
    if balloon.stats_period:
        element.add("stats", period=balloon.stats_period)
    places.write(element, "", balloon.address, key="balloon")


def read_rng(node: Node) -> Rng:
    """Read <rng>."""
    with node:
        if node.required("model") != "virtio":
            raise node.refusal("only a virtio one is supported")
        rate = node.child("rate")
        amount, period = 0, 1000
        if rate is not None:
            with rate:
                amount, period = rate.number_of(rate.required("bytes"), "bytes"), rate.number("period", period)
        backend = node.child("backend")
        if backend is None:
            raise node.malformed("<backend> is missing")
        with backend:
            kind = backend.required("model")
            if kind != "random":
                raise node.refusal(f"a backend of model '{printable(kind)}' is not supported", hint="random")
            source = backend.text() or "/dev/urandom"
        read_alias(node)
        return Rng(source=source, rate_bytes=amount, rate_period=period, address=read_address(node, "pci"))


def write_rng(parent: Element, rng: Rng, places: Places) -> None:
    """Write <rng>."""
    element = parent.add("rng", model="virtio")
    if rng.rate_bytes:
        element.add("rate", bytes=rng.rate_bytes, period=rng.rate_period)
    element.add("backend", rng.source, model="random")
    places.write(element, "", rng.address, key="rng")


def read_vsock(node: Node) -> Vsock:
    """Read <vsock>."""
    with node:
        node.only("model", "virtio")
        number, found = 0, node.child("cid")
        if found is not None:
            with found:
                automatic = found.switch("auto")
                number = found.number("address")
                if automatic:
                    number = 0
                elif not number:
                    raise found.malformed("<cid> has neither auto='yes' nor an address")
        read_alias(node)
        return Vsock(cid=number, address=read_address(node, "pci"))


def write_vsock(parent: Element, vsock: Vsock, places: Places, *, cid: int) -> None:
    """Write <vsock>. :param cid: the number of a running guest, 0 for none."""
    element = parent.add("vsock", model="virtio")
    if vsock.cid:
        element.add("cid", auto="no", address=vsock.cid)
    else:
        element.add("cid", auto="yes", address=cid or None)
    places.write(element, "", vsock.address, key="vsock")


def read_panic(node: Node) -> None:
    """Read <panic> of a pc or q35."""
    with node:
        node.only("model", "isa")
        read_alias(node)
        found = node.child("address")
        if found is not None:
            with found:
                found.only("type", "isa")
                found.only("iobase", "0x505")


def write_panic(parent: Element) -> None:
    """Write <panic>."""
    parent.add("panic", model="isa")
