"""What keeps a unit test off the host; conftest.py puts it in place for every test."""

from __future__ import annotations

import sys
import types
from typing import NoReturn

import pytest

from qkvm.host import process


class Forbidden(BaseException):
    """A unit test reached for the host; no ``except Exception`` can hide that."""


class _ForbiddenModule(types.ModuleType):
    """Stands in for a module that a unit test must not use: the first thing taken from it fails."""

    def __getattr__(self, name: str) -> NoReturn:
        # Tools that walk sys.modules look for such names; a submodule's import looks for __path__.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        raise Forbidden(f"a unit test used {self.__name__}.{name}")


def _refuse(*arguments: object, **options: object) -> NoReturn:
    raise Forbidden(f"a unit test reached for the host with {arguments}")


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on starting a process, a netlink socket and a table of rules raise :class:`Forbidden`."""
    monkeypatch.setattr(process, "run", _refuse)
    monkeypatch.setattr(process, "run_watched", _refuse)
    monkeypatch.setattr(process, "spawn", _refuse)
    for name in ("pyroute2", "iptc"):
        module = _ForbiddenModule(name)
        # Taken from the module's dictionary, past __getattr__.
        module.__dict__["IPRoute"] = _refuse
        if name in sys.modules:
            # Parts that another tier's tests have loaded would be found past their package.
            for part in [loaded for loaded in sys.modules if loaded.startswith(f"{name}.")]:
                monkeypatch.delitem(sys.modules, part)
        monkeypatch.setitem(sys.modules, name, module)
