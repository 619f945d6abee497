"""What an exercise may cost, in words: every limit that is graded stands in the notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from grader.exercise import Exercise

COUNTS = {
    "ops": "{} operations (views are free)",
    "matmuls": "{} matrix products",
    "maxel": "as many elements as {} in the largest tensor made inside",
    "peak": "{} of new memory at a time",
    "saved": "{} kept for the backward pass",
    "moved": "{} read and written",
    "flops": "{} floating-point operations",
}
BYTES = ("peak", "saved", "moved")
GROWING = {
    "matmuls": "the number of matrix products",
    "maxel": "the largest tensor made inside",
    "peak": "new memory",
    "saved": "memory kept for the backward pass",
    "moved": "memory traffic",
    "syncs": "the number of values read back to Python",
    "flops": "floating-point work",
    "ops": "the number of operations",
}


def budget(exercise: Exercise) -> str:
    """Say in one paragraph what is limited besides being right; nothing if nothing is."""
    parts = [*limits(exercise), *growths(exercise)]
    if exercise.timed is not None:
        parts.append(f"at most {exercise.timed.at_most:g} times the time of the reference")
    return f"Some points are for what it costs, on cases made to measure that: {'; '.join(parts)}." if parts else ""


def limits(exercise: Exercise) -> Iterator[str]:
    """Yield the limits of one call."""
    for name, text in COUNTS.items():
        limit = getattr(exercise.cost, name)
        if limit is not None:
            yield "at most " + text.format(amount(limit, "bytes" if name in BYTES else ""))
    syncs = exercise.cost.syncs
    if syncs is not None:
        often = "no value is" if syncs == 0 else f"values are at most {amount(syncs)} time(s)"
        yield f"{often} read back to Python (`item()`, `tolist()`, `if tensor`, a boolean mask as index)"


def amount(limit: Any, unit: str = "") -> str:
    """Write a limit: a number, a named size, or multiples of named sizes that are added up."""
    if isinstance(limit, Mapping):
        terms = [f"{factor:g} x {named(name)}" for name, factor in limit.items()]
        return " + ".join(terms)
    if isinstance(limit, tuple):
        return f"the largest of ({', '.join(amount(part) for part in limit)})"
    return named(limit) if isinstance(limit, str) else f"{limit:,} {unit}".strip()


def named(size: str) -> str:
    """Write the name of a size."""
    return {"result": "the result", "reference": "what the reference takes"}.get(size, f"`{size}`")


def growths(exercise: Exercise) -> Iterator[str]:
    """Yield how readings may grow, those of the same kind together."""
    kinds: dict[tuple[str, float], list[str]] = {}
    for growth in exercise.growths:
        for name, exponent in growth.limits.items():
            kinds.setdefault((name, exponent), []).append(growth.axis)
    for (name, exponent), axes in kinds.items():
        if (name, exponent) == ("ops", 0):
            yield f"no Python loop over {listed(axes, 'or')}: {GROWING[name]} stays the same"
        elif exponent == 0:
            yield f"{GROWING[name]} stays the same for more {listed(axes, 'or')}"
        else:
            power = "in proportion to" if exponent == 1 else f"like the power {exponent:g} of"
            yield f"{GROWING[name]} grows at most {power} {listed(axes, 'and')}"


def listed(words: list[str], last: str) -> str:
    """Write "a, b or c"."""
    return f" {last} ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
