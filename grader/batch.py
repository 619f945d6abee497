"""Grade a class: many submissions, several workers, resumable at any moment, the same result every time."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from grader.course import load_course
from grader.exercise import Exercise
from grader.grade import BEFORE_GRADING, Options, grade, ungraded, unreadable, wanted
from grader.jobs import NOTHING, Job, key_of, submitted_bytes
from grader.pools import open_pool
from grader.remote import Child
from grader.render.messages import speaking
from grader.render.results import Row, grades_csv, json_line, row
from grader.results_folder import (
    GRADES,
    JOURNAL,
    RESULTS,
    Graded,
    earlier_rows,
    own_journal,
    read_journal,
    with_others,
    write_whole,
)
from grader.sandbox import Pool
from grader.subject import Worker
from grader.submission import SubmissionError, parse
from grader.verdict import NOT_ATTEMPTED, NOT_GRADABLE, Verdict

Progress = Callable[[Job, Graded, int, int], None]


_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=64)
def _prepare(root: str, unit: str, options: Options) -> None:
    course = load_course(Path(root))
    for exercise in wanted(course.unit(unit), options):
        options.pack(exercise)


def prepare(root: str, unit: str, options: Options) -> None:
    """Run truth and solution of a unit once, before any thread needs them."""
    with _ONE_AT_A_TIME:
        torch.set_num_threads(1)
        _prepare(root, unit, options)


@lru_cache(maxsize=64)
def beside(pool: Pool, thread: int) -> Child | None:  # noqa: ARG001 - each thread has its own
    """Return the child in which a thread has the reference timed; it ends with the pool.

    At level portable a submission can signal and stop other processes: there each one has a child of its own.
    """
    return None if pool.level == "portable" else Child(pool)


def grade_job(job: Job) -> Graded:
    """Grade one submission, in the language of whoever asked. Whatever is wrong with it ends in its own rows."""
    with speaking(job.language):
        verdicts, digest = verdicts_of(job)
        unit = load_course(Path(job.root)).unit(job.unit)
        return tuple(row_of(v, job, e, digest) for v, e in zip(verdicts, wanted(unit, job.options), strict=True))


def verdicts_of(job: Job) -> tuple[list[Verdict], str | None]:
    """Return one verdict per exercise, and the digest of the file that was graded."""
    course = load_course(Path(job.root))
    unit = course.unit(job.unit)
    prepare(job.root, job.unit, job.options)
    pool = open_pool(job.level)
    digest = None
    if job.problem == NOTHING:
        return [not_handed_in(e, pool.isolation) for e in wanted(unit, job.options)], None
    try:
        data = submitted_bytes(job)
        digest = hashlib.sha256(data).hexdigest()
        found = parse(data, Path(job.path).name)
    except SubmissionError as error:
        verdicts = unreadable(unit, error, job.options)
        verdicts = [replace(v, isolation=pool.isolation) for v in verdicts]
    else:
        try:
            with Worker(pool, beside=beside(pool, threading.get_ident())) as worker:
                verdicts = grade(course, unit, found, worker, job.options)
        except BEFORE_GRADING:
            raise
        except Exception as error:  # a fault of ours must not cost the others their grades
            verdicts = [ungraded(e, error, pool.isolation) for e in wanted(unit, job.options)]
    return verdicts, digest


def not_handed_in(exercise: Exercise, isolation: str) -> Verdict:
    """Return the verdict on an exercise of a unit that a student left out."""
    return Verdict(
        exercise.id, exercise.name, NOT_ATTEMPTED, 0.0, exercise.points, untested=(NOTHING,), isolation=isolation
    )


def row_of(verdict: Verdict, job: Job, exercise: Exercise, digest: str | None) -> Row:
    """Put a verdict into words; one that cannot be is for a person to look at."""
    try:
        return row(verdict, job.student, job.unit, digest, job.options.seed)
    except Exception as error:
        failed = ungraded(exercise, error, verdict.isolation)
        return row(failed, job.student, job.unit, digest, job.options.seed)


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

    Every finished submission is appended to a journal at once; with `resume` those are not graded again. Earlier
    results of exercises that this run does not grade stay in the files.

    Raises:
        SubmissionError: another run is writing into `out`, or its files hold something else than results.
        OSError: `out` cannot be written.
    """
    with own_journal(out) as file:
        earlier = earlier_rows(out / RESULTS)
        done = read_journal(out / JOURNAL) if resume else {}
        keys = {job: key_of(job) for job in jobs}
        results = {job: done[key] for job, key in keys.items() if key in done}
        left = [job for job in jobs if job not in results]
        if not resume:
            file.truncate(0)
        elif file.tell():
            file.write(b"\n")  # ends a line that a kill cut short
        for job, graded in each_graded(left, workers, scheduler):
            results[job] = graded if timing else tuple({**r, "seconds": None} for r in graded)
            if all(r["status"] != NOT_GRADABLE for r in graded):  # those are tried again with `resume`
                file.write(json_line({"key": keys[job], "rows": list(results[job])}).encode())
                file.flush()
                os.fsync(file.fileno())
            if progress is not None:
                progress(job, graded, len(results), len(jobs))
        rows = [one for job in jobs for one in results[job]]
        whole = with_others(earlier, rows)
        write_whole(out / RESULTS, "".join(map(json_line, whole)))
        write_whole(out / GRADES, grades_csv(whole))
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


def changes(before: Iterable[Row], after: Iterable[Row]) -> list[tuple[str, str, str, float | None, float | None]]:
    """Return (student, unit, exercise, points before, points after) where they differ."""
    old = {(r["student"], r["unit"], r["exercise"]): r["points"] for r in before}
    new = {(r["student"], r["unit"], r["exercise"]): r["points"] for r in after}
    return [(*key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
