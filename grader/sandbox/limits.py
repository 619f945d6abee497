"""What one sandboxed process may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one session.

    Args:
        cpu_seconds: CPU time of the whole session; `Session.receive` takes a budget for each answer besides.
        memory_bytes: address space where the kernel can limit it, resident memory everywhere (watchdog).
        file_bytes: size of one file.
        output_bytes: all that the process may print; it is killed when it prints more.
        frame_bytes: size of one answer.
        open_files: number of file descriptors.
        scratch_bytes: size of the scratch file system at level strict.
        processes: number of threads and processes at level strict, where the count is the session's own.
        idle_seconds: how much longer by the wall clock than ten times its CPU time the session may take in all, so that
            one that sleeps through every answer does not hold up the others.
        wall_slack: seconds of wall clock that `receive` adds to three times its CPU budget.
        start_seconds: how long a process may take to become ready, importing included where it must import.
    """

    cpu_seconds: float = 120.0
    memory_bytes: int = 3 << 30
    file_bytes: int = 16 << 20
    output_bytes: int = 64 << 10
    frame_bytes: int = 256 << 20
    open_files: int = 128
    scratch_bytes: int = 64 << 20
    processes: int = 64
    idle_seconds: float = 60.0
    wall_slack: float = 10.0
    start_seconds: float = 180.0
