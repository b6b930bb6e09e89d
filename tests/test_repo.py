"""The rules of the house: who imports whom, who may reach for the host, how long a module may get."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qkvm.cli import verbs

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qkvm"
MODULES = sorted(PACKAGE.rglob("*.py"))

BASE = frozenset(("errors", "units", "paths", "files", "jsontext", "rights", "scope", "sockets", "xml", "xpath"))
MIDDLE = frozenset(("qemu", "qmp", "net", "storage", "host"))
LAYERS = {
    **dict.fromkeys(BASE, 0),
    "spec": 1,
    **dict.fromkeys(MIDDLE, 2),
    "emulator": 3,
    "domain": 4,
    "api": 5,
    "cli": 6,
}
"""A part of the package -> its layer; imports go to lower layers only."""

SHARED = frozenset(
    (
        "qkvm.host.confine",
        "qkvm.host.journal",
        "qkvm.host.process",
        "qkvm.host.record",
        "qkvm.host.settings",
        "qkvm.host.systemd.unit",
        "qkvm.host.view",
    )
)
"""What the five in the middle may read of each other."""

OWNERS = {
    "subprocess": {"qkvm/host/process.py"},
    "pyroute2": {"qkvm/net/"},
    "iptc": {"qkvm/net/firewall/xtables.py"},
    "qemu": {"qkvm/qmp/"},
    "pycdlib": {"qkvm/storage/media/iso.py"},
    "jinja2": {"qkvm/qemu/render.py", "qkvm/net/dhcp/dnsmasq.py"},
}
"""A package from elsewhere -> the files or folders that alone may import it."""

STARTERS = frozenset(("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen"))

MODULE_LINES = 500
FUNCTION_LINES = 60
FOLDER_MODULES = 20

TOP = frozenset(("pyproject.toml", "qkvm", "templates", "tests", "scripts", "README.md"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    name = relative(path).removesuffix(".py").replace("/", ".")
    return name.removesuffix(".__init__")


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All of a module's syntax."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))))


@functools.cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Line and dotted name of every import, inside functions too; 'from qkvm import units' is qkvm.units."""
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((node.lineno, whole if is_module(whole) else node.module))
    return tuple(found)


@functools.cache
def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("qkvm.") and (path.with_suffix(".py").exists() or path.joinpath("__init__.py").exists())


def part(name: str) -> str:
    """The part of the package that a module belongs to: 'net' for qkvm.net.link.link, '' for qkvm itself."""
    return name.split(".")[1] if "." in name else ""


# Each rule is one test that lists all who break it: one a module would take as long as the rest of this tier.


def test_imports_run_one_way() -> None:
    wrong = []
    for path in MODULES:
        own = part(dotted(path))
        if own not in LAYERS:
            # qkvm/__init__.py is the public API and qkvm/__main__.py the way in: they stand above all layers.
            assert own in ("", "__main__"), f"{relative(path)} belongs to no layer"
            continue
        for line, name in imports(path):
            if not name.startswith("qkvm"):
                continue
            other = part(name)
            assert other in LAYERS, f"{relative(path)}:{line} imports {name}, which belongs to no layer"
            beside = {own, other} <= BASE or own == other or (own in MIDDLE and name in SHARED)
            if not beside and LAYERS[other] >= LAYERS[own]:
                wrong.append(f"{relative(path)}:{line} imports {name}")
    assert not wrong


