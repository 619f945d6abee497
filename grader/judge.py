"""Pack + observations -> Verdict. Pure: runs no learner code. Names the misconception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grader.assess import Report, assess
from grader.calls import Observation
from grader.pack import Pack
from grader.reading import Use
from grader.recognise import recognise
from grader.sequential import UNDECIDED
from grader.speed import Race
from grader.verdict import (
    ERROR,
    FAILED,
    N_,
    NOT_ATTEMPTED,
    PASSED,
    Verdict,
    score,
    status_of,
)

STUB_ERROR = "NotImplementedError"
UNSURE = N_("time: probably within the limit; too much else is running here to be certain")
UNDECIDED_TIME = N_("time: could not be decided; too much else is running here")


def judge(
    pack: Pack,
    seen: Sequence[Observation],
    uses: Sequence[Use] = (),
    race: Race | None = None,
    on_device: tuple[Pack, Sequence[Observation]] | None = None,
) -> Verdict:
    """Judge what a candidate did.

    Args:
        pack: the calls and what was expected.
        seen: one observation per call of the pack, in order.
        uses: forbidden things that its source shows.
        race: what measuring its time came to; None where that was not done.
        on_device: the same for the calls that were made on another device.
    """
    exercise = pack.exercise
    base = Verdict(exercise.id, exercise.name, NOT_ATTEMPTED, 0.0, exercise.points)
    if not_attempted(seen):
        return base
    own = report = assess(pack, seen, uses, race)
    if on_device is not None:
        there = assess(*on_device)
        report = Report(own.findings + there.findings, own.items + there.items)
    gated = any(f.check == "forbidden" for f in report.findings)
    points = 0.0 if gated else score(report.items, exercise.points)
    status = FAILED if gated else status_of(report.items, points)
    if points == 0 and any(f.check == "runs" for f in report.findings) and all_raised(pack, seen):
        status = ERROR
    wrong = None if status == PASSED else recognise(pack, seen, own)
    return replace(
        base,
        status=status,
        points=points,
        findings=report.findings,
        items=report.items,
        misconception=wrong.name if wrong else None,
        hint=wrong.hint if wrong else None,
        hidden_left=not any(p.case.hidden for p in pack.planned),
        untested=untested(race),
    )


def untested(race: Race | None) -> tuple[str, ...]:
    """Say what measuring the time has left open."""
    if race is None or race.outcome != UNDECIDED:
        return ()
    return (UNSURE if race.ratio <= race.limit else UNDECIDED_TIME,)


def not_attempted(seen: Sequence[Observation]) -> bool:
    """Whether every call ended in the stub's NotImplementedError."""
    return all(o.raised is not None and o.crash is None and o.raised.name == STUB_ERROR for o in seen)


def all_raised(pack: Pack, seen: Sequence[Observation]) -> bool:
    """Whether no call that should return something did."""
    return all(o.raised is not None for p, o in zip(pack.planned, seen, strict=False) if p.case.raises is None)
