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
from grader.wire import fresh


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
    args, kwargs = fresh((call.args, call.kwargs))
    inputs = dict(zip(call.names, args, strict=True)) | kwargs
    wanted = [inputs[name] for name in call.gradients if isinstance(inputs.get(name), torch.Tensor)]
    if not wanted or size_of(call) > 2000:
        return 0.0
    source = torch.Generator().manual_seed(call.seed)
    ways = [torch.randn(t.shape, generator=source, dtype=t.dtype) for t in wanted]

    def total(step: float, *, graph: bool) -> torch.Tensor:
        for tensor, start, way in zip(wanted, starts, ways, strict=True):
            tensor.requires_grad_(requires_grad=False)
            tensor.copy_(start + step * way)
            tensor.requires_grad_(graph)
        result = candidate(*args, **kwargs)
        first = result[0] if isinstance(result, (list, tuple)) else result
        weight = torch.randn(first.shape, generator=torch.Generator().manual_seed(1), dtype=first.dtype)
        finite = torch.isfinite(first.detach())
        return (torch.where(finite, first, 0.0) * weight).sum()

    starts = [t.detach().clone() for t in wanted]
    gradients = torch.autograd.grad(total(0.0, graph=True), wanted, allow_unused=True)
    along = sum(((g * w).sum() for g, w in zip(gradients, ways, strict=True) if g is not None), torch.zeros(()))
    step = 1e-6
    numeric = (total(step, graph=False) - total(-step, graph=False)) / (2 * step)
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
