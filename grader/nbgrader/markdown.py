"""Make a learner's Markdown harmless: feedback and formgrader show it as HTML, scripts included."""

from __future__ import annotations

import re
from typing import Any

from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import compute_checksum

TAG = re.compile(r"<(?=[A-Za-z/!?])")
ENTITY = re.compile(r"&(?=#|[A-Za-z][A-Za-z0-9]*;)")
SCHEME = re.compile(r"(?i)(javascript|vbscript|data|file)(?=[\s\\]*:)")
MATH_LINK = re.compile(r"\\(?=href)")
ATTACHMENT = re.compile(r"(?i)attachment(?=[\s\\]*:([\w.-]*))", re.ASCII)
NOTHING = "\u200b"
"""A zero-width space: it ends a word for a machine and shows nothing to a person."""


class EscapeMarkdown(NbGraderPreprocessor):  # type: ignore[misc]
    """Shows tags, entities and script links in Markdown and raw cells as the text they are."""

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:  # noqa: ARG002
        """Escape one cell, unless it is as the instructor wrote it."""
        if cell.cell_type == "raw":
            cell.cell_type = "markdown"
        if cell.cell_type == "markdown" and not untouched(cell):
            cell.source = harmless(cell.source, set(cell.get("attachments", {})))
        return cell, resources


def untouched(cell: Any) -> bool:
    """Whether a cell still has the text that was released: nbgrader recognises by it that nothing was answered."""
    checksum = cell.metadata.get("nbgrader", {}).get("checksum")
    return checksum is not None and checksum == compute_checksum(cell)


def harmless(source: str, attached: set[str]) -> str:
    """Return Markdown that makes no tag, no script link and no reference to an attachment that is not there.

    A space after `<` is enough: then it begins no tag, and formulas and code still read well.
    """
    source = TAG.sub("< ", source)
    source = ENTITY.sub(f"&{NOTHING}", source)  # as &amp; it would not do: addresses are decoded twice
    source = SCHEME.sub(rf"\g<0>{NOTHING}", source)
    source = MATH_LINK.sub(rf"\\{NOTHING}", source)
    return ATTACHMENT.sub(lambda m: m[0] if m[1] in attached else m[0] + NOTHING, source)
