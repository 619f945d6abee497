"""Which declared wrong answer a learner's code behaves like: the misconception."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from grader.assess import Report, assess
from grader.calls import Observation, Raised
from grader.compare import strange_places
from grader.exercise import Wrong
from grader.observe import observe
from grader.pack import LONG, Pack
from grader.tolerance import difference
from grader.trees import leaves

ALIKE = {torch.float64: 1e-6, torch.float32: 1e-3}
HALF = 0.499
FAIR = 0.25
"""The few calls that return something where most raise say nothing about why those do."""
TRIES = 6
"""So many calls, spread over those that fail, are tried first: which does the same on none of them is out."""
BEHAVIOUR = frozenset("runs type structure shape dtype finite values errors gradients inputs".split())
"""Checks of what a candidate does, as against what it costs or calls."""

NUMBERS = re.compile(r"[\d.,x -]+")

COSTS = frozenset(["cost", "growth"])

Answers = tuple[Wrong, list[Observation], Report]

_RUNNING = threading.Lock()
"""Candidates change process-wide settings while they run: one at a time."""


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


def failing_calls(pack: Pack, report: Report) -> list[int]:
    """Return the calls on which a candidate behaves wrongly."""
    found = {(f.case, f.facts.get("variant")) for f in report.findings if f.check in BEHAVIOUR}
    return [n for n, p in enumerate(pack.planned) if (p.case.name, p.variant) in found]


def signature(report: Report) -> frozenset[tuple[str, str]]:
    """Return which checks fail on which cases."""
    return frozenset((f.check, f.case) for f in report.findings)


@lru_cache(maxsize=65_536)
def _answer(pack: Pack, wrong: Wrong, number: int, watched: bool) -> Observation:
    call = pack.calls()[number]
    return observe(wrong.candidate, call if watched else replace(call, watched=False))


def answer(pack: Pack, wrong: Wrong, number: int, *, watched: bool = True) -> Observation:
    """Make one call of a pack with a declared wrong answer, once; only a watched one says what it costs and calls."""
    with _RUNNING:
        return _answer(pack, wrong, number, watched)


@lru_cache(maxsize=65_536)
def fails(pack: Pack, wrong: Wrong, number: int) -> bool:
    """Whether a wrong answer behaves wrongly on one of a pack's cases."""
    alone = replace(pack, planned=(pack.planned[number],), growths=(), speed=None)
    return bool(failing_calls(alone, assess(alone, [answer(pack, wrong, number, watched=False)])))


@lru_cache(maxsize=4096)
def answers_of(pack: Pack, wrong: Wrong) -> Answers:
    """Make all calls of a pack with a declared wrong answer, once."""
    seen = [answer(pack, wrong, number) for number in range(len(pack.calls()))]
    return wrong, seen, assess(pack, seen)


def wrong_answers(pack: Pack) -> tuple[Answers, ...]:
    """Make all calls of a pack with every declared wrong answer, once."""
    return tuple(answers_of(pack, wrong) for wrong in pack.exercise.wrongs)


def alike(a: Observation, b: Observation) -> bool:
    """Whether two candidates did the same on a call: same exception, or nearly the same results and gradients."""
    if a.crash or b.crash:
        return a.crash == b.crash
    if a.raised is not None or b.raised is not None:
        return a.raised is not None and b.raised is not None and raised_alike(a.raised, b.raised)
    return (
        same(a.outputs, b.outputs)
        and same(dict(a.after), dict(b.after))
        and same(dict(a.gradients), dict(b.gradients))
        and a.changed == b.changed
    )


def raised_alike(a: Raised, b: Raised) -> bool:
    """Whether two exceptions are the same: of one kind and, but for its numbers, with one text.

    A ValueError's text is whatever its author wrote; one about a state dict begins with the class's name.
    """
    if a.name != b.name or (a.stage == "state") != (b.stage == "state"):
        return False
    if a.stage == "state":
        return a.text.partition("\n")[2] == b.text.partition("\n")[2]
    return a.name == "ValueError" or NUMBERS.sub("", a.text) == NUMBERS.sub("", b.text)


def same(a: Any, b: Any) -> bool:
    """Whether two pieces of plain data are nearly equal."""
    left, right = list(leaves(a)), list(leaves(b))
    return len(left) == len(right) and all(
        p == q and same_leaf(x, y) for (p, x), (q, y) in zip(left, right, strict=True)
    )


def same_leaf(a: Any, b: Any) -> bool:
    """Whether two leaves are nearly equal; nan equals nan."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.is_floating_point():
            return torch.equal(a, b)
        if strange_places(a, b) is not None:
            return False
        error = difference(a, b)
        return error.max <= ALIKE.get(a.dtype, 3e-2)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool(a == b or (a != a and b != b) or abs(a - b) <= 1e-6 * max(abs(a), abs(b)))
    return bool(a == b)
