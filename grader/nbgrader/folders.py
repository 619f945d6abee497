"""Find what was handed in, as `grader grade` does: a folder counts, whatever is in it."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nbgrader.converters import Autograde
from nbgrader.converters.base import BaseConverter

from grader.jobs import is_folder, submitted_file


def take_place() -> None:
    """Let `nbgrader autograde` and formgrader's button find submissions our way; nbgrader has no setting for it."""
    Autograde.init_notebooks = find_submissions


def find_submissions(converter: Any) -> None:
    """List the folders handed in and, for each, the notebooks to grade.

    nbgrader passes over a folder without a notebook, and over a notebook of another name. Here the unit's notebook is
    graded in any case: SubmissionExporter reads it from a .py or a renamed file, or says why there is none.
    """
    course = converter.coursedir
    pattern = course.format_path(course.submitted_directory, course.student_id, course.assignment_id)
    folders = glob.glob(pattern)  # noqa: PTH207 - the pattern is a whole path
    instead = {folder: file for folder in folders if (file := in_place_of(folder))}
    found = {folder: notebooks for folder in folders if (notebooks := to_grade(course, folder, instead.get(folder)))}
    for folder in unreadable(glob.glob(str(Path(pattern).parent))):  # noqa: PTH207
        converter.log.error("'%s' cannot be read: what was handed in there is not graded", folder)
    if not found:
        BaseConverter.init_notebooks(converter)  # says that nothing is there, and what may have been meant
        return
    for folder in sorted(set(folders) - set(found)):
        converter.log.warning("No notebooks were matched in '%s'", folder)
    for _, file in sorted(instead.items()):
        converter.log.info("Grading %s in place of %s.ipynb", file, file.parent.name)
    hush(converter.log, instead)
    converter.assignments, converter.notebooks = found, []


def unreadable(folders: list[str]) -> list[str]:
    """Return the folders in which this user may not look anything up, in order: no pattern finds what they hold."""
    found = map(Path, folders)
    return sorted(str(folder) for folder in found if is_folder(folder) and not is_folder(folder / ".."))


def in_place_of(folder: str) -> Path | None:
    """Return the file that is graded in place of a folder's missing notebook; None if there is none."""
    here = Path(folder)
    file, problem = submitted_file(here, here.name)
    return None if problem or file.name == f"{here.name}.ipynb" else file


class Hushed(logging.Filter):
    """Drops nbgrader's warning that there is no notebook in folders where another file takes its place."""

    def __init__(self, folders: Iterable[str]) -> None:
        super().__init__()
        self.said = {f"No submitted file: {Path(folder, Path(folder).name)}.ipynb" for folder in folders}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown."""
        return record.getMessage() not in self.said


def hush(log: logging.Logger, folders: Iterable[str]) -> None:
    """Drop untrue warnings about some folders, and no longer those about the folders of an earlier run."""
    for earlier in [f for f in log.filters if isinstance(f, Hushed)]:
        log.removeFilter(earlier)
    log.addFilter(Hushed(folders))


def to_grade(course: Any, folder: str, instead: Path | None) -> list[str]:
    """Return the notebooks of a folder, with the one that bears the assignment's name even if it is not there.

    A file that is graded in place of that one (`instead`) is left out, unless the assignment has it too.
    """
    here = Path(folder)
    if not is_folder(here):
        return []
    found = {path.name for path in here.glob(f"{course.notebook_id}.ipynb")}
    source = Path(course.format_path(course.source_directory, ".", here.name), f"{here.name}.ipynb")
    if instead is not None and not source.with_name(instead.name).exists():
        found.discard(instead.name)
    if source.exists() and fnmatchcase(here.name, course.notebook_id):
        found.add(source.name)
    return [f"{folder}/{name}" for name in sorted(found)]
