"""The way in: global options, errors on one line, exit codes, help, and what a start may cost."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.cli import main as cli
from qkvm.cli import verbs
from qkvm.cli.context import VERSION, Context
from qkvm.cli.main import main
from qkvm.cli.parse import Args
from qkvm.cli.shell import usage as cli_usage
from qkvm.errors import InvalidState, InvalidValue, NotFound, QkvmError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

Function = Callable[[Context, Args], int | None]
Install = Callable[[str, Function], None]


@pytest.fixture(autouse=True)
def _tree(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QKVM_ROOT", str(tmp_path))


@pytest.fixture
def install() -> Iterator[Install]:
    """Put a function in a verb's place."""
    before = dict(sys.modules)

    def put(name: str, function: Function) -> None:
        verb = verbs.find(name)
        assert verb is not None
        module = types.ModuleType(verb.module)
        setattr(module, verb.function, function)
        sys.modules[verb.module] = module

    yield put
    for name in {verb.module for verb in verbs.listed()}:
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]


def failing(error: BaseException) -> Function:
    def function(context: Context, args: Args) -> int | None:
        raise error

    return function


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nosuchverb"], "unknown command: 'nosuchverb'"),
        ([""], "unknown command: ''"),
        (["a\x1b"], "unknown command: 'a\\x1b'"),
        (["a\nb", "c"], "unknown command: 'a\\nb'"),
        (["a\nb"], "unknown command: 'a'"),
        (["list; nosuchverb"], "unknown command: 'nosuchverb'"),
        (["list; start"], "command 'start' requires <domain> option"),
        (["list --all 'x"], "missing '"),
        (['list "x'], 'missing "'),
        (["list x\\"], "dangling \\"),
        (["list", ";", "list"], "unexpected data ';'"),
        (["list", "--bogus"], "command 'list' doesn't support option --bogus"),
        (["start"], "command 'start' requires <domain> option"),
        (["--bogus"], "unsupported option '--bogus'. See --help."),
        (["-x", "list"], "unsupported option '-x'. See --help."),
        (["--quiet=3", "list"], "unsupported option '--quiet=3'. See --help."),
        (["--version=foo"], "unsupported option '--version=foo'. See --help."),
        (["--root"], "option '--root' requires an argument"),
        (["--root=", "list"], "option '--root' requires an argument"),
        (
            ["-c", "qemu+ssh://h/system", "list"],
            "failed to connect to the hypervisor: qkvm drives this host's QEMU itself, not 'qemu+ssh://h/system' "
            "(leave the URI out, or say qemu:///system or qemu:///session)",
        ),
        (["-c"], "option '-c'/'--connect' requires an argument"),
        (
            ["-l", "/nonexistent/log", "list"],
            "failed to open the log file /nonexistent/log: No such file or directory",
        ),
        (
            ["secret-list"],
            "secret-list is not meant for qkvm: nothing in qkvm uses a stored secret",
        ),
        (["nodedev-list; list"], "nodedev-list is not meant for qkvm: it passes no devices of the host to guests"),
    ],
)
def test_wrong_command_line(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert capsys.readouterr() == ("", f"error: {error}\n")


@pytest.mark.parametrize(
    ("words", "error", "expected"),
    [
        (
            ["start", "vm01"],
            InvalidState("domain is already active"),
            "Failed to start domain 'vm01': Requested operation is not valid: domain is already active",
        ),
        (
            ["start", "vm01"],
            NotFound("failed to get domain 'vm01'", kind="domain", name="vm01"),
            "failed to get domain 'vm01'",
        ),
        (
            ["attach-interface", "vm01", "network", "nosuch"],
            NotFound("Network not found: no network 'nosuch'", kind="network", name="nosuch"),
            "Failed to attach interface: Network not found: no network 'nosuch'",
        ),
        (["start", "a\nb"], QkvmError("x\ny", hint="do\tz"), "Failed to start domain 'a\\nb': x\\ny (do\\tz)"),
        (["dominfo", "vm01"], InvalidValue("no", hint="yes"), "no (yes)"),
        (["dominfo", "{vm}"], QkvmError("{x}"), "{x}"),
        (["reset", "{vm}"], QkvmError("{x}"), "Failed to reset domain '{vm}': {x}"),
        (
            ["dominfo", "vm01"],
            OSError("bad"),
            "internal error: OSError: bad (run with --debug for the trace)",
        ),
        (
            ["dominfo", "vm01"],
            BrokenPipeError(32, "Broken pipe"),
            "internal error: BrokenPipeError: [Errno 32] Broken pipe (run with --debug for the trace)",
        ),
    ],
)
def test_errors_of_verbs(
    words: list[str], error: Exception, expected: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(words[0], failing(error))
    assert main(words) == 1
    assert capsys.readouterr() == ("\n", f"error: {expected}\n")


def test_notes_of_an_error_are_told(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    error = QkvmError("no")
    error.add_note("while undoing: nor that")
    install("dominfo", failing(error))
    assert main(["dominfo", "vm"]) == 1
    assert capsys.readouterr().err == "error: no; while undoing: nor that\n"


def test_output_before_an_error_comes_first(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    def function(context: Context, args: Args) -> None:
        context.out("half\n")
        raise QkvmError("no")

    install("dominfo", function)
    assert main(["dominfo", "vm"]) == 1
    assert capfd.readouterr() == ("half\n\n", "error: no\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["domif-getlink", "vm", "x"], "table up\nsaid\n\n"),
        (["-q", "domif-getlink", "vm", "x"], "table up\n"),
        (["--", "domif-getlink", "vm", "x"], "table up\nsaid\n\n"),
        (["domif-getlink", "vm", "x", "--json"], "table up\nsaid\n"),
    ],
)
def test_an_empty_line_ends_a_verb(
    words: list[str], expected: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def function(context: Context, args: Args) -> None:
        context.out("table up\n")
        context.say("said\n")

    install("domif-getlink", function)
    assert main(words) == 0
    assert capsys.readouterr() == (expected, "")


def test_exit_code_is_the_verbs(install: Install) -> None:
    install("gc", lambda context, args: 3)
    assert main(["gc"]) == 3


def test_commands_in_one_argument(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    """As in virsh: all are run, also behind one that fails; the last one's exit code counts; exit ends them."""
    install("list", lambda context, args: context.out("listed\n"))
    install("domid", failing(QkvmError("no")))
    assert main(["list; domid vm;; list # comment"]) == 0
    assert capfd.readouterr() == ("listed\n\n\nlisted\n\n", "error: no\n")
    assert main([" list\ndomid 'vm'"]) == 1
    assert capfd.readouterr() == ("listed\n\n\n", "error: no\n")
    assert main(["-q", "list; exit; domid vm"]) == 0
    assert capfd.readouterr() == ("listed\n", "")
    assert main(["list; nosuchverb"]) == 1
    assert capfd.readouterr().out == "", "nothing is run where something can't be read"
    for nothing in (" ", ";", "# list"):
        assert main([nothing]) == 0
    assert capfd.readouterr() == ("", "")


def test_timing(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("list", lambda context, args: context.out("listed\n"))
    for words in (["-t", "list"], ["-qt", "list"], ["--timing", "list"]):
        assert main(words) == 0
        assert re.fullmatch(r"listed\n\n\(Time: \d+\.\d{3} ms\)\n\n", capsys.readouterr().out)


def test_log(install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def function(context: Context, args: Args) -> None:
        context.warn("careful")
        raise QkvmError("no\nway")

    install("dominfo", function)
    log = tmp_path / "log"
    assert main(["-l", str(log), "dominfo", "vm"]) == 1
    assert main(["-l", str(log), "-d1", "dominfo", "vm"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("warning: careful\nerror: no\\nway\nwarning: careful\nTraceback ")
    lines = [
        re.fullmatch(r"\[\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d qkvm \d+\] (.*)", line)
        for line in log.read_text().splitlines()
    ]
    words = [line.group(1) for line in lines if line is not None]
    assert words == ["ERROR no\\nway", "INFO dominfo vm", "WARNING careful", "ERROR no\\nway"]
    assert log.stat().st_mode & 0o777 == 0o600


def test_debug_level_out_of_range(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("gc", lambda context, args: None)
    assert main(["-d", "9", "gc"]) == 0
    assert capsys.readouterr().err == "error: ignoring debug level 9 out of range [0-4]\n"


def test_readonly(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    for name in ("list", "destroy", "dommemstat", "net-start"):
        install(name, lambda context, args, name=name: done.append(name))  # type: ignore[misc]
    assert main(["-r", "list"]) == main(["-r", "dommemstat", "vm"]) == main(["--readonly", "echo", "x"]) == 0
    assert done == ["list", "dommemstat"]
    capsys.readouterr()
    assert main(["-r", "destroy", "vm"]) == 1
    assert capsys.readouterr().err == (
        "error: Failed to destroy domain 'vm': operation forbidden: read only access prevents destroy\n"
    )
    assert main(["-r", "dommemstat", "vm", "--period", "3"]) == 1
    assert main(["connect --readonly; net-start x; connect; net-start y"]) == 0
    assert done == ["list", "dommemstat", "net-start"]
    assert capsys.readouterr().err.count("read only access prevents") == 2


def test_interrupt(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("list", failing(KeyboardInterrupt()))
    assert main(["list"]) == 130
    assert capsys.readouterr() == ("", "")


def test_words_of_libraries_are_not_shown(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def function(context: Context, args: Args) -> None:
        logging.getLogger("qkvm.test").error("from a library")
        print("from a library", file=sys.stderr)
        context.warn("no KVM\nhere")

    install("gc", function)
    stderr = sys.stderr
    assert main(["-q", "gc"]) == 0
    assert sys.stderr is stderr
    assert capsys.readouterr() == ("", "warning: no KVM\\nhere\n")


def test_debug_shows_the_trace(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("gc", failing(ZeroDivisionError("x")))
    assert main(["--debug", "gc"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in function" in err
    assert err.endswith("error: internal error: ZeroDivisionError: x (run with --debug for the trace)\n")


@pytest.mark.parametrize("words", [["--root", "{}", "gc"], ["--root={}", "gc"], ["gc"]])
def test_root(words: list[str], install: Install, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    roots: list[str] = []
    install("gc", lambda context, args: roots.append(context.tree.root))
    if len(words) > 1 or "=" in words[0]:
        monkeypatch.setenv("QKVM_ROOT", "/nonexistent")
    assert main([word.format(tmp_path) for word in words]) == 0
    assert roots == [str(tmp_path)]
    assert os.environ["QKVM_ROOT"] == str(tmp_path)


def test_only_root_may_touch_roots_tree(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("list", lambda context, args: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["-q", "list"]) == 0, "a tree of one's own"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["list"]) == 1
    assert "belongs to another user: this needs root (without root, your own guests are" in capsys.readouterr().err
    assert main(["help"]) == 0
    assert main(["list", "--help"]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as stream:
        assert tomllib.load(stream)["project"]["version"] == VERSION
    for words in (["-v"], ["--version"], ["--version=short"], ["-q", "-v", "list"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"{VERSION}\n"
    for words in (["-V"], ["--version=long"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith(f"qkvm {VERSION}\n")


# Help


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["-q", "-h", "--bogus"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("\nqkvm [options]... [<command_string>]\nqkvm [options]... <command> [args...]\n")
    assert [name for name in verbs.names() if f"    {name:<30} " not in out] == ["complete", "vsock-connect"]


@pytest.mark.parametrize("words", [["help", "setmem"], ["setmem", "--help"], ["help", "--command", "setmem"]])
def test_help_of_a_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert (
        capsys.readouterr().out
        == """\
  NAME
    setmem - change memory allocation

  SYNOPSIS
    setmem <domain> <size> [--config] [--live] [--current] [--timeout <number>] [--no-wait]

  DESCRIPTION
    Change the current memory allocation in the guest domain.
    Waits until the guest has followed and says what was reached.

  OPTIONS
    [--domain] <string>  domain name, id or uuid
    [--size] <number>  new memory size, as scaled integer (default KiB)
    --config         affect next boot
    --live           affect running domain
    --current        affect current domain
    --timeout <number>  seconds to wait for the outcome
    --no-wait        return as soon as QEMU has accepted it, without watching the outcome


"""
    )


def test_help_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    for topic in ("events", "Domain Events"):
        assert main(["help", topic]) == 0
        assert capsys.readouterr().out == (
            " Domain Events (help keyword 'events'):\n    event                          Domain Events\n\n"
        )


def test_help_of_virsh_itself(capsys: pytest.CaptureFixture[str]) -> None:
    shown = set()
    for topic in ("qkvm", "virsh", "Virsh itself", "Qkvm itself"):
        assert main(["help", topic]) == 0
        shown.add(capsys.readouterr().out)
    assert len(shown) == 1 and shown.pop().startswith(" Qkvm itself (help keyword 'qkvm'):\n    autostart-all  ")


def test_help_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "bogus"]) == 1
    assert capsys.readouterr() == (
        "\n",
        "error: command or command group 'bogus' doesn't exist (qkvm help lists all)\n",
    )


def test_help_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Grouped commands:\n\n Domain Management (help keyword 'domain'):\n    attach-")
    assert "\n Qkvm itself (help keyword 'qkvm'):\n" in out


def test_help_of_a_raw_verb_is_its_own(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def function(context: Context, args: Args) -> None:
        context.out(" ".join(args.raw))

    install("install", function)
    for words in (["help", "install"], ["install", "--help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.strip() == "--help"


def test_every_option_has_its_help() -> None:
    for name in verbs.names():
        verb = verbs.find(name)
        assert verb is not None
        assert verb.group in cli_usage.GROUPS
        _, _, options = cli_usage.verb_help_parts(verb)
        assert not [label for label, meaning in options if not meaning], name
        assert cli_usage.verb_help(verb).startswith(f"  NAME\n    {name} - ")


# A process of its own


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qkvm", *words]
    return subprocess.run(command, cwd=ROOT, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_a_reader_that_leaves_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = run("help", stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = run("help", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "error: cannot write the output: No space left on device\n")


def test_closed_streams() -> None:
    command = f"'{sys.executable}' -m qkvm {{}} <&- >&- 2>&-"
    for words, code in (("help", 0), ("bogus", 1)):
        assert subprocess.run(["/bin/sh", "-c", command.format(words)], cwd=ROOT, check=False).returncode == code


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    code = (
        "import os; from qkvm.cli.main import main; main(['nosuchverb'])\n"
        "assert os.open('/', os.O_RDONLY) > 2 and os.readlink('/proc/self/fd/1') == os.devnull"
    )
    command = ["/bin/sh", "-c", f"'{sys.executable}' -c \"$1\" <&- >&- 2>&-", "sh", code]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_output_that_the_encoding_lacks() -> None:
    raw = io.BytesIO()
    console = cli._Console(io.TextIOWrapper(raw, encoding="ascii"), None)
    console.out("caf\xe9 \udc80\n")
    console.flush()
    assert raw.getvalue() == b"caf\\xe9 \\udc80\n"


def test_a_start_imports_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import qkvm.cli.main, qkvm.cli.verbs, qkvm.cli.parse, qkvm.cli.output\n"
        "qkvm.cli.main.main(['list', '--bogus']); qkvm.cli.output.table(('A',), [('b',)])\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert loaded == {
        "__future__",
        "qkvm",
        "qkvm.cli",
        "qkvm.cli.context",
        "qkvm.cli.main",
        "qkvm.cli.output",
        "qkvm.cli.parse",
        "qkvm.cli.verbs",
        "qkvm.errors",
        "qkvm.paths",
        "qkvm.units",
    }
