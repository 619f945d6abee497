"""Verdicts as HTML fragments for notebooks and feedback. Everything a learner controls is escaped."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from grader.render.messages import translate
from grader.render.text import STATUS, by_case, case_name, hint_line, most_telling, places, points_of, what_is_wrong
from grader.verdict import ERROR, FAILED, N_, PARTLY, PASSED, Verdict

COLOURS = {PASSED: "#1a7f37", PARTLY: "#9a6700", FAILED: "#cf222e", ERROR: "#cf222e"}
TEMPLATE = """
<div style="border-left:4px solid {{ colour }};padding:.4em .9em;margin:.3em 0;max-width:60em;line-height:1.45">
  <div><b>{{ verdict.name }}</b> &nbsp; <span style="color:{{ colour }};font-weight:600">{{ status }}</span>
    &nbsp; {{ points }}</div>
  {%- for row in rows %}
  <div style="margin-top:.45em"><b>{{ row.case }}</b>{{ colon }}{{ row.text }}
    {%- if row.snippet %}<br><code style="font-size:90%;white-space:pre-wrap">{{ row.snippet }}</code>{% endif %}
    {%- for place in row.places %}<br><span style="color:#57606a;font-size:90%">{{ place }}</span>{% endfor %}
  </div>
  {%- endfor %}
  {%- if more %}<div style="margin-top:.45em;color:#57606a">{{ more }}</div>{% endif %}
  {%- if verdict.hint %}
  <div style="margin-top:.6em;padding:.4em .7em;background:rgba(84,174,255,.15);border-radius:4px">{{ hint }}</div>
  {%- endif %}
  {%- for note in notes %}<div style="margin-top:.45em;color:#57606a">{{ note }}</div>{% endfor %}
</div>
"""


@lru_cache
def template() -> Any:
    """Compile the template; jinja2 is imported only when HTML is wanted."""
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(TEMPLATE)


def html(verdict: Verdict) -> str:
    """Write a verdict as an HTML fragment."""
    wrong = by_case(verdict)
    shown = most_telling(wrong)
    rows = [
        {
            "case": case_name(f),
            "text": what_is_wrong(f),
            "snippet": f.snippet,
            "places": places(f),
        }
        for f in shown
    ]
    left = len(wrong) - len(shown)
    notes = [translate(reason) for reason in verdict.untested]
    if verdict.passed and verdict.hidden_left:
        notes.append(translate(N_("all public checks passed; hidden checks run at grading")))
    rendered: str = template().render(
        verdict=verdict,
        colour=COLOURS.get(verdict.status, "#57606a"),
        status=translate(STATUS[verdict.status]),
        points=points_of(verdict.points, verdict.max_points),
        rows=rows,
        colon=translate(N_(": ")),
        more=translate(N_("and {count} more cases"), count=left) if left > 0 else "",
        hint=hint_line(verdict),
        notes=notes,
    )
    return rendered.strip()
