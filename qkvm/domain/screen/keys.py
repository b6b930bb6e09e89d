"""Find QEMU's number of a key by its name or its number in a code set.

The table is of the 105-key PC keyboard. Linux's names and numbers are from linux/input-event-codes.h, ``usb`` has
HID usages (HID Usage Tables 1.12, page 7), ``win32`` virtual-key codes. QEMU's number (qnum) is the scan code of
set 1, plus 0x80 for codes with the prefix 0xe0.
"""

from __future__ import annotations

from qkvm import units
from qkvm.errors import InvalidValue

_ROWS = """
ESC 1 1 41 27|1 2 2 30 49|2 3 3 31 50|3 4 4 32 51|4 5 5 33 52|5 6 6 34 53|6 7 7 35 54|7 8 8 36 55|8 9 9 37 56
9 10 10 38 57|0 11 11 39 48|MINUS 12 12 45 189|EQUAL 13 13 46 187|BACKSPACE 14 14 42 8|TAB 15 15 43 9
Q 16 16 20 81|W 17 17 26 87|E 18 18 8 69|R 19 19 21 82|T 20 20 23 84|Y 21 21 28 89|U 22 22 24 85|I 23 23 12 73
O 24 24 18 79|P 25 25 19 80|LEFTBRACE 26 26 47 219|RIGHTBRACE 27 27 48 221|ENTER 28 28 40 13
LEFTCTRL 29 29 224 162|A 30 30 4 65|S 31 31 22 83|D 32 32 7 68|F 33 33 9 70|G 34 34 10 71|H 35 35 11 72
J 36 36 13 74|K 37 37 14 75|L 38 38 15 76|SEMICOLON 39 39 51 186|APOSTROPHE 40 40 52 222|GRAVE 41 41 53 192
LEFTSHIFT 42 42 225 160|BACKSLASH 43 43 49 220|Z 44 44 29 90|X 45 45 27 88|C 46 46 6 67|V 47 47 25 86
B 48 48 5 66|N 49 49 17 78|M 50 50 16 77|COMMA 51 51 54 188|DOT 52 52 55 190|SLASH 53 53 56 191
RIGHTSHIFT 54 54 229 161|KPASTERISK 55 55 85 106|LEFTALT 56 56 226 164|SPACE 57 57 44 32|CAPSLOCK 58 58 57 20
F1 59 59 58 112|F2 60 60 59 113|F3 61 61 60 114|F4 62 62 61 115|F5 63 63 62 116|F6 64 64 63 117
F7 65 65 64 118|F8 66 66 65 119|F9 67 67 66 120|F10 68 68 67 121|NUMLOCK 69 69 83 144|SCROLLLOCK 70 70 71 145
KP7 71 71 95 103|KP8 72 72 96 104|KP9 73 73 97 105|KPMINUS 74 74 86 109|KP4 75 75 92 100|KP5 76 76 93 101
KP6 77 77 94 102|KPPLUS 78 78 87 107|KP1 79 79 89 97|KP2 80 80 90 98|KP3 81 81 91 99|KP0 82 82 98 96
KPDOT 83 83 99 110|102ND 86 86 100 226|F11 87 87 68 122|F12 88 88 69 123|KPENTER 96 156 88 0
RIGHTCTRL 97 157 228 163|KPSLASH 98 181 84 111|SYSRQ 99 84 70 44|RIGHTALT 100 184 230 165|HOME 102 199 74 36
UP 103 200 82 38|PAGEUP 104 201 75 33|LEFT 105 203 80 37|RIGHT 106 205 79 39|END 107 207 77 35|DOWN 108 208 81 40
PAGEDOWN 109 209 78 34|INSERT 110 210 73 45|DELETE 111 211 76 46|MUTE 113 160 127 173|VOLUMEDOWN 114 174 129 174
VOLUMEUP 115 176 128 175|POWER 116 222 102 0|PAUSE 119 198 72 19|LEFTMETA 125 219 227 91|RIGHTMETA 126 220 231 92
COMPOSE 127 221 101 93|SLEEP 142 223 0 95|WAKEUP 143 227 0 0
"""
"""Name without KEY_, and numbers in the code sets linux, qnum, usb and win32; 0 for none."""

CODE_SETS = ("linux", "qnum", "rfb", "xt", "xt_kbd", "atset1", "usb", "win32")
"""The code sets; qnum to atset1 have the scan code itself."""


def key_number(text: str, codeset: str) -> int:
    """Return QEMU's number of a key by its number in the code set, or by Linux's name (KEY_ENTER).

    :raises InvalidValue: no such code set, or no such key in it.
    """
    if codeset not in CODE_SETS:
        raise InvalidValue(f"unknown codeset: '{units.printable(codeset)}'", hint=", ".join(CODE_SETS))
    if not text.isascii() or not text.isdigit():
        number = _by_name(text)
        if number is None:
            raise InvalidValue(
                f"invalid keycode: '{units.printable(text)}'", hint="a number, or a name such as KEY_ENTER"
            )
        return number
    number = _by_number(int(text[:6]), codeset)
    if number is None:
        raise InvalidValue(f"invalid keycode: '{text}'", hint=f"no key has that number in code set {codeset}")
    return number


def _rows() -> list[tuple[str, list[int]]]:
    found = []
    for entry in _ROWS.replace("\n", "|").split("|"):
        if entry:
            name, *numbers = entry.split()
            found.append((f"KEY_{name}", [int(number) for number in numbers]))
    return found


def _by_name(text: str) -> int | None:
    return dict((name, numbers[1]) for name, numbers in _rows()).get(text.upper())


def _by_number(number: int, codeset: str) -> int | None:
    if codeset not in ("linux", "usb", "win32"):
        return number if 0 < number < 256 else None
    column = {"linux": 0, "usb": 2, "win32": 3}[codeset]
    for _, numbers in _rows():
        if number and numbers[column] == number:
            return numbers[1]
    return None
