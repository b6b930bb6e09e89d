"""What can go wrong, one class per reaction.

Callers branch on the class and its attributes, never on the text. The text says what was wrong and where; ``hint``
says what would be right. Only the command line prints and exits.

    QkvmError
    ├── InvalidValue        an argument that can never be right
    │   └── DefinitionError a definition file that can't be read (file, line, key)
    ├── NotFound            no such domain, network, device
    ├── AlreadyExists       the name, subnet or port is taken
    ├── InvalidState        right on another day: the domain is not running, the network is active
    ├── Busy                another qkvm holds the lock
    ├── NotReached          accepted but not observed within the deadline (asked, reached)
    ├── Aborted             a job ended because somebody asked it to
    ├── HostError           this machine lacks or refuses something
    │   ├── MissingProgram  a program that a feature needs is not installed
    │   └── ProgramFailed   a program ended with an error (argv, code, stderr)
    │       └── LaunchError QEMU itself refused to start (log)
    ├── TemplateError       a template that gives no valid command line (template, line)
    ├── MonitorError        the QMP monitor
    │   ├── MonitorTimeout  no answer within the deadline
    │   ├── MonitorGone     the connection ended: QEMU died or was never there
    │   └── CommandRefused  QEMU answered with an error (command, error_class, desc)
    └── AgentError          the agent in the guest
        ├── AgentMissing    the domain has no channel for one
        ├── AgentUnresponsive nobody answers there, or not in time, or nonsense
        └── AgentRefused    it answered with an error (command, error_class, desc)
"""

from __future__ import annotations


class Notice(str):
    """A warning that tells nothing about what was asked for, so that --quiet leaves it out."""

    __slots__ = ()


class QkvmError(Exception):
    """Base of all errors; ``str()`` is one line, ``hint`` (may be empty) says what would be right."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidValue(QkvmError):
    """An argument or a value in a definition can never be right."""


class DefinitionError(InvalidValue):
    """A definition file can't be read: ``path``, and the ``line`` (0: unknown) or key where known."""

    def __init__(self, path: str, message: str, *, line: int = 0, hint: str = "") -> None:
        where = f"{path}:{line}" if line else path
        super().__init__(f"{where}: {message}", hint=hint)
        self.path = path
        self.line = line


class NotFound(QkvmError):
    """A domain, network or device of that ``name`` does not exist."""

    def __init__(self, message: str, *, kind: str, name: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.name = name


class AlreadyExists(QkvmError):
    """The name, address or port is taken."""


class InvalidState(QkvmError):
    """The request does not fit the present state (virsh: "Requested operation is not valid")."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"Requested operation is not valid: {message}", hint=hint)


class Busy(QkvmError):
    """Another process holds the lock of this object."""


class NotReached(QkvmError):
    """The request was accepted, but its outcome was not observed within the deadline."""

    def __init__(self, message: str, *, asked: object, reached: object, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.asked = asked
        self.reached = reached


class Aborted(QkvmError):
    """A save or dump was canceled, by the user who waits for it or from elsewhere; the guest goes on."""


class HostError(QkvmError):
    """This machine lacks or refuses something that the request needs."""


class MissingProgram(HostError):
    """A program is not installed; ``program`` is its name."""

    def __init__(self, program: str, needed_for: str, package: str) -> None:
        super().__init__(
            f"{program} is not installed; {needed_for} needs it", hint=f"on Debian: apt install {package}"
        )
        self.program = program


class ProgramFailed(HostError):
    """A program ended with an error: ``argv``, exit ``code`` (negative: signal), ``stderr`` (its last lines)."""

    def __init__(self, message: str, *, argv: list[str], code: int, stderr: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.argv = argv
        self.code = code
        self.stderr = stderr


class LaunchError(ProgramFailed):
    """QEMU refused to start; ``log`` is the file that holds all its words."""

    def __init__(self, message: str, *, argv: list[str], code: int, stderr: str, log: str) -> None:
        super().__init__(message, argv=argv, code=code, stderr=stderr, hint=f"the whole log: {log}")
        self.log = log


class TemplateError(QkvmError):
    """A template does not give a valid command line; ``template`` and ``line`` (0: unknown) say where."""

    def __init__(self, template: str, line: int, message: str, *, hint: str = "") -> None:
        where = f"template {template}, line {line}" if line else f"template {template}"
        super().__init__(f"{where}: {message}", hint=hint)
        self.template = template
        self.line = line


class MonitorError(QkvmError):
    """Something about the QMP monitor."""


class MonitorTimeout(MonitorError):
    """QEMU gave no answer within the deadline."""


class MonitorGone(MonitorError):
    """The monitor's connection ended or could not be made."""


class CommandRefused(MonitorError):
    """QEMU answered ``command`` with an error of ``error_class`` and text ``desc``."""

    def __init__(self, command: str, error_class: str, desc: str) -> None:
        super().__init__(f"QEMU refused {command}: {desc}")
        self.command = command
        self.error_class = error_class
        self.desc = desc


class AgentError(QkvmError):
    """Something about the agent in the guest (qemu-guest-agent)."""


class AgentMissing(AgentError):
    """The domain was started without a channel for an agent."""

    def __init__(self) -> None:
        super().__init__(
            "argument unsupported: QEMU guest agent is not configured",
            hint="it needs a channel org.qemu.guest_agent.0 of kind socket or unix, which is there by default",
        )


class AgentUnresponsive(AgentError):
    """No agent answers in the guest, or not in time, or what it answers is none; ``name`` is the domain."""

    def __init__(self, what: str, *, name: str, hint: str = "") -> None:
        super().__init__(f"Guest agent is not responding: {what}", hint=hint)
        self.name = name


class GuestCommandError(QkvmError):
    """A command in the guest could not be run, did not end in time, or did not do what it was for."""


class NoWayIn(QkvmError):
    """No road leads into a guest; ``tried`` has a line for each, ``name`` is the domain."""

    def __init__(self, name: str, tried: list[str], seconds: float) -> None:
        super().__init__(f"no way into '{name}' within {seconds:g} s: {'; '.join(tried)}")
        self.name = name
        self.tried = tried


class AgentRefused(AgentError):
    """The agent answered ``command`` with an error of ``error_class`` and text ``desc``, the guest's own words."""

    def __init__(self, command: str, error_class: str, desc: str) -> None:
        # A frozen guest's agent refuses nearly all, and that of QEMU 10 does not say why.
        why = "its agent has no such command, was told to refuse it, or its file systems are frozen (domfsthaw)"
        super().__init__(
            f"unable to execute QEMU agent command '{command}': {desc}",
            hint=why if error_class == "CommandNotFound" else "",
        )
        self.command = command
        self.error_class = error_class
        self.desc = desc
