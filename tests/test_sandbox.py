"""The sandbox as a caller meets it: levels, frames, limits, output, ends, and what happens when it breaks."""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from grader import sandbox

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no sandbox on Windows")
HERE = Path(__file__).resolve().parent
LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has the fork server and the means of confinement"
)


def opened(level: str = "portable", **options: Any) -> sandbox.Pool:
    options = {"entry": "sandbox_entry:serve", "path": (str(HERE),), "preload": (), **options}
    return sandbox.open(level, **options)


@pytest.fixture(scope="module")
def pool() -> Iterator[sandbox.Pool]:
    with opened() as pool:
        yield pool


@pytest.fixture
def session(pool: sandbox.Pool) -> Iterator[sandbox.Session]:
    with pool.start() as session:
        yield session


def ask(session: sandbox.Session, source: str, cpu: float = 10, wall: float | None = None) -> dict[str, Any]:
    session.send(dedent(source).encode())
    answer: dict[str, Any] = json.loads(session.receive(cpu, wall))
    return answer


# levels


def test_none_is_not_a_sandbox() -> None:
    with pytest.raises(ValueError, match="in-process"):
        sandbox.open("none")


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ValueError, match=r"'strictest'.*portable, linux, strict"):
        sandbox.open("strictest")


@LINUX
@pytest.mark.parametrize("level", ["portable", "linux", "strict"])
def test_a_level_says_what_it_is_made_of_and_imports_late(level: str) -> None:
    """Any module of the standard library and of torch can be imported after confinement."""
    try:
        pool = opened(level, preload=("torch",))
    except sandbox.Unavailable as error:
        pytest.skip(str(error))
    with pool, pool.start() as session:
        assert pool.level == level
        parts = {"portable": "rlimits", "linux": "landlock", "strict": "namespaces, landlock"}[level]
        assert pool.isolation.startswith(f"{level} ({parts}")
        answer = ask(
            session,
            """
            import sys
            names = ["asyncio", "bz2", "decimal", "mailbox", "multiprocessing.pool", "sqlite3", "ssl", "wave"]
            names += ["tomllib", "unittest.mock", "uuid", "zoneinfo", "torch.func", "torch.distributions"]
            names += ["torch.ao.quantization", "torch.nn.utils.prune", "torch.utils.checkpoint", "torch._dynamo"]
            late = [name for name in names if name not in sys.modules]
            for name in names:
                __import__(name)
            import torch
            x = torch.ones(3, requires_grad=True)
            torch.optim.AdamW([x]).step(lambda: x.sum().backward() or x.sum())
            result = [late, torch.func.jacrev(torch.sin)(torch.zeros(1)).item(), torch.get_num_threads()]
            """,
            cpu=60,
        )
        assert "result" in answer, answer["trace"]
        late, slope, threads = answer["result"]
        assert len(late) > 3
        assert (slope, threads) == (1.0, 1)


@LINUX
def test_auto_takes_the_strongest_and_says_what_is_missing() -> None:
    with opened("auto") as pool:
        stronger = ["strict", "linux", "portable"].index(pool.level)
        assert len(pool.missing) == stronger
        with pool.start() as session:
            assert ask(session, "result = 'answer'") == {"result": "answer"}


@LINUX
def test_auto_falls_back_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the system's parts: a server that finds none of them, simulated by a broken one."""
    from grader.sandbox import pool as module

    real = module.launch

    def only_portable(client: Any, level: str, folder: str, seconds: float) -> Any:
        if level != "portable":
            raise sandbox.Unavailable(f"level {level} needs what is not here")
        return real(client, level, folder, seconds)

    monkeypatch.setattr(module, "launch", only_portable)
    with pytest.warns(UserWarning, match="level linux needs what is not here"):
        pool = opened("auto")
    with pool:
        assert pool.level == "portable"
        assert len(pool.missing) == 2


@LINUX
def test_what_is_missing_is_named_with_the_fix() -> None:
    from grader.sandbox import confine

    found = confine.means()
    for level in ("linux", "strict"):
        with pytest.raises(sandbox.Unavailable, match=f"level {level} needs Landlock: a kernel of 5.13"):
            confine.require(level, replace(found, landlock=0))
        with pytest.raises(sandbox.Unavailable, match="apt-get install libseccomp2"):
            confine.require(level, replace(found, landlock=7, libseccomp=None))
    confine.require("portable", replace(found, landlock=0, libseccomp=None))


def test_a_fresh_process_for_each_session() -> None:
    with opened(fresh=True) as pool:
        assert "fresh process" in pool.isolation
        with pool.start() as session:
            assert ask(session, "import os; result = [os.getpid(), 'torch' in dir()]")["result"] == [session.pid, False]


@pytest.mark.parametrize(
    "options",
    [{"entry": "no_such_module:serve"}, {"preload": ("no_such_module",), "fresh": True}],
    ids=["fork", "fresh"],
)
def test_what_cannot_be_imported_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(sandbox.Unavailable, match="No module named 'no_such_module'"):
        opened(**options)


