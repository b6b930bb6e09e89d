"""Where things lie: the tree under QKVM_ROOT.

    etc/qkvm/       what the user wants: qkvm.toml, {domains,networks,pools}/NAME.toml, templates/
    var/lib/qkvm/   what lasts: boot/, checkpoints/, images/, leases/, nvram/, save/, seeds/, snapshots/, tpm/
    run/qkvm/       what runs now: domains/NAME/, networks/NAME/, pools/NAME.json, uplinks/BRIDGE.json, last-id
    var/log/qkvm/   QEMU's words and the guests' serial logs

Another root is another set that never meets the host's own. Paths are plain strings: a read verb has no
time for more.
"""

from __future__ import annotations

import os
from os.path import join

ROOT_VARIABLE = "QKVM_ROOT"


class Tree:
    """The paths of one root; nothing is made or looked at here."""

    __slots__ = ("config", "log", "root", "run", "state")

    def __init__(self, root: str | None = None) -> None:
        """:param root: the root folder; default: $QKVM_ROOT, else /."""
        self.root = os.path.abspath(root or os.environ.get(ROOT_VARIABLE) or "/")
        self.config = join(self.root, "etc/qkvm")
        self.state = join(self.root, "var/lib/qkvm")
        self.run = join(self.root, "run/qkvm")
        self.log = join(self.root, "var/log/qkvm")

    @property
    def settings(self) -> str:
        """The administrator's settings, qkvm.toml."""
        return join(self.config, "qkvm.toml")

    @property
    def domain_definitions(self) -> str:
        """Folder of the domains' definitions."""
        return join(self.config, "domains")

    @property
    def network_definitions(self) -> str:
        """Folder of the networks' definitions."""
        return join(self.config, "networks")

    @property
    def templates(self) -> str:
        """Folder of the administrator's own templates, searched before the packaged ones."""
        return join(self.config, "templates")

    @property
    def images(self) -> str:
        """Folder in which disks without a folder of their own are made."""
        return join(self.state, "images")

    @property
    def domain_runs(self) -> str:
        """Folder of the running domains' folders."""
        return join(self.run, "domains")

    @property
    def network_runs(self) -> str:
        """Folder of the active networks' folders."""
        return join(self.run, "networks")

    @property
    def pool_definitions(self) -> str:
        """Folder of the storage pools' definitions."""
        return join(self.config, "pools")

    @property
    def pool_runs(self) -> str:
        """Folder of the storage pools' states in this boot."""
        return join(self.run, "pools")

    @property
    def uplink_runs(self) -> str:
        """Folder of the records of bridges that were made over NICs in this boot."""
        return join(self.run, "uplinks")

    def domain_definition(self, name: str) -> str:
        """Definition file of one domain."""
        return join(self.domain_definitions, f"{name}.toml")

    def network_definition(self, name: str) -> str:
        """Definition file of one network."""
        return join(self.network_definitions, f"{name}.toml")

    def pool_definition(self, name: str) -> str:
        """Definition file of one storage pool."""
        return join(self.pool_definitions, f"{name}.toml")

    def pool_run(self, name: str) -> str:
        """State of one storage pool in this boot."""
        return join(self.pool_runs, f"{name}.json")

    def domain_run(self, name: str) -> str:
        """Folder of what runs of one domain."""
        return join(self.domain_runs, name)

    def network_run(self, name: str) -> str:
        """Folder of what runs of one network."""
        return join(self.network_runs, name)

    def leases(self, network: str) -> str:
        """DHCP leases of one network; they outlive its runs."""
        return join(self.state, "leases", f"{network}.leases")

    def reservations(self, network: str) -> str:
        """Addresses that DHCP keeps for NICs of one network; they outlive its runs."""
        return join(self.state, "leases", f"{network}.kept")

    @property
    def saves(self) -> str:
        """Folder of the managed saves."""
        return join(self.state, "save")

    def managed_save(self, domain: str) -> str:
        """The saved state of one domain that its next start takes up."""
        return join(self.saves, f"{domain}.save")

    @property
    def nvrams(self) -> str:
        """Folder of the domains' UEFI variables."""
        return join(self.state, "nvram")

    def nvram(self, domain: str) -> str:
        """The UEFI variables of one domain, where its definition names no other file."""
        return join(self.nvrams, f"{domain}_VARS.qcow2")

    @property
    def snapshot_folders(self) -> str:
        """Folder of the folders of the domains' snapshots."""
        return join(self.state, "snapshots")

    @property
    def checkpoint_folders(self) -> str:
        """Folder of the folders of the domains' checkpoints."""
        return join(self.state, "checkpoints")

    def checkpoints(self, domain: str) -> str:
        """Folder of what is known of one domain's checkpoints."""
        return join(self.checkpoint_folders, domain)

    def snapshots(self, domain: str) -> str:
        """Folder of what is known of one domain's snapshots."""
        return join(self.snapshot_folders, domain)

    @property
    def seeds(self) -> str:
        """Folder of the cloud-init seeds."""
        return join(self.state, "seeds")

    def seed(self, domain: str) -> str:
        """The cloud-init seed of one domain, a CD image."""
        return join(self.seeds, f"{domain}.iso")

    @property
    def boot_files(self) -> str:
        """Folder of kernels and initrds that were taken from install media."""
        return join(self.state, "boot")

    def boot_file(self, domain: str, kind: str) -> str:
        """The kernel or initrd (``kind``) that one domain was installed with."""
        return join(self.boot_files, f"{domain}.{kind}")

    @property
    def tpms(self) -> str:
        """Folder of the domains' TPMs."""
        return join(self.state, "tpm")

    def tpm(self, domain: str) -> str:
        """Folder with the state of one domain's TPM."""
        return join(self.tpms, domain)

    def qemu_log(self, domain: str) -> str:
        """What QEMU wrote on stderr for one domain."""
        return join(self.log, f"{domain}.log")

    def serial_log(self, domain: str) -> str:
        """What the guest wrote on its first serial port."""
        return join(self.log, f"{domain}.serial.log")


def packaged_templates() -> str:
    """Folder of the templates that qkvm brings: inside the package when installed, beside it in a checkout."""
    package = os.path.dirname(os.path.abspath(__file__))
    installed = join(package, "templates")
    return installed if os.path.isdir(installed) else join(os.path.dirname(package), "templates")
