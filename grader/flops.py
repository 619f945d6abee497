"""How many floating-point operations the products of torch need: one formula a family.

A multiplication and the addition that follows it count as two. Biases, softmax inside of attention and the like are
left out. What has no formula here does one operation for each element of its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Formula = Callable[[Sequence[Any], Any], int]
"""The arguments of an operation and its result -> floating-point operations."""

BACKWARD = 2.5
"""Attention's backward pass makes five products where the forward pass makes two."""


def formula_of(schema_name: str) -> Formula | None:
    """Return the formula of an operation, such as `aten::mm`, or None."""
    space, _, name = schema_name.rpartition("::")
    if space != "aten":
        return None
    if name.startswith(("_scaled_dot_product_", "_flash_attention", "_efficient_attention")):
        return attention_backward if name.endswith("_backward") else attention
    return FORMULAS.get(name.removesuffix("_"))


def product(args: Sequence[Any], out: Any) -> int:
    """Count mm, bmm, mv, dot and linear: a sum over the first factor's last axis per element."""
    return 2 * int(out.numel()) * int(args[0].shape[-1])


def added_product(args: Sequence[Any], out: Any) -> int:
    """Count addmm, baddbmm and addmv, whose factors follow what is added."""
    return product(args[1:], out)


def summed_product(args: Sequence[Any], out: Any) -> int:
    """Count addbmm, which sums over the batch too."""
    return product(args[1:], out) * int(args[1].shape[0])


def convolution(args: Sequence[Any], out: Any) -> int:
    """Count a convolution; a transposed one does for each element of its input what others do for their output's."""
    transposed = len(args) > 6 and args[6]
    return window_products(args[0] if transposed else out, args[1])


def convolution_backward(args: Sequence[Any], out: Any) -> int:  # noqa: ARG001
    """Count the gradients of input and weight that are asked for: each costs as much as the forward pass."""
    grad, given, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    return window_products(given if transposed else grad, weight) * sum(map(bool, mask[:2]))


def window_products(positions: Tensor, weight: Tensor) -> int:
    """Count what every position of a window costs: one product with each number of a filter."""
    return 2 * positions.numel() * math.prod(weight.shape[1:])


def attention(args: Sequence[Any], out: Any) -> int:  # noqa: ARG001
    """Count the products with the keys and with the values; the last two axes are length and features."""
    query, key, value = args[:3]
    rows = query.numel() // max(query.shape[-1], 1)
    return 2 * int(rows) * int(key.shape[-2]) * int(query.shape[-1] + value.shape[-1])


def attention_backward(args: Sequence[Any], out: Any) -> int:
    """Count attention's backward pass; the gradient comes before the query."""
    return int(BACKWARD * attention(args[1:], out))


def recurrent_layer(args: Sequence[Any], out: Any) -> int:  # noqa: ARG001
    """Count a fused recurrent layer: both weights meet every row of the sequence."""
    rows = args[0].numel() // max(args[0].shape[-1], 1)
    return 2 * int(rows) * sum(int(weight.numel()) for weight in args[1:3])


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "linear", "_int_mm", "_scaled_mm"), product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "_addmm_activation"), added_product),
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), convolution),
    "addbmm": summed_product,
    "convolution_backward": convolution_backward,
    "mkldnn_rnn_layer": recurrent_layer,
}
