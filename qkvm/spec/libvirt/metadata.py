"""<metadata>: XML of other programs, kept as text by namespace, and settings that libvirt's XML can't express.

These settings are one element in qkvm's own namespace, which libvirt keeps. It is written only if a setting would
be lost without it.
"""

from __future__ import annotations

from qkvm import xml
from qkvm.errors import DefinitionError
from qkvm.spec.check import Described
from qkvm.spec.libvirt.node import Node, Source
from qkvm.units import printable
from qkvm.xml import Element

OWN = "https://qkvm.org/xmlns/domain/1"
"""Namespace of the settings that libvirt's XML can't express."""

Extras = dict[str, str]
"""Attributes of qkvm's own element."""


def read_metadata(node: Node | None, root: Element) -> tuple[dict[str, str], Extras]:
    """Return the text of each namespace's element as a document of its own, and qkvm's own settings."""
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
    """Return the element as a document of its own that declares all prefixes it uses.

    :param scope: prefix -> namespace, as the enclosing elements declare them.
    """
    missing = {prefix: scope[prefix] for prefix in sorted(_used(element, frozenset())) if prefix in scope}
    whole = Element(element.tag, dict(element.attributes), element.text)
    for prefix, uri in missing.items():
        whole.attributes[f"xmlns:{prefix}" if prefix else "xmlns"] = uri
    whole.children = element.children
    return xml.dump(whole).rstrip("\n")


def write_identity(parent: Element, noun: Described, extras: Extras | None = None, *, genid: str = "") -> None:
    """Write <name>, <uuid>, <genid>, and <title>, <description> and <metadata> if they are set."""
    parent.add("name", noun.name)
    parent.add("uuid", noun.uuid)
    if genid:
        parent.add("genid", genid)
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
    """Return an element without namespace, moved into the given one under a prefix (virsh metadata --set).

    :raises DefinitionError: the text is not well-formed, or has prefixes of its own.
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
    """Return the element without the prefix of its own namespace, as virsh metadata shows it."""
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
    """Return the known attributes; refuse others, which a newer qkvm may have written."""
    node = Node(Element("qkvm:domain", dict(extras), line=line), source)
    with node:
        return {name: node.take(name) for name in KNOWN if node.has(name)}


KNOWN = ("root_ports", "cpu", "on_crash", "genid", "pty", "auto", "slirp")
"""Attributes of qkvm's own element: spare root ports, CPU flags, on_crash, no generation id, serial ports that
are host terminals, tags of shared folders whose driver qkvm chooses, MAC addresses of NICs that QEMU's own stack
serves."""
