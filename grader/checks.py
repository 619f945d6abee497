"""What an observation is checked for: one pure function each. They compare data; they never run learner code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from grader.calls import Call, Observation, Raised
from grader.exercise import Cost
from grader.meter import Reading
from grader.pack import DOUBLE, Expected, Planned, PlannedGrowth
from grader.tolerance import DOUBLE as DOUBLE_LIMIT
from grader.tolerance import FLOAT32_INSIDE, GRADIENT_FLOOR, Error, Rounding, difference, first_bad, within
from grader.verdict import Finding
from grader.wire import Opaque, leaves

GROWTH_SLACK = {"ops": 0.15, "matmuls": 0.15}
DEFAULT_SLACK = 0.25


def value_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Compare results: type, structure, shape, dtype, finite, values; stops at the first that is wrong."""
    if seen.raised is not None:
        yield raised_finding(planned, seen.raised, crash=seen.crash)
        return
    expected = planned.expected
    pairs = [("result", seen.outputs, expected.outputs, expected.like)]
    for name, wanted in expected.after.items():
        if name not in seen.after:
            yield finding(planned, "structure", "missing", path=name)
            return
        pairs.append((name, seen.after[name], wanted, expected.after_like[name]))
    for path, got, wanted, like in pairs:
        wrong = next(compare(planned, path, got, wanted, like), None)
        if wrong is not None:
            yield wrong
            return


def raised_finding(planned: Planned, raised: Raised, *, crash: str | None) -> Finding:
    """Report an exception where a result was wanted."""
    kind = (
        f"worker_{crash}"
        if crash
        else f"raised_in_{raised.stage}"
        if raised.stage in ("constructor", "state", "backward", "load")
        else "raised"
    )
    check = "gradients" if raised.stage == "backward" else "runs"
    return finding(planned, check, kind, trace=raised.trace, error=raised.name, text=raised.text)


def compare(planned: Planned, path: str, got: Any, wanted: Any, like: Any) -> Iterator[Finding]:
    """Yield what is wrong with one result, walking lists, tuples and dicts."""
    if isinstance(like, (list, tuple)):
        if not isinstance(got, (list, tuple)):
            yield finding(planned, "type", "type", path=path, got=type_name(got), wanted=type_name(like))
        elif len(got) != len(like):
            yield finding(planned, "structure", "length", path=path, got=len(got), wanted=len(like))
        else:
            for index, (g, w, k) in enumerate(zip(got, wanted, like, strict=True)):
                yield from compare(planned, f"{path}[{index}]", g, w, k)
    elif isinstance(like, dict):
        if not isinstance(got, dict):
            yield finding(planned, "type", "type", path=path, got=type_name(got), wanted=type_name(like))
        elif list(map(repr, got)) != list(map(repr, like)) and set(got) != set(like):
            yield finding(planned, "structure", "keys", path=path, got=list(got), wanted=list(like))
        else:
            for key in like:
                yield from compare(planned, f"{path}[{key!r}]", got[key], wanted[key], like[key])
    else:
        yield from compare_leaf(planned, path, got, wanted, like)


def compare_leaf(planned: Planned, path: str, got: Any, wanted: Any, like: Any) -> Iterator[Finding]:
    """Yield what is wrong with one tensor, number or string."""
    if isinstance(like, Tensor):
        if not isinstance(got, Tensor):
            yield finding(planned, "type", "type", path=path, got=type_name(got), wanted="Tensor")
        else:
            yield from compare_tensor(planned, path, got, wanted, like)
    elif type(got) is not type(like):
        yield finding(planned, "type", "type", path=path, got=type_name(got), wanted=type_name(like))
    elif type(like) is float:
        yield from compare_values(planned, path, as_tensor(got), as_tensor(float(wanted)), as_tensor(like))
    elif got != wanted:
        yield finding(planned, "values", "plain_value", path=path, got=shorten(repr(got)), wanted=shorten(repr(wanted)))


def compare_tensor(planned: Planned, path: str, got: Tensor, wanted: Tensor, like: Tensor) -> Iterator[Finding]:
    """Yield a wrong shape, a wrong dtype or wrong values."""
    if got.shape != like.shape:
        kind = "rank" if got.ndim != like.ndim else "shape"
        yield finding(planned, "shape", kind, path=path, got=tuple(got.shape), wanted=tuple(like.shape))
    elif got.dtype != like.dtype:
        yield finding(planned, "dtype", "dtype", path=path, got=dtype_name(got), wanted=dtype_name(like))
    else:
        yield from compare_values(planned, path, got, wanted, like)


