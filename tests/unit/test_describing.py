"""Verbs that show what a domain is, and let it be edited, on a root of their own; nothing runs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import golden_cases
import machines
import pytest

from qkvm import Host
from qkvm.cli.main import main
from qkvm.emulator import kept
from qkvm.errors import AlreadyExists, DefinitionError, InvalidState, NotFound
from qkvm.files import Undo
from qkvm.qemu.abilities import Abilities
from qkvm.spec import domain as spec

TOP = Path(__file__).resolve().parents[2]

TEXT = """\
# mine
name = "a"
uuid = "11111111-1111-4111-8111-111111111111"
root_ports = 3
autostart = true
memory = { current = "64MiB", maximum = "64MiB" }  # small
"""

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = machines.without_qemu(tmp_path)
    found.define(TEXT)
    return found


@pytest.fixture
def verb(host: Host, capfd: pytest.CaptureFixture[str]) -> Verb:
    """Runs a verb in this process and gives its exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["--root", host.tree.root, *words])
        return code, *capfd.readouterr()

    return run


def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
    """Makes an editor that runs one of these shell scripts on the file each time, the last one again and again."""
    lines = ["#!/bin/sh", f"n=$(cat {tmp_path}/count 2>/dev/null || echo 0)", f"echo $((n + 1)) >{tmp_path}/count"]
    for number, script in enumerate(scripts):
        test = "true" if number == len(scripts) - 1 else f'[ "$n" = {number} ]'
        lines.append(f"if {test}; then {script}; exit; fi")
    path = tmp_path / "editor"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(path))
    monkeypatch.delenv("VISUAL", raising=False)
    # For a child, and for this process, which may have looked already.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def stored(host: Host, name: str = "a") -> str:
    return Path(host.tree.domain_definition(name)).read_text()


# define, dumpxml


def test_xml_moves_to_another_root(host: Host, verb: Verb, tmp_path: Path) -> None:
    code, out, _ = verb("dumpxml", "a")
    assert code == 0 and out.startswith("<domain type='") and out.endswith("</domain>\n\n")
    (tmp_path / "a.xml").write_text(out)
    other = machines.without_qemu(tmp_path / "other")
    moved = other.define((tmp_path / "a.xml").read_bytes(), "a.xml").definition
    before = host.domain("a").definition
    assert (moved.uuid, moved.memory, moved.root_ports) == (before.uuid, before.memory, 3)
    assert moved.accel in ("kvm", "tcg") and not moved.autostart
    assert verb("define", str(tmp_path / "a.xml"))[1] == f"Domain 'a' defined from {tmp_path}/a.xml\n\n"
    assert host.domain("a").definition == before, (
        "and over itself it changes nothing, autostart and accel included"
    )
    assert stored(host).startswith("# mine\n") and "# small" in stored(host)


def test_what_can_not_be_done_is_refused_or_listed(host: Host, verb: Verb, tmp_path: Path) -> None:
    text = host.domain("a").xml().replace("<devices>", "<devices>\n<sound model='ich9'/>").replace(">a<", ">b<")
    path = tmp_path / "b.xml"
    path.write_text(text.replace("11111111-1111", "22222222-1111"))
    line = text.splitlines().index("<sound model='ich9'/>") + 1
    words = f"{path}:{line}: element <sound>: qkvm's guests have no sound"
    assert verb("define", str(path)) == (1, "\n", f"error: Failed to define domain from {path}: {words}\n")
    assert verb("define", str(path), "--ignore-unsupported") == (
        0,
        f"Domain 'b' defined from {path}\n\n",
        f"warning: {words}\n",
    )


