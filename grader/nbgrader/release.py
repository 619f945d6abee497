"""nbgrader's GenerateAssignment with one step more: helpers of a solution vanish from the stub."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    IncludeHeaderFooter,
    LockCells,
    NbGraderPreprocessor,
    SaveCells,
)
from traitlets.config import Config


class ClearHelpers(NbGraderPreprocessor):  # type: ignore[misc]
    """Removes what stands between `### BEGIN HELPERS` and `### END HELPERS`."""

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:  # noqa: ARG002
        """Remove marked helpers from one cell."""
        from grader.stubs import without_helpers

        if cell.cell_type == "code":
            cell.source = without_helpers(cell.source)
        return cell, resources


PREPROCESSORS = [
    IncludeHeaderFooter,
    ClearHelpers,
    LockCells,
    ClearSolutions,
    ClearOutput,
    CheckCellMetadata,
    ComputeChecksums,
    SaveCells,
    ClearHiddenTests,
    ClearMarkScheme,
    ComputeChecksums,
    CheckCellMetadata,
]


def dotted(cls: type) -> str:
    """Return a class's dotted name: nbgrader's formgrader needs names, not classes, in its configuration."""
    module = "nbgrader.preprocessors" if cls.__module__.startswith("nbgrader.preprocessors") else cls.__module__
    return f"{module}.{cls.__name__}"


def generate(root: Path, units: Sequence[str]) -> None:
    """Release notebooks in a course folder of its own, from `solutions/` to `assignments/`."""
    config = Config()
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.source_directory = "solutions"
    config.CourseDirectory.release_directory = "assignments"
    config.GenerateAssignment.no_database = True
    config.GenerateAssignment.preprocessors = [dotted(cls) for cls in PREPROCESSORS if cls is not SaveCells]
    for unit in units:
        config.CourseDirectory.assignment_id = unit
        converter = GenerateAssignment(coursedir=CourseDirectory(config=config), config=config)
        converter.log.setLevel(logging.ERROR)
        converter.start()
