"""Give a submission the check cells of the gradebook, whatever became of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor

HARMFUL = re.compile(r"<(?=[A-Za-z/!?])|(?i:javascript|vbscript|data)(?=\s*:)")


@dataclass(frozen=True, slots=True)
class Original:
    """A cell as the gradebook knows it."""

    name: str
    cell_type: str
    source: str
    checksum: str
    locked: bool
    grade: bool
    solution: bool
    task: bool
    points: float | None

    @property
    def marks(self) -> dict[str, Any]:
        """nbgrader's metadata of the cell."""
        found: dict[str, Any] = {
            "grade": self.grade, "solution": self.solution, "locked": self.locked, "task": self.task,
            "grade_id": self.name, "schema_version": 3, "cell_type": self.cell_type, "checksum": self.checksum,
        }  # fmt: skip
        return found if self.points is None else {**found, "points": self.points}


def originals(gradebook: Any, notebook: str, assignment: str) -> dict[str, Original]:
    """Read the graded, solution and locked cells of a notebook from the gradebook, in their order."""
    found = gradebook.find_notebook(notebook, assignment)
    grades = {cell.name: cell for cell in found.grade_cells}
    solutions = {cell.name for cell in found.solution_cells}
    tasks = {cell.name: cell for cell in found.task_cells}
    result = {}
    for cell in found.source_cells:
        graded = grades.get(cell.name) or tasks.get(cell.name)
        result[cell.name] = Original(
            cell.name, cell.cell_type, cell.source, cell.checksum, cell.locked, cell.name in grades,
            cell.name in solutions, cell.name in tasks, None if graded is None else graded.max_score,
        )  # fmt: skip
    return result


def restored(cells: list[Any], known: dict[str, Original]) -> list[Any]:
    """Return a submission's cells with every known cell in its proper form.

    The learner's text survives in solution cells (the first with an id counts); locked cells and check cells get
    the gradebook's text; copies and invented marks lose their marks; what was deleted comes back at the end.
    """
    kept, seen = [], set()
    for cell in cells:
        name = claimed_name(cell)
        cell.metadata.clear()
        original = known.get(name)
        if original is not None and name not in seen:
            seen.add(name)
            kept.append(renewed(cell, original))
        elif original is None or original.solution:
            kept.append(cell)  # a copy of a solution cell stays as ordinary code: its last definition counts
    missing = [renewed(None, original) for name, original in known.items() if name not in seen]
    return kept + missing


def claimed_name(cell: Any) -> str:
    """Return the grade id that a cell claims."""
    marks = cell.metadata.get("nbgrader")
    name = marks.get("grade_id") if isinstance(marks, dict) else None
    return name if isinstance(name, str) else ""


def renewed(cell: Any, original: Original) -> Any:
    """Return a cell with the gradebook's type and marks, and its text unless the text is the learner's."""
    own_text = cell is not None and original.solution and not original.locked
    source = cell.source if own_text else original.source
    if cell is None and original.solution and original.cell_type == "code":
        source = f"# this cell (id: {original.name}) was missing from the submission"
    make = new_code_cell if original.cell_type == "code" else new_markdown_cell
    made = make(source, metadata={"nbgrader": original.marks})
    if cell is not None and "id" in cell:
        made["id"] = cell["id"]
    return made


def unique_ids(cells: list[Any]) -> None:
    """Give every cell an id of its own."""
    seen: set[str] = set()
    for number, cell in enumerate(cells):
        wanted = cell.get("id")
        if not isinstance(wanted, str) or wanted in seen or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", wanted):
            wanted = f"restored-{number}"
            while wanted in seen:
                wanted += "x"
        cell["id"] = wanted
        seen.add(wanted)


class RestoreCells(NbGraderPreprocessor):  # type: ignore[misc]
    """Takes OverwriteCells' place: cell roles, points and check cells come from the gradebook alone."""

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Restore the cells of one notebook."""
        facts = resources["nbgrader"]
        with Gradebook(facts["db_url"]) as gradebook:
            known = originals(gradebook, facts["notebook"], facts["assignment"])
        nb.cells = restored(list(nb.cells), known)
        nb.nbformat, nb.nbformat_minor = 4, 5
        unique_ids(nb.cells)
        nb.metadata.pop("widgets", None)
        return nb, resources


class EscapeMarkdown(NbGraderPreprocessor):  # type: ignore[misc]
    """Makes tags and script links in a learner's Markdown harmless: feedback pages show them as text."""

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:  # noqa: ARG002
        """Escape one cell."""
        if cell.cell_type == "raw":
            cell.cell_type = "markdown"
        if cell.cell_type == "markdown":
            cell.source = HARMFUL.sub(lambda m: "&lt;" if m[0] == "<" else f"{m[0]}\u200b", cell.source)
            cell.pop("attachments", None)
        return cell, resources
