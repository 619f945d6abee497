"""Small things that several test files use."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNIT = "softmax_regression"

RIGHT = """
import torch

def softmax(x, dim=-1):
    if not x.is_floating_point():
        raise TypeError("x must be a float tensor")
    if x.numel() == 0:
        x.size(dim)
        return x.clone()
    y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    w = (y - y.amax(dim, keepdim=True)).exp()
    return (w / w.sum(dim, keepdim=True)).to(x.dtype)
"""

NO_SHIFT = """
import torch

def softmax(x, dim=-1):
    if not x.is_floating_point():
        raise TypeError("x must be a float tensor")
    w = x.exp()
    return w / w.sum(dim, keepdim=True)
"""

STUB = """
def softmax(x, dim=-1):
    # YOUR CODE HERE
    raise NotImplementedError()
"""


def notebook(*sources):
    """Return the text of a notebook with the given code cells."""
    cells = [
        {"cell_type": "code", "source": s, "metadata": {}, "outputs": [], "execution_count": None, "id": f"c{n}"}
        for n, s in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def hand_in(folder, student, source, unit=UNIT, kind=".ipynb"):
    """Write one submission in nbgrader's layout."""
    place = Path(folder) / student / unit
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{unit}{kind}"
    path.write_text(notebook(source) if kind == ".ipynb" else source, encoding="utf-8")
    return path


@contextlib.contextmanager
def open_folder():
    """Make a temporary folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="dojo-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def shut(path):
    """Shut a file or folder to everybody; who is root, and may read everything, is somebody else for a while."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)
