"""Check that a QEMU has the machine and all devices of a definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.errors import HostError
from qkvm.qemu import needs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qkvm.qemu.abilities import Abilities
    from qkvm.qemu.render import Option

_MODULES = {
    "qxl": "qemu-system-modules-spice",
    "qxl-vga": "qemu-system-modules-spice",
    "virtio-gpu-gl-device": "qemu-system-modules-opengl",
    "virtio-gpu-gl-pci": "qemu-system-modules-opengl",
    "virtio-vga-gl": "qemu-system-modules-opengl",
}
"""Types that are in packages of their own in Debian's QEMU 10."""


def refuse_types(options: Iterable[Option], able: Abilities) -> None:
    """Refuse a command line with types of devices or objects that a QEMU does not have.

    :raises HostError: naming them.
    """
    missing = needs.missing_types(needs.of(options), able)
    if missing:
        raise HostError(
            f"{able.path} is QEMU {able.version} and has no {', '.join(missing)}",
            hint=package_hint(missing) or "take another model",
        )


def package_hint(missing: Iterable[str]) -> str:
    """Name Debian's packages that bring missing types; '' for none."""
    packages = sorted({_MODULES[name] for name in missing if name in _MODULES})
    return f"on Debian: apt install {' '.join(packages)}" if packages else ""
