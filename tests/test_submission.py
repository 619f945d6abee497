"""Reading what learners hand in: damaged, renamed, oversized, linked files; slicing out one exercise."""

import json
import os
import time

import pytest

from grader.submission import MAX_BYTES, MAX_CELLS, SubmissionError, load_program, parse, read, read_regular


def notebook(*sources, **extra):
    cells = [{"cell_type": "code", "source": s, "metadata": {}, "outputs": []} for s in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **extra}).encode()


def program(name, *sources, provided=()):
    return parse(notebook(*sources), "a.ipynb").program(name, provided)


def run(name, *sources):
    return load_program(program(name, *sources))


def test_only_what_is_needed_is_kept():
    found = program(
        "f", "import math, torch", "A = 1\nB = 2", "def f(x):\n    return x + A + math.floor(0)", "print(f(1))\n1 / 0"
    )
    assert "B" not in found.text
    assert "print" not in found.text
    assert "torch" in found.text  # on one line with what might be needed
    assert load_program(found)(1) == 2


def test_local_names_are_not_looked_up_in_the_notebook():
    sources = ["X = 1 / 0", "def f(n):\n    X = n + 1\n    return [y for y in range(X)]", "y = undefined"]
    assert run("f", *sources)(1) == [0, 1]


def test_names_used_by_methods_and_decorators_are_needed():
    sources = ["import functools", "A = 2", "class f:\n    @functools.cache\n    def g(self, n):\n        return n * A"]
    assert run("f", *sources)().g(3) == 6


def test_the_last_definition_wins():
    assert run("f", "def f(): return 1", "def f(): return 2")() == 2


def test_a_redefinition_may_build_on_the_first():
    assert run("f", "def f(): return 1", "g = f", "def f(): return g() + 1")() == 2
    assert run("f", "def double(h):\n    return lambda: 2 * h()", "def f(): return 3", "f = double(f)")() == 6


def test_a_draft_counts_for_nothing_once_it_is_written_anew():
    draft = "def f(x):\n    return helper(torch.softmax(x, 0))"
    helper = "def helper(x): return x.norm()"
    found = program("f", "import torch", helper, draft, "print(f(torch.ones(2)))", "def f(x):\n    return x")
    assert found.text == "def f(x):\n    return x"
    assert run("f", "def f(x: Unknown): return 1", "def f(x): return 2")(0) == 2
    assert run("f", "STEP = missing()", "STEP = 2", "def f(): return STEP")() == 2
    assert run("f", "def f(n): return 0", "f.calls = 1", "def f(n): return f(n - 1) if n else 5")(2) == 5


@pytest.mark.parametrize(
    "cells",
    [
        ["def f(): return 3", "def g(): return f()", "TABLE = [g()]", "def f(): return TABLE[0]"],
        ["N = 3", "class A:\n    size = N", "N = 9", "def f(): return A.size"],
        ["N = 3", "def g(n=N): return n", "N = 9", "def f(): return g()"],
        ["def make(n): return lambda: n", "f = make(3)", "def make(n): return None"],
        [
            "def f(): return 3",
            "def keep(g):\n    g.old = f\n    return g",
            "@keep\ndef g(): return g.old()",
            "def f(): return g()",
        ],
        ["N = 3", "if N > 2:\n    def f(): return 3", "N = 9"],
    ],
    ids=["called in between", "class body", "default", "maker", "decorator", "condition"],
)
def test_what_was_looked_at_before_it_was_replaced_stays(cells):
    assert run("f", *cells)() == 3


def test_star_imports_and_setattr_are_kept():
    assert run("f", "from math import *", "def f(): return floor(3.5)")() == 3
    assert (
        run(
            "f", "class A: pass", "def size(self): return 3", "setattr(A, 'size', size)", "def f(): return A().size()"
        )()
        == 3
    )


def test_calls_that_fill_a_table_are_kept():
    fill = "def fill(**given):\n    TABLE.update(given)"
    count = "def count():\n    global N\n    N = N + 1"
    assert run("f", "TABLE = {}", fill, "fill(n=3)", "def f(): return TABLE['n']")() == 3
    assert run("f", "N = 2", count, "count()", "def f(): return N")() == 3
    assert run("f", "TABLE = {}", "_ = TABLE.setdefault('n', 3)", "def f(): return TABLE['n']")() == 3
    seed = "def seed():\n    torch.manual_seed(0)"
    assert "seed" not in program("f", "import torch", seed, "seed()", "def f(x): return torch.exp(x)").text
    tests = "def tests(n):\n    seen = []\n    seen.append(f(n))\n    1 / 0"
    assert run("f", "def f(n): return n", tests, "tests(3)")(3) == 3


