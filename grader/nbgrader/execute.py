"""Take the place of nbgrader's Execute: no kernel is started, the sandbox grades, check cells get one float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Int, Unicode

from grader import batch
from grader.course import Course, Unit, load_course
from grader.grade import Options, grade, unreadable
from grader.nbgrader.scores import fill, is_check
from grader.pools import begin, open_pool
from grader.record import SEED
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
        """Fill the outputs of all check cells; every other cell has none."""
        checks = [cell for cell in nb.cells if is_check(cell)]
        verdicts = self.verdicts(nb, resources["nbgrader"]["assignment"]) if checks else {}
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        for cell in checks:
            fill(cell, verdicts.get(cell.metadata["nbgrader"]["grade_id"].removeprefix(PREFIX)))
        return nb, resources

    def verdicts(self, nb: Any, assignment: str) -> dict[str, Verdict]:
        """Grade the notebook; by exercise."""
        course = load_course(course_root(self))
        unit = course.unit(assignment)
        options = Options(self.seed)
        begin(self.isolation)  # it needs as long as the reference does
        batch.prepare(str(course.root), unit.name, options)
        return {v.exercise: v for v in self.grade(course, unit, nb, options)}

    def grade(self, course: Course, unit: Unit, nb: Any, options: Options) -> list[Verdict]:
        """Grade a notebook in a sandboxed child."""
        try:
            problem = nb.metadata.get("grader", {}).get("problem")
            if problem:
                raise SubmissionError(problem)
            found = parse(nbformat.writes(nb).encode(), f"{unit.name}.ipynb", bounded=False)  # cells were restored
        except SubmissionError as error:
            return unreadable(unit, error, options)
        with Worker(open_pool(self.isolation)) as worker:
            return grade(course, unit, found, worker, options)


def course_root(preprocessor: Any) -> Path | None:
    """Return the course's root from nbgrader's configuration, if it says."""
    root = preprocessor.config.get("CourseDirectory", {}).get("root")
    return Path(root) if isinstance(root, str) and root else None
