"""Statistics of disks under virsh's names: requests and bytes, and sizes of their images."""

from __future__ import annotations

import os
import stat

from qkvm.qmp import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from qkvm.spec import domain as spec

Values = dict[str, "int | str"]

_COUNTERS = (
    ("rd.reqs", "rd_operations"), ("rd.bytes", "rd_bytes"), ("rd.times", "rd_total_time_ns"),
    ("wr.reqs", "wr_operations"), ("wr.bytes", "wr_bytes"), ("wr.times", "wr_total_time_ns"),
    ("fl.reqs", "flush_operations"), ("fl.times", "flush_total_time_ns"),
)  # fmt: skip
"""virsh's names -> those of QMP's BlockDeviceStats."""


def of_run(
    disks: list[dict[str, Any]], stats: list[dict[str, Any]], nodes: list[dict[str, Any]], *, backing: bool
) -> Values:
    """Return the statistics of a running guest's disks.

    :param disks: entries of its record. :param stats: query-blockstats. :param nodes: query-named-block-nodes.
    """
    by_device = {commands.device_id(entry): entry for entry in stats}
    by_name = {str(node["node-name"]): node for node in nodes}
    rows: list[Values] = []
    for disk in disks:
        found = by_device.get(disk["id"])
        layers = list(_layers(found)) if found is not None else []
        if found is not None and disk.get("filters"):
            # Requests are counted at the top; sizes are known of the image's own node.
            layers = layers[len(disk["filters"]) :]
            layers[0] = {**layers[0], "stats": found["stats"]}
        paths = [str(disk["path"]), *(layer["path"] for layer in disk.get("spec", {}).get("backing", []))]
        if not layers:
            rows.append(_named(str(disk["target"]), paths[0]))
        for depth, layer in enumerate(layers if backing else layers[:1]):
            row = _named(str(disk["target"]), paths[depth] if depth < len(paths) else "")
            row["backingIndex"] = depth + 1
            row |= {name: int(layer["stats"][key]) for name, key in _COUNTERS if key in layer["stats"]}
            sizes = _sizes(layer, by_name)
            if sizes.get("physical") == 0:
                # QEMU reports the blocks in a file system, of which a block device has none.
                sizes |= {"physical": _file_sizes(str(row.get("path", "")), "raw").get("physical", 0)}
            rows.append(row | sizes)
    return _numbered(rows)


def _layers(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the images of a chain, the guest's first."""
    layer: dict[str, Any] | None = entry
    while layer is not None:
        yield layer
        layer = layer.get("backing")


def _sizes(layer: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> Values:
    """Return the highest byte written, the size that the guest sees, and the room taken on the host."""
    below = layer.get("parent", layer)
    found: Values = {"allocation": int(below["stats"].get("wr_highest_offset", 0))}
    image = nodes.get(str(layer.get("node-name", "")), {}).get("image", {})
    if "virtual-size" in image:
        found["capacity"] = int(image["virtual-size"])
    if "actual-size" in image:
        found["physical"] = int(image["actual-size"])
    return found


def of_definition(definition: spec.Domain, *, backing: bool) -> Values:
    """Return paths and sizes of the disks of a domain that does not run; missing images have no sizes."""
    rows: list[Values] = []
    for disk in definition.disks:
        images = [(disk.path, str(disk.format))]
        images += [(layer.path, str(layer.format)) for layer in disk.backing] if backing else []
        for path, fmt in images:
            rows.append(_named(disk.target, path) | (_file_sizes(path, fmt) if path else {}))
    return _numbered(rows)


def _file_sizes(path: str, fmt: str) -> Values:
    from qkvm.errors import InvalidValue
    from qkvm.storage.image import qcow2

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return {}
    try:
        info, head = os.fstat(fd), os.read(fd, 112)
        size = os.lseek(fd, 0, os.SEEK_END)
        capacity = qcow2.parse(head, path).size if fmt == "qcow2" else size
    except (OSError, InvalidValue):
        return {}
    finally:
        os.close(fd)
    taken = size if stat.S_ISBLK(info.st_mode) else info.st_blocks * 512
    return {"allocation": taken, "capacity": capacity, "physical": size}


def _named(target: str, path: str) -> Values:
    return {"name": target, **({"path": path} if path else {})}


def _numbered(rows: Iterable[Values]) -> Values:
    listed = list(rows)
    found: Values = {"block.count": len(listed)}
    for number, row in enumerate(listed):
        found |= {f"block.{number}.{name}": value for name, value in row.items()}
    return found
