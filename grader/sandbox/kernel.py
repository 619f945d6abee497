"""The few calls of the C library and the kernel that Python has no name for."""

import ctypes
import os
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 24, 36, 38
CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID = 2, 6, 7

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """Call a function of the C library that returns -1 on failure.

    Raises:
        OSError: with the function's name in the message; also when the library has no such function.
    """
    try:
        function = getattr(_libc, name)
    except AttributeError:
        raise OSError(0, f"{name}: the C library does not have it") from None
    converted = [
        ctypes.c_long(value)
        if isinstance(value, int)
        else ctypes.byref(value)
        if isinstance(value, ctypes.Structure)
        else value
        for value in arguments
    ]
    ctypes.set_errno(0)
    result = int(function(*converted))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def prctl(option: int, value: int = 0) -> int:
    """Change a property of the calling process."""
    return call("prctl", option, value, 0, 0, 0)


def thread_count() -> int:
    """Count the threads of the calling process."""
    return len(list(Path("/proc/self/task").iterdir()))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapSets(ctypes.Structure):
    _fields_ = tuple(
        (f"{kind}{half}", ctypes.c_uint32) for half in (0, 1) for kind in ("effective", "permitted", "inheritable")
    )


def set_capabilities(mask: int) -> None:
    """Keep the capabilities in `mask` (all below 32) and no other; nothing can be inherited or regained."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one, or not entitled: then nothing can be regained either, no program can be run
    call("capset", _CapHeader(0x20080522, 0), _CapSets(effective0=mask, permitted0=mask))


def has_capabilities(*wanted: int) -> bool:
    """Tell whether the calling process has all these capabilities in effect."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return all(mask >> capability & 1 for capability in wanted)
    return False
