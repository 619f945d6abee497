"""What a learner does from the command line: check a file, see progress, ask for hints, start over."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grader import submission
from grader.course import Course, load_course
from grader.exercise import Exercise
from grader.grade import Options, grade
from grader.pools import open_pool
from grader.render.messages import hint_text
from grader.stubs import stub
from grader.subject import Worker
from grader.verdict import Verdict
from grader.wording import translated, with_docstrings

STATE = ".grader"


def own_file(course: Course, unit: str) -> Path:
    """Return the learner's notebook of a unit: `assignments/<unit>/<unit>.ipynb`, or .py beside it."""
    folder = course.root / "assignments" / unit
    script = folder / f"{unit}.py"
    return script if script.exists() else folder / f"{unit}.ipynb"


def unit_of(path: Path, names: Sequence[str]) -> str | None:
    """Guess a file's unit from its name or its folder."""
    return next((name for name in names if name in (path.stem, path.resolve().parent.name)), None)


def check_file(path: Path, unit: str, options: Options, level: str = "auto") -> list[Verdict]:
    """Check a notebook or .py file in the sandbox."""
    course = load_course()
    found = submission.read(path)
    with Worker(open_pool(level)) as worker:
        return grade(course, course.unit(unit), found, worker, options)


def read_state(course: Course) -> dict[str, Any]:
    """Read what is remembered of earlier checks; a damaged file counts as none."""
    try:
        data = json.loads((course.root / STATE / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_state(course: Course, state: dict[str, Any]) -> None:
    """Remember the progress in one step."""
    folder = course.root / STATE
    folder.mkdir(exist_ok=True)
    partial = folder / "progress.json.partial"
    partial.write_text(json.dumps(state, indent=1), encoding="utf-8")
    partial.replace(folder / "progress.json")


def remember(unit: str, verdicts: list[Verdict]) -> None:
    """Note the points of a check."""
    course = load_course()
    state = read_state(course)
    for verdict in verdicts:
        state.setdefault("points", {})[f"{unit}/{verdict.exercise}"] = [verdict.points, verdict.status]
    write_state(course, state)


def progress_rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield (unit, points, passed, next exercise) of every unit."""
    course = load_course()
    known = read_state(course).get("points", {})
    for unit in course.units:
        seen = {e.id: known.get(f"{unit.name}/{e.id}", [0.0, ""]) for e in unit.exercises}
        passed = [name for name, (_, status) in seen.items() if status == "passed"]
        left = next((name for name in seen if name not in passed), "done")
        points = sum(p for p, _ in seen.values())
        yield unit.name, f"{points:g} / {unit.points}", f"{len(passed)} / {len(seen)}", left


def next_hint(exercise: str, level: int = 0) -> str:
    """Return one more hint of an exercise than last time, or the one asked for."""
    course = load_course()
    unit, found = course.find(exercise)
    state = read_state(course)
    key = f"{unit.name}/{found.id}"
    number = level or state.get("hints", {}).get(key, 0) + 1
    state.setdefault("hints", {})[key] = max(1, min(number, len(found.hints)))
    write_state(course, state)
    return hint_text(number, found.hints)


def reset_exercise(exercise: Exercise, path: Path) -> Path:
    """Put one exercise's cell back to the stub and return the backup of the notebook as it was."""
    import nbformat  # takes a second, which nothing else here need wait for

    submission.read(path)
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), 4)
    cells = [
        c
        for c in notebook.cells
        if c.metadata.get("nbgrader", {}).get("grade_id") == exercise.id
        or (c.cell_type == "code" and f"def {exercise.name}(" in c.source)
        or (c.cell_type == "code" and f"class {exercise.name}(" in c.source)
    ]
    if not cells:
        raise submission.SubmissionError(f"{path} has no cell for {exercise.name}")
    backup = path.with_name(f"{path.stem}.{time.strftime('%Y%m%d-%H%M%S')}.backup{path.suffix}")
    shutil.copy2(path, backup)
    cells[0].source = with_docstrings(stub(exercise), translated)
    for other in cells[1:]:
        other.source = ""
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return backup
