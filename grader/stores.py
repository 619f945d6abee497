"""Which attributes a learner's source may set: on objects of its own all, on anything else none that torch calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import nn

from grader.bindings import Bindings
from grader.permitted import NAMING


@lru_cache(maxsize=1)
def methods() -> frozenset[str]:
    """Return the names of what can be called on tensors, parameters and modules."""
    owners = (torch.Tensor, nn.Parameter, nn.Module)
    return frozenset(name for owner in owners for name in dir(owner) if callable(getattr(owner, name, None)))


def bad_stores(owner: ast.expr, names: frozenset[str], bindings: Bindings) -> Iterator[str]:
    """Yield the attributes among `names` that may not be set on an owner.

    `T.detach = f` would change torch itself where T is type(x); what `layer.weight`, `x.grad` and `p.requires_grad`
    are is data.
    """
    for name in sorted(names):
        if name.startswith("__") and name not in NAMING:
            yield f"{name} changed"
        elif name in methods() and not is_own(owner, bindings):
            yield f"{name} (a method of torch's) changed"


def is_own(owner: ast.expr, bindings: Bindings) -> bool:
    """Whether an object is the learner's: `self`, an own class or function, an object of an own class or a module."""
    if not isinstance(owner, ast.Name):
        return False
    key = bindings.known.key(owner)
    values = bindings.of_name(owner)
    if key in bindings.known.selves and values == [None]:
        return True
    if owner.id in bindings.defined and key not in bindings.values:
        return True
    return bool(values) and all(isinstance(value, ast.Call) and is_maker(value.func, bindings) for value in values)


def is_maker(function: ast.expr, bindings: Bindings) -> bool:
    """Whether what is called is an own class, or a class of layers."""
    if isinstance(function, ast.Name) and function.id in bindings.classes:
        return (0, function.id) not in bindings.values
    full = bindings.known.resolve(function)
    return full == ["types", "SimpleNamespace"] or (full[:2] == ["torch", "nn"] and full[-1][0].isupper())
