"""The texts of notebooks, block by block: what a translator is given, and what takes a block's place in a language.

A block is a paragraph of a lesson or of a contract: whatever stands between two blank lines.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from grader.parsing import parse
from grader.render.messages import translate

BETWEEN = re.compile(r"\n[ \t]*\n")
NOT_WORDS = re.compile(r"\$\$.*?\$\$|\$.*?\$|`[^`]*`|<[^>]*>", re.DOTALL)
"""Formulas, code and tags of a lesson."""
WORDS_INSIDE = re.compile(r"\\text\{[^}]*[a-z] [^}]*\}")
"""Words in a formula."""
QUOTED = re.compile(r'^([rR]?""")(.*?)(\s*""")$', re.DOTALL)


def blocks(text: str) -> Iterator[str]:
    """Yield the blocks of a text that say something in words; formulas, tables of numbers and examples do not."""
    for block in BETWEEN.split(text.strip()):
        if ">>> " not in block and (re.search(r"[A-Za-z]{2}", NOT_WORDS.sub("", block)) or WORDS_INSIDE.search(block)):
            yield block


def translated(text: str) -> str:
    """Return a text in the current language; a block that nobody has translated stays as it is."""
    return "\n\n".join(translate(block) for block in BETWEEN.split(text))


def docstrings(source: str) -> Iterator[str]:
    """Yield the docstrings of a program as they are written, without quotes and indentation."""
    for node in quoted_in(source):
        _, text, _ = parts_of(ast.get_source_segment(source, node) or "", node.col_offset)
        yield text


def with_docstrings(source: str, change: Callable[[str], str]) -> str:
    """Return a program with its docstrings changed."""
    lines = source.split("\n")
    for node in reversed(quoted_in(source)):
        indent = " " * node.col_offset
        before, text, after = parts_of(ast.get_source_segment(source, node) or "", node.col_offset)
        new = change(text).split("\n")
        new = [new[0], *(indent + line if line else "" for line in new[1:])]
        lines[node.lineno - 1 : node.end_lineno] = (indent + before + "\n".join(new) + after).split("\n")
    return "\n".join(lines)


def quoted_in(source: str) -> list[ast.Constant]:
    """Return the docstrings of functions and classes, in the order in which they stand."""
    lines = source.split("\n")
    firsts = (node.body[0] for node in ast.walk(parse(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    values = (first.value for first in firsts if isinstance(first, ast.Expr))
    texts = (v for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str))
    alone = (text for text in texts if not lines[text.lineno - 1][: text.col_offset].strip())
    return sorted(alone, key=lambda text: text.lineno)


def parts_of(quoted: str, indent: int) -> tuple[str, str, str]:
    """Split a docstring into opening quotes, text without indentation, and closing quotes."""
    matched = QUOTED.match(quoted)
    if matched is None:
        return quoted, "", ""
    before, text, after = matched.groups()
    return before, re.sub(rf"^ {{{indent}}}", "", text, flags=re.MULTILINE), after
