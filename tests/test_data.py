"""The bundled data: what arrives, that it is what was shipped, and what is said when it is not."""

import hashlib
import importlib.util
import io
import json
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from grader import data

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "reference" / "data"
INDEX = json.loads((DATA / "index.json").read_text(encoding="utf-8"))
ENTRIES = {entry["name"]: entry for entry in INDEX["files"]}


@pytest.fixture
def course(tmp_path: Path) -> Path:
    shutil.copytree(DATA, tmp_path / "reference" / "data")
    (tmp_path / "pyproject.toml").write_text('[tool.grader]\ncourse = "reference"\n', encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", DATA / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_digits_shapes_ranges_and_balance():
    X, y = data.digits(ROOT)
    assert (X.shape, X.dtype) == ((1797, 64), torch.float32)
    assert (y.shape, y.dtype) == ((1797,), torch.int64)
    assert (X.min(), X.max()) == (0, 1)
    assert torch.equal((X * 16).round(), X * 16)
    assert y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's counts


def test_animals_shapes_ranges_and_names():
    X, y, names = data.animals(ROOT)
    assert (X.shape, X.dtype) == ((10000, 1, 28, 28), torch.float32)
    assert (y.shape, y.dtype) == ((10000,), torch.int64)
    assert (X.min(), X.max()) == (0, 1)
    assert X.is_contiguous()
    assert names == ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")


def test_animals_pixels_do_not_depend_on_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert data.animals(ROOT)[0].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_animals_slices_are_balanced_but_not_sorted():
    y = data.animals(ROOT)[1]
    tens = y.reshape(-1, 10)
    assert torch.equal(tens.sort(1).values, torch.arange(10).expand(1000, 10))
    assert len(tens.unique(dim=0)) > 990


def test_animals_held_out_images_do_not_occur_before():
    images = [image.numpy().tobytes() for image in data.animals(ROOT)[0]]
    assert len(set(images)) == 10000 - 284
    assert len(set(images[8000:])) == 2000
    assert not set(images[8000:]) & set(images[:8000])


def test_shakespeare_is_clean_ascii():
    text = data.shakespeare(ROOT)
    assert 150_000 < len(text) < 400_000
    assert set(text) <= set("\n !&',-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert "To be, or not to be: that is the question:\n" in text
    assert "Is this a dagger which I see before me,\n" in text
    assert not re.search(r"  | \n|\n\n\n", text)


def test_shakespeare_is_speeches_with_words():
    speeches = data.shakespeare(ROOT).rstrip("\n").split("\n\n")
    assert len(speeches) > 1500
    for speech in speeches:
        name, *lines = speech.split("\n")
        assert re.fullmatch(r"[A-Za-z &]+:", name)
        assert all(lines)
        assert lines


@pytest.mark.parametrize("name", data.NAMES)
def test_load_is_the_function_of_that_name(name: str):
    loaded, wanted = data.load(name, ROOT), getattr(data, name)(ROOT)
    assert type(loaded) is type(wanted)
    for part, other in zip(loaded, wanted, strict=True):
        assert torch.equal(part, other) if isinstance(other, torch.Tensor) else part == other


def test_load_says_which_names_there_are():
    with pytest.raises(ValueError, match="no data set 'fashion'; there are animals, digits, shakespeare"):
        data.load("fashion", ROOT)


def test_each_call_returns_new_tensors():
    data.digits(ROOT)[0].zero_()
    assert data.digits(ROOT)[0].any()


def test_index_and_loaders_name_the_same_data():
    assert sorted(ENTRIES) == sorted(data.NAMES)


@pytest.mark.parametrize("entry", INDEX["files"], ids=lambda entry: entry["file"])
def test_files_are_as_the_index_says(entry: dict[str, str]):
    content = (DATA / entry["file"]).read_bytes()
    assert len(content) == entry["bytes"]
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def test_files_stay_small():
    sizes = {name: entry["bytes"] for name, entry in ENTRIES.items()}
    assert sizes["animals"] <= 2_700_000
    assert sizes["digits"] <= 60_000
    assert sizes["shakespeare"] <= 150_000


def test_no_file_is_there_without_an_entry():
    known = {entry["file"] for entry in INDEX["files"]} | {"index.json", "LICENSES.md", "prepare.py"}
    assert {path.name for path in DATA.iterdir() if path.is_file()} == known


def test_licences_are_those_of_the_index(prepare: ModuleType):
    assert (DATA / "LICENSES.md").read_text(encoding="utf-8") == prepare.licences(INDEX), (
        "run: python reference/data/prepare.py --licences"
    )


@pytest.mark.parametrize("entry", INDEX["files"], ids=lambda entry: entry["file"])
def test_licences_are_complete(entry: dict[str, str]):
    page = (DATA / "LICENSES.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{entry['file']}` |")]
    for key in ("content", "source", "licence", "sha256"):
        assert entry[key]
        assert entry[key] in row
    assert entry["changes"] in page
    assert "\n".join(entry["notice"]) in page
    assert any("copyright" in line.lower() for line in entry["notice"])


def test_nothing_needs_pickle_or_the_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("pickle or the network was used")

    for owner, attribute in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (socket, "socket")):
        monkeypatch.setattr(owner, attribute, refuse)
    for name in data.NAMES:
        data.load(name, ROOT)


