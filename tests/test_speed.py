"""Measured speed: the test that decides, the race, and everything that tries to cheat it."""

import itertools
import math
import random
import textwrap
import time
from fractions import Fraction

import pytest
import torch

from grader import sandbox
from grader.budget import speed_finding
from grader.calls import Call, Observation
from grader.course import load_course, solution_source
from grader.device import FLUSHED, NO_GPU, Cpu, Cuda, device, missing, resolve
from grader.grade import Options, measure, meet, verdict_on
from grader.judge import UNDECIDED_TIME, UNSURE, judge
from grader.laps import Laps
from grader.pack import PlannedSpeed
from grader.pools import ENTRY
from grader.reading import Use
from grader.record import record, run_all
from grader.remote import Child, RemoteLaps
from grader.sequential import FALSE_FAIL, FALSE_PASS, OVER, UNDECIDED, WITHIN, decide, enough, evidence, interval
from grader.slicing import Program
from grader.speed import ELSEWHERE, MOST_LAPS, MOST_PAIRS, WAITS, WRONG, Meet, Race, Times, TooSlowError
from grader.subject import CONFINED, InProcess, Worker
from grader.verdict import PASSED, Finding


def mixture(k, n):
    """Average the likelihood ratio p^k (1-p)^(n-k) / 2^-n over p in (1/2, 1), by numeric integration."""
    steps = 200_000
    points = ((0.5 + 0.5 * (i + 0.5) / steps) for i in range(steps))
    return sum(p**k * (1 - p) ** (n - k) for p in points) / steps * 2**n


@pytest.mark.parametrize(("k", "n"), [(0, 1), (3, 3), (7, 9), (5, 12)])
def test_evidence_is_the_averaged_likelihood_ratio(k, n):
    assert float(Fraction(*evidence(k, n))) == pytest.approx(mixture(k, n), rel=1e-5)


def test_the_fewest_pairs_that_decide():
    assert [enough(n, n, FALSE_PASS) for n in (8, 9)] == [False, True]
    assert [enough(n, n, FALSE_FAIL) for n in (12, 13)] == [False, True]
    assert decide([0.5] * 9, 1.0) == WITHIN
    assert decide([2.0] * 13, 1.0) == OVER
    assert decide([2.0] * 9, 1.0) == UNDECIDED
    assert decide([0.5, 2.0] * 20, 1.0) == UNDECIDED


def test_a_call_exactly_at_its_limit_is_hardly_ever_failed():
    """The worst honest case, half of the pairs above: of 2000 runs of 60 looks at most a few may fail."""
    chance = random.Random(5)
    failed = 0
    for _ in range(2000):
        above = itertools.accumulate(chance.random() < 0.5 for _ in range(MOST_PAIRS))
        failed += any(enough(k, n, FALSE_FAIL) for n, k in enumerate(above, 1))
    assert failed <= 6  # 2000 times 1e-3, and three standard deviations


def test_the_interval_holds_the_median():
    chance = random.Random(3)
    ratios = [math.exp(chance.gauss(0, 0.2)) for _ in range(200)]
    low, high = interval(ratios)
    assert 0.85 < low < 1.0 < high < 1.15
    assert interval([1.0] * 5) == (0.0, math.inf)


class Fake:
    """A runner with a clock of its own: each call takes `seconds` of it."""

    def __init__(self, seconds, wall=None, before=0.0, result=1.0, stops=False):
        self.seconds, self.wall, self.before, self.result, self.stops = seconds, wall, before, result, stops
        self.blocks, self.shown, self.watched, self.calls_what = [], 0, [], ()

    def prepare(self, calls):
        self.calls = list(calls)
        self.blocks.append([call.seed for call in calls])

    def go(self, seconds):
        busy = self.seconds() if callable(self.seconds) else self.seconds
        busy *= len(self.calls)
        if self.stops and busy > seconds:
            raise TooSlowError
        return Times(busy, self.wall * len(self.calls) if self.wall else busy, before=self.before)

    def show(self, index):
        self.shown += 1
        result = self.result(len(self.blocks)) if callable(self.result) else self.result
        return Observation(outputs=result)

    def watch(self, call):
        self.watched = [*self.watched, (len(self.blocks), call)]
        return Observation(uses=tuple(Use(word, "", 0) for word in call.forbid if word in self.calls_what))


