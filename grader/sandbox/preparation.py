"""Import once, before there is a child, what every child will need."""

import importlib
import sys
from collections.abc import Callable
from typing import cast

# Modules that torch imports late, each at a cost of up to seconds, in a process that serves only one submission.
PRELOAD = (
    "torch",
    "torch._dynamo",
    "torch.func",
    "torch.fx.experimental.symbolic_shapes",
    "torch.optim",
    "torch.testing",
    "torch.utils.data",
    "torch.utils.flop_counter",
)


def prepare(entry: str, preload: tuple[str, ...], path: tuple[str, ...]) -> Callable[..., None]:
    """Import the modules and warm torch up.

    Args:
        entry: "module:function".
        preload: names of modules.
        path: folders to search besides the installed packages.

    Returns:
        The entry function.
    """
    sys.path[:0] = path
    for name in preload:
        importlib.import_module(name)
    if "torch" in preload:
        _warm_torch()
    module, _, function = entry.partition(":")
    serve = cast("Callable[..., None]", getattr(importlib.import_module(module), function))
    sys.path[:] = [folder for folder in sys.path if folder not in path]
    return serve


def _warm_torch() -> None:
    """Take every path once that reads files or imports late: each child inherits the result.

    One thread only: a process that has run one parallel operation on several leaves its children waiting for
    threads that they do not have.
    """
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.Linear(4, 3)
    optimiser = torch.optim.AdamW(layer.parameters())
    loss = torch.nn.functional.cross_entropy(layer(torch.ones(2, 4)), torch.tensor([0, 2]))
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    repr(layer.weight)
    torch.func.jacrev(torch.sin)(torch.ones(2))
    torch.func.vmap(torch.func.grad(lambda x: (x * x).sum()))(torch.ones(2, 2))
    torch.testing.assert_close(torch.ones(2), torch.ones(2))
    torch.linalg.svd(torch.eye(2))
    torch.manual_seed(0)
