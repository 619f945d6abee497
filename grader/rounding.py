"""How much the results of a call may be off: what rounding does to the solution, and to the truth's inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from grader.calls import Call, Observation
from grader.tolerance import EXACT, Error, Rounding, difference, worst
from grader.trees import leaves
from grader.variants import input_leaves


def rounding(truth: Observation, like: Observation, nudged: list[Observation], given: Call) -> dict[str, Rounding]:
    """Measure, per output, the solution's own error and how the truth reacts to rounded inputs."""
    terms = max([leaf.numel() for leaf in input_leaves(given) if isinstance(leaf, Tensor)], default=1)
    moved = [dict(value_leaves(seen)) for seen in nudged]
    own = dict(value_leaves(like))
    found = {}
    for path, wanted in value_leaves(truth):
        sensitivity, reference = EXACT, EXACT
        for seen in moved:
            sensitivity = worst(sensitivity, gap(seen.get(path), wanted))
        reference = gap(own.get(path), wanted)
        found[path] = Rounding(reference, sensitivity, terms)
    return found


def value_leaves(seen: Observation) -> Iterator[tuple[str, Tensor]]:
    """Walk results and values afterwards as tensors, numbers included."""
    trees = [("result", seen.outputs), *seen.after.items()]
    for name, tree in trees:
        for path, leaf in leaves(tree, name):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                yield path, leaf
            elif type(leaf) is float:
                yield path, torch.tensor(leaf, dtype=torch.float64)


def gap(got: Tensor | None, wanted: Tensor) -> Error:
    """Measure a difference; tensors that cannot be compared differ by nothing (the audit reports them)."""
    if got is None or got.shape != wanted.shape:
        return EXACT
    found = difference(got, wanted)
    return found if found.max == found.max and found.max != float("inf") else EXACT
