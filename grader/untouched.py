"""What the grader itself needs of torch, as it was before learner code ran.

The methods of `TensorBase` cannot be replaced, and these names are bound before a submission is loaded. What else could
be replaced is looked at after every call.
"""

from __future__ import annotations

from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import TensorBase

detach, clone, cpu, contiguous = TensorBase.detach, TensorBase.clone, TensorBase.cpu, TensorBase.contiguous
storage_of = TensorBase.untyped_storage

CLASSES: dict[str, type] = {"Tensor": Tensor, "nn.Parameter": nn.Parameter, "nn.Module": nn.Module}
FUNCTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "torch": (torch, ("Generator", "autograd", "default_generator", "equal", "randn", "stack", "view_as_real")),
    "torch.autograd": (torch.autograd, ("grad",)),
}
HARMLESS = frozenset(
    "__repr__ __str__ __format__ _repr_html_ __annotations__ __annotations_cache__ __annotate_func__".split()
)
"""How a tensor shows itself is nobody's business; annotations appear in a class when somebody asks for them."""


BEFORE = {name: dict(vars(kind)) for name, kind in CLASSES.items()}
BEFORE |= {name: {key: vars(owner).get(key) for key in keys} for name, (owner, keys) in FUNCTIONS.items()}


def replaced() -> list[str]:
    """Return the names that learner code has replaced, removed or put into torch's classes."""
    found = []
    for name, kind in CLASSES.items():
        now, before = vars(kind), BEFORE[name]
        if len(now) != len(before) or not all(map(is_, now.values(), before.values())):
            names = [*before, *(key for key in now if key not in before)]
            found += [f"{name}.{key}" for key in names if now.get(key) is not before.get(key) and key not in HARMLESS]
    for name, (owner, keys) in FUNCTIONS.items():
        found += [f"{name}.{key}" for key in keys if vars(owner).get(key) is not BEFORE[name][key]]
    return found
