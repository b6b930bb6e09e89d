"""Fetch a file by https or http into a file that a later call goes on with.

Python's own client is used rather than curl: it is there wherever qkvm is, the file stays an fd of ours, and to
refuse what must be refused (file:, https to http) does not depend on a program's options.
"""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from qkvm.errors import HostError, InvalidValue
from qkvm.files import os_error, read_bytes, remove, write_atomic
from qkvm.units import pretty_size, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

    Report = Callable[[int, int], object]
    """Called with the bytes that are there, and those in all; 0 where that is not known."""

_SILENCE = 60.0
"""Seconds in which a server must send something."""

_CHUNK = 1 << 18
_DIGITS = 19
"""Digits that no file's length has."""

_TEXT_MAX = 1 << 20
"""Bytes of a list of checksums or a signature."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https only."""

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message
    ) -> Any:
        """Refuse what Python would call an HTTP error, or follow: another scheme, http."""
        target = headers.get("location") or ""
        scheme = urlsplit(target).scheme or urlsplit(req.full_url).scheme
        if scheme != "https":
            raise HostError(
                f"{printable(req.full_url)} redirects to {printable(target)}",
                hint="only redirects to https: are followed",
            )
        return super().http_error_302(req, fp, code, msg, headers)  # type: ignore[arg-type]

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Kept(NamedTuple):
    """What is known of a file that is there in part: where it comes from, and what names its version."""

    url: str
    version: str


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path."""
    return "://" in text


def check_url(url: str) -> str:
    """Return a URL that can be fetched. :raises InvalidValue: another scheme, a password, no host."""
    shown = printable(url)
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port >= 0
    except ValueError:
        raise InvalidValue(f"'{shown}' is no URL") from None
    if parts.scheme not in ("https", "http"):
        raise InvalidValue(f"'{shown}' can't be fetched", hint="https://…, or the path of a file")
    if not parts.hostname or not port_is_number or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidValue(f"'{shown}' is no URL", hint="https://HOST/PATH, other characters as %XX")
    if parts.username or parts.password:
        raise InvalidValue("a URL with a user or password is not fetched", hint="download it by curl --netrc")
    return url


def text(url: str) -> bytes:
    """Return a short file. :raises HostError: it can't be fetched, or is longer than 1 MiB."""
    with _opened(check_url(url), {}) as answer:
        raw = _read(answer, url, _TEXT_MAX + 1)
    if len(raw) > _TEXT_MAX:
        raise HostError(f"{printable(url)} is longer than {_TEXT_MAX} bytes")
    return raw


def fetch(url: str, path: str, *, limit: int, report: Report) -> None:
    """Fetch a file to ``path``, or go on where an earlier call for the same URL has stopped.

    What is there in part stays after an error. The server must name a version of the file (ETag, Last-Modified)
    for that, so that no two versions are mixed.

    :param limit: bytes that it may have. :raises HostError: the server's answer, its silence, or no room.
    """
    note = f"{path}.json"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        kept, have = _known(note), os.fstat(fd).st_size
        asked = {}
        if have and kept.url == url and kept.version:
            asked = {"Range": f"bytes={have}-", "If-Range": kept.version}
        else:
            have = 0
        with _opened(url, asked, whole=have) as answer:
            if answer is None:
                report(have, have)
                return
            begin, total = _extent(answer, have, url)
            _check_size(total or begin, limit, url)
            os.ftruncate(fd, begin)
            _check_room(fd, total - begin)
            write_atomic(note, json.dumps(_Kept(url, _version(answer))._asdict()))
            _take(answer, fd, begin, total, url, limit, report)
        os.fsync(fd)
    except OSError as error:
        raise os_error(error, f"cannot write {path}") from error
    finally:
        if not os.fstat(fd).st_size:
            forget(path)
        os.close(fd)


def forget(path: str) -> None:
    """Remove a file that was fetched, in part or whole."""
    remove(path)
    remove(f"{path}.json")


