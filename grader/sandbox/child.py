"""The life of one sandboxed process: sort its descriptors, be confined, serve one session, end.

Where forking is no option, `main` is the whole program of the process.
"""

import contextlib
import fcntl
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from grader.sandbox import confine, frames, namespaces, preparation
from grader.sandbox.limits import Limits

REQUESTS, REPLIES, STATUS = 3, 4, 5  # standard output and error go to the session's output


@dataclass(frozen=True, slots=True)
class Plan:
    """What a server and its children are to be; `base` is the pool's folder, `folder` that of one session."""

    entry: str
    preload: tuple[str, ...]
    path: tuple[str, ...]
    limits: Limits
    fresh: bool
    base: str = ""
    level: str = "portable"
    folder: str = "/"

    def for_session(self, level: str, folder: str) -> "Plan":
        """Complete the plan for one child."""
        return replace(self, level=level, folder=folder)

    def text(self) -> str:
        """Write it down for another process."""
        return json.dumps(asdict(self))

    @staticmethod
    def read(text: str) -> "Plan":
        """Read what `text` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields.update(limits=Limits(**fields["limits"]), preload=tuple(fields["preload"]), path=tuple(fields["path"]))
        return Plan(**fields)


def arrange(requests: int, replies: int, output: int, status: int) -> None:
    """Put the session's descriptors where the child expects them and close every other one."""
    given = (output, output, requests, replies, status)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in given]  # out of the way of each other
    for slot, descriptor in enumerate(high, start=1):
        os.dup2(descriptor, slot, inheritable=True)
    os.closerange(STATUS + 1, os.sysconf("SC_OPEN_MAX"))


def _report(**fact: object) -> None:
    os.write(STATUS, json.dumps(fact).encode() + b"\n")


def live(plan: Plan, found: confine.Means, serve: Callable[..., None]) -> NoReturn:
    """Be one session; never returns, and nothing of the server's is cleaned up on the way out."""
    code = 1
    try:
        in_force = confine.confine(plan.level, plan.limits, found, plan.folder, lambda pid: _report(pid=pid))
        _settle(plan)
        _report(ready=in_force)
        os.close(STATUS)
        code = _serve(serve)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _report(error=str(error) or repr(error), kind=type(error).__name__)
    finally:
        os._exit(code)


def _settle(plan: Plan) -> None:
    """Make the interpreter's own state fit its new surroundings."""
    home = {"portable": plan.folder, "strict": namespaces.SCRATCH}.get(plan.level, "/")
    os.environ.update(HOME=home, TMPDIR=home, TORCHINDUCTOR_CACHE_DIR=home)
    tempfile.tempdir = None
    sys.dont_write_bytecode = True
    sys.argv = [""]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # keeps the lines of both in order


def _serve(serve: Callable[..., None]) -> int:
    """Run the session's loop and return the exit status."""

    def send(frame: bytes) -> None:
        _flush()
        frames.write(REPLIES, frame)

    try:
        serve(lambda: frames.read(REQUESTS), send)
    except EOFError:
        return 0  # the grader has closed the session
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        _flush()
    return 0


def _flush() -> None:
    """Let the grader see what was printed; a learner may have replaced the streams by anything."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def main(plan_text: str) -> NoReturn:
    """Be a fresh process: import what the server would have imported, then live."""
    plan = Plan.read(plan_text)
    try:
        serve = preparation.prepare(plan.entry, plan.preload, plan.path)
        found = confine.means()
    except BaseException as error:
        _report(error=f"{type(error).__name__}: {error}", kind="ImportError")
        os._exit(1)
    live(plan, found, serve)
