"""Python source -> syntax tree, one thread at a time."""

from __future__ import annotations

import ast
import threading

_ONE_AT_A_TIME = threading.Lock()


def parse(text: str) -> ast.Module:
    """Parse a module as `ast.parse` does.

    Up to Python 3.11.7 and 3.12.1 two threads that parse at the same time may end in "SystemError: AST constructor
    recursion depth mismatch" (CPython issue 106905).
    """
    with _ONE_AT_A_TIME:
        return ast.parse(text)
