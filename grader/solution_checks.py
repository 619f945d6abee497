"""Checks of a solution by itself: numeric gradients, and the examples in its docstring."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator

import torch

from grader.calls import Call
from grader.exercise import Candidate, Exercise
from grader.pack import Pack
from grader.tolerance import difference
from grader.trees import fresh

LARGEST_NUMERIC = 2000


def gradcheck_problems(exercise: Exercise, pack: Pack) -> Iterator[str]:
    """Compare the solution's gradients with numeric ones on the smallest differentiable calls."""
    calls = [p.call for p in pack.planned if p.expected.gradients and p.call.probe is None and p.call.state is None]
    for call in sorted(calls, key=size_of)[:1]:
        error = numeric_gap(exercise.solution, call)
        if error > 1e-5:
            yield f"gradients of the solution differ from numeric ones by {error:.1e} on {call.label!r}"


def size_of(call: Call) -> int:
    """Count the elements that a call is differentiated with respect to."""
    wanted = [call.inputs[name] for name in call.gradients]
    return sum(t.numel() for t in wanted if isinstance(t, torch.Tensor)) or 10**9


def numeric_gap(candidate: Candidate, call: Call) -> float:
    """Return the largest relative gap between autograd and central differences along one random direction."""
    inputs = call.inputs
    wanted = [name for name in call.gradients if isinstance(inputs.get(name), torch.Tensor)]
    if not wanted or size_of(call) > LARGEST_NUMERIC:
        return 0.0
    source = torch.Generator().manual_seed(call.seed)
    ways = {name: torch.randn(inputs[name].shape, generator=source, dtype=inputs[name].dtype) for name in wanted}

    def total(step: float, *, graph: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        args, kwargs = fresh((call.args, call.kwargs))  # generators among them start anew
        moved = dict(zip(call.names, args, strict=True)) | kwargs
        points = {name: (moved[name].detach() + step * ways[name]).requires_grad_(graph) for name in wanted}
        args = tuple(points.get(name, value) for name, value in zip(call.names, args, strict=True))
        result = candidate(*args, **(kwargs | {k: v for k, v in points.items() if k in kwargs}))
        first = result[0] if isinstance(result, (list, tuple)) else result
        weight = torch.randn(first.shape, generator=torch.Generator().manual_seed(1), dtype=first.dtype)
        finite = torch.isfinite(first.detach())
        return (torch.where(finite, first, 0.0) * weight).sum(), list(points.values())

    value, points = total(0.0, graph=True)
    gradients = torch.autograd.grad(value, points, allow_unused=True)
    pairs = zip(gradients, ways.values(), strict=True)
    along = sum(((g * w).sum() for g, w in pairs if g is not None), torch.zeros(()))
    step = 1e-6
    numeric = (total(step, graph=False)[0] - total(-step, graph=False)[0]) / (2 * step)
    scale = max(float(numeric.abs()), 1e-3)
    return difference(along.double() / scale, numeric.double() / scale).max if float(numeric.abs()) > 1e-6 else 0.0


def example_problems(exercise: Exercise) -> Iterator[str]:
    """Run the docstring's examples."""
    names = {"torch": torch, exercise.name: exercise.solution, **vars(inspect.getmodule(exercise.solution) or object())}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    lines: list[str] = []
    for test in doctest.DocTestFinder(recurse=inspect.isclass(exercise.solution)).find(
        exercise.solution, exercise.name, globs=names
    ):
        runner.run(test, out=lines.append, clear_globs=False)
    if runner.failures:
        yield "the docstring's example is not what comes out:\n" + re.sub(r"\*+\n", "", "".join(lines)).strip()