def test_files_that_are_no_definition(verb: Verb, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for raw, words in (
        (b"<network/>", ":1: element <network>: expecting root element of 'domain', not 'network'"),
        (b"<domain", ":1: not XML: unclosed token"),
        (b"\xff\xfe", ": not UTF-8 text (byte 0)"),
        (b"", ": Object missing required field"),
        (b" " * (10 << 20) + b"<", ": it is longer than 10 MiB"),
    ):
        path.write_bytes(raw)
        code, _, err = verb("define", str(path))
        assert code == 1 and words in err, err
    assert "No such file" in verb("define", str(tmp_path / "nosuch"))[2]


def test_names_and_uuids_clash_in_xml_too(host: Host) -> None:
    text = host.domain("a").xml()
    with pytest.raises(AlreadyExists, match="domain 'a' already exists with uuid 11111111"):
        host.define(text.replace("11111111-1111", "22222222-1111"))
    with pytest.raises(AlreadyExists, match="is already that of domain 'a'"):
        host.define(text.replace("<name>a<", "<name>b<"))
    without = "\n".join(line for line in text.splitlines() if "<uuid>" not in line)
    assert host.define(without).uuid == "11111111-1111-4111-8111-111111111111"
    with pytest.raises(DefinitionError, match="domain name 'a/b' is not allowed"):
        host.define(without.replace("<name>a<", "<name>a/b<"))
    Path(host.tree.domain_definition("a")).write_text("= broken")
    assert host.define(without).definition.name == "a", "a damaged definition can be replaced"


def test_parts_of_a_description(verb: Verb) -> None:
    assert verb("dumpxml", "a", "--xpath", "/domain/name")[1] == "<name>a</name>\n\n"
    assert verb("dumpxml", "a", "--xpath", "//memory/@unit")[1] == ' unit="KiB"\n\n'
    assert verb("dumpxml", "a", "--xpath", "//nosuch")[1] == "\n"
    assert verb("dumpxml", "a", "--xpath", "//on_crash", "--wrap")[1] == (
        "<nodes>\n  <on_crash>destroy</on_crash>\n</nodes>\n\n"
    )
    assert verb("dumpxml", "a", "--xpath", "//nosuch", "--wrap")[1] == "<nodes/>\n\n"
    code, _, err = verb("dumpxml", "a", "--xpath", "count(//disk)")
    assert code == 1 and err.startswith("error: Incorrect xpath 'count(//disk)'")
    assert '"root_ports": 3' in verb("dumpxml", "a", "--json")[1]


def test_passwords_of_a_description(host: Host, verb: Verb) -> None:
    host.define(TEXT + '[vnc]\npassword = "geheim"\n[[credentials]]\nname = "c"\nvalue = "geheim too"\n')
    for words in (("dumpxml", "a"), ("dumpxml", "a", "--json"), ("dumpxml", "a", "--inactive", "--migratable")):
        assert "geheim" not in verb(*words)[1]
    assert "passwd='geheim'" in verb("dumpxml", "a", "--security-info", "--update-cpu")[1]
    assert "<entry>io.systemd.credential:c=geheim too</entry>" in verb("dumpxml", "a", "--security-info")[1]
    shown = json.loads(verb("dumpxml", "a", "--json")[1])
    assert shown["vnc"] == {} and shown["credentials"] == [{"name": "c"}]
    whole = verb("dumpxml", "a", "--security-info", "--json")[1]
    assert '"password": "geheim"' in whole and '"value": "geheim too"' in whole


# edit


def test_edit(host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.define(TEXT + '[vnc]\npassword = "geheim"\n')
    editor(tmp_path, monkeypatch, "true", "sed -i 's/>64<\\|65536/131072/' \"$1\"")
    assert verb("edit", "a") == (0, "Domain 'a' XML configuration not changed.\n\n", "")
    assert verb("edit", "a") == (0, "Domain 'a' XML configuration edited.\n\n", "")
    domain = host.domain("a").definition
    assert domain.memory.maximum == 131072 and domain.autostart and domain.accel is spec.Accel.AUTO
    assert domain.vnc is not None and domain.vnc.password == "geheim", "what is not shown elsewhere stays"
    assert stored(host).startswith("# mine\n")
    assert not list(tmp_path.glob("qkvm-*")), "no file is left"


def test_edit_toml(host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(tmp_path, monkeypatch, "true", "sed -i 's/# small/# tiny/; s/64MiB/32MiB/g' \"$1\"", 'echo = >>"$1"')
    assert verb("edit", "a", "--toml")[1] == "Domain 'a' TOML configuration not changed.\n\n"
    assert verb("edit", "a", "--toml", "--skip-validate")[1] == "Domain 'a' TOML configuration edited.\n\n"
    assert "# tiny" in stored(host) and host.domain("a").definition.memory.maximum == 32768
    code, _, err = verb("edit", "a", "--toml")
    assert code == 1 and err.startswith("error: a as edited: not TOML") and "kept in" in err


def test_a_bad_edit_is_kept(host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked where stdin is no terminal."""
    before = stored(host)
    editor(tmp_path, monkeypatch, "sed -i 's/hvm/linux/' \"$1\"")
    code, out, err = verb("edit", "a")
    kept = err.rpartition(" ")[2].strip()
    assert code == 1 and out == "\n" and "element <type>: qkvm runs fully virtualized guests alone" in err
    assert "linux" in Path(kept).read_text() and os.stat(kept).st_mode & 0o777 == 0o600
    assert stored(host) == before


def test_editors_that_fail(host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # For a child, and for this process, which may have looked already.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("VISUAL", raising=False)
    for program, words in (
        ("/bin/false", "editor '/bin/false' ended with an error"),
        ("/nonexistent/ed", "cannot start /nonexistent/ed: No such file or directory"),
        ("ed '", "editor 'ed '' is no command"),
    ):
        monkeypatch.setenv("EDITOR", program)
        code, _, err = verb("edit", "a")
        assert code == 1 and err.startswith("error: ") and words in err
    monkeypatch.setenv("VISUAL", "sh -c 'exit 3'")
    assert "ended with an error" in verb("edit", "a")[2], "$VISUAL is asked first, and may have options"


def test_an_edit_loses_against_another_change(
    host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.tree.domain_definition("a")
    editor(tmp_path, monkeypatch, f"sed -i 's/64MiB/16MiB/g' {path}; sed -i 's/65536/1024/g' \"$1\"")
    code, _, err = verb("edit", "a")
    assert code == 1 and "the configuration was changed by another user" in err
    assert host.domain("a").definition.memory.maximum == 16384


def answer(host: Host, answers: bytes) -> tuple[int, str]:
    """The exit code and all words of `edit a` on a terminal of its own."""
    fd, terminal = pty.openpty()
    command = [sys.executable, "-m", "qkvm", "--root", host.tree.root, "edit", "a"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=TOP) as process:
        os.close(terminal)
        os.write(fd, answers)
        said = b""
        # Reading fails when the other end of the terminal is closed.
        with suppress(OSError):
            while chunk := os.read(fd, 4096):
                said += chunk
    os.close(fd)
    return process.returncode, said.decode().replace("\r\n", "\n")


def test_a_bad_edit_can_be_mended(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = "sed -i 's/hvm/linux/' \"$1\"", "sed -i 's/linux/hvm/; s/65536/32768/g' \"$1\""
    editor(tmp_path, monkeypatch, bad, good)
    code, said = answer(host, b"?\nwhat\nf\ny\n")
    assert code == 0 and "Domain 'a' XML configuration edited." in said
    assert said.count("Failed. Try again? [y,n,f,?]: ") == 4
    assert "y - yes, start editor again\n" in said and "f - force, try to redefine again\n" in said
    assert host.domain("a").definition.memory.maximum == 32768


def test_a_bad_edit_can_be_given_up(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(tmp_path, monkeypatch, "sed -i 's/hvm/linux/' \"$1\"")
    code, said = answer(host, b"n\n")
    assert code == 1 and "what you wrote is kept in " in said
    assert len(list(tmp_path.glob("qkvm-*.xml"))) == 1


# desc, metadata


def test_desc(host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verb("desc", "a")[1] == "No description for domain: a\n"
    assert verb("desc", "a", "two", "words")[1] == "Domain description updated successfully\n"
    assert verb("desc", "a")[1] == "two words\n"
    assert verb("desc", "a", "--title")[1] == "No title for domain: a\n"
    assert verb("desc", "a", "--title", "mine", "--config")[1] == "Domain title updated successfully\n"
    assert verb("desc", "a", "--title")[1] == "mine\n"
    assert '"title": "mine"' in verb("desc", "a", "--json")[1]
    assert "mine" in verb("list", "--all", "--title")[1]
    assert "metadata title can't contain newlines" in verb("desc", "a", "--title", "x\ny")[2]
    assert "domain is not running" in verb("desc", "a", "--live", "x")[2]
    editor(tmp_path, monkeypatch, "true", 'echo neu >"$1"')
    assert verb("desc", "a", "--edit")[1] == "Domain description not changed\n\n"
    assert verb("desc", "a", "--edit")[1] == "Domain description updated successfully\n"
    assert host.domain("a").definition.description == "neu"
    assert verb("desc", "a", "")[1] == "Domain description updated successfully\n"
    assert host.domain("a").definition.description == ""
    assert "# mine" in stored(host)


def test_desc_with_words_and_an_editor(
    host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, "true")
    assert verb("desc", "a", "--edit", "begun")[1] == "Domain description updated successfully\n"
    assert host.domain("a").definition.description == "begun"


def test_metadata(host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "http://example.org/x"
    assert (
        verb("metadata", "a", uri)[2] == "error: metadata not found: Requested metadata element is not present\n"
    )
    assert "namespace key is required" in verb("metadata", "a", uri, "--set", "<a/>")[2]
    assert (
        verb("metadata", "a", uri, "--set", "<d a='1'><x>foo</x></d>", "--key", "app")[1]
        == "Metadata modified\n\n"
    )
    assert verb("metadata", "a", uri)[1] == '<d a="1">\n  <x>foo</x>\n</d>\n\n'
    assert "<app:d xmlns:app='http://example.org/x' a='1'>" in verb("dumpxml", "a")[1]
    assert '"xml": "<app:d' in verb("metadata", "a", uri, "--json")[1]
    for bad in ("<d>", "text", "", "<!DOCTYPE d><d/>"):
        code, _, err = verb("metadata", "a", uri, "--set", bad, "--key", "app")
        assert (code, err.startswith("error: (metadata_xml)")) == (1, True) or not bad
    assert "is no prefix" in verb("metadata", "a", uri, "--set", "<d/>", "--key", "a b")[2]
    assert "mutually exclusive" in verb("metadata", "a", uri, "--set", "<d/>", "--remove")[2]
    assert (
        "can't be set"
        in verb("metadata", "a", "https://qkvm.org/xmlns/domain/1", "--set", "<d/>", "--key", "k")[2]
    )
    editor(tmp_path, monkeypatch, "true", "echo '<new/>' >\"$1\"")
    assert verb("metadata", "a", uri, "--edit", "--key", "k")[1] == "Metadata not changed\n"
    assert verb("metadata", "a", uri, "--edit", "--key", "k")[1] == "Metadata modified\n\n"
    assert verb("metadata", "a", uri)[1] == "<new/>\n\n"
    assert verb("metadata", "a", uri, "--remove")[1] == "Metadata removed\n\n"
    assert verb("metadata", "a", uri, "--remove")[1] == "Metadata removed\n\n"
    assert host.domain("a").definition.metadata == {}


# domrename, lifecycle, native


def test_networks_are_described_too(
    host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lab.xml"
    path.write_text(NETWORK)
    assert verb("net-define", str(path))[0] == 0
    assert verb("net-desc", "lab")[1] == "No description for network: lab\n"
    assert verb("net-desc", "lab", "two", "words")[1] == "Network description updated successfully\n"
    assert verb("net-desc", "lab", "--title", "mine", "--config")[1] == "Network title updated successfully\n"
    assert "metadata title can't contain newlines" in verb("net-desc", "lab", "--title", "x\ny")[2]
    assert "network is not running" in verb("net-desc", "lab", "--live", "x")[2]
    editor(tmp_path, monkeypatch, "true", 'echo neu >"$1"')
    assert verb("net-desc", "lab", "--edit")[1] == "Network description not changed\n\n"
    assert verb("net-desc", "lab", "--edit")[1] == "Network description updated successfully\n"
    assert '"description": "neu"' in verb("net-desc", "lab", "--json")[1]
    assert " mine\n" in verb("net-list", "--all", "--title")[1]
    assert '"title": "mine"' in verb("net-list", "--all", "--json")[1]
    uri = "http://example.org/x"
    assert "metadata element is not present" in verb("net-metadata", "lab", uri)[2]
    assert "namespace key is required" in verb("net-metadata", "lab", uri, "--set", "<a/>")[2]
    assert (
        verb("net-metadata", "lab", uri, "--set", "<d><x>foo</x></d>", "--key", "k")[1] == "Metadata modified\n\n"
    )
    assert verb("net-metadata", "lab", uri)[1] == "<d>\n  <x>foo</x>\n</d>\n\n"
    whole = verb("net-dumpxml", "lab")[1]
    assert "<title>mine</title>\n  <description>neu</description>\n  <metadata>\n    <k:d xmlns:k=" in whole
    path.write_text(whole.replace("neu", "other"))
    assert verb("net-define", str(path))[0] == 0
    definition = host.networks["lab"].definition
    assert (definition.title, definition.description) == ("mine", "other") and list(definition.metadata) == [uri]
    path.write_text(
        whole.replace(
            "</metadata>", "<qkvm:domain xmlns:qkvm='https://qkvm.org/xmlns/domain/1' x='y'/></metadata>"
        )
    )
    assert "qkvm's own metadata is a domain's" in verb("net-define", str(path))[2]
    assert verb("net-metadata", "lab", uri, "--remove")[1] == "Metadata removed\n\n"
    assert host.networks["lab"].definition.metadata == {}


def test_rename(host: Host, verb: Verb) -> None:
    tree = host.tree
    os.mkdir(tree.nvrams)
    for path, text in ((tree.qemu_log("a"), "log"), (tree.serial_log("a"), "serial"), (tree.nvram("a"), "nvram")):
        Path(path).write_text(text)
    Path(tree.nvram("b")).touch()
    assert "b_VARS.qcow2 of an earlier domain 'b' is there" in verb("domrename", "a", "b")[2]
    os.unlink(tree.nvram("b"))
    assert verb("domrename", "a", "b") == (0, "Domain successfully renamed\n\n", "")
    assert stored(host, "b") == TEXT.replace('name = "a"', 'name = "b"')
    assert not os.path.exists(tree.domain_definition("a"))
    assert Path(tree.qemu_log("b")).read_text() == "log" and Path(tree.serial_log("b")).read_text() == "serial"
    assert not os.path.exists(tree.qemu_log("a")) and Path(tree.nvram("b")).read_text() == "nvram"
    host.define(TEXT.replace("11111111", "33333333"))
    assert "domain 'a' already exists" in verb("domrename", "b", "a")[2]
    assert "Can't rename domain to itself" in verb("domrename", "a", "a")[2]
    assert "domain name 'x/y' is not allowed" in verb("domrename", "a", "x/y")[2]
    assert "digits alone" in verb("domrename", "a", "123")[2]
    with pytest.raises(NotFound):
        host.domain("nosuch").rename("c")


def test_a_rename_that_fails_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = host.tree
    Path(tree.qemu_log("a")).write_text("log")

    def full(self: Undo) -> None:
        raise InvalidState("full")

    monkeypatch.setattr(Undo, "commit", full)
    with pytest.raises(InvalidState, match="full"):
        host.domain("a").rename("b")
    assert stored(host) == TEXT and Path(tree.qemu_log("a")).read_text() == "log"
    assert os.listdir(tree.domain_definitions) == ["a.toml"]


def test_lifecycle_actions(host: Host, verb: Verb) -> None:
    assert verb("set-lifecycle-action", "a", "reboot", "destroy") == (0, "\n", "")
    assert host.domain("a").definition.on_reboot is spec.OnReboot.DESTROY
    for words, text in (
        (("crash", "restart"), "Unable to change lifecycle action: Invalid lifecycle action 'restart'."),
        (("sleep", "destroy"), "Unable to change lifecycle action: Invalid lifecycle type 'sleep'."),
        (("crash", "ignore", "--live"), "domain is not running"),
    ):
        assert text in verb("set-lifecycle-action", "a", *words)[2]


def test_native(host: Host, verb: Verb, tmp_path: Path) -> None:
    qemu = str(tmp_path / "no-qemu")
    Path(qemu).touch(mode=0o755)
    asked = golden_cases.abilities("10.0")
    kept.recall(host.tree, qemu, "abilities", kept.program_key(qemu), Abilities, lambda: asked)
    code, out, _ = verb("domxml-to-native", "qemu-argv", "--domain", "a")
    assert code == 0 and out.count("\n") == 2 and "-name guest=a,debug-threads=on" in out
    assert "-machine pc-q35-10.0," in out
    (tmp_path / "x.xml").write_text(
        host.domain("a").xml().replace(">a<", ">other<").replace("11111111-1", "2" * 8 + "-1")
    )
    assert "guest=other" in verb("domxml-to-native", "qemu-argv", "--xml", str(tmp_path / "x.xml"), "--json")[1]
    assert not os.path.exists(host.tree.domain_definition("other"))
    assert "unsupported config type odd" in verb("domxml-to-native", "odd", "--domain", "a")[2]
    assert "need either domain or domain XML" in verb("domxml-to-native", "qemu-argv")[2]
    assert "can't be read" in verb("domxml-from-native", "qemu-argv", "x")[2]


def test_options_that_are_not_there_have_their_reason(host: Host, verb: Verb, tmp_path: Path) -> None:
    for option in ("--autodestroy", "--pass-fds=3"):
        for words in (["create", str(tmp_path / "x")], ["start", "a"]):
            code, _, err = verb(*words, option)
            assert code == 1 and f"{option.partition('=')[0]} is not supported: " in err
    for option in ("--script=/x", "--managed"):
        code, _, err = verb("attach-interface", "a", "network", "default", "--config", option)
        assert code == 1 and f"{option.partition('=')[0]} is not supported: " in err
    assert "mutually exclusive" in verb("undefine", "a", "--nvram", "--keep-nvram")[2]
    taken = ("--nvram", "--tpm", "--managed-save", "--snapshots-metadata", "--checkpoints-metadata")
    assert verb("undefine", "a", *taken)[1] == "Domain 'a' has been undefined\n\n"


# Networks


NETWORK = """<network>
  <name>lab</name>
  <forward/>
  <ip address='10.9.8.1' netmask='255.255.255.0'>
    <dhcp><range start='10.9.8.2' end='10.9.8.254'/></dhcp>
  </ip>
</network>
"""


def test_networks(host: Host, verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lab.xml"
    path.write_text(NETWORK)
    assert verb("net-define", str(path))[1] == f"Network lab defined from {path}\n\n"
    definition = host.networks["lab"].definition
    assert definition.bridge.startswith("virbr") and definition.bridge != "virbr0", "the default network has that"
    host.networks["lab"].set_autostart(True)
    assert verb("net-dumpxml", "lab", "--xpath", "//ip/@address")[1] == ' address="10.9.8.1"\n\n'
    path.write_text(verb("net-dumpxml", "lab", "--inactive")[1])
    assert verb("net-define", str(path))[0] == 0
    again = host.networks["lab"].definition
    assert (again.uuid, again.bridge, again.autostart) == (definition.uuid, definition.bridge, True)
    assert '"name": "lab"' in verb("net-dumpxml", "lab", "--json")[1]
    editor(tmp_path, monkeypatch, "true", 'sed -i s/254/99/ "$1"', 'sed -i s/nat/vepa/g "$1"')
    assert verb("net-edit", "lab")[1] == "Network lab XML configuration not changed.\n\n"
    assert verb("net-edit", "lab")[1] == "Network lab XML configuration edited.\n\n"
    dhcp = host.networks["lab"].definition.dhcp
    assert dhcp is not None and dhcp.end == "10.9.8.99"
    code, _, err = verb("net-edit", "lab")
    assert code == 1 and "element <forward>: mode 'vepa' is not supported" in err
    path.write_text(NETWORK.replace("<forward/>", "<portgroup name='x'/>"))
    words = f"error: Failed to define network from {path}: {path}:3: element <portgroup>: port groups"
    assert verb("net-define", str(path))[2].startswith(words)
