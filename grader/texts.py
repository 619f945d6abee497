"""Texts that learners wrote, made fit to be shown and stored. Nothing here imports torch: messages need none."""

from __future__ import annotations

from typing import Any

MOST_TEXT = 600
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Return a text as it may be shown and stored: escape codes for a terminal and lone surrogates are spelled out."""
    return text.translate(_CONTROL).encode("utf-8", "backslashreplace").decode()


def text_of(value: Any) -> str:
    """Return a text that an untrusted process sent: printable, and not without end."""
    return printable(str(value)[:MOST_TEXT])
