"""The fork server: a small process that prepares once and makes one child for each session.

It runs no learner code and reads nothing from a child. Its one correspondent is the pool, over a socket that no child
inherits: one line of JSON each way, with the descriptors of a new session attached.

    {"do": "start", "level": ..., "folder": ...}   + 4 descriptors   -> {"pid": ...}
    {"do": "poll", "pid": ...}                      -> {"status": null or a wait status}
    {"do": "end", "pid": ...}                       -> the same, after killing it and what it left behind
    {"do": "load", "modules": [...]}                -> {}, after importing them for the children to come
    {"do": "stop"}                                  nothing: the server ends
"""

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from grader.sandbox import child, confine, kernel, preparation

_LINUX = sys.platform == "linux"


class Server:
    """The server's state: its plan, what it prepared, and the children not yet waited for."""

    def __init__(self, control: socket.socket, plan: child.Plan) -> None:
        self._control = control
        self._plan = plan
        self._serve: Callable[..., None] | None = None
        if not plan.fresh:
            self._serve = preparation.prepare(plan.entry, plan.preload, plan.path)
        self._found = confine.means()
        self._alive: set[int] = set()
        self._helpers: set[int] = set()
        if _LINUX:
            self._adopt()
        _ready_to_fork()

    def _adopt(self) -> None:
        """Inherit what children leave behind, and be invisible to them."""
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)

    def _load(self, modules: tuple[str, ...]) -> None:
        """Import more than the plan said."""
        self._plan = replace(self._plan, preload=(*self._plan.preload, *modules))
        if not self._plan.fresh:
            preparation.load(modules)
            _ready_to_fork()

    def run(self) -> None:
        """Answer requests until the pool goes away; then leave nothing behind."""
        dismissed = False
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the grader ended while this one prepared
            self._answer({"ready": True})
            dismissed = self._serve_requests()
        for pid in list(self._alive):
            _kill(pid)
        self._sweep(everything=True)
        if self._plan.base and not dismissed:  # the grader was killed: nobody else will tidy up
            shutil.rmtree(self._plan.base, ignore_errors=True)

    def _serve_requests(self) -> bool:
        """Answer requests until there are no more; returns whether the pool has said so."""
        while request := _hear(self._control):
            message, descriptors = request
            if message["do"] == "stop":
                return True
            try:
                self._answer(self._handle(message, descriptors))
            except (OSError, ImportError) as error:
                self._answer({"error": str(error)})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            self._reap_helpers()
        return False

    def _answer(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _handle(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if message["do"] == "load":
            self._load(tuple(message["modules"]))
            return {}
        if message["do"] == "start":
            return {"pid": self._start(message["level"], message["folder"], descriptors)}
        pid = int(message["pid"])
        status = _wait(pid)  # fails for what is not a child, or no more: nothing else is ever killed
        if status is None and message["do"] == "end":
            _kill(pid)
            status = _wait(pid)
        if status is not None:
            self._alive.discard(pid)
            if message["level"] == "portable":
                _kill_group(pid)  # what is left of it
                self._sweep(everything=False)
        return {"status": status}

    def _start(self, level: str, folder: str, descriptors: list[int]) -> int:
        """Fork a child; at level strict it is only a helper, which forks the session's process and ends."""
        plan = self._plan.for_session(level, folder)
        pid = os.fork()
        if pid:
            (self._helpers if level == "strict" else self._alive).add(pid)
            return pid
        try:
            child.arrange(*descriptors)
            if self._serve is None:
                os.execv(sys.executable, [*interpreter(), "-m", "grader.sandbox", "fresh", plan.text()])  # noqa: S606
            child.live(plan, self._found, self._serve)
        finally:
            os._exit(1)

    def _reap_helpers(self) -> None:
        for pid in list(self._helpers):
            if _wait(pid) is not None:
                self._helpers.discard(pid)

    def _sweep(self, everything: bool) -> None:
        """Kill what dead sessions left behind: as the nearest subreaper, the server has become its parent.

        A learner's process that goes on creating others can outrun one pass, hence several.
        """
        if not _LINUX:
            return
        for _ in range(200):
            strays = [pid for pid in _children() if everything or pid not in self._alive]
            if not strays:
                return
            for pid in strays:
                _kill(pid)
            for pid in strays:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _ready_to_fork() -> None:
    """Make sure that forking is safe, and that children share what has been imported."""
    if _LINUX and kernel.thread_count() != 1:
        raise RuntimeError(f"importing left {kernel.thread_count()} threads running: it cannot be forked safely")
    gc.collect()
    gc.freeze()


def _kill(pid: int) -> None:
    """Kill a child and its process group; the first process of a pid namespace takes all of that with it."""
    _kill_group(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _wait(pid: int) -> int | None:
    """Return the wait status of a child that has ended, None of one that lives."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return status if done else None


def _children() -> list[int]:
    """List the direct children of this process, those it adopted included."""
    own, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1]) == own:
                    found.append(int(entry.name))
    return found


def _hear(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Wait for one request and its descriptors; None when the pool has gone."""
    data, descriptors = b"", []
    while not data.endswith(b"\n"):
        more, attached, _, _ = socket.recv_fds(control, 65536, 4)
        if not more:
            return None
        data += more
        descriptors += attached
    return json.loads(data), descriptors


def interpreter() -> list[str]:
    """Command of an interpreter that takes its modules from its installation only, not from here or the user."""
    return [sys.executable, "-s", "-P", "-B", "-X", "utf8"]


def main(descriptor: str) -> None:
    """Be a server on the socket with this descriptor."""
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(False)
    request = _hear(control)
    assert request is not None
    try:
        server = Server(control, child.Plan.read(request[0]["plan"]))
    except Exception as error:
        control.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return
    server.run()
