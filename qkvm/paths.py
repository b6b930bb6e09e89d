"""Where files are: the tree under QKVM_ROOT, else / for root and a tree of their own for users.

    etc/qkvm/       what the user wants: qkvm.toml, {domains,networks,pools,grants}/NAME.toml, templates/
    var/lib/qkvm/   what lasts: base/, boot/, checkpoints/, frozen/, images/, leases/, making/, nvram/, passing/,
                    save/, seeds/, snapshots/, ssh/, tpm/
    run/qkvm/       what runs now: domains/NAME/, networks/NAME/, pools/NAME.json, uplinks/BRIDGE.json, last-id
    var/log/qkvm/   QEMU's words and the guests' serial logs

Trees with different roots are independent. A user's is $XDG_DATA_HOME/qkvm, by default ~/.local/share/qkvm
(libvirt's qemu:///session); its run files are in $XDG_RUNTIME_DIR/qkvm-ID, where ID stands for the root, or in the
tree itself where there is no such folder. Paths are plain strings, since read verbs have no time for more.
"""

from __future__ import annotations

import os
from os.path import join

ROOT_VARIABLE = "QKVM_ROOT"

URI_VARIABLE = "QKVM_DEFAULT_URI"
"""Which of the two trees is meant where no root is named: the option --connect sets it."""

VERB_VARIABLE = "QKVM_VERB"
"""The verb that the command line is at work on; programs that use the library have none."""

SYSTEM, SESSION = "qemu:///system", "qemu:///session"
"""The host's tree, and the user's own."""


class Tree:
    """The paths of one root; nothing is made here."""

    __slots__ = ("config", "log", "root", "run", "state")

    def __init__(self, root: str | None = None) -> None:
        """:param root: the root folder; default: $QKVM_ROOT, else / for root and the user's own for users."""
        self.root = os.path.abspath(root or os.environ.get(ROOT_VARIABLE) or default_root())
        self.config = join(self.root, "etc/qkvm")
        self.state = join(self.root, "var/lib/qkvm")
        self.run = join(self.root, "run/qkvm")
        self.log = join(self.root, "var/log/qkvm")
        if self.root != "/" and self.is_session:
            self.run = _session_run(self.root)

    @property
    def is_session(self) -> bool:
        """Whether it is the user's own (qemu:///session)."""
        return self.root == session_root()

    def view(self) -> Tree:
        """Return the tree beside this one that shows a group what it may see of it (:mod:`qkvm.host.view`)."""
        shown = Tree(self.root)
        shown.state = join(self.root, "var/lib/qkvm-read")
        shown.config = join(shown.state, "etc")
        shown.log = join(shown.state, "log")
        shown.run = join(self.root, "run/qkvm-read")
        return shown

    @property
    def label(self) -> str:
        """What tells this tree's things from those of others where all lie in one place: 'qkvm', 'qkvm-HASH'."""
        if self.root == "/":
            return "qkvm"
        from hashlib import sha256

        return "qkvm-" + sha256(os.fsencode(self.root)).hexdigest()[:12]

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
    def grant_folder(self) -> str:
        """Folder of the grants of networks to users."""
        return join(self.config, "grants")

    def grants(self, network: str) -> str:
        """Who may plug guests of their own into one network."""
        return join(self.grant_folder, f"{network}.toml")

    @property
    def images(self) -> str:
        """Folder in which disks without a folder of their own are made."""
        return join(self.state, "images")

    @property
    def bases(self) -> str:
        """Folder of the base images, which disks are made on."""
        return join(self.state, "base")

    @property
    def passing_guests(self) -> str:
        """Folder of the disks of guests that go when their ``qkvm run`` ends, and of these processes' locks."""
        return join(self.state, "passing")

    def passing_lock(self, domain: str) -> str:
        """Return the lock of the ``qkvm run`` that runs a guest which goes with it."""
        return join(self.passing_guests, f"{domain}.lock")

    def passing_disks(self, domain: str) -> str:
        """Folder of the disks of a guest that goes when its ``qkvm run`` ends."""
        return join(self.passing_guests, f"{domain}.disks")

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

    def owners(self, network: str) -> str:
        """The owners of MAC addresses on a network, among the users who are granted it."""
        return join(self.state, "leases", f"{network}.owners")

    @property
    def tap_socket(self) -> str:
        """Where users ask root's helper for taps; outside of the folders that are root's alone."""
        return join(self.root, "run/qkvm-tap.sock")

    @property
    def tap_program(self) -> str:
        """What users run by sudo instead, where no init listens at that socket."""
        return join(self.root, "usr/local/libexec/qkvm-tap")

    @property
    def saves(self) -> str:
        """Folder of the managed saves."""
        return join(self.state, "save")

    @property
    def frozen_folder(self) -> str:
        """Folder of the templates that instant clones begin from, a folder each."""
        return join(self.state, "frozen")

    def frozen(self, template: str) -> str:
        """Folder of one template: its memory, the state of its devices, its disks."""
        return join(self.frozen_folder, template)

    @property
    def makings(self) -> str:
        """Folder of what tells of clones that are being made."""
        return join(self.state, "making")

    def making(self, domain: str) -> str:
        """Return the file that names what was made so far of a clone."""
        return join(self.makings, f"{domain}.json")

    def managed_save(self, domain: str) -> str:
        """Return the saved state of one domain that its next start takes up."""
        return join(self.saves, f"{domain}.save")

    @property
    def nvrams(self) -> str:
        """Folder of the domains' UEFI variables."""
        return join(self.state, "nvram")

    def nvram(self, domain: str) -> str:
        """Return the UEFI variables of one domain, where its definition names no other file."""
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
        """Return the cloud-init seed of one domain, a CD image."""
        return join(self.seeds, f"{domain}.iso")

    @property
    def boot_files(self) -> str:
        """Folder of kernels and initrds that were taken from install media."""
        return join(self.state, "boot")

    def boot_file(self, domain: str, kind: str) -> str:
        """Return the kernel or initrd (``kind``) that one domain was installed with."""
        return join(self.boot_files, f"{domain}.{kind}")

    @property
    def ssh(self) -> str:
        """Folder of qkvm's own ssh key, and of the guests' host keys."""
        return join(self.state, "ssh")

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

    def transcript(self, domain: str) -> str:
        """What was said to one domain's QEMU and its agent, where that is kept."""
        return join(self.log, f"{domain}.trace")

    def logs(self, domain: str) -> tuple[str, ...]:
        """Return all that is written of one domain."""
        return self.qemu_log(domain), self.serial_log(domain), self.transcript(domain)


