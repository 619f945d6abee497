"""How close is close enough: two tiers against a float64 truth, both relative to the size of the output.

Formula tier: the code run in float64 must agree to 1e-9. Rounding tier: in a given dtype it may err by
4 times the reference's own error plus 4 times what one rounding of every input changes in the truth and what
rounding n terms costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FORMULA = 1e-9
FLOAT32_INSIDE = 3e-6
SMALL_FACTOR = 4.0
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
HALF = (torch.float16, torch.bfloat16)
HALF_TERMS = 16
"""Torch adds 16-bit numbers up in float32; more terms than this would allow errors of the values' own size."""


@dataclass(frozen=True, slots=True)
class Error:
    """The difference of two tensors, relative to the size of the wanted one."""

    rms: float
    max: float

    def __bool__(self) -> bool:
        return self.max > 0


@dataclass(frozen=True, slots=True)
class Rounding:
    """What is known about rounding at one output.

    Args:
        reference: the reference's own error in the given dtype.
        sensitivity: change of the truth when every input moves by one rounding.
        terms: length of the longest possible reduction.
    """

    reference: Error = Error(0.0, 0.0)
    sensitivity: Error = Error(0.0, 0.0)
    terms: int = 1

    def limit(self, dtype: torch.dtype) -> Error:
        """Return the largest error allowed in `dtype`."""
        unit = UNIT.get(dtype, 0.0)
        terms = min(self.terms, HALF_TERMS) if dtype in HALF else self.terms
        spread = unit * max(terms, 1) ** 0.5
        rms = SMALL_FACTOR * (self.reference.rms + spread + self.sensitivity.rms)
        top = SMALL_FACTOR * (self.reference.max + 4 * spread + self.sensitivity.max)
        return Error(rms, top)

    def double_limit(self) -> Error:
        """Return the largest error allowed in float64: 1e-9, and more only where the truth itself reacts violently."""
        return Error(
            FORMULA + DOUBLE_PER_FLOAT * self.sensitivity.rms, FORMULA + DOUBLE_PER_FLOAT * self.sensitivity.max
        )


EXACT = Error(0.0, 0.0)
DOUBLE = Error(FORMULA, FORMULA)
GRADIENT_FLOOR = 1e-6
"""Gradients of a weighting of order 1 that are smaller than this are noise where the true gradient is 0."""
RELATIVE_FLOOR = 1e-4
"""So is a gradient this much smaller than the largest one of the same call."""
DOUBLE_PER_FLOAT = 64 * 2.0**-29
"""A rounding in float64 is 2^-29 of one in float32; a correct float64 run may lose some tens of them."""


def difference(got: Tensor, wanted: Tensor, floor: float = 0.0) -> Error:
    """Measure how far `got` is from `wanted`, both of one shape; where wanted is not finite it is left out.

    The size of `wanted` counts as `floor` at least.
    """
    finite = torch.isfinite(wanted)
    if wanted.numel() == 0 or not bool(finite.any()):
        return Error(0.0, 0.0)
    a, b = got.double()[finite], wanted.double()[finite]
    gap = (a - b).abs()
    scale_max = max(float(b.abs().max()), floor) or 1.0
    scale_rms = max(float(b.square().mean().sqrt()), floor) or scale_max
    return Error(float(gap.square().mean().sqrt()) / scale_rms, float(gap.max()) / scale_max)


def worst(a: Error, b: Error) -> Error:
    """Return the larger of two errors, component by component."""
    return Error(max(a.rms, b.rms), max(a.max, b.max))


def within(error: Error, limit: Error) -> bool:
    """Whether an error is allowed; nan never is."""
    return error.rms <= limit.rms and error.max <= limit.max


def worst_place(got: Tensor, wanted: Tensor) -> tuple[int, ...]:
    """Return the index of the element that is furthest off."""
    a, b = got.double(), wanted.double()
    same = (a == b) | (a.isnan() & b.isnan())
    gap = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return place_of(int(gap.flatten().argmax()), got.shape)


def place_of(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Turn the position in a flattened tensor into an index."""
    index = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return tuple(reversed(index))
