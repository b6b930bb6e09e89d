"""DHCP and DNS of a network: one dnsmasq.

dnsmasq makes itself a daemon, and its parent exits with 0 only when the daemon serves. It is identified by the pid
in its pid file and that process's start time; a pid alone never gets a signal.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import HostError, InvalidValue, ProgramFailed, TemplateError
from qkvm.files import make_private_dir, read_bytes, remove, write_atomic
from qkvm.host import record
from qkvm.net import run
from qkvm.units import check_text, printable

if TYPE_CHECKING:
    from typing import Any

    from qkvm.paths import Tree
    from qkvm.spec.dhcp import DhcpHost
    from qkvm.spec.network import Network

_TEMPLATE = "dnsmasq.conf.j2"

_MOST_LEASES = 65536

_GRACE = 5.0
"""Seconds that dnsmasq has to end; it takes a few milliseconds."""

_EXIT_NETWORK = 2
"""dnsmasq(8): a problem with network access, such as a port in use."""


class Server(NamedTuple):
    """A running dnsmasq: its pid, and its start time in clock ticks since boot."""

    pid: int
    started: int


def config_path(tree: Tree, network: str) -> str:
    """Return the path of the configuration of a network's dnsmasq."""
    return os.path.join(tree.network_run(network), "dnsmasq.conf")


def pid_path(tree: Tree, network: str) -> str:
    """Return the path of the pid file of a network's dnsmasq."""
    return os.path.join(tree.network_run(network), "dnsmasq.pid")


def render(tree: Tree, definition: Network) -> str:
    """Return the configuration of a network's dnsmasq.

    :raises InvalidValue: a value holds a control character. :raises TemplateError: the template is wrong.
    """
    import jinja2

    from qkvm.net.dhcp import reservations
    from qkvm.paths import packaged_templates

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([tree.templates, packaged_templates()]),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    kept = reservations.kept(tree, definition)
    own, own6 = definition.interface, definition.interface6
    ranges = [found for found in (definition.dhcp, definition.ipv6 and definition.ipv6.dhcp) if found]
    try:
        return environment.get_template(_TEMPLATE).render(
            net=definition,
            isolated=definition.mode.value == "isolated",
            asks_only_given=any(not one.domain for one in definition.dns.forwarders),
            serves_dhcp=bool(ranges or definition.hosts or definition.ipv6),
            netmask=str(own.netmask) if own is not None else "",
            subnet=str(own.network.network_address) if own is not None else "",
            subnet6=str(own6.network.network_address) if own6 is not None else "",
            lease_max=sum(_addresses(one.start, one.end) for one in ranges) + len(definition.hosts) + len(kept),
            hosts=[_host_line(host) for host in definition.hosts],
            lease_file=tree.leases(definition.name),
            pid_file=pid_path(tree, definition.name),
            script=script_path(tree, definition.name) if follows(definition) else "",
            kept=kept,
        )
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(error.name or _TEMPLATE, error.lineno, error.message or "syntax error") from error
    except jinja2.TemplateError as error:
        raise TemplateError(_TEMPLATE, 0, error.message or type(error).__name__) from error


def _finalize(value: object) -> object:
    """Refuse a value that could become another line, a comment or a quotation in the configuration."""
    if isinstance(value, str):
        check_text(value, "a value of the dnsmasq configuration")
        if set(value) & set('"\\#'):
            raise InvalidValue(f"'{printable(value)}' cannot be part of a dnsmasq configuration")
    return value


def _host_line(host: DhcpHost) -> str:
    """Return a host as dnsmasq's dhcp-host has it: who it is, its address, its name."""
    who = [host.mac] if host.mac else [f"id:{host.id}"] if host.id else []
    address = [f"[{host.ip}]" if ":" in host.ip else host.ip] if host.ip else []
    return ",".join([*who, *address, *([host.name] if host.name else [])])


def _addresses(start: str, end: str) -> int:
    """Return how many leases a range can have; for IPv6 as many as a host could bear."""
    from ipaddress import ip_address

    return min(int(ip_address(end)) - int(ip_address(start)) + 1, _MOST_LEASES)


def script_path(tree: Tree, network: str) -> str:
    """Return the path of the script that dnsmasq runs when a lease changes."""
    return os.path.join(tree.network_run(network), "lease-changed")


