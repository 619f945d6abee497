"""Whoever runs a learner's code: this process (a notebook's own kernel) or a sandboxed worker."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Protocol, Self

from grader import sandbox, wire
from grader.calls import Observation, crashed
from grader.observe import observe
from grader.pack import Pack
from grader.slicing import Program

SLACK = 1.0
"""CPU seconds that a worker may use on top of an exercise's own limit: reading the request and packing the reply."""

Provided = tuple[tuple[str, str], ...]


class Subject(Protocol):
    """Runs a program on the calls of a pack."""

    @property
    def isolation(self) -> str:
        """The level of isolation it runs in, in words."""
        ...

    def observe(self, program: Program, provided: Provided, pack: Pack) -> list[Observation]:
        """Return one observation per call of the pack, whatever happens."""
        ...


@dataclass(frozen=True, slots=True)
class InProcess:
    """Calls a live function in this process. Accidents are reported, malice is not stopped."""

    candidate: Callable[..., Any]
    isolation: str = "none"

    def observe(self, program: Program, provided: Provided, pack: Pack) -> list[Observation]:  # noqa: ARG002
        """Run the live candidate on all calls."""
        return [observe(self.candidate, call) for call in pack.calls()]


class Worker:
    """One sandboxed child, which runs all exercises of one submission; a child that died is replaced.

    Args:
        pool: where children come from.
        cap: seconds, by any clock, that no call may exceed; by default only the exercise's CPU time counts.
    """

    def __init__(self, pool: sandbox.Pool, cap: float | None = None) -> None:
        self.pool = pool
        self.cap = cap
        self.isolation = pool.isolation
        self.session: sandbox.Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the child."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def observe(self, program: Program, provided: Provided, pack: Pack) -> list[Observation]:
        """Run a program in the child. A hang, crash or memory bomb costs the rest of this pack, nothing more."""
        calls = pack.calls()
        seen: list[Observation] = []
        try:
            seen.extend(self.replies(program, provided, pack))
        except sandbox.WorkerError as error:
            seen.append(crashed(error.kind, str(error)))
            self.close()
        except (wire.WireError, TypeError, ValueError, KeyError, AttributeError) as error:
            seen.append(crashed("reply", f"the answer could not be read ({error})"))
            self.close()
        if seen and seen[0].raised is not None and seen[0].raised.stage == "load":
            return seen[:1] * len(calls)
        unrun = crashed("closed", "an earlier call of this exercise ended the process")
        return (seen + [unrun] * len(calls))[: len(calls)]

    def replies(self, program: Program, provided: Provided, pack: Pack) -> Iterator[Observation]:
        """Send one request and yield the observations as they come."""
        if self.session is None:
            self.session = self.pool.start()
        token = secrets.token_hex(8)
        self.session.send(
            wire.pack({"token": token, "name": program.name, "parts": program.parts, "provided": provided})
        )
        self.session.send(packed_calls(pack))
        problem = self.next_reply(token, pack.exercise.seconds)
        if problem is not None:
            yield problem
            return
        for call in pack.calls():
            found = self.next_reply(token, call.seconds)
            if found is None:
                raise ValueError("an empty answer")
            yield found

    def next_reply(self, token: str, seconds: float) -> Observation | None:
        """Wait for one reply."""
        assert self.session is not None
        data = wire.unpack(self.session.receive(seconds + SLACK, self.cap))
        if not isinstance(data, dict) or data.get("token") != token:
            raise ValueError("it does not belong to the question")
        content = data["content"]
        return None if content is None else Observation.from_data(content)


@lru_cache(maxsize=512)
def packed_calls(pack: Pack) -> bytes:
    """Pack the calls of a pack, once for all submissions."""
    return wire.pack([call.to_data() for call in pack.calls()])