def race(learner, reference, limit=2.0, chance=None):
    def verify(call, got, wanted):
        return None if got.outputs == wanted.outputs else Finding("values", "plain_value", facts={"path": "result"})

    def fresh(number):
        return Call("a case", seed=number)

    meeting = Meet(learner, reference, limit, fresh, verify, chance=chance or random.Random(1))
    return meeting.run(), meeting


def test_some_calls_between_the_timed_ones_are_watched():
    learner = Fake(1e-3)
    learner.calls_what = ("softmax",)

    def fresh(number):
        return Call("a case", seed=number)

    meeting = Meet(learner, Fake(1e-3), 2.0, fresh, lambda *_: None, forbid=("softmax",), chance=random.Random(1))
    assert [use.name for use in meeting.run().uses] == ["softmax"] * len(learner.watched)
    assert len(learner.watched) >= 2
    before, last = learner.watched[0][0], learner.watched[-1][0]
    assert (before, last) == (0, len(learner.blocks))
    timed = {seed for block in learner.blocks for seed in block}
    assert all(call.seed not in timed and not call.costs for _, call in learner.watched)


def test_fast_enough_and_too_slow():
    found, _ = race(Fake(1e-3), Fake(1e-3))
    assert (found.outcome, found.ratio, len(found.ratios)) == (WITHIN, 1.0, 9)
    found, _ = race(Fake(3e-3), Fake(1e-3))
    assert (found.outcome, len(found.ratios)) == (OVER, 13)
    assert found.ratio == pytest.approx(3.0)


def test_far_too_slow_is_decided_after_five_pairs():
    found, _ = race(Fake(20e-3), Fake(1e-3))
    assert (found.outcome, len(found.ratios)) == (OVER, 5)


def test_a_learner_that_would_take_for_ever_is_stopped():
    found, _ = race(Fake(50.0, stops=True), Fake(1e-3))
    assert (found.outcome, found.ratio) == (OVER, math.inf)
    assert speed_finding(found).kind == "speed_stopped"


def test_a_noisy_machine_costs_nobody_anything():
    chance = random.Random(2)
    noisy = Fake(lambda: 1e-3 * math.exp(chance.gauss(math.log(2.0), 1.0)))
    found, meeting = race(noisy, Fake(1e-3))
    assert found.outcome == UNDECIDED
    assert meeting.made > MOST_PAIRS


def test_what_seems_too_slow_is_measured_twice():
    sides = itertools.cycle([2.1e-3, 1.9e-3])
    slow = Fake(lambda: next(sides) + 1e-9)
    found, _ = race(slow, Fake(1e-3), limit=1.99)
    assert found.outcome == UNDECIDED
    pairs = len([block for block in slow.blocks if len(block) > 1])
    assert found.ratio > 1.99
    assert pairs == 2 * MOST_PAIRS


def test_no_input_is_seen_twice_and_both_get_the_same():
    learner, reference = Fake(1e-4), Fake(1e-4)
    race(learner, reference)
    seeds = [seed for block in learner.blocks for seed in block]
    assert len(set(seeds)) == len(seeds)
    assert learner.blocks == reference.blocks


def test_blocks_are_long_enough_for_the_clock():
    learner = Fake(1e-3)
    race(learner, Fake(0.3e-3), limit=9.0)
    assert len(learner.blocks[-1]) == math.ceil(2e-3 / 0.3e-3)
    tiny = Fake(1e-6)
    race(tiny, Fake(1e-6))
    assert len(tiny.blocks[-1]) == MOST_LAPS


def test_a_wrong_result_of_a_timed_call_is_found_whenever_it_comes():
    assert race(Fake(1e-3, result=2.0), Fake(1e-3))[0].outcome == WRONG
    for seed in range(8):  # right while warming up and in the first pairs, wrong later
        turncoat = Fake(1e-3, result=lambda block: 1.0 if block < 9 else 2.0)
        assert race(turncoat, Fake(1e-3), chance=random.Random(seed))[0].outcome == WRONG


