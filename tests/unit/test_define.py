"""Definitions of domains as they are stored: who may replace whom, and what a file's name promises."""

from __future__ import annotations

import os
from pathlib import Path

import machines
import pytest

from qkvm import Host
from qkvm.errors import AlreadyExists, DefinitionError, InvalidValue

BARE = "ABCDEF00111141118111111111111111"
USUAL = "abcdef00-1111-4111-8111-111111111111"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return machines.without_qemu(tmp_path)


def text(name: str, uuid: str = "", memory: str = "64MiB") -> str:
    line = f'uuid = "{uuid}"\n' if uuid else ""
    return f'# mine\nname = "{name}"\n{line}memory = {{ current = "{memory}", maximum = "64MiB" }}\n'


def test_the_same_uuid_in_any_form_replaces(host: Host) -> None:
    domain = host.define(text("a", BARE))
    assert domain.uuid == USUAL and host.domain(BARE.lower()).name == "a"
    host.define(text("a", BARE, "32MiB"))
    host.define(text("a", USUAL, "48MiB"))
    assert domain.definition.memory.current == 48 * 1024
    stored = Path(host.tree.domain_definition("a")).read_text(encoding="utf-8")
    assert stored.startswith("# mine\n"), "the text is kept as it is"


def test_a_missing_uuid_is_made_up_once(host: Host) -> None:
    uuid = host.define(text("a")).uuid
    assert host.define(text("a", memory="32MiB")).uuid == uuid
    assert host.define(text("b")).uuid != uuid


def test_one_uuid_one_name(host: Host) -> None:
    host.define(text("a", BARE))
    with pytest.raises(AlreadyExists, match=f"domain 'a' already exists with uuid {USUAL}"):
        host.define(text("a", "1" * 32))
    with pytest.raises(AlreadyExists, match=f"uuid {USUAL} is already that of domain 'a'"):
        host.define(text("b", USUAL))


def test_a_damaged_definition_can_be_replaced(host: Host) -> None:
    host.prepare()
    Path(host.tree.domain_definition("a")).write_text("= broken", encoding="utf-8")
    assert host.define(text("a")).definition.name == "a"


def test_a_file_that_names_another_domain_is_refused(host: Host) -> None:
    host.define(text("a"))
    os.rename(host.tree.domain_definition("a"), host.tree.domain_definition("b"))
    with pytest.raises(DefinitionError, match="key name: 'a' is not the file's name"):
        assert host.domain("b").definition


def test_a_value_that_cannot_be_right_names_the_file(host: Host) -> None:
    with pytest.raises(DefinitionError, match="mine.toml: memory of 1KiB is too little"):
        host.define(text("a", memory="1KiB"), "mine.toml")
    with pytest.raises(InvalidValue, match="domain name '../a' is not allowed"):
        host.define(text("../a"))
    with pytest.raises(DefinitionError, match="required field `name`"):
        host.define('memory = { current = "1MiB", maximum = "1MiB" }')


def test_networks_follow_the_same_rule(host: Host) -> None:
    network = f'name = "n"\nuuid = "{BARE}"\nbridge = "br7"\naddress = "10.9.0.1/24"\n'
    host.networks.define(network)
    host.networks.define(network.replace(BARE, USUAL))
    assert host.networks[BARE].name == "n"
    with pytest.raises(AlreadyExists):
        host.networks.define(network.replace(BARE, "1" * 32))
