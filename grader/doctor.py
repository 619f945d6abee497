"""What is missing on this machine, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator

OLDEST_PYTHON = (3, 11)
PACKAGES = ("torch", "numpy", "pytest", "pytest_timeout", "nbformat", "safetensors", "rich", "typer", "jinja2")


def examine() -> Iterator[tuple[str, str, str]]:
    """Yield (what, its state, how to mend it or an empty text)."""
    yield python_version()
    for name in PACKAGES:
        yield package(name)
    yield course_found()
    yield package("nbgrader", "only instructors need it: pip install 'torch-dojo[nbgrader]'", required=False)
    yield from isolation_levels()
    yield accelerator()


def python_version() -> tuple[str, str, str]:
    """Look at the Python version."""
    good = sys.version_info[:2] >= OLDEST_PYTHON
    return "Python", platform.python_version(), "" if good else "install Python 3.11 or newer"


def package(name: str, fix: str = "", *, required: bool = True) -> tuple[str, str, str]:
    """Look for a package."""
    if importlib.util.find_spec(name) is None:
        return name, "not installed", (fix or f"pip install {name.replace('_', '-')}") if required else ""
    return name, importlib.metadata.version(name.replace("_", "-")), ""


def course_found() -> tuple[str, str, str]:
    """Look for the course."""
    from grader.course import CourseError, load_course

    try:
        course = load_course()
    except CourseError as error:
        return "course", "not found", str(error)
    return "course", f"{course.root} ({len(course.unit_names)} units)", ""


def isolation_levels() -> Iterator[tuple[str, str, str]]:
    """Try every level of isolation."""
    from grader import sandbox

    for level in ("portable", "linux", "strict"):
        try:
            with sandbox.open(level, entry="grader.worker:serve", preload=()) as pool:
                yield f"isolation {level}", pool.isolation, ""
        except sandbox.Unavailable as error:
            yield f"isolation {level}", f"not available: {error}", "" if level == "strict" else str(error)


def accelerator() -> tuple[str, str, str]:
    """Look for a GPU; none is needed."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (not needed)"
    return "GPU", name, ""
