"""Import once, before there is a child, what every child will need; and what few need, before the first of these."""

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import cast

PRELOAD = ("torch", "torch.utils.data", "torch.utils.flop_counter")
PLOTS = "matplotlib.pyplot"
# What few programs need, at a cost of a second in a process that serves only one submission: modules that torch imports
# late, and matplotlib, which also wants to write down which fonts there are. By the words that ask for them.
RARE = (
    (
        re.compile(r"\b(optim|func|functorch|testing|checkpoint|compiler|profiler)\b"),
        ("torch._dynamo", "torch.fx.experimental.symbolic_shapes"),
    ),
    (re.compile(r"\b(plt|matplotlib)\b"), (PLOTS,)),
)


def rare(sources: Iterable[str]) -> tuple[str, ...]:
    """Return the modules that programs with these sources will import late; a guess by their words."""
    texts = tuple(sources)
    return tuple(m for words, modules in RARE if any(words.search(text) for text in texts) for m in modules)


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
    load(preload)
    module, _, function = entry.partition(":")
    serve = cast("Callable[..., None]", getattr(importlib.import_module(module), function))
    sys.path[:] = [folder for folder in sys.path if folder not in path]
    return serve


def load(modules: Iterable[str]) -> None:
    """Import modules, and take every path once that reads files or imports late: each child inherits the result.

    One thread only: a process that has run one parallel operation on several leaves its children waiting for
    threads that they do not have.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MPLCONFIGDIR"] = folder  # here matplotlib writes down which fonts there are
        for name in modules:
            importlib.import_module(name)
    if "torch" in modules:
        _warm_torch()
    if "torch._dynamo" in modules:
        _warm_dynamo()


def _warm_torch() -> None:
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.Linear(4, 3)
    loss = torch.nn.functional.cross_entropy(layer(torch.ones(2, 4)), torch.tensor([0, 2]))
    loss.backward()  # type: ignore[no-untyped-call]
    repr(layer.weight)
    torch.func.vmap(torch.sin)(torch.ones(2, 2))
    torch.linalg.svd(torch.eye(2))
    torch.manual_seed(0)


def _warm_dynamo() -> None:
    import torch

    layer = torch.nn.Linear(4, 3)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    torch.func.jacrev(torch.sin)(torch.ones(2))
    torch.func.vmap(torch.func.grad(lambda x: (x * x).sum()))(torch.ones(2, 2))
    torch.testing.assert_close(torch.ones(2), torch.ones(2))
    torch.manual_seed(0)
