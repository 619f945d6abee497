"""The picture of a profile: memory and operations against size. Labels are English: few machines draw others."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grader.profiling import Grown, Profile, Series, exponent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (("peak", "peak of new memory, bytes"), ("ops", "operations"))
COLOURS = {"yours": "#cf222e", "reference": "#0969da"}


class NoPictureError(RuntimeError):
    """There is nothing to draw, or nothing to draw with; the text says which."""


def figure(profile: Profile) -> Figure:
    """Draw one row of panels for each size that grows, log-log, the learner's against the reference's.

    Raises:
        NoPictureError: the exercise declares no growth, or matplotlib is missing.
    """
    drawn = [grown for grown in profile.growths if grown.reference.points]
    if not drawn:
        raise NoPictureError(f"{profile.exercise} declares nothing that grows: there is no picture")
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise NoPictureError("the picture needs matplotlib: pip install matplotlib") from None
    made = Canvas(figsize=(9, 0.6 + 2.7 * len(drawn)), layout="constrained")
    made.suptitle(f"{profile.name}, beside the reference")
    for row, grown in zip(made.subplots(len(drawn), len(PANELS), squeeze=False), drawn, strict=True):
        for axes, (name, label) in zip(row, PANELS, strict=True):
            panel(axes, grown, name, label)
    return made


def panel(axes: Any, grown: Grown, name: str, label: str) -> None:
    """Draw one reading of one axis; the reference stands behind, wide, so that both show where they agree."""
    line(axes, grown.reference, name, "reference", linewidth=5, alpha=0.45)
    line(axes, grown.learner, name, "yours", linewidth=1.6, marker="o", markersize=4)
    sizes = [point.size for point in grown.reference.points]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(*decades([value for drawn in axes.lines for value in drawn.get_ydata()]))
    axes.set_xlabel(grown.axis)
    axes.set_title(label, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the powers of ten around some values: a scale always shows two labels."""
    return 10.0 ** math.floor(math.log10(min(values) * 0.99)), 10.0 ** math.ceil(math.log10(max(values) * 1.01))


def line(axes: Any, series: Series, name: str, who: str, **style: Any) -> None:
    """Draw a series with its exponent in the legend."""
    power = exponent(series.points, name)
    said = who if power is None else f"{who}: size^{power + 0:.2f}"
    values = [max(getattr(point.reading, name), 1) for point in series.points]
    axes.plot([point.size for point in series.points], values, label=said, color=COLOURS[who], **style)


def draw(profile: Profile, path: Path) -> str:
    """Write the picture to a file, in the format that its name says; returns what to tell about it."""
    try:
        figure(profile).savefig(path, dpi=130)
    except (NoPictureError, OSError, ValueError) as problem:  # ValueError: a format that cannot be written
        return f"no picture: {problem}"
    return f"picture: {path}"


def png(profile: Profile) -> bytes:
    """Return the picture as the bytes of a PNG."""
    held = io.BytesIO()
    figure(profile).savefig(held, format="png", dpi=110)
    return held.getvalue()
