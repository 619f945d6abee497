"""Find and load the course: `reference/`, its units and exercises."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import textwrap
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from grader.exercise import Exercise
from grader.importing import CourseError as CourseError
from grader.importing import import_from, names_in, title_in
from grader.parsing import parse
from grader.render.messages import add_texts
from grader.submission import Submission, make_cell

ROOT_VARIABLE = "TORCH_DOJO_ROOT"


class UnknownError(CourseError):
    """The course has no unit or exercise of that name; the text names those that there are."""


def find_root(start: Path | None = None) -> Path:
    """Return the course root: TORCH_DOJO_ROOT, or the nearest folder upwards with `[tool.grader]` in pyproject.toml."""
    named = os.environ.get(ROOT_VARIABLE)
    if named:
        if not (Path(named) / "pyproject.toml").is_file():
            raise CourseError(f"{ROOT_VARIABLE} is {named!r}, which is not a course folder (no pyproject.toml there)")
        return Path(named).resolve()
    here = (start or Path.cwd()).resolve()
    for folder in [here, *here.parents]:
        if course_package(folder) is not None:
            return folder
    raise CourseError(
        f"no course found in {here} or above: run this inside the torch-dojo folder, "
        f"or set {ROOT_VARIABLE} to that folder"
    )


def course_package(folder: Path) -> str | None:
    """Return the course package that a folder's pyproject.toml declares, if it does."""
    try:
        config = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return None
    package = config.get("tool", {}).get("grader", {}).get("course")
    return package if isinstance(package, str) else None


@dataclass(frozen=True)
class Unit:
    """One assignment: a notebook of several exercises."""

    name: str
    title: str
    exercises: tuple[Exercise, ...]
    folder: Path

    @property
    def points(self) -> int:
        """Points of the core exercises; the extra ones count besides."""
        return sum(e.points for e in self.exercises)

    def exercise(self, name: str) -> Exercise:
        """Return an exercise by id, or by the name that the learner defines."""
        for found in self.exercises:
            if name in (found.id, found.name):
                return found
        known = [e.id for e in self.exercises]
        raise UnknownError(f"unit {self.name} has no exercise {name!r}{meant(name, known)}; it has: {', '.join(known)}")


def meant(name: str, known: Iterable[str]) -> str:
    """Ask whether a similar name was meant, if there is one."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@dataclass(frozen=True)
class Course:
    """A `reference/` package: units in teaching order, imported when asked for."""

    root: Path
    package: str
    unit_names: tuple[str, ...]

    @property
    def locales(self) -> Path:
        """The folder of its texts in other languages."""
        return self.root / self.package / "locale"

    def unit(self, name: str) -> Unit:
        """Import a unit with all its exercises."""
        if name not in self.unit_names:
            raise UnknownError(self.no_unit(name))
        return load_unit(self, name)

    def no_unit(self, name: str) -> str:
        """Say that there is no unit of a name, and what was meant, as far as that can be told."""
        homes = [unit for unit in self.unit_names if name in unit_exercises(self, unit)]
        if homes:
            return f"there is no unit {name!r}; the exercise is {homes[0]}/{name}"
        folder = self.root / self.package / name
        if any((folder / file).is_file() for file in ("__init__.py", "lesson.md")):
            return f"{name!r} is not in the course yet: add it to UNITS in {self.package}/__init__.py"
        return f"there is no unit {name!r}{meant(name, self.unit_names)}; the course has: {', '.join(self.unit_names)}"

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units, imported."""
        return tuple(self.unit(name) for name in self.unit_names)

    def find(self, exercise: str) -> tuple[Unit, Exercise]:
        """Return an exercise, and its unit, by id or by the name that the learner defines."""
        listed = [u for u in self.unit_names if exercise in unit_exercises(self, u)]
        for unit in map(self.unit, listed or self.unit_names):
            for found in unit.exercises:
                if exercise in (found.id, found.name):
                    return unit, found
        known = [name for unit in self.unit_names for name in (unit, *unit_exercises(self, unit))]
        raise UnknownError(f"the course has no exercise {exercise!r}{meant(exercise, known)}")

    def provided(self, exercise: Exercise) -> tuple[tuple[str, str], ...]:
        """Return (file name, source) of the earlier exercises that this one uses, in the order they must run."""
        sources: dict[str, str] = {}
        for used in exercise.uses:
            earlier = self.find(used)[1]
            for label, text in self.provided(earlier):
                sources.setdefault(label, text)
            for _, text in solution_source(earlier):
                sources[f"<{used}>"] = text
        return tuple(sources.items())

    def provided_names(self, exercise: Exercise) -> frozenset[str]:
        """Return the names that the provided sources define."""
        return frozenset(self.find(used)[1].name for used in exercise.uses)


@lru_cache
def load_course(root: Path | None = None) -> Course:
    """Load the course at `root` (found from the working directory when not given)."""
    folder = find_root() if root is None else root.resolve()
    package = course_package(folder)
    if package is None:
        raise CourseError(f"{folder / 'pyproject.toml'} has no [tool.grader] table with `course = ...`")
    module = import_from(folder, package, f"{package}/__init__.py is missing (it names UNITS)")
    course = Course(folder, package, names_in(module, "UNITS"))
    add_texts(course.locales)
    return course


def import_unit(course: Course, name: str) -> Any:
    """Import a unit's package, without its exercises."""
    missing = f"{course.package}/{name}/__init__.py is missing (it names TITLE and EXERCISES)"
    return import_from(course.root, f"{course.package}.{name}", missing)


@lru_cache
def unit_exercises(course: Course, name: str) -> tuple[str, ...]:
    """Return a unit's exercise ids without importing the exercises."""
    return names_in(import_unit(course, name), "EXERCISES")


@lru_cache
def load_unit(course: Course, name: str) -> Unit:
    """Import a unit."""
    title = title_in(import_unit(course, name))
    exercises = tuple(load_exercise(course, name, exercise) for exercise in unit_exercises(course, name))
    return Unit(name, title, exercises, course.root / course.package / name)


def load_exercise(course: Course, unit: str, name: str) -> Exercise:
    """Import an exercise."""
    folder = f"{course.package}/{unit}"
    missing = f"{folder}/{name}.py is missing: write it, or take {name!r} out of EXERCISES in {folder}/__init__.py"
    file = import_from(course.root, f"{course.package}.{unit}.{name}", missing)
    exercise = getattr(file, "exercise", None)
    if not isinstance(exercise, Exercise) or exercise.id != name:
        raise CourseError(f"{file.__file__} must define `exercise = Exercise(...)` with the id {name!r}")
    return exercise


@lru_cache
def solution_source(exercise: Exercise) -> tuple[tuple[str, str], ...]:
    """Return the solution with the helpers and imports of its file that it needs, and nothing else of that file."""
    file = inspect.getsourcefile(exercise.solution)
    if file is None:
        raise CourseError(f"the source of {exercise.id} cannot be found")
    cell = make_cell(exercise.id, Path(file).read_text(encoding="utf-8"))
    return Submission((cell,), "").program(exercise.name).parts


def probe_source(probe: Any) -> str:
    """Return a probe's source without its decorators, ready to be sent."""
    tree = parse(textwrap.dedent(inspect.getsource(probe)))
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef):
        raise CourseError(f"the probe {probe!r} must be a function written with def")
    function.decorator_list = []
    return ast.unparse(function)
