"""Is the course itself sound? Every wrong answer must fail and earn its own hint; every right one must pass."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from grader.calls import Call
from grader.course import Course, CourseError, Unit, solution_source
from grader.exercise import Candidate, Exercise
from grader.judge import alike, judge, signature, wrong_answers
from grader.pack import Pack
from grader.record import SEED, record, run_all
from grader.render.messages import sentence
from grader.source import scan
from grader.submission import Program
from grader.tolerance import difference
from grader.verdict import NOT_ATTEMPTED, Verdict
from grader.wire import fresh

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


def audit_exercise(unit: Unit, exercise: Exercise) -> Iterator[Problem]:
    """Yield what is not sound about one exercise."""
    where = f"reference/{unit.name}/{exercise.id}.py"
    try:
        packs = [record(exercise, seed) for seed in SEEDS]
    except CourseError as error:
        yield Problem(where, str(error))
        return
    for text in [
        *declaration_problems(exercise, packs[0]),
        *right_problems(exercise, packs),
        *wrong_problems(exercise, packs[0]),
        *twin_problems(packs[0]),
        *stub_problems(exercise, packs[0]),
        *gradcheck_problems(exercise, packs[0]),
        *example_problems(exercise),
    ]:
        yield Problem(where, text)


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


def wrong_problems(exercise: Exercise, pack: Pack) -> Iterator[str]:
    """Yield wrong answers that pass, are caught by another check, or earn another's hint."""
    for wrong, seen, report in wrong_answers(pack):
        verdict = judge(pack, seen)
        caught = {f.check for f in report.findings}
        if verdict.passed or not report.findings:
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


def stub_problems(exercise: Exercise, pack: Pack) -> Iterator[str]:
    """Yield when an untouched stub is not recognised as such."""

    def stub(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    members: dict[str, Any] = {"__init__": stub}
    candidate = type(exercise.name, (torch.nn.Module,), members) if exercise.is_module else stub
    if judge(pack, run_all(candidate, pack)).status != NOT_ATTEMPTED:
        yield "an untouched stub is not recognised as not attempted"


def gradcheck_problems(exercise: Exercise, pack: Pack) -> Iterator[str]:
    """Compare the solution's gradients with numeric ones on the smallest differentiable calls."""
    calls = [p.call for p in pack.planned if p.expected.gradients and p.call.probe is None and p.call.state is None]
    for call in sorted(calls, key=size_of)[:1]:
        error = numeric_gap(exercise.solution, call)
        if error > 1e-5:
            yield f"gradients of the solution differ from numeric ones by {error:.1e} on {call.label!r}"


def size_of(call: Call) -> int:
    """Count the elements that a call is differentiated with respect to."""
    wanted = [call.inputs[name] for name in call.gradients]
    return sum(t.numel() for t in wanted if isinstance(t, torch.Tensor)) or 10**9


def numeric_gap(candidate: Candidate, call: Call) -> float:
    """Return the largest relative gap between autograd and central differences along one random direction."""
    args, kwargs = fresh((call.args, call.kwargs))
    inputs = dict(zip(call.names, args, strict=True)) | kwargs
    wanted = [inputs[name] for name in call.gradients if isinstance(inputs.get(name), torch.Tensor)]
    if not wanted or size_of(call) > 2000:
        return 0.0
    source = torch.Generator().manual_seed(call.seed)
    ways = [torch.randn(t.shape, generator=source, dtype=t.dtype) for t in wanted]

    def total(step: float, *, graph: bool) -> torch.Tensor:
        for tensor, start, way in zip(wanted, starts, ways, strict=True):
            tensor.requires_grad_(requires_grad=False)
            tensor.copy_(start + step * way)
            tensor.requires_grad_(graph)
        result = candidate(*args, **kwargs)
        first = result[0] if isinstance(result, (list, tuple)) else result
        weight = torch.randn(first.shape, generator=torch.Generator().manual_seed(1), dtype=first.dtype)
        finite = torch.isfinite(first.detach())
        return (torch.where(finite, first, 0.0) * weight).sum()

    starts = [t.detach().clone() for t in wanted]
    gradients = torch.autograd.grad(total(0.0, graph=True), wanted, allow_unused=True)
    along = sum(((g * w).sum() for g, w in zip(gradients, ways, strict=True) if g is not None), torch.zeros(()))
    step = 1e-6
    numeric = (total(step, graph=False) - total(-step, graph=False)) / (2 * step)
    scale = max(float(numeric.abs()), 1e-3)
    return difference(along.double() / scale, numeric.double() / scale).max if float(numeric.abs()) > 1e-6 else 0.0


def example_problems(exercise: Exercise) -> Iterator[str]:
    """Run the docstring's examples."""
    names = {"torch": torch, exercise.name: exercise.solution, **vars(inspect.getmodule(exercise.solution) or object())}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    lines: list[str] = []
    for test in doctest.DocTestFinder(recurse=inspect.isclass(exercise.solution)).find(
        exercise.solution, exercise.name, globs=names
    ):
        runner.run(test, out=lines.append, clear_globs=False)
    if runner.failures:
        yield "the docstring's example is not what comes out:\n" + re.sub(r"\*+\n", "", "".join(lines)).strip()


def first_sentence(verdict: Verdict) -> str:
    """Say the first thing that is wrong."""
    return sentence(verdict.findings[0]) if verdict.findings else verdict.status


def audit(course: Course, unit: str | None = None, exercise: str | None = None) -> Iterator[tuple[str, list[Problem]]]:
    """Audit the course, one unit or one exercise: yields (exercise, problems) in teaching order."""
    for name in [unit] if unit else course.unit_names:
        found = course.unit(name)
        for declared in found.exercises:
            if exercise in (None, declared.id):
                yield f"{name}/{declared.id}", list(audit_exercise(found, declared))
