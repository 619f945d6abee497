"""reference/ -> solutions/ -> assignments/: the notebooks that instructors and learners open.

`reference/<unit>/lesson.md` is Markdown whose ```python fences become code cells; a line `<!-- exercise: NAME -->`
marks where an exercise stands. Everything is deterministic: the same sources give the same bytes.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from grader.course import Course, CourseError, Unit
from grader.exercise import LEVELS, Exercise
from grader.preamble import setup
from grader.render.budget import budget, listed
from grader.stubs import solution_cell

MARKER = re.compile(r"^<!-- exercise: (\w+) -->$", re.MULTILINE)
SECTION = re.compile(r"^(?=## )", re.MULTILINE)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def build(course: Course, units: Sequence[str], into: Path) -> list[Path]:
    """Write solution and assignment notebooks of some units below `into`; returns the files."""
    written = []
    for name in units:
        unit = course.unit(name)
        solution = into / "solutions" / name / f"{name}.ipynb"
        solution.parent.mkdir(parents=True, exist_ok=True)
        solution.write_text(nbformat.writes(solution_notebook(course, unit)) + "\n", encoding="utf-8")
        written.append(solution)
    for name, text in released(into / "solutions", units).items():
        release = into / "assignments" / name / f"{name}.ipynb"
        release.parent.mkdir(parents=True, exist_ok=True)
        release.write_text(text, encoding="utf-8")
        written.append(release)
    return written


def stale(course: Course, units: Sequence[str]) -> list[str]:
    """Build in a scratch folder and name the files in the course that differ."""
    with tempfile.TemporaryDirectory() as scratch:
        made = build(course, units, Path(scratch))
        names = [path.relative_to(scratch) for path in made]
        return [
            str(n)
            for n, path in zip(names, made, strict=True)
            if not (course.root / n).exists() or (course.root / n).read_bytes() != path.read_bytes()
        ]


def solution_notebook(course: Course, unit: Unit) -> nbformat.NotebookNode:
    """Make a unit's solution notebook: lesson, setup, and per exercise a heading, the solution and its check."""
    lesson = unit.folder / "lesson.md"
    if not lesson.exists():
        raise CourseError(f"{lesson} is missing: every unit has a lesson")
    placed: list[str] = []
    cells: list[Any] = []
    for cell in lesson_cells(lesson.read_text(encoding="utf-8")):
        if isinstance(cell, str):
            exercise = unit.exercise(cell)
            placed.append(exercise.id)
            cells += exercise_cells(unit, exercise)
        else:
            cells.append(cell)
    if placed != [e.id for e in unit.exercises]:
        raise CourseError(f"{lesson} must mark every exercise once, in the order of EXERCISES; it marks {placed}")
    first = next((i for i, c in enumerate(cells) if c["cell_type"] == "markdown"), -1) + 1
    cells.insert(first, new_code_cell(setup(course, unit), metadata={"nbgrader": marks("setup", locked=True)}))
    for number, cell in enumerate(cells):
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["id"] = f"{unit.name}-{grade_id or number}".replace("_", "-")[:64]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nbformat.validate(notebook)
    return notebook


def lesson_cells(text: str) -> Iterator[Any]:
    """Yield Markdown and code cells of a lesson, and the ids of exercises where they are marked."""
    import jupytext

    for cell in jupytext.reads(text, fmt="md").cells:
        if cell.cell_type == "code":
            yield new_code_cell(cell.source)
            continue
        for number, part in enumerate(MARKER.split(cell.source)):
            if number % 2:
                yield part
            else:
                yield from (new_markdown_cell(text.strip()) for text in SECTION.split(part) if text.strip())


def marks(
    grade_id: str, *, grade: bool = False, solution: bool = False, locked: bool = False, points: int | None = None
) -> dict[str, Any]:
    """Return nbgrader's cell metadata (schema 3)."""
    found = {
        "grade": grade, "grade_id": grade_id, "locked": locked, "schema_version": 3, "solution": solution,
        "task": False,
    }  # fmt: skip
    return found if points is None else {**found, "points": points}


def exercise_cells(unit: Unit, exercise: Exercise) -> list[Any]:
    """Return heading, solution and check of an exercise."""
    name = exercise.name
    check = f"check({name})\n### BEGIN HIDDEN TESTS\ncheck({name}, hidden=True)\n### END HIDDEN TESTS"
    return [
        new_markdown_cell(heading(unit, exercise)),
        new_code_cell(solution_cell(exercise), metadata={"nbgrader": marks(exercise.id, solution=True)}),
        new_code_cell(
            check, metadata={"nbgrader": marks(f"check_{exercise.id}", grade=True, locked=True, points=exercise.points)}
        ),
    ]


def heading(unit: Unit, exercise: Exercise) -> str:
    """Introduce an exercise: name, difficulty, points, what it may build on, and how to get hints."""
    number = [e.id for e in unit.exercises].index(exercise.id) + 1
    extra = ", extra" if exercise.extra else ""
    lines = [f"### Exercise {number}: `{exercise.name}` ({LEVELS[exercise.points]}, {exercise.points} points{extra})"]
    if exercise.uses:
        used = listed([f"`{name}`" for name in exercise.uses], "and")
        stand = "it" if len(exercise.uses) == 1 else "them"
        lines.append(f"You may call {used} from before: when this is checked, the reference stands in for {stand}.")
    if exercise.forbid:
        words = listed([f"`{word}`" for word in exercise.forbid], "and")
        lines.append(f"Write it yourself. What torch has of these names, also as a method, may not be called: {words}.")
    if found := budget(exercise):
        lines.append(found)
    lines.append(f"Stuck? `hint({exercise.name})` gives one more hint each time.")
    return "\n\n".join(lines)


def released(solutions: Path, units: Sequence[str]) -> dict[str, str]:
    """Run nbgrader's own GenerateAssignment in a scratch course and return the text of each release notebook."""
    from grader.nbgrader.release import generate

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in units:
            shutil.copytree(solutions / name, root / "solutions" / name)
        generate(root, units)
        return {name: (root / "assignments" / name / f"{name}.ipynb").read_text(encoding="utf-8") for name in units}
