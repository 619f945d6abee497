"""Landlock: the process may read an allow-list, write nothing, and neither connect nor signal outwards."""

import ctypes
import os
import struct
from pathlib import Path

from grader.sandbox import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture that torch runs on
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_FILES = (1 << 13) - 1  # every right of the first version
_BY_VERSION = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # rename across folders, truncate, ioctl on devices
_SCRATCH = _FILES & ~(1 << 0 | 1 << 6 | 1 << 11)  # all but: execute, make character and block devices


def version() -> int:
    """Return the kernel's Landlock version, 0 where it has none."""
    try:
        return kernel.call("syscall", _CREATE, None, 0, 1)
    except OSError:
        return 0


def _allow(rules: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not Path(path).is_dir():
            rights &= _READ_FILE | _WRITE_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor))
        kernel.call("syscall", _ADD, rules, 1, rule, 0)
    finally:
        os.close(descriptor)


def restrict(readable: tuple[str, ...], devices: tuple[str, ...], writable: tuple[str, ...]) -> int:
    """Confine the calling thread, which must be the only one, for good.

    Args:
        readable: files and folders, which must exist.
        devices: device files that may be read and written.
        writable: scratch folders.

    Returns:
        The Landlock version in force.
    """
    found = version()
    newer = sum(right for since, right in _BY_VERSION.items() if found >= since)
    network = 0b11 if found >= 4 else 0
    scopes = 0b11 if found >= 6 else 0
    attributes = ctypes.create_string_buffer(struct.pack("=QQQ", _FILES | newer, network, scopes), 24)
    rules = kernel.call("syscall", _CREATE, attributes, 24, 0)
    for path in readable:
        _allow(rules, path, _READ_FILE | _READ_DIR)
    for path in devices:
        _allow(rules, path, _READ_FILE | _WRITE_FILE)
    for path in writable:
        _allow(rules, path, _SCRATCH | (newer & ~(1 << 15)))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.call("syscall", _RESTRICT, rules, 0)
    os.close(rules)
    return found
