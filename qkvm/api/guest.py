"""A domain's guest agent, screen, console and monitor; `qkvm.Domain` provides these nouns."""

from __future__ import annotations

from qkvm.api.verb import Noun, lazily, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.access import byagent
    from qkvm.domain.guest import agent, clock, cpus, filesystems, info, power, users
    from qkvm.domain.screen import console, display, monitor
else:
    (byagent,) = lazily("qkvm.domain.access", "byagent")
    agent, clock, cpus, filesystems, info, power, users = lazily(
        "qkvm.domain.guest", "agent", "clock", "cpus", "filesystems", "info", "power", "users"
    )
    console, display, monitor = lazily("qkvm.domain.screen", "console", "display", "monitor")


class Guest(Noun):
    """The guest, by means of its agent (virsh guestinfo)."""

    __slots__ = ()
    session = verb(lambda: agent.session)
    is_there = verb(lambda: agent.is_there)
    command = verb(lambda: agent.command)
    exec = verb(lambda: byagent.execute)
    set_timeout = verb(lambda: agent.set_timeout)
    info = verb(lambda: info.collect)
    hostname = verb(lambda: info.hostname)
    interfaces = verb(lambda: info.interfaces)
    time = verb(lambda: clock.get)
    set_time = verb(lambda: clock.set_time)
    vcpus = verb(lambda: cpus.vcpus)
    set_vcpus_online = verb(lambda: cpus.set_online)
    set_vcpu_count = verb(lambda: cpus.set_count)
    filesystems = verb(lambda: filesystems.filesystems)
    freeze = verb(lambda: filesystems.freeze)
    thaw = verb(lambda: filesystems.thaw)
    trim = verb(lambda: filesystems.trim)
    suspend = verb(lambda: power.suspend)
    wakeup = verb(lambda: power.wakeup)
    set_password = verb(lambda: users.set_password)
    ssh_keys = verb(lambda: users.ssh_keys)
    add_ssh_keys = verb(lambda: users.add_ssh_keys)
    remove_ssh_keys = verb(lambda: users.remove_ssh_keys)


class Screen(Noun):
    """A domain's screen and keyboard (virsh screenshot, send-key)."""

    __slots__ = ()
    display = verb(lambda: display.display)
    screenshot = verb(lambda: display.screenshot)
    send_keys = verb(lambda: display.send_keys)
    inject_nmi = verb(lambda: display.inject_nmi)


class Console(Noun):
    """A domain's serial console (virsh console)."""

    __slots__ = ()
    port = verb(lambda: console.find)
    place = verb(lambda: console.place)
    attach = verb(lambda: console.attach)


class Monitor(Noun):
    """QEMU's monitor (virsh qemu-monitor-command)."""

    __slots__ = ()
    command = verb(lambda: monitor.command)
    line = verb(lambda: monitor.line)
