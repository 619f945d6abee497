"""How long grading a class takes: nbgrader as it comes, nbgrader with our preprocessors, and `grader grade`.

Everything is measured in one run on the same submissions, with the time of all processes started. Wall time says
little on a machine that does other work; CPU time says how many submissions a core grades. Each way is measured twice,
on one submission and on more, which tells starting up (imports, running the reference) from what each submission adds.
"""

import argparse
import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nbgrader_course import OURS, REPOSITORY, STOCK, UNIT, build, environment, hand_in, make_course, nbgrader, released

LEVELS = ("portable", "linux", "strict")
SUBREAPER = 36
MISTAKE = """
_right_{name} = {name}

def {name}(*arguments, **options):
    result = _right_{name}(*arguments, **options)
    return tuple(1.01 * part for part in result) if isinstance(result, tuple) else 1.01 * result
"""
GRADE = ("-c", "from grader.cli import main; main()", "grade")


@dataclass(frozen=True)
class Time:
    """Seconds that a command took, with everything it started."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Cost:
    """CPU seconds that a way to grade takes to start up, and for each submission."""

    start: float
    each: float

    @staticmethod
    def of(one: Time, many: Time, count: int) -> "Cost":
        """Fit one submission and `count` of them."""
        each = max(many.cpu - one.cpu, 0.0) / (count - 1)
        return Cost(max(one.cpu - each, 0.0), each)

    def all(self, count: int) -> float:
        """Return the CPU seconds for so many submissions."""
        return self.start + count * self.each


@dataclass
class Split:
    """Seconds of one worker by the clock, its CPU seconds, and the memory it had at the end of each submission."""

    fork: float = 0.0
    load: float = 0.0
    observe: float = 0.0
    judge: float = 0.0
    speed: float = 0.0
    racing: bool = False
    cpu: float = 0.0
    memory: list[int] = field(default_factory=list)


def main() -> None:
    """Measure and print a table."""
    options = parsed()
    with contextlib.suppress(OSError, AttributeError):  # what a command leaves behind is then waited for, and counted
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        root = Path(folder)
        unit = make(root, options.submissions)
        print(f"{options.submissions} submissions of {unit}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"stock nbgrader: measured on 1 and {options.stock}; per core: how many are graded in its time for one")
        print()
        measure_all(root, options)
        print()
        split_all(root, options)


def parsed() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=30)
    parser.add_argument("--stock", type=int, default=6, help="how many of them stock nbgrader grades")
    parser.add_argument("--quick", action="store_true", help="few submissions, one level")
    options = parser.parse_args()
    options.levels, options.workers = LEVELS, (1, 2)
    if options.quick:
        options.submissions, options.stock, options.levels, options.workers = 4, 2, ("linux",), (1,)
    options.submissions = max(options.submissions, 2)
    options.stock = max(2, min(options.stock, options.submissions, 10))
    return options


def make(root: Path, count: int) -> str:
    """Make a course, of the repository's unit if it is there, and hand in `count` submissions."""
    whole = REPOSITORY / "reference" / UNIT
    if (whole / "lesson.md").exists():
        plain = shutil.ignore_patterns("__pycache__")
        shutil.copytree(whole, root / "reference" / UNIT, ignore=plain)
        shutil.copytree(REPOSITORY / "reference" / "data", root / "reference" / "data", ignore=plain)
        build(root)
        nbgrader(root, "generate_assignment", UNIT, "--create", "--force")
    else:
        make_course(root)
    solved = nbformat.read(root / "solutions" / UNIT / f"{UNIT}.ipynb", 4)
    answers = [cell for cell in solved.cells if marks(cell).get("solution") and not marks(cell).get("grade")]
    for number in range(count):
        hand_in(root, f"student{number:03}", submission(root, answers, number))
    return f"{UNIT} ({len(answers)} exercises)"


def marks(cell: Any) -> dict[str, Any]:
    """Return nbgrader's marks of a cell."""
    found: dict[str, Any] = cell.metadata.get("nbgrader", {})
    return found


def submission(root: Path, answers: list[Any], number: int) -> Any:
    """Leave one exercise blank and answer one wrongly, others each time; the mistake is in no list."""
    notebook = released(root)
    texts = {marks(cell)["grade_id"]: cell.source for cell in answers}
    blank, wrong = [*texts, ""][number % (len(texts) + 1)], [*texts, ""][(number + 3) % (len(texts) + 1)]
    for cell in notebook.cells:
        name = marks(cell).get("grade_id")
        if name in texts and name != blank:
            cell.source = f"{texts[name]}\n# {number}" + MISTAKE.format(name=name) * (name == wrong)
    return notebook


def measure_all(root: Path, options: argparse.Namespace) -> None:
    """Print a row for each way to grade."""
    count = options.submissions
    titles = ("n", "wall s", "CPU s", "start", "each", f"per core, {count}", "further")
    print(f"{'':34}{titles[0]:>4}" + "".join(f"{title:>9}" for title in titles[1:5]) + f"{titles[5]:>14}{titles[6]:>9}")
    nbgrader_words = ("-m", "nbgrader", "autograde", UNIT)

    def stock(students: int) -> Time:
        fresh_gradebook(root, STOCK)
        return measured(root, *nbgrader_words, f"--student={few(students)}")

    one, many = stock(1), stock(options.stock)
    base = Cost.of(one, many, options.stock)
    row("nbgrader autograde, stock", many, options.stock, base, base, count)

    def ours(*chosen: str) -> Time:
        fresh_gradebook(root, OURS)
        return measured(root, *nbgrader_words, *chosen)

    both("nbgrader autograde, ours", ours(f"--student={few(1)}"), ours(), base, count)
    first = Path("first") / "student000"
    shutil.copytree(root / "submitted" / "student000", root / first)
    for level in options.levels:
        for workers in options.workers:
            more = ("--isolation", level, "--workers", str(workers), "--out", f"out-{level}-{workers}")
            alone = measured(root, *GRADE, str(first.parent), *more)
            name = f"grader grade, {level}, {workers} workers"
            both(name, alone, measured(root, *GRADE, "submitted", *more), base, count)


