"""The shell: on a terminal with prompt, history and completion, and as a script on stdin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal

TOP = Path(__file__).resolve().parents[2]
PROMPT = "qkvm # " if os.geteuid() == 0 else "qkvm > "


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QKVM", "XDG"))}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "QKVM_ROOT": str(tmp_path / "root"),
        "TERM": "dumb",
        "INPUTRC": "/dev/null",
    }


Shell = Callable[..., Terminal]


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> Iterator[Shell]:
    """Starts qkvm on a terminal."""
    os.makedirs(tmp_path / "root", exist_ok=True)
    os.makedirs(tmp_path / "home", exist_ok=True)
    made: list[Terminal] = []

    def start(*words: str, **variables: str) -> Terminal:
        made.append(Terminal([sys.executable, "-m", "qkvm", *words], cwd=TOP, env={**environment, **variables}))
        return made[-1]

    yield start
    for terminal in made:
        terminal.close()


def script(environment: dict[str, str], text: str, *words: str) -> tuple[str, str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "qkvm", *words],
        input=text,
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout, done.stderr, done.returncode


def test_a_session(shell: Shell, tmp_path: Path) -> None:
    terminal = shell()
    shown = terminal.expect(PROMPT)
    assert shown == (
        "Welcome to qkvm, the virtualization interactive terminal.\n\n"
        f"Type:  'help' for help with commands\n       'quit' to quit\n\n{PROMPT}"
    )
    terminal.type("echo a; echo 'b c'\n")
    assert terminal.expect(PROMPT) == f"echo a; echo 'b c'\na\n\nb c\n\n{PROMPT}"
    terminal.type("bogus\n")
    assert terminal.expect(PROMPT) == f"bogus\nerror: unknown command: 'bogus'\n{PROMPT}"
    terminal.type('echo "x\n')
    assert terminal.expect(PROMPT) == f'echo "x\nerror: missing "\n{PROMPT}'
    terminal.type("dominfo nosuch\n")
    assert terminal.expect(PROMPT).endswith(f"\nerror: failed to get domain 'nosuch'\n\n{PROMPT}")
    terminal.type("cd /usr\n")
    terminal.expect(PROMPT)
    terminal.type("pwd\n")
    assert terminal.expect(PROMPT) == f"pwd\n/usr\n\n{PROMPT}"
    terminal.type("half a li\x03")
    terminal.expect(PROMPT)
    terminal.type("\n")
    terminal.expect(PROMPT)
    terminal.type("quit\n")
    assert terminal.child.wait(60) == 0 and terminal.is_restored()
    history = tmp_path / "home/.cache/qkvm/history"
    assert history.read_text().splitlines() == [
        "echo a; echo 'b c'",
        "bogus",
        'echo "x',
        "dominfo nosuch",
        "cd /usr",
        "pwd",
        "quit",
    ]
    assert history.stat().st_mode & 0o777 == 0o600 and history.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("end", ["exit\n", "exit; echo no\n", "\x04"])
def test_ways_to_leave(shell: Shell, end: str) -> None:
    terminal = shell("-q")
    assert terminal.expect(PROMPT) == PROMPT
    terminal.type("bogus\n")
    terminal.expect(PROMPT)
    terminal.type(end)
    assert terminal.child.wait(60) == 0, "an error before does not count"


def test_history_is_kept_and_limited(shell: Shell, tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "QKVM_HISTSIZE": "3"}
    first = shell("-q", **cache)
    for number in range(5):
        first.expect(PROMPT)
        first.type(f"echo {number}\n")
    first.expect(PROMPT)
    first.child.send_signal(signal.SIGHUP)
    first.child.wait(60)
    history = tmp_path / "cache/qkvm/history"
    assert history.read_text() == "echo 2\necho 3\necho 4\n", "also where the terminal went away"
    assert history.stat().st_mode & 0o777 == 0o600
    second = shell("-q", **cache)
    second.expect(PROMPT)
    second.type("\x10\x10\n")
    assert second.expect(PROMPT).endswith("\n3\n" + PROMPT)


def test_history_that_can_not_be(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    terminal = shell("-q", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert (
        terminal.expect(PROMPT)
        == f"warning: no history: cannot use {tmp_path}/file/qkvm: Not a directory\n{PROMPT}"
    )
    (tmp_path / "open").mkdir()
    (tmp_path / "open/qkvm").symlink_to(tmp_path)
    terminal = shell("-q", XDG_CACHE_HOME=str(tmp_path / "open"))
    assert "/open/qkvm is not a folder" in terminal.expect(PROMPT) and not (tmp_path / "history").exists()
    terminal = shell("-q", QKVM_HISTSIZE="many", XDG_CACHE_HOME=str(tmp_path / "other"))
    assert terminal.expect(PROMPT).startswith("warning: $QKVM_HISTSIZE value should be between 0 and 500000\n")
    terminal = shell("-q", QKVM_HISTSIZE="0", XDG_CACHE_HOME=str(tmp_path / "none"))
    terminal.expect(PROMPT)
    terminal.type("echo a\n")
    terminal.expect(PROMPT)
    assert not (tmp_path / "none").exists()


def test_completion(shell: Shell) -> None:
    terminal = shell("-q")
    terminal.expect(PROMPT)
    terminal.type("net-li\t--au\t\n")
    assert terminal.expect(PROMPT).startswith("net-list --autostart \n")
    terminal.type("echo a;hostn\t\n")
    assert terminal.expect(PROMPT).startswith("echo a;hostname \na\n")
    terminal.type("domif\t\t")
    assert "domiflist" in terminal.expect(f"{PROMPT}domif")


def test_readonly_shows_in_the_prompt(shell: Shell) -> None:
    terminal = shell("-qr")
    terminal.expect("qkvm > ")
    terminal.type("gc\n")
    assert "operation forbidden: read only access prevents gc" in terminal.expect("qkvm > ")
    terminal.type("connect\n")
    terminal.expect(PROMPT)
    terminal.type("connect --readonly\n")
    terminal.expect("qkvm > ")


def test_an_interrupt_ends_the_verb_not_the_shell(shell: Shell) -> None:
    terminal = shell("-q")
    terminal.expect(PROMPT)
    terminal.type("event --event reboot --timeout 600 --loop; echo next\n")
    terminal.expect("\n")
    terminal.child.send_signal(signal.SIGINT)
    terminal.expect(PROMPT)
    terminal.type("echo alive\n")
    assert terminal.expect(PROMPT).endswith(f"\nalive\n{PROMPT}")


def test_a_script(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    text = "list --all\nbogus\n\n  \n# c\necho a; echo b\necho 'x\nlist --bogus\ncd /usr\npwd\nquit\npwd\n"
    assert script(environment, text) == (
        " Id   Name   State\n--------------------\n\na\n\nb\n\n\n/usr\n\n",
        "error: unknown command: 'bogus'\nerror: missing '\n"
        "error: command 'list' doesn't support option --bogus\n",
        0,
    )
    assert script(environment, "echo a\necho b", "-q") == ("a\nb\n", "", 0)
    assert script(environment, "bogus\n")[2] == 0, "as in virsh"
    assert script(environment, "") == ("", "", 0)
    assert not (tmp_path / "home").exists(), "a script has no history"


def test_an_interrupt_ends_a_script(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "qkvm", "-q"],
        cwd=TOP,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        child.stdin.write("echo begun\n")
        child.stdin.flush()
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert child.stdout.read() + child.stderr.read() == ""


def test_a_relative_root_stays_the_same(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "qkvm", "-q", "--root", "there"],
        input="uri\ncd /usr\nuri\n",
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"qemu:///system?root={tmp_path}/there\n" * 2


def test_no_stdin(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m qkvm <&-"],
        cwd=TOP,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# Completion in the shells of others.


@pytest.fixture
def command(tmp_path: Path) -> str:
    """A folder with the command qkvm in it, in front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "qkvm").write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} -m qkvm "$@"\n')
    (folder / "qkvm").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("program", "setup"),
    [
        (["bash", "--norc", "--noprofile", "-i"], "source <(qkvm completion bash)"),
        (["zsh", "-f", "-i"], "autoload -U compinit; compinit -D; source <(qkvm completion zsh)"),
    ],
    ids=["bash", "zsh"],
)
def test_completion_in_other_shells(
    program: list[str], setup: str, environment: dict[str, str], command: str, tmp_path: Path
) -> None:
    assert shutil.which(program[0]), f"apt install {program[0]}"
    (tmp_path / "root").mkdir()
    (tmp_path / "some file.toml").touch()
    terminal = Terminal(program, cwd=tmp_path, env={**environment, "PATH": command, "PS1": "ready> "})
    try:
        terminal.expect("ready> ")
        terminal.type(f"{setup}\n")
        terminal.expect("ready> ")
        # Each line ends as it was completed, and what it then prints tells to what.
        for typed, shown in (
            ("qkvm -q pw\t", f"\n{tmp_path}\n"),
            ("qkvm connect qemu:///sy\t && echo conn''ected", "\nconnected\n"),
            ("qkvm connect --name=qemu:///sy\t && echo na''med", "\nnamed\n"),
            ("qkvm define so\t", "some file.toml: "),
            (f"qkvm --root={tmp_path}/ro\t uri", f"qemu:///system?root={tmp_path}/root\n"),
        ):
            terminal.type(f"{typed}\n")
            terminal.expect(shown)
            terminal.expect("ready> ")
    finally:
        terminal.close()
