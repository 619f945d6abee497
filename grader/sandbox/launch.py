"""Start one session's process and wait until it is confined."""

import contextlib
import fcntl
import json
import os
import select
import time
from dataclasses import dataclass
from typing import Any

from grader.sandbox.channel import Pipes
from grader.sandbox.client import Client, ServerError
from grader.sandbox.errors import Unavailable

_WIDEN = 1031  # F_SETPIPE_SZ


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that is confined and waits for its first frame."""

    pid: int
    pipes: Pipes
    in_force: str


def launch(client: Client, level: str, folder: str, seconds: float) -> Launched:
    """Have the server make a child and wait for its report.

    Args:
        client: the server.
        level: portable, linux or strict.
        folder: scratch folder or mount point.
        seconds: how long to wait for the child.

    Raises:
        Unavailable: the child could not be confined.
        ServerError: the server has ended.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        requests, to_child = _pipe(theirs, ours)
        from_child, replies = _pipe(ours, theirs)
        printed, output = _pipe(ours, theirs)
        heard, status = _pipe(ours, theirs)
        message = {"do": "start", "level": level, "folder": folder}
        pid = int(client.request(message, (requests, replies, output, status))["pid"])
        theirs.close()
        try:
            pid, in_force = _report(heard, pid, seconds)
        except _StartError as failure:
            with contextlib.suppress(ServerError):
                client.end(failure.pid, level)
            raise Unavailable(str(failure)) from None
        ours.pop_all()
        os.close(heard)
    _tune(to_child, from_child, printed)
    return Launched(pid, Pipes(to_child, from_child, printed), in_force)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Make a pipe whose ends are closed with these stacks."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _tune(*descriptors: int) -> None:
    """Make the grader's ends non-blocking, and the pipes of large frames wide where the system allows it."""
    for descriptor in descriptors:
        os.set_blocking(descriptor, False)
    for descriptor in descriptors[:2]:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, _WIDEN, 1 << 20)


class _StartError(Exception):
    """The child reported a failure, or nothing."""

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


def _report(heard: int, pid: int, seconds: float) -> tuple[int, str]:
    """Read the child's report: its final process id, then that it is ready.

    This pipe is closed before any learner code runs, hence it is believed.
    """
    deadline = time.monotonic() + seconds
    data = b""
    while True:
        poll = select.poll()
        poll.register(heard, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _StartError(f"the sandboxed process was not ready within {seconds:g} s", pid)
        more = os.read(heard, 65536)
        if not more:
            raise _StartError("the sandboxed process ended while it was being confined", pid)
        data += more
        *lines, data = data.split(b"\n")
        for line in lines:
            fact: dict[str, Any] = json.loads(line)
            if "ready" in fact:
                return pid, str(fact["ready"])
            if "error" in fact:
                known = fact["kind"] in {"Unavailable", "ImportError"}
                raise _StartError(("" if known else "confining failed: ") + str(fact["error"]), pid)
            pid = int(fact["pid"])