def _known(note: str) -> _Kept:
    try:
        return _Kept(**json.loads(read_bytes(note) or b"{}"))
    except (ValueError, TypeError):
        return _Kept("", "")


def _version(answer: Any) -> str:
    """Return what If-Range takes for this version: a strong ETag, else the date of the last change."""
    tag = str(answer.headers.get("ETag") or "")
    return tag if tag.startswith('"') else str(answer.headers.get("Last-Modified") or "")


class _opened:
    """An answer of a server for a block; None where ``whole`` bytes are all that the file has."""

    def __init__(self, url: str, headers: dict[str, str], *, whole: int = 0) -> None:
        self._url = url
        self._whole = whole
        self._request = urllib.request.Request(url, headers={"User-Agent": "qkvm", **headers})
        self._answer: Any = None

    def __enter__(self) -> Any:
        opener = urllib.request.OpenerDirector()
        # Not build_opener's: it would take file:, ftp: and data: too.
        for handler in (
            urllib.request.ProxyHandler(), urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()), _Redirects(),
            urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
        ):  # fmt: skip
            opener.add_handler(handler)
        try:
            self._answer = opener.open(self._request, timeout=_SILENCE)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{self._whole}":
                    return None
            raise HostError(f"{printable(self._url)}: the server answers {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            raise _unreachable(self._url, error) from error
        return self._answer

    def __exit__(self, *_: object) -> None:
        if self._answer is not None:
            self._answer.close()


def _unreachable(url: str, error: Exception) -> HostError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return HostError(
            f"{printable(url)}: the server's certificate is not valid: {reason.verify_message}",
            hint="apt install ca-certificates; SSL_CERT_FILE names the certificate of an authority of your own",
        )
    words = (
        os.strerror(reason.errno) if isinstance(reason, OSError) and reason.errno and reason.errno > 0 else reason
    )
    return HostError(f"cannot fetch {printable(url)}: {printable(str(words))}")


def _extent(answer: Any, have: int, url: str) -> tuple[int, int]:
    """Return where the bytes of an answer begin in the file, and the file's length, 0 where it is not known."""
    if answer.status != 206:
        return 0, _length(answer.headers.get("Content-Length") or "")
    unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
    extent, _, total = rest.partition("/")
    if unit != "bytes" or extent.partition("-")[0] != str(have):
        raise HostError(f"{printable(url)}: the server sends other bytes than were asked for: {printable(rest)}")
    return have, _length(total)


def _length(text: str) -> int:
    """Return a length that a server tells; 0 for one that is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < _DIGITS else 0


def _check_size(size: int, limit: int, url: str) -> None:
    if size > limit:
        raise HostError(
            f"{printable(url)} has {pretty_size(size)}, more than the limit of {pretty_size(limit)}",
            hint="--max-size allows more",
        )


def _check_room(fd: int, needed: int) -> None:
    found = os.fstatvfs(fd)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        raise HostError(f"the file needs {pretty_size(needed)}, and {pretty_size(free)} are left for it")


def _take(answer: Any, fd: int, place: int, total: int, url: str, limit: int, report: Report) -> None:
    """Write what a server sends behind the first ``place`` bytes, up to its end."""
    while True:
        report(place, total)
        piece = _read(answer, url, _CHUNK)
        if not piece:
            break
        os.pwrite(fd, piece, place)
        place += len(piece)
        _check_size(place, limit, url)
    if place < total:
        raise _stopped(url, f"after {place} of {total} bytes")


def _read(answer: Any, url: str, size: int) -> bytes:
    try:
        # read1 gives what has come, so that what is there when the connection breaks is kept.
        return bytes(answer.read1(size) if size == _CHUNK else answer.read(size))
    except (OSError, HTTPException) as error:
        words = "the server is silent" if isinstance(error, TimeoutError) else printable(str(error))
        raise _stopped(url, words) from error


def _stopped(url: str, words: str) -> HostError:
    return HostError(
        f"the download of {printable(url)} stopped: {words}", hint="the same command goes on from there"
    )
