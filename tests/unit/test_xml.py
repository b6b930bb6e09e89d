"""XML: libvirt's layout, read back to what it was, and nothing that could read other files or grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm import xml
from qkvm.errors import DefinitionError, InvalidValue

DOCUMENT = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>a&amp;b</name>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <boot dev='hd'/>
    <boot dev='cdrom'/>
  </os>
  <qemu:commandline>
    <qemu:arg value='it&apos;s'/>
  </qemu:commandline>
</domain>
"""


def test_libvirts_layout_comes_back_as_it_was() -> None:
    root = xml.parse(DOCUMENT, "x.xml")
    assert xml.dump(root) == DOCUMENT
    assert xml.dump(root.children[0], indent=2) == "    <name>a&amp;b</name>\n"


def test_looking_into_a_document() -> None:
    root = xml.parse(DOCUMENT, "x.xml")
    assert root.get("type") == "qemu" and root.get("id") is None and root.get("id", "-") == "-"
    assert root.content("name") == "a&b" and root.content("os/type") == "hvm" and root.content("os/nosuch") is None
    assert root.find("nosuch/type") is None
    os_ = root.find("os")
    assert os_ is not None and [boot.get("dev") for boot in os_.all("boot")] == ["hd", "cdrom"]
    assert [child.line for child in root] == [2, 3, 8]


def test_building() -> None:
    root = xml.element("cpu", mode="host")
    root.add("model", "EPYC", fallback="forbid", vendor_id=None)
    root.add("range", from_=0, to="4")
    root.add("empty")
    assert xml.dump(root) == (
        "<cpu mode='host'>\n"
        "  <model fallback='forbid'>EPYC</model>\n"
        "  <range from='0' to='4'/>\n"
        "  <empty/>\n"
        "</cpu>\n"
    )


def test_layout_of_the_file_does_not_matter_but_text_does() -> None:
    root = xml.parse(b"<?xml version='1.0'?>\n<!-- note -->\n<a >\n\n<b> x\n y </b><c></c>\n</a>", "x")
    assert xml.dump(root) == "<a>\n  <b> x\n y </b>\n  <c/>\n</a>\n"
    assert root.content("b") == "x\n y"
    mixed = "<a>one <b>two</b> three<c/></a>\n"
    assert xml.dump(xml.parse(mixed, "x")) == mixed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "bad.xml:1: not XML: no element found"),
        ("<a>\n<b></a>", "bad.xml:2: not XML: mismatched tag"),
        ("<a>\n&nosuch;</a>", "bad.xml:2: not XML: undefined entity"),
        ("<a/>\n<b/>", "bad.xml:2: not XML: junk after document element"),
        ("<a b='1' b='2'/>", "bad.xml:1: not XML: duplicate attribute"),
        ("<a>\x00</a>", "bad.xml:1: not XML"),
        ("<a>\ud800</a>", "bad.xml:1: not XML"),
        ("\n<!DOCTYPE a>\n<a/>", "bad.xml:2: a document type declaration"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
            "bad.xml:1: a document type declaration",
        ),
        ('<!DOCTYPE a SYSTEM "http://127.0.0.1/x"><a/>', "bad.xml:1: a document type declaration"),
        ("<a>" * 65 + "</a>" * 65, "nested deeper than 64"),
        (b"<?xml version='1.0' encoding='nosuch'?><a/>", "not XML: unknown encoding"),
        (b"<a>\xff</a>", "bad.xml:1: not XML"),
    ],
)
def test_refusals(text: str | bytes, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        xml.parse(text, "bad.xml")
    assert str(caught.value).startswith("bad.xml:") and words in str(caught.value)


@pytest.mark.parametrize("text", ["\x00", "a\x1bb", "\ud800", "\uffff"])
def test_what_xml_cannot_carry_is_not_written(text: str) -> None:
    with pytest.raises(InvalidValue, match="XML can't carry"):
        xml.dump(xml.element("a", text))
    with pytest.raises(InvalidValue, match="XML can't carry"):
        xml.dump(xml.element("a", value=text))


def _carried(text: str) -> bool:
    return not any(ord(char) < 32 and char not in "\t\n\r" or ord(char) in (0xFFFE, 0xFFFF) for char in text)


TEXT = st.text(st.characters(exclude_categories=["Cs"])).filter(_carried)


@given(text=TEXT, value=TEXT)
def test_any_text_comes_back(text: str, value: str) -> None:
    root = xml.element("a")
    root.add("b", text, c=value)
    root.add("d")
    read = xml.parse(xml.dump(root), "x")
    assert (read.children[0].text, read.children[0].get("c")) == (text, value)
