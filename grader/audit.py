"""Is the course itself sound? Every wrong answer must fail and earn its own hint; every right one must pass."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from grader.answers import signature, wrong_answers
from grader.course import Course, CourseError, Unit, solution_source
from grader.exercise import Candidate, Exercise
from grader.grade import meet
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
from grader.verdict import NOT_ATTEMPTED, Verdict

SEEDS = (SEED, SEED + 1, SEED + 2)
LEAST = {"wrong answers": 4, "right answers": 1, "hidden cases": 1, "hints": 3}
DOCUMENTED = ("Args:", "Returns:")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the course that an author must mend."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def audit_exercise(unit: Unit, exercise: Exercise, wrong_seeds: int = 1) -> Iterator[Problem]:
    """Yield what is not sound about one exercise; its wrong answers are tried on as many seeds as said."""
    where = f"reference/{unit.name}/{exercise.id}.py"
    try:
        packs = [record(exercise, seed) for seed in SEEDS]
    except CourseError as error:
        yield Problem(where, str(error))
        return
    for text in [
        *declaration_problems(exercise, packs[0]),
        *right_problems(exercise, packs),
        *(problem for pack in packs[:wrong_seeds] for problem in wrong_problems(pack)),
        *twin_problems(packs[0]),
        *speed_problems(packs[0]),
        *stub_problems(exercise, packs[0]),
        *gradcheck_problems(exercise, packs[0]),
        *example_problems(exercise),
    ]:
        yield Problem(where, text)


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


def declaration_problems(exercise: Exercise, pack: Pack) -> Iterator[str]:
    """Yield what is missing from the declaration."""
    hidden = len({p.case.name for p in pack.planned if p.case.hidden})
    counts = {
        "wrong answers": len(exercise.wrongs), "right answers": len(exercise.rights), "hidden cases": hidden,
        "hints": len(exercise.hints),
    }  # fmt: skip
    for what, least in LEAST.items():
        if counts[what] < least:
            yield f"has {counts[what]} {what}; at least {least} are needed"
    doc = inspect.getdoc(exercise.solution) or ""
    doc += (inspect.getdoc(getattr(exercise.solution, "forward", None)) or "") if exercise.is_module else ""
    for section in DOCUMENTED if not inspect.isclass(exercise.solution) else ("Args:",):
        if section not in doc:
            yield f"the docstring has no {section!r} section"
    if any(p.case.raises for p in pack.planned) and "Raises:" not in doc:
        yield "an exception is graded but the docstring has no 'Raises:' section"
    if ">>>" not in doc:
        yield "the docstring has no worked numeric example (>>>)"
    if not exercise.source:
        yield "names no source"
    graded = {name for p in pack.planned for name in p.call.gradients}
    for name in exercise.gradients:
        if name not in graded:
            yield f"gradients names {name!r}, but no case is differentiated with respect to such an argument"
    names = [wrong.name for wrong in exercise.wrongs]
    if len(set(names)) < len(names):
        yield "two wrong answers have the same name"
    hints = [wrong.hint for wrong in exercise.wrongs]
    if len(set(hints)) < len(hints):
        yield "two wrong answers have the same hint"


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
        if verdict.passed or not caught:
            yield f"the wrong answer {wrong.name!r} passes: add a case that catches it"
        elif wrong.caught_by is not None and wrong.caught_by not in caught:
            yield f"{wrong.name!r} should be caught by {wrong.caught_by!r} but is caught by {sorted(caught)}"
        elif verdict.misconception != wrong.name:
            yield f"{wrong.name!r} earns the hint of {verdict.misconception!r}: add a case that tells them apart"


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
        found = course.unit(name)
        only = None if exercise is None else found.exercise(exercise).id
        for declared in found.exercises:
            if only in (None, declared.id):
                yield f"{name}/{declared.id}", list(audit_exercise(found, declared, wrong_seeds))
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