def test_work_outside_of_the_clock_is_found():
    found, _ = race(Fake(1e-3, before=0.1), Fake(1e-3, before=0.001))
    assert found.outcome == ELSEWHERE
    found, _ = race(Fake(1e-3, wall=0.1), Fake(1e-3))
    assert found.outcome == WAITS
    found, _ = race(Fake(1e-3, wall=0.004), Fake(1e-3, wall=0.004))  # a busy machine: both wait
    assert found.outcome == WITHIN


PACK = record(load_course().find("train_softmax")[1])


@pytest.mark.parametrize(
    ("found", "points", "note"),
    [
        (Race(WITHIN, 2.5, (1.0,) * 9), 12, ()),
        (Race(UNDECIDED, 2.5, (1.0,) * 9), 12, (UNSURE,)),
        (Race(UNDECIDED, 2.5, (3.0,) * 9), 12, (UNDECIDED_TIME,)),
        (Race(OVER, 2.5, (3.0,) * 13), None, ()),
        (Race(ELSEWHERE, 2.5, (1.0,) * 9), None, ()),
    ],
)
def test_only_a_decided_verdict_costs_points(found, points, note):
    seen = run_all(PACK.exercise.solution, PACK)
    verdict = judge(PACK, seen, race=found)
    assert verdict.untested == note
    if points is None:
        assert verdict.points < 12
        assert [f.check for f in verdict.findings] == ["speed"]
    else:
        assert (verdict.points, verdict.status) == (points, PASSED)


def test_the_message_says_how_much_too_slow():
    from grader.render.messages import sentence

    assert sentence(speed_finding(Race(OVER, 2.5, (3.14159,) * 13))) == (
        "takes 3.1 times as long as the reference; at most 2.5 times is allowed (13 measured pairs)"
    )


class FakeCuda:
    """What `torch.cuda` would be asked to do, in order, on a device whose events say 8 ms."""

    def __init__(self):
        self.log = []

    def synchronize(self):
        self.log.append("synchronize")

    def reset_peak_memory_stats(self):
        self.log.append("reset")

    def max_memory_allocated(self):
        return FLUSHED + 4096

    def Event(self, *, enable_timing):  # noqa: N802 - torch's name
        assert enable_timing
        log = self.log

        class Event:
            def record(self):
                log.append("event")

            def elapsed_time(self, end):
                return 8.0

        return Event()


def test_a_gpu_is_flushed_waited_for_and_timed_by_events():
    cuda = FakeCuda()
    place = Cuda(cuda, "cpu")
    laps = Laps(lambda x: cuda.log.append("call") or x + 1, place)
    laps.prepare([Call("a case", (torch.ones(2),), ("x",))] * 2)
    times = laps.go(math.inf)
    assert cuda.log == ["synchronize", "reset", "event", "call", "call", "event", "synchronize"]
    assert (times.events, times.peak) == (0.008, 4096)
    assert times.busy == times.wall  # the wall clock counts: work on another stream has no event
    assert laps.show(1).outputs.tolist() == [2.0, 2.0]


def test_timed_calls_use_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        laps = Laps(lambda x: torch.tensor(torch.get_num_threads()))
        laps.prepare([Call("a case", (torch.ones(2),), ("x",))])
        laps.go(math.inf)
        assert laps.show(0).outputs == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_gpu_that_is_not_there_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve("auto") == "cpu"
    assert "no CUDA device" in missing("cuda")
    with pytest.raises(ValueError, match="no device 'cuda' here"):
        device("cuda")
    with pytest.raises(ValueError, match="no such device: 'tpu'"):
        resolve("tpu")
    monkeypatch.setenv("GRADER_DEVICE", "cuda")
    assert resolve() == "cuda"
    assert isinstance(device("cpu"), Cpu)


def test_the_pack_for_a_device_repeats_the_plain_cases_there():
    course = load_course()
    pack = record(course.find("conv2d")[1])
    there = pack.on("cuda")
    assert {p.call.device for p in there.planned} == {"cuda"}
    assert {p.variant for p in there.planned} == {"cuda"}
    assert 10 < len(there.planned) < len(pack.planned)
    assert not there.growths
    assert there.speed.device == "cuda"
    assert there.speed.call(0).args[0].shape[0] == 64
    assert pack.speed.call(0).args[0].shape[0] == 8


