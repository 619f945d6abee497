"""A sequential sign test: is a median ratio above a limit, or below it, or not yet known?

Exact integers, and valid however often one looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FALSE_FAIL, FALSE_PASS = 1e-3, 1e-2
"""Probabilities of the two errors, however often one looks."""
WITHIN, OVER, UNDECIDED = "within", "over", "undecided"


def evidence(k: int, n: int) -> tuple[int, int]:
    """Return the evidence, as a fraction, that a median lies above a bound when k of n values do.

    It is the sign test's likelihood ratio averaged over all shares above one half, 2 to the n times the integral:
    sum of C(n + 1, j) for j <= k, over (n + 1) C(n, k). Under the null it exceeds 1 / alpha with probability alpha
    at most, however often one looks (Ville's inequality).
    """
    return sum(math.comb(n + 1, j) for j in range(k + 1)), (n + 1) * math.comb(n, k)


def enough(k: int, n: int, alpha: float) -> bool:
    """Whether the evidence reaches 1 / alpha, in exact integers."""
    top, bottom = evidence(k, n)
    return top >= bottom * round(1 / alpha)


def decide(ratios: Sequence[float], limit: float) -> str:
    """Return within, over or undecided for the ratios measured so far."""
    n, k = len(ratios), sum(ratio > limit for ratio in ratios)
    if enough(k, n, FALSE_FAIL):
        return OVER
    return WITHIN if enough(n - k, n, FALSE_PASS) else UNDECIDED


def interval(ratios: Sequence[float], alpha: float = FALSE_FAIL) -> tuple[float, float]:
    """Return a confidence sequence for the median: the bounds that the sign test does not reject."""
    n, ordered = len(ratios), sorted(ratios)
    needed = next((k for k in range(n // 2, n + 1) if enough(k, n, alpha)), None)
    return (0.0, math.inf) if needed is None else (ordered[n - needed], ordered[needed - 1])
