"""Take everything away from the calling process that its level takes away, for good.

Root gives up its user id. The interpreter, however, may be installed where only root can look (a home folder of mode
700), and a module can be imported late. In that case alone, one capability is kept: to read whatever the file system
holds. At level portable files are not protected anyway; at level linux Landlock stands above it and allows the
interpreter only; at level strict nothing else is mounted, and it is not needed.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from grader.sandbox import kernel, landlock, namespaces, readable, rlimits, seccomp
from grader.sandbox.errors import Unavailable
from grader.sandbox.limits import Limits

NOBODY = 65534
_LINUX = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Means:
    """What confinement needs and can be found out once, before there is a child."""

    roots: tuple[str, ...]
    devices: tuple[str, ...]
    libseccomp: ctypes.CDLL | None
    landlock: int
    drop_user: bool


def means() -> Means:
    """Find out what this machine has."""
    if not _LINUX:
        return Means((), (), None, 0, False)
    drop = os.geteuid() == 0 and kernel.has_capabilities(kernel.CAP_SETUID, kernel.CAP_SETGID)
    return Means(readable.roots(), readable.DEVICES, seccomp.load(), landlock.version(), drop)


def require(level: str, found: Means) -> None:
    """Check that a level can be had, as far as that is known without trying.

    Raises:
        Unavailable: naming what is missing and the fix.
    """
    if level == "portable":
        return
    if not _LINUX:
        raise Unavailable(f"level {level} needs Linux; use level portable here")
    if not found.landlock:
        raise Unavailable(
            f"level {level} needs Landlock: a kernel of 5.13 or later that lists it in /sys/kernel/security/lsm "
            "(boot with lsm=landlock,...); inside a container, a runtime that permits it"
        )
    if found.libseccomp is None:
        raise Unavailable(f"level {level} needs libseccomp.so.2: apt-get install libseccomp2")


def confine(level: str, limits: Limits, found: Means, folder: str, report_pid: Callable[[int], None]) -> str:
    """Confine the calling process, which must have one thread; at level strict it continues as another process.

    Args:
        level: portable, linux or strict.
        limits: of the session.
        found: from `means`.
        folder: the scratch folder (portable) or an empty folder to build the root on (strict).
        report_pid: is told the process id by which the session can be waited for.

    Returns:
        What is in force, for people: "landlock 7, seccomp".
    """
    require(level, found)
    if not _LINUX:
        return _portable(limits, folder, report_pid)
    if kernel.thread_count() != 1:
        raise OSError(0, f"{kernel.thread_count()} threads run where one must")
    if level == "strict":
        _strict(limits, found, folder, report_pid)
    else:
        report_pid(os.getpid())
        os.setsid()
        if level == "portable" and found.drop_user:
            os.chown(folder, NOBODY, NOBODY)
        os.chdir("/" if level == "linux" else folder)
        _drop(found, keep_reading=not readable.open_to_all(found.roots + readable.samples(), parents=True))
        rlimits.apply(limits, own_count=False)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # no other process of this user may look into it
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # a later change of user would cancel it
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    return "rlimits, watchdog" if level == "portable" else _wall(level, found)


def _portable(limits: Limits, folder: str, report_pid: Callable[[int], None]) -> str:
    """Confine where the system offers nothing but limits."""
    report_pid(os.getpid())
    os.setsid()
    os.chdir(folder)
    rlimits.apply(limits, own_count=False)
    return "rlimits, watchdog"


def _strict(limits: Limits, found: Means, folder: str, report_pid: Callable[[int], None]) -> None:
    """Enter the namespaces, then give up user id and capabilities."""
    if found.drop_user and not readable.open_to_all(found.roots + readable.samples(), parents=False):
        raise Unavailable(
            "level strict needs an interpreter that every user can read: chmod -R o+rX on its folder and torch's"
        )
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not found.drop_user:
            namespaces.own_user(proc)
        report_pid(namespaces.own_processes(proc))
        owner = NOBODY if found.drop_user else None
        namespaces.own_world(found.roots, found.devices, folder, limits.scratch_bytes, owner)
        os.setsid()
        if found.drop_user:
            _drop(found, keep_reading=False)
            namespaces.own_user(proc)
    except OSError as error:
        raise Unavailable(
            f"level strict needs user, pid, net, ipc, uts and mount namespaces, and {error.strerror}. Where an "
            "ordinary user may not create them: sysctl kernel.apparmor_restrict_unprivileged_userns=0, "
            "sysctl kernel.unprivileged_userns_clone=1 or user.max_user_namespaces=10000; or run as root"
        ) from None
    os.close(proc)
    kernel.set_capabilities(0)
    rlimits.apply(limits, own_count=True)


def _drop(found: Means, keep_reading: bool) -> None:
    """Become nobody, with no capability but, where asked for, that of reading files."""
    if not found.drop_user:
        if os.geteuid() == 0:
            kernel.set_capabilities(0)
        return
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.set_capabilities(1 << kernel.CAP_DAC_READ_SEARCH if keep_reading else 0)


def _wall(level: str, found: Means) -> str:
    """Put Landlock and seccomp in force and see that they are."""
    writable = (namespaces.SCRATCH,) if level == "strict" else ()
    version = landlock.restrict(found.roots, found.devices, writable)
    assert found.libseccomp is not None
    seccomp.restrict(found.libseccomp)
    _must_be_denied("reading the root folder", lambda: os.open("/", os.O_RDONLY))
    _must_be_denied("opening a socket", lambda: socket.socket().close())
    parts = f"landlock {version}, seccomp"
    return f"namespaces, {parts}" if level == "strict" else parts


def _must_be_denied(what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except PermissionError:
        return
    raise Unavailable(f"{what} is still possible: this kernel or container accepts confinement without enforcing it")
