"""The guide: each topic is shown and made a manual page, short, and qkvm understands each of its examples."""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from pathlib import Path

import golden_cases
import msgspec
import pytest

from qkvm.cli import verbs
from qkvm.cli.globals import Globals
from qkvm.cli.inside import run
from qkvm.cli.install import reader
from qkvm.cli.main import main
from qkvm.cli.parse import options_of, parse
from qkvm.cli.shell import candidates, guide, manual
from qkvm.cli.shell.usage import GROUPS
from qkvm.cli.verbs.options import usual
from qkvm.cli.words import split
from qkvm.host.settings import Settings
from qkvm.paths import Tree
from qkvm.spec import domain, network, pool, toml
from qkvm.spec.libvirt import text as libvirt
from tests import guide as examples
from tests.guide import README, Block

BLOCKS = examples.blocks()
UUID = "05fbea17-f8f3-4cb6-acd1-0cc1128f9bb6"

NOT_RUN = {
    ("README", "./scripts/demo     # installs what is missing, builds a tiny"),
    ("README", "qkvm image-import https://cloud.debian.org/images/cloud/trix"),
    ("README", "export PATH=$PWD/.venv/bin:$PATH"),
    ("boot", "qkvm setup-boot"),
    ("boot", "systemctl status 'machine-*'"),
    ("developing", "./scripts/demo"),
    ("footprint", "qkvm gc --all"),
    ("images", "qkvm image-import https://cloud.debian.org/images/cloud/trix"),
    ("install", "qkvm run debian13 --memory 2048 --vcpus 2 --publish 2222:22"),
    ("install", "qkvm install --name vm01-centos7.4-64 --graphics vnc,listen="),
    ("install", "openssl passwd -6 > /etc/qkvm/web.hash"),
    ("libvirt", "virsh dumpxml vm01 | qkvm define /dev/stdin"),
    ("packages", "apt-get update"),
    ("packages", "apt install python3-venv python3-dev gcc libc6-dev"),
    ("shares", "mount -t virtiofs data /mnt"),
    ("storage", "qkvm pool-define-as vms logical --source-name vg0 --source-d"),
    ("upgrades", "qkvm upgrade-check --qemu /opt/qemu/bin/qemu-system-x86_64"),
    ("users", "qkvm install --name mine --memory 512 --vcpus 1 --disk size="),
    ("users", "qkvm net-grant default alice"),
    ("users", "groupadd --system qkvm-read"),
}
"""Topic and first command, its first 60 characters, of each example that no test runs."""

README_LINES = 160
GUIDE_WORDS = 10000
"""Of the guide's prose, without the news."""


def of_kind(*kinds: str) -> list[object]:
    return [pytest.param(block, id=block.name) for block in BLOCKS if block.kind in kinds]


def test_what_is_not_run_is_known() -> None:
    """Packages, other hosts, and media and devices that are not here: an example that joins them is seen here."""
    left = [block for block in BLOCKS if block.kind in ("console", "sh", "python") and not block.is_run]
    assert {(block.topic, block.commands[0][:60]) for block in left} == NOT_RUN and len(left) == len(NOT_RUN)
    assert {block.kind for block in BLOCKS} == {"console", "json", "sh", "toml", "xml", "python"}
    assert {word for block in BLOCKS if block.kind in ("console", "sh", "python") for word in block.words} == {
        "elsewhere"
    }


def test_the_texts_are_short() -> None:
    texts = examples.texts()
    assert len(texts.pop(README).splitlines()) <= README_LINES
    del texts["news"]
    words = [word for text in texts.values() for word in examples.prose(text).split() if re.search(r"\w", word)]
    assert len(words) <= GUIDE_WORDS


def test_every_topic_begins_with_its_name() -> None:
    for topic in guide.topics():
        assert guide.text(topic).startswith(f"# {topic}: {guide.summary(topic)}\n\n") and guide.summary(topic)
        assert all(len(line) <= 128 for line in guide.text(topic).splitlines()), topic


# What the examples say.


@pytest.mark.parametrize("block", of_kind("console"))
def test_console(block: Block) -> None:
    assert block.commands, "it has no command"
    for command in block.commands:
        for words in examples.qkvm_lines(command):
            _understood(words)


def _understood(words: list[str]) -> None:
    """qkvm's own reader takes the words: verb, options, and values where there is a choice of them."""
    words = Globals().read(words)
    if len(words) == 1 and not words[0].replace("-", "").isalnum():
        for command in split(words[0]):
            _understood(command)
        return
    if not words:
        return
    verb = verbs.find(words[0])
    assert verb is not None, f"there is no verb {words[0]}"
    if "raw" in verb.marks:
        if verb.name == "run":
            run.read([*itertools.takewhile(lambda word: word != "--", words[1:])])
        elif not reader.questions(words[1:]):
            reader.read(words[1:])
        return
    args = parse(verb, words[1:])
    options = options_of(verb)
    for name, value in args.values.items():
        choice = options[name].values or usual(name)[0]
        assert "|" not in choice or value in choice.split("|"), f"{verb.name} --{name} {value}"


