"""The table of workarounds: what holds for the QEMUs that were asked, and that nothing in it is idle."""

from __future__ import annotations

import ast
from pathlib import Path

import golden_cases
import pytest

from qkvm.qemu import abilities, quirks
from qkvm.qemu.quirks import WORKAROUNDS, Quirk

TOP = Path(__file__).parents[2]

NEEDED = {
    "7.2": {Quirk.RUNAS, Quirk.VCPU_BUFFERS, Quirk.VCPU_CONTEXTS, Quirk.DIRTY_RATE, Quirk.NBD_IOTHREAD},
    "10.0": {Quirk.INACTIVE_IMAGES, Quirk.VCPU_CONTEXTS},
}


@pytest.mark.parametrize("release", NEEDED)
def test_what_the_recorded_qemus_need(release: str) -> None:
    assert quirks.needed(golden_cases.abilities(release)) == NEEDED[release]


@pytest.mark.parametrize("quirk", Quirk)
def test_each_workaround_has_its_proof_and_its_use(quirk: Quirk) -> None:
    file, _, name = WORKAROUNDS[quirk].proof.partition("::")
    tree = ast.parse((TOP / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    texts = [path.read_text(encoding="utf-8") for path in (TOP / "templates").rglob("*.j2")]
    texts += [
        path.read_text(encoding="utf-8") for path in (TOP / "qkvm").rglob("*.py") if path.name != "quirks.py"
    ]
    uses = f'"{quirk}" in launch.quirks', f'needs("{quirk}")', f"Quirk.{quirk.name}"
    assert any(use in text for text in texts for use in uses)


def test_templates_ask_for_no_workaround_that_is_not_there() -> None:
    for path in (TOP / "templates").rglob("*.j2"):
        for piece in path.read_text(encoding="utf-8").split(" in launch.quirks")[:-1]:
            assert Quirk(piece.rpartition(" ")[2].strip('"'))


def test_what_is_recorded_is_of_the_questions() -> None:
    old, new = golden_cases.abilities("7.2"), golden_cases.abilities("10.0")
    assert old.release < new.release == (10, 0, 13)
    assert "device" in old.commands["query-stats"] or "target" in old.commands["query-stats"]
    assert set(old.properties) == set(abilities.PROPERTIES_OF) == set(new.properties)
    assert "filename" in old.commands["blockdev-add"] and "blockdev-set-active" not in old.commands
    assert "node-name" in new.commands["blockdev-set-active"]
    found = new.machine("q35")
    assert found is not None and found.name == "pc-q35-10.0"