def test_a_result_left_on_another_device_is_found():
    pack = record(load_course().find("conv2d")[1])
    there = pack.on("cuda")
    seen = run_all(pack.exercise.solution, pack)
    some = [Observation(outputs=p.expected.like, elsewhere=("result",)) for p in there.planned]
    verdict = judge(pack, seen, on_device=(there, some))
    assert verdict.findings[0].check == "device"
    assert verdict.points == pytest.approx(12 * 0.8, abs=2.0)
    fine = [Observation(outputs=p.expected.like) for p in there.planned]
    assert judge(pack, seen, on_device=(there, fine)).status == PASSED


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu():
    course = load_course()
    exercise = course.find("conv2d")[1]
    pack = record(exercise).on("cuda")
    found = meet(pack.speed, Laps(exercise.solution), Laps(exercise.solution))
    assert found.outcome in (WITHIN, UNDECIDED)
    assert 0 < found.events <= 1.1


@pytest.fixture(scope="module")
def pool():
    with sandbox.open("auto", entry=ENTRY) as opened:
        yield opened


HONEST = "return torch.nn.functional.conv2d(X, weight, bias, stride, padding, dilation, groups)"
SLOW = "for _ in range(60): torch.nn.functional.conv2d(X, weight, bias, stride, padding, dilation, groups)"
HEAD = """
import sys, threading, time
import torch

{before}

def conv2d(X, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    {body}
"""


def timed(pool, body, before=""):
    """Time a conv2d beside the reference's in the sandbox."""
    course = load_course()
    exercise = course.find("conv2d")[1]
    text = HEAD.format(before=textwrap.dedent(before), body=textwrap.indent(textwrap.dedent(body), "    ").strip())
    program = Program("conv2d", (("<cell 1>", text),))  # not sliced
    with Worker(pool) as worker:
        return measure(course, program, worker, record(exercise))


def test_the_sandbox_times_honest_code(pool):
    assert timed(pool, HONEST).outcome in (WITHIN, UNDECIDED)
    found = timed(pool, f"{SLOW}\n{HONEST}")
    assert found.outcome == OVER
    assert found.ratio > 6


def test_what_is_forbidden_is_found_where_only_timed_calls_do_it(pool):
    body = f"""
    calls.append(len(calls))
    if X.shape[0] == 8 and len(calls) > 2:
        return torch.nn.functional.conv2d(X, weight, None, stride, padding, dilation, groups)
    {HONEST}
    """
    found = timed(pool, body, "calls = []")
    assert found.outcome in (WITHIN, UNDECIDED)
    lines = [use.line for use in found.uses if use.name == "conv2d"]
    assert lines[-1] < lines[0], "the later calls take the other way"


def test_the_reference_beside_itself_takes_the_same_time(pool):
    course = load_course()
    exercise = course.find("conv2d")[1]
    program = Program(exercise.name, solution_source(exercise))
    with Worker(pool) as worker:
        found = measure(course, program, worker, record(exercise))
    assert found.outcome in (WITHIN, UNDECIDED)
    assert 0.5 < found.ratio < 2.0


CLOCKS = """
class Frozen:
    perf_counter = process_time = monotonic = time = staticmethod(lambda: 0.0)

for name in ("time", "process_time", "perf_counter", "monotonic"):
    setattr(time, name, lambda: 0.0)
for name in ("grader.laps", "grader.device"):
    if name in sys.modules:
        sys.modules[name].process_time = sys.modules[name].perf_counter = lambda: 0.0
"""


def test_patched_clocks_change_nothing(pool):
    assert timed(pool, f"{SLOW}\n{HONEST}", CLOCKS).outcome == OVER


def test_work_on_another_thread_counts(pool):
    body = f"""
    def work():
        {SLOW}

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    {HONEST}
    """
    assert timed(pool, body).outcome == OVER


AHEAD = """
laps = sys.modules["grader.laps"]
made = {}

def prepare(self, calls, original=laps.Laps.prepare):
    original(self, calls)
    for waiting in self.waiting:
        made[waiting.args[0].data_ptr()] = waiting()
    self.waiting = [lambda w=w: made[w.args[0].data_ptr()] for w in self.waiting]

laps.Laps.prepare = prepare
"""


def test_work_done_before_the_clock_starts_is_found(pool):
    assert timed(pool, f"{SLOW}\n{HONEST}", AHEAD).outcome == ELSEWHERE


