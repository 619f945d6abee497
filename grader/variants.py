"""Variants of a call: in float64, nudged by one rounding, laid out differently in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from grader.calls import Call
from grader.case import Case
from grader.draw import Draw
from grader.pack import STRIDED
from grader.tolerance import UNIT
from grader.trees import leaves, mapped


def drawn_like(key: str, tensor: Tensor, draw: Draw) -> Tensor:
    """Draw a parameter of ordinary size; scales that start at 1 stay near 1."""
    if not tensor.is_floating_point():
        return tensor
    if tensor.ndim >= 2:
        fan_in = max(tensor.numel() // max(tensor.shape[0], 1), 1)
        scale: float = 1.2 / fan_in**0.5
        return scale * draw.normal(*tensor.shape, dtype=tensor.dtype)
    centre = 1.0 if key.endswith("weight") and bool((tensor == 1).all()) else 0.0
    return centre + 0.4 * draw.normal(*tensor.shape, dtype=tensor.dtype)


def with_inputs(call: Call, change: Callable[[Any], Any]) -> Call:
    """Return a call whose inputs, constructor arguments and state went through `change`."""
    args, kwargs, init, state = mapped((call.args, call.kwargs, call.init, call.state), change)
    return replace(call, args=args, kwargs=kwargs, init=init, state=state)


def to_double(call: Call) -> Call:
    """Cast every float tensor, and every dtype argument, to float64."""

    def cast(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return tensor_to_double(leaf).requires_grad_(leaf.requires_grad)
        return torch.float64 if isinstance(leaf, torch.dtype) and leaf.is_floating_point else leaf

    return with_inputs(call, cast)


def tensor_to_double(tensor: Tensor) -> Tensor:
    """Cast a tensor to float64 and keep its strides; what is expanded stays so."""
    index = tuple(slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())
    small = tensor.detach()[index]
    made = torch.empty_strided(small.shape, small.stride(), dtype=torch.float64)
    return made.copy_(small).expand(tensor.shape)


def input_leaves(call: Call) -> Iterator[Any]:
    """Walk everything that goes into a call."""
    for _, leaf in leaves([call.args, call.kwargs, call.init, call.state]):
        yield leaf


def has_float(call: Call) -> bool:
    """Whether a call has float inputs."""
    return any(
        (isinstance(leaf, Tensor) and leaf.is_floating_point())
        or (isinstance(leaf, torch.dtype) and leaf.is_floating_point)
        for leaf in input_leaves(call)
    )


def has_half(call: Call) -> bool:
    """Whether a call has float16 or bfloat16 inputs."""
    return any(
        isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16) for leaf in input_leaves(call)
    )


def same_dtypes(a: Call, b: Call) -> bool:
    """Whether two calls have inputs of the same dtypes."""
    kinds = [
        [
            leaf.dtype if isinstance(leaf, Tensor) else leaf
            for leaf in input_leaves(c)
            if isinstance(leaf, (Tensor, torch.dtype))
        ]
        for c in (a, b)
    ]
    return kinds[0] == kinds[1]


def nudge(wide: Call, given: Call, number: int) -> Call:
    """Move every float input by one rounding of its given dtype, up or down at random."""
    source = torch.Generator().manual_seed(number)
    units = {
        id(w): UNIT[g.dtype]
        for w, g in zip(input_leaves(wide), input_leaves(given), strict=True)
        if isinstance(g, Tensor) and g.dtype in UNIT
    }

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or id(leaf) not in units:
            return leaf
        sign = torch.randint(0, 2, leaf.shape, generator=source, dtype=torch.float64) * 2 - 1
        return (leaf.detach() * (1 + units[id(leaf)] * sign)).to(leaf.dtype).requires_grad_(leaf.requires_grad)

    return with_inputs(wide, move)


def has_layouts(case: Case) -> bool:
    """Whether a case has a float tensor among its positional arguments that can be laid out differently."""
    return any(isinstance(a, Tensor) and a.numel() > 1 for a in case.args)


def relayout(call: Call, layout: str, mutates: tuple[str, ...]) -> Call | None:
    """Return the call with its tensor arguments laid out differently in memory, or None if none can be."""
    change = strided if layout == STRIDED else expanded
    args = tuple(
        change(a) if isinstance(a, Tensor) and a.numel() > 1 and name not in mutates and not a.requires_grad else a
        for name, a in zip(call.names, call.args, strict=True)
    )
    if all(a is b for a, b in zip(args, call.args, strict=True)):
        return None
    return replace(call, args=args, label=f"{call.label} / {layout}", gradients=(), saved=False)


def strided(tensor: Tensor) -> Tensor:
    """Return the same values as every second element of a larger storage, at an offset."""
    if tensor.ndim == 0:
        return tensor
    room = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), 7, dtype=torch.float32).to(tensor.dtype)
    view = room[..., 1::2][..., : tensor.shape[-1]]
    view.copy_(tensor)
    return view


def expanded(tensor: Tensor) -> Tensor:
    """Return the first row repeated without memory; other values, so this is a case of its own."""
    if tensor.ndim < 2 or tensor.shape[0] < 2:
        return tensor
    return tensor[:1].contiguous().expand(tensor.shape)
