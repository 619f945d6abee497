"""Compare one result with what was wanted: type, structure, shape, dtype, finite, values; stop at the first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from grader.pack import DOUBLE, Planned
from grader.tolerance import FLOAT32_INSIDE, Error, Rounding, difference, within, worst_place
from grader.trees import Opaque
from grader.verdict import Finding

MOST_AXES = 20


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
            keys = shorten(str(list(got)), 400)
            yield finding(planned, "structure", "keys", path=path, got=keys, wanted=str(list(like)))
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
        yield from compare_values(
            planned, path, as_tensor(got), as_tensor(float(wanted)), as_tensor(like), planned.dtype
        )
    elif got != wanted:
        yield finding(planned, "values", "plain_value", path=path, got=shorten(repr(got)), wanted=shorten(repr(wanted)))


def compare_tensor(planned: Planned, path: str, got: Tensor, wanted: Tensor, like: Tensor) -> Iterator[Finding]:
    """Yield a wrong shape, a wrong dtype or wrong values."""
    if got.shape != like.shape:
        kind = "rank" if got.ndim != like.ndim else "shape"
        yield finding(planned, "shape", kind, path=path, got=shape_of(got), wanted=shape_of(like))
    elif got.dtype != like.dtype:
        yield finding(planned, "dtype", "dtype", path=path, got=dtype_name(got), wanted=dtype_name(like))
    else:
        yield from compare_values(planned, path, got, wanted, like)


def compare_values(
    planned: Planned, path: str, got: Tensor, wanted: Tensor, like: Tensor, dtype: torch.dtype | None = None
) -> Iterator[Finding]:
    """Yield values that are not close enough; nan and inf must stand in the same places.

    `dtype` is the precision that the value was computed in, where that is not the tensor's own.
    """
    if not like.is_floating_point():
        if not torch.equal(got, wanted.to(got.dtype)):
            yield value_finding(planned, "values", "values_exact", path, got, wanted, Error(0.0, 0.0), Error(0.0, 0.0))
        return
    limit = limit_for(planned, path, dtype or like.dtype)
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
    """Describe a wrong value: where it is furthest off, what came, what was wanted, how far off, how far is allowed."""
    index = worst_place(got, wanted)
    far, allowed = error.max, limit.max
    if kind == "values" and far <= allowed:  # no value is far off, but all of them are a little
        kind, far, allowed = "values_typical", error.rms, limit.rms
    if kind in ("nan", "nan_missing"):
        index = tuple((got.isnan() != wanted.isnan()).nonzero()[0].tolist())
    return finding(
        planned, check, kind, path=path, index=list(index), got=number(got[index]), wanted=number(wanted[index]),
        error=number(far), limit=number(allowed), dtype=dtype_name(got),
    )  # fmt: skip


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


def shape_of(tensor: Tensor) -> tuple[int, ...] | str:
    """Return a shape as it is shown."""
    return tuple(tensor.shape) if tensor.ndim <= MOST_AXES else f"{tensor.ndim} axes"


def shorten(text: str, limit: int = 80) -> str:
    """Cut a long text in the middle."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"
