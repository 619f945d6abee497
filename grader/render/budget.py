"""What an exercise may cost, in words: every limit that is graded stands in the notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from grader.exercise import Exercise
from grader.render.messages import translate
from grader.verdict import N_

COUNTS = {
    "ops": N_("at most {amount} operations (views are free)"),
    "matmuls": N_("at most {amount} matrix products"),
    "maxel": N_("at most as many elements as {amount} in the largest tensor made inside"),
    "peak": N_("at most {amount} of new memory at a time"),
    "saved": N_("at most {amount} kept for the backward pass"),
    "moved": N_("at most {amount} read and written"),
    "flops": N_("at most {amount} floating-point operations"),
    "syncs": N_("values are at most {amount} time(s) read back to Python {ways}"),
}
BYTES = ("peak", "saved", "moved")
READ_BACK = N_("(`item()`, `tolist()`, `if tensor`, a boolean mask as index)")
GROWING = {
    "matmuls": N_("the number of matrix products"),
    "maxel": N_("the largest tensor made inside"),
    "peak": N_("new memory"),
    "saved": N_("memory kept for the backward pass"),
    "moved": N_("memory traffic"),
    "syncs": N_("the number of values read back to Python"),
    "flops": N_("floating-point work"),
    "ops": N_("the number of operations"),
}
AND, OR = N_("{some} and {last}"), N_("{some} or {last}")


def budget(exercise: Exercise) -> str:
    """Say in one paragraph what is limited besides being right; nothing if nothing is."""
    parts = [*limits(exercise), *growths(exercise)]
    if exercise.timed is not None:
        times = f"{exercise.timed.at_most:g}"
        parts.append(translate(N_("at most {times} times the time of the reference"), times=times))
    if not parts:
        return ""
    found = translate(N_("; ")).join(parts)
    return translate(N_("Some points are for what it costs, on cases made to measure that: {limits}."), limits=found)


def limits(exercise: Exercise) -> Iterator[str]:
    """Yield the limits of one call."""
    for name, text in COUNTS.items():
        limit = getattr(exercise.cost, name)
        if name == "syncs" and limit == 0:
            yield translate(N_("no value is read back to Python {ways}"), ways=translate(READ_BACK))
        elif limit is not None:
            much = amount(limit, translate(N_("bytes")) if name in BYTES else "")
            yield translate(text, amount=much, ways=translate(READ_BACK))


def amount(limit: Any, unit: str = "") -> str:
    """Write a limit: a number, a named size, or multiples of named sizes that are added up."""
    if isinstance(limit, Mapping):
        terms = [f"{factor:g} x {named(name)}" for name, factor in limit.items()]
        return " + ".join(terms)
    if isinstance(limit, tuple):
        return translate(N_("the largest of ({sizes})"), sizes=", ".join(amount(part) for part in limit))
    return named(limit) if isinstance(limit, str) else f"{limit:,} {unit}".strip()


def named(size: str) -> str:
    """Write the name of a size."""
    if size == "result":
        return translate(N_("the result"))
    return translate(N_("what the reference takes")) if size == "reference" else f"`{size}`"


def growths(exercise: Exercise) -> Iterator[str]:
    """Yield how readings may grow, those of the same kind together."""
    kinds: dict[tuple[str, float], list[str]] = {}
    for growth in exercise.growths:
        for name, exponent in growth.limits.items():
            kinds.setdefault((name, exponent), []).append(translate(growth.axis))
    for (name, exponent), axes in kinds.items():
        what = translate(GROWING[name])
        if (name, exponent) == ("ops", 0):
            yield translate(N_("no Python loop over {axes}: {what} stays the same"), axes=listed(axes, OR), what=what)
        elif exponent == 0:
            yield translate(N_("{what} stays the same for more {axes}"), axes=listed(axes, OR), what=what)
        elif exponent == 1:
            yield translate(N_("{what} grows at most in proportion to {axes}"), axes=listed(axes, AND), what=what)
        else:
            said = N_("{what} grows at most like the power {power} of {axes}")
            yield translate(said, axes=listed(axes, AND), what=what, power=f"{exponent:g}")


def listed(words: list[str], both: str) -> str:
    """Write "a, b or c"."""
    some = translate(N_(", ")).join(words[:-1])
    return translate(both, some=some, last=words[-1]) if some else words[-1]
