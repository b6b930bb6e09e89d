"""Parse or refuse: sizes, names, MAC addresses, ids, ports.

Every string from outside passes one of these before it becomes part of a definition, a path or a command line. All
raise :class:`~qkvm.errors.InvalidValue` with what would be right.
"""

from __future__ import annotations

import os

from qkvm.errors import InvalidValue

IFNAMSIZ_MAX = 15
"""Longest interface name in bytes: IFNAMSIZ of linux/if.h without its NUL."""

NAME_MAX = 80
"""Longest name of a domain or network; with suffixes it stays within NAME_MAX of linux/limits.h."""

_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_NAME_REST = _NAME_FIRST | frozenset(".+@:-")

_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_LIMIT_KIB = 1 << 53  # 8 EiB in KiB: the largest size that QEMU's 64-bit byte counts can hold.


def _scale(suffix: str) -> int | None:
    """Bytes per unit of a libvirt size suffix (virsh setmem), or None where there is no such suffix."""
    upper = suffix.upper()
    if upper in ("B", "BYTE", "BYTES"):
        return 1
    power = _POWERS.get(upper[:1])
    if power is None:
        return None
    if upper[1:] in ("", "IB"):
        return int(1024**power)
    if upper[1:] == "B":
        return int(1000**power)
    return None


