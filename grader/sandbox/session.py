"""One sandboxed process, as the grader sees it: frames to it and from it, and an end to it in every case."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from grader.sandbox.channel import Channel
from grader.sandbox.client import Client, ServerError
from grader.sandbox.errors import CPU_TIME, Kind, WorkerError, death, size
from grader.sandbox.frames import FrameError
from grader.sandbox.limits import Limits
from grader.sandbox.usage import POLL_SECONDS, Usage, cpu_clock, settled, usage
from grader.verdict import N_

WAITED = N_("spent {waited} s waiting, and {computed} s computing")


class Session:
    """One confined process, for one submission; use it from one thread.

    Args:
        client: the server whose child the process is.
        pid: the process.
        level: its isolation.
        limits: what it may use.
        channel: to it; owned by the session from now on.
        release: called once, when the process is gone.
    """

    def __init__(
        self,
        client: Client,
        pid: int,
        level: str,
        limits: Limits,
        channel: Channel,
        release: Callable[["Session"], None],
    ) -> None:
        self.pid = pid
        self._client, self._level, self._limits, self._channel, self._release = client, level, limits, channel, release
        self._asked = self._answered = 0
        self._used = Usage(0.0, 0)
        self._waited = 0.0
        self._failure: WorkerError | None = None
        self._handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def output(self) -> str:
        """What the process has printed, as far as it has been read; never more than the limit."""
        return self._channel.printed.decode("utf-8", "replace")

    def send(self, frame: bytes) -> None:
        """Queue a frame for the process. It never waits: what does not fit into the pipe goes out in `receive`.

        Raises:
            WorkerError: the session is over, or (kind "reply") an answer that nobody asked for was waiting.
        """
        self._check()
        if self._answered >= self._asked and self._channel.unread():
            raise self._fail("reply", N_("sent bytes that nobody had asked for"))
        self._asked += 1
        self._channel.post(frame)

    def receive(self, cpu: float, wall: float | None = None) -> bytes:
        """Wait for the next whole frame.

        Args:
            cpu: CPU-seconds the process may use from now on.
            wall: seconds it may take; by default three times `cpu` plus the slack of the limits, because a busy
                machine must not cost a learner points, and a sleeping process must not hold up the others.

        Raises:
            WorkerError: with the reason. The process is gone by then, whatever the reason.
        """
        self._check()
        wall = 3 * cpu + self._limits.wall_slack if wall is None else wall
        looked = time.monotonic()
        deadline, start = looked + wall, cpu_clock(self.pid) or (usage(self.pid) or self._used).cpu
        while True:
            before = time.monotonic()
            connected = self._channel.exchange(POLL_SECONDS)
            self._waited += time.monotonic() - before
            frame = self._take()
            if frame is not None:
                return frame
            if not connected:
                raise self._ended()
            now = time.monotonic()
            if now - looked >= POLL_SECONDS:
                looked = now
                self._watch(start, cpu)
            if now > deadline:
                raise self._fail("timeout", N_("did not answer within {seconds} s"), seconds=f"{wall:g}")

    def cpu(self) -> float | None:
        """Return the CPU seconds that the process has used, exactly, as the kernel counts them for the grader.

        None where that cannot be had: what the process itself says is all there is.
        """
        return settled(self.pid)

    @property
    def spent(self) -> float:
        """The part of its CPU time that the process has used, as far as that can be seen."""
        used = cpu_clock(self.pid) or (usage(self.pid) or self._used).cpu
        return used / self._limits.cpu_seconds

    def close(self) -> None:
        """Kill the process and everything left of it, and wait until it is gone. Harmless when repeated."""
        if self._failure is None:
            self._fail("closed", N_("the session was closed"))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _take(self) -> bytes | None:
        """Return an answer if it is whole, with what was printed before it."""
        try:
            frame = self._channel.take()
        except FrameError:
            raise self._fail(
                "reply", N_("its answer is larger than {size}"), size=size(self._limits.frame_bytes)
            ) from None
        if frame is not None:
            self._channel.read_output()
            self._answered += 1
        if self._channel.overflowed:
            raise self._fail("output", N_("printed more than {size}"), size=size(self._limits.output_bytes))
        return frame

    def _watch(self, start: float, cpu: float) -> None:
        """Stop a process that uses too much, and one that has ended while something else holds its pipe open."""
        now = usage(self.pid)
        if now is None:
            return  # not to be seen on this system: the kernel's limits and the wall clock stand
        if not now.alive:
            raise self._ended()
        self._used = now
        if now.memory > self._limits.memory_bytes:
            raise self._fail("memory", N_("used more than {size} of memory"), size=size(self._limits.memory_bytes))
        if self._waited > 10 * now.cpu + self._limits.idle_seconds:
            raise self._fail("timeout", WAITED, waited=f"{self._waited:.0f}", computed=f"{now.cpu:.0f}")
        for used, limit in ((now.cpu, self._limits.cpu_seconds), (now.cpu - start, cpu)):
            if used > limit:
                raise self._fail("timeout", CPU_TIME, seconds=f"{limit:g}")

    def _ended(self) -> WorkerError:
        """Find out how the process ended; one that only closed its pipe is killed."""
        status, self._used = None, usage(self.pid) or self._used
        for _ in range(100):
            with contextlib.suppress(ServerError):
                status = self._client.poll(self.pid, self._level)
            if status is not None or not self._client.alive:
                break
            time.sleep(0.005)
        self._channel.read_output()
        if not self._client.alive:
            return self._fail("crash", N_("ended together with the sandbox server"), blameless=True)
        if status is None:
            return self._fail("closed", N_("closed its answer pipe without answering"))
        error = death(status, self._used.cpu, self._limits.cpu_seconds, self.output)
        return self._fail(error.kind, error.message, **error.facts)

    def _fail(self, kind: Kind, message: str, blameless: bool = False, **facts: Any) -> WorkerError:
        """End the session for this reason: kill the process, keep its last words, free everything."""
        self._failure = WorkerError(kind, message, blameless, **facts)
        if self._handle is not None:  # it names this process even when the server has gone
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            os.close(self._handle)
        with contextlib.suppress(ServerError):
            self._client.end(self.pid, self._level)
        self._channel.read_output()
        self._channel.close()
        self._release(self)
        return self._failure
