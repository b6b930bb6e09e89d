"""What the last word of a command line can become, and the shell's own way with it: blanks, quotes, commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qkvm.cli import verbs
from qkvm.cli.globals import OPTIONS
from qkvm.cli.main import main
from qkvm.cli.parse import options_of
from qkvm.cli.shell import candidates as completer
from qkvm.cli.shell import completion
from qkvm.cli.shell.shell import suggestions
from qkvm.cli.verbs.options import usual
from qkvm.paths import Tree

TOP = Path(__file__).resolve().parents[2]

DEFINITION = """\
name = "{name}"
uuid = "{uuid}"
memory = {{ current = "64MiB", maximum = "64MiB" }}
boot = {{ kernel = "/srv/vmlinuz" }}

[[disks]]
path = "/srv/{name}.qcow2"
format = "qcow2"
target = "vdb"

[[nics]]
mac = "52:54:00:00:00:0{number}"
type = "network"
source = "default"
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A tree with the domains vm01 and vm02, which don't run, and the networks default and lab."""
    monkeypatch.setenv("QKVM_ROOT", str(tmp_path))
    made = Tree(str(tmp_path))
    os.makedirs(made.domain_definitions, 0o700)
    os.makedirs(made.network_definitions, 0o700)
    for number in (1, 2):
        name = f"vm0{number}"
        text = DEFINITION.format(name=name, uuid=f"{number:032x}", number=number)
        Path(made.domain_definition(name)).write_text(text)
    for name in ("default", "lab"):
        Path(made.network_definition(name)).write_text(f'name = "{name}"\n')
    return made


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sta", ["start"]),
        ("net-st", ["net-start"]),
        ("nosuch", []),
        ("nosuch ", []),
        ("compl", ["completion"]),
        ("start ", ["vm01", "vm02"]),
        ("start vm", ["vm01", "vm02"]),
        ("start vm01", ["vm01"]),
        ("start x", []),
        ("start --domain ", ["vm01", "vm02"]),
        ("start --domain=vm", ["--domain=vm01", "--domain=vm02"]),
        ("start --paused=v", []),
        ("start --bogus=v", []),
        (
            "start --",
            [
                "--autodestroy",
                "--bypass-cache",
                "--console",
                "--domain",
                "--force-boot",
                "--pass-fds",
                "--paused",
                "--reset-nvram",
            ],
        ),
        (
            "start vm01 --",
            [
                "--autodestroy",
                "--bypass-cache",
                "--console",
                "--force-boot",
                "--pass-fds",
                "--paused",
                "--reset-nvram",
            ],
        ),
        (
            "start --domain=vm01 --",
            [
                "--autodestroy",
                "--bypass-cache",
                "--console",
                "--force-boot",
                "--pass-fds",
                "--paused",
                "--reset-nvram",
            ],
        ),
        ("start --paused --p", ["--pass-fds"]),
        (
            "start vm01 ",
            [
                "--autodestroy",
                "--bypass-cache",
                "--console",
                "--force-boot",
                "--pass-fds",
                "--paused",
                "--reset-nvram",
            ],
        ),
        ("start vm01 -- ", []),
        ("start -- vm", ["vm01", "vm02"]),
        ("shutdown ", ["--domain", "--mode", "--timeout", "--wait"]),
        ("shutdown --mode ", ["acpi", "agent"]),
        ("dominfo ", ["vm01", "vm02"]),
        ("net-start ", ["default", "lab"]),
        ("net-destroy ", ["--network"]),
        ("net-info l", ["lab"]),
        ("domif-setlink vm01 ", ["52:54:00:00:00:01"]),
        ("domif-setlink vm02 52:54", ["52:54:00:00:00:02"]),
        ("domif-setlink vm02 52:54:00:00:00:02 ", ["down", "up"]),
        ("domif-setlink nosuch ", ["--config", "--interface", "--print-xml", "--state"]),
        ("attach-interface vm01 ", ["bridge", "direct", "network", "user"]),
        ("attach-interface vm01 network ", ["default", "lab"]),
        ("attach-interface vm01 user ", None),
        ("attach-interface vm01 network default --model e1000", ["e1000", "e1000e"]),
        ("detach-interface vm01 network --mac ", ["52:54:00:00:00:01"]),
        ("event --event life", ["lifecycle"]),
        ("help net-in", ["net-info"]),
        ("help ev", ["event", "events"]),
        ("completion ", ["bash", "zsh"]),
        ("install --memo", ["--memory", "--memorybacking"]),
        ("install mem", []),
        ("connect ", ["qemu:///session", "qemu:///system"]),
    ],
)
def test_candidates(line: str, expected: list[str] | None, tree: Tree) -> None:
    found = completer.candidates(tree, line.split(" "))
    assert found == expected if expected is not None else all(word.startswith("--") for word in found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-q", "net-st"], ["net-start"]),
        (["-qt", "-c", "qemu:///system", "--", "net-st"], ["net-start"]),
        (["-d", "3", "--debug", "net-st"], ["net-start"]),
        (["--debug", "1", "net-st"], ["net-start"]),
        (["--re"], ["--readonly"]),
        (["-"], sorted(f"--{name}" for name in OPTIONS)),
        (["--connect", ""], ["qemu:///session", "qemu:///system"]),
        (["--connect="], ["--connect=qemu:///session", "--connect=qemu:///system"]),
        (["--nosuch", "net-st"], ["net-start"]),
        (["-e", "x"], []),
        (["--root", "/nonexistent", "start", "v"], []),
        (["--root=/nonexistent/", "start", "v"], []),
        (["--root", "/nonexistent/"], []),
    ],
)
def test_options_in_front(words: list[str], expected: list[str], tree: Tree) -> None:
    assert completer.outside(tree, words) == expected


