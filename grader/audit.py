"""Is the course itself sound? Every wrong answer must fail and earn its own hint; every right one must pass."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from grader.answers import signature, wrong_answers
from grader.course import Course, CourseError, Unit, UnknownError, solution_source
from grader.declaration_checks import declaration_problems, uses_problems
from grader.exercise import Candidate, Exercise
from grader.grade import meet
from grader.importing import blame
from grader.judge import judge
from grader.laps import Laps
from grader.likeness import alike
from grader.pack import Pack
from grader.parsing import parse
from grader.record import SEED, record, run_all
from grader.render.messages import sentence
from grader.slicing import Program
from grader.solution_checks import example_problems, gradcheck_problems
from grader.source import scan
from grader.speed import Race
from grader.verdict import NOT_ATTEMPTED, Finding, Verdict

SEEDS = (SEED, SEED + 1, SEED + 2)
RAISES = "runs"
"""The check that catches a wrong answer whose mistake is that it raises."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the course that an author must mend."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def audit_exercise(course: Course, unit: Unit, exercise: Exercise, wrong_seeds: int = 1) -> Iterator[Problem]:
    """Yield what is not sound about one exercise; its wrong answers are tried on as many seeds as said.

    Whatever its file raises is a problem like any other: the exercises after it are audited all the same.
    """
    where = f"{course.package}/{unit.name}/{exercise.id}.py"
    try:
        for text in exercise_problems(course, exercise, wrong_seeds):
            yield Problem(where, text)
    except CourseError as error:
        yield Problem(where, str(error))
    except Exception as error:
        yield Problem(where, f"cannot be audited: {blame(error, course.root / course.package)}")


def exercise_problems(course: Course, exercise: Exercise, wrong_seeds: int) -> Iterator[str]:
    """Yield what is not sound about one exercise."""
    yield from uses_problems(course, exercise)
    packs = [record(exercise, seed) for seed in SEEDS]
    yield from declaration_problems(exercise, packs[0])
    yield from right_problems(exercise, packs)
    for pack in packs[:wrong_seeds]:
        yield from wrong_problems(pack)
    yield from twin_problems(packs[0])
    yield from speed_problems(packs[0])
    yield from stub_problems(exercise, packs[0])
    yield from gradcheck_problems(exercise, packs[0])
    yield from example_problems(exercise)


def unit_problems(unit: Unit) -> Iterator[Problem]:
    """Yield helpers of the same name that differ: in the unit's notebook the later one would replace the earlier."""
    helpers: dict[str, tuple[str, str]] = {}
    for exercise in unit.exercises:
        for _, text in solution_source(exercise):
            for node in parse(text).body:
                name = getattr(node, "name", "")
                if not name or name == exercise.name:
                    continue
                first, source = helpers.setdefault(name, (exercise.id, ast.unparse(node)))
                if source != ast.unparse(node):
                    where = f"reference/{unit.name}/{exercise.id}.py"
                    yield Problem(where, f"its helper {name} differs from the one in {first}.py: rename one of them")


def right_problems(exercise: Exercise, packs: list[Pack]) -> Iterator[str]:
    """Yield right answers, the solution among them, that do not pass on every seed."""
    candidates: list[tuple[str, Candidate]] = [("the solution", exercise.solution)]
    candidates += [(f"the right answer {r.title!r}", r.candidate) for r in exercise.rights]
    for who, candidate in candidates:
        for pack in packs:
            verdict = judge(pack, run_all(candidate, pack))
            if not verdict.passed:
                yield f"{who} does not pass (seed {pack.seed}): {first_sentence(verdict)}"
                break
    for use in scan(Program(exercise.name, solution_source(exercise)), exercise.forbid):
        yield f"the solution uses a forbidden name: {use.name} (line {use.line})"