def both(name: str, one: Time, many: Time, base: Cost, count: int) -> None:
    """Print the row of a way that was measured on one submission and on all."""
    row(name, many, count, Cost.of(one, many, count), base, count)


def few(count: int) -> str:
    """Return a glob for the first few students, at most ten."""
    return f"student00[0-{count - 1}]"


def fresh_gradebook(root: Path, configuration: str) -> None:
    """Begin again, with a configuration."""
    shutil.rmtree(root / "autograded", ignore_errors=True)
    (root / "gradebook.db").unlink(missing_ok=True)
    (root / "nbgrader_config.py").write_text(configuration, encoding="utf-8")
    nbgrader(root, "generate_assignment", UNIT, "--create", "--force")


def measured(root: Path, *words: str) -> Time:
    """Run a Python command in the course and time it with all its children."""
    used = children_cpu()
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment(root), capture_output=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode not in (0, 1):  # 1: not all submissions passed
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return Time(wall, children_cpu() - used)


def children_cpu() -> float:
    """Return the CPU seconds of all processes waited for so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, taken: Time, n: int, cost: Cost, base: Cost, count: int) -> None:
    """Print a row; the last two columns are what stock nbgrader takes in its place, for a class and per submission."""
    times = f"{taken.wall:9.1f}{taken.cpu:9.1f}{cost.start:9.1f}{cost.each:9.2f}"
    further = base.each / max(cost.each, 1e-3)
    print(f"{name:34}{n:4}{times}{base.all(count) / cost.all(count):13.1f}x{further:8.1f}x", flush=True)


def split_all(root: Path, options: argparse.Namespace) -> None:
    """Print what a submission's time goes to inside one worker."""
    from grader.course import load_course
    from grader.grade import Options

    course = load_course(root)
    unit = course.unit(UNIT)
    for exercise in unit.exercises:
        Options().pack(exercise)
    titles = "".join(f"{title:>9}" for title in ("fork", "load", "observe", "judge", "speed", "its CPU"))
    print(f"{'ms per submission, one worker':34}{titles}{'MiB own':>10}")
    count = min(options.submissions, 10)
    for level in options.levels:
        split = split_of(course, unit, level, count)
        times = (split.fork, split.load, split.observe, split.judge, split.speed, split.cpu)
        memory = f"{sum(split.memory) / len(split.memory) / 2**20:10.0f}" if split.memory else f"{'unknown':>10}"
        print(f"{level:34}" + "".join(f"{1000 * seconds / count:9.1f}" for seconds in times) + memory, flush=True)


def split_of(course: Any, unit: Any, level: str, count: int) -> Split:
    """Grade some submissions as `grader grade` does, with a clock at every step."""
    from grader import sandbox
    from grader.grade import Options, measure
    from grader.judge import judge
    from grader.pools import ENTRY
    from grader.sandbox.usage import usage
    from grader.source import scan
    from grader.subject import Worker
    from grader.submission import read

    split = Split()
    with sandbox.open(level, entry=ENTRY) as pool:
        for number in range(count):
            found = read(course.root / "submitted" / f"student{number:03}" / UNIT / f"{UNIT}.ipynb")
            with Worker(pool) as worker:
                worker.child = timed_child(pool, split)
                for exercise in unit.exercises:
                    program = found.program(exercise.name, provided=course.provided_names(exercise))
                    pack = Options().pack(exercise)
                    seen = worker.observe(program, course.provided(exercise), pack)
                    start = time.perf_counter()
                    judge(pack, seen, scan(program, exercise.forbid))
                    split.judge += time.perf_counter() - start
                session = worker.child.session
                split.memory += own_memory(session)
                used = usage(session.pid)
                split.cpu += used.cpu if used else 0.0
                split.racing = True
                start = time.perf_counter()
                for exercise in unit.exercises:
                    program = found.program(exercise.name, provided=course.provided_names(exercise))
                    if program.found:
                        measure(course, program, worker, Options().pack(exercise))
                split.speed += time.perf_counter() - start
                split.racing = False
    return split


def timed_child(pool: Any, split: Split) -> Any:
    """Return a sandboxed child that writes down where its time goes."""
    from grader.remote import Child

    class Timed(Child):
        part = "observe"

        @property
        def session(self) -> Any:
            if self._session is None:
                start = time.perf_counter()
                self._session = self.pool.start()
                split.fork += time.perf_counter() - start
            return self._session

        def load(self, *arguments: Any) -> Any:
            self.part = "load"
            try:
                return super().load(*arguments)
            finally:
                self.part = "observe"

        def reply(self, *arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return super().reply(*arguments)
            finally:
                if not split.racing:
                    setattr(split, self.part, getattr(split, self.part) + time.perf_counter() - start)

    return Timed(pool)


def own_memory(session: Any) -> list[int]:
    """Return the bytes that a session's process shares with no other, if they can be known."""
    try:
        lines = Path(f"/proc/{session.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (OSError, AttributeError):
        return []
    sizes = dict(line.split()[:2] for line in lines[1:])
    return [1024 * (int(sizes["Private_Clean:"]) + int(sizes["Private_Dirty:"]))]


if __name__ == "__main__":
    main()
