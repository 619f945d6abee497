"""Namespaces: a second wall, behind which there is nothing to attack.

The process sees no other process, no network, no shared memory and no file but read-only mounts of the interpreter
and a small scratch file system. The steps differ for root, who must build the file system before giving up the user
id, and for an ordinary user, who needs the user namespace first to be allowed anything at all.
"""

import ctypes
import os
import struct
import time
from pathlib import Path

from grader.sandbox import kernel

_NEW_MOUNT, _NEW_UTS, _NEW_IPC = 0x20000, 0x4000000, 0x8000000
_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _BIND, _RECURSIVE, _PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_ATTR_READ_ONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_SET_ATTRIBUTES = 442  # the system call mount_setattr
_DETACH = 2
SCRATCH = "/scratch"


def own_user(proc: int) -> None:
    """Enter a user namespace in which the current ids, and no other, exist.

    Args:
        proc: descriptor of the outer /proc, which stays usable where the name does not.
    """
    user, group = os.getresuid()[1], os.getresgid()[1]
    kernel.call("unshare", _NEW_USER)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else the files below belong to somebody else
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        descriptor = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def own_processes(proc: int) -> int:
    """Continue as the first process of a new pid namespace; the calling process ends.

    Returns:
        The process id as seen from outside, by which the server and the grader know this process.
    """
    kernel.call("unshare", _NEW_PID)
    before = os.getpid()
    if os.fork():
        os._exit(0)
    while _outer_parent(proc) == before:  # only an orphan belongs to the server, which waits for it by its id
        time.sleep(0.0005)
    return int(os.readlink("self", dir_fd=proc))


def _outer_parent(proc: int) -> int:
    descriptor = os.open("self/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return int(os.read(descriptor, 4096).rpartition(b")")[2].split()[1])
    finally:
        os.close(descriptor)


def own_world(readable: tuple[str, ...], devices: tuple[str, ...], point: str, size: int, owner: int | None) -> None:
    """Enter new mount, network, IPC and host name namespaces and leave the old file system behind.

    Args:
        readable: what is mounted read-only under its own name.
        devices: device files that are mounted.
        point: an empty folder, on which the new root is built.
        size: bytes of the scratch file system.
        owner: user and group id of the scratch folder; None leaves the current one.
    """
    kernel.call("unshare", _NEW_MOUNT | _NEW_NET | _NEW_IPC | _NEW_UTS)
    kernel.call("sethostname", b"sandbox", 7)
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    _mount("tmpfs", point, "tmpfs", _NOSUID, "size=1m,nr_inodes=1k,mode=755")
    for path in readable:
        _bind(path, point, _ATTR_READ_ONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for path in devices:
        _bind(path, point, _ATTR_NOSUID)
    scratch = point + SCRATCH
    Path(scratch).mkdir()
    _mount("tmpfs", scratch, "tmpfs", _NOSUID | _NODEV | _NOEXEC, f"size={size},nr_inodes=1k,mode=700")
    if owner is not None:
        os.chown(scratch, owner, owner)
    _set_attributes(point, _ATTR_READ_ONLY | _ATTR_NODEV, recursive=False)
    os.chdir(point)
    kernel.call("pivot_root", b".", b".")
    kernel.call("umount2", b".", _DETACH)
    os.chdir(SCRATCH)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount, naming the target in the error."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    try:
        kernel.call("mount", *texts[:3], flags, texts[3])
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({target})") from None


def _bind(path: str, root: str, attributes: int) -> None:
    target = Path(root + path)
    if Path(path).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(path, str(target), None, _BIND | _RECURSIVE)
    _set_attributes(str(target), attributes, recursive=True)


def _set_attributes(target: str, attributes: int, recursive: bool) -> None:
    wanted = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, 0, 0, 0), 32)
    kernel.call("syscall", _SET_ATTRIBUTES, -100, target.encode(), 0x8000 if recursive else 0, wanted, 32)