def test_sleeping_is_found(pool):
    assert timed(pool, f"time.sleep(0.4)\n{HONEST}").outcome == WAITS


def test_where_the_kernel_does_not_tell_a_claim_is_checked_by_the_clock_on_the_wall():
    class Silent:
        session = type("Session", (), {"cpu": lambda self: None})()

        def ask(self, seconds, **request):
            time.sleep(0.1)
            return {"busy": self.claim, "events": 0.0, "peak": 0}

    silent = Silent()
    for claim, least, most in ((0.0, 0.02, 0.08), (0.09, 0.09, 0.09)):
        silent.claim = claim
        assert least <= RemoteLaps(silent, 1.0).go(1.0).busy <= most


def test_what_goes_wrong_with_the_reference_is_nobodys_fault(pool):
    class Late:
        session = type("Session", (), {"cpu": lambda self: None})()

        def ask(self, seconds, **request):
            raise sandbox.WorkerError("timeout", "used more than 60 s of CPU time")

    with pytest.raises(TooSlowError):
        RemoteLaps(Late(), 1.0).go(1.0)
    with pytest.raises(sandbox.WorkerError) as raised:
        RemoteLaps(Late(), 1.0, trusted=True).go(1.0)
    assert raised.value.blameless

    course = load_course()
    exercise = course.find("conv2d")[1]
    program = Program(exercise.name, solution_source(exercise))
    with Worker(pool) as worker:
        worker.beside.ask = Late().ask
        found = measure(course, program, worker, record(exercise))
    assert (found.outcome, found.ratios) == (UNDECIDED, ())


def test_one_process_runs_the_reference_for_many_submissions(pool):
    course = load_course()
    exercise = course.find("conv2d")[1]
    right = Program(exercise.name, solution_source(exercise))
    leaving = Program("conv2d", (("<cell 1>", "import os\nconv2d = lambda *arguments, **options: os._exit(0)"),))
    beside = Child(pool)
    pids = []
    for program, outcomes in ((right, (WITHIN, UNDECIDED)), (right, (WITHIN, UNDECIDED)), (leaving, (WRONG,))) * 2:
        with Worker(pool, beside=beside) as worker:
            assert measure(course, program, worker, record(exercise)).outcome in outcomes
            assert worker.child.session.pid != beside.session.pid
        pids.append(beside.session.pid)
    assert pids[0] == pids[1] != pids[3] == pids[4]
    beside.close()
    with Worker(pool) as worker:
        session = worker.beside.session
    with pytest.raises(sandbox.WorkerError, match="closed"):
        session.send(b"")


def test_work_in_another_process_is_refused_or_found(pool):
    body = f"""
    import os
    child = os.fork()
    if not child:
        {SLOW}
        os._exit(0)
    os.waitpid(child, 0)
    {HONEST}
    """
    found = timed(pool, body)
    if pool.level == "portable":
        assert found.outcome == WAITS
    else:
        assert found.outcome == WRONG
        assert found.finding.facts["error"] == "PermissionError"


def test_results_made_before_the_inputs_are_known_are_wrong(pool):
    before = """
    Y = torch.nn.functional.conv2d(torch.randn(8, 16, 32, 32), torch.randn(32, 16, 3, 3) / 12)
    ready = {(8, 16, 32, 32): Y}
    """
    assert (
        timed(pool, f"return ready[tuple(X.shape)].clone() if X.shape[0] == 8 else 0\n{HONEST}", before).outcome
        == WRONG
    )


@pytest.mark.parametrize(
    "key", ["X.shape", "X.data_ptr()", "(id(X), weight.data_ptr())"], ids=["shape", "pointer", "identity"]
)
def test_results_kept_from_other_inputs_are_wrong(pool, key):
    body = f"""
    if {key} in kept:
        return kept[{key}].clone()
    Y = torch.nn.functional.conv2d(X, weight, bias, stride, padding, dilation, groups)
    kept[{key}] = Y
    return Y
    """
    found = timed(pool, body, "kept = {}")
    if key == "X.shape":
        assert found.outcome == WRONG
        assert found.finding.check == "values"
    else:  # either a pointer comes back, and with it a wrong result, or nothing was ever found there
        assert found.outcome in (WRONG, WITHIN, UNDECIDED)


