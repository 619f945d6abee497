"""One submission -> verdicts. The one path that every surface takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from grader.course import Course, Unit
from grader.exercise import Exercise
from grader.judge import judge
from grader.meter import Use
from grader.pack import Pack
from grader.record import SEED, record
from grader.slicing import Program
from grader.source import scan
from grader.subject import Subject
from grader.submission import Submission, SubmissionError
from grader.verdict import ERROR, NOT_ATTEMPTED, Finding, Verdict


@dataclass(frozen=True, slots=True)
class Options:
    """How to grade: which exercises, from which seed, with or without the hidden cases."""

    seed: int = SEED
    hidden: bool = True
    exercise: str | None = None

    def pack(self, exercise: Exercise) -> Pack:
        """Return the pack to grade an exercise with."""
        found = record(exercise, self.seed)
        return found if self.hidden else shown(found)


@lru_cache(maxsize=256)
def shown(pack: Pack) -> Pack:
    """Return the visible part of a pack, always the same object for the same pack."""
    return pack.visible()


def wanted(unit: Unit, options: Options) -> Sequence[Exercise]:
    """Return the exercises to grade."""
    return unit.exercises if options.exercise is None else (unit.exercise(options.exercise),)


def grade(
    course: Course, unit: Unit, found: Submission, subject: Subject, options: Options = Options()
) -> list[Verdict]:
    """Grade a submission's exercises, in teaching order."""
    return [grade_exercise(course, exercise, found, subject, options) for exercise in wanted(unit, options)]


def grade_exercise(
    course: Course, exercise: Exercise, found: Submission, subject: Subject, options: Options
) -> Verdict:
    """Grade one exercise of a submission."""
    program = found.program(exercise.name, provided=course.provided_names(exercise))
    if not program.found:
        return replace(absent(exercise, program), isolation=subject.isolation)
    return verdict_on(course, exercise, program, subject, options)


def verdict_on(course: Course, exercise: Exercise, program: Program, subject: Subject, options: Options) -> Verdict:
    """Run a program and judge what it did."""
    start = time.perf_counter()
    pack = options.pack(exercise)
    uses: list[Use] = scan(program, exercise.forbid)
    seen = subject.observe(program, course.provided(exercise), pack)
    verdict = judge(pack, seen, uses)
    return replace(verdict, isolation=subject.isolation, seconds=round(time.perf_counter() - start, 3))


def absent(exercise: Exercise, program: Program) -> Verdict:
    """Return the verdict where the submission does not define the exercise."""
    base = Verdict(exercise.id, exercise.name, NOT_ATTEMPTED, 0.0, exercise.points)
    if program.broken is None:
        return replace(base, untested=(f"{exercise.name} is not defined",))
    finding = Finding("runs", "broken_cell", facts={"text": program.broken})
    return replace(base, status=ERROR, findings=(finding,))


def unreadable(unit: Unit, error: SubmissionError, options: Options = Options()) -> list[Verdict]:
    """Return the verdicts of a submission that cannot be read."""
    finding = Finding("runs", "unreadable", facts={"text": str(error)})
    return [Verdict(e.id, e.name, ERROR, 0.0, e.points, (finding,)) for e in wanted(unit, options)]