def _whole(block: Block) -> domain.Domain:
    """The domain that a definition, a part of one or a NIC's lines make."""
    text = block.text
    if block.words[0] == "nic":
        text = f'[[nics]]\nmac = "52:54:00:12:34:56"\nsource = "default"\n{text}'
    if block.words[0] != "domain":
        text = f'name = "part"\nuuid = "{UUID}"\nmemory = {{ current = "1GiB", maximum = "1GiB" }}\n{text}'
    return domain.validate(toml.loads(text, domain.Domain, block.name))


@pytest.mark.parametrize("block", of_kind("toml"))
def test_toml(block: Block) -> None:
    what = block.words[0]
    text = block.text if "\nuuid = " in block.text else f'uuid = "{UUID}"\n{block.text}'
    if what == "network":
        network.validate(toml.loads(text, network.Network, block.name))
    elif what == "pool":
        pool.validate(toml.loads(text, pool.Pool, block.name))
    elif what == "settings":
        assert toml.loads(block.text, Settings, block.name) == Settings(), "all is as it is without the file"
        assert tomllib.loads(block.text).keys() == {field.name for field in msgspec.structs.fields(Settings)}
    else:
        assert what in ("domain", "domain-part", "nic")
        made = _whole(block)
        options = golden_cases.options(made)
        assert made.name in str(next(option.value for option in options if option.name == "-name"))


@pytest.mark.parametrize("block", of_kind("xml"))
def test_xml(block: Block) -> None:
    assert libvirt.load_device(block.text, block.name).device.__class__.__name__.lower() == block.words[0]


@pytest.mark.parametrize("topic", examples.texts())
def test_verbs_and_topics_in_the_prose_are_there(topic: str) -> None:
    for said in re.findall(r"`qkvm ([^`]+)`", examples.prose(examples.texts()[topic])):
        first, *more = said.split()
        if first.startswith("-"):
            continue
        assert verbs.find(first) is not None, said
        if first == "help" and more:
            assert more[-1] in {*guide.topics(), guide.KEYWORD, "VERB", "TOPIC", "--parity"}, said


def test_the_places_of_behaviours_are_there() -> None:
    places = guide.text("developing").partition("<!-- places")[2].partition("<!-- /places")[0]
    found = [re.findall(r"`([^`]+)`", line) for line in places.splitlines() if line.startswith("- ")]
    assert len(found) == 10 and all(found)
    assert [path for paths in found for path in paths if not (examples.TOP / path).is_dir()] == []


# How it is shown.


@pytest.mark.parametrize("topic", guide.topics())
def test_a_topic_is_shown(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--guide", topic]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"# {topic}: {guide.summary(topic)}\n") and "```" not in shown and "<!--" not in shown
    for block in BLOCKS:
        if block.topic == topic:
            assert "".join(f"    {line}\n" if line else "\n" for line in block.text.splitlines()) in shown
    assert main(["help", topic]) == 0
    assert (capsys.readouterr().out == shown) == (verbs.find(topic) is None and topic not in GROUPS)


def test_the_topics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "guide"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()[1:] if line] == guide.topics()
    for words in (["help", "--guide"], ["help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.rstrip("\n").endswith(listed.rstrip("\n"))


def test_verbs_and_groups_come_before_topics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "install"]) == 0
    assert "qkvm help --guide install" in capsys.readouterr().out
    assert not set(guide.topics()) & {*GROUPS, guide.KEYWORD}
    assert set(guide.topics()) & set(verbs.names()) == {"install"}, "its help names the topic"


def test_what_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["help", "netwroks"], "(did you mean networks"),
        (["help", "--guide", "list"], "topic 'list' doesn't exist ("),
        (["help", "../guide/agent"], "doesn't exist ("),
        (["help", "--guide", "--parity"], "mutually exclusive"),
    ):
        assert main(words) == 1
        assert told in capsys.readouterr().err


def test_completion_knows_the_topics(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    assert candidates.candidates(tree, ["help", "netw"]) == ["network", "networks"]
    assert candidates.candidates(tree, ["help", "--guide", "s"]) == [
        t for t in guide.topics() if t.startswith("s")
    ]


def test_manual_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert main(["help", "--man", str(tmp_path)]) == 0
    names = ["qkvm.1", *(f"qkvm-{topic}.7" for topic in guide.topics())]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    for topic in guide.topics():
        page = (tmp_path / f"qkvm-{topic}.7").read_text(encoding="ascii")
        assert page.startswith(f'.TH QKVM\\-{topic.upper()} 7 1970-01-02 "qkvm ')
        assert all(page.splitlines()) and "`" not in page and "**" not in page
        assert f"qkvm\\-{topic} (7)" in (tmp_path / "qkvm.1").read_text(encoding="ascii")
        assert page.count(".nf\n") == page.count(".fi\n") == sum(block.topic == topic for block in BLOCKS)
    assert main(["help", "--man", str(tmp_path / "none")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert manual.pages().keys() == set(names)
    with (examples.TOP / "pyproject.toml").open("rb") as stream:
        assert tomllib.load(stream)["project"]["description"] == manual.SUMMARY
