"""A trial start: an empty machine, started as a domain is, to see that QEMU comes up on this host."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qkvm.domain.launch import arrival, listening
from qkvm.domain.run import Run
from qkvm.emulator import abilities
from qkvm.errors import HostError, ProgramFailed
from qkvm.host import journal, process, programs, settings
from qkvm.host.node import accel
from qkvm.qemu import launch, ports, quirks
from qkvm.qemu.launch import Resources
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

if TYPE_CHECKING:
    from qkvm.paths import Tree

_MEMORY = Size(64 * 1024)
_UUID = "00000000-0000-4000-8000-000000000001"


def start(tree: Tree) -> str:
    """Start a paused QEMU, see that it is up, end it, and return the accelerator. It leaves nothing behind.

    It gets the settings' program, the tree's templates, and user, sandbox, lock and journal as a domain's QEMU.

    :raises ProgramFailed: it did not come up; has its last output.
    :raises HostError: it runs as another user, or is not there.
    """
    config = settings.load(tree)
    binary = programs.emulator(config.qemu)
    chosen, _ = accel.choose("auto")
    # Ids begin at 1, so no domain has this user.
    user = settings.run_as(config.user, 0)
    definition = spec.validate(
        spec.Domain(
            name="trial", uuid=_UUID, memory=spec.Memory(current=_MEMORY, maximum=_MEMORY), balloon=None, rng=None,
            video=spec.Video.NONE, root_ports=0,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="qkvm-trial-") as folder, ExitStack() as opened:
        sockets = listening.unix(folder, ports.sockets(definition), opened)
        given = Resources(
            accel=chosen, user=user, quirks=quirks.needed(abilities.find(tree, binary)), sockets=sockets,
            nic_fds=(), images={}, pidfile=os.path.join(folder, "qemu.pid"),
            serial_log=os.path.join(folder, "serial.log"), folder=folder,
            vnc_port=0, vnc_websocket=0, vnc_secret="",
        )  # fmt: skip
        plan = launch.plan(definition, given)
        options = launch.command_line(definition, plan, own_templates=tree.templates)
        argv = [binary, *(word for option in options for word in option.argv())]
        _come_up(Run(folder, "trial", {}), argv, launch.start_script(definition, plan, paused=True), sockets, user)
    return chosen


def _come_up(
    run: Run, argv: list[str], script: list[tuple[str, dict[str, Any]]], sockets: dict[str, int], user: str
) -> None:
    log = Path(run.folder, "log")
    with tempfile.TemporaryFile() as told, open(run.journal, "ab") as events, open(log, "ab") as words:
        told.write(journal.script(script))
        told.seek(0)
        pid = process.spawn(
            argv, stdin=told.fileno(), stdout=events.fileno(), stderr=words.fileno(),
            pass_fds=list(sockets.values()),
        )  # fmt: skip
        try:

            def failure(message: str) -> ProgramFailed:
                text = log.read_text(encoding="utf-8", errors="replace").strip()
                code = 0 if message else process.exit_code(pid) or 0
                return ProgramFailed(message or process.last_line(text), argv=argv, code=code, stderr=text)

            arrival.await_up(run, pid, len(script), failure)
            uid = os.stat(f"/proc/{pid}").st_uid
            if user and uid != settings.user_ids(user)[0]:
                raise HostError(f"QEMU runs as user {uid}, but should have become {user}")
        finally:
            arrival.kill(pid)
            process.reap()
