"""Mechanical mutants of the solutions: those that run and behave differently must be rejected.

A mutant that no check rejects is either equivalent to the solution or shows that a case is missing. An author who
has looked at it names it in `EQUIVALENT` of the unit, with the reason.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from grader.assess import assess
from grader.calls import Observation
from grader.course import Course, Unit, import_unit, solution_source
from grader.exercise import Candidate, Exercise
from grader.mutants import Mutant, mutants
from grader.observe import observe
from grader.pack import Pack
from grader.parsing import parse
from grader.record import record, run_all

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no check rejects, and why that is right, if an author has said so."""

    title: str
    diff: str
    reason: str | None

    def text(self) -> str:
        """Describe the survivor for an author."""
        head = f"  survivor: {self.title}" + (f" (equivalent: {self.reason})" if self.reason else "")
        return head if self.reason else f"{head}\n{self.diff}"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the mutants of one solution."""

    rejected: int
    behaving: int
    survivors: tuple[Survivor, ...]


def stripped_source(exercise: Exercise) -> str:
    """Return a solution with its helpers and imports, without docstrings, annotations and texts of errors."""
    tree = parse("\n".join(text for _, text in solution_source(exercise)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in [*node.args.args, *node.args.kwonlyargs]:
                argument.annotation = None
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args = []
    return ast.unparse(tree)


def load(exercise: Exercise, source: str) -> Candidate:
    """Make a candidate of a mutant's source, with the names of the solution's own file."""
    scope = dict(vars(importlib.import_module(exercise.solution.__module__)))
    exec(compile(source, "<mutant>", "exec"), scope)  # noqa: S102 - mutants of the course's own solutions
    return scope[exercise.name]  # type: ignore[no-any-return]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after some seconds: a mutant may loop for ever."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fate(exercise: Exercise, pack: Pack, mutant: Mutant) -> str:
    """Return what becomes of a mutant: rejected, survives, or does not run at all."""
    try:
        with time_limit(SECONDS):
            candidate = load(exercise, mutant.source)
            seen: list[Observation] = []
            for call in pack.calls():
                seen.append(observe(candidate, call))
                if len(seen) == 1 and is_broken(seen[0]):
                    return "broken"
            passes = passes_all(pack, seen)
    except TimeoutError:
        return "rejected"
    except Exception:  # a mutant's module level may raise anything
        return "broken"
    return "survives" if passes else "rejected"


def is_broken(seen: Observation) -> bool:
    """Whether a call failed because the mutant is no sensible program."""
    return seen.raised is not None and seen.raised.name in ("NameError", "UnboundLocalError")


def passes_all(pack: Pack, seen: list[Observation]) -> bool:
    """Whether everything passes, without looking for misconceptions."""
    report = assess(pack, seen)
    return not report.findings and all(item.ok for item in report.items)


def mutate_exercise(unit: Unit, exercise: Exercise, reasons: dict[str, str]) -> Report:
    """Try all mutants of one solution."""
    source = stripped_source(exercise)
    pack = record(exercise)
    assert passes_all(pack, run_all(exercise.solution, pack)), unit.name
    rejected = behaving = 0
    survivors = []
    for mutant in mutants(source):
        outcome = fate(exercise, pack, mutant)
        behaving += outcome != "broken"
        rejected += outcome == "rejected"
        if outcome == "survives":
            diff = changed_lines(source, mutant.source)
            survivors.append(Survivor(mutant.title, diff, reasons.get(f"{exercise.id}: {key_of(diff)}")))
    return Report(rejected, behaving, tuple(survivors))


def changed_lines(before: str, after: str) -> str:
    """Return the lines that a mutant removes and adds."""
    lines = difflib.unified_diff(ast.unparse(parse(before)).split("\n"), after.split("\n"), n=0, lineterm="")
    return "\n".join(f"    {line}" for line in lines if not line.startswith(("---", "+++", "@@")))


def key_of(diff: str) -> str:
    """Return the line that a mutant adds, as authors name it in EQUIVALENT."""
    added = [line.strip()[1:].strip() for line in diff.split("\n") if line.strip().startswith("+")]
    return " / ".join(added) or "(line dropped)"


def mutate_course(course: Course, unit: str | None = None, exercise: str | None = None) -> Iterator[tuple[str, Report]]:
    """Try the mutants of all solutions, of one unit's or of one exercise's."""
    for name in [unit] if unit else course.unit_names:
        reasons: dict[str, Any] = getattr(import_unit(course, name), "EQUIVALENT", {})
        found = course.unit(name)
        for declared in found.exercises:
            if exercise in (None, declared.id):
                yield f"{name}/{declared.id}", mutate_exercise(found, declared, reasons)
