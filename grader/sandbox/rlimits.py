"""Have the kernel enforce the limits of a process."""

import resource
import sys

from grader.sandbox.limits import Limits


def _lower(which: int, soft: int, hard: int) -> None:
    """Set a limit, but never above the hard limit that is in force."""
    ceiling = resource.getrlimit(which)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def _memory_kind() -> int:
    """Choose between address space and data segment.

    A CUDA build of torch maps and reserves several times the address space it uses, so that a limit on it would
    fail at once: there the data segment is limited, and the watchdog sees the rest.
    """
    torch = sys.modules.get("torch")
    return resource.RLIMIT_DATA if torch is not None and torch.backends.cuda.is_built() else resource.RLIMIT_AS


def apply(limits: Limits, own_count: bool) -> None:
    """Limit the calling process for good.

    Args:
        limits: what to enforce.
        own_count: whether processes are counted for this session alone (its own user namespace). Otherwise the
            count is that of the user, who may have any number of other processes: then it is not limited.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime + limits.cpu_seconds + 0.999)
    _lower(resource.RLIMIT_CPU, cpu, cpu + 1)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes)
    _lower(resource.RLIMIT_NOFILE, limits.open_files, limits.open_files)
    _lower(resource.RLIMIT_CORE, 0, 0)
    if sys.platform == "linux":  # elsewhere the kernel ignores or refuses it
        _lower(_memory_kind(), limits.memory_bytes, limits.memory_bytes)
        for which in (resource.RLIMIT_MSGQUEUE, resource.RLIMIT_MEMLOCK):
            _lower(which, 0, 0)
    if own_count:
        _lower(resource.RLIMIT_NPROC, limits.processes, limits.processes)
