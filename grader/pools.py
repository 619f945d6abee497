"""The sandbox of this process: opened once, and in the background if that is asked for early enough.

Its server imports torch and more, which takes as long as this process needs to do the same. Nothing here imports torch.
"""

from __future__ import annotations

import atexit
import threading
from concurrent.futures import Future

from grader import sandbox

ENTRY = "grader.worker:serve"

_opening: dict[str, Future[sandbox.Pool]] = {}
_lock = threading.Lock()


def begin(level: str) -> Future[sandbox.Pool]:
    """Start to open the sandbox of a level, unless that has been done."""
    with _lock:
        if level not in _opening:
            _opening[level] = Future()
            threading.Thread(target=_open, args=(level, _opening[level]), daemon=True).start()
        return _opening[level]


def _open(level: str, future: Future[sandbox.Pool]) -> None:
    try:
        future.set_result(sandbox.open(level, entry=ENTRY))
    except BaseException as error:
        future.set_exception(error)


def open_pool(level: str) -> sandbox.Pool:
    """Return the open sandbox of a level; it closes when this process ends.

    Raises:
        Unavailable: it cannot be had.
    """
    return begin(level).result()


@atexit.register
def _close() -> None:
    for future in _opening.values():
        if future.done() and future.exception() is None:  # a server that nobody waits for ends by itself
            future.result().close()
