"""Findings as sentences, in the language that GRADER_LANG names (en or zh)."""

from __future__ import annotations

import contextlib
import gettext
import os
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grader.texts import printable
from grader.verdict import N_, Finding

if TYPE_CHECKING:
    from grader.sandbox.errors import WorkerError

LOCALES = Path(__file__).parent.parent / "locale"
LANGUAGES = ("en", "zh")
_folders: list[Path] = []
_chosen: ContextVar[str | None] = ContextVar("language", default=None)


SENTENCES = {
    "internal": N_("the grader itself failed; this one has to be graded by hand ({text})"),
    "unreadable": N_("the submission cannot be read: {text}"),
    "broken_cell": N_("the cell that defines it cannot be read: {text}"),
    "raised_in_load": N_("running the cell raised {error}: {text}"),
    "raised": N_("raised {error}: {text}"),
    "raised_in_place": N_(
        "changes a tensor in place that it was given and that must stay as it is: work on a copy "
        "(torch raised {error}: {text})"
    ),
    "raised_in_constructor": N_("building the object raised {error}: {text}"),
    "raised_in_state": N_("the state dict of the contract does not fit the module: {text}"),
    "raised_in_backward": N_("the backward pass raised {error}: {text}"),
    "worker_timeout": N_("did not finish: {text}"),
    "worker_memory": N_("ran out of memory: {text}"),
    "worker_crash": N_("the process died: {text}"),
    "worker_exit": N_("the process ended: {text}"),
    "worker_output": N_("was stopped: {text}"),
    "worker_reply": N_("the answer could not be read: {text}"),
    "worker_closed": N_("was not run: {text}"),
    "type": N_("{path} is of type {got}, wanted {wanted}"),
    "missing": N_("{path} is missing"),
    "length": N_("{path} has {got} parts, wanted {wanted}"),
    "keys": N_("{path} has the keys {got}, wanted {wanted}"),
    "rank": N_("{path} has shape {got}, wanted {wanted}: the number of dimensions differs"),
    "shape": N_("{path} has shape {got}, wanted {wanted}"),
    "dtype": N_("{path} has dtype {got}, wanted {wanted}"),
    "nan": N_("{path}{index} is {got}, wanted {wanted}: nan appears where the true value is a number"),
    "nan_missing": N_("{path}{index} is {got}, wanted {wanted}: nan in the input must show in the result"),
    "inf": N_("{path}{index} is {got}, wanted {wanted}: infinite values differ"),
    "values": N_("{path}{index} is {got}, wanted {wanted} (largest relative error {error}, allowed {limit})"),
    "values_typical": N_(
        "the values of {path} are all a little off: the root mean square of the relative error is {error}, allowed "
        "{limit}; {path}{index} is {got}, wanted {wanted}"
    ),
    "values_exact": N_("{path}{index} is {got}, wanted exactly {wanted}"),
    "plain_value": N_("{path} is {got}, wanted {wanted}"),
    "float32_inside": N_(
        "{path}{index} is {got}, wanted {wanted} (relative error {error}): the input is float64, "
        "but something inside is computed in float32, or a small number is added"
    ),
    "not_raised": N_("returned a result, but must raise {wanted}"),
    "built": N_("was built without an error, but must raise {wanted}"),
    "raised_other": N_("raised {got} ({text}), but must raise {wanted}"),
    "no_gradient": N_("no gradient reaches {path}"),
    "gradient_shape": N_("the gradient of {path} has shape {got}, wanted {wanted}"),
    "gradient_nan": N_("the gradient of {path} is {got} at {index}, wanted {wanted}"),
    "gradient_values": N_(
        "the gradient of {path} is {got} at {index}, wanted {wanted} (largest relative error {error}, allowed {limit})"
    ),
    "graph_kept": N_("{path} carries a graph: it must not require grad"),
    "changed_values": N_("{path} was changed in place; inputs must stay as they are"),
    "changed_replaced": N_("{path} was replaced by something else; inputs must stay as they are"),
    "changed_requires_grad": N_("requires_grad of {path} was switched"),
    "changed_grad": N_("{path}.grad was touched"),
    "changed_size": N_("an input list or dict gained or lost entries"),
    "changed_flags": N_("the training flags or hooks of the module were left changed"),
    "alias": N_("{path} shares memory with {source}; the result must own its memory"),
    "global": N_("the global setting {name!r} was left changed"),
    "generator": N_("the generator was not used as prescribed: other draws, or more or fewer of them"),
    "forbidden": N_("calls torch's own {name}, which this exercise asks you to write yourself ({where})"),
    "forbidden_source": N_("uses {name}, which is not allowed in this exercise ({where})"),
    "orphan": N_("{path} was not made by torch operations that the grader can see"),
    "cost_ops": N_("dispatches {got} operations; at most {limit} are needed (the reference uses {reference})"),
    "cost_matmuls": N_("does {got} matrix products; at most {limit} are needed (the reference uses {reference})"),
    "cost_maxel": N_("makes a tensor of {got} elements; {limit} are enough (the reference's largest has {reference})"),
    "cost_peak": N_("holds {got} bytes at a time; {limit} are enough (the reference holds {reference})"),
    "cost_saved": N_("keeps {got} bytes for backward; {limit} are enough (the reference keeps {reference})"),
    "cost_flops": N_(
        "does {got} floating-point operations; at most {limit} are needed (the reference does {reference})"
    ),
    "cost_moved": N_("reads and writes {got} bytes; {limit} are enough (the reference moves {reference})"),
    "cost_syncs": N_("reads values back to Python {got} times; at most {limit} are needed"),
    "growth_raised": N_("could not be measured as {axis} grows: {error}: {text}"),
    "growth_ops": N_(
        "{first} operations at {axis} {small}, {second} at {axis} {large}: a Python loop over {axis} "
        "(the reference needs {reference})"
    ),
    "growth_matmuls": N_(
        "{first} matrix products at {axis} {small}, {second} at {axis} {large} (the reference needs {reference})"
    ),
    "growth_maxel": N_(
        "the largest tensor grows like {axis} to the power {exponent}, wanted {limit}: {first} elements at {small}, "
        "{second} at {large} (the reference has {reference})"
    ),
    "growth_peak": N_(
        "memory grows like {axis} to the power {exponent}, wanted {limit}: {first} bytes at {small}, {second} at "
        "{large} (the reference holds {reference})"
    ),
    "growth_saved": N_(
        "memory kept for backward grows like {axis} to the power {exponent}, wanted {limit}: {first} bytes at {small}, "
        "{second} at {large}"
    ),
    "growth_moved": N_(
        "memory traffic grows like {axis} to the power {exponent}, wanted {limit}: {first} bytes at {small}, {second} "
        "at {large} (the reference moves {reference})"
    ),
    "growth_flops": N_(
        "floating-point work grows like {axis} to the power {exponent}, wanted {limit}: {first} operations at {small}, "
        "{second} at {large} (the reference does {reference})"
    ),
    "growth_syncs": N_("{first} reads back to Python at {axis} {small}, {second} at {axis} {large}"),
    "device": N_("{path} is not on the device of the inputs ({wanted}): make new tensors with device=x.device"),
    "speed": N_(
        "takes {ratio} times as long as the reference; at most {limit} times is allowed ({pairs} measured pairs)"
    ),
    "speed_stopped": N_("was stopped: it takes far more than {limit} times as long as the reference, which is allowed"),
    "speed_elsewhere": N_("does its work outside of the timed calls: what is asked for is the work of each call"),
    "speed_waits": N_("spends its time waiting, not computing: by the clock on the wall it is far over the limit"),
}
"""One sentence per kind of finding. A sentence continues "your function ..."."""


