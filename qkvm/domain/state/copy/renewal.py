"""Give a clone that runs on from its template's state a name and ids of its own, by the agent in the guest.

That is done before the clone has a NIC, so nobody sees the template's. The kernel's random numbers are seeded
anew: where the guest knows vmgenid it does so by itself, but not all kernels are built with that.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from qkvm import units
from qkvm.domain.guest import agent as agents
from qkvm.domain.guest import script
from qkvm.errors import AgentError, GuestCommandError

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

_RESEED = (
    # open("/dev/urandom", O_WRONLY), ioctl(RNDRESEEDCRNG), exit(errno): 64-bit x86 Linux.
    b"\xb8\x02\0\0\0\xbf\xa8\x00\x40\0\xbe\x01\0\0\0\x0f\x05"
    b"\x89\xc7\xb8\x10\0\0\0\xbe\x07\x52\0\0\x31\xd2\x0f\x05"
    b"\x89\xc7\xf7\xdf\xb8\x3c\0\0\0\x0f\x05"
)

_SCRIPT = r"""
exec 2>/dev/null
host=$1 id=$2
cat >/dev/urandom
perl -e 'open(F, ">", "/dev/urandom") && ioctl(F, 0x5207, 0) or exit 1' ||
python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207)' || {
    program=$(mktemp -p /dev/shm || mktemp || mktemp -p /run)
    printf '%b' "$3" >"$program" && chmod 700 "$program" && "$program" && done=yes
    rm -f "$program"
    [ "$done" ]
} && echo seeded
echo "$host" >/proc/sys/kernel/hostname
[ ! -e /etc/hostname ] || echo "$host" >/etc/hostname
if [ -s /etc/machine-id ]; then
    echo "$id" >/etc/machine-id
    [ -L /var/lib/dbus/machine-id ] || [ ! -e /var/lib/dbus/machine-id ] || echo "$id" >/var/lib/dbus/machine-id
    systemctl --quiet is-active systemd-networkd && systemctl restart systemd-networkd
fi
if ls /etc/ssh/ssh_host_*_key >/dev/null; then
    rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
    ssh-keygen -q -A && systemctl try-restart ssh sshd
fi
cat /proc/sys/kernel/hostname
"""

PATIENCE = 120.0
"""Seconds for all of it; ssh host keys take long where QEMU emulates the CPU."""

_OPENS = 2.0
"""Seconds in which the agent's port is open, if it was in the template."""

_POLL = 0.005


def renew(domain: Handle, *, had_agent: bool) -> list[str]:
    """Give the running guest the domain's name, ids of its own and fresh random numbers; return warnings.

    :param had_agent: whether an agent ran in the template.
    """
    without = f"the guest of '{domain.name}' still has the host name, machine id and keys of its template: "
    if not had_agent:
        return [f"{without}it has no agent"]
    deadline = time.monotonic() + _OPENS
    while not agents.is_there(domain) and time.monotonic() < deadline:
        time.sleep(_POLL)
    host = units.host_name(domain.name)
    try:
        with agents.session(domain) as agent:
            words = (host, os.urandom(16).hex(), _escaped(_program()))
            said = script.run(agent, _SCRIPT, words, input=os.urandom(64), timeout=PATIENCE)[1]
    except (AgentError, GuestCommandError) as error:
        return [f"{without}{error}"]
    lines = said.split()
    told = [] if "seeded" in lines else [f"the guest of '{domain.name}' could not seed its random numbers anew"]
    if lines[-1:] != [host]:
        told.append(f"{without}it kept {units.printable(lines[-1][:100]) if lines else 'silent'}")
    return told


def _program() -> bytes:
    """Return a program that has the guest's kernel seed its random numbers: a whole ELF file of some 180 bytes."""
    start, begin = 0x400000, 0x78
    path = b"/dev/urandom\0"
    place = begin + len(_RESEED)
    code = _RESEED.replace(b"\xa8\x00\x40\0", (start + place).to_bytes(4, "little"))
    size = place + len(path)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    fields = [(2, 2), (62, 2), (1, 4), (start + begin, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (1, 2)]
    fields += [(0, 2), (0, 2), (0, 2)]
    fields += [(1, 4), (5, 4), (0, 8), (start, 8), (start, 8), (size, 8), (size, 8), (0x1000, 8)]
    return head + b"".join(value.to_bytes(width, "little") for value, width in fields) + code + path


def _escaped(raw: bytes) -> str:
    """Return bytes as printf's %b takes them."""
    return "".join(f"\\0{byte:03o}" for byte in raw)
