"""One submission -> verdicts. The one path that every surface takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache

from grader.calls import Call, Observation
from grader.checks import value_findings
from grader.course import Course, CourseError, Unit, solution_source
from grader.device import CPU, resolve
from grader.exercise import Exercise
from grader.judge import judge
from grader.pack import Pack, PlannedSpeed
from grader.preamble import prepared
from grader.reading import Use
from grader.record import SEED, record
from grader.render.messages import said, translate
from grader.sandbox import Unavailable, WorkerError
from grader.sequential import UNDECIDED
from grader.slicing import Program
from grader.source import scan
from grader.speed import WRONG, Meet, Race, Runner
from grader.subject import Subject
from grader.submission import Submission, SubmissionError
from grader.verdict import ERROR, N_, NOT_ATTEMPTED, NOT_GRADABLE, Finding, Verdict

_GPU = threading.Lock()
"""One process at a time uses the GPU: others would change what is measured there."""
TIMED_CALLS = "timed calls"
BEFORE_GRADING = (CourseError, Unavailable, WorkerError)
"""What is wrong with the course or the machine, not with grading one submission: it ends the run."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to grade: which exercises, from which seed, with or without the hidden cases, on which device besides."""

    seed: int = SEED
    hidden: bool = True
    exercise: str | None = None
    device: str = field(default_factory=resolve)

    def pack(self, exercise: Exercise) -> Pack:
        """Return the pack to grade an exercise with."""
        found = record(exercise, self.seed)
        return found if self.hidden else shown(found)


@lru_cache(maxsize=256)
def shown(pack: Pack) -> Pack:
    """Return the visible part of a pack, always the same object for the same pack."""
    return pack.visible()


@lru_cache(maxsize=256)
def on(pack: Pack, device: str) -> Pack:
    """Return a pack with the calls to make on a device, always the same object for the same pack."""
    return pack.on(device)


def wanted(unit: Unit, options: Options) -> Sequence[Exercise]:
    """Return the exercises to grade."""
    return unit.exercises if options.exercise is None else (unit.exercise(options.exercise),)


def grade(
    course: Course, unit: Unit, found: Submission, subject: Subject, options: Options = Options()
) -> list[Verdict]:
    """Grade a submission's exercises, in teaching order."""
    whole = prepared(course, unit, found)
    return [graded(course, exercise, whole, subject, options) for exercise in wanted(unit, options)]


def graded(course: Course, exercise: Exercise, found: Submission, subject: Subject, options: Options) -> Verdict:
    """Grade one exercise of a class; where the grader itself fails, a person must look at this one."""
    try:
        return grade_exercise(course, exercise, found, subject, options)
    except BEFORE_GRADING:
        raise
    except Exception as error:
        return ungraded(exercise, error, subject.isolation)


def grade_exercise(
    course: Course, exercise: Exercise, found: Submission, subject: Subject, options: Options
) -> Verdict:
    """Grade one exercise of a submission."""
    program = found.program(exercise.name, provided=course.provided_names(exercise))
    if not program.found:
        return replace(absent(exercise, program), isolation=subject.isolation)
    return verdict_on(course, exercise, program, subject, options)


def verdict_on(course: Course, exercise: Exercise, program: Program, subject: Subject, options: Options) -> Verdict:
    """Run a program and judge what it did: on the CPU first; what is right there is timed, and run on the device."""
    start = time.perf_counter()
    pack = options.pack(exercise)
    uses: list[Use] = scan(program, exercise.forbid)
    provided = course.provided(exercise)
    seen = subject.observe(program, provided, pack)
    verdict = judge(pack, seen, uses)
    missing = subject.lacks(options.device)
    device = CPU if missing else options.device
    if is_right(verdict) and (pack.speed is not None or device != CPU):
        there, on_device = pack, None
        with _GPU if device != CPU else nullcontext():
            if device != CPU:
                there = on(pack, device)
                on_device = there, subject.observe(program, provided, there)
            race = measure(course, program, subject, there)
        uses += race.uses if race is not None else ()
        verdict = judge(pack, seen, uses, race, on_device)
    untested = verdict.untested + ((missing,) if missing else ())
    seconds = round(time.perf_counter() - start, 3)
    return replace(verdict, isolation=subject.isolation, seconds=seconds, untested=untested)


def is_right(verdict: Verdict) -> bool:
    """Whether all values are right and nothing forbidden is called, so that its time means something."""
    values = [item.ok for item in verdict.items if item.category == "numerics"]
    return bool(values) and all(values) and not any(f.check == "forbidden" for f in verdict.findings)


def measure(course: Course, program: Program, subject: Subject, pack: Pack) -> Race | None:
    """Time a program beside the reference solution; None where the exercise has no time limit."""
    if pack.speed is None:
        return None
    solution = Program(pack.exercise.name, solution_source(pack.exercise))
    provided = course.provided(pack.exercise)
    for _ in range(2):
        try:
            with subject.runners(program, solution, provided, pack) as (learner, reference):
                return meet(pack.speed, learner, reference, pack.exercise.forbid)
        except WorkerError as error:
            if not error.blameless:
                finding = Finding("runs", f"worker_{error.kind}", TIMED_CALLS, {"text": said(error)})
                return Race(WRONG, pack.speed.limit, finding=finding)
    return Race(UNDECIDED, pack.speed.limit)


def meet(speed: PlannedSpeed, learner: Runner, reference: Runner, forbid: tuple[str, ...] = ()) -> Race:
    """Time two runners side by side; the learner's results must be the reference's."""

    def verify(call: Call, got: Observation, wanted: Observation) -> Finding | None:
        return next(value_findings(speed.planned(call, wanted.outputs), got), None)

    return Meet(learner, reference, speed.limit, speed.call, verify, speed.device, forbid).run()


def absent(exercise: Exercise, program: Program) -> Verdict:
    """Return the verdict where the submission does not define the exercise."""
    base = Verdict(exercise.id, exercise.name, NOT_ATTEMPTED, 0.0, exercise.points)
    if program.broken is None:
        return replace(base, untested=(translate(N_("{name} is not defined"), name=exercise.name),))
    finding = Finding("runs", "broken_cell", facts={"text": program.broken})
    return replace(base, status=ERROR, findings=(finding,))


def ungraded(exercise: Exercise, error: Exception, isolation: str) -> Verdict:
    """Return the verdict on an exercise on which the grader itself failed: for a person to look at."""
    finding = Finding("runs", "internal", facts={"text": f"{type(error).__name__}: {error}"[:200]})
    return Verdict(exercise.id, exercise.name, NOT_GRADABLE, 0.0, exercise.points, (finding,), isolation=isolation)


def unreadable(unit: Unit, error: SubmissionError, options: Options = Options()) -> list[Verdict]:
    """Return the verdicts of a submission that cannot be read."""
    finding = Finding("runs", "unreadable", facts={"text": str(error)})
    return [Verdict(e.id, e.name, ERROR, 0.0, e.points, (finding,)) for e in wanted(unit, options)]
