"""The sandbox where there is none: Windows has neither fork nor limits on processes nor passing of descriptors."""

from typing import Any, NoReturn

from grader.sandbox.errors import Unavailable
from grader.sandbox.limits import Limits

LEVELS = ("none", "portable", "linux", "strict")
_DEFAULT = Limits()


class Session:
    """Never made."""


class Pool:
    """Never made."""


def open_pool(level: str = "auto", limits: Limits = _DEFAULT, **options: Any) -> NoReturn:  # noqa: ARG001 - as elsewhere
    """Refuse.

    Raises:
        Unavailable: always.
    """
    raise Unavailable("submissions cannot be run safely on Windows itself: use the Windows Subsystem for Linux (WSL)")
