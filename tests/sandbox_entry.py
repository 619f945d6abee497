"""The learner's side of the sandbox tests: run source text and report what it managed."""

import json
import traceback
from collections.abc import Callable


def serve(receive: Callable[[], bytes], send: Callable[[bytes], None]) -> None:
    """Answer each frame of source with JSON: the value it left in `result`, or the error it raised."""
    names: dict[str, object] = {"send": send, "receive": receive}
    while True:
        source = receive().decode()
        try:
            exec(compile(source, "submission", "exec"), names)
            answer = {"result": names.pop("result", None)}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
        send(json.dumps(answer, default=repr).encode())
