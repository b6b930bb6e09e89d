"""virsh without libvirtd: a QMP-level hypervisor driver.

    import qkvm

    vm = qkvm.Host().domain("vm01")
    vm.start()
    vm.set_vcpus(2)

Names are loaded when they are used: the command line pays for no more than its verb needs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.api.domain import Domain
    from qkvm.api.host import Host
    from qkvm.errors import QkvmError
    from qkvm.net.network.network import Network
    from qkvm.scope import Scope

__all__ = ["Domain", "Host", "Network", "QkvmError", "Scope"]

_HOMES = {
    "Domain": "qkvm.api.domain",
    "Host": "qkvm.api.host",
    "Network": "qkvm.net.network.network",
    "QkvmError": "qkvm.errors",
    "Scope": "qkvm.scope",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'qkvm' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
