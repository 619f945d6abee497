"""Which declared wrong answer a learner's code behaves like: the misconception."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from grader.assess import Report, assess
from grader.calls import Observation
from grader.compare import strange_places
from grader.exercise import Wrong
from grader.pack import Pack
from grader.record import run_all
from grader.tolerance import difference
from grader.wire import leaves

ALIKE = {torch.float64: 1e-6, torch.float32: 1e-3}
HALF = 0.499
LONG = 1500
"""A call in which the solution dispatches more operations than this is long."""
BEHAVIOUR = frozenset("runs type structure shape dtype finite values errors gradients inputs".split())
"""Checks of what a candidate does, as against what it costs or calls."""

Answers = tuple[Wrong, list[Observation], Report]

_RUNNING = threading.Lock()
"""Candidates change process-wide settings while they run: one at a time."""


def recognise(pack: Pack, seen: Sequence[Observation], report: Report) -> Wrong | None:
    """Return the declared wrong answer that behaves as the learner's does.

    First one that does the same on every call. Failing that, the learner made other mistakes besides: then the one
    that explains most, at least half, of the calls on which either of the two goes wrong. Long calls (training runs)
    are looked at only where the short ones show nothing.
    """
    if all(finding.check == "speed" for finding in report.findings):
        slow = [wrong for wrong in pack.exercise.wrongs if wrong.caught_by == "speed"]
        return slow[0] if len(slow) == 1 else None
    short, kept = without_long_calls(pack)
    if short is pack:
        return best_match(wrong_answers(pack), pack, seen, report)
    some = [seen[n] for n in kept] + list(seen[len(pack.planned) :])
    its_report = assess(short, some)
    answers = wrong_answers(short)
    if its_report.findings:
        return best_match(answers, short, some, its_report)
    silent = [wrong for wrong, _, shown in answers if not shown.findings and wrong.caught_by != "speed"]
    return best_match(tuple(answers_of(pack, wrong) for wrong in silent), pack, seen, report)


@lru_cache(maxsize=256)
def without_long_calls(pack: Pack) -> tuple[Pack, tuple[int, ...]]:
    """Return the pack without its long calls (itself, if it has none), and the positions of those that stay."""
    kept = tuple(n for n, p in enumerate(pack.planned) if p.expected.reading.ops <= LONG)
    if len(kept) == len(pack.planned):
        return pack, kept
    return replace(pack, planned=tuple(pack.planned[n] for n in kept)), kept


def best_match(answers: Sequence[Answers], pack: Pack, seen: Sequence[Observation], report: Report) -> Wrong | None:
    """Return the wrong answer that fits best, if one fits."""
    own = set(failing_calls(pack, report))
    best, share = None, HALF
    for wrong, other, its_report in answers:
        same_calls = [alike(a, b) for a, b in zip(other, seen, strict=False)]
        if signature(its_report) == signature(report) and all(same_calls):
            return wrong
        failing = set(failing_calls(pack, its_report))
        explained = sum(same_calls[n] for n in failing & own)
        if failing and explained / len(failing | own) > share:
            best, share = wrong, explained / len(failing | own)
    return best


def failing_calls(pack: Pack, report: Report) -> list[int]:
    """Return the calls on which a candidate behaves wrongly."""
    found = {(f.case, f.facts.get("variant")) for f in report.findings if f.check in BEHAVIOUR}
    return [n for n, p in enumerate(pack.planned) if (p.case.name, p.variant) in found]


def signature(report: Report) -> frozenset[tuple[str, str]]:
    """Return which checks fail on which cases."""
    return frozenset((f.check, f.case) for f in report.findings)


@lru_cache(maxsize=4096)
def _answers_of(pack: Pack, wrong: Wrong) -> Answers:
    seen = run_all(wrong.candidate, pack)
    return wrong, seen, assess(pack, seen)


def answers_of(pack: Pack, wrong: Wrong) -> Answers:
    """Run one declared wrong answer on the pack, once."""
    with _RUNNING:
        return _answers_of(pack, wrong)


def wrong_answers(pack: Pack) -> tuple[Answers, ...]:
    """Run every declared wrong answer on the pack, once."""
    return tuple(answers_of(pack, wrong) for wrong in pack.exercise.wrongs)


def prepare(pack: Pack) -> None:
    """Run what `recognise` needs, before several threads need it."""
    wrong_answers(without_long_calls(pack)[0])


def alike(a: Observation, b: Observation) -> bool:
    """Whether two candidates did the same on a call: same exception, or nearly the same results and gradients."""
    if a.crash or b.crash:
        return a.crash == b.crash
    if a.raised is not None or b.raised is not None:
        return a.raised is not None and b.raised is not None and a.raised.name == b.raised.name
    return (
        same(a.outputs, b.outputs)
        and same(dict(a.after), dict(b.after))
        and same(dict(a.gradients), dict(b.gradients))
        and a.changed == b.changed
    )


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
