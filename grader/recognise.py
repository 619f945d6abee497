"""Which declared wrong answer a learner's code behaves like: the misconception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from grader.answers import answer, answers_of, failing_calls, fails, signature
from grader.assess import Report, assess
from grader.calls import Observation
from grader.exercise import Wrong
from grader.likeness import alike
from grader.pack import LONG, Pack

HALF = 0.499
FAIR = 0.25
"""The few calls that return something where most raise say nothing about why those do."""
TRIES = 6
"""So many calls, spread over those that fail, are tried first: which does the same on none of them is out."""
COSTS = frozenset(["cost", "growth"])


def recognise(pack: Pack, seen: Sequence[Observation], report: Report) -> Wrong | None:
    """Return the declared wrong answer that behaves as the learner's does.

    First one that does the same on every call. Failing that, the learner made other mistakes besides: then the one
    that explains most, at least half, of the calls on which either of the two goes wrong. Long calls (training runs)
    are looked at only where the short ones show nothing.
    """
    if report.findings and all(finding.check == "speed" for finding in report.findings):
        slow = [wrong for wrong in pack.exercise.wrongs if wrong.caught_by == "speed"]
        return slow[0] if len(slow) == 1 else None
    wrongs = pack.exercise.wrongs
    short, kept = without_long_calls(pack)
    if short is pack:
        return best_match(pack, seen, report, wrongs)
    some = [seen[n] for n in kept] + list(seen[len(pack.planned) :])
    its_report = assess(short, some)
    if its_report.findings:
        return best_match(short, some, its_report, wrongs)
    silent = [w for w in wrongs if w.caught_by != "speed" and not any(fails(short, w, n) for n in range(len(kept)))]
    return best_match(pack, seen, report, silent)


@lru_cache(maxsize=256)
def without_long_calls(pack: Pack) -> tuple[Pack, tuple[int, ...]]:
    """Return the pack without its long calls (itself, if it has none), and the positions of those that stay."""
    kept = tuple(n for n, p in enumerate(pack.planned) if p.expected.reading.ops <= LONG)
    if len(kept) == len(pack.planned):
        return pack, kept
    return replace(pack, planned=tuple(pack.planned[n] for n in kept)), kept


def best_match(pack: Pack, seen: Sequence[Observation], report: Report, wrongs: Sequence[Wrong]) -> Wrong | None:
    """Return the wrong answer that fits best, if one fits.

    A learner may have made other mistakes besides, above all checked no arguments: calls that return something are
    looked at before those that must raise, and results before exceptions.
    """
    own = failing_calls(pack, report)
    if not own:
        same = next((wrong for wrong in wrongs if does_the_same(pack, wrong, seen, report)), None)
        return same or cost_match(pack, report, wrongs)
    plain = [n for n in own if pack.planned[n].case.raises is None]
    if not plain:
        unchecked = closest(pack, seen, report, wrongs, own)
        exact = unchecked is not None and does_the_same(pack, unchecked, seen, report)
        return unchecked if exact else cost_match(pack, report, wrongs) or unchecked
    answered = [n for n in plain if seen[n].raised is None]
    if len(answered) < FAIR * len(plain):
        answered = []
    parts = dict.fromkeys(tuple(part) for part in (plain, answered, own) if part)
    found = (closest(pack, seen, report, wrongs, part) for part in parts)
    return next((wrong for wrong in found if wrong is not None), None)


def cost_match(pack: Pack, report: Report, wrongs: Sequence[Wrong]) -> Wrong | None:
    """Return the wrong answer whose results are right and whose costs are too high in the same places, mostly."""
    own = costs(report)
    best, share = None, HALF
    for wrong in wrongs if own else ():
        if wrong.caught_by in COSTS:
            _, _, its_report = answers_of(pack, wrong)
            its = costs(its_report)
            common = len(own & its) / len(own | its)
            if common > share and not failing_calls(pack, its_report):
                best, share = wrong, common
    return best


def costs(report: Report) -> frozenset[tuple[str, str]]:
    """Return which limits of cost and growth are passed, and where."""
    return frozenset(place for place in signature(report) if place[0] in COSTS)


def closest(
    pack: Pack, seen: Sequence[Observation], report: Report, wrongs: Sequence[Wrong], own: Sequence[int]
) -> Wrong | None:
    """Return the wrong answer that does the same on most of the calls `own`, of those that fail, and on right ones."""
    failing = failing_calls(pack, report)
    right = [n for n in range(len(pack.planned)) if n not in failing]
    best, share = None, HALF
    for wrong in wrongs:
        explained = share_explained(pack, wrong, seen, own, right, share)
        if explained == 1.0 and does_the_same(pack, wrong, seen, report):
            return wrong
        if explained > share:
            best, share = wrong, explained
    return best


def share_explained(
    pack: Pack, wrong: Wrong, seen: Sequence[Observation], own: Sequence[int], right: Sequence[int], floor: float
) -> float:
    """Return on which share of the calls that fail for either of the two both do the same; 0 if not above `floor`.

    The wrong answer is run call by call, the cheap ones first, and no further than it has a chance. What it costs or
    calls does not matter here, and reading that would take longer than running it.
    """

    def same(n: int) -> bool:
        return fails(pack, wrong, n) and alike(answer(pack, wrong, n, watched=False), seen[n])

    own, right = cheapest_first(pack, own), cheapest_first(pack, right)
    if len(own) > TRIES and not any(same(own[number * len(own) // TRIES]) for number in range(TRIES)):
        return 0.0
    explained, either, left = 0, len(own), len(own)
    for n in (*own, *right):
        if left:
            explained += same(n)
            left -= 1
        else:
            either += fails(pack, wrong, n)
        most = (explained + left) / either
        if most < 1.0 and most <= floor:
            return 0.0
    return explained / either


def cheapest_first(pack: Pack, calls: Sequence[int]) -> list[int]:
    """Order calls by what they cost the solution."""
    return sorted(calls, key=lambda n: pack.planned[n].expected.reading.ops)


def does_the_same(pack: Pack, wrong: Wrong, seen: Sequence[Observation], report: Report) -> bool:
    """Whether a wrong answer fails the same checks on the same cases, with the same results everywhere."""
    _, its, its_report = answers_of(pack, wrong)
    return signature(its_report) == signature(report) and all(alike(a, b) for a, b in zip(its, seen, strict=False))