LOADED = "import sys; result = 'torch._dynamo' in sys.modules"


@pytest.mark.parametrize("fresh", [pytest.param(False, marks=LINUX), True], ids=["fork", "fresh"])
def test_what_few_programs_need_is_imported_before_the_first_of_them(fresh: bool) -> None:
    with opened(preload=("torch",), fresh=fresh) as pool:
        assert not pool.load_for(["y = torch.exp(x)", "optimal = function(x)"])
        with pool.start() as session:
            assert ask(session, LOADED) == {"result": False}
        assert pool.load_for(["y = torch.exp(x)", "torch.optim.SGD(parameters, 0.1)"])
        with pool.start() as session:
            assert ask(session, LOADED) == {"result": True}
        assert not pool.load_for(["torch.optim.SGD(parameters, 0.1)"])


@pytest.mark.parametrize("fresh", [pytest.param(False, marks=LINUX), True], ids=["fork", "fresh"])
def test_programs_that_plot_can_import_matplotlib(fresh: bool) -> None:
    with opened(preload=("torch",), fresh=fresh) as pool:
        assert pool.load_for(["import matplotlib.pyplot as plt"])
        with pool.start() as session:
            backend = "import matplotlib.pyplot as plt; result = plt.get_backend().lower()"
            assert ask(session, backend) == {"result": "agg"}


@LINUX
def test_a_server_that_is_replaced_has_imported_as_much() -> None:
    with opened(preload=("torch",)) as pool:
        assert pool.load_for(["torch.func.grad(f)"])
        assert pool._client is not None
        os.kill(pool._client.pid, signal.SIGKILL)
        time.sleep(0.2)
        with contextlib.suppress(sandbox.WorkerError):
            pool.start().close()
        with pool.start() as session:
            assert ask(session, LOADED) == {"result": True}


# frames


def test_frames_of_every_size(session: sandbox.Session) -> None:
    """Also larger than any pipe, both ways, and many in one session."""
    session.send(b"while True: send(receive())")
    for length in (0, 1, 65535, 65536, 5_000_000):
        frame = os.urandom(length)
        session.send(frame)
        assert session.receive(10) == frame


def test_sending_never_waits_for_a_process_that_does_not_listen(session: sandbox.Session) -> None:
    session.send(b"while True: pass")
    session.send(bytes(20_000_000))
    with pytest.raises(sandbox.WorkerError, match="CPU time"):
        session.receive(0.2)


def test_several_frames_may_be_under_way(session: sandbox.Session) -> None:
    for number in range(5):
        session.send(f"result = {number}".encode())
    assert [json.loads(session.receive(5)) for _ in range(5)] == [{"result": number} for number in range(5)]


def test_a_session_keeps_its_state_and_shares_it_with_none(pool: sandbox.Pool) -> None:
    with pool.start() as one, pool.start() as other:
        ask(one, "import json; x = 1; json.x = 1")
        assert ask(one, "result = x + json.x")["result"] == 2
        assert ask(other, "result = x")["error"] == "NameError"
        assert ask(other, "import json; result = hasattr(json, 'x')")["result"] is False


# limits


def test_the_cap_of_an_answer() -> None:
    with opened(limits=sandbox.Limits(frame_bytes=1000)) as pool:
        with pool.start() as session:
            session.send(b"send(bytes(1000))")
            assert len(session.receive(5)) == 1000
        with pool.start() as session:
            session.send(b"send(bytes(1001))")
            with pytest.raises(sandbox.WorkerError, match="larger than 1000 bytes"):
                session.receive(5)


def test_the_watchdog_sees_resident_memory(session: sandbox.Session) -> None:
    """Even where the kernel's own limit does not count it."""
    session._limits = replace(session._limits, memory_bytes=400 << 20)
    session.send(b"kept = bytearray(b'x') * (500 << 20); __import__('time').sleep(20)")
    with pytest.raises(sandbox.WorkerError, match="used more than 400 MB of memory") as caught:
        session.receive(10)
    assert caught.value.kind == "memory"


def test_the_cpu_budget_is_that_of_one_answer(session: sandbox.Session) -> None:
    busy = "import time; end = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    for _ in range(3):
        ask(session, busy, cpu=1)


def test_open_files(session: sandbox.Session) -> None:
    answer = ask(session, "files = [open('/dev/null') for _ in range(200)]")
    assert answer["error"] == "OSError"


# output


def test_output_is_there_with_the_answer_and_after_a_death(pool: sandbox.Pool) -> None:
    with pool.start() as session:
        ask(session, "import sys; print('printed'); print('said ü', file=sys.stderr)")
        assert session.output == "printed\nsaid ü\n"
        with pytest.raises(sandbox.WorkerError):
            ask(session, "print('last words', flush=True); import os; os._exit(3)")
        assert session.output.endswith("last words\n")


def test_an_error_outside_the_submission_is_in_the_output(session: sandbox.Session) -> None:
    with pytest.raises(sandbox.WorkerError, match="exit status 1"):
        ask(session, "import json; json.dumps = None")
    assert "TypeError: 'NoneType' object is not callable" in session.output


