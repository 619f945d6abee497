"""Run code that is not trusted in a confined process of its own and exchange frames of bytes with it.

    with sandbox.open("linux", entry="module:function") as pool, pool.start() as session:
        session.send(b"...")
        answer = session.receive(cpu=10)

What a frame means is the caller's affair: nothing here interprets one, and nothing is ever unpickled.

Level portable keeps the grader alive and its memory out of reach. Level linux also keeps the code from files, network
and other processes, with means that need no privilege. Level strict puts a second, independent wall around that.
"""

import sys

from grader.sandbox.errors import Unavailable, WorkerError
from grader.sandbox.limits import Limits

if sys.platform == "win32":
    from grader.sandbox.nowhere import LEVELS, Pool, Session, open_pool
else:
    from grader.sandbox.pool import LEVELS, Pool, open_pool
    from grader.sandbox.session import Session

open = open_pool  # noqa: A001 - it is always written `sandbox.open`

__all__ = ["LEVELS", "Limits", "Pool", "Session", "Unavailable", "WorkerError", "open"]
