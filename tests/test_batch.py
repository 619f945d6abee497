"""Grading a class: order, damage, resuming, workers, cluster, spreadsheets."""

import csv
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from helpers import NO_SHIFT, RIGHT, ROOT, STUB, UNIT, hand_in, open_folder, shut

from grader import batch, sandbox
from grader import grade as grading
from grader.course import load_course, solution_source
from grader.grade import Options
from grader.jobs import find_jobs, submitted_bytes
from grader.judge import judge
from grader.parsing import parse
from grader.pools import ENTRY
from grader.record import record
from grader.render.results import safe_cell
from grader.results_folder import GRADES, JOURNAL, RESULTS, read_rows
from grader.slicing import Program
from grader.subject import Worker
from grader.submission import SubmissionError
from grader.texts import printable

OPTIONS = Options(exercise="softmax")


@pytest.fixture
def students(tmp_path):
    folder = tmp_path / "submitted"
    hand_in(folder, "ann", RIGHT)
    hand_in(folder, "bob", NO_SHIFT)
    hand_in(folder, "cy", STUB)
    hand_in(folder, "dee", "def softmax(x, dim=-1):\n    while True: pass")
    hand_in(folder, "eve", "import os\ndef softmax(x, dim=-1):\n    os._exit(0)")
    hand_in(folder, "=SUM(A1)", RIGHT, kind=".py")
    hand_in(folder, 'quote"comma,', RIGHT)
    (folder / "fay" / UNIT).mkdir(parents=True)
    (folder / "fay" / UNIT / f"{UNIT}.ipynb").write_text("{damaged")
    (folder / "gus").mkdir()
    renamed = hand_in(folder, "hal", RIGHT)
    renamed.rename(renamed.with_name("my solution.ipynb"))
    (folder / "ivy").symlink_to(folder / "ann")
    return folder


@pytest.fixture
def few(tmp_path):
    folder = tmp_path / "few"
    for student, source in (("ann", RIGHT), ("bob", NO_SHIFT), ("cy", STUB), ("dee", "def softmax(x, dim=-1):\n    (")):
        hand_in(folder, student, source)
    return folder


def grade(folder, out, level="portable", **options):
    jobs = find_jobs(folder, load_course(ROOT), OPTIONS, level, UNIT)
    return batch.run(jobs, out, timing=False, **options)


def by_student(rows):
    return {r["student"]: r for r in rows}


def test_every_submission_gets_its_row(students, tmp_path):
    rows = by_student(grade(students, tmp_path / "out", workers=2))
    assert {name: r["status"] for name, r in rows.items()} == {
        "ann": "passed", "bob": "partly", "cy": "not_attempted", "dee": "error", "eve": "error", "=SUM(A1)": "passed",
        'quote"comma,': "passed", "fay": "error", "gus": "not_attempted", "hal": "passed",
    }  # fmt: skip
    assert rows["bob"]["misconception"] == "no_shift"
    assert "CPU time" in rows["dee"]["findings"][0]["message"]
    assert "valid JSON" in rows["fay"]["findings"][0]["message"]
    assert (rows["gus"]["points"], rows["gus"]["untested"]) == (0.0, ["nothing was handed in"])
    written = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert by_student(written) == rows
    assert list(written[0]) == [
        "schema", "student", "unit", "exercise", "status", "points", "max_points", "findings", "misconception", "hint",
        "untested", "isolation", "seed", "seconds", "grader_version", "source_sha256",
    ]  # fmt: skip
    sheet = list(csv.reader((tmp_path / "out" / "grades.csv").read_text().splitlines()))
    assert sheet[0][:5] == ["student", "unit", "points", "max_points", "softmax"]
    names = [line[0] for line in sheet]
    assert "'=SUM(A1)" in names
    assert 'quote"comma,' in names


def test_grades_do_not_depend_on_workers_or_level(few, tmp_path):
    levels = ["portable"]
    for level in ("linux", "strict"):
        try:
            sandbox.open(level, entry=ENTRY, preload=()).close()
        except sandbox.Unavailable:
            continue
        levels.append(level)
    runs = [(level, workers) for level in levels for workers in ((1, 2, 4) if level == levels[-1] else (2,))]
    results = []
    for level, workers in runs:
        rows = grade(few, tmp_path / f"{level}{workers}", level=level, workers=workers)
        results.append([{**r, "isolation": ""} for r in rows])
    assert all(r == results[0] for r in results)


