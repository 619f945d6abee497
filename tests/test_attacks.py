"""One test for each attack, at every level that claims to stop it.

Each attack is source text that the sandboxed process runs and that reports, as data, what it managed to do. All are
bounded: at most 300 processes, 300 MB and 20 seconds.
"""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from grader import sandbox

HERE = Path(__file__).resolve().parent
NORMAL = sandbox.Limits()
SMALL = sandbox.Limits(memory_bytes=1200 << 20, cpu_seconds=1)
DENIED = {"PermissionError"}
HIDDEN = {"linux": DENIED, "strict": {"FileNotFoundError"}}  # of a path: forbidden, or not there at all

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no sandbox on Windows")


@pytest.fixture(scope="module")
def pools() -> Iterator[Callable[..., sandbox.Pool]]:
    """Open each pool once, when a test first asks for it."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def pool(level: str, limits: sandbox.Limits = NORMAL) -> sandbox.Pool | str:
            try:
                opened = sandbox.open(level, limits, "sandbox_entry:serve", ("torch",), (str(HERE),))
            except sandbox.Unavailable as error:
                return str(error)
            return stack.enter_context(opened)

        def get(level: str, limits: sandbox.Limits = NORMAL) -> sandbox.Pool:
            found = pool(level, limits)
            return pytest.skip(found) if isinstance(found, str) else found

        yield get


@pytest.fixture(params=["portable", "linux", "strict"])
def every(request: pytest.FixtureRequest, pools: Callable[..., sandbox.Pool]) -> sandbox.Pool:
    """A pool at each level."""
    return pools(request.param)


@pytest.fixture(params=["portable", "linux", "strict"])
def small(request: pytest.FixtureRequest, pools: Callable[..., sandbox.Pool]) -> sandbox.Pool:
    """A pool at each level with little memory and CPU time."""
    return pools(request.param, SMALL)


@pytest.fixture(params=["linux", "strict"])
def walled(request: pytest.FixtureRequest, pools: Callable[..., sandbox.Pool]) -> sandbox.Pool:
    """A pool at each level that keeps code from files, network and other processes."""
    return pools(request.param)


@pytest.fixture
def strict(pools: Callable[..., sandbox.Pool]) -> sandbox.Pool:
    """A pool at the level that hides what it forbids."""
    return pools("strict")


def ask(session: sandbox.Session, source: str, cpu: float = 10, wall: float | None = None) -> dict[str, Any]:
    session.send(dedent(source).encode())
    answer: dict[str, Any] = json.loads(session.receive(cpu, wall))
    return answer


def result(pool: sandbox.Pool, source: str, cpu: float = 10) -> Any:
    """Run source in a session of its own and return what it left in `result`."""
    with pool.start() as session:
        answer = ask(session, source, cpu)
    assert "result" in answer, answer["trace"]
    return answer["result"]


def attempts(pool: sandbox.Pool, *actions: str, before: str = "") -> dict[str, str]:
    """Try each expression in one session; return the name of the exception it raised, or "done"."""
    source = f"""
import ctypes, errno, os, resource, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
{dedent(before)}
result = {{}}
for action in {actions!r}:
    try:
        eval(action)
    except Exception as error:
        result[action] = type(error).__name__
    else:
        result[action] = "done"
