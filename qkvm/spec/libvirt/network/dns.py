"""<dns> of a network: read into the definition of dnsmasq's answers, and written from it."""

from __future__ import annotations

from qkvm.spec.dns import Dns, DnsForwarder, DnsHost, DnsSrv, DnsTxt
from qkvm.spec.libvirt.node import Node
from qkvm.xml import Element


def read_dns(node: Node | None) -> Dns:
    """Read <dns>; return the defaults if there is none."""
    if node is None:
        return Dns()
    with node:
        return Dns(
            enable=node.switch("enable", True),
            forward_plain=node.switch("forwardPlainNames", True),
            forwarders=tuple(_forwarder(one) for one in node.children("forwarder")),
            hosts=tuple(read_dns_host(one) for one in node.children("host")),
            txt=tuple(read_txt(one) for one in node.children("txt")),
            srv=tuple(read_srv(one) for one in node.children("srv")),
        )


def _forwarder(node: Node) -> DnsForwarder:
    with node:
        return DnsForwarder(address=node.take("addr"), domain=node.take("domain"))


def read_dns_host(node: Node) -> DnsHost:
    """Read <host ip=…><hostname>…</hostname></host>."""
    with node:
        names = []
        for one in node.children("hostname"):
            with one:
                names.append(one.text().strip())
        return DnsHost(ip=node.take("ip"), names=tuple(names))


def read_txt(node: Node, *, partial: bool = False) -> DnsTxt:
    """Read <txt name=… value=…/>. :param partial: the name alone is enough to identify a record."""
    with node:
        value = node.take("value") if partial else node.required("value")
        return DnsTxt(name=node.required("name"), value=value)


def read_srv(node: Node, *, partial: bool = False) -> DnsSrv:
    """Read <srv service=… protocol=… …/>. :param partial: any attributes are enough."""
    with node:
        service, protocol = (
            node.take(name) if partial else node.required(name) for name in ("service", "protocol")
        )
        return DnsSrv(
            service=service, protocol=protocol, domain=node.take("domain"), target=node.take("target"),
            port=node.number("port"), priority=node.number("priority"), weight=node.number("weight"),
        )  # fmt: skip


def write_dns(root: Element, dns: Dns) -> None:
    """Add a <dns> if it says more than the defaults."""
    if dns == Dns():
        return
    element = root.add(
        "dns", enable=None if dns.enable else "no", forwardPlainNames=None if dns.forward_plain else "no"
    )
    for forwarder in dns.forwarders:
        element.add("forwarder", domain=forwarder.domain or None, addr=forwarder.address or None)
    for txt in dns.txt:
        element.add("txt", name=txt.name, value=txt.value)
    for srv in dns.srv:
        element.add(
            "srv", service=srv.service, protocol=srv.protocol, domain=srv.domain or None,
            target=srv.target or None, port=srv.port or None, priority=srv.priority or None,
            weight=srv.weight or None,
        )  # fmt: skip
    for host in dns.hosts:
        one = element.add("host", ip=host.ip)
        for name in host.names:
            one.add("hostname", name)