def test_closed_or_replaced_standard_streams(pool: sandbox.Pool) -> None:
    for damage in ("sys.stdout.close()", "sys.stdout = None", "os.close(1)", "os.close(2)"):
        with pool.start() as session:
            assert ask(session, f"import os, sys; {damage}; result = 1") == {"result": 1}


# ends


def test_close_is_final_and_may_be_repeated(pool: sandbox.Pool) -> None:
    session = pool.start()
    session.close()
    session.close()
    for use in (lambda: session.send(b""), lambda: session.receive(1)):
        with pytest.raises(sandbox.WorkerError, match="the session was closed") as caught:
            use()
        assert caught.value.kind == "closed"
    with pytest.raises(ProcessLookupError):
        os.kill(session.pid, 0)


def test_a_failure_is_remembered(session: sandbox.Session) -> None:
    for _ in range(2):
        with pytest.raises(sandbox.WorkerError, match="exit status 7"):
            ask(session, "import os; os._exit(7)")


def test_closing_the_pool_ends_everything_and_leaves_no_file() -> None:
    pool = opened()
    session = pool.start()
    folder = Path(ask(session, "import os; open('file', 'w').write('x'); result = os.getcwd()")["result"])
    assert (folder / "file").exists()
    pool.close()
    pool.close()
    assert not folder.parent.exists()
    with pytest.raises(sandbox.WorkerError, match="closed"):
        session.receive(1)
    with pytest.raises(sandbox.WorkerError, match="pool was closed"):
        pool.start()


def test_scratch_is_empty_and_goes_with_its_session(pool: sandbox.Pool) -> None:
    for _ in range(2):
        with pool.start() as session:
            files, folder = ask(
                session,
                """
                import os, tempfile
                result = os.listdir(), os.getcwd()
                os.makedirs("a/b"); open("a/b/c", "w").close()
                assert os.path.realpath(tempfile.gettempdir()) == os.path.realpath(os.getcwd())
                """,
            )["result"]
            assert files == []
            assert Path(folder, "a", "b", "c").exists()
        assert not Path(folder).exists()


def test_no_descriptor_leaks(pool: sandbox.Pool) -> None:
    pool.start().close()
    before = len(list(Path("/dev/fd").iterdir()))
    for source in ("result = 1", "import os; os._exit(0)"):
        with pool.start() as session, contextlib.suppress(sandbox.WorkerError):
            ask(session, source)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_server_that_was_killed_is_replaced() -> None:
    with opened() as pool:
        session = pool.start()
        assert pool._client is not None
        os.kill(pool._client.pid, signal.SIGKILL)
        time.sleep(0.2)
        with pytest.raises(sandbox.WorkerError, match="together with the sandbox server") as caught:
            ask(session, "result = 1", cpu=2)
        assert caught.value.blameless
        with pool.start() as fresh:
            assert ask(fresh, "result = 2") == {"result": 2}


def test_several_threads(pool: sandbox.Pool) -> None:
    def work(number: int) -> int:
        with pool.start() as session:
            if number % 5 == 0:
                with pytest.raises(sandbox.WorkerError, match="SIGSEGV"):
                    ask(session, "import ctypes; ctypes.string_at(0)")
                return number * number
            answer: int = ask(session, f"result = {number} ** 2")["result"]
            return answer

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(40))) == [number * number for number in range(40)]
    assert threading.active_count() < 8


# pieces


def test_ps_is_read_as_well_as_proc() -> None:
    if shutil.which("ps") is None:
        pytest.skip("there is no ps")
    from grader.sandbox import usage

    used = usage._from_ps(os.getpid())
    assert used is not None
    assert used.memory > 10 << 20
    assert [usage.seconds(text) for text in ("0:01.50", "01:02", "1:00:00", "2-00:00:01")] == [1.5, 62, 3600, 172801]


def test_the_allow_list_holds_libraries_only() -> None:
    from grader.sandbox import readable

    roots = [Path(root) for root in readable.roots()]
    assert any(root in Path(os.__file__).parents for root in roots)
    assert any(root in Path(pytest.__file__).parents for root in roots)
    for private in (HERE, HERE.parent, HERE.parent / "reference", Path(sandbox.__file__).parent, Path.home()):
        if "site-packages" not in private.parts:
            assert not any(root == private or root in private.parents for root in roots), private


def test_deaths_are_told_in_words() -> None:
    from grader.sandbox.errors import death, size

    assert str(death(signal.SIGSEGV, 0, 10, "")) == "killed by signal SIGSEGV"
    assert death(signal.SIGABRT, 0, 10, "terminate called ... std::bad_alloc").kind == "memory"
    assert death(signal.SIGKILL, 10.2, 10, "").kind == "timeout"
    assert death(signal.SIGKILL, 1, 10, "").kind == "crash"
    assert death(3 << 8, 1, 10, "").kind == "exit"
    assert [size(count) for count in (12, 65536, 3 << 30, 1 << 20)] == ["12 bytes", "64 KB", "3 GB", "1 MB"]
