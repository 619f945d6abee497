"""What a check cell is given, and how nbgrader's gradebook takes it."""

from __future__ import annotations

import math
from typing import Any

from nbformat.v4 import new_output
from nbgrader.preprocessors import SaveAutoGrades

from grader.render.html import html
from grader.render.messages import translate
from grader.render.text import text
from grader.verdict import N_, NOT_GRADABLE, Verdict

BY_HAND = "GradeByHand"
OF_NO_EXERCISE = N_("this cell belongs to no exercise of the course: it needs manual grading")


def is_check(cell: Any) -> bool:
    """Whether nbgrader would take a cell's outputs for a score."""
    marks = cell.metadata.get("nbgrader", {})
    return bool(cell.cell_type == "code" and marks.get("grade") and not marks.get("solution"))


def fill(cell: Any, verdict: Verdict | None) -> None:
    """Write a check cell's outputs: the page for people, then the score, a plain float."""
    cell.execution_count = 1
    if verdict is None or verdict.status == NOT_GRADABLE:
        cell.outputs = [by_hand(verdict)]
        return
    most = float(cell.metadata["nbgrader"]["points"])
    page = {"text/html": html(verdict), "text/plain": text(verdict)}
    score = {"text/plain": repr(clamped(verdict, most))}
    cell.outputs = [
        new_output("display_data", data=page),
        new_output("execute_result", data=score, execution_count=1),
    ]


def by_hand(verdict: Verdict | None) -> Any:
    """Return an error as output: read as a score it means 0, never full marks."""
    message = translate(OF_NO_EXERCISE) if verdict is None else text(verdict)
    return new_output("error", ename=BY_HAND, evalue=message, traceback=[message])


def clamped(verdict: Verdict, most: float) -> float:
    """Return the score that nbgrader stores: between 0 and the cell's points."""
    if not math.isfinite(verdict.points):
        raise ValueError(f"the points of {verdict.exercise} are {verdict.points}")
    if not verdict.max_points:
        return 0.0
    scaled = verdict.points * most / verdict.max_points
    return min(max(round(float(scaled), 2), 0.0), most)


class SaveScores(SaveAutoGrades):  # type: ignore[misc]
    """SaveAutoGrades, which leaves what cannot be graded automatically to a person instead of giving 0."""

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
        """Save one cell's score."""
        cell, resources = super().preprocess_cell(cell, resources, cell_index)
        if is_check(cell) and any(output.get("ename") == BY_HAND for output in cell.outputs):
            name = cell.metadata["nbgrader"]["grade_id"]
            grade = self.gradebook.find_grade(name, self.notebook_id, self.assignment_id, self.student_id)
            grade.auto_score, grade.needs_manual_grade = None, True
            self.gradebook.db.commit()
        return cell, resources
