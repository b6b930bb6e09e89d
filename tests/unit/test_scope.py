"""Which of the two a verb is for, of a domain in each of its states."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_cases import minimal
from holder import lock_held

from qkvm.api.domain import Domain
from qkvm.cli import common
from qkvm.cli.parse import UsageError, parse
from qkvm.cli.verbs import Verb
from qkvm.errors import InvalidState
from qkvm.host import record
from qkvm.paths import Tree
from qkvm.scope import Scope
from qkvm.spec import toml
from qkvm.spec.domain import Machine

VERB = Verb(
    "family", "verb (domain): summary\n    <domain> <target> [--persistent] [--config] [--live] [--current]"
)


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    tree = Tree(str(tmp_path))
    Path(tree.domain_run("vm")).mkdir(parents=True)
    Path(tree.domain_definitions).mkdir(parents=True)
    record.write(f"{tree.domain_run('vm')}/record.json", {"id": 1})
    return Domain(tree, "vm")


def persist(domain: Domain) -> None:
    Path(domain.tree.domain_definition("vm")).write_text(toml.dumps(minimal(Machine.Q35)))


def lock(domain: Domain) -> str:
    return f"{domain.tree.domain_run('vm')}/qemu.pid"


def test_a_domain_that_is_off(domain: Domain) -> None:
    persist(domain)
    for scope in (Scope.CURRENT, Scope.CONFIG, Scope.PERSISTENT):
        assert domain.resolve(scope) == Scope.CONFIG
    for scope in (Scope.LIVE, Scope.LIVE | Scope.CONFIG, Scope.LIVE | Scope.PERSISTENT):
        with pytest.raises(InvalidState, match="domain is not running"):
            domain.resolve(scope)


def test_a_domain_that_runs(domain: Domain) -> None:
    persist(domain)
    with lock_held(lock(domain)):
        assert domain.resolve(Scope.CURRENT) == domain.resolve(Scope.LIVE) == Scope.LIVE
        assert domain.resolve(Scope.CONFIG) == Scope.CONFIG
        for scope in (Scope.LIVE | Scope.CONFIG, Scope.PERSISTENT, Scope.CONFIG | Scope.PERSISTENT):
            assert domain.resolve(scope) == Scope.LIVE | Scope.CONFIG


def test_a_transient_domain(domain: Domain) -> None:
    with lock_held(lock(domain)):
        assert domain.resolve(Scope.CURRENT) == domain.resolve(Scope.LIVE) == Scope.LIVE
        for scope in (Scope.CONFIG, Scope.LIVE | Scope.CONFIG, Scope.PERSISTENT):
            with pytest.raises(InvalidState, match="transient domains do not have any persistent config"):
                domain.resolve(scope)


@pytest.mark.parametrize("other", ["live", "config", "persistent"])
def test_current_goes_with_no_other(other: str) -> None:
    args = parse(VERB, ["vm", "vda", "--current", f"--{other}"])
    with pytest.raises(UsageError, match="are mutually exclusive"):
        common.scope(args)


def test_options_combine() -> None:
    assert common.scope(parse(VERB, ["vm", "vda"])) == common.scope(parse(VERB, ["vm", "vda", "--current"]))
    assert common.scope(parse(VERB, ["vm", "vda", "--live", "--config"])) == Scope.LIVE | Scope.CONFIG
    assert common.scope(parse(VERB, ["vm", "vda", "--persistent"])) == Scope.PERSISTENT