def wrong_problems(pack: Pack) -> Iterator[str]:
    """Yield wrong answers that pass, are caught by another check, or earn another's hint."""
    for wrong, seen, _ in wrong_answers(pack):
        verdict = judge(pack, seen, race=beside_solution(pack, wrong.candidate) if wrong.caught_by == "speed" else None)
        caught = {f.check for f in verdict.findings}
        accident = None if wrong.caught_by == RAISES else lone_exception(verdict, wrong.caught_by)
        if accident is not None:
            said = f"{wrong.name!r} does nothing wrong but raise ({accident.case}: {sentence(accident)})"
            yield f"{said}: mend it, or say caught_by={RAISES!r}"
        elif verdict.passed or not caught:
            yield f"the wrong answer {wrong.name!r} passes: add a case that catches it"
        elif wrong.caught_by is not None and wrong.caught_by not in caught:
            yield f"{wrong.name!r} should be caught by {wrong.caught_by!r} but is caught by {sorted(caught)}"
        elif verdict.misconception != wrong.name:
            yield f"{wrong.name!r} earns the hint of {verdict.misconception!r}: add a case that tells them apart"


def lone_exception(verdict: Verdict, caught_by: str | None) -> Finding | None:
    """Return where an answer raises if no result of it shows the mistake that it stands for; None if one does."""
    raised = [f for f in verdict.findings if f.check == RAISES]
    shown = {f.check for f in verdict.findings if f.check != RAISES and f.kind != "growth_raised"}
    if not raised or (caught_by in shown if caught_by else shown - {"errors"}):
        return None
    return raised[0]


def twin_problems(pack: Pack) -> Iterator[str]:
    """Yield pairs of wrong answers that look alike on every call."""
    answers = wrong_answers(pack)
    for index, (first, seen, report) in enumerate(answers):
        for second, other, its_report in answers[index + 1 :]:
            if signature(report) == signature(its_report) and all(
                alike(a, b) for a, b in zip(seen, other, strict=True)
            ):
                yield f"{first.name!r} and {second.name!r} look alike on every case: add a case that tells them apart"


def speed_problems(pack: Pack) -> Iterator[str]:
    """Yield right answers that take longer than they may."""
    for right in pack.exercise.rights:
        race = beside_solution(pack, right.candidate)
        if race is not None and race.failed:
            yield f"the right answer {right.title!r} is too slow: {race.ratio:.2g} times the solution's time"


def beside_solution(pack: Pack, candidate: Candidate) -> Race | None:
    """Time a candidate beside the solution in this process."""
    return None if pack.speed is None else meet(pack.speed, Laps(candidate), Laps(pack.exercise.solution))


def stub_problems(exercise: Exercise, pack: Pack) -> Iterator[str]:
    """Yield when an untouched stub is not recognised as such."""

    def stub(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    members: dict[str, Any] = {"__init__": stub}
    candidate = type(exercise.name, (torch.nn.Module,), members) if exercise.is_module else stub
    if judge(pack, run_all(candidate, pack)).status != NOT_ATTEMPTED:
        yield "an untouched stub is not recognised as not attempted"


def first_sentence(verdict: Verdict) -> str:
    """Say the first thing that is wrong."""
    return sentence(verdict.findings[0]) if verdict.findings else verdict.status


def audit(
    course: Course, unit: str | None = None, exercise: str | None = None, wrong_seeds: int = 1
) -> Iterator[tuple[str, list[Problem]]]:
    """Audit the course, one unit or one exercise: yields (exercise, problems) in teaching order."""
    for name in [unit] if unit else course.unit_names:
        try:
            found = course.unit(name)
        except UnknownError:
            raise
        except CourseError as error:
            yield name, [Problem(f"{course.package}/{name}", str(error))]
            continue
        only = None if exercise is None else found.exercise(exercise).id
        for declared in found.exercises:
            if only in (None, declared.id):
                yield f"{name}/{declared.id}", list(audit_exercise(course, found, declared, wrong_seeds))
        if exercise is None:
            yield name, list(unit_problems(found))


def soak(course: Course, checks: int, unit: str | None = None) -> Iterator[str]:
    """Check solutions and right answers over fresh seeds, round robin: yields what is wrong, or an empty text."""
    exercises = [e for name in ([unit] if unit else course.unit_names) for e in course.unit(name).exercises]
    made = 0
    for seed in itertools.count(SEED + 1000):
        for exercise in exercises:
            pack = record(exercise, seed)
            for candidate in [exercise.solution, *(right.candidate for right in exercise.rights)]:
                verdict = judge(pack, run_all(candidate, pack))
                yield (
                    ""
                    if verdict.passed
                    else f"{exercise.id}, {candidate.__name__}, seed {seed}: {first_sentence(verdict)}"
                )
                made += 1
                if made >= checks:
                    return
        record.cache_clear()
