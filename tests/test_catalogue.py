"""The course in Chinese: no text is missing, code stays code, and a text that changes is not said in old words."""

import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from babel.messages.pofile import read_po, write_po
from helpers import ROOT

from grader.catalogue import catalogue, entries, missing, place, spoken, stale, texts
from grader.course import Course, load_course
from grader.render import messages
from grader.render.results import row
from grader.render.text import text
from grader.verdict import Verdict

COURSE = load_course(ROOT)
CODE = re.compile(r"`[^`]+`|[A-Za-z]\w*(?:\.\w+)+|[A-Za-z]+_\w+")
FORMULA = re.compile(r"\$\$.+?\$\$|\$.+?\$", re.DOTALL)


@pytest.mark.parametrize("unit", COURSE.unit_names)
def test_every_text_is_translated_and_the_catalogue_is_fresh(unit):
    assert list(stale(COURSE, [unit], "zh")) == [], "run: grader translate zh"
    assert list(missing(COURSE, [unit], "zh")) == []
    with place(COURSE, unit, "zh").open("rb") as file:
        found = spoken(read_po(file))
    for english, where in texts(COURSE.unit(unit)):
        chinese = found[english]
        assert re.search(r"[\u4e00-\u9fff]|[。；]", chinese) or chinese == english, where
        words = FORMULA.sub("", english)
        assert [code for code in CODE.findall(words) if code.rstrip(".") not in chinese] == [], where
        assert formulas(chinese) == formulas(english), where


def formulas(text):
    """Return the formulas of a text, without the words and the blanks in them."""
    return sorted(re.sub(r"\\text\{[^}]*\}|\s", "", formula) for formula in FORMULA.findall(text))


def test_hints_follow_the_language(monkeypatch):
    wrong = next(w for w in COURSE.find("softmax")[1].wrongs if w.name == "no_shift")
    verdict = Verdict("softmax", "softmax", "failed", 0.0, 5, misconception=wrong.name, hint=wrong.hint)
    monkeypatch.setenv("GRADER_LANG", "zh")
    said = row(verdict, "ann", "softmax_regression", None)["hint"]
    assert said.startswith("要先减去最大的分数")
    assert said in text(verdict)
    assert messages.hint_text(1, (wrong.hint,)).endswith(said)
    monkeypatch.setenv("GRADER_LANG", "en")
    assert row(verdict, "ann", "softmax_regression", None)["hint"] == wrong.hint
    unknown = replace(verdict, hint="A hint that nobody has translated {yet}.")
    monkeypatch.setenv("GRADER_LANG", "zh")
    assert "A hint that nobody has translated {yet}." in text(unknown)


def test_a_text_that_changes_is_marked_and_not_used(tmp_path, monkeypatch):
    shutil.copytree(COURSE.locales, tmp_path / "locale")
    monkeypatch.setattr(Course, "locales", tmp_path / "locale")
    path = place(COURSE, "regularization", "zh")
    unit = COURSE.unit("regularization")
    english, where = next(texts(unit))
    known = catalogue(path, unit, "zh")
    known.add(english.replace("sums", "totals"), "旧的说法")
    known.delete(english)
    data = io.BytesIO()
    write_po(data, known)
    path.write_bytes(data.getvalue())
    changed = catalogue(path, unit, "zh")
    assert changed.get(english).string == "旧的说法"
    assert changed.get(english).fuzzy
    assert english not in spoken(changed)
    assert list(missing(COURSE, ["regularization"], "zh")) == [("regularization", where)]
    assert [p.name for p, _ in stale(COURSE, ["regularization"], "zh")] == ["regularization.po", "regularization.mo"]
    for name, content in stale(COURSE, ["regularization"], "zh"):
        name.write_bytes(content)
    assert list(stale(COURSE, ["regularization"], "zh")) == []
    assert entries(catalogue(path, unit, "zh")) == entries(changed)


def test_the_command_writes_compiles_and_lists_what_is_left(tmp_path):
    def translate(*words):
        code = f"import sys; sys.argv = ['grader', 'translate', 'zh', *{words}]; from grader.cli import main; main()"
        place = os.environ | {"TORCH_DOJO_ROOT": str(tmp_path)}
        return subprocess.run([sys.executable, "-c", code], env=place, text=True, capture_output=True, check=False)

    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "reference", tmp_path / "reference", ignore=shutil.ignore_patterns("__pycache__"))
    assert translate("--check").returncode == 0
    shutil.rmtree(tmp_path / "reference" / "locale")
    asked = translate("--unit", "rnn", "--check")
    assert asked.returncode == 1
    assert "stale: reference/locale/zh/LC_MESSAGES/rnn.po" in asked.stdout
    assert not (tmp_path / "reference" / "locale").exists()
    made = translate("--unit", "rnn")
    assert "not translated: rnn: rnn_scan, hint 1" in made.stdout
    assert (tmp_path / "reference" / "locale" / "zh" / "LC_MESSAGES" / "rnn.mo").exists()
    assert "stale" not in translate("--unit", "rnn", "--check").stdout
