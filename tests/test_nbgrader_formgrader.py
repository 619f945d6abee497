"""nbgrader's formgrader, served by jupyter and looked at in a real browser."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nbgrader_course import (
    EXERCISES,
    NAIVE,
    UNIT,
    another,
    answered,
    autograde,
    course,
    earned,
    environment,
    hand_in,
    most,
    released,
    solutions,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to look at pages with: apt-get install chromium"),
]
__all__ = ["course"]

TOKEN = "secret-of-this-test"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,1600",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=20000",
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A running formgrader."""

    root: Path
    port: int

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token={TOKEN}"

    def api(self, path: str, method: str = "GET") -> Any:
        """Call formgrader as its own pages do."""
        request = urllib.request.Request(self.address(f"formgrader/api/{path}"), method=method)
        request.add_header("Authorization", f"token {TOKEN}")
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())

    def look(self, path: str, *more: str) -> str:
        """Let the browser load a page and run its scripts; return what it then shows, as HTML."""
        assert CHROMIUM is not None
        words = [CHROMIUM, *FLAGS, f"--user-data-dir={self.root / 'browser'}", *more, self.address(path)]
        done = subprocess.run(words, capture_output=True, timeout=180, check=True, env=environment(self.root))
        return done.stdout.decode()

    def page(self, path: str) -> str:
        return self.look(path, "--dump-dom")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def site(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Formgrader on a course with a graded submission and one that is still to be graded."""
    root = another(course, tmp_path_factory.mktemp("formgrader") / "course")
    hand_in(root, "naive", answered(root, softmax=NAIVE))
    autograde(root)
    hand_in(root, "waiting", answered(root))
    hand_in(root, "blank", released(root))
    hand_in(root, "script", "\n\n\n".join(solutions(root)[name] for name in EXERCISES).encode(), f"{UNIT}.py")
    found = Site(root, free_port())
    words = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={found.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}",
    ]  # fmt: skip
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(words, cwd=root, env=environment(root), stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_up(found, server)
            yield found
        finally:
            server.terminate()
            server.wait(60)


def wait_until_up(site: Site, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.poll() is None, (site.root / "server.log").read_text()[-4000:]
        try:
            site.api("status")
            return
        except urllib.error.URLError:
            time.sleep(0.5)
    pytest.fail("the server does not answer\n" + (site.root / "server.log").read_text()[-4000:])


def submission_of(site: Site, student: str) -> str:
    """Return formgrader's id of a student's notebook."""
    found = site.api(f"submitted_notebooks/{UNIT}/{UNIT}")
    return str(next(one["id"] for one in found if one["student"] == student))


def test_the_list_of_assignments(site: Site) -> None:
    page = site.page("formgrader/manage_assignments")
    assert UNIT in page
    assert page.count("loading") < 3
    row = page[page.index(UNIT) :]
    assert ">4<" in row.replace("\n", "").replace(" ", "")  # submissions


def test_a_submission_with_our_feedback_and_the_score(site: Site) -> None:
    page = site.page(f"formgrader/submissions/{submission_of(site, 'naive')}/")
    assert "Subtract the largest score first" in page  # our hint, in our page
    assert "partly right" in page
    points = earned(site.root, "naive")[0]
    assert f"{points:g} of {most(site.root)[0]:g} points" in page
    listed = site.page(f"formgrader/gradebook/{UNIT}/{UNIT}")
    total = sum(score or 0 for score in earned(site.root, "naive"))
    assert f"{total:g} / " in listed
    picture = os.environ.get("FORMGRADER_PICTURE")
    if picture:
        site.look(f"formgrader/submissions/{submission_of(site, 'naive')}/", f"--screenshot={picture}")


def test_the_autograde_button(site: Site) -> None:
    for student, expected in (("waiting", most(site.root)), ("blank", [0.0, 0.0]), ("script", most(site.root))):
        answer = site.api(f"submission/{UNIT}/{student}/autograde", "POST")
        assert answer["success"], answer
        assert earned(site.root, student) == expected
    assert "passed" in site.page(f"formgrader/submissions/{submission_of(site, 'waiting')}/")
