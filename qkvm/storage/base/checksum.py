"""Checksums of images: of a file, from a list such as SHA512SUMS, and the list's signature (gpgv)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import HostError, InvalidValue, NotFound, ProgramFailed
from qkvm.host import process
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LENGTHS = {64: "sha256", 128: "sha512"}
_CHUNK = 1 << 20

_LINE = re.compile(r"\\?([0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s+\*?(?:\./)?(\S.*?)\s*$")
"""A line of sha256sum and sha512sum."""

_BSD_LINE = re.compile(r"SHA(?:256|512) \((?:\./)?(.+)\) = ([0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s*$")
"""The same with --tag, as Fedora has it."""

_CLEAR = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+: .*\r?\n)*\r?\n"
    rb"(.*?)(?:\r?\n=[^\r\n]{4})?\r?\n-----END",
    re.S,
)
"""The base64 of a key that is kept as text (RFC 9580, 6.2)."""


class Checksum(NamedTuple):
    """A checksum: 'sha256' or 'sha512', and its hexadecimal digits."""

    kind: str
    digits: str


def parse(text: str, kind: str) -> Checksum:
    """Return a checksum that a user gave. :raises InvalidValue: it is none of that kind."""
    digits = text.strip().lower()
    if _LENGTHS.get(len(digits)) != kind or set(digits) - set("0123456789abcdef"):
        length = {name: length for length, name in _LENGTHS.items()}[kind]
        raise InvalidValue(
            f"--{kind} '{printable(text[:140])}' is no checksum", hint=f"{length} hexadecimal digits"
        )
    return Checksum(kind, digits)


def listed(text: str, name: str, where: str) -> Checksum:
    """Return the checksum that a list has for a file of that name, the strongest if there are several.

    :param where: the list's own name. :raises NotFound: it has none.
    """
    found = []
    for line in text.splitlines():
        plain, bsd = _LINE.match(line), _BSD_LINE.match(line)
        digits, named = (plain[1], plain[2]) if plain else (bsd[2], bsd[1]) if bsd else ("", "")
        if named == name:
            found.append(Checksum(_LENGTHS[len(digits)], digits.lower()))
    if not found:
        raise NotFound(
            f"{printable(where)} has no SHA-256 or SHA-512 checksum of '{printable(name)}'",
            kind="checksum",
            name=name,
        )
    return max(found)


def of(fd: int, kinds: Iterable[str], report: Callable[[int], object] = lambda _: None) -> dict[str, str]:
    """Return the checksums of a file by their kinds. :param report: called with the bytes that were read."""
    sums = {kind: hashlib.new(kind) for kind in kinds}
    place = 0
    while piece := os.pread(fd, _CHUNK, place):
        for one in sums.values():
            one.update(piece)
        place += len(piece)
        report(place)
    return {kind: one.hexdigest() for kind, one in sums.items()}


def verified(text: bytes, signature: bytes, keyring: str, where: str) -> bytes:
    """Return the part of a text that one of the keys has signed.

    :param signature: in a file of its own; b'' if the text contains it. :param keyring: a file with public keys,
        binary or as text. :param where: the text's name, for errors.
    :raises HostError: no signature, a bad one, or one by another key; or gpgv is not installed.
    """
    program = process.find_program("gpgv", "the signature of a list of checksums", "gpgv")
    inside = text.lstrip().startswith(_CLEAR)
    if not inside and not signature:
        raise HostError(
            f"{printable(where)} has no signature", hint="--signature FILE|URL, such as SHA512SUMS.sign"
        )
    files = [_memory(_keys(keyring)), _memory(text)]
    try:
        keys, signed = (f"/proc/{os.getpid()}/fd/{fd}" for fd in files)
        argv = [program, "--quiet", "--keyring", keys]
        if inside:
            return process.run([*argv, "--output", "-", signed])
        process.run([*argv, "-", signed], stdin=signature)
        return text
    except ProgramFailed as error:
        words = "; ".join(line.removeprefix("gpgv: ") for line in error.stderr.splitlines()[-3:])
        raise HostError(f"the signature of {printable(where)} is not valid: {printable(words)}") from None
    finally:
        for fd in files:
            os.close(fd)


def _keys(keyring: str) -> bytes:
    """Return the keys in a file as gpgv takes them: not as text."""
    try:
        with open(keyring, "rb") as stream:
            raw = stream.read()
    except OSError as error:
        raise HostError(f"cannot read keyring '{printable(keyring)}': {os.strerror(error.errno or 0)}") from error
    blocks = _ARMOR.findall(raw)
    try:
        return b"".join(base64.b64decode(block) for block in blocks) or raw
    except binascii.Error:
        raise HostError(f"keyring '{printable(keyring)}' is damaged") from None


def _memory(raw: bytes) -> int:
    """Return an fd of a file in memory with this content."""
    fd = os.memfd_create("for gpgv")
    with os.fdopen(os.dup(fd), "wb") as stream:
        stream.write(raw)
    return fd