"""
    outcome: dict[str, str] = result(pool, source)
    assert list(outcome) == list(actions)
    return outcome


def death(pool: sandbox.Pool, source: str, cpu: float = 10, wall: float | None = None) -> sandbox.WorkerError:
    """Run source that must not answer; the process must be gone afterwards."""
    with pool.start() as session, pytest.raises(sandbox.WorkerError) as caught:
        ask(session, source, cpu, wall)
    assert not alive(session.pid)
    return caught.value


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# files


def test_cannot_read_the_course_or_other_submissions(walled: sandbox.Pool, tmp_path: Path) -> None:
    other = tmp_path / "other_submission.py"
    other.write_text("answer = 42")
    paths = [HERE / "test_attacks.py", HERE.parent / "reference" / "__init__.py", HERE.parent / "pyproject.toml", other]
    paths += [Path("/etc/passwd"), Path("/etc/shadow"), Path(sys.prefix, "pyvenv.cfg")]
    outcome = attempts(walled, *(f"open({str(path)!r}).read()" for path in paths))
    assert set(outcome.values()) <= HIDDEN[walled.level], outcome


def test_cannot_list_folders(walled: sandbox.Pool) -> None:
    outcome = attempts(walled, *(f"os.listdir({str(path)!r})" for path in (HERE, HERE.parent, Path.home(), "/etc")))
    assert set(outcome.values()) <= HIDDEN[walled.level] | DENIED, outcome  # strict: the way to a mount is there


def test_cannot_import_the_course(every: sandbox.Pool) -> None:
    assert attempts(every, "__import__('reference')", "__import__('test_attacks')") == {
        "__import__('reference')": "ModuleNotFoundError",
        "__import__('test_attacks')": "ModuleNotFoundError",
    }
    assert result(every, "import sys; result = [name for name in sys.modules if name.startswith('reference')]") == []


def test_cannot_learn_that_a_file_exists(strict: sandbox.Pool) -> None:
    paths = [
        str(path)
        for path in (HERE, "/etc/passwd", "/home", "/proc", "/sys", "/dev/shm", HERE.parent / "pyproject.toml")
    ]
    assert not any(result(strict, f"import os; result = [os.path.exists(path) for path in {paths}]"))


def test_cannot_list_processes(walled: sandbox.Pool) -> None:
    outcome = attempts(walled, "os.listdir('/proc')", f"open('/proc/{os.getpid()}/cmdline').read()")
    assert set(outcome.values()) <= HIDDEN[walled.level]


def test_cannot_write_anywhere(walled: sandbox.Pool) -> None:
    site = next(path for path in sys.path if path.endswith("-packages"))
    places = [Path.home(), HERE, site, "/", "/tmp", "/var/tmp", "/dev/shm", "/usr/lib"]
    places += ["."] if walled.level == "linux" else []
    outcome = attempts(walled, *(f"open({str(Path(place, 'attack.txt'))!r}, 'w')" for place in places))
    assert "done" not in outcome.values(), outcome
    assert not any(Path(place, "attack.txt").exists() for place in places)
    assert set(outcome.values()) <= {"PermissionError", "FileNotFoundError", "OSError"}, outcome


def test_cannot_change_the_mode_owner_or_times_of_a_file(walled: sandbox.Pool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    before = victim.stat()
    name = repr(str(victim))
    attempts(
        walled, f"os.chmod({name}, 0)", f"os.chown({name}, os.getuid(), -1)", f"os.utime({name}, (1, 1))",
        f"os.truncate({name}, 0)", f"os.remove({name})", f"os.rename({name}, {name} + '2')",
        f"call('syscall', 452, -100, {name}.encode(), 0, 0)",
    )  # fmt: skip
    after = victim.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime, after.st_size) == (
        before.st_mode, before.st_uid, before.st_mtime, before.st_size,
    )  # fmt: skip


def test_a_large_file_is_refused(every: sandbox.Pool) -> None:
    answer = result(
        every,
        """
        import errno, os
        result, size = "written", 0
        try:
            with open("large", "wb") as file:
                for _ in range(100):
                    size += file.write(bytes(1 << 20))
                    file.flush()
        except OSError as error:
            result = errno.errorcode[error.errno]
        result = [result, size >> 20]
        """,
    )
    assert answer == (["EACCES", 0] if every.level == "linux" else ["EFBIG", 16])


def test_many_files_do_not_fill_the_disk(walled: sandbox.Pool) -> None:
    written = result(
        walled,
        f"""
        import errno
        result = {{}}
        for place in (".", "/tmp", "/dev/shm", "/var/tmp", {str(Path.home())!r}):
            count, why = 0, None
            try:
                for number in range(20):
                    with open(f"{{place}}/attack-{{number}}", "wb") as file:
                        count += file.write(bytes(15 << 20))
            except OSError as error:
                why = errno.errorcode[error.errno]
            result[place] = [count >> 20, why]
        """,
    )
    scratch, *others = written.values()
    assert [count for count, _ in others] == [0, 0, 0, 0]
    assert scratch[0] < 64
    assert scratch[1] == ("EACCES" if walled.level == "linux" else "ENOSPC")


# network


def test_cannot_connect(walled: sandbox.Pool) -> None:
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        path = f"{folder}/socket"
        named, hidden = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for listener, address in ((named, path), (hidden, f"\0grader-test-{os.getpid()}")):
            listener.bind(address)
            listener.listen()
        Path(folder).chmod(0o755)
        Path(path).chmod(0o777)
        outcome = attempts(
            walled,
            f"socket.create_connection({tcp.getsockname()!r}, 1)",
            f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'hello', {udp.getsockname()!r})",
            f"socket.socket(socket.AF_UNIX).connect({path!r})",
            f"socket.socket(socket.AF_UNIX).connect({hidden.getsockname()!r})",
            "socket.socketpair()",
        )
        assert set(outcome.values()) == DENIED, outcome
        for listener in (tcp, udp, named, hidden):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.recv(1) if listener is udp else listener.accept()


# processes


def test_fork_bomb(walled: sandbox.Pool) -> None:
    outcome = result(
        walled,
        """
        import os
        born, errors = 0, set()
        for _ in range(300):
            try:
                pid = os.fork()
            except OSError as error:
                errors.add(type(error).__name__)
                continue
            if pid == 0:
                os._exit(0)
            born += 1
            os.waitpid(pid, 0)
        result = [born, sorted(errors)]
        """,
    )
    assert outcome == [0, ["PermissionError"]]


def test_thread_bomb(every: sandbox.Pool) -> None:
    born = result(
        every,
        """
        import threading
        stop, born = threading.Event(), []
        threading.stack_size(8 << 20)
        try:
            for _ in range(600):
                thread = threading.Thread(target=stop.wait)
                thread.start()
                born.append(thread)
        except RuntimeError:
            pass
        stop.set()
        for thread in born:
            thread.join()
        result = len(born)
        """,
    )
    assert born <= (64 if every.level == "strict" else 400)
    assert born >= 8  # threads as such are allowed


def test_cannot_run_programs(walled: sandbox.Pool) -> None:
    actions = (
        "subprocess.run(['/bin/echo'])",
        "os.execv('/bin/echo', ['echo'])",
        "os.posix_spawn('/bin/echo', ['e'], {})",
    )
    process = "__import__('multiprocessing').get_context('fork').Process(target=print).start()"
    outcome = attempts(walled, *actions, process, "os.popen('echo').read()")
    assert "done" not in outcome.values(), outcome
    assert result(walled, "import os; result = os.system('exit 0')") != 0


def test_cannot_signal_others(walled: sandbox.Pool) -> None:
    others = (os.getpid(), os.getppid(), "os.getppid() or 999999", 0, -1)
    outcome = attempts(walled, *(f"os.kill({pid}, 0)" for pid in others), "os.killpg(1, 0)")
    assert set(outcome.values()) == DENIED, outcome
    assert result(walled, "import os; os.kill(os.getpid(), 0); result = 'itself'") == "itself"


def test_cannot_change_the_limits_of_others(walled: sandbox.Pool) -> None:
    pid = os.getpid()
    outcome = attempts(
        walled,
        f"resource.prlimit({pid}, resource.RLIMIT_NOFILE)",
        f"resource.prlimit({pid}, resource.RLIMIT_NOFILE, (9, 9))",
        f"os.setpriority(os.PRIO_PROCESS, {pid}, 19)",
        "os.setpriority(os.PRIO_USER, 0, 19)",
        f"os.sched_setaffinity({pid}, {{0}})",
        f"os.sched_setscheduler({pid}, os.SCHED_IDLE, os.sched_param(0))",
    )
    assert set(outcome.values()) == DENIED, outcome


def test_cannot_look_into_a_sibling(every: sandbox.Pool) -> None:
    with every.start() as sibling:
        address = ask(
            sibling, "import ctypes; secret = ctypes.create_string_buffer(b'secret'); result = ctypes.addressof(secret)"
        )["result"]
        outcome = attempts(
            every,
            f"call('ptrace', 16, {sibling.pid}, None, None)",
            f"call('process_vm_readv', {sibling.pid}, local, 1, remote, 1, 0)",
            f"open('/proc/{sibling.pid}/mem', 'rb')",
            f"open('/proc/{sibling.pid}/environ', 'rb').read()",
            before=f"""
            page = ctypes.create_string_buffer(8)
            local = (ctypes.c_size_t * 2)(ctypes.addressof(page), 6)
            remote = (ctypes.c_size_t * 2)({address}, 6)
            """,
        )
    assert "done" not in outcome.values(), outcome


def test_nothing_is_left_behind(every: sandbox.Pool) -> None:
    """A daemon, as far as one can be made, and a process that no longer wants to die with its parent."""
    with every.start() as session:
        daemon = ask(
            session,
            """
            import ctypes, os, signal, time
            ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
            result = None
            try:
                reader, writer = os.pipe()
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.write(writer, str(os.getpid()).encode())
                        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                            signal.signal(number, signal.SIG_IGN)
                        time.sleep(1000)
                    os._exit(0)
                os.wait()
                result = int(os.read(reader, 20))
            except PermissionError:
                pass
            """,
        )["result"]
        assert (daemon is None) == (every.level != "portable")
        assert daemon is None or alive(daemon)
    assert not alive(session.pid)
    assert daemon is None or not alive(daemon)


def test_dies_with_the_grader_even_if_the_grader_is_killed(every: sandbox.Pool) -> None:
    script = f"""