def test_a_finished_submission_is_not_graded_again(few, tmp_path, monkeypatch):
    grade(few, tmp_path / "out")
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    asked = []
    real = batch.grade_job
    monkeypatch.setattr(batch, "grade_job", lambda job: asked.append(job.student) or real(job))
    grade(few, tmp_path / "out", resume=True)
    assert asked == []
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before
    hand_in(few, "bob", RIGHT)
    rows = by_student(grade(few, tmp_path / "out", resume=True))
    assert asked == ["bob"]
    assert rows["bob"]["status"] == "passed"


def command(folder, out, *more):
    return [
        sys.executable, "-m", "grader.cli", "grade", str(folder), "--out", str(out), "--exercise", "softmax",
        "--isolation", "portable", "--no-timing", "--workers", "2", *more,
    ]  # fmt: skip


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path):
    folder = tmp_path / "submitted"
    for number in range(8):
        hand_in(folder, f"s{number:02}", [RIGHT, NO_SHIFT, STUB][number % 3] + f"\n# {number}\n")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(folder, whole), cwd=ROOT, capture_output=True, check=False)
    chance = random.Random(5)
    for _ in range(2):
        process = subprocess.Popen(
            command(folder, killed, "--resume"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wanted = lines_of(killed) + chance.randint(1, 3)
        while process.poll() is None and lines_of(killed) < wanted:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        journal = killed / JOURNAL
        with journal.open("ab") as file:
            file.write(b'{"key": "half a li')  # as a kill in the middle of a write leaves it
    subprocess.run(command(folder, killed, "--resume"), cwd=ROOT, capture_output=True, check=False)
    for name in (RESULTS, GRADES):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def lines_of(out):
    journal = out / JOURNAL
    return journal.read_bytes().count(b'"rows"') if journal.exists() else 0


def test_regrading_names_whose_points_changed(few, tmp_path):
    before = grade(few, tmp_path / "out")
    hand_in(few, "bob", RIGHT)
    after = grade(few, tmp_path / "out")
    changed = batch.changes(before, after)
    assert [(c[0], c[4]) for c in changed] == [("bob", 5.0)]


@pytest.mark.slow
def test_a_cluster_gives_the_same_and_survives_a_lost_worker(few, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("TORCH_DOJO_ROOT", str(ROOT))
    here = grade(few, tmp_path / "here")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        jobs = find_jobs(few, load_course(ROOT), OPTIONS, "portable", UNIT)
        lost = []

        def lose_one(job, graded, done, of):
            if not lost:
                lost.append(next(iter(cluster.workers.values())).pid)
                os.kill(lost[0], signal.SIGKILL)

        there = batch.run(
            jobs, tmp_path / "there", timing=False, scheduler=cluster.scheduler_address, progress=lose_one
        )
    assert lost
    assert there == here


def test_a_server_that_dies_costs_nobody_points():
    course = load_course(ROOT)
    exercise = course.find("softmax")[1]
    pack = record(exercise)
    program = Program(exercise.name, solution_source(exercise))
    with sandbox.open("auto", entry=ENTRY) as pool, Worker(pool) as worker:
        replies = []

        def reply(*arguments, once=worker.child.reply):
            replies.append(arguments)
            if len(replies) == 1:  # the child has hardly begun
                os.kill(pool._client.pid, signal.SIGKILL)
                while pool._client._process.poll() is None:
                    time.sleep(0.01)
            return once(*arguments)

        worker.child.reply = reply
        seen = worker.observe(program, (), pack)
    assert len(replies) > len(pack.calls()) + 1
    assert judge(pack, seen).passed


def test_a_child_is_replaced_where_a_program_needs_more_imported():
    course = load_course(ROOT)
    exercise = course.find("softmax")[1]
    pack = record(exercise)
    plain = Program(exercise.name, solution_source(exercise))
    label, source = plain.parts[-1]
    optimising = replace(plain, parts=(*plain.parts[:-1], (label, source + "\n\nOPTIMISER = torch.optim.SGD\n")))
    with sandbox.open("portable", entry=ENTRY) as pool, Worker(pool) as worker:
        pids = []
        for program in (plain, plain, optimising, plain, optimising):
            assert judge(pack, worker.observe(program, (), pack)).passed
            pids.append(worker.child.session.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3] == pids[4]


@pytest.mark.parametrize("level", ["portable", "linux", "strict"])
def test_submissions_share_the_process_of_the_reference_only_where_they_cannot_reach_it(level):
    try:
        pool = sandbox.open(level, entry=ENTRY, preload=())
    except sandbox.Unavailable as error:
        pytest.skip(str(error))
    with pool:
        first, same, other = batch.beside(pool, 1), batch.beside(pool, 1), batch.beside(pool, 2)
    if level == "portable":
        assert first is same is other is None
    else:
        assert first is same is not other


def test_a_fault_of_the_grader_costs_one_submission_and_is_tried_again(students, tmp_path, monkeypatch):
    course = load_course(ROOT)
    jobs = find_jobs(students, course, OPTIONS, "auto", UNIT)
    usual = batch.grade

    def faulty(course, unit, found, worker, options):
        if faulty.left:
            faulty.left -= 1
            raise SystemError("AST constructor recursion depth mismatch")
        return usual(course, unit, found, worker, options)

    faulty.left = 1
    monkeypatch.setattr(batch, "grade", faulty)
    rows = batch.run(jobs, tmp_path / "out", timing=False)
    failed = [r for r in rows if r["status"] == "not_gradable"]
    assert [r["points"] for r in failed] == [0.0]
    assert "the grader itself failed" in failed[0]["findings"][0]["message"]
    assert len(rows) == len(jobs)
    monkeypatch.setattr(batch, "grade", usual)
    again = batch.run(jobs, tmp_path / "out", timing=False, resume=True)
    assert "not_gradable" not in {r["status"] for r in again}
    assert again == batch.run(jobs, tmp_path / "fresh", timing=False)


class Cycle:
    """Garbage whose collection lets another thread run."""

    def __init__(self):
        self.me = self

    def __del__(self):
        time.sleep(1e-4)


def test_many_threads_may_parse_at_once():
    text = "\n".join(f"def f{n}(x):\n    return [x + {n} for y in (x, ({n}, [x]))]" for n in range(60))

    def work(_):
        for _ in range(15):
            Cycle()
            parse(text)

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(work, range(6)))  # ast.parse itself raises SystemError here in Python 3.11.7
    finally:
        gc.set_threshold(*before)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="files have no owners")
@pytest.mark.parametrize("place", ["bob", f"bob/{UNIT}", f"bob/{UNIT}/{UNIT}.ipynb"])
def test_what_cannot_be_read_costs_nobody_else_a_grade(place):
    course = load_course(ROOT)
    with open_folder() as folder:
        for student in ("ann", "bob", "cy"):
            hand_in(folder, student, RIGHT)
        with shut(folder / place):
            jobs = find_jobs(folder, course, OPTIONS, "portable")
            said = {job.student: problem_of(job) for job in jobs}
    assert list(said) == ["ann", "bob", "cy"]
    assert "Permission denied" in said.pop("bob")
    assert set(said.values()) == {""}


def problem_of(job):
    try:
        submitted_bytes(job)
    except SubmissionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n", "\t", "\xa0", "\u3000"])
@pytest.mark.parametrize("start", "=+-@＝")
def test_no_text_is_a_formula(start, blank):
    assert safe_cell(f"{blank}{start}SUM(A1)") == f"'{blank}{start}SUM(A1)"
    assert safe_cell(f"ann{blank}{start}1") == f"ann{blank}{start}1"


def test_marks_that_change_how_a_text_is_read_are_spelled_out():
    assert printable("a\u202eb\u2066c\u200bd\ufeffe\u2028f") == "a\\u202eb\\u2066c\\u200bd\\ufeffe\\u2028f"
    assert printable("\U000e0041") == "\\U000e0041"
    for text in ("می\u200cخواهم", "क्\u200dष", "\U0001f469\u200d\U0001f52c", "日本語 ñ\tx\ny"):
        assert printable(text) == text


BOOM = "def softmax(x, dim=-1):\n    raise ArithmeticError({text})"


def test_what_an_exception_says_is_printable_and_short(tmp_path):
    hand_in(tmp_path / "in", "ann", BOOM.format(text="'\\x1b[2J\\ud800' + 'E' * 5_000_000"))
    named = "def softmax(x, dim=-1):\n    raise type('E' * 5_000_000 + chr(0xd800), (ArithmeticError,), {})"
    hand_in(tmp_path / "in", "bob", named)
    hand_in(tmp_path / "in", "cy", RIGHT)
    rows = grade(tmp_path / "in", tmp_path / "out")
    assert [r["points"] for r in rows] == [0.0, 0.0, 5.0]
    text = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8")
    assert len(text) < 100_000
    messages = " ".join(f["message"] for r in rows for f in r["findings"])
    assert "\\x1b[2J\\ud800EEE" in messages
    assert printable(messages) == messages
    assert grade(tmp_path / "in", tmp_path / "out", resume=True) == rows


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode")
def test_names_that_are_no_text_are_graded_like_others(tmp_path):
    hand_in(tmp_path / "in", "ann", RIGHT)
    (tmp_path / "in" / "ann").rename(tmp_path / "in" / os.fsdecode(b"\xff\x1bann"))
    hand_in(tmp_path / "in", "bob", RIGHT)
    hand_in(tmp_path / "in", "cy", RIGHT, kind=".py").rename(tmp_path / "in" / "cy" / UNIT / "b.py")
    (tmp_path / "in" / "cy" / UNIT / os.fsdecode(b"\xff1.py")).write_text(RIGHT, encoding="utf-8")
    rows = grade(tmp_path / "in", tmp_path / "out")
    assert [r["points"] for r in sorted(rows, key=lambda r: r["points"])] == [0.0, 5.0, 5.0]
    assert all(printable(r["student"]) == r["student"] for r in rows)


def test_a_finding_that_cannot_be_told_is_for_a_person_to_look_at(few, tmp_path, monkeypatch):
    usual = batch.row

    def broken(verdict, student, *facts):
        if student == "bob" and verdict.status != "not_gradable":
            raise KeyError("changed_evil")
        return usual(verdict, student, *facts)

    monkeypatch.setattr(batch, "row", broken)
    rows = grade(few, tmp_path / "out")
    assert [r["status"] for r in rows][:2] == ["passed", "not_gradable"]


def test_a_fault_in_one_exercise_leaves_the_others_graded(tmp_path, monkeypatch):
    course = load_course(ROOT)
    monkeypatch.setattr(grading, "scan", lambda program, forbid: 1 / 0 if program.name == "softmax" else [])
    hand_in(
        tmp_path / "in", "ann", "\n".join(text for e in course.unit(UNIT).exercises for _, text in solution_source(e))
    )
    jobs = find_jobs(tmp_path / "in", course, Options(), "portable", UNIT)
    rows = batch.run(jobs, tmp_path / "out", timing=False)
    assert [r["status"] for r in rows].count("not_gradable") == 1
    assert [r["status"] for r in rows].count("passed") == len(rows) - 1


def test_results_of_other_exercises_stay(few, tmp_path):
    course = load_course(ROOT)

    def graded(exercise):
        jobs = find_jobs(few, course, Options(exercise=exercise), "portable", UNIT)
        return batch.run(jobs, tmp_path / "out", timing=False)

    softmax, accuracy = graded("softmax"), graded("accuracy")
    assert {r["exercise"] for r in accuracy} == {"accuracy"}
    kept = read_rows(tmp_path / "out" / "results.jsonl")
    assert sorted(map(str, kept)) == sorted(map(str, softmax + accuracy))
    with (tmp_path / "out" / "grades.csv").open(encoding="utf-8") as file:
        ann = next(row for row in csv.DictReader(file) if row["student"] == "ann")
    assert (ann["points"], ann["softmax"], ann["accuracy"]) == ("5.0", "5.0", "0.0")
    assert graded("softmax") == softmax
    assert len(read_rows(tmp_path / "out" / "results.jsonl")) == len(kept)


def test_a_file_in_the_wrong_folder_is_named(tmp_path):
    hand_in(tmp_path / "in", "ann", RIGHT).rename(tmp_path / "in" / "ann" / f"{UNIT}.ipynb")
    (tmp_path / "in" / "ann" / UNIT).rmdir()
    deep = hand_in(tmp_path / "in", "bob", RIGHT)
    (deep.parent / UNIT).mkdir()
    deep.rename(deep.parent / UNIT / deep.name)
    ann, bob = grade(tmp_path / "in", tmp_path / "out")
    assert "one folder too high" in ann["findings"][0]["message"]
    assert f"{UNIT}/{UNIT}.ipynb lies one folder too deep" in bob["findings"][0]["message"]


def test_a_row_records_its_seed(tmp_path):
    hand_in(tmp_path / "in", "ann", RIGHT)
    jobs = find_jobs(tmp_path / "in", load_course(ROOT), replace(OPTIONS, seed=7), "portable", UNIT)
    assert [r["seed"] for r in batch.run(jobs, tmp_path / "out")] == [7]


def test_what_was_told_in_another_language_is_told_again(few, tmp_path, monkeypatch):
    grade(few, tmp_path / "out")
    monkeypatch.setenv("GRADER_LANG", "zh")
    dee = by_student(grade(few, tmp_path / "out", resume=True))["dee"]
    assert "第 3 行" not in dee["findings"][0]["message"]
    assert "第 2 行" in dee["findings"][0]["message"]


def test_a_job_is_told_in_the_language_of_whoever_asked(few, monkeypatch):
    monkeypatch.setenv("GRADER_LANG", "zh")
    jobs = find_jobs(few, load_course(ROOT), OPTIONS, "portable", UNIT)
    monkeypatch.delenv("GRADER_LANG")  # a cluster's worker has an environment of its own
    told = {job.student: batch.grade_job(job)[0] for job in jobs if job.student == "bob"}
    assert told["bob"]["hint"].startswith("要先减去")


def test_a_second_run_into_the_same_folder_is_refused_and_harms_nothing(tmp_path):
    folder, out = tmp_path / "submitted", tmp_path / "out"
    for number in range(4):
        hand_in(folder, f"s{number}", [RIGHT, NO_SHIFT][number % 2] + f"\n# {number}\n")
    hand_in(folder, "slow", "def softmax(x, dim=-1):\n    while True: pass")
    first = subprocess.Popen(command(folder, out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while first.poll() is None and not lines_of(out):
        time.sleep(0.02)
    second = subprocess.run(command(folder, out), cwd=ROOT, capture_output=True, text=True, check=False)
    assert first.poll() is None, "the first run must still be running"
    assert second.returncode == 2
    assert "another run is writing into" in second.stderr
    assert first.wait() == 1
    rows = read_rows(out / RESULTS)
    assert sorted(r["student"] for r in rows) == ["s0", "s1", "s2", "s3", "slow"]
    assert lines_of(out) == 5


def test_a_results_file_that_holds_something_else_is_left_alone(few, tmp_path):
    (tmp_path / "out").mkdir()
    for text in ("my notes", '{"unit": "a"}', "[1]"):
        (tmp_path / "out" / "results.jsonl").write_text(text, encoding="utf-8")
        with pytest.raises(SubmissionError, match="does not hold results"):
            grade(few, tmp_path / "out")
        assert (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8") == text


BURN = """
def softmax(x, dim=-1):
    import time
    end = time.process_time() + 0.7
    while time.process_time() < end:
        pass
    return x
"""


def test_what_one_program_has_used_is_not_missing_for_the_next():
    exercise = load_course(ROOT).find("softmax")[1]
    pack = record(exercise)
    pack = replace(pack, planned=pack.planned[:1], growths=(), speed=None)
    program = Program("softmax", (("<cell 1>", BURN),))
    with sandbox.open("portable", entry=ENTRY, limits=sandbox.Limits(cpu_seconds=2)) as pool, Worker(pool) as worker:
        seen = [worker.observe(program, (), pack)[0] for _ in range(4)]
    assert [o.crash for o in seen] == [None] * 4
