"""Is a call fast enough? A sequential sign test on pairs of times, each measured side by side with the reference.

Nothing here reads a clock or calls anybody's code: it decides what to measure next and what the measurements mean.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from grader.calls import Call, Observation
from grader.reading import Use
from grader.sequential import FALSE_PASS, OVER, UNDECIDED, WITHIN, decide, enough, interval
from grader.verdict import Finding

MOST_PAIRS = 60
MOST_SECONDS = 5.0
BLOCK = {"cpu": 2e-3, "cuda": 5e-3}
"""Seconds that a timed block of calls takes at least: what starting and stopping it costs is small beside that."""
MOST_LAPS = 32
BLOWOUT = 5.0
REFERENCE_CALLS = 5
ASLEEP = 5.0
"""A block that takes this many times longer by the wall clock than by its own CPU clock waits for something."""

WRONG, ELSEWHERE, WAITS = "wrong", "elsewhere", "waits"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one timed block.

    Args:
        busy: what counts: CPU time of the process and all its threads on a CPU, wall time on a GPU.
        wall: by the wall clock.
        events: by the GPU's own events; 0 without a GPU.
        before: CPU seconds that the process used since the last block, outside of any.
        peak: bytes allocated on the GPU at a time.
    """

    busy: float
    wall: float
    events: float = 0.0
    before: float = 0.0
    peak: int = 0


class Runner(Protocol):
    """Runs timed blocks of calls of one candidate, in this process or in another one."""

    def prepare(self, calls: Sequence[Call]) -> None:
        """Build modules and copy inputs, so that only the calls themselves are left to do."""
        ...

    def go(self, seconds: float) -> Times:
        """Make the prepared calls. Raises `TooSlowError` where they can be stopped after so many seconds."""
        ...

    def show(self, index: int) -> Observation:
        """Return what one of the calls of the last block returned."""
        ...

    def watch(self, call: Call) -> Observation:
        """Make one call that is watched and not timed."""
        ...


class TooSlowError(Exception):
    """A timed block was stopped because it took too long."""


