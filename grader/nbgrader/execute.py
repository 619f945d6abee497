"""Take the place of nbgrader's Execute: no kernel is started, the sandbox grades, check cells get one float."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Int, Unicode

from grader import batch
from grader.course import Course, CourseError, Unit, load_course
from grader.grade import Options, grade, unreadable
from grader.record import SEED
from grader.render.html import html
from grader.render.text import text
from grader.subject import Worker
from grader.submission import SubmissionError, parse
from grader.verdict import Verdict

PREFIX = "check_"


class TrustedExecute(NbGraderPreprocessor):  # type: ignore[misc]
    """Grades a notebook in the sandbox and writes the score of each check cell as nbgrader reads it.

    It does not derive from Execute: `--no-execute` would switch that off, and a learner's own outputs would count.
    """

    enabled = True
    isolation = Unicode("auto", help="auto, portable, linux or strict").tag(config=True)
    seed = Int(SEED, help="seed of the random inputs").tag(config=True)

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Fill the outputs of all check cells."""
        verdicts = self.verdicts(nb, resources["nbgrader"]["assignment"])
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            marks = cell.metadata.get("nbgrader", {})
            if marks.get("grade") and not marks.get("solution"):
                fill(cell, marks, verdicts)
        return nb, resources

    def verdicts(self, nb: Any, assignment: str) -> dict[str, Verdict]:
        """Grade the notebook; by exercise."""
        course = load_course(course_root(self))
        unit = course.unit(assignment)
        options = Options(self.seed)
        batch.prepare(str(course.root), unit.name, options)
        return {v.exercise: v for v in self.grade(course, unit, nbformat.writes(nb).encode(), options)}

    def grade(self, course: Course, unit: Unit, data: bytes, options: Options) -> list[Verdict]:
        """Grade the bytes of a notebook in a sandboxed child."""
        try:
            found = parse(data, f"{unit.name}.ipynb")
        except SubmissionError as error:
            return unreadable(unit, error, options)
        with Worker(batch.open_pool(self.isolation)) as worker:
            return grade(course, unit, found, worker, options)


def course_root(preprocessor: Any) -> Path | None:
    """Return the course's root from nbgrader's configuration, if it says."""
    root = preprocessor.config.get("CourseDirectory", {}).get("root")
    return Path(root) if isinstance(root, str) and root else None


def fill(cell: Any, marks: dict[str, Any], verdicts: dict[str, Verdict]) -> None:
    """Write a check cell's outputs: the page for people, then the score."""
    cell.execution_count = 1
    verdict = verdicts.get(str(marks.get("grade_id", "")).removeprefix(PREFIX))
    if verdict is None:
        message = "this cell belongs to no exercise of the course and cannot be graded automatically"
        cell.outputs = [new_output("error", ename="NotGradable", evalue=message, traceback=[message])]
        return
    most = float(marks.get("points", verdict.max_points))
    page = {"text/html": html(verdict), "text/plain": text(verdict)}
    score = {"text/plain": repr(clamped(verdict, most))}
    cell.outputs = [
        new_output("display_data", data=page),
        new_output("execute_result", data=score, execution_count=1),
    ]


def clamped(verdict: Verdict, most: float) -> float:
    """Return the score that nbgrader stores: a plain float between 0 and the cell's points."""
    if not verdict.max_points or not math.isfinite(verdict.points):
        raise CourseError(f"{verdict.exercise} has no points to give")
    scaled = verdict.points * most / verdict.max_points
    return round(min(max(float(scaled), 0.0), most), 2)
