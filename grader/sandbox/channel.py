"""The grader's ends of a session's pipes, none of which ever blocks."""

import os
import select
from dataclasses import dataclass

from grader.sandbox import frames

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Pipes:
    """Descriptors: requests (to write), replies and output (to read)."""

    requests: int
    replies: int
    output: int


class Channel:
    """Move bytes to and from one process, as far as possible and as far as permitted.

    Args:
        pipes: owned by the channel from now on.
        frame_bytes: cap of one answer.
        output_bytes: cap of everything printed.

    Attributes:
        printed: what the process has printed, cut at the cap.
        overflowed: whether it has printed more than that.
    """

    def __init__(self, pipes: Pipes, frame_bytes: int, output_bytes: int) -> None:
        self.printed = bytearray()
        self.overflowed = False
        self._pipes, self._frame_bytes, self._output_bytes = pipes, frame_bytes, output_bytes
        self._inbox = frames.Inbox(frame_bytes)
        self._outbox: list[memoryview] = []
        self._prints = True

    def post(self, frame: bytes) -> None:
        """Queue a frame and write what fits into the pipe now."""
        self._outbox += [memoryview(frames.header(frame)), memoryview(frame)]
        self._write_requests()

    def take(self) -> bytes | None:
        """Return the next whole answer, if there is one.

        Raises:
            frames.FrameError: it is announced as larger than the cap.
        """
        return self._inbox.take()

    def unread(self) -> bool:
        """Tell whether bytes have come that belong to no answer taken so far."""
        self._read_replies()
        return len(self._inbox) > 0

    def exchange(self, seconds: float) -> bool:
        """Move bytes both ways, waiting for the first at most so long; False once the answer pipe is closed."""
        poll = select.poll()
        poll.register(self._pipes.replies, select.POLLIN)
        if self._prints:
            poll.register(self._pipes.output, select.POLLIN)
        if self._outbox:
            poll.register(self._pipes.requests, select.POLLOUT)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
        if self._pipes.requests in ready:
            self._write_requests()
        if self._pipes.output in ready:
            self.read_output()
        return self._pipes.replies not in ready or self._read_replies()

    def read_output(self) -> None:
        """Keep what was printed, up to the cap."""
        while self._prints and not self.overflowed:
            try:
                data = os.read(self._pipes.output, 65536)
            except BlockingIOError:
                return
            self._prints = bool(data)
            self.printed += data
            self.overflowed = len(self.printed) > self._output_bytes
            del self.printed[self._output_bytes :]

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self._pipes.requests, self._pipes.replies, self._pipes.output):
            os.close(descriptor)

    def _write_requests(self) -> None:
        while self._outbox:
            try:
                count = os.write(self._pipes.requests, self._outbox[0][:_CHUNK])
            except BlockingIOError:
                return
            except BrokenPipeError:
                self._outbox.clear()  # it has ended or does not listen: there will be no answer
                return
            self._outbox[0] = self._outbox[0][count:]
            if not self._outbox[0]:
                del self._outbox[0]

    def _read_replies(self) -> bool:
        """Read what is waiting, never much more than one frame; False at the end of the pipe."""
        while len(self._inbox) <= self._frame_bytes:
            try:
                data = os.read(self._pipes.replies, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._inbox.add(data)
            if len(data) < _CHUNK:
                return True
        return True
