"""virsh without libvirtd: a QMP-level hypervisor driver.

    import qkvm

    vm = qkvm.Host().domain("vm01")
    vm.start()
    vm.vcpus.set_count(2)

Names are loaded when they are used: the command line pays for no more than its verb needs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.api.domain import Domain
    from qkvm.api.host import Host
    from qkvm.api.network import Network
    from qkvm.api.storage import Pool, Volume
    from qkvm.errors import QkvmError
    from qkvm.scope import Scope
    from qkvm.spec.disk import Disk

__all__ = ["Disk", "Domain", "Host", "Network", "Pool", "QkvmError", "Scope", "Volume"]

_HOMES = {
    "Disk": "qkvm.spec.disk",
    "Domain": "qkvm.api.domain",
    "Host": "qkvm.api.host",
    "Network": "qkvm.api.network",
    "Pool": "qkvm.api.storage",
    "QkvmError": "qkvm.errors",
    "Scope": "qkvm.scope",
    "Volume": "qkvm.api.storage",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'qkvm' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