def test_imports_in_scripts_and_strings_lead_somewhere() -> None:
    """No checker of types reads them: programs that tests start, scripts, examples of the guide."""
    wrong = []
    for path in (*ROOT.glob("scripts/*"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("qkvm/guide/*.md")):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for module, names in re.findall(r"from (qkvm[\w.]*) import (\w+(?: as \w+)?(?:, \w+(?: as \w+)?)*)", text):
            for name in (one.split()[0] for one in names.split(", ")):
                if not is_module(f"{module}.{name}") and not re.search(rf"\b{name}\b", source(module)):
                    wrong.append(f"{relative(path)}: from {module} import {name}")
    assert not wrong


@functools.cache
def source(name: str) -> str:
    """The text of a module or of a package's own code; '' where there is none."""
    path = ROOT.joinpath(*name.split("."))
    found = path.joinpath("__init__.py") if path.is_dir() else path.with_suffix(".py")
    return found.read_text(encoding="utf-8") if found.exists() else ""


def test_no_imports_run_in_a_circle() -> None:
    """Lazy imports count, and those for type checkers."""
    graph = {
        dotted(path): {name for _, name in imports(path) if is_module(name)} - {dotted(path)} for path in MODULES
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


PACKAGES = sorted(dotted(path) for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE)


def members(package: str) -> set[str]:
    """The modules and packages in a package."""
    folder = ROOT.joinpath(*package.split("."))
    found = {
        path.stem for path in folder.iterdir() if path.suffix == ".py" or path.joinpath("__init__.py").exists()
    }
    return found - {"__init__"}


@functools.cache
def order(package: str) -> tuple[str, ...]:
    """What is in a package, in the order in which its docstring lists it: 'name: …' or 'name, name: …' a line."""
    text = ast.get_docstring(ast.parse(ROOT.joinpath(*package.split("."), "__init__.py").read_text())) or ""
    lines = re.findall(r"^(\w+(?:, \w+)*): ", text, re.MULTILINE)
    return tuple(name for line in lines for name in line.split(", "))


def fork(one: str, other: str) -> tuple[str, str, str]:
    """The package that two modules are in, and which members of it they are or are in; '' is its own code."""
    ones, others = one.split("."), other.split(".")
    common = 0
    while ones[common : common + 1] == others[common : common + 1] != []:
        common += 1
    return ".".join(ones[:common]), "".join(ones[common : common + 1]), "".join(others[common : common + 1])


def test_packages_list_what_is_in_them() -> None:
    found = {name: set(order(name)) ^ members(name) for name in PACKAGES}
    assert not {name: wrong for name, wrong in found.items() if wrong}


def test_imports_in_a_package_run_in_its_order() -> None:
    """A module imports what its package lists before it; code of the package itself stands above its modules."""
    wrong = []
    for path in MODULES:
        for line, name in imports(path):
            package, own, other = fork(dotted(path), name)
            if "." not in package or own == other:
                continue
            listed = order(package)
            if other == "" or (own and listed.index(own) < listed.index(other)):
                wrong.append(f"{relative(path)}:{line} imports {name}")
    assert not wrong


def test_folders_are_small() -> None:
    counts = {name: len(members(name)) for name in PACKAGES}
    assert not {name: count for name, count in counts.items() if count > FOLDER_MODULES}


def test_each_foreign_package_has_its_place() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in MODULES
        for line, name in imports(path)
        for owner in [OWNERS.get(name.partition(".")[0])]
        if owner is not None and not any(relative(path).startswith(place) for place in owner)
    ]
    assert not wrong


def test_one_module_starts_processes() -> None:
    wrong = [
        f"{relative(path)}:{node.lineno} uses os.{node.attr}"
        for path in MODULES
        # The other becomes what process.py starts it for.
        if relative(path) not in ("qkvm/host/process.py", "qkvm/host/nosocket.py")
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        if node.attr in STARTERS or node.attr.startswith(("exec", "spawn"))
    ]
    assert not wrong


def test_modules_and_functions_are_short() -> None:
    lines = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {name: count for name, count in lines.items() if count > MODULE_LINES}
    long = [
        f"{relative(path)}:{node.lineno} {node.name} has {length} lines"
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for length in [(node.end_lineno or 0) - node.lineno + 1]
        if length > FUNCTION_LINES
    ]
    assert not long


FAMILIES = [line.split(": ") for line in verbs.FAMILIES.strip().splitlines()]


@pytest.mark.parametrize("family", sorted({family for family, _ in FAMILIES}))
def test_every_family_has_its_table_and_functions(family: str) -> None:
    named = [name for other, names in FAMILIES if other == family for name in names.split()]
    _, *entries = PACKAGE.joinpath("cli/verbs", f"{family.replace('.', '/')}.txt").read_text().split("\n\n")
    assert sorted(entry.split()[0] for entry in entries) == named
    for name in named:
        verb = verbs.find(name)
        assert verb is not None and verb.family == family
        assert callable(getattr(importlib.import_module(verb.module), verb.function)), name


def test_every_table_has_its_family() -> None:
    folder = PACKAGE / "cli/verbs"
    found = {".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.txt")}
    assert found == {family for family, _ in FAMILIES}


def test_the_top_of_the_repository_is_small() -> None:
    if not ROOT.joinpath(".git").exists() or shutil.which("git") is None:
        present = {path.name for path in ROOT.iterdir()} - {"build", "dist", "qkvm.egg-info"}
    else:
        # A file belongs to the repository when it is there and not ignored, whether committed yet or not.
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        present = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in present if not name.startswith(".")} <= TOP


def test_no_test_file_imports_from_another() -> None:
    """What several need lies in a module of helpers. Tests of users repeat those of root on purpose."""
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "tests").rglob("*.py")
        for _, name in imports(path)
        if re.search(r"\.test_\w+", name) and path.name != "day.py"
    ]
    assert not wrong
