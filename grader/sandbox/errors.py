"""Say in one sentence how a sandboxed process ended."""

import os
import signal
from typing import Any, Literal

from grader.verdict import N_

Kind = Literal["timeout", "memory", "crash", "exit", "output", "reply", "closed"]
CPU_TIME = N_("used more than {seconds} s of CPU time")


class WorkerError(Exception):
    """A sandboxed process did not answer; `str()` is one plain sentence about the process.

    Args:
        kind: what class of failure it was.
        message: the sentence, without a subject, marked for translation: "used more than {seconds} s of CPU time".
        blameless: whether the process was killed through no fault of its own, because its server ended: try again
            in a new session.
        facts: what the sentence is filled with.
    """

    def __init__(self, kind: Kind, message: str, blameless: bool = False, **facts: Any) -> None:
        super().__init__(message.format(**facts))
        self.kind: Kind = kind
        self.message, self.facts = message, facts
        self.blameless = blameless


class Unavailable(Exception):  # noqa: N818 - reads as the state of the level that was asked for
    """An isolation level cannot be had here; the message names the missing part and the fix."""


def death(status: int, cpu_used: float, cpu_limit: float, output: str) -> WorkerError:
    """Explain a wait status of a process that nobody killed on purpose.

    Args:
        status: as `os.waitpid` returns it.
        cpu_used: CPU-seconds the process had used when last seen.
        cpu_limit: its overall limit, which the kernel enforces with a signal.
        output: what it printed; the C++ runtime names an allocation failure there before it aborts.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return WorkerError("exit", N_("ended before it answered (exit status {code})"), code=code)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    if name == "SIGXCPU" or (name == "SIGKILL" and cpu_used >= cpu_limit):
        return WorkerError("timeout", CPU_TIME, seconds=f"{cpu_limit:g}")
    if name == "SIGABRT" and "bad_alloc" in output:
        return WorkerError("memory", N_("ran out of memory and was aborted (std::bad_alloc)"))
    return WorkerError("crash", N_("killed by signal {name}"), name=name)


def size(count: int) -> str:
    """Write a number of bytes the way a person would: "64 KB", "3 GB"."""
    for unit, name in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"
