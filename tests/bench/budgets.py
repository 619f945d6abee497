"""Do budgets flake? Verdicts on code whose true ratio is known, on an idle machine and with two processes hogging it.

The learner is the reference solution itself, so its true ratio is 1; the limit is set to 1 / 0.8, 1 / 1.5 and
1 / 2. Beside the grader's verdict stands the usual one: medians of 10 runs by the wall clock. Growth verdicts must
be the same on every repetition.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import roofline

from grader import sandbox
from grader.course import Course, load_course, solution_source
from grader.exercise import Exercise
from grader.grade import measure
from grader.judge import judge
from grader.observe import prepared
from grader.pack import Pack
from grader.pools import ENTRY
from grader.record import record, run_all
from grader.sequential import OVER, UNDECIDED, WITHIN
from grader.slicing import Program
from grader.subject import Worker

SHARES = (0.8, 1.5, 2.0)
HOG = "while True: pass"
REPEATS = 20


@dataclass
class Tally:
    """Verdicts on code at one share of its limit."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def failed(self) -> float:
        """Share of the verdicts that would cost points, in percent."""
        return (
            100.0 * (self.outcomes.total() - self.outcomes[WITHIN] - self.outcomes[UNDECIDED]) / self.outcomes.total()
        )


def main() -> None:
    """Measure and print tables."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=300, help="verdicts per share and load")
    parser.add_argument("--isolation", default="auto")
    options = parser.parse_args()
    course = load_course()
    timed = [e for unit in course.units for e in unit.exercises if e.timed is not None]
    print(f"{len(timed)} exercises with a time limit: {', '.join(e.id for e in timed)}")
    with sandbox.open(options.isolation, entry=ENTRY) as pool:
        for hogs in (0, 2):
            with hogging(hogs):
                print(
                    f"\n{hogs} hogs, load {os.getloadavg()[0]:.1f}, {pool.isolation}, {options.verdicts} verdicts a row"
                )
                print(f"{'':24}{'true ratio / limit':>20}{'fails':>9}{'undecided':>11}{'s / verdict':>13}")
                for share in SHARES:
                    row("grader", share, tally(options.verdicts, timed, share, grader_verdict(course, pool)))
                for share in SHARES:
                    row("medians of 10, wall", share, tally(options.verdicts, timed, share, usual_verdict))
    growth_repeats(course)
    print()
    roofline.main()


@contextlib.contextmanager
def hogging(count: int) -> Iterator[None]:
    """Keep so many processes busy."""
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    time.sleep(1.0 if count else 0.0)
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


Decide = Callable[[Exercise, Pack], str]


def tally(count: int, timed: list[Exercise], share: float, verdict: Decide) -> Tally:
    """Take so many verdicts, the exercises in turn."""
    found = Tally()
    for number in range(count):
        exercise = timed[number % len(timed)]
        pack = record(exercise)
        assert pack.speed is not None
        start = time.perf_counter()
        found.outcomes[verdict(exercise, replace(pack, speed=replace(pack.speed, limit=1 / share)))] += 1
        found.seconds.append(time.perf_counter() - start)
    return found


def grader_verdict(course: Course, pool: sandbox.Pool) -> Decide:
    """Return the grader's way to decide: two fresh workers a verdict."""

    def decided(exercise: Exercise, pack: Pack) -> str:
        program = Program(exercise.name, solution_source(exercise))
        with Worker(pool) as worker:
            found = measure(course, program, worker, pack)
        assert found is not None
        return found.outcome

    return decided


def usual_verdict(exercise: Exercise, pack: Pack) -> str:
    """Decide by the medians of 10 runs each, one after the other, by the wall clock."""
    assert pack.speed is not None
    call = pack.speed.call(0)

    def median() -> float:
        times = []
        for _ in range(10):
            run = prepared(exercise.solution, call)
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return WITHIN if median() <= pack.speed.limit * median() else OVER


def row(who: str, share: float, found: Tally) -> None:
    """Print one row."""
    open_share = 100.0 * found.outcomes[UNDECIDED] / found.outcomes.total()
    seconds = statistics.mean(found.seconds)
    print(f"{who:24}{share:>20}{found.failed:>8.1f}%{open_share:>10.1f}%{seconds:>13.2f}", flush=True)
    unexpected = set(found.outcomes) - {WITHIN, OVER, UNDECIDED}
    if unexpected:
        print(f"{'':24}also: { ({name: found.outcomes[name] for name in unexpected}) }")


def growth_repeats(course: Course) -> None:
    """Judge solutions and the wrong answers that growth catches, again and again."""
    pairs = [
        (exercise, candidate)
        for unit in course.units
        for exercise in unit.exercises
        if exercise.growths
        for candidate in [exercise.solution, *(w.candidate for w in exercise.wrongs if w.caught_by == "growth")][:2]
    ][:12]
    same = 0
    for exercise, candidate in pairs:
        pack = record(exercise)
        own = replace(pack, planned=pack.planned[:1])
        verdicts = {
            str([(f.kind, f.facts) for f in judge(own, run_all(candidate, own)).findings]) for _ in range(REPEATS)
        }
        same += len(verdicts) == 1
    print(f"\ngrowth: {same} of {len(pairs)} candidates get the same verdict on each of {REPEATS} repetitions")


if __name__ == "__main__":
    main()
