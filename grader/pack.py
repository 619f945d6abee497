"""A Pack: the calls to make for one exercise, with everything expected of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from grader.calls import Call
from grader.case import Case, Cost
from grader.device import CPU, CUDA
from grader.exercise import Exercise
from grader.reading import Reading
from grader.tolerance import Error, Rounding
from grader.trees import leaves

GIVEN, DOUBLE, STRIDED, EXPANDED, TIMED = "given", "double", "strided", "expanded", "timed"
LAYOUTS = (STRIDED, EXPANDED)
DERIVED = (*LAYOUTS, CUDA)
"""Variants that count as cases of their own, at the edge."""
LONG = 1500
"""A call in which the solution dispatches more operations than this is long: a training run."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call must do.

    Args:
        outputs: the truth's result, in float64 wherever the call allows.
        like: the solution's result on this very call: types, shapes and dtypes.
        after: the truth's values of what may change.
        after_like: the same from the solution.
        gradients: by input path; None where nothing must arrive.
        rounding: by output path.
        graphs: paths of results that may carry a graph.
        generators: digests of the generators' states afterwards.
        reading: what the solution cost.
    """

    outputs: Any = None
    like: Any = None
    after: Mapping[str, Any] = field(default_factory=dict)
    after_like: Mapping[str, Any] = field(default_factory=dict)
    gradients: Mapping[str, Tensor | None] = field(default_factory=dict)
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    graphs: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True, slots=True)
class Planned:
    """One call, the case and variant it belongs to, and what is expected."""

    call: Call
    case: Case
    variant: str
    expected: Expected
    cost: Cost | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest float dtype among the inputs: what Python numbers in the result are computed in."""
        inputs = (self.call.args, self.call.kwargs, self.call.state)
        found = [leaf.dtype for _, leaf in leaves(inputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        return min(found, key=lambda dtype: dtype.itemsize, default=torch.float64)


@dataclass(frozen=True, slots=True)
class PlannedGrowth:
    """Two calls that differ in one size, and how much faster than that size each reading may grow."""

    axis: str
    sizes: tuple[int, int]
    limits: Mapping[str, float]
    calls: tuple[Call, Call]
    reference: tuple[Reading, Reading]


@dataclass(frozen=True, slots=True)
class PlannedSpeed:
    """What is timed: as many new calls as are wanted, all of the same sizes, by number."""

    limit: float
    fresh: Callable[[int, str], Call]
    device: str = CPU

    def call(self, number: int) -> Call:
        """Make a call."""
        return self.fresh(number, self.device)

    def on(self, device: str) -> PlannedSpeed:
        """Return the same on another device."""
        return replace(self, device=device)

    def planned(self, call: Call, reference: Any) -> Planned:
        """Expect of a timed call what the reference returned, up to the rounding that a float32 run may show."""
        rounding = {path: ROUGHLY for path, leaf in leaves(reference, "result") if isinstance(leaf, (Tensor, float))}
        expected = Expected(outputs=reference, like=reference, rounding=rounding)
        return Planned(call, Case(f"{call.label}, timed"), TIMED, expected)


ROUGHLY = Rounding(reference=Error(2.5e-5, 2.5e-5))
"""Allows errors of 1e-4: less than float16 inside would make."""


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """All calls of one exercise for one seed. Equal only to itself, so that caches can be keyed by packs."""

    exercise: Exercise
    seed: int
    planned: tuple[Planned, ...]
    growths: tuple[PlannedGrowth, ...] = ()
    speed: PlannedSpeed | None = None

    def calls(self, *, hidden: bool = True) -> list[Call]:
        """Return the calls in order: those of the cases, then those of the growths."""
        own = [p.call for p in self.planned if hidden or not p.case.hidden]
        return own + [call for growth in self.growths for call in growth.calls]

    def on(self, device: str) -> Pack:
        """Return the pack's plain cases, to be made on another device, and timed there."""
        repeated = tuple(
            replace(p, call=replace(p.call, device=device, gradients=(), label=f"{p.call.label} / {device}"),
                    variant=device, cost=None, expected=replace(p.expected, gradients={}))
            for p in self.planned
            if p.variant == GIVEN and p.case.raises is None and p.call.probe is None and not p.case.draws
        )  # fmt: skip
        speed = None if self.speed is None else self.speed.on(device)
        return replace(self, planned=repeated, growths=(), speed=speed)

    def visible(self) -> Pack:
        """Return the pack without its hidden cases."""
        shown = tuple(p for p in self.planned if not p.case.hidden)
        return replace(self, planned=shown)