from grader import sandbox
pool = sandbox.open({every.level!r}, entry="sandbox_entry:serve", path=({str(HERE)!r},), preload=())
session = pool.start()
session.send(b"import ctypes, time; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); time.sleep(1000)")
print(session.pid, pool._folder, flush=True)
session.receive(100)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as grader:
        assert grader.stdout is not None
        process, folder = grader.stdout.readline().split()
        pid = int(process)
        time.sleep(0.2)
        assert alive(pid)
        assert Path(folder).exists()
        grader.kill()
    for _ in range(200):
        if not alive(pid) and not Path(folder).exists():
            break
        time.sleep(0.05)
    assert not alive(pid)
    assert not Path(folder).exists()


# memory


@pytest.mark.parametrize("action", ["torch.empty(100 * 10**9, dtype=torch.uint8)", "bytearray(100 * 10**9)"])
def test_a_huge_allocation_is_an_ordinary_error(every: sandbox.Pool, action: str) -> None:
    assert set(attempts(every, action, before="import torch").values()) <= {"RuntimeError", "MemoryError"}


def test_memory_taken_in_small_steps(small: sandbox.Pool) -> None:
    taken = result(
        small,
        """
        import torch
        kept = []
        try:
            while len(kept) < 80:
                block = torch.empty(16 << 20, dtype=torch.uint8)
                block[:: 1 << 16] = 1
                kept.append(block)
        except (RuntimeError, MemoryError):
            pass
        result = 16 * len(kept)
        """,
    )
    assert taken < 1200


