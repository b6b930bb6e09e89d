"""The seed of a cloud image: a CD labelled cidata, which cloud-init's NoCloud source reads."""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError
from qkvm.files import make_private_dir, write_atomic
from qkvm.storage.media import iso

LABEL = "cidata"
"""The label that NoCloud looks for (cloud-init: DataSourceNoCloud)."""

SMBIOS_SERIAL = "ds=nocloud"
"""The serial number that names the source for a guest that does not look for the label."""


class Seed(NamedTuple):
    """The texts of a seed; without a ``network_config`` the image configures its network.

    ``vendor_data`` are qkvm's, beside the user's own; cloud-init follows both.
    """

    user_data: str
    meta_data: str
    network_config: str = ""
    vendor_data: str = ""


def write(path: str, seed: Seed) -> None:
    """Make the seed's CD image and its folder, for root only; an old image is replaced."""
    make_private_dir(os.path.dirname(path))
    contents = {"user-data": seed.user_data, "meta-data": seed.meta_data}
    if seed.network_config:
        contents["network-config"] = seed.network_config
    if seed.vendor_data:
        contents["vendor-data"] = seed.vendor_data
    write_atomic(path, iso.make(LABEL, {name: text.encode() for name, text in contents.items()}))


def read(path: str) -> Seed:
    """Return the texts of a seed. :raises HostError: it is not there, or is no seed."""
    with iso.Iso(path) as image:
        found = [image.read(name) for name in ("user-data", "meta-data", "network-config", "vendor-data")]
    if found[0] is None or found[1] is None:
        raise HostError(f"{path} is no seed: it lacks user-data or meta-data")
    return Seed(*((raw or b"").decode("utf-8", "replace") for raw in found))
