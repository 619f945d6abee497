"""What runs inside a sandboxed child: loads a learner's program, makes calls, sends back what happened.

It holds torch, the learner's source and the inputs; the truth, tolerances, hints and wrong answers never come here.
Requests say what to do:

    observe   load a program; one reply for that. Then a frame with the calls; one reply for each.
    prepare   get a block of calls of the loaded program ready; an empty reply.
    go        make them; the reply says how long that took.
    show      the reply is the result of one of them.
    watch     make one call, watched and not timed; the reply is its observation.
    lacks     the reply says why a device cannot be used in here; nothing if it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from grader import wire
from grader.calls import Call, Observation, Raised
from grader.device import missing
from grader.laps import Laps
from grader.observe import observed, quiet
from grader.plain import describe
from grader.slicing import Program
from grader.submission import load_program

Receive = Callable[[], bytes]
Send = Callable[[bytes], None]


def serve(receive: Receive, send: Send) -> None:
    """Answer requests for ever."""
    laps = Laps(describe)
    while True:
        request = wire.unpack(receive())
        token, do = request["token"], request["do"]
        if do == "observe":
            laps = answer_calls(request, receive, send)
        elif do == "prepare":
            laps.prepare([Call.from_data(data) for data in request["calls"]])
            send(reply(token, None))
        elif do == "go":
            send(reply(token, asdict(laps.go(math.inf))))
        elif do == "lacks":
            send(reply(token, missing(request["device"])))
        elif do == "watch":
            send(reply(token, laps.watch(Call.from_data(request["call"])).to_data()))
        else:
            send(reply(token, laps.show(request["index"]).to_data()))


def answer_calls(request: dict[str, Any], receive: Receive, send: Send) -> Laps:
    """Load a program and make calls; what is timed later is the same program."""
    calls = wire.unpack(receive())
    token = request["token"]
    candidate, problem = load(request)
    if problem is not None:
        send(reply(token, problem.to_data()))
        return Laps(candidate)
    send(reply(token, None))
    for data in calls:
        send(reply(token, observed(candidate, Call.from_data(data)).to_data()))
    return Laps(candidate)


def load(request: dict[str, Any]) -> tuple[Callable[..., Any], Observation | None]:
    """Run a program's definitions; what goes wrong comes back as an observation."""
    program = Program(request["name"], tuple(tuple(part) for part in request["parts"]))
    provided = [tuple(part) for part in request["provided"]]
    try:
        with quiet():
            return load_program(program, provided), None
    except (Exception, SystemExit) as error:
        return describe, Observation(raised=describe(error, "load"))


def reply(token: str, content: Any) -> bytes:
    """Pack a reply; a result that cannot be sent becomes an exception."""
    try:
        return wire.pack({"token": token, "content": content})
    except Exception as error:  # not plain data, or a tensor of a type that has no bytes to send
        refused = Observation(raised=Raised(("ValueError",), f"the result cannot be compared: {error}", "result"))
        return wire.pack({"token": token, "content": refused.to_data()})
