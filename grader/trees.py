"""Plain data: walking it, copying it, changing its leaves.

Plain data is None, bool, int, float, str, torch dtypes, devices, generators and tensors (with their strides,
`requires_grad` and identity: the same tensor twice stays the same tensor), `Opaque`, and lists, tuples and dicts of
these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grader.untouched import clone, detach


@dataclass(frozen=True, slots=True)
class Opaque:
    """Stands for an object that is not plain data."""

    kind: str


def leaves(value: Any, path: str = "result") -> Iterator[tuple[str, Any]]:
    """Walk plain data depth first, as (path, leaf)."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}[{key!r}]")
    else:
        yield path, value


def fresh(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Copy plain data: new tensors of the same strides, new generators in the same state."""
    memo = {} if memo is None else memo
    if isinstance(value, Tensor):
        if id(value) not in memo:
            memo[id(value)] = copy_tensor(value)
        return memo[id(value)]
    if isinstance(value, torch.Generator):
        if id(value) not in memo:
            copied = torch.Generator()
            copied.set_state(value.get_state())
            memo[id(value)] = copied
        return memo[id(value)]
    if isinstance(value, (list, tuple)):
        return type(value)(fresh(item, memo) for item in value)
    if isinstance(value, dict):
        return {key: fresh(item, memo) for key, item in value.items()}
    return value


def mapped(value: Any, change: Callable[[Any], Any], memo: dict[int, Any] | None = None) -> Any:
    """Apply `change` to the leaves of plain data; a tensor that appears twice stays one tensor."""
    memo = {} if memo is None else memo
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, change, memo) for item in value)
    if isinstance(value, dict):
        return {key: mapped(item, change, memo) for key, item in value.items()}
    if isinstance(value, Tensor):
        if id(value) not in memo:
            memo[id(value)] = change(value)
        return memo[id(value)]
    return change(value)


def copy_tensor(tensor: Tensor) -> Tensor:
    """Copy a tensor with its strides and its `requires_grad`."""
    source = detach(tensor)
    if source.is_contiguous():
        copied = clone(source)
    else:
        copied = clone(dense_base(source)).as_strided(source.shape, source.stride())
    return copied.requires_grad_(tensor.requires_grad)


def dense_base(tensor: Tensor) -> Tensor:
    """Return the stretch of storage that a strided tensor covers, as a vector."""
    extent = (
        0 if tensor.numel() == 0 else 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    )
    return tensor.as_strided((extent,), (1,), tensor.storage_offset())
