"""The public handles: each verb is a function that is there, with all that it takes said by name."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qkvm
from qkvm.api import devices, domain, emulator, guest, host, network, node, snapshots, storage, tuning, verb
from qkvm.domain.backup import restore
from qkvm.domain.life import start
from qkvm.domain.watch import stats

MODULES = (devices, domain, emulator, guest, host, network, node, snapshots, storage, tuning)

HANDLES = sorted(
    {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
    },
    key=lambda kind: kind.__qualname__,
)


def members(kind: type, of: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(kind).items():
        if isinstance(value, of):
            yield name, getattr(kind, name)


@pytest.mark.parametrize("kind", HANDLES, ids=lambda kind: kind.__name__)
def test_verbs_are_functions_that_say_what_they_take(kind: type) -> None:
    verbs = dict(members(kind, verb._Verb))
    for name, function in (verbs | dict(members(kind, verb._Plain))).items():
        signature = inspect.signature(function)
        assert name not in verbs or signature.parameters, f"{kind.__name__}.{name} takes no subject"
        for one in signature.parameters.values():
            assert one.kind is not inspect.Parameter.VAR_KEYWORD, f"{kind.__name__}.{name} takes just anything"
        assert inspect.getdoc(function), f"{kind.__name__}.{name} says nothing of itself"


@pytest.mark.parametrize("kind", HANDLES, ids=lambda kind: kind.__name__)
def test_parts_are_nouns_with_a_word_on_what_they_are(kind: type) -> None:
    assert inspect.getdoc(kind)
    for _, part in members(kind, verb._Part):
        assert issubclass(part, verb.Noun)


def test_a_verb_is_called_with_the_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    vm = qkvm.Domain(qkvm.Host("/nowhere").tree, "vm")
    assert vm.snapshots.subject is vm
    assert repr(vm.snapshots) == "Snapshots(Domain('vm'))"
    assert vm.disks.jobs.subject is vm
    assert inspect.ismethod(vm.snapshots.all)
    assert vm.snapshots.all() == {}
    assert list(vm.snapshots) == []
    with pytest.raises(qkvm.QkvmError, match="no domain snapshot with matching name 'none'"):
        vm.snapshots["none"]


@pytest.mark.parametrize(
    ("method", "behind"),
    [
        (host.Host.create, start.create),
        (host.Host.restore, start.restore),
        (host.Host.restore_backup, restore.restore),
        (host.Host.statistics, stats.collect),
    ],
)
def test_what_wraps_a_function_takes_all_that_it_takes(method: Any, behind: Any) -> None:
    given, taken = inspect.signature(method).parameters, inspect.signature(behind).parameters
    options = {name: one.default for name, one in taken.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert {name: given[name].default for name in options} == options


THROUGH_THE_API = (
    *("cli/host/boot", "cli/host/cpumodels", "cli/host/upkeep"),
    *("cli/net/forwards", "cli/net/grants", "cli/net/health"),
)
"""Verbs that reach the parts behind the handles by these alone; they may use plain helpers of a few modules."""

HELPERS = ("qkvm.domain.handle", "qkvm.domain.life.autostart")


@pytest.mark.parametrize("name", THROUGH_THE_API)
def test_the_command_line_goes_through_the_handles(name: str) -> None:
    tree = ast.parse(Path(qkvm.__path__[0], f"{name}.py").read_text())
    for block in [one for one in ast.walk(tree) if isinstance(one, ast.If)]:
        if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            block.body = []
    imported = {one.module or "" for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)}
    behind = ("qkvm.net", "qkvm.host", "qkvm.domain", "qkvm.emulator", "qkvm.storage")
    assert {one for one in imported if one.startswith(behind)} <= set(HELPERS)


def test_all_that_the_package_names_is_there() -> None:
    for name in qkvm.__all__:
        assert inspect.isclass(getattr(qkvm, name))
    with pytest.raises(AttributeError):
        _ = qkvm.Nothing
