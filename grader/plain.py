"""What comes out of learner code, as plain data: results, exceptions, generators."""

from __future__ import annotations

import hashlib
import itertools
import traceback
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import Raised
from grader.meter import is_learner_file
from grader.ops import has_storage
from grader.trees import Opaque, leaves
from grader.untouched import clone, contiguous, cpu, detach
from grader.wire import MAX_DEPTH

MAX_ITEMS = 10_000
MAX_TENSORS = 1000
"""More than any exercise returns; each costs time wherever it goes."""
MAX_BITS = 1024


def plain(value: Any) -> Any:
    """Turn a candidate's result into plain data; what is none, or no end of tensors, becomes `Opaque`."""
    found = walked(value, 0)
    if type(found) in (list, tuple, dict) and sum(isinstance(leaf, Tensor) for _, leaf in leaves(found)) > MAX_TENSORS:
        return Opaque(f"a {type(found).__name__} of more than {MAX_TENSORS} tensors")
    return found


def walked(value: Any, depth: int) -> Any:
    """Turn a value so many levels below the result into plain data."""
    kind = type(value)
    if kind is int and value.bit_length() > MAX_BITS:
        return Opaque("an int of hundreds of digits")
    if value is None or kind in (bool, int, float, str):
        return value
    if depth > MAX_DEPTH:
        return Opaque("a value nested too deeply")
    mro = kind.__mro__
    if Tensor in mro:
        return plain_tensor(value)
    if kind in (torch.dtype, torch.device):
        return value
    for base in (float, str):
        if base in mro:
            return base(value)
    if tuple in mro or list in mro:
        items = [walked(item, depth + 1) for item in itertools.islice(value, MAX_ITEMS)]
        return items if list in mro else tuple(items)
    if dict in mro:
        return {k if type(k) in (int, str, bool) else repr(k): walked(v, depth + 1) for k, v in value.items()}
    if hasattr(kind, "__next__"):
        return [walked(item, depth + 1) for item in itertools.islice(value, MAX_ITEMS)]
    return Opaque(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def plain_tensor(value: Tensor) -> Tensor | Opaque:
    """Accept ordinary strided tensors, on any device but meta; name the others."""
    if type(value) not in (Tensor, nn.Parameter):
        return Opaque(f"{type(value).__name__} (a Tensor subclass)")
    replaced = [name for name in value.__dict__ if hasattr(Tensor, name)]
    if replaced:  # they stand in the way of the tensor's own methods
        return Opaque(f"a Tensor with attributes of its own ({', '.join(replaced)[:80]})")
    if not has_storage(value):
        return Opaque(f"a {value.layout} tensor on {value.device}")
    return value


def detached(value: Any) -> Any:
    """Copy plain data without graphs; tensors become contiguous and move to the CPU."""
    if isinstance(value, Tensor):
        return clone(contiguous(cpu(detach(value))))
    if isinstance(value, (list, tuple)):
        return type(value)(detached(item) for item in value)
    if isinstance(value, dict):
        return {key: detached(item) for key, item in value.items()}
    return value


def describe(error: BaseException, stage: str) -> Raised:
    """Turn an exception into data, with the learner's own lines only."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if kind not in (object, BaseException))
    frames = traceback.extract_tb(error.__traceback__)
    trace = tuple((f.filename, f.lineno or 0, f.name) for f in frames if is_learner_file(f.filename))
    try:
        text = str(error)[:600]
    except Exception:  # a learner's exception may have a __str__ that raises
        text = "(its text could not be read)"
    return Raised(kinds, text, stage, trace[-8:])


def digest(generator: torch.Generator) -> str:
    """Return a short digest of a generator's state."""
    return hashlib.sha256(generator.get_state().numpy().tobytes()).hexdigest()[:16]
