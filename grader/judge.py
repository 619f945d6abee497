"""Pack + observations -> Verdict. Pure: runs no learner code. Names the misconception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grader.assess import assess
from grader.calls import Observation
from grader.meter import Use
from grader.pack import Pack
from grader.recognise import recognise
from grader.verdict import (
    ERROR,
    FAILED,
    NOT_ATTEMPTED,
    PASSED,
    Verdict,
    score,
    status_of,
)

STUB_ERROR = "NotImplementedError"
SPEED_UNTESTED = "the time limit is not measured by this version"


def judge(pack: Pack, seen: Sequence[Observation], uses: Sequence[Use] = ()) -> Verdict:
    """Judge what a candidate did.

    Args:
        pack: the calls and what was expected.
        seen: one observation per call of the pack, in order.
        uses: forbidden things that its source shows.
    """
    exercise = pack.exercise
    base = Verdict(exercise.id, exercise.name, NOT_ATTEMPTED, 0.0, exercise.points)
    if not_attempted(seen):
        return base
    report = assess(pack, seen, uses)
    gated = any(f.check == "forbidden" for f in report.findings)
    points = 0.0 if gated else score(report.items, exercise.points)
    status = FAILED if gated else status_of(report.items, points)
    if points == 0 and any(f.check == "runs" for f in report.findings) and all_raised(pack, seen):
        status = ERROR
    wrong = None if status == PASSED else recognise(pack, seen, report)
    return replace(
        base,
        status=status,
        points=points,
        findings=report.findings,
        items=report.items,
        misconception=wrong.name if wrong else None,
        hint=wrong.hint if wrong else None,
        hidden_left=not any(p.case.hidden for p in pack.planned),
        untested=(SPEED_UNTESTED,) if exercise.cost.time is not None else (),
    )


def not_attempted(seen: Sequence[Observation]) -> bool:
    """Whether every call ended in the stub's NotImplementedError."""
    return all(o.raised is not None and o.crash is None and o.raised.name == STUB_ERROR for o in seen)


def all_raised(pack: Pack, seen: Sequence[Observation]) -> bool:
    """Whether no call that should return something did."""
    return all(o.raised is not None for p, o in zip(pack.planned, seen, strict=False) if p.case.raises is None)
