"""A profile as small tables of text, which terminal and notebook show each in its own way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from grader.profiling import Grown, Measured, Profile, Series, exponent
from grader.reading import Reading
from grader.render.messages import translate
from grader.roofline import GPUS, Card, estimate
from grader.verdict import N_

TOTALS = {
    "ops": N_("operations"),
    "matmuls": N_("matrix products"),
    "flops": N_("flops"),
    "moved": N_("bytes moved"),
    "peak": N_("peak memory"),
    "saved": N_("kept for backward"),
    "syncs": N_("reads by the host"),
}
BYTES = ("moved", "peak", "saved")
SPARSE = ("matmuls", "saved", "syncs")
"""Readings that are left out where they are 0 for both."""
GROWING = ("ops", "flops", "moved", "peak")
MOST_KINDS = 12
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: the first column holds words, the others numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def sheets(profile: Profile) -> Iterator[Sheet]:
    """Write a profile as tables: each case, what grows, estimates."""
    for case in profile.cases:
        yield case_sheet(profile, case)
    if profile.growths:
        yield growth_sheet(profile)
    if any(case.learner for case in profile.cases):
        yield time_sheet(profile)


def case_sheet(profile: Profile, case: Measured) -> Sheet:
    """Write what one case costs: operations by kind, then the totals."""
    title = translate(N_("{name}, case {case}"), name=profile.name, case=repr(case.label))
    note = translate(N_("yours ended with {problem}"), problem=case.problem) if case.problem else ""
    if not profile.attempted:
        note = translate(N_("not attempted"))
    rows = [*total_rows(case, ("ops",)), *kind_rows(case), *total_rows(case, tuple(TOTALS)[1:])]
    return Sheet(title, ("", translate(N_("yours")), translate(N_("reference"))), tuple(rows), note)


def total_rows(case: Measured, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Write totals, without those that are nothing to both."""
    for name in names:
        values = [getattr(reading, name) if reading else 0 for reading in (case.learner, case.reference)]
        if name not in SPARSE or any(values):
            cells = [value_of(reading, name) for reading in (case.learner, case.reference)]
            yield (translate(TOTALS[name]), *cells)


def kind_rows(case: Measured) -> Iterator[tuple[str, ...]]:
    """Write how often each kind of operation was called, the learner's most frequent first.

    Which ones the reference uses is shown only beside the learner's own: alone they would give the answer away.
    """
    if case.learner is None:
        return
    own = case.learner.kinds
    theirs = case.reference.kinds if case.reference else {}
    kinds = sorted({*own, *theirs}, key=lambda kind: (-own.get(kind, 0), -theirs.get(kind, 0), kind))
    for kind in kinds[:MOST_KINDS]:
        yield f"  {kind}", *(tally(found.get(kind, 0)) for found in (own, theirs))
    rest = kinds[MOST_KINDS:]
    if rest:
        label = translate(N_("{count} other kinds"), count=len(rest))
        yield f"  {label}", *(tally(sum(found.get(kind, 0) for kind in rest)) for found in (own, theirs))


def growth_sheet(profile: Profile) -> Sheet:
    """Write how readings grow: the first and the last value of each series, and the fitted exponent."""
    power = "size^p"
    head = ("", translate(N_("yours")), power, translate(N_("reference")), power)
    rows = [row for grown in profile.growths for row in growth_rows(grown)]
    stopped = [
        translate(N_("{axis}: yours ended with {problem}"), axis=translate(grown.axis), problem=grown.learner.problem)
        for grown in profile.growths
        if grown.learner.problem
    ]
    return Sheet(
        translate(N_("as a size grows: first and last value, and p for growth like size^p")),
        head,
        tuple(rows),
        "\n".join(stopped),
    )


def growth_rows(grown: Grown) -> Iterator[tuple[str, ...]]:
    """Write the sizes of one axis, then a row per reading."""
    yield translate(grown.axis), sizes_of(grown.learner), "", sizes_of(grown.reference), ""
    for name in GROWING:
        yield f"  {translate(TOTALS[name])}", *cells_of(grown.learner, name), *cells_of(grown.reference, name)


def sizes_of(series: Series) -> str:
    """Write the smallest and the largest size of a series."""
    points = series.points
    return f"{points[0].size} .. {points[-1].size}" if points else NOTHING


def cells_of(series: Series, name: str) -> tuple[str, str]:
    """Write a series' ends and its exponent."""
    values = [value_of(point.reading, name) for point in series.points]
    power = exponent(series.points, name)
    if power is None:
        return (values or [NOTHING])[0], NOTHING
    return f"{values[0]} .. {values[-1]}", f"{power + 0:.2f}"


def time_sheet(profile: Profile) -> Sheet:
    """Write what the counts would cost on some GPUs, yours and the reference's."""
    measured = [(case.label, case.learner, case.reference) for case in profile.cases if case.learner]
    rows = [(label, *(both(card, own, theirs) for card in GPUS)) for label, own, theirs in measured]
    for grown in profile.growths:
        if grown.learner.points:
            own, theirs = grown.learner.points[-1], grown.reference.points[len(grown.learner.points) - 1]
            label = f"{translate(grown.axis)} {own.size}"
            rows.append((label, *(both(card, own.reading, theirs.reading) for card in GPUS)))
    notes = [translate(N_("Each operation takes at least one launch: small cases are all launches."))]
    notes += measured_notes(profile)
    title = translate(N_("estimated time on a GPU, yours / reference (from the counts, not measured)"))
    return Sheet(title, ("", *(card.name for card in GPUS)), tuple(rows), "\n".join(notes))


def both(card: Card, own: Reading | None, theirs: Reading | None) -> str:
    """Write two estimates."""
    return " / ".join(duration(estimate(r.detail, card)) if r else NOTHING for r in (own, theirs))


def value_of(reading: Reading | None, name: str) -> str:
    """Write one reading."""
    if reading is None:
        return NOTHING
    value: int = getattr(reading, name)
    return f"{scaled(value)}B" if name in BYTES else tally(value)


def tally(value: int) -> str:
    """Write a count: exact while it is small."""
    return f"{value}" if value < 100_000 else scaled(value).rstrip()


def scaled(value: float) -> str:
    """Write a number with a decimal prefix: 1.23 k, 4.5 M."""
    prefixes = iter("kMGTPE")
    prefix = ""
    while float(f"{value:.3g}") >= 1000:
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g} {prefix}"


def measured_notes(profile: Profile) -> Iterator[str]:
    """Say what measuring the time beside the reference came to."""
    race = profile.race
    if profile.missing:
        yield translate(profile.missing)
    if race is None:
        return
    yield translate(
        N_("measured ({device}): {ratio} times as long as the reference"),
        device=profile.device,
        ratio=f"{race.ratio:.2f}",
    )
    if race.high < math.inf:
        yield translate(N_("surely between {low} and {high}"), low=f"{race.low:.2f}", high=f"{race.high:.2f}")
    if any(race.peaks):
        own, theirs = (f"{scaled(peak)}B" for peak in race.peaks)
        yield translate(N_("memory held at a time on the GPU: {own}, reference {theirs}"), own=own, theirs=theirs)


def duration(seconds: float) -> str:
    """Write a short time: 12 us, 1.3 ms."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if float(f"{seconds * factor:.3g}") < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
