"""DHCP and DNS of a network: one dnsmasq, and the leases that it writes.

dnsmasq turns itself into a daemon, and its parent ends with code 0 only when the daemon serves. Its identity
is the pid from its pid file with that process's start time; a pid alone is never sent a signal.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import HostError, InvalidValue, ProgramFailed, TemplateError
from qkvm.files import make_private_dir, read_bytes, write_atomic
from qkvm.units import check_text, parse_mac, printable

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.network import Network

_TEMPLATE = "dnsmasq.conf.j2"

_GRACE = 5.0
"""Seconds that dnsmasq gets to end; it takes a few milliseconds."""

_EXIT_NETWORK = 2
"""dnsmasq(8): a problem with network access, such as a port that is taken."""


class Lease(NamedTuple):
    """One address that dnsmasq has given away; ``expiry`` in seconds since 1970, 0: never. Empty: unknown."""

    expiry: int
    mac: str
    ip: str
    hostname: str = ""
    client_id: str = ""


class Server(NamedTuple):
    """A running dnsmasq: pid, and start time in clock ticks since boot."""

    pid: int
    started: int


def leases(path: str, now: float | None = None) -> list[Lease]:
    """The leases in dnsmasq's lease file that have not expired at ``now`` (default: the present).

    Host names and client ids are the guests' own words: what a terminal could act on is escaped. Lines that
    are no IPv4 lease are left out.
    """
    import time

    moment = time.time() if now is None else now
    found = (_lease(line) for line in (read_bytes(path) or b"").split(b"\n"))
    return [lease for lease in found if lease is not None and (lease.expiry == 0 or lease.expiry > moment)]


def _lease(line: bytes) -> Lease | None:
    """A line 'expiry mac ip hostname client-id'; None where it is none."""
    fields = [field.decode("utf-8", "backslashreplace") for field in line.split(b" ")]
    if len(fields) != 5 or not (fields[0].isascii() and fields[0].isdigit() and len(fields[0]) < 20):
        return None
    try:
        mac = parse_mac(fields[1])
    except InvalidValue:
        return None
    if not is_ipv4(fields[2]):
        return None
    hostname, client_id = ("" if field == "*" else printable(field) for field in fields[3:])
    return Lease(expiry=int(fields[0]), mac=mac, ip=fields[2], hostname=hostname, client_id=client_id)


def is_ipv4(text: str) -> bool:
    """Whether a text is an IPv4 address in its one usual form; cheaper than the ipaddress module."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        part.isascii() and part.isdigit() and len(part) <= 3 and int(part) < 256 and str(int(part)) == part
        for part in parts
    )


def config_path(tree: Tree, network: str) -> str:
    """The configuration of a network's dnsmasq."""
    return os.path.join(tree.network_run(network), "dnsmasq.conf")


def pid_path(tree: Tree, network: str) -> str:
    """The pid file of a network's dnsmasq."""
    return os.path.join(tree.network_run(network), "dnsmasq.pid")


def render(tree: Tree, definition: Network) -> str:
    """The configuration of a network's dnsmasq.

    :raises InvalidValue: a value holds a control character. :raises TemplateError: the template is not right.
    """
    import jinja2

    from qkvm.paths import packaged_templates

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([tree.templates, packaged_templates()]),
        undefined=jinja2.StrictUndefined, finalize=_finalize, trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    dhcp = definition.dhcp
    try:
        return environment.get_template(_TEMPLATE).render(
            bridge=definition.bridge,
            domain=definition.domain,
            isolated=definition.mode.value == "isolated",
            dhcp=dhcp,
            netmask=str(definition.subnet.netmask),
            lease_max=_addresses(dhcp.start, dhcp.end) if dhcp is not None else 0,
            lease_file=tree.leases(definition.name),
            pid_file=pid_path(tree, definition.name),
        )
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(error.name or _TEMPLATE, error.lineno, error.message or "syntax error") from error
    except jinja2.TemplateError as error:
        raise TemplateError(_TEMPLATE, 0, error.message or type(error).__name__) from error


def _finalize(value: object) -> object:
    """Let nothing into the configuration that could become another line, a comment or a quotation there."""
    if isinstance(value, str):
        check_text(value, "a value of the dnsmasq configuration")
        if set(value) & set('"\\#'):
            raise InvalidValue(f"'{printable(value)}' cannot be part of a dnsmasq configuration")
    return value


def _addresses(start: str, end: str) -> int:
    from ipaddress import IPv4Address

    return int(IPv4Address(end)) - int(IPv4Address(start)) + 1


def start(tree: Tree, definition: Network) -> Server:
    """Start a network's dnsmasq; it serves when this returns. The network's run folder must be there.

    :raises MissingProgram: dnsmasq is not installed. :raises ProgramFailed: it refused, in its own words.
    """
    from qkvm.host.process import find_program, run

    program = find_program("dnsmasq", "a network with DHCP or DNS", "dnsmasq-base")
    config, pid_file = config_path(tree, definition.name), pid_path(tree, definition.name)
    write_atomic(config, render(tree, definition))
    make_private_dir(os.path.dirname(tree.leases(definition.name)))
    try:
        run([program, f"--conf-file={config}"])
    except ProgramFailed as error:
        if error.code == _EXIT_NETWORK:
            error.hint = f"another DNS or DHCP server may hold the port on {definition.bridge}: ss -lnup"
        raise
    found = find(tree, definition.name)
    if found is None:
        raise HostError(f"dnsmasq of network '{definition.name}' ended at once", hint=f"its pid file: {pid_file}")
    return found


def find(tree: Tree, network: str) -> Server | None:
    """The dnsmasq that runs for a network, by its pid file; None where there is none.

    The process must have been started with this network's configuration: a pid file may outlive its process,
    and its pid may be another's by now.
    """
    from qkvm.host.process import start_time

    text = (read_bytes(pid_path(tree, network)) or b"").strip()
    if not text.isdigit() or len(text) > 10:
        return None
    pid = int(text)
    started = start_time(pid)
    if started is None or not _serves(pid, config_path(tree, network)) or start_time(pid) != started:
        return None
    return Server(pid=pid, started=started)


def _serves(pid: int, config: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return f"--conf-file={config}".encode() in stream.read().split(b"\0")
    except OSError:
        return False


def stop(server: Server) -> None:
    """End a dnsmasq; one that has ended already is no error. :raises HostError: it does not end."""
    from qkvm.host.process import end, open_pidfd

    pidfd = open_pidfd(server.pid, server.started)
    if pidfd is None:
        return
    try:
        if not end(pidfd, grace=_GRACE):
            raise HostError(f"dnsmasq (process {server.pid}) does not end")
    finally:
        os.close(pidfd)


def stop_stray(tree: Tree, network: str) -> None:
    """End every dnsmasq of a network of which no record tells: what a crash in the middle of a start left.

    Such a one may not have written its pid file yet, or be about to leave a child behind.
    """
    from qkvm.host.process import start_time

    config = config_path(tree, network)
    while True:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _serves(int(entry), config)]
        if not pids:
            return
        for pid in pids:
            started = start_time(pid)
            if started is not None and _serves(pid, config):
                stop(Server(pid=pid, started=started))
