"""The grader's end of a worker: requests and replies, and a stopwatch that the worker cannot touch."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from grader import sandbox, wire
from grader.calls import Call, Observation
from grader.device import CPU, perf_counter
from grader.slicing import Program
from grader.speed import Times, TooSlowError

SLACK = 1.0
"""CPU seconds that a worker may use on top of an exercise's own limit: reading the request and packing the reply."""
MOST_SECONDS = 60.0
WORN = 0.25
"""The part of its CPU time after which a child is not given another program."""
DISBELIEF = 5.0
"""A child that says it has used less than this part of the time that passed is not believed."""
MALFORMED = (wire.WireError, TypeError, ValueError, KeyError, AttributeError)
"""What reading a reply may raise when the worker did not send what it was asked for."""

Provided = tuple[tuple[str, str], ...]


class Child:
    """One sandboxed child, started when it is needed, and the requests that `grader.worker` answers.

    Args:
        pool: where children come from.
        cap: seconds, by any clock, that no reply may take; by default only CPU time counts.
    """

    def __init__(self, pool: sandbox.Pool, cap: float | None = None) -> None:
        self.pool, self.cap = pool, cap
        self._session: sandbox.Session | None = None

    @property
    def session(self) -> sandbox.Session:
        """The child; it is started if there is none."""
        if self._session is None:
            self._session = self.pool.start()
        return self._session

    def close(self) -> None:
        """Kill the child."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def worn(self) -> bool:
        """Whether earlier programs have used so much of the child's CPU time that the next one could run short."""
        return self._session is not None and self._session.spent > WORN

    def load(
        self, program: Program, provided: Provided, calls: bytes, seconds: float, probes: Iterable[str] = ()
    ) -> tuple[str, Observation | None]:
        """Have the child load a program and get ready for calls, of which `probes` are the sources.

        Returns the token of the replies to these calls, and what went wrong.
        """
        token = secrets.token_hex(8)
        if self.pool.load_for([*probes, *(source for _, source in (*program.parts, *provided))]) or self.worn():
            self.close()
        request = {"do": "observe", "name": program.name, "parts": program.parts, "provided": provided}
        self.session.send(wire.pack({"token": token, **request}))
        self.session.send(calls)
        found = self.reply(token, seconds)
        return token, None if found is None else Observation.from_data(found)

    def ask(self, seconds: float, **request: Any) -> Any:
        """Send one request and wait for the reply."""
        token = secrets.token_hex(8)
        self.session.send(wire.pack({"token": token, **request}))
        return self.reply(token, seconds)

    def reply(self, token: str, seconds: float) -> Any:
        """Wait for one reply and return its content.

        Raises:
            ValueError: it answers another question.
            WireError, WorkerError: there is none.
        """
        data = wire.unpack(self.session.receive(seconds + SLACK, self.cap))
        if not isinstance(data, dict) or data.get("token") != token:
            raise ValueError("it does not belong to the question")
        return data["content"]


class RemoteLaps:
    """Runs timed blocks in a child, by the grader's own stopwatch. See `grader.speed.Runner`.

    The kernel tells the grader how much CPU time the child has used; what the child itself says counts only
    where the kernel does not, and for the GPU's events.

    Args:
        child: with the program loaded.
        seconds: CPU time for copying inputs and fetching results.
        trusted: it runs the reference: whatever goes wrong in it is nobody's fault.
    """

    def __init__(self, child: Child, seconds: float, *, trusted: bool = False) -> None:
        self.child, self.seconds, self.trusted = child, seconds, trusted
        self.device = CPU
        self.last: float | None = None

    def prepare(self, calls: Sequence[Call]) -> None:
        """Send the calls."""
        self.device = calls[0].device
        self.ask(self.seconds, do="prepare", calls=[call.to_data() for call in calls])

    def go(self, seconds: float) -> Times:
        """Make the calls and measure from outside."""
        session = self.child.session
        start, wall = session.cpu(), perf_counter()
        try:
            said = self.ask(min(seconds, MOST_SECONDS), do="go")
        except sandbox.WorkerError as error:
            if error.kind == "timeout" and not error.blameless:
                raise TooSlowError from None
            raise
        wall, end = perf_counter() - wall, session.cpu()
        before = 0.0 if start is None or self.last is None else start - self.last
        self.last = end
        believed = max(float(said["busy"]), wall / DISBELIEF)
        cpu = believed if start is None or end is None else end - start
        busy = cpu if self.device == CPU else wall
        return Times(busy, wall, float(said["events"]), before, int(said["peak"]))

    def show(self, index: int) -> Observation:
        """Fetch one result."""
        return Observation.from_data(self.ask(self.seconds, do="show", index=index))

    def watch(self, call: Call) -> Observation:
        """Make one watched call."""
        return Observation.from_data(self.ask(self.seconds, do="watch", call=call.to_data()))

    def ask(self, seconds: float, **request: Any) -> Any:
        """Ask the child."""
        try:
            return self.child.ask(seconds, **request)
        except sandbox.WorkerError as error:
            raise sandbox.WorkerError(
                error.kind, error.message, error.blameless or self.trusted, **error.facts
            ) from None
