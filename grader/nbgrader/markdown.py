"""Make a learner's Markdown harmless: feedback and formgrader show it as HTML, scripts included."""

from __future__ import annotations

import re
from typing import Any

from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import compute_checksum

from grader.render.messages import translate
from grader.verdict import N_

TAG = re.compile(r"<(?=[A-Za-z/!?])")
ENTITY = re.compile(r"&(?=#|[A-Za-z][A-Za-z0-9]*;)")
SCHEME = re.compile(r"(?i)(javascript|vbscript|data|file)(?=[\s\\]*:)")
MATH_LINK = re.compile(r"\\(?=href)")
ATTACHMENT = re.compile(r"(?i)attachment(?=[\s\\]*:([\w.-]*))", re.ASCII)
MOST_IN_CELL, MOST_IN_ALL = 2**14, 2**17
"""Characters: ten times as many as a lesson has. Some texts cost nbconvert the square of their length."""
MOST_PICTURES = 20
"""Pictures in one cell: each time that one is shown, the page holds all of it once more."""
CUT = N_("cut here: feedback shows {most:,} characters of a cell, and {all:,} of a notebook")
NOTHING = "\u200b"
"""A zero-width space: it ends a word for a machine and shows nothing to a person."""


class EscapeMarkdown(NbGraderPreprocessor):  # type: ignore[misc]
    """Shows tags, entities and script links in Markdown and raw cells as the text they are; not without end."""

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Escape every cell, unless it is as the instructor wrote it."""
        left = MOST_IN_ALL
        for cell in nb.cells:
            if cell.cell_type == "raw":
                cell.cell_type = "markdown"
            if cell.cell_type == "markdown" and not untouched(cell):
                text = beginning(cell.source, min(left, MOST_IN_CELL))
                left = max(left - len(text), 0)
                cell.source = harmless(text, set(cell.get("attachments", {})))
        return nb, resources


def beginning(source: str, most: int) -> str:
    """Return so many characters of a text; if there are more, with a note that says so."""
    if len(source) <= most:
        return source
    return source[:most] + f"\n\n({translate(CUT, most=MOST_IN_CELL, all=MOST_IN_ALL)})"


def untouched(cell: Any) -> bool:
    """Whether a cell still has the text that was released: nbgrader recognises by it that nothing was answered."""
    checksum = cell.metadata.get("nbgrader", {}).get("checksum")
    return checksum is not None and checksum == compute_checksum(cell)


def harmless(source: str, attached: set[str]) -> str:
    """Return Markdown that makes no tag, no script link and no reference to an attachment that is not there.

    Where very many pictures are shown, none is.

    A space after `<` is enough: then it begins no tag, and formulas and code still read well.
    """
    attached = attached if source.count("![") <= MOST_PICTURES else set()
    source = TAG.sub("< ", source)
    source = ENTITY.sub(f"&{NOTHING}", source)  # as &amp; it would not do: addresses are decoded twice
    source = SCHEME.sub(rf"\g<0>{NOTHING}", source)
    source = MATH_LINK.sub(rf"\\{NOTHING}", source)
    return ATTACHMENT.sub(lambda m: m[0] if m[1] in attached else m[0] + NOTHING, source)
