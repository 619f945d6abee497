"""A Pack: the calls to make for one exercise, with everything expected of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from grader.calls import Call
from grader.exercise import Case, Cost, Exercise
from grader.meter import Reading
from grader.tolerance import Rounding
from grader.wire import leaves

GIVEN, DOUBLE, STRIDED, EXPANDED = "given", "double", "strided", "expanded"
LAYOUTS = (STRIDED, EXPANDED)


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


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """All calls of one exercise for one seed. Equal only to itself, so that caches can be keyed by packs."""

    exercise: Exercise
    seed: int
    planned: tuple[Planned, ...]
    growths: tuple[PlannedGrowth, ...] = ()

    def calls(self, *, hidden: bool = True) -> list[Call]:
        """Return the calls in order: those of the cases, then those of the growths."""
        own = [p.call for p in self.planned if hidden or not p.case.hidden]
        return own + [call for growth in self.growths for call in growth.calls]

    def visible(self) -> Pack:
        """Return the pack without its hidden cases."""
        shown = tuple(p for p in self.planned if not p.case.hidden)
        return Pack(self.exercise, self.seed, shown, self.growths)
