"""`pytest grader/`: options and one test per exercise of the learner's own notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from grader import sandbox
from grader.course import CourseError, load_course
from grader.device import DEVICES, resolve
from grader.learner import own_file, unit_of
from grader.pools import ENTRY

MARGIN = 0.4
"""Share of pytest-timeout's limit that a call may take: the hang is then reported in words, not by a dump of frames."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare --submission, --unit, --exercise and --device."""
    group = parser.getgroup("grader")
    group.addoption("--submission", help="another notebook, .py file or folder than assignments/")
    group.addoption("--unit", help="check only this unit")
    group.addoption("--exercise", help="check only this exercise")
    group.addoption("--device", choices=DEVICES, help="check and time on this device too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per exercise."""
    if "target" not in metafunc.fixturenames:
        return
    try:
        targets = list(find_targets(metafunc.config))
    except CourseError as error:
        raise pytest.UsageError(str(error)) from None
    if not targets:
        raise pytest.UsageError("nothing to check: no unit, exercise or notebook fits the options")
    metafunc.parametrize("target", targets, ids=[f"{unit}/{exercise}" for unit, exercise, _ in targets])


def find_targets(config: pytest.Config) -> Iterator[tuple[str, str, Path]]:
    """Yield (unit, exercise, file)."""
    course = load_course()
    wanted = config.getoption("--exercise")
    unit = config.getoption("--unit") or (course.find(wanted)[0].name if wanted else None)
    given = config.getoption("--submission")
    place = Path(given) if given else None
    if place is not None and not place.exists():
        raise pytest.UsageError(f"{place} does not exist")
    if unit is None and place is not None and place.is_file():
        unit = unit_of(place, course.unit_names)
        if unit is None:
            raise pytest.UsageError(f"{place} does not carry a unit's name; say --unit")
    for name in [unit] if unit else course.unit_names:
        path = file_for(place, name) if place is not None else own_file(course, name)
        if path is not None and (path.exists() or unit):
            yield from ((name, e.id, path) for e in course.unit(name).exercises if wanted in (None, e.id, e.name))


def file_for(place: Path, unit: str) -> Path | None:
    """Return the file of a unit in a file or folder that the learner named."""
    if place.is_file():
        return place
    tries = [place / unit / f"{unit}.ipynb", place / f"{unit}.ipynb", place / unit / f"{unit}.py", place / f"{unit}.py"]
    return next((path for path in tries if path.is_file()), None)


@pytest.fixture(scope="session")
def pool() -> Iterator[sandbox.Pool]:
    """Open the sandbox once for all tests."""
    with sandbox.open("auto", entry=ENTRY) as opened:
        yield opened


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Return the device that --device names."""
    return resolve(request.config.getoption("--device"))


@pytest.fixture
def cap(request: pytest.FixtureRequest) -> float | None:
    """Return the seconds a call may take, from pytest-timeout's settings."""
    config = request.config
    limit = config.getoption("timeout", None) or float(config.getini("timeout") or 0) or None
    return None if limit is None else MARGIN * float(limit)