def test_memory_that_no_file_limit_counts(walled: sandbox.Pool) -> None:
    segment = "__import__('multiprocessing.shared_memory').shared_memory.SharedMemory(create=True, size=1 << 20)"
    outcome = attempts(walled, "os.memfd_create('attack')", "call('shmget', 0, 1 << 20, 0o1600)", segment)
    assert "done" not in outcome.values(), outcome


# time

LOOPS = {
    "python": "while True: pass",
    "torch": "import torch\nx = torch.ones(400, 400)\nwhile True: x = (x @ x).clamp(0, 1)",
    "deaf": """
import signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True: pass
""",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_an_endless_loop_ends_when_its_answer_is_due(every: sandbox.Pool, loop: str) -> None:
    error = death(every, LOOPS[loop], cpu=0.5)
    assert (error.kind, str(error)) == ("timeout", "used more than 0.5 s of CPU time")


def test_an_endless_loop_ends_when_the_session_has_used_its_time(small: sandbox.Pool) -> None:
    error = death(small, LOOPS["deaf"], cpu=60)
    assert (error.kind, str(error)) == ("timeout", "used more than 1 s of CPU time")


def test_the_kernel_ends_a_loop_that_nobody_watches(small: sandbox.Pool) -> None:
    """The overall limit holds without the monitor, at level strict by the hard limit."""
    with small.start() as session:
        session.send(LOOPS["deaf"].encode())
        time.sleep(0.1)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and Path(f"/proc/{session.pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.1)
        with pytest.raises(sandbox.WorkerError) as caught:
            session.receive(cpu=60)
    assert str(caught.value) == "used more than 1 s of CPU time"


def test_a_sleeper_that_ignores_every_signal(every: sandbox.Pool) -> None:
    error = death(every, LOOPS["deaf"].replace("pass", "__import__('time').sleep(100)"), cpu=5, wall=0.5)
    assert (error.kind, str(error)) == ("timeout", "did not answer within 0.5 s")


def test_sleeping_a_little_in_every_answer_adds_up(pools: Callable[..., sandbox.Pool]) -> None:
    pool = pools("portable", sandbox.Limits(idle_seconds=1))
    with pool.start() as session, pytest.raises(sandbox.WorkerError) as caught:
        all(ask(session, "import time; time.sleep(0.5)") for _ in range(20))
    assert caught.value.kind == "timeout"
    assert "waiting" in str(caught.value)


# ends


def test_much_output(every: sandbox.Pool) -> None:
    with every.start() as session, pytest.raises(sandbox.WorkerError, match="printed more than 64 KB") as caught:
        ask(session, "for _ in range(200): print('x' * 1_000_000)")
    assert caught.value.kind == "output"
    assert len(session.output) == 64 << 10


@pytest.mark.parametrize("exit_", ["import os; os._exit(0)", "import sys; sys.exit(0)"])
def test_leaving_is_not_an_answer(every: sandbox.Pool, exit_: str) -> None:
    error = death(every, exit_)
    assert (error.kind, str(error)) == ("exit", "ended before it answered (exit status 0)")


def test_segmentation_fault(every: sandbox.Pool) -> None:
    error = death(every, "import ctypes; ctypes.string_at(0)")
    assert (error.kind, str(error)) == ("crash", "killed by signal SIGSEGV")


def test_closing_the_answer_pipe(every: sandbox.Pool) -> None:
    error = death(every, "import os, time; os.closerange(3, 20); time.sleep(100)")
    assert error.kind == "closed"


# privileges


def test_cannot_gain_rights(every: sandbox.Pool) -> None:
    outcome = attempts(
        every,
        "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
        "os.setuid(0)",
        "os.setresuid(0, 0, 0)",
        "os.chroot('.')",
        "call('mount', b'none', b'/', None, 0x44000, None)",
    )
    assert set(outcome.values()) <= {"PermissionError", "ValueError", "OSError"}, outcome
    assert result(every, "import os; result = os.getuid()") != 0


def test_cannot_reach_the_kernels_dangerous_parts(walled: sandbox.Pool) -> None:
    outcome = attempts(
        walled,
        "call('unshare', 0x10000000)",
        "call('setns', 0, 0)",
        "call('syscall', 425, 1, 0)",  # io_uring_setup
        "call('syscall', 441 - 7, os.getpid(), 0)",  # pidfd_open
        "call('prctl', 1, 0, 0, 0, 0)",
        "call('personality', 0)",
    )
    assert set(outcome.values()) == DENIED, outcome


def test_sees_no_descriptor_and_no_variable_of_the_grader(every: sandbox.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADER_TEST_SECRET", "hidden")
    descriptors, variables, standard_input = result(
        every,
        """
        import os, sys
        def is_open(number):
            try:
                os.fstat(number)
            except OSError:
                return False
            return True
        result = [[n for n in range(128) if is_open(n)], sorted(os.environ), sys.stdin.read()]
        """,
    )
    assert descriptors == [0, 1, 2, 3, 4]
    assert "GRADER_TEST_SECRET" not in variables
    assert standard_input == ""


# forgery


def test_a_forged_answer_reaches_no_other_question(every: sandbox.Pool) -> None:
    with every.start() as cheat, every.start() as honest:
        cheat.send(b"send(b'forged'); send(b'also forged')")
        assert cheat.receive(5) == b"forged"
        assert ask(honest, "result = 1") == {"result": 1}
        with pytest.raises(sandbox.WorkerError, match="nobody had asked for") as caught:
            ask(cheat, "result = 2")
        assert caught.value.kind == "reply"
        assert ask(honest, "result = 3") == {"result": 3}
    assert result(every, "result = 4") == 4


def test_an_answer_that_claims_to_be_enormous(every: sandbox.Pool) -> None:
    error = death(every, "import os; os.write(4, b'\\xff' * 8); os.write(4, bytes(1000))")
    assert (error.kind, str(error)) == ("reply", "its answer is larger than 256 MB")


def test_half_an_answer(every: sandbox.Pool) -> None:
    error = death(every, "import os; os.write(4, bytes(7) + b'\\x09half'); os._exit(0)")
    assert (error.kind, str(error)) == ("exit", "ended before it answered (exit status 0)")


def test_replacing_what_the_worker_uses_harms_only_itself(every: sandbox.Pool) -> None:
    forgery = """
        import builtins, json, os, time, torch
        json.dumps = lambda *values, **options: '{"result": "mine"}'
        builtins.sum = lambda values: 0
        time.perf_counter = lambda: 0.0
        torch.allclose = torch.equal = lambda *values, **options: True
    """
    honest = """
        import time, torch
        a, b = torch.zeros(1), torch.ones(1)
        result = [sum([1, 2]), time.perf_counter() > 0, torch.allclose(a, b), torch.equal(a, b)]
    """
    assert result(every, forgery) == "mine"
    assert result(every, honest) == [3, True, False, False]
