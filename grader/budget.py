"""Compare what a call cost, and how that grows, with what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from grader.calls import Call, Observation
from grader.case import Cost, Limit
from grader.compare import finding
from grader.pack import Expected, Planned, PlannedGrowth
from grader.speed import ELSEWHERE, WAITS, Race
from grader.trees import leaves
from grader.verdict import Finding

GROWTH_SLACK = {"ops": 0.15, "matmuls": 0.15}


DEFAULT_SLACK = 0.25
REFERENCE = "reference"
"""Stands for the solution's own reading in a limit."""


def cost_findings(planned: Planned, seen: Observation) -> Iterator[tuple[str, Finding | None]]:
    """Compare the readings with each declared limit: (name of the limit, what is wrong or None)."""
    cost = planned.cost
    if cost is None or seen.raised is not None:
        return
    for name in cost.__slots__:
        limit = limit_of(cost, name, planned.call, planned.expected)
        if limit is None:
            continue
        got = getattr(seen.reading, name)
        reference = getattr(planned.expected.reading, name)
        facts = {"got": got, "limit": limit, "reference": reference}
        yield name, None if got <= limit else finding(planned, "cost", f"cost_{name}", **facts)


def limit_of(cost: Cost, name: str, call: Call, expected: Expected) -> int | None:
    """Return a limit in elements, bytes or counts."""
    said: Limit | str | tuple[int | str, ...] = getattr(cost, name)
    if said is None or isinstance(said, int):
        return said
    own: int = getattr(expected.reading, name)
    measure = sizes(call, expected) | {REFERENCE: (own, own)}
    if isinstance(said, Mapping):
        return math.ceil(sum(factor * measure[key][1] for key, factor in said.items()))
    parts = said if isinstance(said, tuple) else (said,)
    return max(part if isinstance(part, int) else measure[part][0] for part in parts)


def unknown_sizes(planned: Planned) -> Iterator[str]:
    """Yield what is said of a size that the call does not have."""
    for name in planned.cost.__slots__ if planned.cost is not None else ():
        said = getattr(planned.cost, name)
        known = [*sizes(planned.call, planned.expected), REFERENCE]
        for part in said if isinstance(said, (tuple, Mapping)) else (said,):
            if isinstance(part, str) and part not in known:
                yield f"Cost({name}=...) names {part!r}; there are {', '.join(known)}"


def sizes(call: Call, expected: Expected) -> dict[str, tuple[int, int]]:
    """Return (elements, bytes) of each argument and of the result."""
    named = {**call.inputs, "result": expected.like, "parameters": call.state or {}}
    found = {}
    for name, value in named.items():
        tensors = [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]
        largest = max((t.numel() for t in tensors), default=0)
        found[name] = largest, sum(t.numel() * t.itemsize for t in tensors)
    return found


def growth_findings(
    growth: PlannedGrowth, seen: tuple[Observation, Observation]
) -> Iterator[tuple[str, Finding | None]]:
    """Compare how fast readings grow with how fast they may: (name of the limit, what is wrong or None)."""
    for name, exponent in growth.limits.items():
        failed = next((o.raised for o in seen if o.raised is not None), None)
        if failed is not None:
            said = {"axis": growth.axis, "error": failed.name, "text": failed.text}
            yield name, Finding("growth", "growth_raised", growth.axis, said)
            continue
        first, second = (getattr(o.reading, name) for o in seen)
        measured = fitted_exponent(growth.sizes, (first, second))
        slack = GROWTH_SLACK.get(name, DEFAULT_SLACK)
        facts = {
            "axis": growth.axis, "small": growth.sizes[0], "large": growth.sizes[1], "first": first, "second": second,
            "exponent": round(measured, 2), "limit": exponent, "reading": name,
            "reference": getattr(growth.reference[1], name),
        }  # fmt: skip
        yield name, None if measured <= exponent + slack else Finding("growth", f"growth_{name}", growth.axis, facts)


def speed_finding(race: Race) -> Finding:
    """Say why a call is too slow, or why its time cannot be believed."""
    kinds = {ELSEWHERE: "speed_elsewhere", WAITS: "speed_waits"}
    kind = kinds.get(race.outcome, "speed" if race.ratios else "speed_stopped")
    facts = {"ratio": float(f"{race.ratio:.2g}"), "limit": race.limit, "pairs": len(race.ratios)}
    return Finding("speed", kind, facts=facts)


def fitted_exponent(sizes: tuple[int, int], readings: tuple[int, int]) -> float:
    """Return p where a reading grows like size to the power p."""
    if readings[1] <= readings[0]:
        return 0.0
    return math.log(readings[1] / max(readings[0], 1)) / math.log(sizes[1] / sizes[0])
