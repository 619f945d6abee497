"""The grader's end of the fork server."""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from typing import Any

from grader.sandbox.child import Plan
from grader.sandbox.server import interpreter

_PASSED_ON = ("CUDA_VISIBLE_DEVICES",)
_PATIENCE = 2.0  # seconds to wait for another thread's request before the server is left without a word


class ServerError(Exception):
    """The server has ended or refused a request."""


def _environment() -> dict[str, str]:
    """Make the environment of the server and of every child: nothing of the grader's gets in."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",  # the order of a set must not differ from one run to the next
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for CUDA must not initialise it before a fork
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    }


class Client:
    """A running server. Thread-safe: one request at a time.

    Args:
        plan: what the server prepares.

    Raises:
        ServerError: it could not prepare; the message says why.
    """

    def __init__(self, plan: Plan) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*interpreter(), "-m", "grader.sandbox", "server", str(theirs.fileno())],
                env=_environment(), cwd="/", pass_fds=(theirs.fileno(),), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self.alive = True
        self._control.settimeout(plan.limits.start_seconds)
        try:
            self.request({"plan": plan.text()})
        except ServerError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def request(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """Send one request and return the answer.

        Raises:
            ServerError: the server refused it, or has ended (then `alive` is False).
        """
        with self._lock:
            if not self.alive:
                raise ServerError("the sandbox server has ended")
            try:
                data = json.dumps(message).encode() + b"\n"
                socket.send_fds(self._control, [data], descriptors)
                answer = self._hear()
            except (OSError, EOFError) as error:
                self.alive = False
                raise ServerError(f"the sandbox server has ended: {error or 'no answer'}") from None
        if "error" in answer:
            raise ServerError(str(answer["error"]))
        return answer

    def _hear(self) -> dict[str, Any]:
        data = b""
        while not data.endswith(b"\n"):
            more = self._control.recv(65536)
            if not more:
                raise EOFError
            data += more
        answer: dict[str, Any] = json.loads(data)
        return answer

    def poll(self, pid: int, level: str) -> int | None:
        """Return the wait status of a session's process once it has ended."""
        status: int | None = self.request({"do": "poll", "pid": pid, "level": level})["status"]
        return status

    def end(self, pid: int, level: str, seconds: float = 20.0) -> int | None:
        """Kill a session's process with everything it left behind and wait until it is gone."""
        deadline = time.monotonic() + seconds
        while True:
            status: int | None = self.request({"do": "end", "pid": pid, "level": level})["status"]
            if status is not None or time.monotonic() > deadline:
                return status
            time.sleep(0.002)

    def load(self, modules: tuple[str, ...]) -> None:
        """Have the server import modules for the children to come."""
        self.request({"do": "load", "modules": modules})

    def close(self) -> None:
        """End the server, and with it every child."""
        self.alive = False
        if self._lock.acquire(timeout=_PATIENCE):
            with contextlib.suppress(OSError):
                self._control.send(b'{"do": "stop"}\n')
            self._lock.release()
        self._control.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
