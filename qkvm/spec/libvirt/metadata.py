"""<metadata>: others' XML, kept as text by its namespace; and what libvirt has no words for.

The latter is one element in qkvm's own namespace, which libvirt keeps. It is written only where something would be
lost without it.
"""

from __future__ import annotations

from qkvm import xml
from qkvm.errors import DefinitionError
from qkvm.spec.check import Described
from qkvm.spec.libvirt.node import Node, Source
from qkvm.units import printable
from qkvm.xml import Element

OWN = "https://qkvm.org/xmlns/domain/1"
"""Namespace for what libvirt has no words for."""

Extras = dict[str, str]
"""Attributes of the element of qkvm's own."""


def read_metadata(node: Node | None, root: Element) -> tuple[dict[str, str], Extras]:
    """Return the text of each namespace's element, complete in itself; and qkvm's own."""
    texts: dict[str, str] = {}
    extras: Extras = {}
    if node is None:
        return texts, extras
    with node:
        scope = {**xml.declared(root), **xml.declared(node.element)}
        node.drop(*(name for name in node.element.attributes if xml.is_declaration(name)))
        for child in node.every():
            uri = xml.namespace(child.element, scope)
            if not uri:
                raise child.malformed("in <metadata> each element has a namespace")
            if uri in texts or (uri == OWN and extras):
                raise child.malformed(f"namespace {printable(uri)} is there twice")
            if uri == OWN:
                extras = {
                    name: value for name, value in child.element.attributes.items() if not xml.is_declaration(name)
                }
            else:
                texts[uri] = text_of(child.element, scope)
    return texts, extras


def text_of(element: Element, scope: dict[str, str]) -> str:
    """Return the element as a document of its own: prefixes that it uses are declared in it.

    :param scope: prefix -> namespace, as declared around it.
    """
    missing = {prefix: scope[prefix] for prefix in sorted(_used(element, frozenset())) if prefix in scope}
    whole = Element(element.tag, dict(element.attributes), element.text)
    for prefix, uri in missing.items():
        whole.attributes[f"xmlns:{prefix}" if prefix else "xmlns"] = uri
    whole.children = element.children
    return xml.dump(whole).rstrip("\n")


def write_identity(parent: Element, noun: Described, extras: Extras | None = None) -> None:
    """<name> and <uuid>; <title>, <description> and <metadata>, where there are some."""
    parent.add("name", noun.name)
    parent.add("uuid", noun.uuid)
    for tag in ("title", "description"):
        if getattr(noun, tag):
            parent.add(tag, getattr(noun, tag))
    if not noun.metadata and not extras:
        return
    element = parent.add("metadata")
    element.children += [xml.parse(text, f"metadata of {uri}") for uri, text in noun.metadata.items()]
    if extras:
        element.add("qkvm:domain", **{"xmlns:qkvm": OWN}, **extras)


def with_namespace(text: str, prefix: str, uri: str, path: str) -> str:
    """Return an element given without namespace, put into one under a prefix (virsh metadata --set).

    :raises DefinitionError: it is not well-formed, or has prefixes of its own.
    """
    element = xml.parse(text, path)
    if not prefix.isascii() or not prefix.replace("-", "a").replace("_", "a").isalnum() or prefix[0].isdigit():
        raise DefinitionError(path, f"key '{printable(prefix)}' is no prefix of XML", hint="letters and digits")
    _prefix(element, prefix)
    element.attributes = {f"xmlns:{prefix}": uri, **element.attributes}
    return xml.dump(element).rstrip("\n")


def _prefix(element: Element, prefix: str) -> None:
    element.tag = f"{prefix}:{element.tag.rpartition(':')[2]}"
    for child in element:
        _prefix(child, prefix)


def without_namespace(text: str) -> Element:
    """Return the element as virsh metadata shows it: its own namespace's prefix taken away."""
    element = xml.parse(text, "metadata")
    prefix = element.tag.rpartition(":")[0]
    _strip(element, prefix)
    return element


def _strip(element: Element, prefix: str) -> None:
    if element.tag.rpartition(":")[0] == prefix:
        element.tag = element.tag.rpartition(":")[2]
        element.attributes.pop(f"xmlns:{prefix}" if prefix else "xmlns", None)
    for child in element:
        _strip(child, prefix)


# Namespaces.


def _used(element: Element, known: frozenset[str]) -> set[str]:
    """Return the prefixes that an element and its descendants use without declaring them."""
    known = known | xml.declared(element).keys()
    names = [element.tag, *(name for name in element.attributes if ":" in name and not xml.is_declaration(name))]
    used = {name.rpartition(":")[0] for name in names} - known - {"xml"}
    return used.union(*(_used(child, known) for child in element))


def read_extras(extras: Extras, source: Source, line: int) -> Extras:
    """Return the known ones; others are of a newer qkvm and not supported."""
    node = Node(Element("qkvm:domain", dict(extras), line=line), source)
    with node:
        return {name: node.take(name) for name in KNOWN if node.has(name)}


KNOWN = ("root_ports", "cpu", "on_crash", "pty", "auto", "slirp")
"""What qkvm's own element can say: spare root ports, CPU flags, on_crash, serial ports that are host terminals,
tags of shared folders whose driver qkvm chooses, MAC addresses of NICs that QEMU's own stack serves."""
