"""How well the roofline estimate orders implementations: estimated against measured CPU time, over the whole course.

Each point is one implementation (the solution, a right answer, a wrong one that is only slow) on one of the calls that
its exercise lets grow, at a larger size. The CPU time is that of the call alone: one thread, no meter, the median of
several blocks. Run it with `python tests/bench/roofline.py`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from grader.calls import Call
from grader.course import load_course
from grader.exercise import Exercise
from grader.observe import observe, prepared, quiet
from grader.record import growing_call
from grader.roofline import CPU, Card, Row, estimate

STEPS = (2, 8, 32)
BLOCKS = 5
BLOCK_SECONDS = 2e-3
TOO_SLOW = 0.3
TOO_LARGE = 2**28
GAPS = (1.5, 3.0, 10.0)


@dataclass(frozen=True)
class Sample:
    """One implementation on one call, `step` times as large as the smallest: what it does and how long it took."""

    task: str
    step: int
    implementation: str
    rows: tuple[Row, ...]
    seconds: float


def main(limit: int | None = None) -> None:
    """Measure the course and print what the estimate is worth."""
    torch.set_num_threads(1)
    found = list(samples(limit))
    implementations = {sample.implementation for sample in found}
    print(f"{len(found)} points of {len(implementations)} implementations, {CPU}")
    for line in report(found, CPU):
        print(line)


def samples(limit: int | None) -> Iterator[Sample]:
    """Measure the implementations of the course's exercises at larger sizes."""
    exercises = [e for unit in load_course().units for e in unit.exercises if e.growths and not e.mutates]
    for exercise in exercises[:limit]:
        for index, growth in enumerate(exercise.growths):
            for step in STEPS:
                call = call_of(exercise, index, step * growth.sizes[0])
                if call is not None and call.probe is None:
                    yield from measured(exercise, step, replace(call, detail=True, forbid=()))


def call_of(exercise: Exercise, index: int, size: int) -> Call | None:
    """Make a call, where the exercise goes so far."""
    try:
        return growing_call(exercise, index, size)
    except Exception:
        return None


def candidates(exercise: Exercise) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the implementations that give the right values, however slowly."""
    yield "solution", exercise.solution
    for right in exercise.rights:
        yield right.candidate.__name__, right.candidate
    for wrong in exercise.wrongs:
        if wrong.caught_by in ("growth", "cost", "speed"):
            yield wrong.name, wrong.candidate


def measured(exercise: Exercise, step: int, call: Call) -> Iterator[Sample]:
    """Measure the implementations on one call, leaving out what raises or would take too long."""
    for name, candidate in candidates(exercise):
        seen = observe(candidate, call)
        reading = seen.reading
        if seen.raised is None and reading.peak < TOO_LARGE and estimate(reading.detail, CPU) < TOO_SLOW:
            task = f"{exercise.id}, {call.label}"
            yield Sample(task, step, f"{exercise.id}/{name}", reading.detail, cpu_seconds(candidate, call))


def cpu_seconds(candidate: Callable[..., Any], call: Call) -> float:
    """Return the CPU time of one call: the median of several blocks, each long enough for the clock."""
    run = prepared(candidate, call)
    with quiet():
        run()
        many = max(1, math.ceil(BLOCK_SECONDS / max(block(run, 1), 1e-6)))
        return statistics.median(block(run, many) for _ in range(BLOCKS))


def block(run: Callable[[], Any], many: int) -> float:
    """Return the CPU seconds of one call, averaged over a block of them."""
    start = time.process_time()
    for _ in range(many):
        run()
    return (time.process_time() - start) / many


def report(found: Sequence[Sample], card: Card) -> Iterator[str]:
    """Say how well estimates agree with times."""
    guesses = [estimate(sample.rows, card) for sample in found]
    times = [sample.seconds for sample in found]
    factors = [math.exp(abs(math.log(g / t))) for g, t in zip(guesses, times, strict=True) if g > 0]
    yield f"Spearman rank correlation: {spearman(guesses, times):.3f}"
    for step in sorted({sample.step for sample in found}):
        some = [n for n, sample in enumerate(found) if sample.step == step]
        only = spearman([guesses[n] for n in some], [times[n] for n in some])
        yield f"  {len(some)} points at {step} times the declared size: {only:.3f}"
    yield f"median error: a factor of {statistics.median(factors):.2f}"
    for gap in GAPS:
        right, total = ordered(found, guesses, gap)
        share = 100 * right / total if total else math.nan
        yield f"same call, measured at least {gap:g} times apart: {right} of {total} pairs in order ({share:.1f} %)"


def ordered(found: Sequence[Sample], guesses: Sequence[float], gap: float) -> tuple[int, int]:
    """Count the pairs on the same call that are `gap` apart, and those of them that the estimate puts in order."""
    tasks = defaultdict(list)
    for sample, guess in zip(found, guesses, strict=True):
        tasks[sample.task].append((sample.seconds, guess))
    pairs = [pair for members in tasks.values() for pair in combinations(members, 2)]
    apart = [(min(pair), max(pair)) for pair in pairs if max(pair)[0] >= gap * min(pair)[0]]
    return sum(fast[1] < slow[1] for fast, slow in apart), len(apart)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation; equal values share the mean of their ranks."""
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def ranks(values: Iterable[float]) -> np.ndarray[Any, Any]:
    """Return the rank of each value."""
    _, place, counts = np.unique(np.asarray(list(values)), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="only so many exercises")
    main(parser.parse_args().limit)
