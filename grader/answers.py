"""What the declared wrong answers do on a pack's calls: each call is made once and kept."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import lru_cache

from grader.assess import Report, assess
from grader.calls import Observation
from grader.exercise import Wrong
from grader.observe import observe
from grader.pack import Pack

BEHAVIOUR = frozenset("runs type structure shape dtype finite values errors gradients inputs".split())
"""Checks of what a candidate does, as against what it costs or calls."""

Answers = tuple[Wrong, list[Observation], Report]

_RUNNING = threading.Lock()
"""Candidates change process-wide settings while they run: one at a time."""


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


def failing_calls(pack: Pack, report: Report) -> list[int]:
    """Return the calls on which a candidate behaves wrongly."""
    found = {(f.case, f.facts.get("variant")) for f in report.findings if f.check in BEHAVIOUR}
    return [n for n, p in enumerate(pack.planned) if (p.case.name, p.variant) in found]


def signature(report: Report) -> frozenset[tuple[str, str]]:
    """Return which checks fail on which cases."""
    return frozenset((f.check, f.case) for f in report.findings)
