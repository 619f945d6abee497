"""Checks of a declaration: what an exercise must have, and names that must stand for something."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from grader.course import Course, meant, unit_exercises
from grader.exercise import Exercise
from grader.pack import Pack

LEAST = {"wrong answers": 4, "right answers": 1, "hidden cases": 1, "hints": 3}
DOCUMENTED = ("Args:", "Returns:")


def uses_problems(course: Course, exercise: Exercise) -> Iterator[str]:
    """Yield names in `uses` that no earlier exercise has."""
    known = [name for unit in course.unit_names for name in unit_exercises(course, unit)]
    earlier = known[: known.index(exercise.id)] if exercise.id in known else known
    for name in exercise.uses:
        if name not in known:
            yield f"uses {name!r}, which the course does not have{meant(name, earlier)}"
        elif name not in earlier:
            yield f"uses {name!r}, which does not stand before it in the course"


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
