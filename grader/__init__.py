"""torch-dojo: declare, check and grade PyTorch exercises."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader import data
    from grader.api import check, hint, profile, provided, reproduce
    from grader.case import Case, Cost
    from grader.draw import Draw
    from grader.exercise import Exercise

__all__ = ["Case", "Cost", "Draw", "Exercise", "check", "data", "hint", "profile", "provided", "reproduce"]
__version__ = "0.1.0"

_PLACES = {
    "Case": "case", "Cost": "case", "Draw": "draw", "Exercise": "exercise", "check": "api", "hint": "api",
    "profile": "api", "provided": "api", "reproduce": "api",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch is loaded only where it is needed."""
    if name == "data":
        return importlib.import_module("grader.data")
    if name in _PLACES:
        return getattr(importlib.import_module(f"grader.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'grader' has no attribute {name!r}")
