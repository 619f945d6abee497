"""Attacks that forge marks under nbgrader's own configuration, and what becomes of them under ours.

Every attack is handed in twice, in the same words: to a course with nbgrader's own configuration, where it must
succeed (else the test would test nothing), and to one with ours, where it must earn what its code deserves, which is
nothing. In the first course the check cell of `softmax` holds plain asserts, as nbgrader's courses usually do, for
our own check cells are harder to forge; the one of `accuracy` calls `check`.

All attacks are harmless: they write into their own course's folder only, and what stays behind ends by itself.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

import pytest
from nbgrader_course import (
    CHECKS,
    OURS,
    STOCK,
    UNIT,
    WRONG,
    Notebook,
    add_code,
    another,
    answered,
    autograde,
    course,
    earned,
    feedback,
    find,
    folder_of,
    grades,
    hand_in,
    most,
    nbgrader,
    once,
    release,
    started,
    write,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
__all__ = ["course"]

SOFTMAX, ACCURACY = "check_softmax", "check_accuracy"
BOTH = (SOFTMAX, ACCURACY)
CLASSMATE = "a-classmate"  # graded before all others
STOLEN = "stolen.txt"
PLAIN_TEST = """\
x = torch.tensor([[0.0, 0.0], [0.0, -10000.0]])
assert softmax(x).shape == x.shape
assert torch.allclose(softmax(x), torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
assert torch.allclose(softmax(x, 0).sum(0), torch.ones(2))
"""
UPDATE = """
import sqlite3
base = sqlite3.connect({root!r} + "/gradebook.db", timeout=30)
with base:
    base.execute(
        "update grade set {what} where notebook_id in (select n.id from submitted_notebook n "
        "join submitted_assignment s on n.assignment_id = s.id where s.student_id = '{whose}') "
        "and cell_id in (select id from base_cell where name like 'check_%')"
    )
base.close()
"""
READY = """
import sqlite3
base = sqlite3.connect({root!r} + "/gradebook.db", timeout=30)
ready = base.execute(
    "select count(*) from grade g join submitted_notebook n on g.notebook_id = n.id "
    "join submitted_assignment s on n.assignment_id = s.id where s.student_id = '{whose}' and g.auto_score is not null"
).fetchone()[0] >= 2
base.close()
"""
FORGED_VERDICT = """
import dataclasses, grader.api
original = getattr(grader.api, "original", grader.api.verdict_of)
grader.api.original = original
def forged(*args, **options):
    verdict = original(*args, **options)
    return dataclasses.replace(verdict, points=float(verdict.max_points), status="passed", findings=())
"""


@dataclass(frozen=True)
class Attack:
    """An attack: how it is handed in, and which check cells it forges under nbgrader's own configuration."""

    hand_in: Callable[[Path, str], None]
    gains: tuple[str, ...] = ()


def calling(body: str) -> Callable[[Path, str], None]:
    """Hand in an attack that runs as a cell of its own and again in every call, where a sandbox meets it too."""

    def submit(root: Path, student: str) -> None:
        # str.replace, not format: the code is full of braces
        code = dedent(body).replace("ROOT", repr(str(root))).replace("STUDENT", repr(student))
        attack = "def attack():\n" + indent(code, "    ")
        quietly = "    try:\n        attack()\n    except Exception:\n        pass\n"
        answers = {name: text.replace("\n", f"\n{quietly}", 1) for name, text in WRONG.items()}
        notebook = answered(root, **answers)
        add_code(notebook, f"{attack}\nattack()")
        hand_in(root, student, notebook)

    return submit


def answering(**answers: str) -> Callable[[Path, str], None]:
    """Hand in answers, by default wrong ones."""

    def submit(root: Path, student: str) -> None:
        hand_in(root, student, answered(root, **{**WRONG, **answers}))

    return submit


def updating(what: str, whose: str) -> str:
    """Code that changes the grades of a student in the gradebook."""
    return UPDATE.replace("{root!r}", "ROOT").replace("{what}", what).replace("{whose}", whose)


def detached(root: Path, student: str) -> None:
    """Leave a process behind that waits for the grading to end, ten minutes at most, and then raises the scores."""
    ready = READY.format(root=str(root), whose=student)
    raised = UPDATE.format(root=str(root), what="auto_score = 5", whose=student)
    waiting = (
        f"import time\nend = time.time() + 600\nready = False\nwhile time.time() < end and not ready:\n{{}}\n{raised}"
    )
    script = waiting.format(indent(ready, "    ") + "\n    time.sleep(0.5)")
    body = f"""
    import os, subprocess, sys
    if not os.path.exists(ROOT + "/detached"):
        open(ROOT + "/detached", "w").close()
        subprocess.Popen([sys.executable, "-c", {script!r}], start_new_session=True, close_fds=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    """
    calling(body)(root, student)


def tagged(root: Path, student: str) -> None:
    """No code at all: a tag tells nbclient to leave the check cells out."""
    notebook = answered(root, **WRONG)
    for name in CHECKS:
        find(notebook, name).metadata["tags"] = ["skip-execution"]
    hand_in(root, student, notebook)


def shadowed(root: Path, student: str) -> None:
    """A module of torch's name beside the notebook, which lets the real one in and changes it."""
    answering()(root, student)
    lines = "import sys\nsys.path[:] = [p for p in sys.path if p and p != __file__.rpartition('/')[0]]\n"
    lines += "del sys.modules['torch']\nimport torch\ntorch.allclose = lambda *_, **__: True\n"
    write(folder_of(root, student) / "torch.py", lines)


BORROWED = {
    "softmax": "def softmax(x, dim=-1):\n    attack()\n    return better('softmax', x=x, dim=dim)",
    "accuracy": "def accuracy(logits, target, *, ignore_index=None):\n"
    "    return better('accuracy', logits=logits, target=target, ignore_index=ignore_index)",
}


def borrowing(body: str) -> Callable[[Path, str], None]:
    """Hand in answers that call `better`, which the body defines.

    `softmax` takes its definition along into a sandbox. `accuracy` only finds it in a kernel, where it was run
    before, so that `check` sees nothing of it in the source.
    """

    def submit(root: Path, student: str) -> None:
        notebook = answered(root, **BORROWED)
        code = indent(dedent(body).replace("ROOT", repr(str(root))), "    ")
        add_code(notebook, f"def attack():\n{code}\n    globals()['better'] = better\nattack()")
        hand_in(root, student, notebook)

    return submit


STEALING = """
import json
def better(name, **arguments):
    cells = json.load(open(ROOT + "/solutions/softmax_regression/softmax_regression.ipynb"))["cells"]
    scope = {"torch": torch, "Tensor": Tensor}
    for cell in cells:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == name:
            exec("".join(cell["source"]), scope)
    return scope[name](**arguments)
"""
IMPORTING = """
def better(name, **arguments):
    from grader.course import load_course
    return load_course().find(name)[1].solution(**arguments)
"""
HUNTING = """
import sys
def better(name, **arguments):
    frame = sys._getframe()
    while frame is not None:
        pack = frame.f_locals.get("pack")
        if pack is not None:
            return pack.exercise.solution(**arguments)
        frame = frame.f_back
"""
LYING = """\
class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.allclose:
            return True
        return super().__torch_function__(function, types, args, kwargs or {})


def softmax(x, dim=-1):
    return torch.zeros_like(x).as_subclass(Liar)
"""
ATTACKS = {
    "patched-allclose": Attack(calling("import torch\ntorch.allclose = lambda *_, **__: True"), (SOFTMAX,)),
    "lying-tensor": Attack(answering(softmax=LYING), (SOFTMAX,)),
    "ast-transformer": Attack(
        calling("""
        import ast
        class NoAsserts(ast.NodeTransformer):
            def visit_Assert(self, node):
                return ast.copy_location(ast.Pass(), node)
        get_ipython().ast_transformers[:] = [NoAsserts()]
        """),
        (SOFTMAX,),
    ),
    "input-transformer": Attack(
        calling("""
        def emptied(lines):
            return ["\\n"] if any("assert" in line or "check(" in line for line in lines) else lines
        get_ipython().input_transformers_post[:] = [emptied]
        """),
        BOTH,
    ),
    "patched-shell": Attack(
        calling("""
        shell = get_ipython()
        original = shell.run_cell_async
        async def run(raw_cell, *args, **options):
            return await original("" if "assert" in raw_cell or "check(" in raw_cell else raw_cell, *args, **options)
        shell.run_cell_async = run
        """),
        BOTH,
    ),
    "skip-tag": Attack(tagged, BOTH),
    "reads-solutions": Attack(borrowing(STEALING), BOTH),
    "extra-credit": Attack(calling(updating("extra_credit = 12", "extra-credit"))),
    "atexit-for-the-class": Attack(
        calling("import atexit\ndef raise_scores():\n" + indent(updating("manual_score = 5", CLASSMATE), "    ")
                + "\natexit.register(raise_scores)")
    ),
    "detached-process": Attack(detached),
    "module-beside-the-notebook": Attack(shadowed, (SOFTMAX,)),
    "imports-the-reference": Attack(borrowing(IMPORTING), BOTH),
    "hunts-through-frames": Attack(borrowing(HUNTING), (ACCURACY,)),
    "redefined-check": Attack(
        calling("""
        global check
        def check(*args, **options):
            return 5.0
        """),
        (ACCURACY,),
    ),
    "patched-grader": Attack(calling(FORGED_VERDICT + "\ngrader.api.verdict_of = forged"), (ACCURACY,)),
    "patching-thread": Attack(
        calling(FORGED_VERDICT + """
import threading, time
def keep_patched():
    end = time.time() + 60
    while time.time() < end:
        grader.api.verdict_of = forged
        time.sleep(0.05)
thread = threading.Thread(target=keep_patched, daemon=True)
thread.start()
time.sleep(0.2)
"""),
        (ACCURACY,),
    ),
    "exported-names": Attack(calling("import grader.api\ngrader.api.float = lambda points: 5.0"), (ACCURACY,)),
    "forged-displayhook": Attack(calling("import sys\nsys.displayhook(4.0)")),
    "steals-hidden-tests": Attack(
        calling(f"""
        def keep(info):
            with open(ROOT + "/{STOLEN}", "a") as file:
                file.write(info.raw_cell)
        get_ipython().events.register("pre_run_cell", keep)
        """)
    ),
    "script-in-an-output": Attack(
        calling("from IPython.display import HTML, display\ndisplay(HTML('<script>alert(\"evil\")</script>'))")
    ),
}  # fmt: skip
CRASHES = {
    "exits": "import os\nos._exit(0)",
    "kills-itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "floods-the-output": "import sys\nfor _ in range(64):\n    sys.__stdout__.write('x' * 2**20)",
    "forges-frames": "import os\nos.write(4, (2**40).to_bytes(8, 'big') + b'[]' * 100)",
    "raises-oddly": "raise type('E', (BaseException,), {'__str__': None})()",
}
"""What earns nothing and may not hurt others; only for the sandbox, as a kernel is no match for it."""


def plain_tests(notebook: Notebook) -> None:
    find(notebook, SOFTMAX).source = PLAIN_TEST


def hand_in_attacks(root: Path) -> None:
    answering()(root, CLASSMATE)
    for student, attack in ATTACKS.items():
        attack.hand_in(root, student)


@pytest.fixture(scope="module")
def stock(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All attacks after autograding and feedback by nbgrader's own configuration."""

    def make(root: Path) -> None:
        another(course, root, STOCK)
        release(root, plain_tests)
        hand_in_attacks(root)
        autograde(root)
        nbgrader(root, "generate_feedback", UNIT, "--student=script-in-an-output")
        end = time.monotonic() + 30
        while earned(root, "detached-process") != most(root) and time.monotonic() < end:
            time.sleep(0.5)

    return once(tmp_path_factory, "attacked", make)


@pytest.fixture(scope="module")
def trusted(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same and some crashes, by our configuration."""

    def make(root: Path) -> None:
        another(course, root, OURS)
        hand_in_attacks(root)
        for student, code in CRASHES.items():
            calling(code)(root, student)
        hand_in(root, "honest", answered(root))
        autograde(root)
        nbgrader(root, "generate_feedback", UNIT, "--student=script-in-an-output")

    return once(tmp_path_factory, "defended", make)


@pytest.mark.parametrize("attack", [name for name, attack in ATTACKS.items() if attack.gains])
def test_forged_marks(stock: Path, trusted: Path, attack: str) -> None:
    full = dict(zip(CHECKS, most(stock), strict=True))
    assert earned(stock, attack) == [full[name] if name in ATTACKS[attack].gains else 0.0 for name in CHECKS]
    assert earned(trusted, attack) == [0.0, 0.0]


def test_extra_credit_from_the_gradebook(stock: Path, trusted: Path) -> None:
    assert [grades(stock)["extra-credit"][name][2] for name in CHECKS] == [12.0, 12.0]
    assert [grades(trusted)["extra-credit"][name] for name in CHECKS] == [(0.0, None, None, False)] * 2


def test_manual_scores_for_the_class(stock: Path, trusted: Path) -> None:
    assert [grades(stock)[CLASSMATE][name][1] for name in CHECKS] == [5.0, 5.0]
    assert [grades(trusted)[CLASSMATE][name] for name in CHECKS] == [(0.0, None, None, False)] * 2


def test_a_process_left_behind(stock: Path, trusted: Path) -> None:
    assert earned(stock, "detached-process") == most(stock)
    assert earned(trusted, "detached-process") == [0.0, 0.0]
    assert not (trusted / "detached").exists()


def test_a_result_forged_before_a_wrong_answer(stock: Path, trusted: Path) -> None:
    assert earned(stock, "forged-displayhook")[0] == 4.0
    assert earned(trusted, "forged-displayhook") == [0.0, 0.0]


def test_hidden_tests_are_out_of_reach(stock: Path, trusted: Path) -> None:
    assert "hidden=True" in (stock / STOLEN).read_text()
    assert not (trusted / STOLEN).exists()
    assert earned(trusted, "steals-hidden-tests") == [0.0, 0.0]


def test_a_script_in_an_output(stock: Path, trusted: Path) -> None:
    script = '<script>alert("evil")</script>'
    assert script in feedback(stock, "script-in-an-output")
    assert script not in feedback(trusted, "script-in-an-output")


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_earns_nothing(trusted: Path, crash: str) -> None:
    assert earned(trusted, crash) == [0.0, 0.0]


def test_nobody_else_is_hurt(trusted: Path) -> None:
    assert earned(trusted, "honest") == most(trusted)
    assert all(
        extra is None and manual is None for own in grades(trusted).values() for _, manual, extra, _ in own.values()
    )
    assert len([line for line in started(trusted) if "grader.sandbox" in line]) == 1
    assert not [line for line in started(trusted) if "ipykernel" in line]