def parse_size(text: str, *, default: str = "KiB", what: str = "size") -> int:
    """Read a size with an optional suffix; return KiB, rounded up (libvirt's virScaleInteger).

    :param text: a whole number and a suffix of b, KB, KiB, k, M, MiB … E, in any case.
    :param default: the suffix where there is none. :param what: how the error names the value.
    """
    return -(-parse_bytes(text, default=default, what=what) // 1024)


def parse_bytes(text: str, *, default: str = "B", what: str = "size") -> int:
    """Return the same in bytes, exactly."""
    stripped = text.strip()
    digits = len(stripped) - len(stripped.lstrip("0123456789"))
    scale = _scale(stripped[digits:].strip() or default)
    if not digits or not stripped.isascii() or scale is None or digits > 20:
        raise InvalidValue(
            f"Scaled numeric value '{printable(text)}' for <{what}> option is malformed or out of range",
            hint=f"a whole number and a suffix, such as 512M, 1GiB or 524288 ({default})",
        )
    size = int(stripped[:digits]) * scale
    if -(-size // 1024) >= _LIMIT_KIB:
        raise InvalidValue(
            f"Scaled numeric value '{printable(text)}' for <{what}> option is malformed or out of range",
            hint="sizes end below 8 EiB",
        )
    return size


def format_size(kib: int) -> str:
    """Return the shortest exact text of a size in KiB: 524288 -> '512MiB'."""
    for suffix, power in (("TiB", 3), ("GiB", 2), ("MiB", 1)):
        unit = 1024**power
        if kib and kib % unit == 0:
            return f"{kib // unit}{suffix}"
    return f"{kib}KiB"


def pretty_size(size: int) -> str:
    """A size in bytes as virsh shows it: two decimals in the largest unit that it fills (vshPrettyCapacity)."""
    for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB")):
        if size < 1024 ** (power + 1):
            return f"{size / 1024**power:.2f} {unit}"
    return f"{size / 1024**6:.2f} EiB"


def parse_count(text: str, what: str, *, minimum: int = 1, maximum: int = 1 << 31) -> int:
    """Return a whole number between ``minimum`` and ``maximum``; ``what`` names it in the error."""
    stripped = text.strip()
    body = stripped[1:] if stripped[:1] in "+-" else stripped
    if not body.isascii() or not body.isdigit() or len(body) > 20:
        raise InvalidValue(
            f"Numeric value '{printable(text)}' for <{what}> option is malformed or out of range",
            hint=f"a whole number from {minimum} to {maximum}",
        )
    number = int(stripped)
    if not minimum <= number <= maximum:
        raise InvalidValue(
            f"Numeric value '{printable(text)}' for <{what}> option is malformed or out of range",
            hint=f"a whole number from {minimum} to {maximum}",
        )
    return number


def check_name(text: str, kind: str) -> str:
    """Check a name that is safe as a file name, an option's value and a table cell; return it.

    :param kind: 'domain', 'network' …, for the error.
    """
    if not text:
        raise InvalidValue(f"{kind} name must not be empty")
    if len(text) > NAME_MAX:
        start = printable(text[:24])
        raise InvalidValue(f"{kind} name '{start}…' has {len(text)} characters, at most {NAME_MAX} are allowed")
    if text[0] not in _NAME_FIRST or not _NAME_REST.issuperset(text):
        raise InvalidValue(
            f"{kind} name '{printable(text)}' is not allowed",
            hint="letters, digits and ._+@:- and a letter, digit or _ in front",
        )
    return text


def check_interface_name(text: str) -> str:
    """A network interface's name as the kernel takes it (dev_valid_name of net/core/dev.c); gives it back."""
    if len(text.encode("utf-8", "surrogatepass")) > IFNAMSIZ_MAX:
        raise InvalidValue(
            f"interface name '{printable(text)}' is too long: the kernel takes {IFNAMSIZ_MAX} bytes at most"
        )
    if not text or text in (".", "..", "all", "default") or text[0] not in _NAME_FIRST:
        raise InvalidValue(f"interface name '{printable(text)}' is not allowed")
    if not (_NAME_REST - {":"}).issuperset(text):
        raise InvalidValue(f"interface name '{printable(text)}' is not allowed", hint="letters, digits and ._+@-")
    return text


def parse_mac(text: str) -> str:
    """Return a unicast MAC address, in lower case with colons (IEEE 802, six octets)."""
    parts = text.lower().replace("-", ":").split(":")
    octets = [int(part, 16) for part in parts if len(part) == 2 and set(part) <= set("0123456789abcdef")]
    if len(parts) != 6 or len(octets) != 6:
        raise InvalidValue(
            f"malformed mac address '{printable(text)}'", hint="six hexadecimal octets, such as 52:54:00:12:34:56"
        )
    if octets[0] & 1:
        raise InvalidValue(f"expected unicast mac address, found multicast '{printable(text)}'")
    if not any(octets):
        raise InvalidValue("mac address 00:00:00:00:00:00 is not allowed")
    return ":".join(f"{octet:02x}" for octet in octets)


def random_mac() -> str:
    """Return a new MAC address with the 52:54:00 prefix that KVM guests carry."""
    return "52:54:00:" + ":".join(f"{octet:02x}" for octet in os.urandom(3))


def random_uuid() -> str:
    """Return a new random UUID (RFC 4122, version 4) in its usual text form."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return format_uuid(raw.hex())


def format_uuid(digits: str) -> str:
    """32 hexadecimal digits in groups of 8-4-4-4-12."""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def parse_uuid(text: str) -> str:
    """Return a UUID with or without hyphens, in lower case with them (RFC 4122)."""
    digits = text.lower().replace("-", "")
    if len(digits) != 32 or set(digits) - set("0123456789abcdef") or len(text) > 36:
        raise InvalidValue(
            f"malformed UUID '{printable(text)}'", hint="32 hexadecimal digits, such as those of uuidgen"
        )
    return format_uuid(digits)


def check_path(text: str, what: str) -> str:
    """Check an absolute path without NUL or newline; return it. Does not look at the disk."""
    if not text.startswith("/"):
        raise InvalidValue(f"{what} '{printable(text)}' is not an absolute path")
    return check_text(text, what)


def check_text(text: str, what: str) -> str:
    """One line of text that a definition and a command line can carry: no control characters; gives it back."""
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise InvalidValue(f"{what} '{printable(text)}' holds a control character", hint="one line of plain text")
    return check_unicode(text, what)


def check_unicode(text: str, what: str) -> str:
    """Text that UTF-8 can hold, which bytes of an argument need not be; gives it back."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidValue(f"{what} '{printable(text)}' is not UTF-8 text")
    return text


def printable(text: str) -> str:
    """Return the text with everything that a terminal could act on escaped, for messages and tables."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def parse_cpu_list(text: str) -> set[int]:
    """Return the kernel's list format: '0-2,5' is {0, 1, 2, 5}."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first:
            cpus.update(range(int(first), int(last if dash else first) + 1))
    return cpus


def format_cpu_list(cpus: set[int]) -> str:
    """Return the opposite of :func:`parse_cpu_list`."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def host_name(domain: str) -> str:
    """Return the host name for the guest of a domain: letters, digits, dots and hyphens."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in ".-") else "-" for char in domain)
    return name.strip(".-")[:63].strip(".-") or "guest"
