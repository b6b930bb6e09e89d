"""Attributes that load a function of another module at first use.

A verb on a domain is a function whose first argument is the domain. A handle names the function once, and the
method has its signature and docstring, which type checkers see. A program loads only the verbs that it uses.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Concatenate, ParamSpec, TypeVar, overload

    from qkvm.domain.handle import Handle
    from qkvm.net.network.handle import Handle as Network
    from qkvm.paths import Tree
    from qkvm.storage.pool.pool import Pool
    from qkvm.storage.pool.volume import Volume

    P = ParamSpec("P")
    Part = TypeVar("Part")
    R = TypeVar("R")


class _Module:
    """A module that is loaded when one of its attributes is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        # importlib.import_module would load two more modules.
        __import__(self._name)
        return getattr(sys.modules[self._name], name)


def lazily(package: str, *names: str) -> list[Any]:
    """Return modules of a package that are loaded at first use; type checkers see an import next to the call."""
    return [_Module(f"{package}.{name}") for name in names]


class Noun:
    """A part of a domain or host, such as its snapshots; its verbs are functions that take ``subject`` first."""

    __slots__ = ("subject",)

    def __init__(self, subject: Any) -> None:
        self.subject = subject

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.subject!r})"


class _Descriptor:
    """Finds a function or a noun's class, and passes it the subject of the handle."""

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find


class _Verb(_Descriptor):
    __slots__ = ()

    def __get__(self, owner: Any, kind: type) -> Any:
        from types import MethodType

        return self._find() if owner is None else MethodType(self._find(), getattr(owner, "subject", owner))


class _Part(_Descriptor):
    __slots__ = ()

    def __get__(self, owner: Any, kind: type) -> Any:
        return self._find() if owner is None else self._find()(getattr(owner, "subject", owner))


class _Plain(_Descriptor):
    __slots__ = ()

    def __get__(self, owner: Any, kind: type) -> Any:
        return self._find()


if TYPE_CHECKING:
    # One overload for each kind of subject: with a type variable, type checkers lose the signature.
    @overload
    def verb(find: Callable[[], Callable[Concatenate[Handle, P], R]]) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def verb(find: Callable[[], Callable[Concatenate[Tree, P], R]]) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def verb(find: Callable[[], Callable[Concatenate[Pool, P], R]]) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def verb(find: Callable[[], Callable[Concatenate[Volume, P], R]]) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def verb(find: Callable[[], Callable[Concatenate[Network, P], R]]) -> Callable[Concatenate[Any, P], R]: ...


def verb(find: Any) -> Any:
    """Return a method that calls the function from ``find`` with the handle's subject first."""
    return _Verb(find)


def plain(find: Callable[[], Callable[P, R]]) -> staticmethod[P, R]:
    """Return a static method that calls the function from ``find``, for verbs on the machine itself."""
    return _Plain(find)  # type: ignore[return-value]


def part(find: Callable[[], type[Part]]) -> Part:
    """Return an attribute: the noun of the handle's subject, of the class from ``find``."""
    return _Part(find)  # type: ignore[return-value]