def hint_text(number: int, hints: tuple[str, ...]) -> str:
    """Write one of an exercise's hints with its number: the last one, and that it is the last, beyond them."""
    count = len(hints)
    shown = max(1, min(number, count))
    hint = translate(
        N_("hint {number} of {count}: {hint}"), number=shown, count=count, hint=translate(hints[shown - 1])
    )
    return hint if number <= count else hint + "\n" + translate(N_("there are no more hints"))


def add_texts(folder: Path) -> None:
    """Look for texts in a folder's catalogues too: a course brings its own."""
    if folder not in _folders:
        _folders.append(folder)
        catalogue.cache_clear()


@lru_cache
def catalogue(language: str) -> gettext.NullTranslations:
    """Load the catalogues of a language; English needs none."""
    found = gettext.translation("grader", LOCALES, languages=[language], fallback=True)
    for folder in _folders:
        for path in sorted((folder / language / "LC_MESSAGES").glob("*.mo")):
            with path.open("rb") as file:
                found.add_fallback(gettext.GNUTranslations(file))
    return found


def language() -> str:
    """Return the language to speak: the one that was chosen, or GRADER_LANG, or else English."""
    wanted = (_chosen.get() or os.environ.get("GRADER_LANG", "en")).split("_")[0].lower()
    return wanted if wanted in LANGUAGES else "en"


