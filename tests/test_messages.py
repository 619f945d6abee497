"""Sentences in English and Chinese: no key is missing, and every placeholder is there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from helpers import ROOT

import grader
from grader.catalogue import spoken
from grader.render.html import html
from grader.render.messages import SENTENCES, place, said, sentence
from grader.render.text import HIDDEN, text
from grader.sandbox.errors import death
from grader.submission import SubmissionError, parse
from grader.verdict import CHECKS, Finding, Verdict

PACKAGE = Path(grader.__file__).parent
FOLDER = PACKAGE / "locale" / "zh" / "LC_MESSAGES"
TEXTS = sorted({found[2] for found in extract_from_dir(PACKAGE, [("**.py", "python")], keywords={"N_": None})})


@pytest.fixture(scope="module")
def chinese():
    with (FOLDER / "grader.po").open("rb") as file:
        return read_po(file)


def placeholders(message):
    return set(re.findall(r"{(\w+)", message))


@pytest.mark.parametrize("message", TEXTS)
def test_every_text_is_translated_with_its_placeholders(message, chinese):
    found = chinese.get(message)
    assert found is not None, "add it to grader.po"
    assert found.string
    assert placeholders(found.string) == placeholders(message)


def test_nothing_obsolete_is_translated(chinese):
    assert {message.id for message in chinese if message.id} == set(TEXTS)


def test_the_compiled_catalogue_is_fresh(chinese):
    with (FOLDER / "grader.mo").open("rb") as file:
        assert spoken(read_mo(file)) == spoken(chinese), "run: pybabel compile -d grader/locale -D grader"


def used_kinds():
    """Kinds of findings that appear as literals where findings are made."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("finding", "Finding"):
                yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def test_every_kind_that_is_used_has_a_sentence():
    checks = {"cost", "growth"}
    kinds = {kind for kind in used_kinds() if "_" in kind and kind not in checks}
    assert kinds
    assert kinds <= set(SENTENCES)


FINDING = Finding("shape", "shape", "a case", {"path": "result", "got": (2, 3), "wanted": (3, 2), "variant": "double"})


def test_the_language_follows_the_environment(monkeypatch):
    monkeypatch.setenv("GRADER_LANG", "zh")
    assert sentence(FINDING) == "result 的形状是 (2, 3)，应为 (3, 2)"
    assert "float64" in text(Verdict("f", "f", "failed", 0.0, 5, (FINDING,)))
    monkeypatch.setenv("GRADER_LANG", "en")
    assert sentence(FINDING) == "result has shape (2, 3), wanted (3, 2)"


@pytest.mark.parametrize("encoding", ["cp936", "ascii", "cp1252"])
def test_a_narrow_console_prints_everything(encoding, monkeypatch):
    monkeypatch.setenv("GRADER_LANG", "zh" if encoding == "cp936" else "en")
    page = text(Verdict("f", "f", "failed", 0.0, 5, (FINDING,)))
    assert page.encode(encoding).decode(encoding) == page


def test_telling_messages_needs_no_torch():
    code = "import sys, grader.render.terminal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_numbers_that_read_the_same_get_more_digits():
    facts = {"path": "result", "index": [0], "got": 0.3000321, "wanted": 0.3000322, "error": 3e-7, "limit": 1e-9}
    said = sentence(Finding("values", "values", "a case", facts))
    assert "is 0.3000321, wanted 0.3000322" in said


def wrong(number, check):
    return Finding(check, "not_raised" if check == "errors" else "no_gradient", f"case {number}",
                   {"path": f"x{number}", "wanted": "ValueError"})  # fmt: skip


def test_few_cases_are_shown_one_of_each_check_first():
    many = [wrong(n, "errors") for n in range(5)] + [wrong(n, "gradients") for n in range(5, 8)]
    page = text(Verdict("f", "f", "failed", 0.0, 5, tuple(many)))
    assert [f"case {n}:" in page for n in range(8)] == [True, True, False, False, False, True, False, False]
    assert "and 5 more cases" in page
    page = text(Verdict("f", "f", "failed", 0.0, 5, tuple(many[:4])))
    assert all(f"case {n}:" in page for n in range(4))
    assert "more cases" not in page


def test_a_hidden_case_is_told_in_words_of_its_own():
    page = text(Verdict("f", "f", "failed", 0.0, 5, (Finding("finite", "nan", "secret numbers", hidden=True),)))
    assert "nan or inf stand where they should not" in page


def test_of_a_hidden_case_every_check_can_be_told():
    assert set(HIDDEN) == set(CHECKS)


def test_a_place_is_a_cell_or_a_file(monkeypatch):
    assert place("<cell 8>", 3) == "cell 8, line 3"
    assert place("<cell mine_2.py>", 3) == "mine_2.py, line 3"
    monkeypatch.setenv("GRADER_LANG", "zh")
    assert place("<cell 8>", 3) == "第 8 个代码单元格，第 3 行"


ENGLISH = re.compile(r"[A-Za-z]+ [A-Za-z]+")


def test_a_chinese_verdict_is_chinese_throughout(monkeypatch):
    monkeypatch.setenv("GRADER_LANG", "zh")
    facts = {"text": said(death(0, 0.0, 1.0, ""))}
    finding = Finding("runs", "worker_exit", "", facts, trace=(("<cell 8>", 3, "cross_entropy"),))
    verdict = Verdict("f", "f", "partly", 2.36, 8, (finding,), untested=("nothing was handed in",))
    page = text(verdict)
    assert page.startswith("f：部分正确，2.36 分（满分 8 分）\n  - 代码：")
    assert "第 8 个代码单元格，第 3 行，在 cross_entropy 中" in page
    assert not ENGLISH.search(page)
    shown = re.sub("<[^>]*>", "", html(verdict))
    assert "没有提交任何文件" in shown
    assert "第 3 行，在 cross_entropy 中" in shown


@pytest.mark.parametrize("data", [b"\xff\xfe", b"{", b"[]", b'{"worksheets": []}', b" " * 300_000])
def test_what_is_wrong_with_a_file_is_told_in_chinese(data, monkeypatch):
    monkeypatch.setenv("GRADER_LANG", "zh")
    with pytest.raises(SubmissionError) as caught:
        parse(data, "a.py" if data.startswith(b" ") else "a.ipynb")
    assert str(caught.value).startswith(("a.py ", "a.ipynb "))
    assert not ENGLISH.search(str(caught.value))
