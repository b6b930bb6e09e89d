"""UEFI firmware of a domain: the build that it gets from the host, and its own store of variables.

The distribution's files are never written: each domain has a copy of the template. The copy is qcow2 unless its
name says otherwise, so that a snapshot can hold it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm import files
from qkvm.errors import HostError, InvalidState
from qkvm.host.node import firmware
from qkvm.qemu.firmware import Flash
from qkvm.spec import domain as spec
from qkvm.storage.image import image

if TYPE_CHECKING:
    from qkvm.paths import Tree

_OLDEST = "7.2"
"""The machine version to look for where the definition pins none; descriptors match any version."""


def choose(tree: Tree, definition: spec.Domain) -> Flash | None:
    """Return the firmware of a definition, None for a BIOS. Nothing is made.

    :raises HostError: no build on this host fits (the message says why), or a file is missing.
    """
    boot = definition.boot
    if boot.firmware is not spec.Firmware.UEFI:
        if boot.loader:
            check_readable(boot.loader, "loader")
        return None
    found = _build(definition)
    store = store_path(tree, definition)
    flash = Flash(
        code=found.code,
        code_format=found.code_format,
        variables=store,
        variables_format=_format(store),
        template=found.variables,
        template_format=found.variables_format,
        secure=boot.secure,
    )
    check_readable(flash.code, "loader")
    if flash.template:
        check_readable(flash.template, "nvram template")
    if os.path.realpath(store) in {
        os.path.realpath(path) for path in (*firmware.files(), flash.code, flash.template)
    }:
        raise HostError(f"nvram {store} is a file of the firmware's own", hint="qkvm writes to none of these")
    return flash


def _build(definition: spec.Domain) -> firmware.Image:
    """Return the build that the definition names, else the first on this host that fits."""
    boot = definition.boot
    if boot.loader:
        known = firmware.of_code(boot.loader)
        found = known or firmware.Image("", boot.loader, _format(boot.loader), "", "raw", frozenset())
    else:
        machine = definition.machine.versioned(definition.machine_version or _OLDEST)
        what = f"machine {machine} with{'' if boot.secure else 'out'} Secure Boot"
        found = firmware.choose(
            firmware.survey("x86_64", machine), secure=boot.secure, smm=definition.features.smm, what=what
        )
    if boot.nvram_template and boot.nvram_template != found.variables:
        found = found._replace(variables=boot.nvram_template, variables_format=_format(boot.nvram_template))
    return found


def _format(path: str) -> str:
    """Return the format of an image by its name: the guest writes a store, so its content is not trusted."""
    return "qcow2" if path.endswith(".qcow2") else "raw"


def store_path(tree: Tree, definition: spec.Domain) -> str:
    """Return the path of a domain's variables, whether the file exists or not; '' for a BIOS."""
    if definition.boot.firmware is not spec.Firmware.UEFI:
        return ""
    return definition.boot.nvram or tree.nvram(definition.name)


def make_store(tree: Tree, flash: Flash, undo: files.Undo, *, reset: bool = False) -> None:
    """Make the store of variables from the template where there is none, or with ``reset`` again.

    :raises HostError: it can't be made. :raises InvalidState: the existing one is for other firmware.
    """
    there = os.path.lexists(flash.variables)
    if there and not reset:
        image.check(flash.variables, flash.variables_format)
        _check_size(flash)
        return
    if not flash.template:
        raise HostError(
            f"there is no template to make nvram {flash.variables} from: no descriptor names {flash.code}",
            hint="boot.nvram_template",
        )
    folder = os.path.dirname(flash.variables)
    if folder == tree.nvrams:
        files.make_private_dir(folder)
    elif not os.path.isdir(folder):
        raise HostError(f"folder {folder} for nvram is not there")
    if not there:
        undo.add(files.remove, flash.variables)
    image.copy(os.path.realpath(flash.template), flash.template_format, flash.variables, flash.variables_format)


def copy_store(tree: Tree, definition: spec.Domain, target: str) -> bool:
    """Copy a domain's variables to a qcow2 file; return False where it has none yet."""
    path = store_path(tree, definition)
    if not path or not os.path.lexists(path):
        return False
    files.make_private_dir(tree.nvrams)
    image.copy(path, _format(path), target, "qcow2")
    return True


def _check_size(flash: Flash) -> None:
    """Refuse a store of another size than the template's: the firmware would not find it in the flash."""
    if not flash.template:
        return
    wanted = image.virtual_size(os.path.realpath(flash.template), flash.template_format)
    found = image.virtual_size(flash.variables, flash.variables_format)
    if found != wanted:
        raise InvalidState(
            f"nvram {flash.variables} has {found} bytes and that of firmware {flash.code} has {wanted}",
            hint="start --reset-nvram makes a new one; boot.loader names the firmware it was made with",
        )


def check_readable(path: str, what: str) -> None:
    """Refuse a file for QEMU to load that is missing or can't be read.

    :raises HostError: naming it.
    """
    if not os.path.isfile(path):
        raise HostError(f"{what} {path} is not there or no file")
    if not os.access(path, os.R_OK):
        raise HostError(f"{what} {path} can't be read")
