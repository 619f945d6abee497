"""Texts that learners wrote, made fit to be shown and stored. Nothing here imports torch: messages need none."""

from __future__ import annotations

from typing import Any

MOST_TEXT = 600
_CODES = (*range(9), *range(11, 32), *range(127, 160))
"""Control codes of a terminal; tab and line feed are no harm."""
_UNSEEN = (
    0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF,
    *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080),
)  # fmt: skip
"""Marks that show nothing or turn the direction of reading. The joiners U+200C and U+200D belong to the spelling of
Persian, of Indian languages and of emoji: they stay."""
_SPELLED = {code: chr(code).encode("unicode_escape").decode() for code in (*_CODES, *_UNSEEN)}


def printable(text: str) -> str:
    """Return a text as it may be shown and stored: what is no letter, and lone surrogates, are spelled out."""
    return text.translate(_SPELLED).encode("utf-8", "backslashreplace").decode()


def text_of(value: Any) -> str:
    """Return a text that an untrusted process sent: printable, and not without end."""
    return printable(str(value)[:MOST_TEXT])
