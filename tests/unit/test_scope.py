"""--live, --config, --current, for a domain in each of its states."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_cases import minimal
from holder import lock_held

from qkvm.api.domain import Domain
from qkvm.domain.scope import Scope, resolve
from qkvm.errors import InvalidState, InvalidValue
from qkvm.host import record
from qkvm.paths import Tree
from qkvm.spec import toml
from qkvm.spec.domain import Machine


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


@pytest.mark.parametrize("other", ["live", "config"])
def test_current_goes_with_no_other(domain: Domain, other: str) -> None:
    with pytest.raises(InvalidValue, match=f"Options --current and --{other} are mutually exclusive"):
        resolve(domain, current=True, live=other == "live", config=other == "config")


def test_a_domain_that_is_off(domain: Domain) -> None:
    persist(domain)
    assert resolve(domain) == resolve(domain, current=True) == resolve(domain, config=True) == Scope(False, True)
    for config in (False, True):
        with pytest.raises(InvalidState, match="domain is not running"):
            resolve(domain, live=True, config=config)


def test_a_domain_that_runs(domain: Domain) -> None:
    persist(domain)
    with lock_held(lock(domain)):
        assert resolve(domain) == resolve(domain, current=True) == resolve(domain, live=True) == Scope(True, False)
        assert resolve(domain, config=True) == Scope(False, True)
        assert resolve(domain, live=True, config=True) == Scope(True, True)


def test_a_transient_domain(domain: Domain) -> None:
    with lock_held(lock(domain)):
        assert resolve(domain) == resolve(domain, live=True) == Scope(True, False)
        for live in (False, True):
            with pytest.raises(InvalidState, match="transient domains do not have any persistent config"):
                resolve(domain, live=live, config=True)
