"""reference/ -> solutions/ -> assignments/: the notebooks that instructors and learners open.

`reference/<unit>/lesson.md` is Markdown whose ```python fences become code cells; a line `<!-- exercise: NAME -->`
marks where an exercise stands. Everything is deterministic: the same sources give the same bytes. In another language
the words come from the unit's catalogue; code, cells and points stay the same, so that one course grades them all.
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
from grader.render.budget import AND, budget, listed
from grader.render.messages import language, speaking, translate
from grader.stubs import solution_cell
from grader.verdict import N_
from grader.wording import translated, with_docstrings

MARKER = re.compile(r"^<!-- exercise: (\w+) -->$", re.MULTILINE)
SECTION = re.compile(r"^(?=## )", re.MULTILINE)
SPEAK = 'os.environ.setdefault("GRADER_LANG", "{language}")'
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def build(course: Course, units: Sequence[str], into: Path, language: str = "en") -> list[Path]:
    """Write solution and assignment notebooks of some units, in a language, below `into`; returns the files."""
    written = []
    for name in units:
        with speaking(language):
            notebook = solution_notebook(course, course.unit(name))
        solution = into / "solutions" / name / f"{name}.ipynb"
        solution.parent.mkdir(parents=True, exist_ok=True)
        solution.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
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
    placed: list[str] = []
    cells: list[Any] = []
    for cell in lesson_cells(lesson(unit)):
        if isinstance(cell, str):
            exercise = unit.exercise(cell)
            placed.append(exercise.id)
            cells += exercise_cells(unit, exercise)
        else:
            cells.append(cell)
    if problem := marking_problem(placed, [e.id for e in unit.exercises]):
        raise CourseError(
            f"{unit.folder / 'lesson.md'} must mark every exercise once, in the order of EXERCISES: {problem}"
        )
    first = next((i for i, c in enumerate(cells) if c["cell_type"] == "markdown"), -1) + 1
    cells.insert(first, new_code_cell(opening(course, unit), metadata={"nbgrader": marks("setup", locked=True)}))
    for number, cell in enumerate(cells):
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["id"] = f"{unit.name}-{grade_id or number}".replace("_", "-")[:64]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nbformat.validate(notebook)
    return notebook


def lesson(unit: Unit) -> str:
    """Return a unit's lesson."""
    path = unit.folder / "lesson.md"
    if not path.exists():
        raise CourseError(f"{path} is missing: every unit has a lesson")
    return path.read_text(encoding="utf-8")


def marking_problem(placed: Sequence[str], wanted: Sequence[str]) -> str:
    """Say what keeps the marks of a lesson from being the exercises in their order; nothing if they are."""
    missing = [name for name in wanted if name not in placed]
    twice = [name for name in wanted if placed.count(name) > 1]
    if missing or twice:
        parts = {"it does not mark": missing, "it marks more than once": twice}
        return "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)
    return "" if list(placed) == list(wanted) else f"it marks {', '.join(placed)}, wanted {', '.join(wanted)}"


def opening(course: Course, unit: Unit) -> str:
    """Return the setup cell of a notebook: one in another language makes the grader speak it too."""
    usual = setup(course, unit)
    return usual if language() == "en" else f"import os\n{usual}\n\n{SPEAK.format(language=language())}"


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
                yield from (new_markdown_cell(translated(text.strip())) for text in SECTION.split(part) if text.strip())


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
        new_code_cell(
            with_docstrings(solution_cell(exercise), translated),
            metadata={"nbgrader": marks(exercise.id, solution=True)},
        ),
        new_code_cell(
            check, metadata={"nbgrader": marks(f"check_{exercise.id}", grade=True, locked=True, points=exercise.points)}
        ),
    ]


def heading(unit: Unit, exercise: Exercise) -> str:
    """Introduce an exercise: name, difficulty, points, what it may build on, and how to get hints."""
    title = N_("Exercise {number}: `{name}` ({level}, {points} points)")
    if exercise.extra:
        title = N_("Exercise {number}: `{name}` ({level}, {points} points, extra)")
    number = [e.id for e in unit.exercises].index(exercise.id) + 1
    level = translate(LEVELS[exercise.points])
    lines = ["### " + translate(title, number=number, name=exercise.name, level=level, points=exercise.points)]
    if exercise.uses:
        said = N_("You may call {names} from before: when this is checked, the reference stands in for them.")
        if len(exercise.uses) == 1:
            said = N_("You may call {names} from before: when this is checked, the reference stands in for it.")
        lines.append(translate(said, names=listed([f"`{name}`" for name in exercise.uses], AND)))
    if exercise.forbid:
        said = N_("Write it yourself. What torch has of these names, also as a method, may not be called: {names}.")
        lines.append(translate(said, names=listed([f"`{word}`" for word in exercise.forbid], AND)))
    if found := budget(exercise):
        lines.append(found)
    lines.append(translate(N_("Stuck? `hint({name})` gives one more hint each time."), name=exercise.name))
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