def test_root_in_front(tree: Tree) -> None:
    for root in (["--root", tree.root], [f"--root={tree.root}"]):
        assert completer.outside(Tree("/nonexistent"), [*root, "start", ""]) == ["vm01", "vm02"]
    begin = tree.root[:-1]
    assert f"{tree.root}/" in completer.outside(tree, ["--root", begin])
    assert f"--root={tree.root}/" in completer.outside(tree, [f"--root={begin}"])


def test_files(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.toml", "b c.toml", ".hidden", "odd\n.toml"):
        (folder / name).touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert completer.candidates(tree, ["define", ""]) == ["a.toml", "b c.toml", "sub/"]
    assert completer.candidates(tree, ["define", "."]) == [".hidden"]
    assert completer.candidates(tree, ["define", "~/a"]) == ["~/a.toml"]
    assert completer.candidates(tree, ["define", f"{folder}/s"]) == [f"{folder}/sub/"]
    assert completer.candidates(tree, ["define", "/nonexistent/"]) == []
    assert completer.candidates(tree, ["cd", ""]) == ["sub/"]
    assert suggestions(tree, "define b", 7) == ["b\\ c.toml "]
    assert suggestions(tree, "define b\\ c", 10) == ["c.toml "]
    assert suggestions(tree, 'define "b c', 10) == ['c.toml" ']
    assert suggestions(tree, "cd s", 3) == ["sub/"]


def test_a_damaged_definition_disturbs_nobody(tree: Tree) -> None:
    Path(tree.domain_definition("vm01")).write_text("}")
    assert completer.candidates(tree, ["domif-setlink", "vm01", ""]) == []
    assert completer.candidates(tree, ["start", ""]) == ["vm01", "vm02"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sta", ["start "]),
        ("", [verb.name for verb in verbs.listed()]),
        ("start vm", ["vm01", "vm02"]),
        ("start vm01", ["vm01 "]),
        ("list --all; net-info l", ["lab "]),
        ("list;net-info l", ["lab "]),
        ("start 'vm01", ["'vm01' "]),
        ("start 'vm", ["'vm01'", "'vm02'"]),
        ('start "', ['"vm01"', '"vm02"']),
        ("start vm\\", []),
        ("# sta", []),
    ],
)
def test_suggestions_of_the_shell(line: str, expected: list[str], tree: Tree) -> None:
    begin = max(line.rfind(char) for char in " ;") + 1
    assert suggestions(tree, line, begin) == expected