INSTEAD = {
    "getattr": N_("write the attribute out, or choose from a dictionary: dict(relu=F.relu)[name]"),
    "setattr": N_("set attributes of `self` or of your own objects, and write their names out"),
    "numpy": N_("write it with torch, and single numbers with math"),
    "matplotlib": N_("draw outside of your answer"),
    "tqdm": N_("progress bars are not installed where answers are graded: go through the range itself"),
    "open": N_("an answer reads and writes no files: leave that out"),
    "pdb": N_("take the debugging out before you hand in"),
    "value": N_("use a module as `torch.nn`, or under a name of its own: nn = torch.nn"),
    "changed": N_("what belongs to torch or Python stays as it is; for your own objects, take another name"),
    "names": N_("name the attributes: Point(x=a, y=b)"),
}
"""What to write instead of some of what a source may not contain, by its first or last word."""
ALIKE = {"delattr": "setattr", "breakpoint": "pdb", "input": "pdb"}


@contextlib.contextmanager
def speaking(language: str) -> Iterator[None]:
    """Speak a language, whatever GRADER_LANG says."""
    before = _chosen.set(language)
    try:
        yield
    finally:
        _chosen.reset(before)


def translate(text: str, /, **facts: Any) -> str:
    """Return a text in the current language, filled in."""
    found = catalogue(language()).gettext(text)
    return found.format(**facts) if facts else found


def said(error: WorkerError) -> str:
    """Say how a sandboxed process ended."""
    return translate(error.message, **error.facts)


def sentence(finding: Finding) -> str:
    """Say a finding in one sentence, without its case."""
    facts = {key: readable(value) for key, value in finding.facts.items()}
    if "got" in facts and facts["got"] == facts.get("wanted"):  # they differ further on
        facts |= {key: repr(finding.facts[key]) for key in ("got", "wanted")}
    facts["index"] = str(list(finding.facts.get("index", []))) if finding.facts.get("index") else ""
    if "axis" in facts:
        facts["axis"] = translate(str(facts["axis"]))
    if finding.check == "forbidden":
        facts["where"] = place(str(finding.facts.get("cell", "")), int(finding.facts.get("line", 0)))
    said = catalogue(language()).gettext(SENTENCES[finding.kind]).format_map(facts)
    return f"{said}{instead(str(facts['name']))}" if finding.kind == "forbidden_source" else said


def instead(name: str) -> str:
    """Say what to write instead of a forbidden name, as the end of a sentence; nothing where that is plain."""
    words = (name.split(".")[0].split()[0], name.split()[-1]) if name.strip() else ()
    found = next((INSTEAD[key] for word in words if (key := ALIKE.get(word, word)) in INSTEAD), None)
    return f": {translate(found)}" if found else ""


def place(cell: str, line: int) -> str:
    """Name a place in the learner's code, a notebook's cell or a file."""
    if not cell and not line:
        return translate(N_("somewhere inside"))
    label = cell.strip("<>").removeprefix("cell ")
    if label.isdecimal():
        return translate(N_("cell {number}, line {line}"), number=label, line=line)
    return translate(N_("{file}, line {line}"), file=label, line=line)


def readable(value: Any) -> Any:
    """Format numbers for reading, and texts so that they do nothing but be read."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else value
    return value
