"""Open a sandbox at the isolation that is wanted and can be had, and start sessions in it."""

import contextlib
import functools
import itertools
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from grader.sandbox.channel import Channel
from grader.sandbox.child import Plan
from grader.sandbox.client import Client, ServerError
from grader.sandbox.errors import Unavailable, WorkerError
from grader.sandbox.launch import launch
from grader.sandbox.limits import Limits
from grader.sandbox.preparation import PRELOAD, rare
from grader.sandbox.session import Session
from grader.verdict import N_

LEVELS = ("none", "portable", "linux", "strict")
_DEFAULT = Limits()
_NONE = 'level "none" is not a sandbox: it is the in-process subject, which runs the code in your own process'


class Pool:
    """A server and its sessions. Open it with `grader.sandbox.open`.

    Attributes:
        level: the level it got.
        isolation: the same for people, with what it is made of: "linux (landlock 7, seccomp)".
        missing: at level auto, why each stronger level could not be had.
    """

    def __init__(self, levels: tuple[str, ...], plan: Plan) -> None:
        self.missing: tuple[str, ...] = ()
        self._serving, self._loading = threading.Lock(), threading.Lock()
        self._sessions: set[Session] = set()
        self._numbers = itertools.count()
        self._closed = False
        self._folder = Path(tempfile.mkdtemp(prefix="grader-"))
        self._folder.chmod(0o711)  # a scratch folder inside may belong to another user
        self._plan = replace(plan, base=str(self._folder))
        self._client: Client | None = None
        try:
            self.level, self.isolation = self._try(levels)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> Session:
        """Start a session: a fresh process, confined and waiting for its first frame.

        Any number of threads may call it. A server that has ended is replaced.

        Raises:
            Unavailable: the process could not be confined.
            WorkerError: the pool is closed.
        """
        return self._start(self.level)[0]

    def load_for(self, sources: Iterable[str]) -> bool:
        """Have the server import what programs with these sources will make torch import, once, for every session.

        Returns whether that was news: sessions that have started already do without.
        """
        with self._loading:
            news = tuple(name for name in rare(sources) if name not in self._plan.preload)
            if news:
                self._plan = replace(self._plan, preload=(*self._plan.preload, *news))
                with contextlib.suppress(ServerError):  # it has ended: the next one follows the plan
                    self._server().load(news)
            return bool(news)

    def close(self) -> None:
        """End every session and the server. Harmless when repeated."""
        with self._serving:
            self._closed = True
        for session in tuple(self._sessions):
            session.close()
        if self._client is not None:
            self._client.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _try(self, levels: tuple[str, ...]) -> tuple[str, str]:
        """Return the first of the levels that a trial session reaches, and its description."""
        for level in levels:
            try:
                session, in_force = self._start(level)
            except Unavailable as error:
                if level == levels[-1]:
                    raise
                self.missing += (str(error),)
                continue
            session.close()
            way = ", fresh process" if self._plan.fresh else ""
            return level, f"{level} ({in_force}{way})"
        raise AssertionError("no level to try")

    def _start(self, level: str) -> tuple[Session, str]:
        limits = self._plan.limits
        for attempt in (1, 2):
            client = self._server()
            folder = self._scratch(level)
            try:
                launched = launch(client, level, str(folder), limits.start_seconds)
            except ServerError as error:
                if client.alive or attempt == 2:
                    raise Unavailable(str(error)) from None
                continue
            session = Session(
                client, launched.pid, level, limits, Channel(launched.pipes, limits.frame_bytes, limits.output_bytes),
                functools.partial(self._forget, folder if level == "portable" else None),
            )  # fmt: skip
            self._sessions.add(session)
            return session, launched.in_force
        raise AssertionError("both attempts return or raise")

    def _server(self) -> Client:
        """Return the running server; start one if there is none, or none any more."""
        with self._serving:
            if self._closed:
                raise WorkerError("closed", N_("the pool was closed"))
            if self._client is None or not self._client.alive:
                if self._client is not None:
                    self._client.close()
                try:
                    self._client = Client(self._plan)
                except ServerError as error:
                    raise Unavailable(f"the sandbox server could not start: {error}") from None
            return self._client

    def _scratch(self, level: str) -> Path:
        """Make the session's scratch folder, or the empty folder on which it mounts its own root."""
        folder = self._folder / ("root" if level == "strict" else f"scratch-{next(self._numbers)}")
        if level != "linux":
            folder.mkdir(mode=0o700, exist_ok=level == "strict")
        return folder

    def _forget(self, folder: Path | None, session: Session) -> None:
        self._sessions.discard(session)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def open_pool(
    level: str = "auto",
    limits: Limits = _DEFAULT,
    entry: str = "grader.worker:serve",
    preload: tuple[str, ...] = PRELOAD,
    path: tuple[str, ...] = (),
    fresh: bool | None = None,
) -> Pool:
    """Open a sandbox; close it, or use it as a context manager.

    Args:
        level: portable, linux, strict, or auto for the strongest of them that works here.
        limits: of each session.
        entry: "module:function", called as `function(receive, send)` in every session's process once it is confined.
            The module is imported before, where files can still be read.
        preload: modules to import before there is a session.
        path: folders to find these modules in, besides the installed packages.
        fresh: make each process from a new interpreter instead of forking a prepared one. By default only where
            forking is unsafe, which is everywhere but on Linux: each session then pays for its imports.

    Raises:
        ValueError: there is no such level, or it is not a sandbox.
        Unavailable: the level cannot be had; the message names what is missing and the fix.
    """
    if level == "none":
        raise ValueError(_NONE)
    if level not in (*LEVELS, "auto"):
        raise ValueError(f"no such isolation level: {level!r}; there are auto, {', '.join(LEVELS)}")
    linux = sys.platform == "linux"
    plan = Plan(entry, preload, path, limits, fresh=not linux if fresh is None else fresh)
    strongest_first = ("strict", "linux", "portable") if linux else ("portable",)
    pool = Pool(strongest_first if level == "auto" else (level,), plan)
    if linux and level == "auto" and pool.level == "portable":
        warnings.warn(f"submissions are not kept from your files and network: {pool.missing[-1]}", stacklevel=2)
    return pool
