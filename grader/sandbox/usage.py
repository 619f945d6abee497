"""See from outside what a process has used."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
HAS_PROC = sys.platform == "linux"
_PROCESS_CLOCK = 2
"""With the complement of a process id above it, these bits name its CPU clock: see clock_getcpuclockid(3)."""
POLL_SECONDS = 0.02 if HAS_PROC else 0.5  # elsewhere each look starts a program


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU-seconds and resident bytes of a process, all of its threads together; a dead one keeps its seconds."""

    cpu: float
    memory: int
    alive: bool = True


def usage(pid: int) -> Usage | None:
    """Return what a process has used, or None when nothing is known of it any more."""
    return _from_proc(pid) if HAS_PROC else _from_ps(pid)


def settled(pid: int, patience: float = 0.05) -> float | None:
    """Return the CPU seconds of a process, all its threads together, to the nanosecond, once it waits for something.

    While it runs the kernel adds them up a few hundred times a second only; what still runs after `patience` seconds
    is counted so. None where this cannot be read from outside (no Linux).
    """
    deadline = time.monotonic() + patience
    with contextlib.suppress(OSError):
        while HAS_PROC and _stat(pid)[0] == b"R" and time.monotonic() < deadline:
            pass
    return cpu_clock(pid)


def cpu_clock(pid: int) -> float | None:
    """Return the CPU seconds of a process as the kernel has them now; None where they cannot be read from outside."""
    if not HAS_PROC:
        return None
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:
        return None


def _stat(pid: int) -> list[bytes]:
    """Read what the kernel says of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


@contextlib.contextmanager
def on_one_core(pids: Iterable[int]) -> Iterator[None]:
    """Keep processes on one core, the same for all, while they are compared: cores differ in what disturbs them.

    Where that cannot be done, nothing is.
    """
    moved: dict[int, set[int]] = {}
    try:
        with contextlib.suppress(OSError, AttributeError):
            core = random.SystemRandom().choice(sorted(os.sched_getaffinity(0)))
            for pid in pids:
                moved[pid] = os.sched_getaffinity(pid)
                os.sched_setaffinity(pid, {core})
        yield
    finally:
        for pid, cores in moved.items():
            with contextlib.suppress(OSError):  # it may have ended
                os.sched_setaffinity(pid, cores)


def _from_proc(pid: int) -> Usage | None:
    try:
        fields = _stat(pid)
    except OSError:
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICK
    return Usage(cpu, int(fields[21]) * _PAGE, alive=fields[0] not in b"ZX")


def _from_ps(pid: int) -> Usage | None:
    command = ["ps", "-o", "stat=,rss=,time=", "-p", str(pid)]
    fields = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603 - fixed
    if len(fields) != 3:
        return None
    return Usage(seconds(fields[2]), int(fields[1]) * 1024, alive=not fields[0].startswith("Z"))


def seconds(text: str) -> float:
    """Read the time that `ps` writes: [[days-]hours:]minutes:seconds[.hundredths]."""
    days, _, clock = text.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total + 86400 * int(days or 0)
