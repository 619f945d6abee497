"""Grade a class: many submissions, several workers, resumable at any moment, the same result every time."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import grader
from grader import recognise, sandbox
from grader.course import Course, load_course
from grader.grade import Options, grade, unreadable, wanted
from grader.render.results import Row, grades_csv, json_line, row
from grader.subject import Worker
from grader.submission import SubmissionError, parse, read_regular

JOURNAL = "journal.jsonl"
RESULTS = "results.jsonl"
GRADES = "grades.csv"
KINDS = (".ipynb", ".py")
ENTRY = "grader.worker:serve"


@dataclass(frozen=True, slots=True)
class Job:
    """One submission to grade: whose, of which unit, in which file, and how.

    `problem` says why there is no file; such a job is graded without one.
    """

    student: str
    unit: str
    path: str
    options: Options
    level: str
    problem: str = ""
    root: str = ""


@dataclass(frozen=True, slots=True)
class Graded:
    """The rows of one job, and the key under which they may be used again."""

    key: str
    rows: tuple[Row, ...]


Progress = Callable[[Job, Graded, int, int], None]


def find_jobs(folder: Path, course: Course, options: Options, level: str, unit: str | None = None) -> list[Job]:
    """List the submissions in nbgrader's layout, `<student>/<unit>/<unit>.ipynb` (or .py), in a fixed order."""
    if not folder.is_dir():
        raise SubmissionError(f"{folder} is not a folder")
    students = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith("."))
    units = [unit] if unit else [u for u in course.unit_names if any((s / u).is_dir() for s in students)]
    jobs = []
    for student in students:
        for name in units:
            path, problem = submitted_file(student / name, name)
            jobs.append(Job(student.name, name, str(path), options, level, problem, str(course.root)))
    return jobs


def submitted_file(folder: Path, unit: str) -> tuple[Path, str]:
    """Return the file handed in, or why there is none; one renamed file is accepted."""
    if folder.is_symlink():
        return folder, f"the folder {folder.name} is a symbolic link"
    if not folder.is_dir():
        return folder, "nothing was handed in"
    for kind in KINDS:
        if os.path.lexists(folder / f"{unit}{kind}"):
            return folder / f"{unit}{kind}", ""
    others = sorted(p for p in folder.iterdir() if p.suffix in KINDS)
    if len(others) == 1:
        return others[0], ""
    if not others:
        return folder, f"there is no {unit}.ipynb"
    return folder, f"there is no {unit}.ipynb, and several others: {', '.join(p.name for p in others)}"


_ONE_AT_A_TIME = threading.Lock()


def open_pool(level: str) -> sandbox.Pool:
    """Open the sandbox of this process, once; it closes when the process ends."""
    with _ONE_AT_A_TIME:
        return _open_pool(level)


@lru_cache(maxsize=4)
def _open_pool(level: str) -> sandbox.Pool:
    torch.set_num_threads(1)
    pool = sandbox.open(level, entry=ENTRY)
    atexit.register(pool.close)
    return pool


@lru_cache(maxsize=64)
def _prepare(root: str, unit: str, options: Options) -> None:
    course = load_course(Path(root))
    for exercise in wanted(course.unit(unit), options):
        recognise.prepare(options.pack(exercise))


def prepare(root: str, unit: str, options: Options) -> None:
    """Run truth, solution and wrong answers of a unit once, before any thread needs them."""
    with _ONE_AT_A_TIME:
        _prepare(root, unit, options)


def grade_job(job: Job) -> Graded:
    """Grade one submission. Whatever is wrong with it ends in its own rows."""
    course = load_course(Path(job.root))
    unit = course.unit(job.unit)
    prepare(job.root, job.unit, job.options)
    pool = open_pool(job.level)
    digest = None
    try:
        data = submitted_bytes(job)
        digest = hashlib.sha256(data).hexdigest()
        found = parse(data, Path(job.path).name)
    except SubmissionError as error:
        verdicts = unreadable(unit, error, job.options)
        verdicts = [replace(v, isolation=pool.isolation) for v in verdicts]
    else:
        with Worker(pool) as worker:
            verdicts = grade(course, unit, found, worker, job.options)
    rows = tuple(row(v, job.student, job.unit, digest) for v in verdicts)
    return Graded(key_of(job), rows)


def submitted_bytes(job: Job) -> bytes:
    """Read a job's file."""
    if job.problem:
        raise SubmissionError(job.problem)
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
    facts = [job.student, job.unit, content, job.level, repr(job.options), course_digest(job.root, course.package)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def read_journal(path: Path) -> dict[str, Graded]:
    """Read the finished submissions of an earlier run; a line cut short by a kill is left out."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            data = json.loads(line)
            found[data["key"]] = Graded(data["key"], tuple(data["rows"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def run(
    jobs: Sequence[Job],
    out: Path,
    *,
    workers: int = 1,
    resume: bool = False,
    timing: bool = True,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Grade all jobs, write `results.jsonl` and `grades.csv` into `out`, and return the rows in order.

    Every finished submission is appended to a journal at once; with `resume` those are not graded again.
    """
    out.mkdir(parents=True, exist_ok=True)
    journal = out / JOURNAL
    done = read_journal(journal) if resume else {}
    keys = {job: key_of(job) for job in jobs}
    results = {job: done[key] for job, key in keys.items() if key in done}
    left = [job for job in jobs if job not in results]
    with journal.open("ab" if resume else "wb") as file:
        if file.tell():
            file.write(b"\n")  # ends a line that a kill cut short
        for job, graded in each_graded(left, workers, scheduler):
            results[job] = graded if timing else Graded(graded.key, tuple({**r, "seconds": None} for r in graded.rows))
            line = json_line({"key": keys[job], "rows": list(results[job].rows)})
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
            if progress is not None:
                progress(job, graded, len(results), len(jobs))
    rows = [one for job in jobs for one in results[job].rows]
    write_whole(out / RESULTS, "".join(map(json_line, rows)))
    write_whole(out / GRADES, grades_csv(rows))
    return rows


def each_graded(jobs: Sequence[Job], workers: int, scheduler: str | None) -> Iterator[tuple[Job, Graded]]:
    """Yield jobs as they are finished, in this process's threads or on a dask cluster."""
    if scheduler is not None:
        yield from on_cluster(jobs, scheduler)
        return
    for root, unit, options in dict.fromkeys((j.root, j.unit, j.options) for j in jobs):
        prepare(root, unit, options)
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as threads:
        running = {threads.submit(grade_job, job): job for job in jobs}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            threads.shutdown(cancel_futures=True)


def on_cluster(jobs: Sequence[Job], scheduler: str) -> Iterator[tuple[Job, Graded]]:
    """Yield jobs as a dask.distributed cluster finishes them; a job whose worker is lost is given to another."""
    from distributed import Client
    from distributed import as_completed as completed

    with Client(scheduler, set_as_default=False) as client:
        running: dict[Any, Job] = {client.submit(grade_job, job, pure=False, retries=3): job for job in jobs}
        for future in completed(list(running), loop=client.loop):
            yield running[future], future.result()


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step, so that nobody ever sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def read_rows(path: Path) -> list[Row]:
    """Read an earlier results.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def changes(before: Iterable[Row], after: Iterable[Row]) -> list[tuple[str, str, str, float | None, float | None]]:
    """Return (student, unit, exercise, points before, points after) where they differ."""
    old = {(r["student"], r["unit"], r["exercise"]): r["points"] for r in before}
    new = {(r["student"], r["unit"], r["exercise"]): r["points"] for r in after}
    return [(*key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
