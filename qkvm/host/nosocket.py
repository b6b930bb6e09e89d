"""Become another program that can't open sockets; confine.py uses this program without root's rights.

It needs neither a user namespace nor any right. Sockets named in the file system are out of reach too. The
arguments are the other program and its arguments.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_SET_SECCOMP, _SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
"""linux/prctl.h and linux/seccomp.h."""

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, …JGE…, BPF_RET|BPF_K."""

_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_X86_64 = 0xC000003E
_X32 = 0x40000000

_CALLS = (
    # Other kinds of system calls (32-bit, x32) have other numbers, and are refused.
    (_LOAD, 4, 0, 0),
    (_EQUAL, _X86_64, 0, 4),
    (_LOAD, 0, 0, 0),
    (_AT_LEAST, _X32, 2, 0),
    # socket(2), and io_uring_setup(2), whose rings can open sockets too.
    (_EQUAL, 41, 1, 0),
    (_EQUAL, 425, 0, 1),
    (_RETURN, _REFUSE | errno.EPERM, 0, 0),
    (_RETURN, _ALLOW, 0, 0),
)
"""Instruction, value, and how many to skip if it matches and if not."""


def forbid() -> None:
    """Forbid sockets to this process and all that it becomes or starts. :raises OSError: the kernel can't."""
    text = b"".join(struct.pack("=HBBI", code, true, false, value) for code, value, true, false in _CALLS)
    instructions = ctypes.create_string_buffer(text, len(text))
    program = struct.pack("@HP", len(_CALLS), ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.c_ulong(0)
    for option, *rest in (
        (_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), none),
        (_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), program),
    ):
        if libc.prctl(option, *rest, none, none) < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cannot forbid sockets: {os.strerror(code)}")


if __name__ == "__main__":
    forbid()
    os.execv(sys.argv[1], sys.argv[1:])