def follows(definition: Network) -> bool:
    """Whether dnsmasq is to report changed leases: forwards lead to guests by name."""
    return any(not forward.address for forward in definition.forwards)


def _write_script(tree: Tree, network: str) -> None:
    """Write the script that brings forwards to their guests' present addresses.

    dnsmasq runs it as root, with words of the guests as arguments, which it ignores.
    """
    from shlex import quote

    from qkvm.paths import package

    beside = os.path.dirname(package())
    command = [sys.executable, "-m", "qkvm", "--root", tree.root, "net-forward", network, "refresh"]
    text = (
        "#!/bin/sh\n# dnsmasq runs this when a lease changes.\n"
        f"PYTHONPATH={quote(beside)} exec {' '.join(map(quote, command))} </dev/null >/dev/null 2>&1\n"
    )
    path = script_path(tree, network)
    write_atomic(path, text)
    os.chmod(path, 0o700)


def differs(tree: Tree, definition: Network) -> bool:
    """Whether a network's dnsmasq runs with another configuration than it would get now."""
    return read_bytes(config_path(tree, definition.name)) != render(tree, definition).encode()


def check(tree: Tree, definition: Network) -> None:
    """Have dnsmasq check a network's configuration. :raises ProgramFailed: it refuses, with its own words."""
    from qkvm.host import process

    program = process.find_program("dnsmasq", "a network with DHCP or DNS", "dnsmasq-base")
    path = config_path(tree, definition.name) + ".tried"
    try:
        write_atomic(path, render(tree, definition))
        process.run([program, "--test", f"--conf-file={path}"])
    finally:
        remove(path)


def start(tree: Tree, definition: Network) -> Server:
    """Start a network's dnsmasq in the run folder, which must exist; it serves when this returns.

    :raises MissingProgram: dnsmasq is not installed. :raises ProgramFailed: it refused, with its own words.
    """
    from qkvm.host import process
    from qkvm.host.systemd import unit

    program = process.find_program("dnsmasq", "a network with DHCP or DNS", "dnsmasq-base")
    config, pid_file = config_path(tree, definition.name), pid_path(tree, definition.name)
    write_atomic(config, render(tree, definition))
    if follows(definition):
        _write_script(tree, definition.name)
    else:
        remove(script_path(tree, definition.name))
    make_private_dir(os.path.dirname(tree.leases(definition.name)))
    try:
        with unit.housed(f"{tree.label}-network", definition.name, f"qkvm network {definition.name}") as words:
            process.run([*words, program, f"--conf-file={config}"])
    except ProgramFailed as error:
        if error.code == _EXIT_NETWORK:
            error.hint = f"another DNS or DHCP server may hold the port on {definition.bridge}: ss -lnup"
        raise
    found = find(tree, definition.name)
    if found is None:
        raise HostError(f"dnsmasq of network '{definition.name}' ended at once", hint=f"its pid file: {pid_file}")
    return found


def find(tree: Tree, network: str) -> Server | None:
    """Return the dnsmasq that runs for a network, by its pid file; None where there is none.

    A pid file may outlive its process and its pid may be reused, so the process's configuration is checked.
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
    """End a dnsmasq that may have ended already. :raises HostError: it does not end."""
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
    """End each dnsmasq of a network that no record names: a start that crashed left it.

    It may not have written its pid file yet, or may be about to leave a child.
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


def serve(tree: Tree, definition: Network, current: dict[str, Any]) -> None:
    """Start a network's dnsmasq where it has an address to serve on, and record it."""
    if definition.interfaces:
        server = start(tree, definition)
        current["dnsmasq"] = server._asdict()
        record.write(run.record_path(tree, definition.name), current)


def stop_recorded(tree: Tree, current: dict[str, Any]) -> None:
    """End a network's dnsmasq: that of its record, or what a crash left of it."""
    if current["dnsmasq"]:
        stop(Server(**current["dnsmasq"]))
    if not current["dnsmasq"] or os.path.exists(script_path(tree, current["name"])):
        # One with a script for leases has a second process that runs it.
        stop_stray(tree, current["name"])
    current["dnsmasq"] = None
