"""See from outside what a process has used."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
HAS_PROC = sys.platform == "linux"
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


def _from_proc(pid: int) -> Usage | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
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
