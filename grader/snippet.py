"""Code to paste that reproduces a case."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from grader.calls import Call
from grader.exercise import Exercise

MOST_ELEMENTS = 24
LONGEST = 200


def snippet(exercise: Exercise, call: Call) -> str:
    """Return a call written out in full where that is short, and one to `reproduce` where it is not."""
    if call.probe is None and call.init is None:
        parts = [literal(value) for value in call.args]
        parts += [f"{name}={text}" for name, text in zip(call.kwargs, map(literal, call.kwargs.values()), strict=True)]
        text = f"{exercise.name}({', '.join(part or '' for part in parts)})"
        if all(parts) and len(text) <= LONGEST:
            return text
    return f'reproduce({exercise.name}, "{call.label}")'


def literal(value: Any) -> str | None:
    """Write plain data as code, or None where that would be long."""
    if isinstance(value, Tensor):
        return tensor_literal(value)
    if isinstance(value, (list, tuple)):
        parts = [literal(item) for item in value]
        if not all(parts):
            return None
        inner = ", ".join(part or "" for part in parts)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(parts) == 1 else ''})"
    if isinstance(value, float) and value in (float("inf"), -float("inf")):
        return f'float("{value}")'
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return repr(value)
    return None


def tensor_literal(value: Tensor) -> str | None:
    """Write a small tensor as code that rebuilds it bit for bit."""
    if not 0 < value.numel() <= MOST_ELEMENTS or not value.is_contiguous() or value.requires_grad:
        return None
    numbers = repr(value.tolist()).replace("-inf", '-float("inf")').replace("nan", 'float("nan")')
    numbers = numbers.replace(" inf", ' float("inf")').replace("[inf", '[float("inf")')
    if value.is_floating_point():
        numbers = shorter(value) or numbers
    plain = value.dtype in (torch.float32, torch.int64, torch.bool)
    return f"torch.tensor({numbers})" if plain else f"torch.tensor({numbers}, dtype={value.dtype})"


def shorter(value: Tensor) -> str | None:
    """Write float32 numbers with as few digits as rebuild them."""
    if value.dtype is not torch.float32 or not bool(torch.isfinite(value).all()):
        return None

    def digits(x: float) -> str:
        for places in range(1, 10):
            text = f"{x:.{places}g}"
            if torch.tensor(float(text), dtype=torch.float32).item() == x:
                plain = repr(float(text))
                return plain.removesuffix("0") if plain.endswith(".0") else plain
        return repr(x)

    def nested(numbers: Any) -> str:
        return f"[{', '.join(map(nested, numbers))}]" if isinstance(numbers, list) else digits(numbers)

    return nested(value.tolist())