def compare_values(planned: Planned, path: str, got: Tensor, wanted: Tensor, like: Tensor) -> Iterator[Finding]:
    """Yield values that are not close enough; nan and inf must stand in the same places."""
    if not like.is_floating_point():
        if not torch.equal(got, wanted.to(got.dtype)):
            yield value_finding(planned, "values", "values_exact", path, got, wanted, Error(0.0, 0.0), Error(0.0, 0.0))
        return
    limit = limit_for(planned, path, like.dtype)
    wanted_here = wanted.to(like.dtype) if like.dtype in (torch.float16, torch.bfloat16) else wanted
    strange = strange_places(got, wanted_here)
    if strange is not None:
        yield value_finding(planned, "finite", strange, path, got, wanted, Error(math.inf, math.inf), limit)
        return
    error = difference(got, wanted)
    if not within(error, limit):
        kind = "float32_inside" if planned.variant == DOUBLE and error.max < FLOAT32_INSIDE else "values"
        yield value_finding(planned, "values", kind, path, got, wanted, error, limit)


def limit_for(planned: Planned, path: str, dtype: torch.dtype) -> Error:
    """Return the error allowed for one result."""
    rounding = planned.expected.rounding.get(path, Rounding())
    if planned.variant == DOUBLE or dtype is torch.float64:
        return rounding.double_limit()
    return rounding.limit(dtype)


def strange_places(got: Tensor, wanted: Tensor) -> str | None:
    """Name what kind of non-finite value stands where it should not, or is missing where it should stand."""
    if not torch.equal(got.isnan(), wanted.isnan()):
        return "nan" if bool((got.isnan() & ~wanted.isnan()).any()) else "nan_missing"
    infinite = got.isinf() | wanted.isinf()
    if bool(infinite.any()) and not torch.equal(got[infinite].double(), wanted[infinite].double()):
        return "inf"
    return None


def value_finding(
    planned: Planned, check: str, kind: str, path: str, got: Tensor, wanted: Tensor, error: Error, limit: Error
) -> Finding:
    """Describe a wrong value: where first, what came, what was wanted, how far off, how far is allowed."""
    index = first_bad(got, wanted, limit)
    return finding(
        planned, check, kind, path=path, index=list(index), got=number(got[index]), wanted=number(wanted[index]),
        error=number(error.max), limit=number(limit.max), dtype=dtype_name(got),
    )  # fmt: skip


def error_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that the exception that was wanted was raised, by type."""
    wanted = planned.case.raises
    if wanted is None:
        return
    if seen.crash:
        yield raised_finding(planned, seen.raised or Raised((), ""), crash=seen.crash)
    elif seen.raised is None:
        yield finding(planned, "errors", "not_raised", wanted=wanted.__name__)
    elif wanted.__name__ not in seen.raised.types:
        raised = seen.raised
        yield finding(
            planned,
            "errors",
            "raised_other",
            trace=raised.trace,
            wanted=wanted.__name__,
            got=raised.name,
            text=raised.text,
        )


def gradient_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Compare the gradients of a random weighting of the results, in float64."""
    if seen.raised is not None:
        return
    for path, wanted in planned.expected.gradients.items():
        got = seen.gradients.get(path)
        size = 0.0 if wanted is None or not wanted.numel() else float(wanted.abs().max())
        if got is None:
            if size:
                yield finding(planned, "gradients", "no_gradient", path=path)
                return
            continue
        target = torch.zeros_like(got) if wanted is None else wanted
        if got.shape != target.shape:
            yield finding(
                planned, "gradients", "gradient_shape", path=path, got=tuple(got.shape), wanted=tuple(target.shape)
            )
            return
        strange = strange_places(got, target)
        error = difference(got, target, GRADIENT_FLOOR)
        if strange is not None or not within(error, DOUBLE_LIMIT):
            kind = "gradient_nan" if strange else "gradient_values"
            yield value_finding(planned, "gradients", kind, path, got, target, error, DOUBLE_LIMIT)
            return
    extra = [path for path in seen.graphs if path not in planned.expected.graphs]
    if extra:
        yield finding(planned, "gradients", "graph_kept", path=extra[0])


def input_findings(planned: Planned, seen: Observation, *, may_alias: bool) -> Iterator[Finding]:
    """Check that inputs are left alone and that results own their memory."""
    for kind, name in seen.changed:
        if kind != "global":
            yield finding(planned, "inputs", f"changed_{kind}", path=name)
            return
    if not may_alias and seen.raised is None:
        for path, source in seen.aliases:
            yield finding(planned, "inputs", "alias", path=path, source=source)
            return