def default_root(uri: str = "") -> str:
    """The root where none is named: of ``uri``, else of $QKVM_DEFAULT_URI, else / for root and a user's own."""
    wanted = uri or os.environ.get(URI_VARIABLE) or (SYSTEM if os.geteuid() == 0 else SESSION)
    return session_root() if wanted == SESSION else "/"


def system_tree() -> Tree:
    """Root's tree, whose networks users may be granted; $QKVM_SYSTEM_ROOT names another one's root."""
    return Tree(os.environ.get("QKVM_SYSTEM_ROOT") or "/")


def session_root() -> str:
    """Return the root of the user's own tree. XDG's specification has relative paths ignored."""
    data = os.environ.get("XDG_DATA_HOME", "")
    return os.path.abspath(join(data if data.startswith("/") else os.path.expanduser("~/.local/share"), "qkvm"))


def _session_run(root: str) -> str:
    """Return the folder of run files in a user's tree: the one in use, else the one to use from now on.

    ``run/session`` leads there, so that a shell with another environment (cron, su) finds the same guests. After
    the user's last logout, or a boot, that folder is gone. One in the tree itself is not used while nothing has
    run in it.
    """
    own = join(root, "run/qkvm")
    try:
        known = os.readlink(session_link(root))
        if known != own and os.path.isdir(known):
            return known
        if os.listdir(join(own, "domains")):
            return own
    except OSError:
        pass
    return _runtime_folder(root) or own


def _runtime_folder(root: str) -> str:
    """Return the folder for a tree's run files in the user's runtime folder, '' where there is none.

    Its name stands for the root, as a user may have several. It is short, to leave room for sockets' paths.
    """
    uid = os.geteuid()
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        try:
            if folder.startswith("/") and os.stat(folder).st_uid == uid:
                from zlib import crc32

                return join(folder, f"qkvm-{crc32(os.fsencode(root)):08x}")
        except OSError:
            continue
    return ""


def session_link(root: str) -> str:
    """Return the link in a user's tree that leads to what runs now."""
    return join(root, "run/session")


def package() -> str:
    """Return the folder of qkvm's own modules."""
    return os.path.dirname(os.path.abspath(__file__))


def packaged_templates() -> str:
    """Folder of the templates that qkvm brings: inside the package when installed, beside it in a checkout."""
    installed = join(package(), "templates")
    return installed if os.path.isdir(installed) else join(os.path.dirname(package()), "templates")
