"""Whether two candidates did the same on a call."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from grader.calls import Observation, Raised
from grader.compare import strange_places
from grader.tolerance import difference
from grader.trees import leaves

ALIKE = {torch.float64: 1e-6, torch.float32: 1e-3}
NUMBERS = re.compile(r"[\d.,x -]+")


def alike(a: Observation, b: Observation) -> bool:
    """Whether two candidates did the same on a call: same exception, or nearly the same results and gradients."""
    if a.crash or b.crash:
        return a.crash == b.crash
    if a.raised is not None or b.raised is not None:
        return a.raised is not None and b.raised is not None and raised_alike(a.raised, b.raised)
    return (
        same(a.outputs, b.outputs)
        and same(dict(a.after), dict(b.after))
        and same(dict(a.gradients), dict(b.gradients))
        and a.changed == b.changed
    )


def raised_alike(a: Raised, b: Raised) -> bool:
    """Whether two exceptions are the same: of one kind and, but for its numbers, with one text.

    A ValueError's text is whatever its author wrote; one about a state dict begins with the class's name.
    """
    if a.name != b.name or (a.stage == "state") != (b.stage == "state"):
        return False
    if a.stage == "state":
        return a.text.partition("\n")[2] == b.text.partition("\n")[2]
    return a.name == "ValueError" or NUMBERS.sub("", a.text) == NUMBERS.sub("", b.text)


def same(a: Any, b: Any) -> bool:
    """Whether two pieces of plain data are nearly equal."""
    left, right = list(leaves(a)), list(leaves(b))
    return len(left) == len(right) and all(
        p == q and same_leaf(x, y) for (p, x), (q, y) in zip(left, right, strict=True)
    )


def same_leaf(a: Any, b: Any) -> bool:
    """Whether two leaves are nearly equal; nan equals nan."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.is_floating_point():
            return torch.equal(a, b)
        if strange_places(a, b) is not None:
            return False
        error = difference(a, b)
        return error.max <= ALIKE.get(a.dtype, 3e-2)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool(a == b or (a != a and b != b) or abs(a - b) <= 1e-6 * max(abs(a), abs(b)))
    return bool(a == b)
