"""Root's helper that gives a tap to a user who is granted a network: one request, one answer, then it exits.

    python -I .../qkvm/net/grant/helper.py accepted|sudo ROOT

It is the only part of qkvm that runs as root for another user. Its standard input is a connection. ``accepted``:
an init (systemd's Accept=yes) accepted it at a socket of root's, and the kernel names the peer (SO_PEERCRED).
``sudo``: it is one end of a pair, and sudo names the user (SUDO_UID). The user chooses what sudo passes on, such
as a connection to a service of root's whose peer is root; so the kernel's word is not enough there. Root wrote
ROOT when the helper was set up. The user sends one line: the network's name and the NIC's MAC address.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.net.grant.handout import Handed

LINE_MAX = 1024
"""Bytes of a request or an answer."""

_NOT_YOURS = "qkvm-tap: only qkvm itself can use this"

_PATIENCE = 3.0
"""Seconds in which the user must ask, and take the answer."""


def main(argv: list[str]) -> int:
    """Answer the request on standard input; return 0 where a tap was given."""
    mode, root = argv
    sudo_uid = os.environ.get("SUDO_UID", "")
    _clean()
    with _standard_input() as peer:
        peer.settimeout(_PATIENCE)
        uid = _peer_uid(peer)
        if mode != "accepted":
            _check_pair(peer, uid, int(sudo_uid))
        try:
            handed = _serve(root, uid, _request(peer))
        except Exception as error:
            _log(mode, f"uid {uid}: {type(error).__name__}: {error}")
            peer.sendall(_answer(**_words(error)))
            return 1
        try:
            answer = _answer(port=handed.port, bridge=handed.bridge, ip=handed.ip)
            socket.send_fds(peer, [answer], [handed.fd])
        finally:
            os.close(handed.fd)
        _log(mode, f"uid {uid}: {handed.port} on {handed.bridge}, {handed.ip}")
    return 0


def _clean() -> None:
    """Drop what the user's shell has set: variables, limits, signals, folder, umask.

    A terminal's keys must not stop it while it holds a lock.
    """
    os.environ.clear()
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.chdir("/")
    os.umask(0o077)
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    for inherited in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(inherited, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if os.getpid() != os.getpgrp():
        os.setsid()


def _standard_input() -> socket.socket:
    try:
        return socket.socket(fileno=os.dup(0))
    except OSError:
        raise SystemExit(_NOT_YOURS) from None


def _peer_uid(peer: socket.socket) -> int:
    """Return the uid of the peer when it connected (unix(7))."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _check_pair(peer: socket.socket, uid: int, sudo_uid: int) -> None:
    """Exit unless standard input is one end of a pair that sudo's user has made."""
    unnamed = peer.family == socket.AF_UNIX and not peer.getsockname() and not peer.getpeername()
    if not unnamed or peer.type != socket.SOCK_STREAM or uid != sudo_uid:
        raise SystemExit(_NOT_YOURS)


def _log(mode: str, text: str) -> None:
    """Write to the host's log, which users can't read."""
    from qkvm.units import printable

    if mode == "accepted":
        print(printable(text), file=sys.stderr)
        return
    import syslog

    syslog.openlog("qkvm-tap", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(printable(text))


def _request(peer: socket.socket) -> tuple[str, str]:
    """Read network and MAC address. :raises InvalidValue: it is no request."""
    from qkvm.errors import InvalidValue

    raw = b""
    while not raw.endswith(b"\n"):
        more = peer.recv(LINE_MAX)
        raw += more
        if not more or len(raw) > LINE_MAX:
            raise InvalidValue("this is no request for a tap")
    try:
        plain = json.loads(raw)
        network, mac = plain["network"], plain["mac"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidValue("this is no request for a tap") from error
    if not isinstance(network, str) or not isinstance(mac, str):
        raise InvalidValue("this is no request for a tap")
    return network, mac


def _serve(root: str, uid: int, request: tuple[str, str]) -> Handed:
    from qkvm.net.grant import handout
    from qkvm.paths import Tree
    from qkvm.units import check_name

    network, mac = request
    tree = Tree(root)
    # First, so that a user without a grant takes no lock and learns of no network.
    handout.require(tree, check_name(network, "network"), uid)
    return handout.give(tree, network, uid, mac)


def _words(error: Exception) -> dict[str, str]:
    from qkvm.errors import QkvmError

    if isinstance(error, QkvmError):
        return {"error": str(error)[:400], "hint": error.hint[:400], "kind": type(error).__name__}
    return {"error": "root's helper has failed; its words are in the host's log", "hint": "", "kind": ""}


def _answer(**plain: str) -> bytes:
    return json.dumps(plain).encode() + b"\n"


if __name__ == "__main__":
    # The folder of this package: Debian's package has it outside of Python's own path.
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "../../..")))
    sys.exit(main(sys.argv[1:]))