def test_every_kind_has_its_provider() -> None:
    kinds = set()
    for verb in verbs.listed():
        for option in options_of(verb).values():
            usually, _ = usual(option.name)
            kinds |= {option.values, usually}
            assert option.values not in completer._STATES or usually in ("domain", "network", "pool")
    single_words = {"lifecycle", "logical", "zero"}
    found = {kind for kind in kinds if "|" not in kind} - set(completer._STATES)
    assert found - single_words == set(completer._PROVIDERS)


def test_the_verb_complete(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complete", "--", "start", ""]) == 0
    assert capsys.readouterr() == ("vm01\nvm02\n", "")
    assert main(["complete"]) == 0
    assert capsys.readouterr().out.split() == [verb.name for verb in verbs.listed()]
    assert main(["complete", "--", "nosuch", ""]) == 0
    assert capsys.readouterr() == ("", "")


def test_completion_loads_next_to_nothing(tree: Tree) -> None:
    """A key press waits for it."""
    code = "import sys; from qkvm.cli.main import main; main(['complete', '--', 'start', '']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    names, modules = done.stdout.rsplit("\n", 2)[0], set(done.stdout.split("\n")[-2].split())
    assert names == "vm01\nvm02"
    assert not modules & {
        "asyncio",
        "jinja2",
        "msgspec",
        "pyroute2",
        "qemu",
        "re",
        "readline",
        "subprocess",
        "typing",
    }


# The scripts, in the shells themselves.


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder with the command qkvm in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "qkvm"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} -m qkvm "$@"\n')
    script.chmod(0o755)
    return folder


BASH = """
    source <(qkvm completion bash)
    while [ $# -gt 0 ]; do
        COMP_WORDS=("${@:2:$1}") COMP_CWORD=$(($1 - 1)) COMPREPLY=()
        shift $(($1 + 1))
        _qkvm qkvm "${COMP_WORDS[-1]}"
        printf '%s\\n' "${COMPREPLY[@]}" --
    done
"""
"""Prints what bash offers for each of the lists of words that are given, each behind its length."""


def test_bash(tree: Tree, command: Path) -> None:
    """The words are split as bash splits them."""
    lines: list[tuple[list[str], list[str]]] = [
        (["qkvm", "net-st"], ["net-start"]),
        (["qkvm", "start", ""], ["vm01", "vm02"]),
        (["qkvm", "start", "--domain", "=", "vm"], ["vm01", "vm02"]),
        (["qkvm", "start", "--domain", "="], ["vm01", "vm02"]),
        (["qkvm", "start", "'vm"], ["vm01", "vm02"]),
        (["qkvm", "domif-setlink", "vm01", ""], ["52:54:00:00:00:01"]),
        (["qkvm", "domif-setlink", "vm01", "52", ":", "54", ":", "0"], ["00:00:00:01"]),
        (["qkvm", "domif-setlink", "vm01", "52", ":"], ["54:00:00:00:01"]),
        (["qkvm", "domif-setlink", "vm01", "52", *[":", "54"], *[":", "00"] * 3, ":", "01", "u"], ["up"]),
        (["qkvm", "domif-setlink", "vm01", "x", "u"], ["up"]),
        (["qkvm", "nosuch", ""], []),
    ]
    given = [word for words, _ in lines for word in (str(len(words)), *words)]
    done = subprocess.run(
        ["bash", "-euc", BASH, "bash", *given],
        env={**os.environ, "PATH": f"{command}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    offered = [[word for word in part.split("\n") if word] for part in done.stdout.split("--\n")[:-1]]
    assert offered == [expected for _, expected in lines]


def test_scripts_are_of_known_shells(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, script in completion.SCRIPTS.items():
        assert main(["completion", shell]) == 0
        assert capsys.readouterr() == (script, "")
    assert main(["completion", "fish"]) == 1
    assert capsys.readouterr().err == "error: no completion for shell 'fish' (bash or zsh)\n"