@dataclass(frozen=True, slots=True)
class Race:
    """What came out of measuring a candidate beside the reference.

    Args:
        outcome: within, over or undecided; or what is suspicious: wrong (a timed call returned a wrong result),
            elsewhere (the work is done outside of the timed calls), waits (the time passes outside of the process).
        limit: the ratio that is allowed.
        ratios: measured ratios, pair by pair.
        low, high: a confidence sequence for the median ratio, 99.9 % at any time.
        finding: of a wrong result.
        events: share of the learner's time that the GPU's own events account for; 0 without a GPU.
        peaks: bytes that learner and reference held at a time on the GPU.
        uses: what is forbidden and was called where it was watched, between timed calls.
    """

    outcome: str
    limit: float
    ratios: tuple[float, ...] = ()
    low: float = 0.0
    high: float = math.inf
    finding: Finding | None = None
    events: float = 0.0
    peaks: tuple[int, int] = (0, 0)
    uses: tuple[Use, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it is held against the candidate; what is undecided never is."""
        return self.outcome not in (WITHIN, UNDECIDED)

    @property
    def ratio(self) -> float:
        """The median ratio; infinite if the learner's calls had to be stopped."""
        return statistics.median(self.ratios) if self.ratios else math.inf


@dataclass
class Track:
    """The pairs measured so far."""

    limit: float
    learner: list[Times] = field(default_factory=list)
    reference: list[Times] = field(default_factory=list)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ratios, pair by pair."""
        return tuple(a.busy / max(b.busy, 1e-9) for a, b in zip(self.learner, self.reference, strict=True))

    @property
    def seconds(self) -> float:
        """Seconds measured in all."""
        return sum(t.busy for t in self.learner + self.reference)

    def blown(self) -> bool:
        """Whether the learner's best block takes 5 times the limit of the reference's slowest of five."""
        few = self.reference[:REFERENCE_CALLS]
        return len(few) == REFERENCE_CALLS and self.best > BLOWOUT * self.limit * max(t.busy for t in few)

    @property
    def best(self) -> float:
        """The learner's shortest block."""
        return min(t.busy for t in self.learner)

    def suspicion(self) -> str | None:
        """Say if the work is done where the clock does not look: outside of the blocks, or outside of the process.

        What happens in a few pairs only is the machine's doing.
        """
        pairs = list(zip(self.learner, self.reference, strict=True))
        hidden = sum(a.before - b.before > max(b.before, a.busy) for a, b in pairs)
        waiting = sum(a.wall > ASLEEP * a.busy and a.wall > self.limit * b.wall for a, b in pairs)
        if enough(hidden, len(pairs), FALSE_PASS):
            return ELSEWHERE
        return WAITS if enough(waiting, len(pairs), FALSE_PASS) else None

    def race(self, outcome: str, finding: Finding | None = None) -> Race:
        """Sum up."""
        ratios = self.ratios
        low, high = interval(ratios)
        wall = sum(t.wall for t in self.learner)
        share = sum(t.events for t in self.learner) / wall if wall else 0.0
        own, theirs = (max((t.peak for t in times), default=0) for times in (self.learner, self.reference))
        return Race(outcome, self.limit, ratios, low, high, finding, share, (own, theirs))


Fresh = Callable[[int], Call]
Verify = Callable[[Call, Observation, Observation], Finding | None]


@dataclass
class Meet:
    """One race: two runners, inputs that are new in every call, and a check of what the timed calls returned.

    Args:
        learner: runs the learner's code.
        reference: runs the reference solution.
        limit: the ratio that is allowed.
        fresh: makes the n-th call; all have the same sizes.
        verify: says what is wrong with what a call returned, beside what the reference returned.
        device: "cpu" or "cuda".
        forbid: words that the learner's code may not call. The timed calls are not watched, but some like them are, at
            moments that nobody can foresee.
        chance: chooses the order of the two and which results are looked at.
    """

    learner: Runner
    reference: Runner
    limit: float
    fresh: Fresh
    verify: Verify
    device: str = "cpu"
    forbid: tuple[str, ...] = ()
    chance: random.Random = field(default_factory=random.SystemRandom)
    made: int = 0
    uses: list[Use] = field(default_factory=list)

    def run(self) -> Race:
        """Measure until it is decided; what seems too slow but stays undecided is measured once more."""
        found = self.once()
        found = self.once() if found.outcome == UNDECIDED and found.ratio > self.limit else found
        return replace(found, uses=tuple(self.uses))

    def once(self) -> Race:
        """Measure pairs until the test decides, or there is no more time."""
        track = Track(self.limit)
        try:
            laps, finding = self.warm_up()
            if finding is not None:
                return track.race(WRONG, finding)
            return self.pairs(track, laps)
        except TooSlowError:
            return Race(OVER, self.limit)

    def warm_up(self) -> tuple[int, Finding | None]:
        """Make one call each, twice, and check a result; returns how many calls fill a block."""
        self.watch()
        for _ in range(2):
            calls = self.calls(1)
            self.reference.prepare(calls)
            usual = self.reference.go(math.inf).busy
            self.learner.prepare(calls)
            self.learner.go(self.patience(usual))
            finding = self.look(calls, 0)
            if finding is not None:
                return 1, finding
        return max(1, min(MOST_LAPS, math.ceil(BLOCK[self.device] / max(usual, 1e-6)))), None

    def pairs(self, track: Track, laps: int) -> Race:
        """Measure pair by pair; a result is looked at in one of the first pairs and in the one that decides."""
        looked_at = self.chance.randrange(8)
        while True:
            calls = self.calls(laps)
            self.pair(track, calls)
            number = len(track.learner)
            outcome = OVER if track.blown() else decide(track.ratios, self.limit)
            over = outcome == UNDECIDED and (number >= MOST_PAIRS or track.seconds > MOST_SECONDS)
            if over or outcome != UNDECIDED or number == looked_at:
                finding = self.look(calls, self.chance.randrange(laps))
                self.watch()
                if finding is not None:
                    return track.race(WRONG, finding)
            if over or outcome != UNDECIDED:
                return track.race(track.suspicion() or outcome)

    def look(self, calls: list[Call], index: int) -> Finding | None:
        """Compare the results of one timed call."""
        return self.verify(calls[index], self.learner.show(index), self.reference.show(index))

    def watch(self) -> None:
        """Make one more call of the learner's, and note what is forbidden and called in it."""
        (call,) = self.calls(1)
        self.uses += self.learner.watch(replace(call, forbid=self.forbid, costs=False)).uses

    def pair(self, track: Track, calls: list[Call]) -> None:
        """Time one block each, in random order."""
        sides = [(self.learner, track.learner), (self.reference, track.reference)]
        self.chance.shuffle(sides)
        for runner, times in sides:
            runner.prepare(calls)  # right before its turn, so that neither finds its inputs in a cache more often
            mine = runner is self.learner
            usual = max((t.busy for t in track.reference), default=1.0)
            times.append(runner.go(self.patience(usual) if mine else math.inf))

    def patience(self, usual: float) -> float:
        """Return how long a learner's block may take before it is stopped: far more than the limit."""
        return 1.0 + 4 * BLOWOUT * self.limit * usual

    def calls(self, count: int) -> list[Call]:
        """Make calls that nobody has seen before."""
        self.made += count
        return [self.fresh(n) for n in range(self.made - count, self.made)]