def test_the_archive_holds_plain_arrays():
    with np.load(io.BytesIO((DATA / "animals.npz").read_bytes()), allow_pickle=False) as file:
        kinds = {name: file[name].dtype.kind for name in file.files}
    assert kinds == {"images": "u", "labels": "u", "order": "u", "names": "U"}


def test_the_author_script_refuses_other_pickles(prepare: ModuleType):
    with pytest.raises(pickle.UnpicklingError, match="a plain array needs no"):
        prepare.ArrayUnpickler(io.BytesIO(pickle.dumps(print))).load()


@pytest.mark.parametrize("name", data.NAMES)
def test_damaged_file_is_named_with_the_fix(course: Path, name: str):
    path = course / "reference" / "data" / ENTRIES[name]["file"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DataError, match="is damaged: its sha256") as caught:
        data.load(name, course)
    assert str(path) in str(caught.value)
    assert f'git checkout -- "{path}"' in str(caught.value)


@pytest.mark.parametrize("name", data.NAMES)
def test_missing_file_is_named_with_the_fix(course: Path, name: str):
    path = course / "reference" / "data" / ENTRIES[name]["file"]
    path.unlink()
    with pytest.raises(data.DataError, match=r"is missing\. Restore it with") as caught:
        data.load(name, course)
    assert str(path) in str(caught.value)


def test_missing_index_is_named(course: Path):
    (course / "reference" / "data" / "index.json").unlink()
    with pytest.raises(data.DataError, match=r"index\.json is missing"):
        data.digits(course)


@pytest.mark.parametrize("text", ["", "[]", '{"files": []}', '{"files": [{"name": "digits"}]}', "\udcff"])
def test_damaged_index_is_named(course: Path, text: str):
    (course / "reference" / "data" / "index.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(data.DataError, match=r"index\.json is damaged: it does not describe 'digits'"):
        data.digits(course)


def test_data_are_found_from_a_folder_inside_the_course(course: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCH_DOJO_ROOT", raising=False)
    monkeypatch.chdir(course / "reference" / "data")
    assert len(data.digits()[0]) == 1797


def test_data_are_found_through_the_environment(course: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_DOJO_ROOT", str(course))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(data.digits()[0]) == 1797


def test_import_is_cheap():
    heavy = "{'IPython', 'matplotlib', 'nbformat', 'pandas', 'sklearn'} & set(sys.modules)"
    command = [sys.executable, "-c", f"import sys, grader.data; print({heavy})"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_logistic_regression_learns_digits():
    X, y = data.digits(ROOT)
    W = torch.zeros(64, 10, requires_grad=True)
    for _ in range(300):
        loss = F.cross_entropy(X[:1300] @ W, y[:1300])
        (gradient,) = torch.autograd.grad(loss, W)
        with torch.no_grad():
            W -= 2.0 * gradient
    assert ((X[1300:] @ W).argmax(1) == y[1300:]).float().mean() > 0.9


def test_logistic_regression_learns_animals():
    X, y, _ = data.animals(ROOT)
    X = X.flatten(1)
    W = torch.zeros(784, 10, requires_grad=True)
    for step in range(200):
        batch = slice(step % 40 * 200, step % 40 * 200 + 200)
        (gradient,) = torch.autograd.grad(F.cross_entropy(X[batch] @ W, y[batch]), W)
        with torch.no_grad():
            W -= 0.02 * gradient
    assert ((X[8000:] @ W).argmax(1) == y[8000:]).float().mean() > 0.5
