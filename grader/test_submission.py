"""Check the learner's notebooks: `pytest grader/ [--submission PATH] [--unit UNIT] [--exercise EXERCISE]`."""

from __future__ import annotations

from pathlib import Path

import pytest

from grader import sandbox, submission
from grader.course import load_course
from grader.grade import Options, grade
from grader.render.text import text
from grader.subject import Worker
from grader.verdict import NOT_ATTEMPTED, NOT_GRADABLE


def test_exercise(target: tuple[str, str, Path], pool: sandbox.Pool, cap: float | None, device: str) -> None:
    """Check one exercise."""
    unit, exercise, path = target
    course = load_course()
    try:
        found = submission.read(path)
    except submission.SubmissionError as error:
        pytest.fail(str(error), pytrace=False)
    options = Options(hidden=False, exercise=exercise, device=device)
    with Worker(pool, cap) as worker:
        verdict = grade(course, course.unit(unit), found, worker, options)[0]
    if verdict.status == NOT_ATTEMPTED:
        pytest.skip("not attempted")
    if verdict.status == NOT_GRADABLE:
        pytest.skip("; ".join(verdict.untested))
    if not verdict.passed:
        pytest.fail(text(verdict), pytrace=False)
