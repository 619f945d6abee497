"""Frames of bytes on a pipe: a length, then that many bytes."""

import os
import struct

_LENGTH = struct.Struct(">Q")


class FrameError(Exception):
    """What came is not a frame that can be accepted."""


def header(frame: bytes) -> bytes:
    """Return the bytes that announce a frame."""
    return _LENGTH.pack(len(frame))


class Inbox:
    """Collect bytes as they come and hand out whole frames.

    Args:
        cap: the largest frame accepted. Memory grows with what has come, never with what was announced.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, data: bytes) -> None:
        """Append what was read from the pipe."""
        self._bytes += data

    def take(self) -> bytes | None:
        """Return the next whole frame, or None while it is incomplete.

        Raises:
            FrameError: the frame is announced as larger than the cap.
        """
        if len(self._bytes) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes)
        if length > self._cap:
            raise FrameError(length)
        end = _LENGTH.size + length
        if len(self._bytes) < end:
            return None
        frame = bytes(memoryview(self._bytes)[_LENGTH.size : end])
        del self._bytes[:end]
        return frame


def _read_exactly(descriptor: int, count: int) -> bytes:
    """Read `count` bytes, waiting for them.

    Raises:
        EOFError: the other side has gone.
    """
    data = bytearray()
    while len(data) < count:
        more = os.read(descriptor, min(count - len(data), 1 << 20))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


def read(descriptor: int) -> bytes:
    """Wait for one frame (the child's side: what it reads comes from the grader)."""
    (length,) = _LENGTH.unpack(_read_exactly(descriptor, _LENGTH.size))
    return _read_exactly(descriptor, length)


def write(descriptor: int, frame: bytes) -> None:
    """Write one frame, waiting until all of it is in the pipe."""
    for part in (header(frame), frame):
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]