def test_a_dataclass_finds_its_module():
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    n: int = 3"
    )
    assert run("f", source, "def f(): return A().n")() == 3


def test_many_cells_take_no_time():
    cells = [f"a{n} = {n}" for n in range(1900)]
    before = time.process_time()
    program("f", *cells, "def f(): return [" + ", ".join(f"a{n}" for n in range(1900)) + "]")
    assert time.process_time() - before < 10


def test_methods_added_later_belong_to_the_class():
    source = ["class A: pass", "def size(self): return 3", "A.size = size"]
    assert run("A", *source)().size() == 3


def test_patches_of_modules_are_left_out():
    found = program("f", "import torch", "torch.allclose = lambda *a: True", "def f(x): return torch.exp(x)")
    assert "allclose" not in found.text


def test_other_broken_cells_do_no_harm():
    assert run("f", "def broken(:", "def f(): return 1")() == 1


def test_the_broken_cell_of_the_exercise_is_named():
    found = program("f", "x = 1", "def f(x):\n    return (")
    assert not found.found
    assert "cell 2" in found.broken
    assert "line 2" in found.broken


def test_line_numbers_stay_true():
    found = program("f", "x = 1", "\n\ndef helper(): pass\n\ndef f():\n    return helper")
    label, text = found.parts[0]
    assert label == "<cell 2>"
    assert text.split("\n")[4] == "def f():"


@pytest.mark.parametrize(
    "source",
    ["%matplotlib inline\ndef f(): return 1", "!pip install x\ndef f(): return 1", "%%time\ndef f(): return 1",
     "def f(): return 1\nf?\n?f", "files = !ls\ndef f(): return 1"],
)  # fmt: skip
def test_magics_are_stripped(source):
    assert run("f", source)() == 1


@pytest.mark.parametrize("kind", ["a.py", "a.ipynb"])
def test_lines_that_begin_like_a_magic_are_left_alone_in_python(kind):
    source = "def f(n):\n    if (n\n        != 1):\n        return ('%d'\n                % n)\n    return None"
    data = source if kind == "a.py" else notebook(source)
    assert load_program(parse(data if isinstance(data, bytes) else data.encode(), kind).program("f"))(2) == "2"


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_other_line_ends(end):
    assert load_program(parse(f"K = 1{end}def f():{end}    return K".encode(), "a.py").program("f"))() == 1


@pytest.mark.parametrize(
    "source",
    [
        "T = {}\nT['k'] = 1\ndef f(): return T['k']",
        "T = []\nT.append(1)\ndef f(): return T[0]",
        "T = {}\nfor k in 'ab':\n    T[k] = 1\ndef f(): return T['b']",
        "T = {}\nif True:\n    T['k'] = 1\ndef f(): return T['k']",
        "T = [2]\nT[0] -= 1\ndef f(): return T[0]",
        "T = {'k': 0, 'j': 1}\ndel T['k']\ndef f(): return len(T)",
    ],
)
def test_statements_that_change_what_is_needed_belong_to_it(source):
    assert run("f", source)() == 1


@pytest.mark.parametrize(
    "source",
    [
        "if __name__ == '__main__':\n    f.tested = 1 / 0\ndef f(): return 1",
        "def f(): return 1\nif f() == 1:\n    f.tested = 1 / 0",
        "def f(): return 1\ntry:\n    f.seen = undefined\nfinally:\n    pass",
    ],
)
def test_tests_of_an_answer_do_not_belong_to_it(source):
    assert run("f", source)() == 1


def test_a_helper_that_is_registered_belongs_to_the_registry():
    registry = "class R:\n    def add(self, g): self.g = g; return g\nr = R()"
    source = f"{registry}\n@r.add\ndef g(): return 1\ndef f(): return r.g()"
    assert run("f", source)() == 1


def test_statements_on_one_line_stay_whole():
    assert run("f", 'K = 1; NOTE = """\nabc"""; L = """\n"""\ndef f(): return K')() == 1


def test_numbers_of_thousands_of_digits_are_read():
    assert program("f", f"K = 0x{'f' * 5000}\ndef f(): return K").found


@pytest.mark.parametrize(
    "source",
    [
        "\n" * 100_000 + "(",
        "from grader import a" + " " * 100_000 + "X",
        "def f(): return 1\n" + "\n".join(f"a{n} = a{n + 1}" for n in range(12_000)),
    ],
)
def test_reading_takes_no_longer_than_the_source_is_long(source):
    start = time.process_time()
    program("f", source)
    program("a0", source)
    assert time.process_time() - start < 10  # quadratic reading takes minutes


