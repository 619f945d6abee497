"""What is known of torch's operations and of the tensors they take and return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grader.flops import Formula, formula_of
from grader.untouched import storage_of

FREE = frozenset(
    "_unsafe_view _reshape_alias detach alias lift_fresh lift size stride sym_size sym_stride sym_numel numel "
    "storage_offset is_contiguous dim device layout is_same_size".split()
)
"""Views in effect and metadata, besides what a schema shows to return a view."""
MATMULS = frozenset("mm addmm bmm baddbmm mv addmv dot vdot addbmm linear _int_mm".split())
SYNCS = frozenset("_local_scalar_dense nonzero equal is_nonzero masked_select item unique _unique2".split())
FUNCTION_SYNCS = frozenset("tolist numpy __array__".split())
_STRIDED = torch.strided


class Facts(NamedTuple):
    """What is known of an operation.

    Args:
        name: without its namespace and overload.
        free: it makes a view or reads metadata.
        lifts: it brings Python numbers into a tensor.
        flops: the formula of its floating-point work.
    """

    name: str
    free: bool
    lifts: bool
    flops: Formula | None


_FACTS: dict[int, tuple[Any, Facts]] = {}
"""By identity, since hashing takes longer than all the rest. What is in here lives on: an id stays its own."""


def op_facts(func: Any) -> Facts:
    """Look an operation up."""
    found = _FACTS.get(id(func))
    if found is None:
        found = _FACTS[id(func)] = (func, _facts_of(func._schema))
    return found[1]


def _facts_of(schema: Any) -> Facts:
    name = schema.name.rpartition("::")[2]
    returns_view = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    free = name in FREE or returns_view or schema.name.startswith("prim::")
    return Facts(name, free, name == "lift_fresh", formula_of(schema.name))


def tensors_in(value: Any) -> Iterable[Tensor]:
    """Walk the tensors among an op's arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def elements(tensor: Tensor) -> int:
    """Count elements that exist: dimensions of stride 0 count once."""
    return min(tensor.numel(), storage_of(tensor).nbytes() // max(tensor.itemsize, 1))


def existing_bytes(tensor: Tensor) -> int:
    """Count bytes that exist: dimensions of stride 0 count once."""
    return min(tensor.nbytes, storage_of(tensor).nbytes())


def result_elements(out: Any) -> int:
    """Count the elements of an op's results."""
    return out.numel() if isinstance(out, Tensor) else sum(t.numel() for t in tensors_in(out))


def has_storage(tensor: Tensor) -> bool:
    """Whether a tensor is an ordinary one whose memory can be looked at."""
    return tensor.layout is _STRIDED and not tensor.is_meta


def is_mask_index(name: str, args: tuple[Any, ...]) -> bool:
    """Whether an op indexes with a boolean mask, which reads the mask's content."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_") or len(args) < 2:
        return False
    return any(t.dtype in (torch.bool, torch.uint8) for t in tensors_in(args[1]))
