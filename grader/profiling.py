"""What an implementation does, beside the reference: operations, work, memory, and how they grow. Data only."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grader.calls import Call, Observation
from grader.case import Case
from grader.course import Course, load_course
from grader.device import CPU
from grader.exercise import Exercise
from grader.grade import measure
from grader.judge import STUB_ERROR
from grader.observe import observe
from grader.pack import GIVEN, Expected, Pack, Planned
from grader.preamble import prepared
from grader.reading import Reading
from grader.record import SEED, growing_call, record, saving
from grader.sequential import OVER, UNDECIDED, WITHIN
from grader.slicing import Program
from grader.speed import Race
from grader.subject import Subject, Worker
from grader.submission import SubmissionError, read

STEPS = (1, 2, 4, 8)
"""Sizes of a series, as multiples of the first size that the exercise declares."""
PATIENCE = 1.0
"""Seconds: a series ends with a call that took longer."""
RULINGS = (WITHIN, OVER, UNDECIDED)

Runs = Callable[[Call], Observation]
"""Makes a call and reports it, whatever happens."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One case: what the learner's call and the reference's cost, or the error that the learner's ended with."""

    label: str
    learner: Reading | None
    reference: Reading | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """What a call of one size cost."""

    size: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Series:
    """What calls of growing size cost, and why the series is shorter than it should be."""

    points: tuple[Point, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Grown:
    """One size that grows, for learner and reference."""

    axis: str
    learner: Series
    reference: Series


@dataclass(frozen=True, slots=True)
class Profile:
    """What an implementation does.

    Args:
        exercise: the exercise's id.
        name: what the learner defines.
        cases: the measured cases.
        growths: one for each size that the exercise lets grow.
        isolation: how the learner's code was run.
        race: measured time beside the reference's, where the exercise has a time limit.
        device: where it was measured.
        missing: why it was not measured where it should have been.
    """

    exercise: str
    name: str
    cases: tuple[Measured, ...]
    growths: tuple[Grown, ...] = ()
    isolation: str = ""
    race: Race | None = None
    device: str = CPU
    missing: str = ""

    @property
    def attempted(self) -> bool:
        """Whether there is more than the stub."""
        return not all(case.problem.startswith(STUB_ERROR) for case in self.cases)

    @property
    def complete(self) -> bool:
        """Whether every measured case could be run."""
        return all(case.learner is not None for case in self.cases)


def profile_file(
    path: Path, exercise: str, *, seed: int | None = None, level: str = "auto", device: str = CPU
) -> Profile:
    """Profile an exercise of a notebook or .py file in the sandbox.

    Raises:
        SubmissionError: the file cannot be read or does not define the exercise.
    """
    from grader.pools import open_pool

    course = load_course()
    unit, found = course.find(exercise)
    program = prepared(course, unit, read(path)).program(found.name, provided=course.provided_names(found))
    if not program.found:
        raise SubmissionError(program.broken or f"{path} does not define {found.name}")
    with Worker(open_pool(level)) as worker:
        return profile_program(course, found, program, worker, SEED if seed is None else seed, device)


def profile_program(
    course: Course, exercise: Exercise, program: Program, subject: Subject, seed: int, device: str = CPU
) -> Profile:
    """Profile a program beside the reference, which runs in this process."""

    def learner(call: Call) -> Observation:
        alone = Pack(exercise, seed, (Planned(call, Case(call.label), GIVEN, Expected()),))
        return subject.observe(program, course.provided(exercise), alone)[0]

    def reference(call: Call) -> Observation:
        return observe(exercise.solution, call)

    pack = record(exercise, seed)
    cases = tuple(measured(exercise, call, learner, reference) for call in measured_calls(pack))
    growths: tuple[Grown, ...] = ()
    race = None
    missing = subject.lacks(device)
    if any(case.learner is not None for case in cases):
        growths = tuple(grown(exercise, index, seed, learner, reference) for index in range(len(exercise.growths)))
        race = None if missing else measure(course, program, subject, pack if device == CPU else pack.on(device))
    believed = race if race is not None and race.outcome in RULINGS and race.ratios else None
    return Profile(exercise.id, exercise.name, cases, growths, subject.isolation, believed, device, missing)


def measured_calls(pack: Pack) -> list[Call]:
    """Return the visible calls whose cost is limited, or else the first that returns something."""
    plain = [p for p in pack.planned if p.case.raises is None and not p.case.hidden]
    return [p.call for p in plain if p.cost is not None] or [p.call for p in plain[:1]]


def measured(exercise: Exercise, call: Call, learner: Runs, reference: Runs) -> Measured:
    """Measure one case of both."""
    own, problem = reading_of(exercise, call, learner)
    theirs, _ = reading_of(exercise, call, reference)
    return Measured(call.label, own, theirs, problem)


def reading_of(exercise: Exercise, call: Call, runs: Runs) -> tuple[Reading | None, str]:
    """Make a call and return what it cost, or what it raised; what it keeps for backward takes a call of its own."""
    seen = runs(replace(call, detail=True))
    if seen.raised is not None:
        return None, problem_of(seen)
    if call.saved or not exercise.gradients:
        return seen.reading, ""
    again = runs(saving(exercise, call))
    return replace(seen.reading, saved=again.reading.saved), ""


def problem_of(seen: Observation) -> str:
    """Say what a call ended with."""
    return "" if seen.raised is None else f"{seen.raised.name}: {seen.raised.text}"


def grown(exercise: Exercise, index: int, seed: int, learner: Runs, reference: Runs) -> Grown:
    """Measure both at growing sizes, the learner's no further than the reference goes."""
    calls = growing_calls(exercise, index, seed)
    theirs = series(calls, reference)
    return Grown(exercise.growths[index].axis, series(calls[: len(theirs.points)], learner), theirs)


def growing_calls(exercise: Exercise, index: int, seed: int) -> list[tuple[int, Call]]:
    """Make the calls of a series as far as the exercise goes: a kernel may outgrow its image."""
    calls = []
    for size in (step * exercise.growths[index].sizes[0] for step in STEPS):
        with contextlib.suppress(Exception):
            calls.append((size, replace(growing_call(exercise, index, size, seed), detail=True)))
    return calls


def series(calls: Sequence[tuple[int, Call]], runs: Runs) -> Series:
    """Make calls of growing size until one raises or takes too long."""
    points: list[Point] = []
    for size, call in calls:
        start = time.monotonic()
        seen = runs(call)
        if seen.raised is not None:
            return Series(tuple(points), problem_of(seen))
        points.append(Point(size, seen.reading))
        if time.monotonic() - start > PATIENCE:
            break
    return Series(tuple(points))


def exponent(points: Sequence[Point], name: str) -> float | None:
    """Fit p where a reading grows like size to the power p: least squares in logarithms. None for fewer than two."""
    found = [(math.log(p.size), math.log(max(getattr(p.reading, name), 1))) for p in points]
    if len(found) < 2:
        return None
    middle, height = (sum(column) / len(found) for column in zip(*found, strict=True))
    spread = sum((x - middle) ** 2 for x, _ in found)
    slope: float = sum((x - middle) * (y - height) for x, y in found) / spread
    return slope