def test_a_book_of_code_is_refused():
    with pytest.raises(SubmissionError, match="characters of code"):
        parse(b"x = 1\n" * 100_000, "a.py")


@pytest.mark.parametrize("kind", ["code", "markdown"])
def test_a_notebook_of_thousands_of_cells_is_refused(kind):
    cells = [{"cell_type": kind, "source": "x", "metadata": {}}] * MAX_CELLS
    parse(json.dumps({"cells": cells}).encode(), "a.ipynb")
    data = json.dumps({"cells": [*cells, cells[0]]}).encode()
    with pytest.raises(SubmissionError, match=r"has 2,001 cells; the limit is 2,000"):
        parse(data, "a.ipynb")
    parse(data, "a.ipynb", bounded=False)


def test_cells_in_other_languages_are_empty():
    assert not program("f", "%%bash\ndef f(): return 1").found


def test_check_cells_hold_no_learner_code():
    cells = [
        {"cell_type": "code", "source": "def f(): return 'learner'", "metadata": {}},
        {"cell_type": "code", "source": "check(f)", "metadata": {}},
        {"cell_type": "code", "source": "def f(): return 'tampered'",
         "metadata": {"nbgrader": {"grade": True, "solution": False, "grade_id": "check_f"}}},
    ]  # fmt: skip
    found = parse(json.dumps({"cells": cells}).encode(), "a.ipynb").program("f")
    assert load_program(found)() == "learner"


def test_cells_of_another_type_or_role_still_hold_the_answer():
    cells = [
        {"cell_type": "raw", "source": "def f(): return 'f'",
         "metadata": {"nbgrader": {"grade": False, "solution": True, "cell_type": "code", "grade_id": "f"}}},
        {"cell_type": "code", "source": "def g(): return 'g'",
         "metadata": {"nbgrader": {"grade": True, "solution": False, "grade_id": "g"}}},
        {"cell_type": "markdown", "source": "def f(): return 'an essay'",
         "metadata": {"nbgrader": {"grade": True, "solution": True, "cell_type": "markdown", "grade_id": "essay"}}},
    ]  # fmt: skip
    found = parse(json.dumps({"cells": cells}).encode(), "a.ipynb")
    assert [load_program(found.program(name))() for name in "fg"] == ["f", "g"]


def test_provided_names_are_left_to_the_reference():
    found = program("g", "def f(): return 'wrong'", "def g(): return f()", provided=("f",))
    assert load_program(found, [("<f>", "def f(): return 'right'")])() == "right"


def test_imports_from_the_course_are_dropped():
    found = program("f", "from grader import check\nfrom reference.x import y", "def f(): return check")
    assert "import" not in found.text


def test_what_the_setup_cell_provides_is_left_to_the_grader():
    found = program("g", 'f = provided("f")', "def f(): return 5", "def g(): return f()")
    assert load_program(found)() == 5


def test_a_plain_file_is_one_cell():
    assert load_program(parse(b"def f():\n    return 5\n", "unit.py").program("f"))() == 5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "valid JSON"),
        (b"[]", "no list of cells"),
        (b'{"cells": 3}', "no list of cells"),
        ("x = 'ä'".encode("latin-1"), "UTF-8"),
        (b"[" * 200_000, "valid JSON"),
    ],
)
def test_damaged_files_have_a_clear_error(data, reason):
    with pytest.raises(SubmissionError, match=reason):
        parse(data, "a.ipynb")


def test_odd_cells_are_passed_over():
    cells = [3, {"cell_type": "code"}, {"cell_type": "code", "source": 7}, {"cell_type": "code", "source": ["a = 1\n"]}]
    assert parse(json.dumps({"cells": cells}).encode(), "a.ipynb").program("a").found


def test_links_devices_and_large_files_are_refused(tmp_path):
    real = tmp_path / "real.py"
    real.write_text("x = 1")
    link = tmp_path / "link.py"
    link.symlink_to(real)
    with pytest.raises(SubmissionError, match="cannot be opened"):
        read(link)
    os.link(real, tmp_path / "hard.py")
    with pytest.raises(SubmissionError, match="hard link"):
        read(tmp_path / "hard.py")
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(SubmissionError, match="ordinary"):
        read(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(SubmissionError, match="ordinary"):
        read(tmp_path / "folder.py")
    large = tmp_path / "large.py"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SubmissionError, match="limit"):
        read_regular(large)
    with pytest.raises(SubmissionError, match="cannot be opened"):
        read(tmp_path / "missing.py")


def test_an_old_notebook_is_named_as_such():
    data = json.dumps({"metadata": {}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": []}]}).encode()
    with pytest.raises(SubmissionError, match="old format"):
        parse(data, "a.ipynb")
