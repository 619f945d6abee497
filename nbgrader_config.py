"""nbgrader's configuration for this course: run every nbgrader command in this folder."""

from pathlib import Path

from grader.nbgrader import configure

configure(get_config(), Path(__file__).resolve().parent)  # type: ignore[name-defined]  # noqa: F821 - nbgrader's own name