def test_results_kept_by_value_are_never_found_again():
    exercise = load_course().find("conv2d")[1]
    kept = {}

    def conv2d(X, weight, bias=None, **options):
        key = (X.sum().item(), weight.sum().item())
        kept[key] = kept.get(key, 0) + 1
        return exercise.solution(X, weight, bias, **options)

    found = meet(record(exercise).speed, Laps(conv2d), Laps(exercise.solution))
    assert found.outcome in (WITHIN, UNDECIDED)
    assert set(kept.values()) == {1}


def test_half_precision_is_wrong(pool):
    body = "return torch.nn.functional.conv2d(X.half(), weight.half(), None, stride, padding, dilation, groups).float()"
    assert timed(pool, body).outcome == WRONG


def test_a_crash_in_a_timed_call_is_said_to_be_one(pool):
    body = f"""
    if X.shape[0] == 8:
        sys.exit(3) if X.sum() > 1e9 else __import__("os")._exit(3)
    {HONEST}
    """
    found = timed(pool, body)
    assert found.outcome == WRONG
    assert found.finding.kind == "worker_exit"


def test_an_exception_in_a_timed_call_is_said_with_its_text(pool):
    found = timed(pool, "raise MemoryError('no more') if X.shape[0] == 8 else None")
    assert found.outcome == WRONG
    assert found.finding.facts["text"] == "no more"


def test_code_that_is_confined_gets_no_gpu(pool):
    with Worker(pool) as worker:
        if worker.level == "portable":
            pytest.skip("only the portable level is to be had here")
        assert worker.lacks("cuda") == CONFINED
        assert worker.lacks("cpu") == ""
    assert InProcess(len).lacks("cpu") == ""


def test_time_counts_as_soon_as_the_values_are_right():
    course = load_course()
    exercise = course.find("pool2d")[1]

    def pool2d(X, kernel_size, **options):
        if X.ndim != 4:
            raise TypeError  # the contract wants ValueError
        for _ in range(40):
            exercise.solution(X, kernel_size, **options)
        return exercise.solution(X, kernel_size, **options)

    def off(X, kernel_size, **options):
        return pool2d(X, kernel_size, **options) + 1

    checks = {}
    for candidate in (pool2d, off):
        found = verdict_on(course, exercise, Program("pool2d", ()), InProcess(candidate), Options())
        checks[candidate.__name__] = {finding.check for finding in found.findings}
    assert {"errors", "speed"} <= checks["pool2d"]
    assert "speed" not in checks["off"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_grading_on_a_gpu_that_is_not_there_says_so_and_costs_nothing():
    course = load_course()
    exercise = course.find("pool2d")[1]
    program = Program(exercise.name, solution_source(exercise))
    with sandbox.open("portable", entry=ENTRY) as pool, Worker(pool) as worker:
        assert worker.lacks("cuda") == NO_GPU
        verdict = verdict_on(course, exercise, program, worker, Options(device="cuda"))
    assert (verdict.status, verdict.untested) == (PASSED, (NO_GPU,))


def test_a_timed_case_is_new_for_every_process():
    speed = record(load_course().find("conv2d")[1]).speed
    assert isinstance(speed, PlannedSpeed)
    first, second = speed.call(0), speed.call(1)
    assert first.args[0].shape == second.args[0].shape
    assert not torch.equal(first.args[0], second.args[0])


def test_what_is_forbidden_is_found_on_inputs_of_the_timed_size_too():
    course = load_course()
    exercise = course.find("scaled_dot_product_attention")[1]

    def fast_when_large(q, k, v, mask=None):
        if q.shape[-2:] == (96, 32):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        return exercise.solution(q, k, v, mask)

    verdict = verdict_on(course, exercise, Program(exercise.name, ()), InProcess(fast_when_large), Options())
    assert {finding.check for finding in verdict.findings} == {"forbidden"}
    assert verdict.points == 0


def test_what_a_result_does_when_it_is_looked_at_is_timed():
    class Late(tuple):
        def __iter__(self):
            time.sleep(0.05)
            return super().__iter__()

    laps = Laps(lambda x: Late((x.clone(),)))
    laps.prepare([Call("a", (torch.rand(2),), ("x",))])
    assert laps.go(math.inf).wall >= 0.05
    assert torch.is_tensor(laps.show(0).outputs[0])
