"""Give a submission the check cells of the gradebook, whatever became of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor


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

    @property
    def fixed(self) -> bool:
        """Whether its text and its place are not the learner's to choose."""
        return self.locked or not self.solution

    def edited(self, cell: Any) -> bool:
        """Whether a learner wrote code of their own into this locked cell, which checks nothing."""
        is_code = self.cell_type == cell.cell_type == "code"
        return is_code and self.fixed and not (self.grade or self.task) and cell.source.strip() != self.source.strip()


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


def restored(cells: Sequence[Any], known: dict[str, Original]) -> list[Any]:
    """Return a submission's cells with every known cell in its proper form and place.

    The learner's text survives in solution cells (the first with an id counts); locked cells and check cells get
    the gradebook's text, and their place if they were moved; copies and invented marks lose their marks; what was
    deleted comes back. What a learner made of the setup cell, an import more for example, stands behind the
    restored one: `grader grade` takes both, and the points shall be the same.
    """
    kept: list[tuple[str, Any]] = []
    seen: set[str] = set()
    for cell in cells:
        name = claimed_name(cell)
        cell.metadata.clear()
        original = known.get(name)
        if original is not None and name not in seen:
            seen.add(name)
            kept.append((name, renewed(cell, original)))
            if original.edited(cell):
                kept.append(("", cell))
        elif original is None or not original.fixed or original.edited(cell):
            kept.append(("", cell))  # a copy of a solution cell stays as ordinary code: its last definition counts
    return [cell for _, cell in in_place(kept, known)]


def in_place(kept: list[tuple[str, Any]], known: dict[str, Original]) -> list[tuple[str, Any]]:
    """Put moved locked cells and missing cells directly behind the known cell that they followed."""
    astray = misplaced([name for name, _ in kept if name], known)
    moved = {name: cell for name, cell in kept if name in astray}
    result = [(name, cell) for name, cell in kept if name not in astray]
    before = ""
    for name, original in known.items():
        places = [own for own, _ in result]
        if name not in places:
            position = places.index(before) + 1 if before else 0
            result.insert(position, (name, moved.get(name) or renewed(None, original)))
        before = name
    return result


def misplaced(found: Sequence[str], known: dict[str, Original]) -> set[str]:
    """Name the locked cells that stand on the wrong side of another known cell."""
    rank = {name: number for number, name in enumerate(known)}
    return {
        name
        for i, name in enumerate(found)
        if known[name].fixed
        and (any(rank[n] > rank[name] for n in found[:i]) or any(rank[n] < rank[name] for n in found[i + 1 :]))
    }


def claimed_name(cell: Any) -> str:
    """Return the grade id that a cell claims."""
    marks = cell.metadata.get("nbgrader")
    name = marks.get("grade_id") if isinstance(marks, dict) else None
    return name if isinstance(name, str) else ""


def renewed(cell: Any, original: Original) -> Any:
    """Return a cell with the gradebook's type and marks, and its text unless the text is the learner's."""
    source = original.source if cell is None or original.fixed else cell.source
    is_code = original.cell_type == "code"
    if cell is None and not original.fixed:
        source = ("# " if is_code else "") + f"this cell (id: {original.name}) was missing from the submission"
    made = (new_code_cell if is_code else new_markdown_cell)(source, metadata={"nbgrader": original.marks})
    if cell is not None and "id" in cell:
        made["id"] = cell["id"]
    if cell is not None and not is_code and not original.fixed and "attachments" in cell:
        made["attachments"] = cell["attachments"]
    return made


def unique_ids(cells: Sequence[Any]) -> None:
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
        nb.metadata = NotebookNode(language_info=NotebookNode(name="python"))
        if facts.get("problem"):
            nb.metadata["grader"] = NotebookNode(problem=facts["problem"])
        return nb, resources
