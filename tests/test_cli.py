"""The command line as learners and instructors meet it: words, files, exit codes."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from helpers import NO_SHIFT, RIGHT, ROOT, STUB, UNIT, hand_in, notebook

from grader import cli


def grader(*words, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, "-m", "grader.cli", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
        env=os.environ | environment,
    )  # fmt: skip


@pytest.fixture
def own(tmp_path):
    path = tmp_path / f"{UNIT}.ipynb"
    path.write_text(notebook(RIGHT))
    return path


def check(path, *more, **environment):
    return grader("check", path, "--exercise", "softmax", "--isolation", "portable", *more, **environment)


def test_check_says_what_is_wrong(own):
    done = check(own)
    assert (done.returncode, "5 of 5 points" in done.stdout) == (0, True)
    own.write_text(notebook(NO_SHIFT))
    done = check(own, GRADER_LANG="zh")
    assert done.returncode == 1
    assert "提示" in done.stdout
    own.write_text(notebook(STUB))
    assert "not attempted" in check(own).stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("check", "nothing_like_it"), 2, "no exercise"),
        (("check", "missing/softmax_regression.ipynb"), 2, "there is no file"),
        (("check", "softmaxx"), 2, "did you mean"),
        (("audit", "softmax_regression/softmaxx"), 2, "has no exercise"),
        (("audit", "softmax"), 2, "the exercise is softmax_regression/softmax"),
        (("translate", "fr"), 2, "no such language: 'fr'; there is zh"),
        (("translate", "zh_CN"), 2, "no such language: 'zh_CN'; there is zh"),
        (("translate", "en"), 2, "there is zh"),
        (("hint", "--help"), 0, "Show the hint of this number"),
        (("grade", "missing", "--out", "out"), 2, "not a folder"),
        (("grade", "tests", "--out", "out", "--unit", "nothing"), 2, "there is no unit"),
        (("regrade", "tests/submissions", "--out", "missing"), 2, "no earlier results"),
        (("frobnicate",), 2, "No such command"),
        (("check", "README.md"), 2, "README.md is neither a notebook"),
        (("grade", "tests/submissions", "--out", "README.md", "--exercise", "softmax"), 3, "File exists: README.md"),
        (("grade", "tests/submissions", "--out", "README.md/a", "--exercise", "softmax"), 3, "Not a directory: README"),
        (("hint", "softmax"), 0, "hint"),
        (("status",), 0, "softmax_regression"),
    ],
)
def test_exit_codes_and_plain_words(words, code, said):
    done = grader(*words)
    assert (done.returncode, said in " ".join((done.stdout + done.stderr).split())) == (code, True), done
    assert "Traceback" not in done.stderr


def test_outside_of_a_course_the_fix_is_named(tmp_path):
    done = grader("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "TORCH_DOJO_ROOT" in done.stderr


def test_reset_backs_up_and_restores_the_stub(tmp_path):
    path = tmp_path / f"{UNIT}.ipynb"
    shutil.copy(ROOT / "solutions" / UNIT / f"{UNIT}.ipynb", path)
    before = path.read_bytes()
    done = grader("reset", "softmax", "--submission", path, "--yes")
    assert done.returncode == 0, done
    (backup,) = tmp_path.glob("*.backup.ipynb")
    assert backup.read_bytes() == before
    assert "not attempted" in check(path).stdout
    assert grader("check", path, "--exercise", "accuracy", "--isolation", "portable").returncode == 0


def test_the_pytest_surface_skips_passes_and_fails(tmp_path):
    unit = tmp_path / UNIT
    unit.mkdir()
    source = f"{NO_SHIFT}\n\ndef accuracy(logits, target, *, ignore_index=None):\n    raise NotImplementedError\n"
    (unit / f"{UNIT}.ipynb").write_text(notebook(source))
    words = [sys.executable, "-m", "pytest", "grader/", "--submission", str(tmp_path), "--unit", UNIT, "-q", "-rs"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "1 failed, 6 skipped" in done.stdout
    assert "SKIPPED" in done.stdout
    assert "not attempted" in done.stdout
    assert "hint: Subtract the largest score first" in done.stdout
    assert "grader/judge.py" not in done.stdout
    unknown = subprocess.run([*words, "--exercise", "nothing"], cwd=ROOT, capture_output=True, check=False)
    assert unknown.returncode in (2, 4), "nothing collected is an error"


def test_a_hang_is_reported_within_the_timeout(tmp_path):
    path = hand_in(tmp_path, "x", "import time\ndef softmax(x, dim=-1):\n    time.sleep(100)")
    words = [sys.executable, "-m", "pytest", "grader/", "--submission", str(path), "--exercise", "softmax", "-q"]
    done = subprocess.run([*words, "--timeout", "40"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "did not finish" in done.stdout
    assert "Timeout >" not in done.stdout


def test_the_demo_class_gets_its_grades(tmp_path):
    import json

    done = grader("grade", "tests/submissions", "--out", tmp_path, "--no-timing")
    assert done.returncode == 1
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    found = {(r["student"], r["exercise"]): r for r in rows}
    assert {r["status"] for (s, _), r in found.items() if s in ("ada", "jonas")} == {"passed"}
    assert {r["status"] for (s, _), r in found.items() if s == "chen"} == {"not_attempted"}
    assert {r["status"] for (s, _), r in found.items() if s == "kim"} == {"error"}
    assert sum(r["status"] == "passed" for (s, _), r in found.items() if s == "ben") == 3
    assert found["dana", "softmax"]["misconception"] == "no_shift"
    assert found["iris", "train_softmax"]["misconception"] == "loss_summed"
    assert found["lena", "softmax"]["misconception"] == "one_global_maximum"
    assert found["farid", "softmax"]["points"] == 0
    assert found["farid", "softmax"]["findings"][0]["check"] == "forbidden"
    assert "CPU time" in found["gita", "cross_entropy"]["findings"][0]["message"]
    assert sum(r["status"] == "passed" for (s, _), r in found.items() if s == "gita") == 6
    assert found["hugo", "accuracy"]["points"] == 0
    assert sum(r["status"] == "passed" for (s, _), r in found.items() if s == "hugo") == 6


UNNEEDED = [("grader.learner", "nbformat"), ("grader.pools", "torch"), ("grader.cli", "torch")]


@pytest.mark.parametrize(("module", "slow"), UNNEEDED)
def test_nobody_waits_for_what_is_not_needed(module, slow):
    code = f"import sys, {module}; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("words", [("check", "softmax"), ("grade", ".", "--out", "x"), ("profile", "softmax")])
def test_the_sandbox_is_opened_before_torch_is_imported(words):
    code = (
        "import sys; from grader import pools; pools.begin = lambda level: sys.exit('torch' in sys.modules);"
        f"from grader import cli; sys.argv = ['grader', *{words}]; cli.main()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_command_that_ends_at_once_leaves_no_server_and_no_folder(tmp_path):
    words = [sys.executable, "-c", "from grader.cli import main; main()", "check", "no_such_exercise"]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    assert subprocess.run(words, cwd=ROOT, env=place, check=False, capture_output=True).returncode == 2
    deadline = time.monotonic() + 60
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("option", "value"), [("--isolation", "foo"), ("--device", "tpu")])
def test_an_unknown_level_or_device_is_named(option, value):
    done = grader("check", "softmax", option, value)
    assert done.returncode == 2
    assert f"'{value}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_regrading_a_damaged_file_is_refused_in_words(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"schema": "torch-do', encoding="utf-8")
    done = grader("regrade", "tests/submissions", "--out", tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "does not hold results" in done.stderr


def test_an_error_of_the_system_is_one_sentence(capsys):
    error = OSError("Timed out trying to connect to tcp://localhost:1 after 30 s")  # without number and file
    code = cli.exit_code(error)
    assert code == cli.INFRASTRUCTURE
    with pytest.raises(SystemExit):
        cli.fail(error, code)
    assert capsys.readouterr().err == f"grader: {error}\n"


def test_a_gpu_that_is_missing_is_said_once_below_the_class(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    hand_in(tmp_path / "in", "ann", RIGHT)
    words = ("--exercise", "softmax", "--isolation", "portable", "--device", "cuda")
    done = grader("grade", tmp_path / "in", "--out", tmp_path / "out", *words)
    assert done.returncode == 0
    assert done.stdout.count("there is no CUDA device") == 1
    assert "(1 of 1 exercises)" in done.stdout
