"""Pin the machine type of a definition at its first start, where it could not be pinned when it was defined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain.definition import stored_text
from qkvm.emulator.machinetype import written
from qkvm.errors import HostError, InvalidValue
from qkvm.files import write_atomic

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.spec import domain as spec


def keep(domain: Handle, started: spec.Domain) -> list[str]:
    """Pin a stored definition that names no version to the one that the domain was started with; tells so.

    Call it under the domain's lock.
    """
    version = started.machine_version
    if not version or not domain.is_persistent:
        return []
    try:
        stored = domain.definition
        if stored.machine_version or stored.machine is not started.machine:
            return []
        write_atomic(domain.tree.domain_definition(domain.name), written(stored_text(domain), version))
    except (HostError, InvalidValue) as error:
        # The guest runs all the same; the next start tries again.
        return [f"the machine version {version} could not be written into the definition: {error}"]
    return [
        f"machine {started.machine} had no version: from now on it is {started.machine.versioned(version)}, "
        "machine_version in the definition says so"
    ]
