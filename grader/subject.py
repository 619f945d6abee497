"""Whoever runs a learner's code: this process (a notebook's own kernel) or a sandboxed worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Protocol, Self

from grader import sandbox, wire
from grader.calls import Observation, crashed
from grader.device import CPU, missing
from grader.laps import Laps
from grader.observe import observe
from grader.pack import Pack
from grader.remote import MALFORMED, Child, Provided, RemoteLaps
from grader.render.messages import said, translate
from grader.sandbox.usage import on_one_core
from grader.slicing import Program
from grader.speed import Runner
from grader.verdict import N_

REFERENCE_SECONDS = 60.0
ASKING_SECONDS = 30.0
"""The first question about a GPU loads its driver."""
NO_CALLS = wire.pack([])
CONFINED = N_("not gradable here: this level of isolation keeps code from the GPU; use --isolation portable")


class Subject(Protocol):
    """Runs a program on the calls of a pack."""

    @property
    def isolation(self) -> str:
        """The level of isolation it runs in, in words."""
        ...

    def observe(self, program: Program, provided: Provided, pack: Pack) -> list[Observation]:
        """Return one observation per call of the pack, whatever happens."""
        ...

    def lacks(self, device: str) -> str:
        """Say why calls cannot be made on a device here; nothing if they can."""
        ...

    def runners(
        self, program: Program, solution: Program, provided: Provided, pack: Pack
    ) -> AbstractContextManager[tuple[Runner, Runner]]:
        """Return runners of timed calls: of a program, and of the reference in a process that never saw learner code.

        Raises:
            WorkerError: a process ended; so do the runners.
        """
        ...


@dataclass(frozen=True, slots=True)
class InProcess:
    """Calls a live function in this process. Accidents are reported, malice is not stopped."""

    candidate: Callable[..., Any]
    isolation: str = "none"

    def observe(self, program: Program, provided: Provided, pack: Pack) -> list[Observation]:  # noqa: ARG002
        """Run the live candidate on all calls."""
        return [observe(self.candidate, call) for call in pack.calls()]

    def lacks(self, device: str) -> str:
        """Say what is missing."""
        return missing(device)

    @contextmanager
    def runners(
        self,
        program: Program,  # noqa: ARG002
        solution: Program,  # noqa: ARG002
        provided: Provided,  # noqa: ARG002
        pack: Pack,
    ) -> Iterator[tuple[Runner, Runner]]:
        """Time both in this process."""
        yield Laps(self.candidate), Laps(pack.exercise.solution)


class Worker:
    """One sandboxed child, which runs all exercises of one submission; a child that died is replaced.

    Args:
        pool: where children come from.
        cap: seconds, by any clock, that no call may exceed; by default only the exercise's CPU time counts.
        beside: the child that runs the reference. It never sees learner code: the workers of one thread may share it.
    """

    def __init__(self, pool: sandbox.Pool, cap: float | None = None, beside: Child | None = None) -> None:
        self.isolation, self.level = pool.isolation, pool.level
        self.child = Child(pool, cap)
        self.beside = Child(pool, cap) if beside is None else beside
        self.shared = beside is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the child, and the one that runs the reference beside it unless others use it too."""
        self.child.close()
        if not self.shared:
            self.beside.close()

    def start_over(self) -> None:
        """Kill both children."""
        self.child.close()
        self.beside.close()

    def observe(self, program: Program, provided: Provided, pack: Pack) -> list[Observation]:
        """Run a program in the child. A hang, crash or memory bomb costs the rest of this pack, nothing more."""
        seen, blameless = self.attempt(program, provided, pack)
        if blameless:  # the server died and took the child along: nothing the program did
            seen, _ = self.attempt(program, provided, pack)
        if seen and seen[0].raised is not None and seen[0].raised.stage == "load":
            return seen[:1] * len(pack.calls())
        unrun = crashed("closed", translate(N_("an earlier call of this exercise ended the process")))
        return (seen + [unrun] * len(pack.calls()))[: len(pack.calls())]

    def attempt(self, program: Program, provided: Provided, pack: Pack) -> tuple[list[Observation], bool]:
        """Observe calls until one ends the child; returns whether that was nobody's fault."""
        seen: list[Observation] = []
        try:
            seen.extend(self.replies(program, provided, pack))
        except sandbox.WorkerError as error:
            self.child.close()
            return [*seen, crashed(error.kind, said(error))], error.blameless
        except MALFORMED as error:
            seen.append(crashed("reply", str(error)))
            self.child.close()
        return seen, False

    def replies(self, program: Program, provided: Provided, pack: Pack) -> Iterator[Observation]:
        """Load a program and yield the observations as they come."""
        probes = {call.probe for call in pack.calls() if call.probe is not None}
        token, problem = self.child.load(program, provided, packed_calls(pack), pack.exercise.seconds, probes)
        if problem is not None:
            yield problem
            return
        for call in pack.calls():
            yield Observation.from_data(self.child.reply(token, call.seconds))

    def lacks(self, device: str) -> str:
        """Say what is missing; the stronger levels of isolation keep code from every device file."""
        if device == CPU:
            return ""
        if self.level != "portable":
            return CONFINED
        try:
            return str(self.beside.ask(ASKING_SECONDS, do="lacks", device=device))
        except sandbox.WorkerError as error:
            self.beside.close()
            return f"{missing(device) or device}: {said(error)}"

    @contextmanager
    def runners(
        self, program: Program, solution: Program, provided: Provided, pack: Pack
    ) -> Iterator[tuple[Runner, Runner]]:
        """Time the program in this child and the reference in another one."""
        seconds = pack.exercise.seconds
        try:
            self.child.load(program, provided, NO_CALLS, seconds)
            self.beside.load(solution, provided, NO_CALLS, seconds)
            with on_one_core([self.child.session.pid, self.beside.session.pid]):
                yield RemoteLaps(self.child, seconds), RemoteLaps(self.beside, REFERENCE_SECONDS, trusted=True)
        except sandbox.WorkerError:
            self.start_over()
            raise
        except MALFORMED as error:
            self.start_over()
            raise sandbox.WorkerError(
                "reply", N_("sent an answer that could not be read ({error})"), error=error
            ) from None


@lru_cache(maxsize=512)
def packed_calls(pack: Pack) -> bytes:
    """Pack the calls of a pack, once for all submissions."""
    return wire.pack([call.to_data() for call in pack.calls()])
