"""Find and load the course: `reference/`, its units and exercises."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import os
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from grader.exercise import Exercise
from grader.parsing import parse
from grader.render.messages import add_texts
from grader.submission import Submission, make_cell

ROOT_VARIABLE = "TORCH_DOJO_ROOT"


class CourseError(RuntimeError):
    """The course cannot be found or is not sound; the text names the file and the fix."""


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
        raise CourseError(f"unit {self.name} has no exercise {name!r}{meant(name, known)}; it has: {', '.join(known)}")


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
            raise CourseError(f"there is no unit {name!r}; the course has: {', '.join(self.unit_names)}")
        return load_unit(self, name)

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
        raise CourseError(f"the course has no exercise {exercise!r}{meant(exercise, known)}")

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
    module = import_from(folder, package)
    course = Course(folder, package, tuple(module.UNITS))
    add_texts(course.locales)
    return course


def import_from(root: Path, name: str) -> Any:
    """Import a module of the course package with `root` on the path."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module = importlib.import_module(name)
    if not Path(module.__file__ or "").is_relative_to(root):
        raise CourseError(f"{name} was imported from {module.__file__}, not from {root}: start a fresh process there")
    return module


@lru_cache
def unit_exercises(course: Course, name: str) -> tuple[str, ...]:
    """Return a unit's exercise ids without importing the exercises."""
    return tuple(import_from(course.root, f"{course.package}.{name}").EXERCISES)


@lru_cache
def load_unit(course: Course, name: str) -> Unit:
    """Import a unit."""
    module = import_from(course.root, f"{course.package}.{name}")
    exercises = []
    for exercise_id in module.EXERCISES:
        file = import_from(course.root, f"{course.package}.{name}.{exercise_id}")
        exercise = getattr(file, "exercise", None)
        if not isinstance(exercise, Exercise) or exercise.id != exercise_id:
            raise CourseError(f"{file.__file__} must define `exercise = Exercise(...)` with the id {exercise_id!r}")
        exercises.append(exercise)
    return Unit(name, module.TITLE, tuple(exercises), course.root / course.package / name)


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
