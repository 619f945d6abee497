"""The whole nbgrader configuration of a course, to be called from nbgrader_config.py."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

STOCK = "nbgrader.preprocessors."
OWN = "grader.nbgrader."


def configure(config: Any, root: Path, course_id: str = "torch-dojo") -> None:
    """Fill nbgrader's configuration: our layout, and autograding by the sandbox instead of a kernel.

    Preprocessors are given as dotted strings: formgrader writes the configuration as JSON.

    Args:
        config: what `get_config()` returned.
        root: the course's root folder; the gradebook lies in it.
        course_id: nbgrader's course id.
    """
    course = config.CourseDirectory
    course.course_id = course_id
    course.root = str(root)
    course.source_directory = "solutions"
    course.release_directory = "assignments"
    own_commands()
    find_own_way()
    hush_nbgrader()
    config.GenerateAssignment.preprocessors = release_preprocessors()
    config.Autograde.exporter_class = f"{OWN}reading.SubmissionExporter"
    config.Autograde.sanitize_preprocessors = [
        f"{STOCK}ClearOutput",
        f"{OWN}restore.RestoreCells",
        f"{OWN}markdown.EscapeMarkdown",
        f"{STOCK}OverwriteKernelspec",
        f"{STOCK}CheckCellMetadata",
    ]
    config.Autograde.autograde_preprocessors = [
        f"{OWN}execute.TrustedExecute",
        f"{STOCK}LimitOutput",
        f"{OWN}scores.SaveScores",
        f"{STOCK}AssignLatePenalties",
        f"{STOCK}CheckCellMetadata",
    ]
    config.GenerateFeedback.preprocessors = [
        f"{STOCK}GetGrades",
        f"{STOCK}ClearHiddenTests",
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]


def release_preprocessors() -> list[str]:
    """Return nbgrader's own release steps with one more: helpers of solutions vanish."""
    from grader.nbgrader.release import PREPROCESSORS, dotted

    return [dotted(cls) for cls in PREPROCESSORS]


def find_own_way() -> None:
    """Let nbgrader grade .py files and renamed notebooks too."""
    from grader.nbgrader.folders import take_place

    take_place()


def hush_nbgrader() -> None:
    """Silence a harmless warning of nbgrader's own about the gradebook, three for each student."""
    warnings.filterwarnings("ignore", message=r"Object of type <Submitted\w+> not in session")


def own_commands() -> None:
    """Let nbgrader find the programs it calls (alembic) beside the running Python."""
    folder = str(Path(sys.executable).parent)
    if folder not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", "")])
