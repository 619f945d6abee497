"""What runs inside a sandboxed child: loads a learner's program, makes calls, sends back what happened.

It holds torch, the learner's source and the inputs; the truth, tolerances, hints and wrong answers never come here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grader import wire
from grader.calls import Call, Observation, Raised
from grader.observe import observe, quiet
from grader.plain import describe
from grader.slicing import Program
from grader.submission import load_program

Receive = Callable[[], bytes]
Send = Callable[[bytes], None]


def serve(receive: Receive, send: Send) -> None:
    """Answer requests for ever: a program, its calls; one reply for loading, then one per call."""
    while True:
        request = wire.unpack(receive())
        calls = wire.unpack(receive())
        token = request["token"]
        candidate, problem = load(request)
        if problem is not None:
            send(reply(token, problem.to_data()))
            continue
        send(reply(token, None))
        for data in calls:
            send(reply(token, answer(candidate, Call.from_data(data))))


def load(request: dict[str, Any]) -> tuple[Callable[..., Any], Observation | None]:
    """Run a program's definitions; what goes wrong comes back as an observation."""
    program = Program(request["name"], tuple(tuple(part) for part in request["parts"]))
    provided = [tuple(part) for part in request["provided"]]
    try:
        with quiet():
            return load_program(program, provided), None
    except (Exception, SystemExit) as error:
        return describe, Observation(raised=describe(error, "load"))


def answer(candidate: Callable[..., Any], call: Call) -> dict[str, Any]:
    """Make one call."""
    return observe(candidate, call).to_data()


def reply(token: str, content: Any) -> bytes:
    """Pack a reply; a result that cannot be sent becomes an exception."""
    try:
        return wire.pack({"token": token, "content": content})
    except wire.WireError as error:
        refused = Observation(raised=Raised(("ValueError",), f"the result cannot be compared: {error}", "result"))
        return wire.pack({"token": token, "content": refused.to_data()})
