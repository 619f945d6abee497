"""Read what was handed in, however damaged: nothing of a submitted file goes on but the texts of its cells."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from grader.course import CourseError, load_course
from grader.jobs import submitted_file
from grader.nbgrader.execute import course_root
from grader.nbgrader.restore import RestoreCells
from grader.nbgrader.script import script_cells
from grader.submission import SubmissionError, cell_text, parse, read_regular

MAKERS = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}
PICTURES = ("image/png", "image/jpeg", "image/gif")


class SubmissionExporter(NotebookExporter):  # type: ignore[misc]
    """Takes NotebookExporter's place in autograding, where it reads a submission.

    nbgrader's own way follows links and gives the whole submission up at the first irregularity. Here a file that
    cannot be read becomes a notebook without cells, which RestoreCells completes and TrustedExecute gives 0 points,
    with the reason in the feedback.
    """

    def from_filename(self, filename: str, resources: Any = None, **options: Any) -> tuple[Any, Any]:
        """Read a submission with care, and what autograding itself has written as ever."""
        if not any(isinstance(step, RestoreCells) for step in self._preprocessors):
            made: tuple[Any, Any] = super().from_filename(filename, resources=resources, **options)
            return made
        path = Path(filename)
        self.forget_links(path.parent, resources)
        ids = exercise_ids(course_root(self), resources["nbgrader"]["assignment"])
        notebook, problem = read_submitted(path, ids)
        resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
        resources["nbgrader"]["problem"] = problem
        checked: tuple[Any, Any] = self.from_notebook_node(notebook, resources=resources, **options)
        return checked

    def forget_links(self, folder: Path, resources: Any) -> None:
        """Delete nbgrader's copies of what symbolic links in a submission point at: feedback would hand them out."""
        course = getattr(self.parent, "coursedir", None)
        if course is None:
            return
        facts = resources["nbgrader"]
        copies = Path(course.format_path(course.autograded_directory, facts["student"], facts["assignment"]))
        for where, _, names in os.walk(folder):
            for link in (Path(where, name) for name in names):
                if link.is_symlink():
                    (copies / link.relative_to(folder)).unlink(missing_ok=True)


def exercise_ids(root: Path | None, assignment: str) -> dict[str, str]:
    """Return the exercises' grade ids by the name that the learner defines; none if it is no unit of the course."""
    try:
        course = load_course(root)
    except CourseError:
        return {}
    if assignment not in course.unit_names:
        return {}
    return {exercise.name: exercise.id for exercise in course.unit(assignment).exercises}


def read_submitted(path: Path, ids: Mapping[str, str]) -> tuple[NotebookNode, str]:
    """Return the cells of a submission, and what is wrong with the file (then there are no cells)."""
    found, problem = submitted_file(path.parent, path.stem)
    try:
        if problem:
            raise SubmissionError(problem)
        return new_notebook(cells=submitted_cells(read_regular(found), found.name, ids)), ""
    except SubmissionError as error:
        return new_notebook(), str(error)


def submitted_cells(data: bytes, name: str, ids: Mapping[str, str]) -> list[NotebookNode]:
    """Return the cells of a file's bytes, each made anew; `ids` says which exercise a name in a .py file belongs to.

    Raises:
        SubmissionError: the file cannot be read; the text says why.
    """
    parse(data, name)  # complains in words for the author
    text = data.decode("utf-8-sig")
    if name.endswith(".py"):
        return script_cells(text, ids)
    made = (clean(cell) for cell in json.loads(text)["cells"])
    return [cell for cell in made if cell is not None]


def clean(cell: Any) -> NotebookNode | None:
    """Return a new cell with the text, the id and the claimed role of a submitted one; None if it is no cell."""
    kind = cell.get("cell_type") if isinstance(cell, dict) else None
    make = MAKERS.get(kind) if isinstance(kind, str) else None
    source = cell_text(cell) if make else None
    if make is None or source is None:
        return None
    made = make(source.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate could not be written
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    if isinstance(marks, dict) and isinstance(marks.get("grade_id"), str):
        made.metadata["nbgrader"] = {"grade_id": marks["grade_id"]}
    if isinstance(cell.get("id"), str):
        made["id"] = cell["id"]
    if kind == "markdown" and isinstance(cell.get("attachments"), dict):
        made["attachments"] = pictures(cell["attachments"])
    return made


def pictures(attachments: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the attachments that are pictures, in nothing but base64, under plain names."""
    kept = {}
    for name, bundle in attachments.items():
        if re.fullmatch(r"[\w.-]+", name, re.ASCII) and isinstance(bundle, dict):
            found = {kind: str(bundle[kind]) for kind in PICTURES if is_base64(bundle.get(kind))}
            if found:
                kept[name] = found
    return kept


def is_base64(data: Any) -> bool:
    """Whether a value is text in base64."""
    try:
        return isinstance(data, str) and bool(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        return False
