"""What there is to grade in a class: one job a submission, in a fixed order."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import grader
from grader.course import Course, load_course
from grader.grade import Options
from grader.render.messages import language, translate
from grader.submission import SubmissionError, read_regular
from grader.texts import printable
from grader.verdict import N_

KINDS = (".ipynb", ".py")
NOTHING = N_("nothing was handed in")
TOO_HIGH = N_("{file} lies one folder too high: {folder}/ is missing")
SEVERAL = N_("there is no {file}, and several others: {others}")


@dataclass(frozen=True, slots=True)
class Job:
    """One submission to grade: whose, of which unit, in which file, and how.

    `problem` says why there is no file; such a job is graded without one. `language` is the one to tell it in.
    """

    student: str
    unit: str
    path: str
    options: Options
    level: str
    problem: str = ""
    root: str = ""
    language: str = field(default_factory=language)


def find_jobs(folder: Path, course: Course, options: Options, level: str, unit: str | None = None) -> list[Job]:
    """List the submissions in nbgrader's layout, `<student>/<unit>/<unit>.ipynb` (or .py), in a fixed order."""
    if not folder.is_dir():
        raise SubmissionError(f"{folder} is not a folder")
    students = sorted(p for p in folder.iterdir() if is_folder(p) and not p.is_symlink() and not p.name.startswith("."))
    units = [unit] if unit else [u for u in course.unit_names if any(is_folder(s / u) for s in students)]
    jobs = []
    for student in students:
        for name in units:
            path, problem = submitted_file(student / name, name)
            jobs.append(
                Job(printable(student.name), name, str(path), options, level, printable(problem), str(course.root))
            )
    return jobs


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder, as far as this user may know."""
    try:
        return path.is_dir()
    except OSError:
        return False


def submitted_file(folder: Path, unit: str) -> tuple[Path, str]:
    """Return the file handed in, or why there is none; one renamed file is accepted."""
    try:
        return looked_up(folder, unit)
    except OSError as error:
        return folder, translate(
            N_("the folder {name} cannot be read: {why}"), name=folder.name, why=error.strerror or str(error)
        )


def looked_up(folder: Path, unit: str) -> tuple[Path, str]:
    """Return the same of a folder that can be read."""
    if folder.is_symlink():
        return folder, translate(N_("the folder {name} is a symbolic link"), name=folder.name)
    if not folder.is_dir():
        beside = named(folder.parent, unit)
        return folder, translate(TOO_HIGH, file=beside, folder=unit) if beside else NOTHING
    if own := named(folder, unit):
        return folder / own, ""
    others = sorted(p for p in folder.iterdir() if p.suffix in KINDS)
    if len(others) == 1:
        return others[0], ""
    if others:
        return folder, translate(SEVERAL, file=f"{unit}.ipynb", others=", ".join(p.name for p in others))
    deeper = [f"{inner.name}/{found}" for inner in sorted(folder.glob("*/")) if (found := named(inner, unit))]
    if deeper:
        return folder, translate(N_("{file} lies one folder too deep"), file=deeper[0])
    return folder, translate(N_("there is no {file}"), file=f"{unit}.ipynb")


def named(folder: Path, unit: str) -> str:
    """Return the name of the file in a folder that bears the unit's name; nothing if there is none."""
    return next((f"{unit}{kind}" for kind in KINDS if os.path.lexists(folder / f"{unit}{kind}")), "")


def submitted_bytes(job: Job) -> bytes:
    """Read a job's file."""
    if job.problem:
        raise SubmissionError(translate(job.problem))
    return read_regular(Path(job.path))


@lru_cache(maxsize=8)
def course_digest(root: str, package: str) -> str:
    """Return a digest of the course's and the grader's sources: results of another version are not used again."""
    total = hashlib.sha256(grader.__version__.encode())
    for base in (Path(root) / package, Path(grader.__file__).parent):
        for path in sorted(base.rglob("*.py")):
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def key_of(job: Job) -> str:
    """Return what a job's result depends on, as a digest."""
    try:
        content = hashlib.sha256(submitted_bytes(job)).hexdigest()
    except SubmissionError as error:
        content = str(error)
    course = load_course(Path(job.root))
    facts = [job.student, job.unit, content, job.level, job.language, repr(job.options)]
    facts.append(course_digest(job.root, course.package))
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()