def state_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that process-wide settings are left alone and generators are used as prescribed."""
    for kind, name in seen.changed:
        if kind == "global":
            yield finding(planned, "state", "global", name=name)
            return
    if seen.raised is None and seen.generators != planned.expected.generators:
        yield finding(planned, "state", "generator")


def forbidden_findings(planned: Planned, seen: Observation) -> Iterator[Finding]:
    """Check that nothing forbidden was called and that results come from visible torch operations."""
    for use in seen.uses:
        yield finding(planned, "forbidden", "forbidden", name=use.name, cell=use.cell.strip("<>"), line=use.line)
        return
    for path in seen.orphans:
        yield finding(planned, "forbidden", "orphan", path=path)
        return


def cost_findings(planned: Planned, seen: Observation) -> Iterator[tuple[str, Finding | None]]:
    """Compare the readings with each declared limit: (name of the limit, what is wrong or None)."""
    cost = planned.cost
    if cost is None or seen.raised is not None:
        return
    for name in ("ops", "matmuls", "maxel", "peak", "saved", "syncs"):
        limit = limit_of(cost, name, planned.call, planned.expected)
        if limit is None:
            continue
        got = getattr(seen.reading, name)
        reference = getattr(planned.expected.reading, name)
        facts = {"got": got, "limit": limit, "reference": reference}
        yield name, None if got <= limit else finding(planned, "cost", f"cost_{name}", **facts)


def limit_of(cost: Cost, name: str, call: Call, expected: Expected) -> int | None:
    """Return a limit in elements, bytes or counts."""
    said = getattr(cost, name)
    if said is None or isinstance(said, int):
        return said
    measure = sizes(call, expected)
    if isinstance(said, Mapping):
        return math.ceil(sum(factor * measure[key][1] for key, factor in said.items()))
    parts = said if isinstance(said, tuple) else (said,)
    return max(part if isinstance(part, int) else measure[part][0] for part in parts)


def sizes(call: Call, expected: Expected) -> dict[str, tuple[int, int]]:
    """Return (elements, bytes) of each argument and of the result."""
    named = {**call.inputs, "result": expected.like, "parameters": call.state or {}}
    found = {}
    for name, value in named.items():
        tensors = [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]
        largest = max((t.numel() for t in tensors), default=0)
        found[name] = largest, sum(t.numel() * t.itemsize for t in tensors)
    return found


def growth_findings(
    growth: PlannedGrowth, seen: tuple[Observation, Observation]
) -> Iterator[tuple[str, Finding | None]]:
    """Compare how fast readings grow with how fast they may: (name of the limit, what is wrong or None)."""
    for name, exponent in growth.limits.items():
        failed = next((o.raised for o in seen if o.raised is not None), None)
        if failed is not None:
            facts = {"axis": growth.axis, "error": failed.name, "text": failed.text}
            yield name, Finding("growth", "growth_raised", f"{growth.axis} {growth.sizes[1]}", facts)
            continue
        first, second = (getattr(o.reading, name) for o in seen)
        measured = fitted_exponent(growth.sizes, (first, second))
        slack = GROWTH_SLACK.get(name, DEFAULT_SLACK)
        facts = {
            "axis": growth.axis, "small": growth.sizes[0], "large": growth.sizes[1], "first": first, "second": second,
            "exponent": round(measured, 2), "limit": exponent, "reading": name,
            "reference": getattr(growth.reference[1], name),
        }  # fmt: skip
        yield name, None if measured <= exponent + slack else Finding("growth", f"growth_{name}", growth.axis, facts)


def fitted_exponent(sizes: tuple[int, int], readings: tuple[int, int]) -> float:
    """Return p where a reading grows like size to the power p."""
    if readings[1] <= readings[0]:
        return 0.0
    return math.log(readings[1] / max(readings[0], 1)) / math.log(sizes[1] / sizes[0])


def finding(
    planned: Planned, check: str, kind: str, trace: tuple[tuple[str, int, str], ...] = (), **facts: Any
) -> Finding:
    """Make a finding about a planned call."""
    case = planned.case
    facts["variant"] = planned.variant
    return Finding(check, kind, case.name, facts, case.hidden, trace=trace)


def as_tensor(value: float) -> Tensor:
    """Return a Python float as a float64 tensor."""
    return torch.tensor(value, dtype=torch.float64)


def number(value: Tensor | float) -> float | int | bool | str:
    """Return a number for a message: plain, and never nan or inf as such (JSON has none)."""
    plain = value.item() if isinstance(value, Tensor) else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return str(plain)
    return plain


def type_name(value: Any) -> str:
    """Name a value's type for a message."""
    if value is None:
        return "None"
    return value.kind if isinstance(value, Opaque) else type(value).__name__


def dtype_name(tensor: Tensor) -> str:
    """Name a dtype without `torch.`."""
    return str(tensor.dtype).removeprefix("torch.")


def shorten(text: str, limit: int = 80) -> str:
    """Cut a long text in the middle."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
