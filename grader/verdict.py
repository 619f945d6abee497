"""Finding, Item, Verdict, and the one formula for points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


def N_(text: str) -> str:  # noqa: N802 - gettext's customary name for "to be translated later"
    """Mark a text for the catalogue; whoever shows it translates it."""
    return text


CHECKS = (
    "runs", "type", "structure", "shape", "dtype", "device", "finite", "values", "errors", "gradients", "inputs",
    "state", "forbidden", "cost", "growth", "speed",
)  # fmt: skip
"""Everything that can be wrong, in the order in which it is reported."""

SHARES = {"numerics": 0.50, "edges": 0.20, "gradients": 0.15, "budget": 0.15}
"""How the points of an exercise split; a share without any item goes to numerics."""

PASSED, PARTLY, FAILED, ERROR = "passed", "partly", "failed", "error"
NOT_ATTEMPTED, NOT_GRADABLE = "not_attempted", "not_gradable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, as data.

    Args:
        check: one of `CHECKS`.
        kind: which sentence says it; see `grader.render.messages`.
        case: the case's name; empty for findings about the code as a whole.
        facts: what the sentence is filled with: what came, what was wanted, where first.
        hidden: the case is hidden: its inputs are never shown.
        snippet: code to paste that reproduces it.
        trace: the learner's own lines, innermost last: (cell, line, function).
    """

    check: str
    kind: str
    case: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    hidden: bool = False
    snippet: str = ""
    trace: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was checked: its share of the points, its name, and whether it was right."""

    category: str
    name: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out for one exercise.

    Args:
        exercise: its id.
        name: the function or class that the learner defines.
        status: passed, partly, failed, error, not_attempted or not_gradable.
        points: earned, rounded to 2 decimals.
        max_points: of the exercise.
        findings: what is wrong, most basic first.
        items: all that was checked.
        misconception: name of the wrong answer that behaves the same, if one does.
        hint: its hint.
        untested: what was not tested, and why.
        hidden_left: hidden cases were left out: they run at grading.
        isolation: the level of isolation that the code ran in.
        seconds: time it took to run and judge.
    """

    exercise: str
    name: str
    status: str
    points: float
    max_points: int
    findings: tuple[Finding, ...] = ()
    items: tuple[Item, ...] = ()
    misconception: str | None = None
    hint: str | None = None
    untested: tuple[str, ...] = ()
    hidden_left: bool = False
    isolation: str = "none"
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything that was checked is right."""
        return self.status == PASSED


def share_of(items: Iterable[Item], category: str) -> float | None:
    """Return which part of a category's items is right; None when it has none."""
    results = [item.ok for item in items if item.category == category]
    return sum(results) / len(results) if results else None


def score(items: tuple[Item, ...], max_points: int) -> float:
    """Return the points for the items: shares of 50, 20, 15 and 15 %; without any right value, nothing."""
    shares = {name: share_of(items, name) for name in SHARES}
    if not shares["numerics"]:
        return 0.0
    missing = sum(weight for name, weight in SHARES.items() if shares[name] is None)
    weights = {name: weight + (missing if name == "numerics" else 0.0) for name, weight in SHARES.items()}
    total = sum(weights[name] * (part or 0.0) for name, part in shares.items())
    return round(max_points * total, 2)


def status_of(items: tuple[Item, ...], points: float) -> str:
    """Return passed, partly or failed."""
    if items and all(item.ok for item in items):
        return PASSED
    return PARTLY if points > 0 else FAILED
