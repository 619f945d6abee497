"""The check cell: a plain float, a readable page, nothing on stderr, nothing left changed."""

import os
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT

import grader
from grader import live
from grader.api import verdict_of
from grader.render.html import html


def softmax(x, dim=-1):
    if not x.is_floating_point():
        raise TypeError
    w = x.exp()
    return w / w.sum(dim, keepdim=True)


@pytest.fixture(autouse=True)
def course(monkeypatch):
    monkeypatch.setenv("TORCH_DOJO_ROOT", str(ROOT))


def test_check_returns_a_float_and_keeps_stderr_clean(capfd):
    before = torch.get_rng_state(), torch.get_num_threads()
    points = grader.check(softmax)
    out, err = capfd.readouterr()
    assert type(points) is float
    assert 0 < points < 5
    assert err == ""
    assert "large scores" in out
    assert "hint: Subtract the largest score first" in out
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_noise_on_file_descriptor_2_is_swallowed(capfd):
    def accuracy(logits, target, *, ignore_index=None):
        os.write(2, b"noise")
        return 0.5

    grader.check(accuracy)
    assert capfd.readouterr().err == ""


def test_an_unknown_function_is_named():
    def no_such_exercise(x):
        return x

    with pytest.raises(ValueError, match="no exercise 'no_such_exercise'"):
        grader.check(no_such_exercise)


def test_a_cell_that_was_run_again_replaces_its_draft(monkeypatch):
    draft = "def softmax(x, dim=-1):\n    return torch.softmax(x, dim)"
    better = "def softmax(x, dim=-1):\n    w = x.exp()\n    return w / w.sum(dim, keepdim=True)"

    class Shell:
        user_ns = {"In": ["", "import torch", draft, "check(softmax)", better]}  # noqa: RUF012

    monkeypatch.setattr(live, "ipython", lambda: Shell)
    assert live.live_program("softmax", None).text == better


def test_hidden_cases_are_counted_but_not_shown(capsys):
    grader.check(softmax, hidden=True)
    shown = capsys.readouterr().out
    hidden = [line for line in shown.splitlines() if "a hidden case" in line]
    assert all("is nan" not in line and "[" not in line.split("(")[0] for line in hidden)


def test_reproduce_makes_the_call_of_a_case():
    assert torch.isnan(grader.reproduce(softmax, "large scores")).any()
    with pytest.raises(ValueError, match="no visible case"):
        grader.reproduce(softmax, "nothing like it")
    with pytest.raises(ValueError, match="did you mean 'large scores'"):
        grader.reproduce(softmax, "large score")


def test_reproduce_without_a_case_lists_them():
    with pytest.raises(ValueError, match=r"has these visible cases: 'a vector', .*'large scores'"):
        grader.reproduce(softmax)


def test_reproduce_takes_a_name(monkeypatch):
    with pytest.raises(ValueError, match="softmax is not defined"):
        grader.reproduce("softmax", "large scores")
    monkeypatch.setattr(live, "live_object", {"softmax": softmax}.get)
    assert torch.isnan(grader.reproduce("softmax", "large scores")).any()


def test_hints_come_one_by_one(capsys):
    for _ in range(4):
        grader.hint(softmax)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:11] for line in lines[:4]] == ["hint 1 of 3", "hint 2 of 3", "hint 3 of 3", "hint 3 of 3"]
    assert lines[4:] == ["there are no more hints"]


def test_html_escapes_what_the_learner_controls():
    def accuracy(logits, target, *, ignore_index=None):
        raise ValueError("<script>alert(1)</script>")

    page = html(verdict_of(accuracy))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_reference_stands_in_for_earlier_exercises():
    scope = {"torch": torch}
    exec("def log_softmax(x, dim=-1):\n    return x * 0\n", scope)
    exec(
        "def label_smoothing_loss(logits, target, eps):\n"
        "    if not 0 <= eps <= 1: raise ValueError\n"
        "    return log_softmax(logits, -1)\n",
        scope,
    )
    mine = scope["log_softmax"]
    grader.check(scope["label_smoothing_loss"])
    assert scope["log_softmax"] is mine


def test_importing_grader_is_quick():
    code = "import time, torch; t = time.process_time(); import grader; grader.check; print(time.process_time() - t)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 0.5


def test_a_check_takes_less_than_half_a_second():
    grader.api.verdict_of(softmax)
    times = []
    for seed in range(5):
        start = time.process_time()
        grader.api.verdict_of(softmax, seed=seed)
        times.append(time.process_time() - start)
    assert sorted(times)[2] < 2.0, "record, run, judge and recognise together"
